"""What of a partition stands firm: its producers, its open transactions, markers that are on disk, aborted ranges.

1. log start offset <= last stable offset <= high watermark. It is the least of: where the oldest open transaction
   begins, the oldest marker that is not on disk (unless syncing is left to the system, `flush="os"`), the high
   watermark. The decision that a marker states is on disk before it is written, so what stands before it may be read.
2. Everything below `producers.next_offset` is counted in. Opening counts the rest; a read-only partition does so when
   it is asked, as what it reads moves.
3. An aborted range stands in the segment of its marker: `Segment.aborted`.
4. A snapshot is written when all before its offset is on disk: batches, and aborted ranges. So none is ever ahead of
   the log, and opening has the newest whole one and counts in what follows. One that knows of producers is synced, and
   no marker is compacted away before one is there that has counted it in: else its transaction would seem to be open
   for ever. So would it from a snapshot below the first segment, which is of no use: retention writes another before
   it deletes, if there is room. The newest two are kept.

All of it is guarded by the partition's lock, but for `last_stable_offset`. Not here: the rules (`producers`).
"""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tailrace.log import codec
from tailrace.log.clock import Clock
from tailrace.log.codec import BatchHeader, Data
from tailrace.log.disk import Disk
from tailrace.log.errors import DiskFullError
from tailrace.log.partition.markers import decode_marker
from tailrace.log.partition.producer_snapshot import (
    EMPTY_BYTES,
    encode_snapshot,
    offset_of,
    path_at,
    read_snapshot,
    write_snapshot,
)
from tailrace.log.partition.producers import AbortedTransaction, Producers
from tailrace.log.partition.segment import Segment, scan
from tailrace.log.partition.segments import Segments
from tailrace.log.partition.txn_index import AbortedEntry
from tailrace.log.record import TopicPartition
from tailrace.log.topic import INT64_MAX

SNAPSHOTS_KEPT: Final = 2

logger = logging.getLogger(__name__)


