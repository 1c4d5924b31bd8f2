"""The fluent surface of grouped streams: a grouping adds nothing to the graph until an aggregate is made of it.

An aggregate is preceded by a repartition where the key was changed: one per aggregate, named after its store, or one
for all of them where the grouping has a name.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tailrace.streams.operators.aggregate import Emit, WindowClock
from tailrace.streams.program.reduced import reduced
from tailrace.streams.program.reducers import Reducer
from tailrace.streams.surface.cogrouped import Cogrouped
from tailrace.streams.surface.flow import Flow, checked_store
from tailrace.streams.surface.grouping import Fold, Grouping, LateRecords
from tailrace.streams.surface.table import Table
from tailrace.streams.values.codec import codec_of
from tailrace.streams.values.derived import Slot, zero_slot
from tailrace.streams.values.place import Place, check_function, user_place
from tailrace.windows.duration import format_ms, to_ms
from tailrace.windows.session import SessionWindow
from tailrace.windows.unlimited import UnlimitedWindow
from tailrace.windows.window import Window, checked_window
from tailrace.windows.windowed import Windowed

if TYPE_CHECKING:
    from tailrace.streams.surface.stream import Stream

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
T = TypeVar("T")


def _count(store: str) -> Fold:
    return Fold(
        "count",
        checked_store(store, "count"),
        Slot("value", f"count(store={store!r})", place=user_place(), of=int, codec=codec_of(int)),
    )


def _reduce(f: Callable[[Any, Any], Any], store: str, value: Slot) -> Fold:
    where = f"reduce(store={store!r})"
    check_function(f, where)
    if value.trusted:
        # Its values are no longer what came in: where one cannot be written, this is where it was made.
        value = Slot("value", where, place=user_place(), of=value.of, codec=value.codec)
    return Fold("reduce", checked_store(store, "reduce"), value, add=f)


def _aggregate(zero: Callable[[], Any], add: Callable[[Any, Any], Any], store: str, value: Any, place: Place) -> Fold:
    where = f"aggregate(store={store!r})"
    check_function(zero, f"aggregate(store={store!r}, zero=…)")
    check_function(add, where)
    return Fold(
        "aggregate", checked_store(store, "aggregate"), zero_slot(where, place, zero, value, add), zero=zero, add=add
    )


def _agg(into: Any, store: str, reducers: Mapping[str, object], place: Place, *, sessions: bool = False) -> Fold:
    name = checked_store(store, "agg")
    made = reduced(into, reducers, store=name, place=place, sessions=sessions)
    return Fold("agg", name, Slot("value", f"agg(store={store!r})", place=place, of=into), reduced=made)


class Grouped(Generic[K, V]):
    """A stream grouped by key; made by `Stream.group_by` and `group_by_key`.

    Records with a null key or a null value are left out of every aggregate (counted as dropped: "null_key",
    "null_value"). A function that returns None deletes the key.
    """

    def __init__(
        self, flow: Flow, stream: "type[Stream[Any, Any]]", place: Place, *, name: str | None, partitions: int | None
    ) -> None:
        """Programs get theirs from `Stream.group_by`."""
        self._grouping = Grouping(flow, stream, place, name=name, partitions=partitions)

    def windowed_by(
        self, window: Window, *, clock: WindowClock = "task", idle_after: timedelta | None = None
    ) -> "WindowedGrouped[K, V]":
        """Makes aggregates of the grouping count by window: `tumbling`, `hopping`, `sliding`, `session`, `unlimited`.

        Args:
            window: how records are gathered in time.
            clock: by what windows close and records are late: "task" is the stream time of the task, which all its
                keys share. "key" is the largest time of the key's own records: a device that sends late is late for
                itself alone; but the last windows of a key that falls silent never close, and are kept for good.
            idle_after: after how long without a record wall time lets stream time go on, so that windows close though
                nothing comes; never, unless given. Each partition that is read goes on by itself, once it was silent
                for so long, and after each time as long again; records that come later still than the grace are late.
                The time is that of the tasks, so other windows of theirs close too. The app keeps what it did in
                `<app>-<topic>-silences`, and repeats it when it reads the input again.

        Raises:
            TypeError: no window, or `idle_after` is no timedelta.
            ValueError: `clock` is neither, or "key" for windows that never close; `idle_after` is not positive, no
                whole number of milliseconds, or given for windows that do not close by stream time.
        """
        window = checked_window(window)
        if clock not in ("task", "key"):
            raise ValueError(f'windowed_by(clock={clock!r}) is neither "task" nor "key"')
        if clock == "key" and isinstance(window, UnlimitedWindow):
            raise ValueError(f'windowed_by({window}, clock="key"): nothing is late for it, whatever the clock')
        idle_after_ms = None if idle_after is None else to_ms(idle_after, "windowed_by(idle_after)")
        if idle_after_ms is not None:
            if idle_after_ms <= 0:
                raise ValueError(f"windowed_by(idle_after={format_ms(idle_after_ms)}) is not positive")
            if clock == "key" or isinstance(window, UnlimitedWindow):
                by_key = clock == "key" and not isinstance(window, UnlimitedWindow)
                what, more = (f'{window}, clock="key"', ', or take clock="task"') if by_key else (str(window), "")
                raise ValueError(
                    f"windowed_by({what}, idle_after=…): stream time closes none of these windows; leave idle_after= "
                    f"out{more}"
                )
        return WindowedGrouped(self._grouping, window, clock, idle_after_ms)

    def count(self, *, store: str) -> Table[K, int]:
        """How many records each key has."""
        return self._table(_count(store), user_place())

    def reduce(self, f: Callable[[V, V], V | None], *, store: str) -> Table[K, V]:
        """Folds the values of a key by `f(so far, new)`; the first value is taken as it is."""
        return self._table(_reduce(f, store, self._grouping.flow.value), user_place())

    def aggregate(
        self, zero: Callable[[], A], add: Callable[[A, V], A | None], *, store: str, value: type[A] | None = None
    ) -> Table[K, A]:
        """Folds the values of a key by `add(so far, new)`, beginning with `zero()`.

        `value` names the type of the result where neither the annotation of `add` nor `zero()` tells it.
        """
        place = user_place()
        return self._table(_aggregate(zero, add, store, value, place), place)

    def agg(self, into: type[T], *, store: str, **reducers: Reducer[V]) -> Table[K, T]:
        """Folds the values of a key in several ways at once: `agg(Spent, n=count(), cents=sum(lambda o: o.cents), …)`.

        The table's values are of type `into`: that is what `to` writes and what a reader of the store gets. The store
        and its changelog hold the reducers' states; they can be read by the same reducers only.

        Args:
            into: a msgspec.Struct, a dataclass or a TypedDict. A field's annotation says of which type are the items
                that are kept for it.
            store: the store's name.
            reducers: one for each field, by the functions of `tailrace.reducers`; a field with a default may go
                without.

        Raises:
            TypeError: a field without a reducer, a reducer without a field, or one whose results do not fit it.
        """
        place = user_place()
        return self._table(_agg(into, store, reducers, place), place)

    def cogroup(self, add: Callable[[A, V], A | None]) -> Cogrouped[K, A]:
        """Begins an aggregate of several streams: `add(so far, new)` is for the values of this one.

        `a.cogroup(add_a).cogroup(b, add_b).aggregate(zero, store=…)`; the streams may have values of different types.

        Raises:
            TypeError: `add` is no plain function.
        """
        check_function(add, "cogroup")
        return Cogrouped([(self._grouping, add)], _grouping_of)

    def _table(self, fold: Fold, place: Place) -> Table[K, Any]:
        return Table(self._grouping.fold(fold, place), self._grouping.stream)


class WindowedGrouped(Generic[K, V]):
    """A grouped stream in windows; made by `Grouped.windowed_by`.

    `emit="update"` sends a window's result as it changes, `emit="close"` once, when stream time has passed its end and
    grace. `retention` is how long a window can be read after stream time has passed its start (a session's end): by
    default as long as it may change; never less.
    """

    def __init__(
        self, grouping: Grouping, window: Window, clock: WindowClock = "task", idle_after_ms: int | None = None
    ) -> None:
        """Programs get theirs from `Grouped.windowed_by`."""
        self._grouping = grouping
        self._window = window
        self._clock: WindowClock = clock
        self._idle_after_ms = idle_after_ms
        self._late = LateRecords()

    @property
    def late(self) -> "Stream[K, V]":
        """The records that came after all of their windows had closed, as they came."""
        return self._late.of(self._grouping.flow, self._grouping.stream)

    def count(
        self, *, store: str, emit: Emit = "update", retention: timedelta | None = None
    ) -> Table[Windowed[K], int]:
        """How many records each key has in each window. Sessions that merge add up their counts."""
        return self._table(_count(store), emit, retention, user_place())

    def reduce(
        self, f: Callable[[V, V], V | None], *, store: str, emit: Emit = "update", retention: timedelta | None = None
    ) -> Table[Windowed[K], V]:
        """Folds the values of a key in a window by `f(so far, new)`, and so the results of sessions that merge."""
        return self._table(_reduce(f, store, self._grouping.flow.value), emit, retention, user_place())

    def aggregate(
        self,
        zero: Callable[[], A],
        add: Callable[[A, V], A | None],
        *,
        store: str,
        merge: Callable[[A, A], A] | None = None,
        emit: Emit = "update",
        retention: timedelta | None = None,
        value: type[A] | None = None,
    ) -> Table[Windowed[K], A]:
        """Folds the values of a key in a window by `add(so far, new)`, beginning with `zero()`.

        `merge` puts the results of two sessions together, the earlier one first: for sessions it is needed, for other
        windows refused.

        Raises:
            TypeError: `merge` is missing for a session window, or given for another.
        """
        place = user_place()
        fold = _aggregate(zero, add, store, value, place).merged_by(merge, self._window)
        return self._table(fold, emit, retention, place)

    def agg(self, into: type[T], *, store: str, emit: Emit = "update", **reducers: Reducer[V]) -> Table[Windowed[K], T]:
        """Folds the values of a key in a window in several ways at once; see `Grouped.agg`.

        In sessions every reducer must merge: all do but a `reducer` of one's own without `merge=`, which is refused
        with `TypeError`. The items of the earlier session come first.
        """
        place, sessions = user_place(), isinstance(self._window, SessionWindow)
        return self._table(_agg(into, store, reducers, place, sessions=sessions), emit, None, place)

    def _table(self, fold: Fold, emit: Emit, retention: timedelta | None, place: Place) -> Table[Windowed[K], Any]:
        fold = replace(fold.within(self._window, emit, retention), clock=self._clock, idle_after_ms=self._idle_after_ms)
        flow = self._grouping.fold(fold, place)
        self._late.made(flow)
        return Table(flow, self._grouping.stream)


def _grouping_of(grouped: object) -> Grouping | None:
    """What a grouped stream is made of; None for anything else."""
    if not isinstance(grouped, Grouped):
        return None
    found: Grouping = grouped._grouping  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]  # its own file
    return found
