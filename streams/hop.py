"""A repartition within one process: rows handed from the tasks that write to the tasks that read, in memory.

1. Rows of one writer and one key arrive in the order in which they were written.
2. A row carries its record's origin, so lateness is judged as it would have been before the hop.
3. A writer's time is handed down after the rows that it covers, never before.

Nothing is written to a topic: one process runs all writers and all readers, and the hop is drained before each commit.
The partition of a key is the log's: murmur2 over the encoded key.
"""

from collections.abc import Callable
from typing import Any

from tailrace.log.partitioner import partition_of
from tailrace.streams.context import RawRecord, TaskContext
from tailrace.streams.topology import Forward

Row = tuple[Any, Any, int, int, RawRecord | None]
"""key, value, timestamp_ms, origin_ms, the source record."""

# Keys whose partition is remembered: murmur2 costs up to 3 µs in Python, a look-up 30 ns.
_ROUTES_MAX = 200_000


class HopWriter:
    """What one writing task has for the readers of one repartition: a list of rows for each partition."""

    __slots__ = ("_rows", "id")

    def __init__(self, writer_id: tuple[int, int], partitions: int) -> None:
        self.id = writer_id
        """(repartition node, upstream partition)."""
        self._rows: list[list[Row]] = [[] for _ in range(partitions)]

    def take(self, partition: int) -> list[Row]:
        """The rows written for a partition since the last call; they are the caller's."""
        rows = self._rows[partition]
        if not rows:
            return rows
        taken = rows[:]
        rows.clear()  # the list itself stays: process() remembers its append
        return taken

    def clear(self) -> None:
        """Forgets rows that nobody took: the batch they came from is aborted."""
        for rows in self._rows:
            rows.clear()

    def sink(self, context: TaskContext, encode_key: Callable[[Any], bytes], *, hashable: bool) -> Forward:
        """The end of the writing task's chain. Null keys go no further and are counted as "null_key"."""
        append_to = [rows.append for rows in self._rows]
        partitions = len(append_to)
        routes: dict[Any, Callable[[Row], None]] = {}

        def route(key: Any, remembered: Any) -> Callable[[Row], None]:
            encoded = remembered if not hashable else encode_key(key)
            append = append_to[partition_of(encoded, partitions)]
            if len(routes) >= _ROUTES_MAX:
                routes.clear()
            routes[remembered] = append
            return append

        def by_key(key: Any, value: Any, timestamp_ms: int) -> None:
            append = routes.get(key)
            if append is None:
                if key is None:
                    context.drop("null_key")
                    return
                append = route(key, key)
            append((key, value, timestamp_ms, context.origin_ms, context.record))

        def by_encoded_key(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None:
                context.drop("null_key")
                return
            encoded = encode_key(key)
            append = routes.get(encoded)
            if append is None:
                append = route(key, encoded)
            append((key, value, timestamp_ms, context.origin_ms, context.record))

        return by_key if hashable else by_encoded_key
