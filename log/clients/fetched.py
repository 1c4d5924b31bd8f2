"""What a consumer has fetched of one partition and not handed out yet; and what of it must not be seen.

1. position <= offsets in `Source.queue` < fetch_offset; -1 = not known yet.

Plain data: the consumer's lock guards it. Not here: reading (`consumer`).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from tailrace.log.client import FetchedBatch
from tailrace.log.codec import BatchHeader, batches
from tailrace.log.errors import CorruptError
from tailrace.log.partition.partition import Partition
from tailrace.log.partition.producers import AbortedTransaction
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.log.records import BatchRecords


class Aborted:
    """Aborted transactions in a stretch of a partition: what a reader of committed records leaves out."""

    def __init__(self, transactions: Iterable[AbortedTransaction]) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        for producer_id, first_offset, last_offset in transactions:
            self._ranges.setdefault(producer_id, []).append((first_offset, last_offset))

    def has(self, header: BatchHeader) -> bool:
        """Whether a transactional batch belongs to one of them."""
        return any(first <= header.base_offset <= last for first, last in self._ranges.get(header.producer_id, ()))


class Source:
    """One assigned partition. position <= offsets in `queue` < fetch_offset; -1 = not known yet."""

    __slots__ = ("fetch_offset", "leader_epoch", "log", "partition", "paused", "position", "queue", "walk")

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.position = -1
        self.fetch_offset = -1
        self.leader_epoch = -1
        self.paused = False
        self.log: Partition | None = None  # what the position is one of
        self.queue: deque[FetchedBatch] = deque()
        self.walk: Iterator[RawRecord] | None = None  # over the first batch of the queue, where it was begun

    def move(self, offset: int) -> None:
        """Goes on at `offset`, and drops what was fetched."""
        self.position = self.fetch_offset = offset
        self.queue.clear()
        self.walk = None

    def take(self, count: int) -> list[RawRecord]:
        """The next records from the queue, at least one if there is any."""
        out: list[RawRecord] = []
        while self.queue and len(out) < count:
            batch = self.queue[0]
            if self.walk is None:
                self.walk = chain(batch.records)  # the compiled reader itself cannot be resumed
            wanted = count - len(out)
            some = list(islice(self.walk, wanted))
            out += some
            self.leader_epoch = batch.leader_epoch
            if some:
                self.position = some[-1].offset + 1
            if len(some) < wanted or self.position == batch.next_offset:
                self.queue.popleft()
                self.walk, self.position = None, batch.next_offset
        return out

    def take_batches(self) -> list[FetchedBatch]:
        """All batches of the queue; the first from the position on."""
        out = list(self.queue)
        if self.walk is not None and out:
            out[0] = _rest(out[0], self.position)
        if out:
            self.position, self.leader_epoch = out[-1].next_offset, out[-1].leader_epoch
        self.queue.clear()
        self.walk = None
        return out


def size_of(batch: FetchedBatch) -> int:
    """Bytes that its records take at least, without headers: this is only compared with fetch_min_bytes."""
    return sum(8 + len(record.key or b"") + len(record.value or b"") for record in batch.records)


def _rest(batch: FetchedBatch, position: int) -> FetchedBatch:
    assert isinstance(batch.records, BatchRecords)
    return replace(batch, base_offset=position, records=batch.records.start_at(position))


def end_of(data: bytes) -> int:
    """The offset after the last whole batch in `data`, which has one."""
    return max(header.next_offset for header, _ in batches(data))


def unreadable(log: Partition, position: int, found: str) -> CorruptError:
    """What is raised where a read gave something else than the records from an offset on."""
    file, at = log.locate(position)
    return CorruptError(
        f"{log.tp}@{position} in {file} at byte {at} gave {found}: look with `tailrace log verify`, then restore it",
        file=file,
        position=at,
        expected=f"a batch with offset {position} or later",
        found=found,
    )
