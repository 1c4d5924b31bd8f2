"""The fluent surface of a table: each method checks its arguments and adds one node."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar, overload

from tailrace.streams.operators.retraction import TableGroup
from tailrace.streams.operators.suppress import (
    Suppress,
    SuppressUntilClose,
    SuppressUntilTime,
    ThrottleTable,
    WhenFull,
    window_of,
)
from tailrace.streams.operators.table import Changes, TableFilter, TableMap, ToStream
from tailrace.streams.operators.table_join import JoinKind, TableJoin
from tailrace.streams.operators.views import kept_below
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.flow import Flow, checked_name, checked_store
from tailrace.streams.surface.foreign import join_foreign
from tailrace.streams.surface.grouped_table import GroupedTable
from tailrace.streams.values.derived import made_slot, returned, returned_pair
from tailrace.streams.values.place import user_place
from tailrace.windows.duration import format_ms, to_ms

if TYPE_CHECKING:
    from tailrace.streams.surface.stream import Stream

K = TypeVar("K")
V = TypeVar("V")
VR = TypeVar("VR")
K2 = TypeVar("K2")
V2 = TypeVar("V2")


class Table(Generic[K, V]):
    """The latest value of each key, as a sequence of changes; made by an aggregate, `App.table` or `Stream.to_table`.

    Between two commits the cache may merge changes of one key; the last one always comes through.
    """

    def __init__(self, flow: Flow, stream: "type[Stream[Any, Any]]") -> None:
        """Programs get theirs from an aggregate, `App.table` or `Stream.to_table`."""
        self._flow = flow
        self._stream = stream

    def filter(self, f: Callable[[V], bool], *, store: str | None = None) -> "Table[K, V]":
        """The rows for whose value `f` is true; one that leaves is deleted.

        Args:
            f: sees values alone, never a delete.
            store: keeps the result in a store of that name.

        Raises:
            TypeError: `f` is no plain function, or `store` no name.
        """
        return self._filter("filter", f, store, keyed=False)

    def filter_not(self, f: Callable[[V], bool], *, store: str | None = None) -> "Table[K, V]":
        """The rows for whose value `f` is false; else as `filter`."""
        return self._filter("filter_not", f, store, keyed=False, negate=True)

    def filter_kv(self, f: Callable[[K, V], bool], *, store: str | None = None) -> "Table[K, V]":
        """The rows for which `f(key, value)` is true; else as `filter`."""
        return self._filter("filter_kv", f, store, keyed=True)

    def map(
        self, f: Callable[[V], VR | None], *, store: str | None = None, value: type[VR] | None = None
    ) -> "Table[K, VR]":
        """Replaces each value by `f(value)`; None deletes.

        Args:
            f: sees values alone, never a delete.
            store: keeps the result in a store of that name.
            value: the type of what `f` makes, for its codec, where neither an annotation nor a following topic tells
                it and it is no built-in type.

        Raises:
            TypeError: `f` is no plain function, or `store` no name.
        """
        return self._map("map", f, store, value, keyed=False)

    def map_values(
        self, f: Callable[[V], VR | None], *, store: str | None = None, value: type[VR] | None = None
    ) -> "Table[K, VR]":
        """Another name of `map`, in Kafka's words."""
        return self._map("map_values", f, store, value, keyed=False)

    def map_kv(
        self, f: Callable[[K, V], VR | None], *, store: str | None = None, value: type[VR] | None = None
    ) -> "Table[K, VR]":
        """Replaces each value by `f(key, value)`; the key cannot change. Else as `map`."""
        return self._map("map_kv", f, store, value, keyed=True)

    def group_by(
        self,
        f: Callable[[K, V], tuple[K2 | None, V2] | None],
        *,
        name: str | None = None,
        key: type[K2] | None = None,
        value: type[V2] | None = None,
    ) -> GroupedTable[K2, V2]:
        """Groups the rows by something else than their key: `f(key, value)` gives each row's group and its value.

        Args:
            f: None, or a None in the pair, leaves a row out. It is also asked for the value that a change replaces, so
                it must always say the same of a row.
            name: of the internal topic `<app>-<name>-repartition`; the aggregate's store unless given.
            key: the type of groups, where neither an annotation nor a following topic tells it.
            value: the same of values.

        Raises:
            TypeError: `f` is no plain function.
        """
        flow, place = self._flow, user_place()
        made_by = checked_name(flow.graph, "table-group-by", f, "group_by")
        key_hint, value_hint = returned_pair(f)
        key_slot = made_slot("key", made_by, place, key, key_hint)
        value_slot = made_slot("value", made_by, place, value, value_hint)
        operator = TableGroup(name=made_by, place=place, f=f, key=key_slot, value=value_slot)
        grouped = flow.then(operator, key=key_slot, value=value_slot, rekeyed=True)
        return GroupedTable(grouped, value_slot, place, name, self._made)

    @overload
    def join(
        self,
        other: "Table[K, V2]",
        f: Callable[[V, V2], VR | None],
        *,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]": ...
    @overload
    def join(
        self,
        other: "Table[K2, V2]",
        f: Callable[[V, V2], VR | None],
        *,
        on: Callable[[V], K2 | None],
        store: str,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]": ...
    def join(
        self,
        other: "Table[Any, V2]",
        f: Callable[[V, V2], VR | None],
        *,
        on: Callable[[V], Any] | None = None,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]":
        """The rows that both tables have: `f(value, other value)`, kept up with changes of either.

        What `f` makes None of is no row. A result's time is that of the later of the two rows. A table joined with
        itself, or with what was made of it, gives one result for each change.

        Args:
            other: without `on` a table with the same keys, in as many partitions.
            f: sees values alone, never a delete.
            on: the foreign key: value to the key of the other table's row; a row whose key is None has no result, and
                counts as dropped ("null_key"). It must always find the same in a value.
            store: keeps the result in a store of that name; with `on` it is needed, and the rows are kept a second
                time, beside what they refer to, in `<store>-subscriptions`.
            value: the type of what `f` makes, where neither an annotation nor a following topic tells it and it is no
                built-in type.

        Raises:
            TypeError: `other` is no table, `f` or `on` no plain function, or `store` no name.
            ValueError: `other` is of another app.
            TopologyError: a table keeps no rows that could be looked up, as windows do not.
        """
        return self._join("join", "inner", other, f, store, value, on)

    @overload
    def left_join(
        self,
        other: "Table[K, V2]",
        f: Callable[[V, V2 | None], VR | None],
        *,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]": ...
    @overload
    def left_join(
        self,
        other: "Table[K2, V2]",
        f: Callable[[V, V2 | None], VR | None],
        *,
        on: Callable[[V], K2 | None],
        store: str,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]": ...
    def left_join(
        self,
        other: "Table[Any, V2]",
        f: Callable[[V, V2 | None], VR | None],
        *,
        on: Callable[[V], Any] | None = None,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]":
        """The rows of this table, `f` given None where the other one has none; else as `join`."""
        return self._join("left_join", "left", other, f, store, value, on)

    def outer_join(
        self,
        other: "Table[K, V2]",
        f: Callable[[V | None, V2 | None], VR | None],
        *,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Table[K, VR]":
        """The rows that either table has, `f` given None for the one that has none; else as `join`."""
        return self._join("outer_join", "outer", other, f, store, value)

    def _join(
        self,
        where: str,
        kind: JoinKind,
        other: object,
        f: Callable[..., Any],
        store: str | None,
        value: Any,
        on: Callable[..., Any] | None = None,
    ) -> "Table[K, Any]":
        flow, place = self._flow, user_place()
        if not is_table(other):
            raise TypeError(f"{where} takes a table, not {other!r}")
        right = flow_of(other)
        if right.graph is not flow.graph:
            raise ValueError(f"{where} was given a table of another app: both must be of one")
        if on is not None:
            return self._made(join_foreign(where, flow, right, f, on, store, value, inner=kind == "inner"))
        name = checked_name(flow.graph, f"table-{where.replace('_', '-')}", f, where)
        for side in (flow, right):
            kept_below(flow.graph.nodes.__getitem__, flow.graph.nodes[side.origin.node], place)
        slot = made_slot("value", name, place, value, returned(f))
        operator = TableJoin(
            name=name,
            place=place,
            store_name=self._stored(store, where),
            key=flow.key,
            value=slot,
            f=f,
            join=kind,
            right_key=right.key,
        )
        node = flow.graph.add(operator, [flow.origin, right.origin])
        return self._made(replace(flow, origin=Input(node.id), value=slot))

    def _made(self, flow: Flow) -> "Table[Any, Any]":
        return Table(flow, self._stream)

    def _filter(
        self, where: str, f: Callable[..., Any], store: str | None, *, keyed: bool, negate: bool = False
    ) -> "Table[K, V]":
        flow = self._flow
        name = checked_name(flow.graph, f"table-{where.replace('_', '-')}", f, where)
        operator = TableFilter(
            name=name,
            place=user_place(),
            store_name=self._stored(store, where),
            key=flow.key,
            value=flow.value,
            f=f,
            keyed=keyed,
            negate=negate,
        )
        return Table(flow.then(operator), self._stream)

    def _map(self, where: str, f: Callable[..., Any], store: str | None, value: Any, *, keyed: bool) -> "Table[K, Any]":
        flow, place = self._flow, user_place()
        name = checked_name(flow.graph, f"table-{where.replace('_', '-')}", f, where)
        slot = made_slot("value", name, place, value, returned(f))
        operator = TableMap(
            name=name,
            place=place,
            store_name=self._stored(store, where),
            key=flow.key,
            value=slot,
            f=f,
            keyed=keyed,
        )
        return Table(flow.then(operator, value=slot), self._stream)

    def _stored(self, store: str | None, where: str) -> str | None:
        if store is None:
            return None
        self._flow.key.need()
        return checked_store(store, where)

    def suppress(
        self,
        until: Suppress,
        *,
        store: str,
        max_records: int | None = None,
        max_bytes: int | None = None,
        when_full: WhenFull = "fail",
    ) -> "Table[K, V]":
        """Holds changes back: of a window until it has closed, or of a key until stream time has passed.

        Args:
            until: `until_window_closes()` sends one result for each window; the table must be made of a windowed
                aggregate, with nothing but filters, maps and the like in between. `until_stream_time(after)` sends the
                latest change of a key when stream time is `after` past the first one that waits.
            store: the name of the store that keeps what waits.
            max_records: how many keys may wait at once, in each partition; as many as there are unless given.
            max_bytes: how many bytes of keys and values; the same.
            when_full: "fail" ends the app with TaskError where that is too little; "emit" sends the oldest early, so it
                is not for results that are to be final.

        Raises:
            TypeError: `until` is neither of the two, `store` no name, or a limit no int.
            ValueError: a limit is below 1, or `when_full` unknown, or "emit" where results are to be final.
        """
        if not isinstance(until, Suppress):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"suppress takes until_window_closes() or until_stream_time(…), not {until!r}")
        if when_full not in ("emit", "fail"):
            raise ValueError(f'suppress(when_full={when_full!r}) is neither "emit" nor "fail"')
        if when_full == "emit" and until.after_ms is None:
            raise ValueError(
                'suppress(until_window_closes(), when_full="emit") would send results that are not final: use "fail"'
            )
        flow = self._flow
        flow.key.need()
        name, place = flow.graph.name_for("suppress"), user_place()
        limits = {"max_records": _limit("max_records", max_records), "max_bytes": _limit("max_bytes", max_bytes)}
        common: dict[str, Any] = {
            "name": name,
            "place": place,
            "store_name": checked_store(store, "suppress"),
            "key": flow.key,
            "value": flow.value,
            "until": until,
            "when_full": when_full,
            **limits,
        }
        if until.after_ms is None:
            return self._made(flow.then(SuppressUntilClose(**common, window=window_of(flow.graph, flow.origin))))
        return self._made(flow.then(SuppressUntilTime(**common)))

    def throttle(self, every: timedelta, *, store: str) -> "Table[K, V]":
        """At most one change of a key in each interval of the wall clock: the first at once, then the latest of each.

        What is sent depends on when records come in, so a replay sends other changes; the last one always comes
        through. What waits when the app ends is sent after the next start. For event time there is `suppress`.

        Args:
            every: the interval.
            store: the name of the store that keeps what waits, and which keys have sent something of late.

        Raises:
            TypeError: `every` is no timedelta, or `store` no name.
            ValueError: `every` is not above 0, or no whole number of milliseconds.
        """
        every_ms = to_ms(every, "throttle")
        if every_ms <= 0:
            raise ValueError(f"throttle({format_ms(every_ms)}) is not above 0")
        flow = self._flow
        flow.key.need()
        operator = ThrottleTable(
            name=flow.graph.name_for("throttle"),
            place=user_place(),
            store_name=checked_store(store, "throttle"),
            key=flow.key,
            value=flow.value,
            every_ms=every_ms,
        )
        return self._made(flow.then(operator))

    def to_stream(self) -> "Stream[K, V | None]":
        """Every change as a record; None is a delete."""
        name = self._flow.graph.name_for("to-stream")
        return self._stream(self._flow.then(ToStream(name=name, place=user_place())))

    def changes(self) -> "Stream[K, V]":
        """Every change as a record, without the deletes."""
        name = self._flow.graph.name_for("changes")
        return self._stream(self._flow.then(Changes(name=name, place=user_place())))

    def to(self, topic: Topic[K, V]) -> None:
        """Writes every change to a topic; deletes become null values."""
        self.to_stream().to(topic)


def is_table(given: object) -> TypeGuard[Table[Any, Any]]:
    """Whether something is a table."""
    return isinstance(given, Table)


def flow_of(table: Table[Any, Any]) -> Flow:
    """What flows out of a table: the one door for what joins tables."""
    return table._flow  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its own file


def _limit(name: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"suppress({name}={value!r}) is not an int")
    if value < 1:
        raise ValueError(f"suppress({name}={value}) is below 1")
    return value
