"""The fluent surface of a stream: each method checks its arguments and adds one node.

Not here: what the nodes do (operators/), which codecs they get (derived).
"""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from tailrace.streams.codec import codec_of
from tailrace.streams.derived import Slot, made_slot, returned, returned_items, returned_pair
from tailrace.streams.flow import Flow, checked_name, merged
from tailrace.streams.grouped import Grouped
from tailrace.streams.operators.io import Merge, Sink, Source
from tailrace.streams.operators.stateless import Filter, FlatMap, KeyBy, Map, MapKv
from tailrace.streams.place import check_function, user_place
from tailrace.streams.topic import Topic, is_topic
from tailrace.streams.topology import Input

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
VR = TypeVar("VR")
T = TypeVar("T")


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

    def key_by(self, f: Callable[[V], K2], *, key: type[K2] | None = None) -> "Stream[K2, V]":
        """Replaces each key by `f(value)`.

        What keeps state further on reads the records from the partition of the new key.
        """
        flow, _ = self._keyed(f, key, "key_by")
        return Stream(flow)

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
        if partitions is not None and partitions < 1:
            raise ValueError(f"group_by(partitions={partitions!r}) is not a number above 0")
        flow, place = self._keyed(f, key, "group_by")
        return Grouped(flow, Stream, place, name=name, partitions=partitions)

    def group_by_key(self, *, name: str | None = None) -> Grouped[K, V]:
        """Groups records by the key they have; `name` is of the internal topic, where the key was changed before."""
        return Grouped(self._flow, Stream, user_place(), name=name, partitions=None)

    def _keyed(self, f: Callable[[V], K2], key: type[K2] | None, where: str) -> "tuple[Flow, Any]":
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
                Slot("key", node.name, codec=raw),
                Slot("value", node.name, codec=raw),
            )
            for node in sorted(sources, key=lambda node: node.id)
        ]
        return Stream(merged(flow.graph, "errors", flows, lambda name: Merge(name=name, place=place)))


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
        check_function(topic, "to")
        operator = Sink(
            name=flow.graph.name_for("sink"), place=place, topic=None, choose=topic, key=flow.key, value=flow.value
        )
    flow.then(operator)
