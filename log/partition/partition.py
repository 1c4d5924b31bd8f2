"""One partition as its writer has it: what may be appended, what is on disk, what goes.

1. What `sync` returned is on disk: the bytes, and the name of the file they are in. A segment is synced before the next
   one is made, so that only the last one can be torn by a crash.
2. What lies below the recovery point (`checkpoint`) is on disk with its indexes, and is not scanned at the next start;
   the caller keeps that number in `recovery-point-offset-checkpoint`. After a clean stop it is the log end offset.
3. After a sync that failed, nobody knows what of the unsynced bytes is on disk: nothing is appended or acknowledged any
   more until the partition is opened anew. A full disk is no such failure: the append is undone.
4. Deleting walks from the head. The log start offset goes up first, then files are renamed `….deleted`, later removed.
5. Compaction puts one cleaned segment in the place of several closed ones; offsets and limits stay (`replace`). In a
   compacted topic every record has a key.

Every method may be called from any thread; none waits for anything but the disk, and appends do not wait for a sync
that runs. Not here: its limits, and reading (`extent`); topics, who waits for what, when to sync (`broker`); what a
batch must be (`admission`), what a bad one means (`recovery`); how many segments go (`retention`), which records stay
(`compaction`).
"""

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tailrace.log import codec
from tailrace.log.clock import Clock
from tailrace.log.codec import BatchHeader
from tailrace.log.disk import Disk, join
from tailrace.log.errors import DiskFullError, InvalidError, TailraceError
from tailrace.log.partition.admission import as_stored, check_batch, check_timestamps
from tailrace.log.partition.extent import Extent, OffsetOutOfRangeError
from tailrace.log.partition.index import INT32_MAX
from tailrace.log.partition.markers import Marker, decode_marker, encode_marker
from tailrace.log.partition.opening import records_missing, recover_segments
from tailrace.log.partition.producers import KnownBatch, ProducerEnd
from tailrace.log.partition.retention import surplus_segments
from tailrace.log.partition.segment import Segment, path_of
from tailrace.log.partition.swap import CleanedSegment
from tailrace.log.partition.txn_index import AbortedEntry
from tailrace.log.record import TopicPartition
from tailrace.log.topic import INT64_MAX, TopicConfig

logger = logging.getLogger(__name__)


def nobody_waits() -> None:
    """For who has no readers to wake."""


class Appended(NamedTuple):
    """Where a batch landed; `timestamp_ms` is the log's own time for all its records, -1 with CreateTime.

    `duplicate`: it was there already, sent before by the same producer, and nothing was appended.
    """

    base_offset: int
    last_offset: int
    timestamp_ms: int
    duplicate: bool = False


