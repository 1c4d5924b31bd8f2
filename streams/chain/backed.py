"""Stores that have no changelog of their own: a table that is restored from the topic it is read from.

1. Such a store holds what its topic says below the offset that it is read from next. So it is restored up to the
   committed offset and never past it, and its checkpoint is the task's position in that topic.
2. A record is taken at a restore as it was taken live: decoded, timed, encoded again. What could not be read is left
   out, whatever the app did about it.
3. The topic is its owner's: nothing here writes to it, trims it, or deletes it.

Beside the store stands its changelog's topic, which stays empty: it has the note that says how the store was begun
(topics), and is reset, promoted and deleted as that of any store. Why not for every table: docs/decisions.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from tailrace.log.client import FetchedBatch, Log
from tailrace.log.errors import TopologyError
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.state.changelog import pack_int64
from tailrace.state.store import ROWS, Codec
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.streams.chain.source import Decoding, taken
from tailrace.streams.program.topic import Topic
from tailrace.streams.values.place import Place

_ONE_FORM = (bytes, str, int)


class Backing(NamedTuple):
    """What such a table is restored from."""

    topic: Topic[Any, Any]
    ahead_ms: int | None
    """The app's `max_future`."""


class SourceLayout:
    """Rows of a key-value store from the records of the topic that its table is read from."""

    last_decides: ClassVar[bool] = False  # one that cannot be read leaves the row as it was

    def __init__(self, source: Backing, values: Codec[Any]) -> None:
        """`values` is the store's."""
        topic, self._ahead_ms = source
        self._decoding = Decoding(topic.key_codec.decode, topic.value_codec.decode, topic.timestamp)
        self._encode = values.encode

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], _expire_before_ms: int, /) -> int:
        """See `Layout`. A record without a key, or that cannot be read, is left out."""
        decoding, encode, ahead_ms = self._decoding, self._encode, self._ahead_ms
        count = 0
        for record in records:
            count += 1
            key = record.key
            if key is None:
                continue
            try:
                _, value, timestamp_ms = taken(record, decoding, ahead_ms)
                row = None if value is None else pack_int64(timestamp_ms) + encode(value)
            except Exception:  # noqa: BLE001, S112 - the user's functions: told when it was read, and gone past since
                continue
            into[ROWS + key] = row
        return count


class SourceReader(ChangelogReader):
    """One partition of such a topic up to an offset, read as a changelog is."""

    def __init__(
        self, log: Log, partition: TopicPartition, end_offset: int, unwanted: threading.Event | None = None
    ) -> None:
        super().__init__(log, partition, unwanted)
        self.end_offset = min(self.end_offset, end_offset)

    def __str__(self) -> str:
        return f"{self.partition}, as far as that was read, {self.end_offset}"

    def batches(self, offset: int, /) -> Iterator[FetchedBatch]:
        """Batches from offset to the end; raises BrokenOffError. One that goes beyond is cut there."""
        for batch in super().batches(offset):
            if batch.base_offset >= self.end_offset:
                return  # what stood there before was compacted
            if batch.next_offset > self.end_offset:
                records = [record for record in batch.records if record.offset < self.end_offset]
                yield replace(batch, records=records, next_offset=self.end_offset)
                return
            yield batch


def check_backing(topic: Topic[Any, Any], history_ms: int | None) -> None:
    """Refuses what shows at the call.

    Raises:
        ValueError: the table has a history, or keys that have several forms in bytes.
    """
    if history_ms is not None:
        raise ValueError(
            'app.table(history=…, changelog="source") cannot be: a compacted topic has the last version of each key '
            'alone; leave changelog="source" out'
        )
    if topic.key_codec.plain not in _ONE_FORM:
        raise ValueError(
            f'app.table(changelog="source") needs keys of bytes, str or int, and topic {topic.name!r} has '
            f"{topic.key_codec.name}: one key may have several forms in bytes there, and compaction would take them "
            'for several keys; leave changelog="source" out'
        )


def check_backing_in_log(topic: Topic[Any, Any], policy: str, place: Place) -> None:
    """Refuses a topic that does not keep the last value of each key. Raises TopologyError."""
    if policy != "compact":
        raise TopologyError(
            f'the table at {place} says changelog="source", and topic {topic.name!r} has cleanup.policy={policy}, so '
            "it does not keep the last value of every key, of which the table would be restored: set "
            f'cleanup.policy=compact with alter_topic, or leave changelog="source" out'
        )
