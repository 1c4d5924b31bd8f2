"""The fate of what was sent, as a caller holds it: of one record, and of a bulk.

1. A delivery holds its batch, and not the bytes: it may live much longer than what was sent.

Not here: who answers, and when (`producer`).
"""

from collections.abc import Sequence
from typing import Protocol

from tailrace.log.clients.outgoing import Batch
from tailrace.log.record import RecordMetadata


class Waiter(Protocol):
    """Who waits for batches: their producer."""

    def wait_for(self, batches: Sequence[Batch], timeout: float | None) -> None:
        """Waits until all of these have their answer; raises the first error among them."""
        ...


class BatchDelivery:
    """The fate of one record: its place in a batch."""

    __slots__ = ("_batch", "_index", "_producer", "_timestamp_ms")

    def __init__(self, producer: Waiter, batch: Batch, index: int, timestamp_ms: int) -> None:
        self._producer = producer
        self._batch = batch
        self._index = index
        self._timestamp_ms = timestamp_ms

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._batch.finished

    def acknowledged(self) -> int:
        """1 once it is."""
        return int(self._batch.finished and self._batch.error is None)

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Waits for the acknowledgement; see `Delivery`."""
        batch = self._batch
        self._producer.wait_for([batch], timeout)
        offset = batch.base_offset + self._index if batch.base_offset >= 0 else -1
        timestamp_ms = self._timestamp_ms if batch.timestamp_ms < 0 else batch.timestamp_ms
        return RecordMetadata(batch.target.name, batch.partition, offset, timestamp_ms)


class ManyDelivery:
    """The fate of a bulk: the last record's place, and the first error of any.

    `batches` are all that its records are in, each with the number, in the bulk, of the first record in it.
    """

    __slots__ = ("_batches", "_count", "_last", "_producer")

    def __init__(self, producer: Waiter, batches: dict[Batch, int], count: int, last: BatchDelivery) -> None:
        self._producer = producer
        self._batches = batches
        self._count = count
        self._last = last

    def done(self) -> bool:
        """Whether every record has its answer, or one has failed."""
        return all(batch.finished for batch in self._batches) or any(batch.error for batch in self._batches)

    def acknowledged(self) -> int:
        """See `Delivery`: what comes before the first record of a batch that failed or is on its way."""
        without = [first for batch, first in self._batches.items() if not batch.finished or batch.error is not None]
        return min(without, default=self._count)

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Waits for all of them, or for an error of any, which it raises."""
        self._producer.wait_for(list(self._batches), timeout)
        return self._last.result(timeout)
