"""A repartition through the log, as its writers see it: rows and markers on their way to its topic.

The other form of a hop (hop), for where one process does not run all writers and all readers.

1. Rows are written in the transaction of the commit, and read when it is committed. Behind them in every partition
   comes the marker with the times of the writers; a marker is written where one of these has changed.
2. A writer's time only moves forward; it is its stream time less what what it sends may lag behind that. A marker's own
   timestamp is not ahead of the times in it.
3. A row carries its origin only where it is late by more than `limit_ms`, the least that anything downstream waits for:
   the others are late for none of it, with their timestamp as the origin as with the true one.

Not here: when a marker is due and what is told (task, commit), the bytes (markers), reading (repartition_input).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailrace.log.partitioner import partition_of
from tailrace.log.record import Headers
from tailrace.streams.chain import markers
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.hop import ROUTES_MAX
from tailrace.streams.chain.markers import MARKER, ORIGIN, RESERVED, Known, Said
from tailrace.streams.chain.outputs import InternalColumns
from tailrace.streams.program.io import Repartition
from tailrace.streams.program.topology import Forward


@dataclass(slots=True, eq=False)
class LogHop:
    """One repartition, as the tasks of one process that write to it see it."""

    columns: Sequence[InternalColumns]
    """By partition."""
    writers: int
    """How many tasks write to it, in all processes."""
    sources: Mapping[str, int]
    """The partitions of each topic that ends there, in the end."""
    limit_ms: int | None
    _told: dict[int, Said] = field(default_factory=dict[int, Said])

    def sink(
        self, context: TaskContext, operator: Repartition, encode_key: Callable[[Any], bytes], encode_value: Any
    ) -> Forward:
        """The end of the writing task's chain. Null keys: see `Hop.sink`."""
        columns, partitions = self.columns, len(self.columns)
        key_codec, keeps_null_keys = operator.key.codec, operator.keeps_null_keys
        same = key_codec.natural is None
        partition_bytes = operator.key.told.partition_bytes
        routes: dict[bytes, InternalColumns] = {}
        limit = self.limit_ms

        def route(key: Any, encoded: bytes) -> InternalColumns:
            if len(routes) >= ROUTES_MAX:
                routes.clear()
            chosen = encoded if same else partition_bytes(key)
            column = routes[encoded] = columns[partition_of(chosen, partitions)]
            return column

        def to_log(key: Any, value: Any, timestamp_ms: int) -> None:
            # All that may raise comes before anything is appended: the columns go on.
            data = None if value is None else encode_value(value)
            key_bytes = None
            if key is not None:
                key_bytes = encode_key(key)
                column = routes.get(key_bytes) or route(key, key_bytes)
            elif keeps_null_keys:
                column = columns[context.partition % partitions]
            else:
                context.drop("null_key")
                return
            record = context.record
            headers: Headers = () if record is None else record.headers
            if headers:
                headers = [each for each in headers if each[0] not in RESERVED]
            if limit is not None and context.origin_ms - timestamp_ms > limit:
                headers = [(ORIGIN, markers.pack_origin(context.origin_ms)), *headers]
            column.append(key_bytes, data, timestamp_ms, headers)

        return to_log

    def tell(self, said: Mapping[int, Said]) -> None:
        """Writes a marker to every partition, if one of these writers has something new to say."""
        new: dict[int, Said] = {}
        for writer, (time_ms, idle) in said.items():
            before = self._told.get(writer)
            now = Said(time_ms if before is None else max(time_ms, before.time_ms), idle)
            if now != before:
                new[writer] = now
        if not new:
            return
        self._told.update(new)
        value = markers.encode(Known(self.writers, self.sources, new))
        time_ms = max(min(each.time_ms for each in new.values()), 0)
        for column in self.columns:
            column.append(None, value, time_ms, [(MARKER, b"")])
