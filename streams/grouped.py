"""The fluent surface of grouped streams: a grouping adds nothing to the graph until an aggregate is made of it.

An aggregate is preceded by a repartition where the key was changed: one per aggregate, named after its store, or one
for all of them where the grouping has a name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from tailrace.streams.codec import codec_of
from tailrace.streams.derived import Slot, WindowedSlot, zero_slot
from tailrace.streams.flow import Flow, checked_store, repartitioned
from tailrace.streams.operators.aggregate import Aggregate, Emit
from tailrace.streams.operators.io import Late
from tailrace.streams.place import Place, check_function, user_place
from tailrace.streams.reduced import Reduced, reduced
from tailrace.streams.reducers import Reducer
from tailrace.streams.table import Table
from tailrace.streams.topology import Input
from tailrace.windows.duration import to_ms
from tailrace.windows.session import SessionWindow
from tailrace.windows.unlimited import UnlimitedWindow
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed

if TYPE_CHECKING:
    from tailrace.streams.stream import Stream

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
T = TypeVar("T")

_Function = Literal["count", "reduce", "aggregate", "agg"]


@dataclass(frozen=True)
class _Fold:
    """What an aggregate is made of, apart from where it stands."""

    function: _Function
    store: str
    value: Slot
    zero: Callable[[], Any] | None = None
    add: Callable[[Any, Any], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    reduced: Reduced | None = None
    window: Window | None = None
    emit: Emit = "update"
    retention_ms: int | None = None


def _count(store: str) -> _Fold:
    return _Fold(
        "count",
        checked_store(store, "count"),
        Slot("value", f"count(store={store!r})", place=user_place(), of=int, codec=codec_of(int)),
    )


def _reduce(f: Callable[[Any, Any], Any], store: str, value: Slot) -> _Fold:
    check_function(f, f"reduce(store={store!r})")
    return _Fold("reduce", checked_store(store, "reduce"), value, add=f)


def _aggregate(zero: Callable[[], Any], add: Callable[[Any, Any], Any], store: str, value: Any, place: Place) -> _Fold:
    where = f"aggregate(store={store!r})"
    check_function(zero, f"aggregate(store={store!r}, zero=…)")
    check_function(add, where)
    return _Fold(
        "aggregate", checked_store(store, "aggregate"), zero_slot(where, place, zero, value, add), zero=zero, add=add
    )


def _agg(into: Any, store: str, reducers: Mapping[str, object], place: Place, *, sessions: bool = False) -> _Fold:
    name = checked_store(store, "agg")
    made = reduced(into, reducers, store=name, place=place, sessions=sessions)
    return _Fold("agg", name, Slot("value", f"agg(store={store!r})", place=place, of=into), reduced=made)


class _Grouping:
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

    def fold(self, fold: _Fold, place: Place) -> Flow:
        """Adds the repartition where one is needed, and the aggregate."""
        self.flow.key.need()
        flow = self._repartitioned(fold.store)
        operator = Aggregate(
            name=flow.graph.name_for(fold.function),
            place=place,
            store_name=fold.store,
            function=fold.function,
            zero=fold.zero,
            add=fold.add,
            merge=fold.merge,
            reduced=fold.reduced,
            window=fold.window,
            emit=fold.emit,
            retention_ms=fold.retention_ms,
            key=flow.key,
            value=fold.value,
        )
        key = WindowedSlot(flow.key, fold.window) if fold.window is not None else flow.key
        return flow.then(operator, key=key, value=fold.value, rekeyed=False)

    def _repartitioned(self, store: str) -> Flow:
        flow = self.flow
        if not flow.rekeyed:
            return flow
        if self._shared is not None:
            return self._shared
        after = repartitioned(flow, self._name or store, self._place, partitions=self._partitions)
        if self._name is not None:
            self._shared = after
        return after


class Grouped(Generic[K, V]):
    """A stream grouped by key; made by `Stream.group_by` and `group_by_key`.

    Records with a null key or a null value are left out of every aggregate (counted as dropped: "null_key",
    "null_value"). A function that returns None deletes the key.
    """

    def __init__(
        self, flow: Flow, stream: "type[Stream[Any, Any]]", place: Place, *, name: str | None, partitions: int | None
    ) -> None:
        """Programs get theirs from `Stream.group_by`."""
        self._grouping = _Grouping(flow, stream, place, name=name, partitions=partitions)

    def windowed_by(self, window: Window) -> "WindowedGrouped[K, V]":
        """Makes aggregates of the grouping count by window: `tumbling`, `hopping`, `sliding`, `session`, `unlimited`.

        Raises:
            TypeError: no window.
        """
        if not isinstance(window, Window):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"windowed_by takes a window such as tumbling(minutes(1)), not {window!r}")
        return WindowedGrouped(self._grouping, window)

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

    def _table(self, fold: _Fold, place: Place) -> Table[K, Any]:
        return Table(self._grouping.fold(fold, place), self._grouping.stream)


class WindowedGrouped(Generic[K, V]):
    """A grouped stream in windows; made by `Grouped.windowed_by`.

    `emit="update"` sends a window's result as it changes, `emit="close"` once, when stream time has passed its end and
    grace. `retention` is how long a window can be read after stream time has passed its start (a session's end): by
    default as long as it may change; never less.
    """

    def __init__(self, grouping: _Grouping, window: Window) -> None:
        """Programs get theirs from `Grouped.windowed_by`."""
        self._grouping = grouping
        self._window = window
        self._first: int | None = None
        self._late: int | None = None

    @property
    def late(self) -> "Stream[K, V]":
        """The records that came after all of their windows had closed, as they came."""
        place, flow = user_place(), self._grouping.flow
        graph = flow.graph
        if self._late is None:
            parents = [] if self._first is None else [Input(self._first, "late")]
            self._late = graph.add(Late(name=graph.name_for("late"), place=place), parents).id
        return self._grouping.stream(replace(flow, origin=Input(self._late), rekeyed=False))

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
        is_session = isinstance(self._window, SessionWindow)
        if is_session and merge is None:
            raise TypeError(
                f"aggregate(store={store!r}) in sessions needs merge=, a function that makes one of two results"
            )
        if merge is not None:
            check_function(merge, f"aggregate(store={store!r}, merge=…)")
            if not is_session:
                raise TypeError(f"aggregate(store={store!r}, merge=…) is for sessions: {self._window} never merges")
        place = user_place()
        return self._table(replace(_aggregate(zero, add, store, value, place), merge=merge), emit, retention, place)

    def agg(self, into: type[T], *, store: str, emit: Emit = "update", **reducers: Reducer[V]) -> Table[Windowed[K], T]:
        """Folds the values of a key in a window in several ways at once; see `Grouped.agg`.

        In sessions every reducer must merge: all do but a `reducer` of one's own without `merge=`, which is refused
        with `TypeError`. The items of the earlier session come first.
        """
        place, sessions = user_place(), isinstance(self._window, SessionWindow)
        return self._table(_agg(into, store, reducers, place, sessions=sessions), emit, None, place)

    def _table(self, fold: _Fold, emit: Emit, retention: timedelta | None, place: Place) -> Table[Windowed[K], Any]:
        window = self._window
        if emit not in ("update", "close"):
            raise ValueError(f'emit={emit!r} is neither "update" nor "close"')
        if emit == "close" and isinstance(window, UnlimitedWindow):
            raise ValueError('emit="close" never sends anything of an unlimited window: use emit="update"')
        least = window.retention_ms
        retention_ms = least if retention is None else to_ms(retention, "retention")
        if retention_ms < least:
            raise ValueError(f"retention={retention} is shorter than the {least} ms in which {window} may still change")
        fold = replace(fold, window=window, emit=emit, retention_ms=retention_ms)
        flow = self._grouping.fold(fold, place)
        if self._first is None:
            self._first = flow.origin.node
            if self._late is not None:
                flow.graph.attach(self._late, Input(self._first, "late"))
        return Table(flow, self._grouping.stream)
