"""Silence: where wall time moves stream time, and how a replay knows of it (`idle_after=` of windows).

1. A silence is part of its source partition: a record that has a time and nothing else, between two offsets. It moves
   what a record of that time would move, origin and stream time, and goes no further. So all that holds of records
   holds of it: what is late, and what is closed, follows from the content of the partitions, silences included.
2. A task is silent while all its inputs are read to their ends. Once that has lasted `idle_after`, and after every
   `idle_after` more, each of its partitions has a silence whose time is that before it began plus what has passed since
   by the wall; but none where nothing waits for time to go on.
3. Each is written with the commit of what it brought about, to the partition of the same number of
   `<app>-<topic>-silences`. Of several before one offset the last one counts: all of them but that are compacted away.
4. Whoever reads a partition from an offset on, after a restart or once more from its beginning, takes the silences from
   there on for part of it, whatever the clock says then.
5. A replay begins with copies of those of the app that it stands beside.
6. What was written of another topic of that name, or before the partition's start, counts for nothing and is deleted.

Record: key: the offset that it stands before (8 bytes, big-endian), then the topic's id; value: its time in ms (8
bytes); the record's own timestamp is not ahead of the data. Docs: docs/log_format.md.
Not here: what happens with one (source), when to look (runner).
"""

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.outputs import InternalColumns
from tailrace.streams.chain.positions import ChangelogReader

NOWHERE = (1 << 63) - 1
"""After every offset."""

CONFIG: Final[Mapping[str, Any]] = {
    "cleanup.policy": "compact,delete",
    "retention.ms": -1,
    "message.timestamp.after.max.ms": (1 << 63) - 1,
}
"""Of the topics that they are kept in."""

_INT64 = struct.Struct(">q")


class Silence(NamedTuple):
    """A time that a partition had come to without a record, and the offset that this stands before."""

    offset: int
    time_ms: int


class Silences:
    """Those of one source partition that its task has still to come to, in the order of their offsets."""

    def __init__(self, topic_id: str, column: InternalColumns, known: list[Silence]) -> None:
        """`column` takes the records of new ones."""
        self._topic_id = topic_id.encode()
        self._column = column
        self._waiting = deque(known)
        self.next_offset = known[0].offset if known else NOWHERE
        """What the next one stands before."""

    @property
    def next_ms(self) -> int:
        """The time of the next one, which there is."""
        return self._waiting[0].time_ms

    def take(self) -> int:
        """Passes the next one; returns its time."""
        time_ms = self._waiting.popleft().time_ms
        self.next_offset = self._waiting[0].offset if self._waiting else NOWHERE
        return time_ms

    def add(self, silence: Silence, data_ms: int) -> None:
        """Adds one behind all others, and writes it; data_ms: the time that the data had come to."""
        self._waiting.append(silence)
        self.next_offset = self._waiting[0].offset
        key = _INT64.pack(silence.offset) + self._topic_id
        self._column.append(key, _INT64.pack(silence.time_ms), max(data_ms, 0), ())


def read_silences(log: Log, topic: TopicPartition, of: TopicPartition, position: int) -> list[Silence]:
    """The silences from `position` on of the source partition `of`; what counts for nothing is deleted.

    Raises RetriableError where the log cannot delete now.
    """
    topic_id = log.describe_topic(of.topic).topic_id.encode()
    start = log.offsets(of.topic, "earliest")[of]
    found: dict[int, int] = {}
    needed_from: int | None = None
    reader = ChangelogReader(log, topic)
    for at, key, time_ms in _records(reader):
        offset = _INT64.unpack_from(key)[0]
        if key[_INT64.size :] == topic_id and offset >= start:
            needed_from = at if needed_from is None else needed_from
            found[offset] = time_ms
    if (reader.end_offset if needed_from is None else needed_from) > reader.start_offset:
        log.delete_records({topic: reader.end_offset if needed_from is None else needed_from})
    return [Silence(offset, found[offset]) for offset in sorted(found) if offset >= position]


def copy_silences(log: Log, source: str, to: str) -> None:
    """Has one topic of silences hold all that another one has, where that is there; to call it again adds what is new.

    Raises RetriableError where the log cannot write now.
    """
    if source not in log.topics(internal=True):
        return
    counts = log.describe_topic(source).partitions
    log.create_topic(to, partitions=counts, config=CONFIG, internal=True, exist_ok=True)
    with log.producer() as producer:
        for number in range(counts):
            there = {key: time_ms for _, key, time_ms in _records(ChangelogReader(log, TopicPartition(to, number)))}
            for _, key, time_ms in _records(ChangelogReader(log, TopicPartition(source, number))):
                if there.get(key, -1) < time_ms:
                    there[key] = time_ms
                    producer.send(to, _INT64.pack(time_ms), key=key, timestamp_ms=0, partition=number)
        producer.flush()


def _records(reader: ChangelogReader) -> Iterator[tuple[int, bytes, int]]:
    for batch in reader.batches(reader.start_offset):
        for record in batch.records:
            assert record.key is not None
            assert record.value is not None
            yield record.offset, record.key, _INT64.unpack(record.value)[0]


class Listening:
    """For how long one task has been silent, by a clock in seconds."""

    def __init__(self, idle_after_ms: int) -> None:
        self._after_s = idle_after_ms / 1000
        self._positions: tuple[int, ...] | None = None
        self._since_s = 0.0
        self.due_s = float("inf")
        """When to look again, if it stays silent."""

    def is_due(self, positions: tuple[int, ...] | None, now_s: float) -> bool:
        """Whether it has been silent for `idle_after` since the last time that it was due.

        positions are those of its inputs, all of them read to their ends; None: they are not.
        """
        if positions is None or positions != self._positions:
            self._positions, self._since_s = positions, now_s
            self.due_s = float("inf") if positions is None else now_s + self._after_s
            return False
        if now_s < self.due_s:
            return False
        self.due_s = now_s + self._after_s
        return True

    def passed_ms(self, now_s: float) -> int:
        """What has passed of the silence since this was asked last, in ms."""
        since_s, self._since_s = self._since_s, now_s
        return round((now_s - since_s) * 1000)
