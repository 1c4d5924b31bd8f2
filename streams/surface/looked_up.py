"""Joins of a stream with a table as a program writes them: arguments, repartition of a re-keyed stream, the node.

Not here: the methods (stream), joins of two streams (joins), what joins do (operators/lookup).
"""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tailrace.streams.operators.global_join import GlobalJoin
from tailrace.streams.operators.join import JoinKind
from tailrace.streams.operators.lookup import StreamTableJoin
from tailrace.streams.operators.versioned import versioned_source
from tailrace.streams.operators.waiting import WaitingJoin
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.flow import Flow, checked_name, checked_store, repartitioned
from tailrace.streams.values.derived import Slot, made_slot, returned
from tailrace.streams.values.place import Place, check_function, user_place
from tailrace.windows.duration import format_ms, to_ms


def same_app(flow: Flow, other: Flow, where: str) -> None:
    """Refuses what another app declared."""
    if flow.graph is not other.graph:
        raise ValueError(f"{where} was given what another app declared: join what one app reads")


def options_of(where: str, what: str, options: dict[str, Any], join: Callable[..., Flow]) -> dict[str, Any]:
    """The options of a call, after all of them were found to be for this kind of join.

    Raises:
        TypeError: one is not.
    """
    for name in options:
        if name not in inspect.signature(join).parameters:
            raise TypeError(f"{where} with {what} takes no {name}=")
    return options


def looked_up(
    where: JoinKind,
    flow: Flow,
    table: Flow,
    f: Callable[[Any, Any], Any],
    *,
    grace: timedelta | None = None,
    store: object = None,
    value: Any = None,
) -> Flow:
    """The flow of a stream joined with a table; `where` is the method that was called."""
    wait_ms = 0 if grace is None else _wait_ms(where, grace, store)
    place, left = user_place(), where == "left_join"
    same_app(flow, table, where)
    checked_name(flow.graph, where, f, where)
    if flow.rekeyed:
        named = f"{_store_of(table)}-join" if store is None else checked_store(store, where)
        flow = repartitioned(flow, named, place, keeps_null_keys=left)
    flow.key.need()
    table.key.need()
    name = flow.graph.name_for(where.replace("_", "-"))
    operator: StreamTableJoin
    common: dict[str, Any] = {"name": name, "place": place, "f": f, "left": left}
    common |= {"key": flow.key, "table_key": table.key, "table_place": _place_of(table)}
    if grace is None:
        operator = StreamTableJoin(**common)
    else:
        versioned = versioned_source(flow.graph.nodes.__getitem__, flow.graph.nodes[table.origin.node])
        operator = WaitingJoin(
            **common,
            store_name=checked_store(store, where),
            wait_ms=wait_ms,
            value=flow.value,
            history_ms=None if versioned is None else versioned.history_ms,
        )
    return beside(flow, table, operator, made_slot("value", name, place, value, returned(f)))


def found_in(
    where: JoinKind,
    flow: Flow,
    table: GlobalTable[Any, Any],
    f: Callable[[Any, Any], Any],
    *,
    on: Callable[[Any, Any], Any] | None = None,
    value: Any = None,
) -> Flow:
    """The flow of a stream joined with a global table; `where` is the method that was called."""
    place, graph = user_place(), flow.graph
    if on is None:
        raise TypeError(f"{where} with a global table needs on=, a function of key and value that returns its key")
    if table not in graph.global_tables:
        raise ValueError(f"{where} was given what another app declared: join what one app reads")
    name = checked_name(graph, where.replace("_", "-"), f, where)
    check_function(on, f"{where}(on=…)")
    operator = GlobalJoin(name=name, place=place, table=table, f=f, on=on, left=where == "left_join")
    return flow.then(operator, value=made_slot("value", name, place, value, returned(f)))


def _wait_ms(where: str, grace: timedelta, store: object) -> int:
    wait_ms = to_ms(grace, "grace")
    if wait_ms < 0:
        raise ValueError(f"{where}: grace={format_ms(wait_ms)} is negative")
    if store is None:
        raise TypeError(f"{where}(grace=…) keeps the records that wait: name their store with store=")
    return wait_ms


def beside(flow: Flow, other: Flow, operator: Any, value: Slot) -> Flow:
    """A node after two flows; what comes out has the key of the first one."""
    node = flow.graph.add(operator, [flow.origin, other.origin])
    return Flow(flow.graph, Input(node.id), flow.key, value, rekeyed=flow.rekeyed)


def _place_of(flow: Flow) -> Place:
    return flow.graph.nodes[flow.origin.node].place


def _store_of(table: Flow) -> str:
    """The name of the store that a table's rows stand in, or come from."""
    nodes, node = table.graph.nodes, table.graph.nodes[table.origin.node]
    while not node.operator.stores:
        node = nodes[node.parents[0].node]
    return node.operator.stores[0].name
