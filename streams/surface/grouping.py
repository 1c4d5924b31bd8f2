"""What aggregates are made of: a grouping of a stream, what is folded, in which windows, and the late records.

Not here: the methods that programs call (grouped, cogrouped), what aggregates do (operators/aggregates).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from tailrace.streams.operators.aggregate import Aggregate, Emit, WindowClock
from tailrace.streams.program.io import Late
from tailrace.streams.program.reduced import Reduced
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.flow import Flow, repartitioned
from tailrace.streams.values.derived import Slot, WindowedSlot
from tailrace.streams.values.place import Place, check_function, user_place
from tailrace.windows.duration import format_ms, to_ms
from tailrace.windows.session import SessionWindow
from tailrace.windows.unlimited import UnlimitedWindow
from tailrace.windows.window import Window

if TYPE_CHECKING:
    from tailrace.streams.surface.stream import Stream

Function = Literal["count", "reduce", "aggregate", "agg"]


@dataclass(frozen=True)
class Fold:
    """What an aggregate is made of, apart from where it stands."""

    function: Function
    store: str
    value: Slot
    zero: Callable[[], Any] | None = None
    add: Callable[[Any, Any], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    reduced: Reduced | None = None
    window: Window | None = None
    emit: Emit = "update"
    retention_ms: int | None = None
    clock: WindowClock = "task"
    idle_after_ms: int | None = None

    def merged_by(self, merge: Callable[[Any, Any], Any] | None, window: Window) -> "Fold":
        """The same with what puts the results of two sessions together.

        Raises:
            TypeError: it is missing for sessions, or given for another window.
        """
        is_session, where = isinstance(window, SessionWindow), f"aggregate(store={self.store!r}"
        if is_session and merge is None:
            raise TypeError(f"{where}) in sessions needs merge=, a function that makes one of two results")
        if merge is not None:
            check_function(merge, f"{where}, merge=…)")
            if not is_session:
                raise TypeError(f"{where}, merge=…) is for sessions: {window} never merges")
        return replace(self, merge=merge)

    def within(self, window: Window, emit: Emit, retention: timedelta | None) -> "Fold":
        """The same in windows.

        Raises:
            ValueError: an argument does not fit the window.
        """
        if emit not in ("update", "close"):
            raise ValueError(f'emit={emit!r} is neither "update" nor "close"')
        if emit == "close" and isinstance(window, UnlimitedWindow):
            raise ValueError('emit="close" never sends anything of an unlimited window: use emit="update"')
        least = window.retention_ms
        retention_ms = least if retention is None else to_ms(retention, "retention")
        if retention_ms < least:
            raise ValueError(
                f"retention={format_ms(retention_ms)} is shorter than the {format_ms(least)} in which {window} may "
                "still change"
            )
        return replace(self, window=window, emit=emit, retention_ms=retention_ms)

    def operator(self, kind: type[Aggregate], name: str, place: Place, key: Slot, **more: Any) -> Aggregate:
        """The node's data."""
        return kind(
            name=name,
            place=place,
            store_name=self.store,
            function=self.function,
            zero=self.zero,
            add=self.add,
            merge=self.merge,
            reduced=self.reduced,
            window=self.window,
            emit=self.emit,
            retention_ms=self.retention_ms,
            clock=self.clock,
            silence_ms=self.idle_after_ms,
            key=key,
            value=self.value,
            **more,
        )

    def key(self, key: Slot) -> Slot:
        """The slot of the result's keys, given that of the records'."""
        return WindowedSlot(key, self.window) if self.window is not None else key


class Grouping:
    """What the aggregates of one grouping share: the stream that they are made of, and its repartition."""

    def __init__(
        self, flow: Flow, stream: "type[Stream[Any, Any]]", place: Place, *, name: str | None, partitions: int | None
    ) -> None:
        self.flow = flow
        self.stream = stream
        self._place = place
        self._name = name
        self._partitions = partitions
        self._shared: Flow | None = None

    def fold(self, fold: Fold, place: Place) -> Flow:
        """Adds the repartition where one is needed, and the aggregate."""
        flow = self.repartitioned(fold.store)
        operator = fold.operator(Aggregate, flow.graph.name_for(fold.function), place, flow.key)
        return flow.then(operator, key=fold.key(flow.key), value=fold.value, rekeyed=False)

    def repartitioned(self, name: str) -> Flow:
        """The stream where its keys are: behind a repartition, if they were changed; named so unless by the program."""
        flow = self.flow
        flow.key.need()
        if not flow.rekeyed:
            return flow
        if self._shared is not None:
            return self._shared
        after = repartitioned(flow, self._name or name, self._place, partitions=self._partitions)
        if self._name is not None:
            self._shared = after
        return after


class LateRecords:
    """The late records of a windowed grouping: those of the first aggregate that is made of it."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._late: int | None = None

    def of(self, flow: Flow, stream: "type[Stream[Any, Any]]") -> "Stream[Any, Any]":
        """The stream of them; `flow` has the types."""
        graph = flow.graph
        if self._late is None:
            parents = [] if self._first is None else [Input(self._first, "late")]
            self._late = graph.add(Late(name=graph.name_for("late"), place=user_place()), parents).id
        return stream(replace(flow, origin=Input(self._late), rekeyed=False))

    def made(self, flow: Flow) -> None:
        """Tells of an aggregate."""
        if self._first is None:
            self._first = flow.origin.node
            if self._late is not None:
                flow.graph.attach(self._late, Input(self._first, "late"))