class Partition(Extent):
    """The log of one partition. Make one with `Partition.open`."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        directory: str,
        tp: TopicPartition,
        config: TopicConfig,
        *,
        read_only: bool,
        wait_for_sync: bool,
        stable_moved: Callable[[], None],
    ) -> None:
        """Use `open`; this only sets the fields."""
        super().__init__(disk, clock, directory, tp, config, read_only=read_only, wait_for_sync=wait_for_sync)
        self._swap_lock = threading.Lock()  # closed segments come and go; taken before _sync_lock
        self._recovery_point = 0
        self._names_synced = True
        self._failed: Exception | None = None
        self._settled = True  # False while an append runs
        self._stable_moved = stable_moved

    # ---- opening

    @classmethod
    def open(
        cls,
        disk: Disk,
        clock: Clock,
        directory: str,
        tp: TopicPartition,
        config: TopicConfig,
        *,
        leader_epoch: int | None = None,
        recovery_point: int = 0,
        log_start_offset: int = 0,
        read_only: bool = False,
        wait_for_sync: bool = True,
        stable_moved: Callable[[], None] = nobody_waits,
    ) -> "Partition":
        """Opens a partition's folder, making it when missing, and recovers what a crash has left.

        `recovery_point`: everything below was on disk, with indexes, at the last checkpoint (0: check everything).
        `leader_epoch`: None raises the last one by 1. A segment's CRCs are checked from the recovery point on.
        `wait_for_sync`: the last stable offset passes a marker when it is on disk; without, at once. `stable_moved` is
        called by a thread that has synced, with no lock held, where the last stable offset has moved by that.

        Raises:
            CorruptError: damage that no crash explains, or fewer records than the recovery point promises.
            TopicNotFoundError: read-only, and there is no such folder.
        """
        made = cls(
            disk,
            clock,
            directory,
            tp,
            config,
            read_only=read_only,
            wait_for_sync=wait_for_sync,
            stable_moved=stable_moved,
        )
        made._log_start_offset = log_start_offset
        if read_only:
            made._list_anew()
            made._stability.open(disk.list(directory), end=made._log_end_offset, write=False)
            made._epochs.load(made._segments.last_leader_epoch)
        else:
            made._recover(recovery_point)
            made._epochs.begin(leader_epoch, made._log_end_offset, made._segments.last_leader_epoch)
        return made

    def _recover(self, recovery_point: int) -> None:
        disk = self._disk
        names = recover_segments(
            disk,
            self.directory,
            self.tp,
            self._segments,
            recovery_point=recovery_point,
            interval_bytes=self.config.index_interval_bytes,
        )
        if not self._segments:
            if recovery_point > 0:
                raise records_missing(self.tp, join(self.directory, "*.log"), 0, promised=recovery_point, found=0)
            self._segments.add_empty(self._log_start_offset)
        active = self._segments.active
        self._log_end_offset = active.next_offset
        promised = max(recovery_point, self._log_start_offset)
        if self._log_end_offset < promised:
            raise records_missing(self.tp, active.path, active.size, promised=promised, found=active.next_offset)
        self._log_start_offset = max(self._log_start_offset, self._segments[0].base_offset)
        # What recovery found may stand in the page cache alone, after a kill; from here on it counts as synced. After a
        # clean stop there is nothing of the kind: a log of many partitions opens without a sync for each.
        # (An empty active segment does not count as clean: its name may be younger than the checkpoint.)
        self._names_synced = active.base_offset < recovery_point == self._log_end_offset
        if not self._names_synced:
            active.file.sync()
            disk.sync_dir(self.directory)
            self._names_synced = True
        self._synced_offset = self._log_end_offset
        self._recovery_point = min(recovery_point, self._log_end_offset)
        self._stability.open(names, end=self._log_end_offset, write=True)
        self._stability.catch_up()

    # ---- writing

    def append(self, batch: bytearray) -> Appended:
        """Appends one batch as a producer built it. It gets the next offsets; it is not synced when this returns.

        `batch` itself is changed: base offset and epoch, and for LogAppendTime attributes, time and CRC. One of a
        producer with an id that is here already is not appended again.

        Raises:
            InvalidError: not one whole batch of version 2 with a right CRC, too large, or a timestamp out of bounds;
                `OutOfOrderSequenceError`: not the next of its producer.
            FencedError: a newer epoch of its producer has been here.
            DiskFullError: no room; nothing was appended, and the partition goes on.
            TailraceError: an earlier sync failed: open the log anew.
        """
        header = check_batch(self.tp, self.config, batch)
        with self._lock:
            self._check_writable()
            self._settled_end()
            if header.producer_id >= 0 or header.transactional:
                known = self._known(batch, header)
                if known is not None:
                    stamped = known.timestamp_ms if self.config.log_append_time else -1
                    return Appended(known.base_offset, known.last_offset, stamped, duplicate=True)
            now_ms = self._clock.now_ms()
            check_timestamps(self.tp, self.config, batch, header, now_ms=now_ms)
            batch, header = as_stored(self.config, batch, header, now_ms=now_ms)
            return self._append(batch, header)

    def append_marker(
        self, producer_id: int, producer_epoch: int, *, committed: bool, coordinator_epoch: int
    ) -> Appended:
        """Appends the marker that ends a producer's transaction here; not synced when this returns.

        One for a producer without an open transaction does no harm: a coordinator that died half-way repeats itself.

        Raises:
            FencedError: a newer epoch of the producer, or of the coordinator, has been here.
            DiskFullError, TailraceError: as `append`.
        """
        with self._lock:
            self._check_writable()
            self._settled_end()
            self._stability.producers.check_marker(producer_id, producer_epoch, coordinator_epoch)
            now_ms = self._clock.now_ms()
            batch = encode_marker(
                producer_id, producer_epoch, Marker(committed, coordinator_epoch), timestamp_ms=now_ms
            )
            batch, header = as_stored(self.config, batch, BatchHeader.parse(batch), now_ms=now_ms)
            return self._append(batch, header)

    def _known(self, batch: bytearray, header: BatchHeader) -> KnownBatch | None:
        producers = self._stability.producers
        if not header.control:
            return producers.check(header)
        marker = decode_marker(batch)
        if marker is not None:
            producers.check_marker(header.producer_id, header.producer_epoch, marker.coordinator_epoch)
        return None

    def _append(self, batch: bytearray, header: BatchHeader) -> Appended:
        base_offset = self._log_end_offset
        segment = self._segment_for(header, base_offset)
        self._epochs.write()
        codec.set_base(batch, base_offset, self.leader_epoch)
        header = header._replace(base_offset=base_offset, leader_epoch=self.leader_epoch)
        self._settled = False
        try:
            segment.append(batch, header)
        except (DiskFullError, OSError):
            self._settled = segment.settled
            raise
        self._stability.added(header, batch, segment)
        self._log_end_offset = header.next_offset
        self._settled = True
        return Appended(base_offset, header.last_offset, header.max_timestamp_ms if header.log_append_time else -1)

    def _settled_end(self) -> int:
        """The log end offset, after an append was interrupted somewhere: what it left whole stays."""
        if not self._settled:
            active = self._segments.active
            if not active.settled:
                active.settle()
            self._stability.rebuild(synced_offset=self._synced_offset)
            self._log_end_offset = active.next_offset
            self._settled = True
        return self._log_end_offset

    def _check_writable(self) -> None:
        if self.read_only:
            raise InvalidError(f"{self.tp} was opened read-only: open the log without read_only to write")
        if self._closed:
            raise InvalidError(f"{self.tp} is closed: open the log again")
        if self._failed is not None:
            raise self._unsure() from self._failed

    def _unsure(self) -> TailraceError:
        return TailraceError(
            f"{self.tp} could not be synced to disk ({self._failed}): whether offsets {self._synced_offset} to "
            f"{self._log_end_offset - 1} are there is not known; check the disk, then close the log and open it again"
        )

    def _segment_for(self, header: BatchHeader, base_offset: int) -> Segment:
        """The active segment, after a roll where the batch does not belong into it any more."""
        active, config = self._segments.active, self.config
        if header.size > config.segment_bytes:
            raise InvalidError(
                f"a batch of {header.size} bytes does not fit into a segment of {self.tp}, which has "
                f"{config.segment_bytes} (segment.bytes): send smaller batches, or raise it for the topic"
            )
        if active.size and (
            active.size > config.segment_bytes - header.size
            or (
                active.first_timestamp_ms is not None
                and not header.control  # its time is the clock's, and the records may be a backlog of last year
                and active.first_timestamp_ms >= 0
                and header.max_timestamp_ms - active.first_timestamp_ms > config.roll_ms
            )
            or active.indexer.full(config.segment_index_bytes)
            or base_offset + header.last_offset_delta - active.base_offset > INT32_MAX
        ):
            return self._roll()
        return active

    def _roll(self) -> Segment:
        """Closes the active segment for writing and makes the next. Synced first: see invariant 1."""
        old = self._segments.active
        with self._syncing():
            old.file.sync()
            if not self._names_synced:
                self._disk.sync_dir(self.directory)
                self._names_synced = True
        self._synced_offset = self._log_end_offset
        self._stability.synced(self._synced_offset)
        new = self._segments.add_empty(self._log_end_offset)
        old.seal()
        self._names_synced = False
        self._segments.touch(old)
        return new

    @contextmanager
    def _syncing(self) -> Generator[None]:
        """A sync that fails leaves the partition closed for writing."""
        try:
            yield
        except OSError as error:
            with self._lock:
                self._failed = error
                raise self._unsure() from error

    def sync(self) -> int:
        """Returns when everything appended before the call is on disk; the result is the synced offset.

        Appends go on meanwhile.

        Raises:
            TailraceError: the disk refused; nothing more is written until the log is opened anew.
        """
        with self._sync_lock:
            with self._lock:
                self._check_writable()
                end = self._settled_end()
                active, names_synced = self._segments.active, self._names_synced
                if end == self._synced_offset and names_synced:
                    return end
                file = active.file
            with self._syncing():
                file.sync()
                if not names_synced:
                    self._disk.sync_dir(self.directory)
            with self._lock:
                if not names_synced and self._segments.active is active:
                    self._names_synced = True
                self._synced_offset = max(self._synced_offset, end)
                moved, synced = self._stability.synced(end), self._synced_offset
        if moved:
            self._stable_moved()
        return synced

    @property
    def recovery_point(self) -> int:
        """What `checkpoint` last returned: below it everything is on disk, with indexes."""
        return self._recovery_point

    def checkpoint(self) -> int:
        """Syncs data and indexes; the result is the new recovery point, for `recovery-point-offset-checkpoint`.

        Call it every minute or so: what lies above it is read again after a crash.
        """
        with self._lock:
            self._check_writable()
            self._settled_end()
            captured = self._stability.capture()
        end = self.sync()
        with self._sync_lock, self._lock:
            self._check_writable()
            with self._syncing():
                for segment in self._segments:
                    if segment.loaded and not segment.indexes_written:
                        segment.write_indexes()
                self._stability.write_snapshot(captured)
            self._recovery_point = end
            return end

    def close(self) -> None:
        """Syncs everything and closes the files; afterwards `recovery_point` is the log end offset."""
        if self._closed:
            return
        try:
            if not self.read_only and self._failed is None:
                with self._lock:
                    self._settled_end()
                    self._segments.active.seal()
                self.checkpoint()
        except DiskFullError as error:
            logger.warning("%s: closed without all index files, which the next start rebuilds: %s", self.tp, error)
        finally:
            with self._swap_lock, self._sync_lock, self._lock:
                self._closed = True
                self._segments.close()

    # ---- cleaning

    def cleanable_segments(self) -> list[tuple[int, int]]:
        """Base offset and bytes of each segment that ends at or below the last stable offset and is not the active one.

        In order.
        """
        with self._lock:
            self._check_writable()
            ends, limit = self._segments.base_offsets[1:], self.last_stable_offset
            return [
                (each.base_offset, self._segments.size_of(each))
                for each, end in zip(self._segments.closed, ends, strict=True)
                if end <= limit
            ]

    def aborted_entries(self, bases: Sequence[int]) -> list[AbortedEntry]:
        """The aborted transactions whose markers stand in these segments."""
        with self._lock:
            indexes = [self._segments.index_of(base) for base in bases]
            return [entry for index in indexes for entry in self._segments.loaded(index).aborted]

    @property
    def snapshot_offset(self) -> int:
        """Below it, what batches and markers say of producers is on disk elsewhere."""
        with self._lock:
            return self._stability.snapshot_offset

    def producer_ends(self) -> list[ProducerEnd]:
        """Where the last batch of each producer stands."""
        with self._lock:
            return self._stability.producers.ends()

    def first_timestamp_ms(self, base_offset: int) -> int:
        """The largest timestamp in the first batch of a segment: how long its records have been waiting."""
        with self._lock:
            self._check_writable()
            first = self._segments.loaded(self._segments.index_of(base_offset)).first_timestamp_ms
            return self._clock.now_ms() if first is None else first

    def replace(self, bases: Sequence[int], cleaned: CleanedSegment) -> bool:
        """Puts a cleaned segment, finished, in the place of the closed ones that it was made from, named by `bases`.

        False where one of these is gone meanwhile (retention): then nothing happens, and `cleaned` is the caller's to
        discard. Appends and reads wait for the renames alone.

        Raises:
            DiskFullError: no room for a name; nothing has changed.
            TailraceError: the disk refused in the middle: the partition is closed for writing, opening finishes.
        """
        with self._swap_lock:
            with self._lock:
                self._check_writable()
                at = self._segments.run_of(bases)
            if at is None:
                return False
            # The rename takes the old file's name; what has the file open pays for its removal, and not under the lock.
            held = self._disk.open(path_of(self.directory, bases[0]))
            try:
                cleaned.commit()
                with self._sync_lock, self._lock:  # no sync may run on a file that is closed here
                    self._swap(at, len(bases), cleaned)
                self._disk.sync_dir(self.directory)
                cleaned.end()
            except BaseException as error:
                if cleaned.decided:
                    self._failed = error if isinstance(error, Exception) else InterruptedError("a cleaning was stopped")
                raise
            finally:
                held.close()
            return True

    def _swap(self, at: int, count: int, cleaned: CleanedSegment) -> None:
        first, *others = [self._segments[index] for index in range(at, at + count)]
        first.close()
        self._segments.rename_deleted(others, self._clock.now_ms() + self.config.file_delete_delay_ms)
        new = self._segments.make(cleaned.base_offset)
        cleaned.put_in_place(new)
        self._segments.put(at, count, new)

    # ---- deleting

    def delete_records(self, offset: int) -> int:
        """Raises the log start offset to `offset` (-1: the high watermark) and returns it; whole segments go later.

        The caller keeps it in `log-start-offset-checkpoint`. Synced first, so that the log never ends before its start.

        Raises:
            OffsetOutOfRangeError: above the high watermark.
        """
        self.sync()
        with self._lock:
            self._check_writable()
            self.check_deletable(offset)
            wanted = self.high_watermark if offset == -1 else offset
            self._log_start_offset = max(self._log_start_offset, wanted)
            return self._log_start_offset

    def check_deletable(self, offset: int) -> None:
        """Refuses what `delete_records` refuses.

        Raises:
            OffsetOutOfRangeError: above the high watermark, or below -1.
        """
        if not -1 <= offset <= self.high_watermark:
            advice = f"give up to {self.high_watermark}, or -1 for all that is there"
            raise OffsetOutOfRangeError(self.tp, offset, self._log_start_offset, self.high_watermark, advice)

    def apply_retention(self, now_ms: int) -> list[str]:
        """Deletes whole segments from the head: too old, too much, or below the log start; returns their file names.

        Too old: the largest timestamp in it is more than `retention.ms` ago; the walk stops at the first that is not.
        Too much: without it, `retention.bytes` are still there. Where all go, the active one is rolled first.
        """
        if self._surplus(now_ms) and len(self._stability.producers):
            with suppress(DiskFullError):  # room comes first: then producers are forgotten with their batches
                self.checkpoint()  # what the segments say of producers is said elsewhere before they go
        with self._swap_lock, self._sync_lock, self._lock:
            self._check_writable()
            self._segments.remove_due(now_ms)
            count = self._surplus(now_ms)
            if count == 0:
                return []
            return self._delete_head(count, now_ms, self.config.file_delete_delay_ms)

    def _surplus(self, now_ms: int) -> int:
        with self._lock:
            self._check_writable()
            return surplus_segments(self._segments, self.config, log_start_offset=self._log_start_offset, now_ms=now_ms)

    def empty(self) -> None:
        """Deletes every record and all files but an empty one, at once: what makes room before the topic itself goes.

        Raises:
            DiskFullError: no room even for an empty file; nothing has changed.
        """
        with self._swap_lock, self._sync_lock, self._lock:
            self._check_writable()
            self._segments.remove_due(INT64_MAX)
            self._settled_end()
            self._delete_head(len(self._segments) - (self._segments.active.size == 0), INT64_MAX, 0)

    def _delete_head(self, count: int, now_ms: int, delay_ms: int) -> list[str]:
        if count == len(self._segments):
            self._roll()
        going = self._segments.take_head(count)
        self._log_start_offset = max(self._log_start_offset, self._segments[0].base_offset)
        with self._syncing():
            self._segments.delete(going, now_ms + delay_ms)
            self._names_synced = True
        self._segments.remove_due(now_ms)
        return [each.path for each in going]
