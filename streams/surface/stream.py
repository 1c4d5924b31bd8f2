"""The fluent surface of a stream: each method checks its arguments and adds one node.

Not here: what the nodes do (operators/), which codecs they get (derived).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from tailrace.streams.chain.backed import Backing
from tailrace.streams.operators.effects import ForEach, Peek, Print
from tailrace.streams.operators.join import JoinKind
from tailrace.streams.operators.process import Process, check_methods, forwarded_types, is_processor
from tailrace.streams.operators.stateless import (
    Filter,
    FilterKv,
    FilterNot,
    FlatMap,
    FlatMapKv,
    KeyBy,
    KeyByKv,
    Map,
    MapKv,
)
from tailrace.streams.operators.table import TableSource
from tailrace.streams.operators.versioned import VersionedSource
from tailrace.streams.program.global_table import GlobalTable, is_global_table
from tailrace.streams.program.io import Merge, Sink, Source, Split
from tailrace.streams.program.processor import Processor
from tailrace.streams.program.store import DeclaredStore, Store, is_declared
from tailrace.streams.program.topic import Topic, is_topic
from tailrace.streams.program.topology import Input
from tailrace.streams.surface.arguments import check_branches, check_node_name, check_partitions
from tailrace.streams.surface.flow import Flow, checked_name, checked_store, merged, repartitioned, source
from tailrace.streams.surface.grouped import Grouped
from tailrace.streams.surface.joins import joined, late_of
from tailrace.streams.surface.looked_up import found_in, looked_up, options_of
from tailrace.streams.surface.table import Table, flow_of, is_table
from tailrace.streams.values.codec import codec_of
from tailrace.streams.values.derived import Slot, made_slot, returned, returned_items, returned_pair, returned_pairs
from tailrace.streams.values.place import Place, check_function, user_place

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
VR = TypeVar("VR")
T = TypeVar("T")

_NONE = timedelta()


class Stream(Generic[K, V]):
    """An unbounded sequence of records, each one standing for itself; made by `App.stream`.

    Functions see the value; those of methods that end in `_kv` see key and value. They run in the order of the records
    of a partition, must not block, and are refused where they are `async` (TypeError at the call). `key=` and `value=`
    name the type of what a function makes, for its codec; needed only where neither an annotation nor a following
    topic tells it and it is no built-in type.
    """

    def __init__(self, flow: Flow) -> None:
        """Programs get theirs from `App.stream`."""
        self._flow = flow

    def filter(self, f: Callable[[V], bool]) -> "Stream[K, V]":
        """Keeps the records for whose value `f` is true."""
        name = checked_name(self._flow.graph, "filter", f, "filter")
        return Stream(self._flow.then(Filter(name=name, place=user_place(), f=f)))

    def filter_not(self, f: Callable[[V], bool]) -> "Stream[K, V]":
        """Keeps the records for whose value `f` is false."""
        name = checked_name(self._flow.graph, "filter-not", f, "filter_not")
        return Stream(self._flow.then(FilterNot(name=name, place=user_place(), f=f)))

    def filter_kv(self, f: Callable[[K, V], bool]) -> "Stream[K, V]":
        """Keeps the records for which `f(key, value)` is true."""
        name = checked_name(self._flow.graph, "filter-kv", f, "filter_kv")
        return Stream(self._flow.then(FilterKv(name=name, place=user_place(), f=f)))

    def map(self, f: Callable[[V], VR], *, value: type[VR] | None = None) -> "Stream[K, VR]":
        """Replaces each value by `f(value)`; the key stays."""
        flow, place = self._flow, user_place()
        name = checked_name(flow.graph, "map", f, "map")
        slot = made_slot("value", name, place, value, returned(f))
        return Stream(flow.then(Map(name=name, place=place, f=f), value=slot))

    def map_values(self, f: Callable[[V], VR], *, value: type[VR] | None = None) -> "Stream[K, VR]":
        """Another name of `map`, in Kafka's words."""
        return self.map(f, value=value)

    def map_kv(
        self, f: Callable[[K, V], tuple[K2, VR]], *, key: type[K2] | None = None, value: type[VR] | None = None
    ) -> "Stream[K2, VR]":
        """Replaces each record by the key and value that `f(key, value)` returns."""
        flow, place = self._flow, user_place()
        name = checked_name(flow.graph, "map-kv", f, "map_kv")
        key_hint, value_hint = returned_pair(f)
        key_slot = made_slot("key", name, place, key, key_hint)
        value_slot = made_slot("value", name, place, value, value_hint)
        operator = MapKv(name=name, place=place, f=f, key=key_slot)
        return Stream(flow.then(operator, key=key_slot, value=value_slot, rekeyed=True))

    def flat_map(self, f: Callable[[V], Iterable[VR]], *, value: type[VR] | None = None) -> "Stream[K, VR]":
        """Replaces each record by one for every value that `f(value)` yields, in order; key and time stay."""
        flow, place = self._flow, user_place()
        name = checked_name(flow.graph, "flat-map", f, "flat_map")
        slot = made_slot("value", name, place, value, returned_items(f))
        return Stream(flow.then(FlatMap(name=name, place=place, f=f), value=slot))

    def flat_map_kv(
        self,
        f: Callable[[K, V], Iterable[tuple[K2, VR]]],
        *,
        key: type[K2] | None = None,
        value: type[VR] | None = None,
    ) -> "Stream[K2, VR]":
        """Replaces each record by one for every key and value that `f(key, value)` yields, in order; the time stays."""
        flow, place = self._flow, user_place()
        name = checked_name(flow.graph, "flat-map-kv", f, "flat_map_kv")
        key_hint, value_hint = returned_pairs(f)
        key_slot = made_slot("key", name, place, key, key_hint)
        value_slot = made_slot("value", name, place, value, value_hint)
        operator = FlatMapKv(name=name, place=place, f=f, key=key_slot)
        return Stream(flow.then(operator, key=key_slot, value=value_slot, rekeyed=True))

    def key_by(self, f: Callable[[V], K2], *, key: type[K2] | None = None) -> "Stream[K2, V]":
        """Replaces each key by `f(value)`.

        What keeps state further on reads the records from the partition of the new key.
        """
        flow, _ = self._keyed(f, key, "key_by")
        return Stream(flow)

    def peek(self, f: Callable[[V], object]) -> "Stream[K, V]":
        """Calls `f(value)` for each record and passes it on as it is; what `f` returns is not looked at."""
        name = checked_name(self._flow.graph, "peek", f, "peek")
        return Stream(self._flow.then(Peek(name=name, place=user_place(), f=f, keyed=False)))

    def peek_kv(self, f: Callable[[K, V], object]) -> "Stream[K, V]":
        """Calls `f(key, value)` for each record and passes it on as it is."""
        name = checked_name(self._flow.graph, "peek-kv", f, "peek_kv")
        return Stream(self._flow.then(Peek(name=name, place=user_place(), f=f, keyed=True)))

    def for_each(self, f: Callable[[V], object]) -> None:
        """Calls `f(value)` for each record; nothing comes after it.

        What `f` does outside the log is done again for records that are worked on again after a crash.
        """
        name = checked_name(self._flow.graph, "for-each", f, "for_each")
        self._flow.then(ForEach(name=name, place=user_place(), f=f, keyed=False))

    def for_each_kv(self, f: Callable[[K, V], object]) -> None:
        """Calls `f(key, value)` for each record; see `for_each`."""
        name = checked_name(self._flow.graph, "for-each-kv", f, "for_each_kv")
        self._flow.then(ForEach(name=name, place=user_place(), f=f, keyed=True))

    def print(self, label: str = "") -> "Stream[K, V]":
        """Prints one line for each record to the standard output, `[label]: key, value`, and passes it on.

        Raises:
            TypeError: `label` is no text.
        """
        if not isinstance(label, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"print(label={label!r}) takes a str")
        name = self._flow.graph.name_for("print")
        return Stream(self._flow.then(Print(name=name, place=user_place(), label=label)))

    def split(
        self, branches: Mapping[str, Callable[[V], bool]], *, default: str | None = None
    ) -> "dict[str, Stream[K, V]]":
        """Sends each record down one branch: the first, in their order, whose function is true for its value.

        Args:
            branches: name to function of the value.
            default: the name of a further branch for the records that no function takes; without one they are left out.

        Returns:
            The stream of each branch, by its name.

        Raises:
            TypeError: `branches` is no mapping of names to plain functions, or `default` is no name.
            ValueError: there is no branch, or `default` is the name of another one.
        """
        check_branches(branches, default)
        flow = self._flow
        operator = Split(
            name=flow.graph.name_for("split"), place=user_place(), branches=dict(branches), default=default
        )
        node = flow.then(operator).origin.node
        return {name: Stream(replace(flow, origin=Input(node, name))) for name in operator.outputs}

    def merge(self, *others: "Stream[K, V]") -> "Stream[K, V]":
        """The records of this stream and of others as one stream; those of one stream stay in their order.

        Raises:
            TypeError: one of them is no stream.
            ValueError: one of them belongs to another app.
        """
        for other in others:
            if not isinstance(other, Stream):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
                raise TypeError(f"merge takes streams, not {other!r}")
        place, flows = user_place(), [each._flow for each in (self, *others)]  # noqa: SLF001 - its own class
        if any(flow.graph is not self._flow.graph for flow in flows):
            raise ValueError("merge was given a stream of another app: join them by a topic")
        return Stream(merged(self._flow.graph, "merge", flows, lambda name: Merge(name=name, place=place)))

    def repartition(self, *, name: str, partitions: int | None = None) -> "Stream[K, V]":
        """Sends each record to the partition of its key, among as many as are wanted.

        Args:
            name: of the internal topic `<app>-<name>-repartition`.
            partitions: how many; as many as the largest input has unless given.

        Records with a null key stay: they go to the partition whose number is that of the one they come from.

        Raises:
            TypeError: `name` is no text.
            ValueError: partitions below 1.
        """
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"repartition(name={name!r}) is not a name: give a str")
        check_partitions("repartition", partitions)
        return Stream(repartitioned(self._flow, name, user_place(), partitions=partitions, keeps_null_keys=True))

    def through(self, topic: Topic[K, V]) -> "Stream[K, V]":
        """Writes the stream to a topic and goes on with what is read from it: `to(topic)` and then `app.stream(topic)`.

        The topic is created when missing. What comes after sees a record when the commit that wrote it is done.

        Raises:
            TypeError: no topic.
        """
        if not is_topic(topic):
            raise TypeError(f"through takes a topic, as app.topic() returns it, not {topic!r}")
        write(self._flow, topic)
        return Stream(source(self._flow.graph, topic))

    @overload
    def join(
        self,
        other: Table[K, V2],
        f: Callable[[V, V2], VR],
        *,
        grace: timedelta | None = None,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]": ...
    @overload
    def join(
        self,
        other: GlobalTable[K2, V2],
        f: Callable[[V, V2], VR],
        *,
        on: Callable[[K, V], K2 | None],
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]": ...
    @overload
    def join(
        self,
        other: "Stream[K, V2]",
        f: Callable[[V, V2], VR],
        *,
        store: str,
        within: timedelta | None = None,
        before: timedelta | None = None,
        after: timedelta | None = None,
        grace: timedelta = _NONE,
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]": ...
    def join(self, other: Any, f: Callable[..., Any], **options: Any) -> "Stream[Any, Any]":
        """Joins each record with what it meets by its key: `f(value, other's value)`.

        With a table: the row as it is when the record comes, at the record's time; a record without a row goes no
        further. That follows the order of arrival: a table that is read late is seen late. With a versioned table: the
        row as it was at the record's time; with `grace` when stream time has passed that by the grace, so that rows
        may come late, in order of time. The records that wait are kept in `store`. Where the key was changed
        before, the records are repartitioned through `<app>-<store>-repartition`, the table's store and "-join" unless
        `store` says another name.

        With a global table: the row of the key that `on` returns, as the process has read it by then.

        With a stream: every pair of a record here and one of `other` of the same key and about the same time. A result
        has the larger of the two times. Null keys and null values have no partner, and are dropped. Where the key was
        changed before, that side is repartitioned, through `<app>-<store>-left-repartition` or `-right-`.

        Args:
            other: a table, or the right side; the same stream for a join with itself, where each record also meets
                itself.
            f: left value and right value to the result's.
            on: key and value to the key in a global table; None for none.
            store: the records of both streams are kept in `<store>-left` and `<store>-right` (in `<store>` alone where
                a stream is joined to itself) until no partner can come any more.
            within: how far apart the two may be, in either direction, the bound included.
            before: how much earlier the right one may be, where that is not `within`; 0 if only `after` is given.
            after: how much later it may be.
            grace: how long a record's window stays open after the last time that a partner can have; what comes after
                that goes to `.late`. With a versioned table: how long a record waits, at most the table's history.
            value: the type of the results.

        Raises:
            TypeError: `other` cannot be joined, `f` is no plain function, `store` no name, no time is given, or
                something that the other kind of join takes.
            ValueError: times that are negative where they may not be, or what another app declared.
        """
        return self._join("join", other, f, options)

    @overload
    def left_join(
        self,
        other: Table[K, V2],
        f: Callable[[V, V2 | None], VR],
        *,
        grace: timedelta | None = None,
        store: str | None = None,
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]": ...
    @overload
    def left_join(
        self,
        other: GlobalTable[K2, V2],
        f: Callable[[V, V2 | None], VR],
        *,
        on: Callable[[K, V], K2 | None],
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]": ...
    @overload
    def left_join(
        self,
        other: "Stream[K, V2]",
        f: Callable[[V, V2 | None], VR],
        *,
        store: str,
        within: timedelta | None = None,
        before: timedelta | None = None,
        after: timedelta | None = None,
        grace: timedelta = _NONE,
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]": ...
    def left_join(self, other: Any, f: Callable[..., Any], **options: Any) -> "Stream[Any, Any]":
        """As `join`, and for each record here that meets nothing `f(value, None)`, with its own time.

        With a stream, that is sent when stream time has passed the record's window and grace; for a null key, and with
        a table, at once.
        """
        return self._join("left_join", other, f, options)

    def outer_join(
        self,
        other: "Stream[K, V2]",
        f: Callable[[V | None, V2 | None], VR],
        *,
        store: str,
        within: timedelta | None = None,
        before: timedelta | None = None,
        after: timedelta | None = None,
        grace: timedelta = _NONE,
        value: type[VR] | None = None,
    ) -> "Stream[K, VR]":
        """As `left_join`, and for each record of `other` without a partner `f(None, right)`."""
        options = {"within": within, "before": before, "after": after, "grace": grace}
        return self._join("outer_join", other, f, {"store": store, "value": value, **options})

    def _join(self, where: JoinKind, other: object, f: Callable[..., Any], options: dict[str, Any]) -> "Stream[K, Any]":
        if isinstance(other, Stream):
            right: Flow = other._flow  # noqa: SLF001 - its own class
            return Stream(joined(where, self._flow, right, f, **options_of(where, "a stream", options, joined)))
        if is_global_table(other) and where != "outer_join":
            options = options_of(where, "a global table", options, found_in)
            return Stream(found_in(where, self._flow, other, f, **options))
        if not is_table(other) or where == "outer_join":
            raise TypeError(f"{where} takes a stream{'' if where == 'outer_join' else ' or a table'}, not {other!r}")
        table, options = flow_of(other), options_of(where, "a table", options, looked_up)
        return Stream(looked_up(where, self._flow, table, f, **options))

    @property
    def late(self) -> "Stream[K, Any]":
        """Of what a join of two streams returns: the records of both sides that came too late for it, as they came.

        Raises:
            ValueError: this stream is something else.
        """
        return Stream(late_of(self._flow))

    def process(
        self,
        factory: Callable[[], Processor[K, V, K2, VR]],
        *,
        stores: Sequence[Store[Any, Any]] = (),
        name: str | None = None,
    ) -> "Stream[K2, VR]":
        """Hands every record to a processor, and goes on with what that forwards.

        Args:
            factory: makes a processor; called once for every task, and must make a new one each time. A class will do.
            stores: those that it may use, as `App.store` declared them. Processors that are given the same store run in
                the same tasks, so their inputs must have the same number of partitions.
            name: of the node, in `describe()` and in errors.

        A task has the records of one partition, and its part of each store: where records were given new keys before,
        go through a repartition first if the stores go by those keys. No cache merges updates ahead of a processor.

        Raises:
            TypeError: `factory` is no plain function, methods of its class are `async`, or `stores` has something else.
            ValueError: a store of another app, or a name that no topic could have.
        """
        return self._process("process", factory, stores, name)

    def process_values(
        self,
        factory: Callable[[], Processor[K, V, K, VR]],
        *,
        stores: Sequence[Store[Any, Any]] = (),
        name: str | None = None,
    ) -> "Stream[K, VR]":
        """As `process`, with the key kept, so that nothing behind it needs a repartition: forwarding another raises."""
        return self._process("process_values", factory, stores, name)

    def _process(
        self, where: str, factory: Callable[[], Any], stores: Sequence[object], name: str | None
    ) -> "Stream[Any, Any]":
        flow, place = self._flow, user_place()
        if is_processor(factory):
            raise TypeError(
                f"{where} takes the class of a processor, or a function that makes one, and was given {factory!r}: "
                f"every task needs one of its own, so pass {type(factory).__name__} without calling it"
            )
        check_function(factory, where)
        if isinstance(factory, type):
            check_methods(factory, f"{where}({factory.__name__})")
        if name is not None:
            check_node_name(name, where)
        own = tuple(dict.fromkeys(_declared(store, where) for store in stores))
        for store in own:
            if store not in flow.graph.stores:
                raise ValueError(
                    f"{where} was given {store!r}, a store of another app: declare it with this one's store()"
                )
        made_by = name or flow.graph.name_for(where.replace("_", "-"))
        keeps_key = where == "process_values"
        key_hint, value_hint = forwarded_types(factory)
        named_by = "Processor[K, V, K2, VR] as the base of its class"
        key = flow.key if keeps_key else Slot("key", made_by, place=place, of=key_hint, named_by=named_by)
        value = Slot("value", made_by, place=place, of=value_hint, named_by=named_by)
        operator = Process(name=made_by, place=place, factory=factory, own_stores=own, keeps_key=keeps_key, key=key)
        return Stream(flow.then(operator, key=key, value=value, rekeyed=None if keeps_key else True))

    def to_table(self, *, store: str) -> Table[K, V]:
        """The latest value of each key, in the order of offsets; None deletes, and null keys are dropped.

        Where the key was changed before, the records are repartitioned through `<app>-<store>-repartition`.

        Raises:
            TypeError: `store` is no name.
        """
        return table_of(self._flow, checked_store(store, "to_table"), user_place())

    def group_by(
        self,
        f: Callable[[V], K2],
        *,
        name: str | None = None,
        partitions: int | None = None,
        key: type[K2] | None = None,
    ) -> Grouped[K2, V]:
        """Groups records by `f(value)`; every aggregate made of it reads them from the partition of that key.

        Args:
            f: value to key; records whose key is None are dropped.
            name: of the internal topic `<app>-<name>-repartition`; the store's name unless given.
            partitions: of that topic; as many as the largest input has unless given.
            key: the type of the key.

        Raises:
            TypeError: `f` is no plain function.
            ValueError: partitions below 1.
        """
        check_partitions("group_by", partitions)
        flow, place = self._keyed(f, key, "group_by")
        return Grouped(flow, Stream, place, name=name, partitions=partitions)

    def group_by_kv(
        self,
        f: Callable[[K, V], K2],
        *,
        name: str | None = None,
        partitions: int | None = None,
        key: type[K2] | None = None,
    ) -> Grouped[K2, V]:
        """Groups records by `f(key, value)`; all else as in `group_by`."""
        check_partitions("group_by_kv", partitions)
        flow, place = self._flow, user_place()
        made_by = checked_name(flow.graph, "key-by-kv", f, "group_by_kv")
        slot = made_slot("key", made_by, place, key, returned(f))
        flow = flow.then(KeyByKv(name=made_by, place=place, f=f, key=slot), key=slot, rekeyed=True)
        return Grouped(flow, Stream, place, name=name, partitions=partitions)

    def group_by_key(self, *, name: str | None = None) -> Grouped[K, V]:
        """Groups records by the key they have; `name` is of the internal topic, where the key was changed before."""
        return Grouped(self._flow, Stream, user_place(), name=name, partitions=None)

    def _keyed(self, f: Callable[[V], K2], key: type[K2] | None, where: str) -> "tuple[Flow, Place]":
        flow, place = self._flow, user_place()
        name = checked_name(flow.graph, "key-by", f, where)
        slot = made_slot("key", name, place, key, returned(f))
        return flow.then(KeyBy(name=name, place=place, f=f, key=slot), key=slot, rekeyed=True), place

    @overload
    def to(self, topic: Topic[K, V] | Callable[[K, V], Topic[K, V]]) -> None: ...
    @overload
    def to(self: "Stream[K, T | None]", topic: Topic[K, T]) -> None: ...
    @overload
    def to(self: "Stream[K2 | None, T | None]", topic: Topic[K2, T]) -> None: ...
    def to(self, topic: Any) -> None:
        """Writes the stream to a topic, or each record to the topic that a function of key and value returns.

        A None is written as a null value, which means a delete in a compacted topic. The topic is created when missing.
        A windowed key is written in Kafka's windowed form.
        """
        write(self._flow, topic)

    @property
    def errors(self) -> "Stream[bytes | None, bytes | None]":
        """The records of the topics this stream comes from that could not be decoded, with their raw key and value.

        Once somebody takes them they count as handled: `on_bad_record` is for those that nobody takes.
        """
        flow = self._flow
        sources = [node for node in flow.graph.upstream(flow.origin) if isinstance(node.operator, Source)]
        place, raw = user_place(), codec_of(bytes)
        flows = [
            Flow(
                flow.graph,
                Input(node.id, "errors"),
                Slot("key", node.name, place=place, of=bytes, codec=raw),
                Slot("value", node.name, place=place, of=bytes, codec=raw),
            )
            for node in sorted(sources, key=lambda node: node.id)
        ]
        return Stream(merged(flow.graph, "errors", flows, lambda name: Merge(name=name, place=place)))


