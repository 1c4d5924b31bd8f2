"""Foreign-key joins as a program writes them: three nodes and the two repartitions between them.

Not here: what the nodes do (operators/subscribing), and the methods (table).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tailrace.streams.operators.foreign import AnswerSlot, ForeignLookup, ForeignResult, Subscribe, SubscriptionSlot
from tailrace.streams.operators.table import TableSource, ToStream
from tailrace.streams.operators.views import kept_below
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.flow import Flow, checked_store, repartitioned
from tailrace.streams.values.derived import made_slot, returned
from tailrace.streams.values.place import Place, check_function, user_place


def join_foreign(
    where: str,
    left: Flow,
    right: Flow,
    f: Callable[[Any, Any], Any],
    on: object,
    store: object,
    of: Any,
    *,
    inner: bool,
) -> Flow:
    """The table that a foreign-key join makes; `where` is the method that was called, `of` its `value=`.

    Raises:
        TypeError: `f` or `on` is no plain function, or `store` no name.
        TopologyError: the right table keeps no rows that could be looked up.
    """
    graph, place, name = left.graph, user_place(), checked_store(store, where)
    check_function(f, f"{where}(store={name!r})")
    refers_to: Any = on
    check_function(refers_to, f"{where}(store={name!r}, on=…)")
    if graph.feeds(right.origin, left.origin):
        # Nothing may be sent back to a task that comes before: the other table is looked up in a task of its own.
        right = _copied(right, f"{name}-right", place)
    kept_below(graph.nodes.__getitem__, graph.nodes[right.origin.node], place)
    for slot in (left.key, right.key):
        slot.need()
    made_by = graph.name_for(where.replace("_", "-"))
    subscribe = Subscribe(
        name=graph.name_for("subscribe"),
        place=place,
        f=refers_to,
        of=returned(refers_to),
        inner=inner,
        right_key=right.key,
    )
    sent = left.then(subscribe, key=right.key, value=SubscriptionSlot(left.key, left.value))
    there = repartitioned(sent, f"{name}-subscription", place, keeps_null_keys=True)
    value = made_slot("value", made_by, place, of, returned(f))
    lookup = ForeignLookup(
        name=graph.name_for("foreign-lookup"),
        place=place,
        store_name=f"{name}-subscriptions",
        f=f,
        inner=inner,
        left_key=left.key,
        left_value=left.value,
        right_key=right.key,
        made=value,
    )
    joined = Flow(graph, Input(graph.add(lookup, [there.origin, right.origin]).id), left.key, AnswerSlot(value))
    back = repartitioned(joined, f"{name}-response", place)
    result = ForeignResult(
        name=graph.name_for("foreign-result"), place=place, store_name=name, key=left.key, value=value
    )
    return back.then(result, value=value)


def _copied(table: Flow, name: str, place: Place) -> Flow:
    """The table once more, in a task of its own."""
    graph = table.graph
    table.key.need()
    changes = table.then(ToStream(name=graph.name_for("to-stream"), place=place))
    there = repartitioned(changes, name, place)
    source = TableSource(name=graph.name_for("table"), place=place, store_name=name, key=table.key, value=table.value)
    return replace(there.then(source), rekeyed=False)
