"""The rows of a global table in one process: read whole before anything else runs, and read on from then.

1. Every partition is read from its beginning to its end, by a consumer without a group: nothing is committed, and
   each process has all of it. What is not committed in the log is not seen.
2. The last value that was read of a key is the one there is, whatever its time; a null value deletes. Rows are bytes,
   so nobody shares a value.
3. Rows are in memory, and read anew at each start.

Not here: when they are read (runner).
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from tailrace.log.client import FetchedBatch, Log
from tailrace.log.errors import TopicNotFoundError, TopologyError
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.streams.chain.bad_records import unreadable
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.store import Store

_logger = logging.getLogger(__name__)


def ends_of(log: Log, table: GlobalTable[Any, Any]) -> Mapping[TopicPartition, int]:
    """Where the topic of a global table ends, by partition. Raises TopologyError where there is no such topic."""
    topic = table.topic
    try:
        return log.offsets(topic.name, "latest")
    except TopicNotFoundError as error:
        raise TopologyError(
            f"{error}; it is read whole by the global table at {table.place}, declared at {topic.place}; an input "
            "is never created by itself"
        ) from error


class GlobalRows:
    """See the module's docstring. `fails` says whether a record that cannot be read ends the app; else it is left out.

    Raises:
        TopologyError: there is no such topic.
    """

    def __init__(self, log: Log, table: GlobalTable[Any, Any], *, fails: bool) -> None:
        self.table = table
        self.rows: dict[bytes, bytes] = {}
        """Encoded values by encoded keys."""
        self._fails = fails
        self._left_out = 0
        self._ends = ends_of(log, table)
        self._consumer = log.consumer(reset="earliest")
        self._consumer.assign(list(self._ends))
        self._consumer.seek_to_beginning()

    def read_whole(self) -> None:
        """Reads up to where the topic ended when this was made. Raises DecodeError."""
        consumer = self._consumer
        while any(consumer.position(partition) < end for partition, end in self._ends.items()):
            self._take(consumer.poll_batches(1.0))

    def read_on(self) -> None:
        """Reads what has come since, without waiting. Raises DecodeError."""
        while batches := self._consumer.poll_batches(0):
            self._take(batches)

    def close(self) -> None:
        """Ends reading."""
        self._consumer.close()

    def _take(self, batches: list[FetchedBatch]) -> None:
        rows, decode_key = self.rows, self.table.topic.key_codec.decode
        decode_value = self.table.topic.value_codec.decode
        for batch in batches:
            for record in batch.records:
                key, value = record.key, record.value
                if key is None:
                    self._leave_out(batch, record, "has no key")
                    continue
                try:
                    decode_key(key)
                    if value is not None:
                        decode_value(value)
                except Exception as error:
                    if self._fails:
                        raise unreadable(record, batch.partition, error) from error
                    self._leave_out(batch, record, f"cannot be read: {error}")
                    continue
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value

    def _leave_out(self, batch: FetchedBatch, record: RawRecord, why: str) -> None:
        self._left_out += 1
        if self._left_out == 1:
            _logger.warning(
                "%s@%d %s: it is no row of global table %s, nor are others like it",
                batch.partition,
                record.offset,
                why,
                self.table.name,
            )


class GlobalView(Store[Any, Any]):
    """A global table, to read."""

    def __init__(self, rows: GlobalRows) -> None:
        super().__init__(rows.table.name)
        self._rows = rows.rows
        self._keys, self._values = rows.table.topic.key_codec, rows.table.topic.value_codec

    def get(self, key: Any) -> Any:
        """See `Store.get`."""
        data = self._rows.get(self._keys.encode(key))
        return None if data is None else self._values.decode(data)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """See `Store.all`."""
        return self.range(reverse=reverse)

    def range(self, low: Any = None, high: Any = None, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """See `Store.range`."""
        first = b"" if low is None else self._keys.encode(low)
        last = None if high is None else self._keys.encode(high)
        for key in sorted(self._rows, reverse=reverse):
            if first <= key and (last is None or key <= last):
                yield self._keys.decode(key), self._values.decode(self._rows[key])

    def prefix(self, prefix: Any) -> Iterator[tuple[Any, Any]]:
        """See `Store.prefix`."""
        first = self._keys.encode(prefix)
        for key in sorted(self._rows):
            if key.startswith(first):
                yield self._keys.decode(key), self._values.decode(self._rows[key])
