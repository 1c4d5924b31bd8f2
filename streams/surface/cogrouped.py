"""The fluent surface of streams that are folded together: several groupings, each with a function, and one aggregate.

Nothing is added to the graph until the aggregate is made.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tailrace.streams.operators.aggregate import Emit
from tailrace.streams.operators.cogroup import Cogroup
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.flow import Flow, checked_store
from tailrace.streams.surface.grouping import Fold, Grouping, LateRecords
from tailrace.streams.surface.table import Table
from tailrace.streams.values.derived import UNKNOWN, merged_slot, returned, zero_slot
from tailrace.streams.values.place import Place, check_function, user_place
from tailrace.windows.window import Window, checked_window
from tailrace.windows.windowed import Windowed

if TYPE_CHECKING:
    from tailrace.streams.surface.grouped import Grouped
    from tailrace.streams.surface.stream import Stream

K = TypeVar("K")
A = TypeVar("A")
V2 = TypeVar("V2")

Side = tuple[Grouping, Callable[[Any, Any], Any]]
"""One of the streams, and what adds its values."""


class Cogrouped(Generic[K, A]):
    """Several grouped streams that are folded into one value for each key; made by `Grouped.cogroup`.

    Records with a null key or a null value are left out (counted as dropped: "null_key", "null_value"). A function
    that returns None deletes the key.
    """

    def __init__(self, sides: Sequence[Side], grouping_of: Callable[[object], Grouping | None]) -> None:
        """Programs get theirs from `Grouped.cogroup`."""
        self._sides = sides
        self._grouping_of = grouping_of

    def cogroup(self, other: "Grouped[K, V2]", add: Callable[[A, V2], A | None]) -> "Cogrouped[K, A]":
        """Adds another grouped stream, whose values are folded in by `add(so far, new)`.

        Raises:
            TypeError: `other` is no grouped stream, or `add` no plain function.
            ValueError: it is of another app.
        """
        grouping = self._grouping_of(other)
        if grouping is None:
            raise TypeError(f"cogroup takes a grouped stream, as stream.group_by(f) makes it, and not {other!r}")
        if grouping.flow.graph is not self._sides[0][0].flow.graph:
            raise ValueError("cogroup was given a stream of another app: bring them together by a topic")
        check_function(add, "cogroup")
        return Cogrouped([*self._sides, (grouping, add)], self._grouping_of)

    def windowed_by(self, window: Window) -> "WindowedCogrouped[K, A]":
        """Makes the aggregate count by window: `tumbling`, `hopping`, `sliding`, `session`, `unlimited`.

        Raises:
            TypeError: no window.
        """
        return WindowedCogrouped(self._sides, checked_window(window))

    def aggregate(self, zero: Callable[[], A], *, store: str, value: type[A] | None = None) -> Table[K, A]:
        """Folds the values of a key by the function of the stream that each came from, beginning with `zero()`.

        `value` names the type of the result where neither the annotation of a function nor `zero()` tells it.
        """
        place = user_place()
        return Table(_made(self._sides, _fold(self._sides, zero, store, value, place), place), self._sides[0][0].stream)


class WindowedCogrouped(Generic[K, A]):
    """Several grouped streams in windows; made by `Cogrouped.windowed_by`."""

    def __init__(self, sides: Sequence[Side], window: Window) -> None:
        """Programs get theirs from `Cogrouped.windowed_by`."""
        self._sides = sides
        self._window = window
        self._late = LateRecords()

    @property
    def late(self) -> "Stream[K, Any]":
        """The records of all streams that came after all of their windows had closed, as they came."""
        flows, place = [grouping.flow for grouping, _ in self._sides], user_place()
        first = flows[0]
        key, value = (merged_slot([getattr(flow, part) for flow in flows], place) for part in ("key", "value"))
        return self._late.of(Flow(first.graph, first.origin, key, value), self._sides[0][0].stream)

    def aggregate(
        self,
        zero: Callable[[], A],
        *,
        store: str,
        merge: Callable[[A, A], A] | None = None,
        emit: Emit = "update",
        value: type[A] | None = None,
    ) -> Table[Windowed[K], A]:
        """Folds the values of a key in a window by the function of the stream that each came from.

        `merge` puts the results of two sessions together, the earlier one first: for sessions it is needed, for other
        windows refused. `emit="update"` sends a window's result as it changes, `emit="close"` once, when it has closed.

        Raises:
            TypeError: `merge` is missing for a session window, or given for another.
        """
        place = user_place()
        fold = _fold(self._sides, zero, store, value, place).merged_by(merge, self._window)
        flow = _made(self._sides, fold.within(self._window, emit, None), place)
        self._late.made(flow)
        return Table(flow, self._sides[0][0].stream)


def _fold(sides: Sequence[Side], zero: Callable[[], Any], store: str, value: Any, place: Place) -> Fold:
    name = checked_store(store, "aggregate")
    where = f"aggregate(store={name!r})"
    check_function(zero, f"aggregate(store={name!r}, zero=…)")
    adds = [add for _, add in sides]
    telling = next((add for add in adds if returned(add) is not UNKNOWN), adds[0])
    return Fold("aggregate", name, zero_slot(where, place, zero, value, telling), zero=zero)


def _made(sides: Sequence[Side], fold: Fold, place: Place) -> Flow:
    """Adds the repartitions that are needed, each grouping's once, and the aggregate."""
    flows: dict[int, Flow] = {}
    for number, (grouping, _) in enumerate(sides, 1):
        if id(grouping) not in flows:
            flows[id(grouping)] = grouping.repartitioned(f"{fold.store}-{number}")
    parents = [flows[id(grouping)] for grouping, _ in sides]
    graph, key = parents[0].graph, merged_slot([flow.key for flow in parents], place)
    key.need()
    adds = tuple(add for _, add in sides)
    operator = fold.operator(Cogroup, graph.name_for("cogroup"), place, key, adds=adds)
    node = graph.add(operator, [flow.origin for flow in parents])
    return Flow(graph, Input(node.id), fold.key(key), fold.value)
