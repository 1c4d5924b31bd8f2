"""A repartition within one process: the chain of the task that writes calls the chain of the task that reads.

1. Rows of one writer and one key arrive in the order in which they were written, each before the next one is made:
   there is nothing to drain before a commit.
2. A row brings its record's origin along, so lateness is judged as it would have been before the hop.
3. A writer's time is told after the rows that it covers, never before (task).

Nothing is written to a topic: one process runs all writers and all readers. Where it does not, the hop goes through the
log (log_hop). The partition of a key is the log's: murmur2 over the encoded key.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.log.partitioner import partition_of
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.program.topology import Forward

# Keys whose partition is remembered: murmur2 costs up to 3 µs in Python, a look-up 30 ns.
ROUTES_MAX = 200_000

Reader = tuple[TaskContext, Forward]
"""The context of a task that reads a repartition, and what takes its rows."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One repartition, as one of its writers sees it."""

    readers: Sequence[Reader]
    """By partition."""

    def sink(
        self,
        context: TaskContext,
        encode_key: Callable[[Any], bytes],
        *,
        hashable: bool,
        keeps_null_keys: bool = False,
    ) -> Forward:
        """The end of the writing task's chain.

        Null keys stay in the partition with the number of their own, or go no further and are counted as "null_key".
        """
        readers, partitions = self.readers, len(self.readers)
        routes: dict[Any, Reader] = {}

        def route(key: Any, remembered: Any) -> Reader:
            encoded = encode_key(key) if hashable else remembered
            if len(routes) >= ROUTES_MAX:
                routes.clear()
            reader = routes[remembered] = readers[partition_of(encoded, partitions)]
            return reader

        def to_reader(key: Any, value: Any, timestamp_ms: int) -> None:
            reader = routes.get(key) if hashable else (None if key is None else routes.get(encode_key(key)))
            if reader is None:
                if key is not None:
                    reader = route(key, key if hashable else encode_key(key))
                elif keeps_null_keys:
                    reader = readers[context.partition % partitions]
                else:
                    context.drop("null_key")
                    return
            there, forward = reader
            there.record, there.source = context.record, context.source
            # A row whose origin is older than the stream time there comes from a writer that was idle: to it the
            # windows that closed meanwhile are closed too.
            origin_ms, floor_ms = context.origin_ms, there.stream_time_ms
            there.origin_ms = origin_ms if origin_ms > floor_ms else floor_ms
            try:
                forward(key, value, timestamp_ms)
            except Exception as error:  # noqa: BLE001 - raised again where the policy says so
                # The writer's word: only there is it known what is at work where there is no record.
                context.failed(error, (key, value, timestamp_ms))

        return to_reader
