"""Joins as a program writes them: their arguments, the repartition of a side whose key was changed, and the node.

Not here: what a join does (operators/joining), and its methods (stream).
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tailrace.streams.operators.join import JoinKind, StreamJoin
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.flow import Flow, checked_store, repartitioned
from tailrace.streams.values.derived import made_slot, merged_slot, returned
from tailrace.streams.values.place import Place, check_function, user_place
from tailrace.windows.duration import format_ms, to_ms
from tailrace.windows.join import JoinWindow

_NONE = timedelta(0)


def joined(
    join: JoinKind,
    left: Flow,
    right: Flow,
    f: Callable[[Any, Any], Any],
    *,
    store: object = None,
    within: timedelta | None = None,
    before: timedelta | None = None,
    after: timedelta | None = None,
    grace: timedelta = _NONE,
    value: Any = None,
) -> Flow:
    """The results of joining two streams, by the arguments of `Stream.join`; raises as the two that it calls."""
    return join_streams(join, left, right, f, store, join_window(join, within, before, after, grace), value)


def join_streams(
    join: JoinKind, left: Flow, right: Flow, f: Callable[[Any, Any], Any], store: object, window: JoinWindow, value: Any
) -> Flow:
    """The results of joining two streams.

    Raises:
        TypeError: `f` is no plain function, or `store` no name.
        ValueError: the streams belong to two apps.
    """
    graph, place, name = left.graph, user_place(), checked_store(store, join)
    check_function(f, f"{join}(store={name!r})")
    if right.graph is not graph:
        raise ValueError(f"{join}(store={name!r}) was given a stream of another app: join them by a topic")
    of_itself = left.origin == right.origin and window.takes_itself
    key = merged_slot([left.key, right.key], place)
    key.need()
    left_side = _partitioned(left, name if of_itself else f"{name}-left", place, keeps_null_keys=join != "join")
    right_side = (
        left_side if of_itself else _partitioned(right, f"{name}-right", place, keeps_null_keys=join == "outer_join")
    )
    made_by = graph.name_for(join.replace("_", "-"))
    slot = made_slot("value", made_by, place, value, returned(f))
    operator = StreamJoin(
        name=made_by,
        place=place,
        store_name=name,
        join=join,
        f=f,
        window=window,
        of_itself=of_itself,
        key=key,
        left=left.value,
        right=right.value,
    )
    node = graph.add(operator, [left_side.origin] if of_itself else [left_side.origin, right_side.origin])
    return Flow(graph, Input(node.id), key, slot)


def _partitioned(flow: Flow, name: str, place: Place, *, keeps_null_keys: bool) -> Flow:
    return repartitioned(flow, name, place, keeps_null_keys=keeps_null_keys) if flow.rekeyed else flow


def join_window(
    where: str, within: timedelta | None, before: timedelta | None, after: timedelta | None, grace: timedelta
) -> JoinWindow:
    """The window that a join's arguments say: `within` on both sides, but where `before` or `after` is given.

    Raises:
        TypeError: none of the three is given, or one is no timedelta.
        ValueError: one is no whole number of milliseconds; `within` or `grace` is negative; nothing can lie between.
    """
    if within is None and before is None and after is None:
        raise TypeError(f"{where} needs within=, or before= and after=: how far apart the records of a pair may be")
    within_ms = 0 if within is None else to_ms(within, "within")
    if within_ms < 0:
        raise ValueError(f"{where}: within={format_ms(within_ms)} is negative")
    return JoinWindow(
        before_ms=within_ms if before is None else to_ms(before, "before"),
        after_ms=within_ms if after is None else to_ms(after, "after"),
        grace_ms=to_ms(grace, "grace"),
    )


def late_of(flow: Flow) -> Flow:
    """The late records of the join that a flow is the result of.

    Raises:
        ValueError: it is not the result of one.
    """
    node = flow.graph.nodes[flow.origin.node]
    join = node.operator
    if not isinstance(join, StreamJoin) or flow.origin.output != "main":
        raise ValueError(
            f"{node.name} at {node.place} has no late: take .late from what a join of two streams returned, before any "
            "map or filter of it, or from what windowed_by() returned"
        )
    value = merged_slot([join.left, join.right], user_place())
    return replace(flow, origin=Input(node.id, "late"), value=value)