def table_of(
    flow: Flow, store: str, place: Place, history_ms: int | None = None, source: Backing | None = None
) -> Table[Any, Any]:
    """The table of a stream's latest values, or of all in a history; what `App.table` and `Stream.to_table` make.

    source: what the store is to be restored from, where it has no changelog.
    """
    flow.key.need()
    if flow.rekeyed:
        flow = repartitioned(flow, store, place)
    name = flow.graph.name_for("table")
    operator = (
        TableSource(name=name, place=place, store_name=store, key=flow.key, value=flow.value, source=source)
        if history_ms is None
        else VersionedSource(
            name=name, place=place, store_name=store, key=flow.key, value=flow.value, history_ms=history_ms
        )
    )
    return Table(flow.then(operator), Stream)


def _declared(store: object, where: str) -> DeclaredStore[Any, Any]:
    if not is_declared(store):
        raise TypeError(f"{where}(stores=…) takes stores as app.store() returns them, not {store!r}")
    return store


def _check_choice(given: object) -> None:
    if not callable(given):
        raise TypeError(f"to takes a function of key and value, or a topic as app.topic() returns it, not {given!r}")
    check_function(given, "to")


def write(flow: Flow, topic: Any) -> None:
    """Adds a sink; what `Stream.to` and `Table.to` do.

    Raises:
        TypeError: `topic` is neither a Topic nor a plain function.
    """
    place = user_place()
    if is_topic(topic):
        flow.key.follow(topic.key_codec)
        flow.value.follow(topic.value_codec)
        flow.graph.topics.append(topic)
        operator = Sink(
            name=flow.graph.name_for("sink"), place=place, topic=topic, choose=None, key=flow.key, value=flow.value
        )
    else:
        _check_choice(topic)
        operator = Sink(
            name=flow.graph.name_for("sink"), place=place, topic=None, choose=topic, key=flow.key, value=flow.value
        )
    flow.then(operator)