class Stability:
    """See the module's docstring. `wait_for_sync`: a marker counts when it is on disk, and not before."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        directory: str,
        tp: TopicPartition,
        segments: Segments,
        *,
        wait_for_sync: bool,
    ) -> None:
        """Nothing is counted in yet."""
        self.producers = Producers(tp)
        self._disk = disk
        self._clock = clock
        self._directory = directory
        self._tp = tp
        self._segments = segments
        self._wait_for_sync = wait_for_sync
        self._unsynced_markers: deque[int] = deque()
        self._write = False
        self._snapshots: list[int] = []  # the offsets of those on disk, in order
        self._synced_offset = INT64_MAX  # what is found in the segments below it needs no sync
        self._unstable_from: int | None = None

    # ---- the limit

    def last_stable_offset(self, high_watermark: int) -> int:
        """See the first invariant; `high_watermark` was read before this is called. Needs no lock.

        A transaction is known before the high watermark passes its first offset: so whoever reads in this order never
        sees a limit behind it.
        """
        unstable = self._unstable_from
        return high_watermark if unstable is None else min(unstable, high_watermark)

    def synced(self, offset: int) -> bool:
        """Says that everything below `offset` is on disk; whether the last stable offset may have moved."""
        markers = self._unsynced_markers
        if not markers or markers[0] >= offset:
            return False
        while markers and markers[0] < offset:
            markers.popleft()
        self._settle()
        return True

    def _settle(self) -> None:
        begun, markers = self.producers.unstable_from, self._unsynced_markers
        if begun is None:
            self._unstable_from = markers[0] if markers else None
        else:
            self._unstable_from = min(begun, markers[0]) if markers else begun

    # ---- what is appended

    def added(self, header: BatchHeader, batch: Data, segment: Segment) -> None:
        """Counts in a batch that was appended to `segment`; before the high watermark passes it."""
        if header.producer_id < 0:
            self.producers.next_offset = header.next_offset
            return
        self._count(header, batch, segment)
        if header.control and self._wait_for_sync:
            self._unsynced_markers.append(header.base_offset)
        self._settle()

    def _count(self, header: BatchHeader, batch: Data, segment: Segment) -> None:
        marker = decode_marker(batch) if header.control else None
        ended = self.producers.added(header, marker, now_ms=self._clock.now_ms())
        if ended is not None and not ended.committed:
            begun = self.producers.unstable_from
            stable = ended.last_offset + 1 if begun is None else begun
            segment.aborted.append(AbortedEntry(ended.producer_id, ended.first_offset, ended.last_offset, stable))

    # ---- what was there

    def open(self, names: Sequence[str], *, end: int, write: bool) -> None:
        """Begins from the newest snapshot at or below `end`, the log end offset; with `write`, removes useless ones."""
        self._write = write
        self._snapshots = sorted(each for name in names if (each := offset_of(name)) is not None)
        for offset in [each for each in self._snapshots if each > end]:
            self._remove(offset)
        self._begin()

    def _begin(self) -> None:
        self.producers = Producers(self._tp)
        first = self._segments[0].base_offset if self._segments else 0
        for offset in reversed([each for each in self._snapshots if each >= first]):
            path = path_at(self._directory, offset)
            try:
                states = read_snapshot(self._disk, path)
            except FileNotFoundError:  # the writer has taken it away
                continue
            except ValueError as error:
                logger.info("%s: %s is torn (%s): more of the log is read instead", self._tp, path, error)
                self._remove(offset)
                continue
            self.producers = Producers(self._tp, states, next_offset=offset)
            break
        self.producers.expire(self._clock.now_ms())

    def rebuild(self, *, synced_offset: int) -> None:
        """Counts in anew what stands in the segments, from the newest snapshot on; below `synced_offset` it is on disk.

        After an append that was interrupted, and nobody knows where.
        """
        self._unsynced_markers.clear()
        self._synced_offset = synced_offset
        self._begin()
        self.catch_up()

    def catch_up(self) -> None:
        """Counts in what was not yet, up to the end of the segments.

        Raises:
            CorruptError: a marker is damaged.
        """
        if self._segments and self.producers.next_offset < self._segments[0].base_offset:  # the writer has deleted some
            if not self._write:
                self.open(self._disk.list(self._directory), end=self._segments.active.next_offset, write=False)
            self.producers.next_offset = max(self.producers.next_offset, self._segments[0].base_offset)
        offset = self.producers.next_offset
        if self._segments and self._segments.active.next_offset > offset:
            for index in range(self._segments.index_of(offset), len(self._segments)):
                self._catch_up(self._segments.loaded(index))
        self._settle()

    def _catch_up(self, segment: Segment) -> None:
        offset = self.producers.next_offset
        segment.cut_aborted(offset)
        position = segment.position_of(offset)
        if position is None:
            return
        for at, header, batch in scan(segment.file, position, segment.size):
            if header.last_offset >= offset:
                if header.control:
                    codec.check_crc(batch, file=segment.path, position=at, where=f"{self._tp}@{header.base_offset}")
                self._count(header, batch, segment)
                if header.control and self._wait_for_sync and header.base_offset >= self._synced_offset:
                    self._unsynced_markers.append(header.base_offset)

    # ---- snapshots

    @property
    def snapshot_offset(self) -> int:
        """What the newest snapshot has counted in ends here."""
        return self._snapshots[-1] if self._snapshots else 0

    def capture(self) -> tuple[int, bytes]:
        """What a snapshot of now has: its offset, its bytes. Write it when everything below the offset is on disk."""
        self.producers.expire(self._clock.now_ms())
        return self.producers.next_offset, encode_snapshot(self.producers.states)

    def write_snapshot(self, captured: tuple[int, bytes]) -> None:
        """Writes a snapshot; the aborted ranges below its offset stand in their files. None where there is no room."""
        offset, data = captured
        if self._snapshots and self._snapshots[-1] >= offset:
            return
        self._snapshots.append(offset)
        try:
            write_snapshot(self._disk, path_at(self._directory, offset), data, sync=len(data) > EMPTY_BYTES)
        except DiskFullError:  # the next start reads the log from the one before
            self._remove(offset)
            return
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            self._remove(self._snapshots[0])

    def _remove(self, offset: int) -> None:
        self._snapshots.remove(offset)
        if not self._write:
            return
        with suppress(FileNotFoundError):
            self._disk.remove(path_at(self._directory, offset))

    # ---- aborted ranges

    def aborted(self, start: int, end: int) -> list[AbortedTransaction]:
        """The aborted transactions that have offsets in `start` to `end` (exclusive), by their markers' order."""
        found: list[AbortedTransaction] = []
        for index in range(self._segments.index_of(start), len(self._segments)):
            for entry in self._segments.loaded(index).aborted:
                if entry.last_offset >= start and entry.first_offset < end:
                    found.append(AbortedTransaction(entry.producer_id, entry.first_offset, entry.last_offset))
                if entry.last_stable_offset >= end:
                    return found
        return found
