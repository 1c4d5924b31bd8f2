"""What the tasks have for the log since the last commit: records for output topics and dead letters.

1. Records of one key go out in the order in which they were made.
2. Nothing waits here past a commit: `send` hands all of it to the producer.
3. A windowed key goes to the partition of the key inside, as Kafka Streams has it, so that all windows of a key are in
   one partition. As with all other keys that is another one once the topic has got partitions.

Not here: when it is on disk (commit).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tailrace.log.client import Producer
from tailrace.log.errors import EncodeError
from tailrace.log.partitioner import Partitioner
from tailrace.log.record import Headers, RawRecord, TopicPartition
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.program.topology import Forward
from tailrace.streams.values.place import Place

# Handed to the producer at this many, so that a flat_map of millions needs no memory of that size; the producer's
# own buffer then pushes back.
_ROWS_MAX = 10_000


class OutputTopic(NamedTuple):
    """What a sink must know of the topic that it writes to."""

    partitions_now: Callable[[], int]
    compacted: bool


class Columns:
    """Rows on their way to one topic, by column; partition None leaves the choice to the key."""

    __slots__ = ("_partition", "_topic", "headers", "keys", "timestamps_ms", "values")

    def __init__(self, topic: str, partition: int | None) -> None:
        self._topic = topic
        self._partition = partition
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.timestamps_ms: list[int] = []
        self.headers: list[Headers] = []

    def send(self, producer: Producer) -> None:
        """Hands the rows to the producer."""
        if not self.values:
            return
        producer.send_many(
            self._topic,
            self.values,
            keys=self.keys,
            timestamps_ms=self.timestamps_ms,
            headers=self.headers if any(self.headers) else None,
            partition=self._partition,
        )
        self.clear()

    def clear(self) -> None:
        """Forgets the rows."""
        for column in (self.keys, self.values, self.timestamps_ms, self.headers):
            column.clear()


class InternalColumns(Columns):
    """Rows for one partition of a topic of the app's own."""

    __slots__ = ("_producer", "sent_ahead")

    def __init__(self, partition: TopicPartition, producer: Producer) -> None:
        super().__init__(*partition)
        self._producer = producer
        self.sent_ahead = 0
        """Rows that went to the producer before the commit."""

    def append(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers) -> None:
        """Takes a row."""
        self.keys.append(key)
        self.values.append(value)
        self.timestamps_ms.append(timestamp_ms)
        self.headers.append(headers)
        if len(self.values) >= _ROWS_MAX:
            self.sent_ahead += len(self.values)
            self.send(self._producer)


class _ByInnerKey:
    """The rows with windowed keys for a topic, by partition, whatever partitions that gets."""

    def __init__(self, make: Callable[[int], Columns], partitions_now: Callable[[], int]) -> None:
        self._make = make
        self._partitions_now = partitions_now
        self.partitioner = Partitioner(0)
        self.columns: list[Columns] = []
        self.follow()

    def follow(self) -> None:
        """Chooses among the partitions that there are now."""
        now = self._partitions_now()
        if now > len(self.columns):
            self.columns += map(self._make, range(len(self.columns), now))
            self.partitioner.grow(now)


class Outputs:
    """The output records of all tasks of a process."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._columns: dict[tuple[str, int | None], Columns] = {}
        self._internal: dict[TopicPartition, InternalColumns] = {}
        self._windowed: dict[str, _ByInnerKey] = {}
        self.sent = 0
        """Records handed to the producer since the start."""

    def send(self) -> None:
        """Hands everything to the producer."""
        for columns in self._columns.values():
            self.sent += len(columns.values)
            columns.send(self._producer)
        for columns in self._internal.values():
            columns.send(self._producer)
        for chosen in self._windowed.values():
            chosen.follow()

    def discard(self) -> None:
        """Forgets what was not handed over."""
        for columns in (*self._columns.values(), *self._internal.values()):
            columns.clear()

    def handed_over(self) -> int:
        """Rows handed to the producer: those of results, and of others those that did not wait for the commit."""
        return self.sent + sum(columns.sent_ahead for columns in self._internal.values())

    def columns(self, topic: str, partition: int | None = None) -> Columns:
        """The rows for a topic, or for one partition of it."""
        columns = self._columns.get((topic, partition))
        if columns is None:
            columns = self._columns[topic, partition] = Columns(topic, partition)
        return columns

    def internal(self, partition: TopicPartition) -> "InternalColumns":
        """The rows for a partition of a topic of the app's own, which count for no result."""
        columns = self._internal.get(partition)
        if columns is None:
            columns = self._internal[partition] = InternalColumns(partition, self._producer)
        return columns

    def sink(
        self,
        context: TaskContext,
        topic: str,
        encode_key: Callable[[Any], bytes],
        encode_value: Callable[[Any], bytes],
        *,
        place: Place | None = None,
    ) -> Forward:
        """The end of a chain: encodes at once, so that nothing here shares a value with a store.

        `place`, of the node, is given where the topic takes no null key, as a compacted one: refused here, it is a
        record that goes wrong as others do; the log would refuse its whole batch, again and again.
        """
        columns = self.columns(topic)
        keys, values, times, headers = columns.keys, columns.values, columns.timestamps_ms, columns.headers

        def to_topic(key: Any, value: Any, timestamp_ms: int) -> None:
            # Both before either is appended: what cannot be encoded may be dropped, and the columns go on.
            if key is not None:
                key_bytes = encode_key(key)
            elif place is None:
                key_bytes = None
            else:
                raise _null_key(topic, place)
            values.append(None if value is None else encode_value(value))
            keys.append(key_bytes)
            times.append(timestamp_ms)
            record = context.record
            headers.append(() if record is None else record.headers)
            if len(values) >= _ROWS_MAX:
                self.sent += len(columns.values)
                columns.send(self._producer)

        return to_topic

    def windowed_sink(
        self,
        topic: str,
        partitions_now: Callable[[], int],
        encode_inner: Callable[[Any], bytes],
        encode_key: Callable[[Any], bytes],
        encode_value: Callable[[Any], bytes],
    ) -> Forward:
        """The end of a chain with windowed keys; encode_inner gives the bytes of the key inside."""
        chosen = self._windowed.get(topic)
        if chosen is None:
            chosen = _ByInnerKey(lambda partition: self.columns(topic, partition), partitions_now)
            self._windowed[topic] = chosen
        columns_of, partition_of = chosen.columns, chosen.partitioner.of

        def to_topic(key: Any, value: Any, timestamp_ms: int) -> None:
            columns = columns_of[partition_of(encode_inner(key.key))]
            key_bytes = encode_key(key)
            columns.values.append(None if value is None else encode_value(value))
            columns.keys.append(key_bytes)
            columns.timestamps_ms.append(timestamp_ms)
            columns.headers.append(())
            if len(columns.values) >= _ROWS_MAX:
                self.sent += len(columns.values)
                columns.send(self._producer)

        return to_topic

    def raw(self, topic: str, record: RawRecord) -> None:
        """Takes a record as it came, bytes and headers."""
        columns = self.columns(topic)
        columns.keys.append(record.key)
        columns.values.append(record.value)
        columns.timestamps_ms.append(max(record.timestamp, 0))
        columns.headers.append(record.headers)


def _null_key(topic: str, place: Place) -> EncodeError:
    return EncodeError(
        f"a record for topic {topic!r}, written at {place}, has a null key, and a compacted topic keeps the last "
        "record of each key: give it one with key_by, or leave such records out with filter_kv"
    )
