"""What there is of one partition, and reading it: segments in order, limits, leader epochs, what is stable.

1. log start offset <= synced offset <= log end offset; high watermark = log end (one node); the last stable offset is
   `stability`'s. Offsets are dense: a batch gets the log end offset as its base.
2. A read-only partition writes nothing; it ends quietly at an incomplete batch, and lists anew when a file is gone:
   what the writer has deleted takes the log start with it.

Every method may be called from any thread; none waits for anything but the disk. Not here: what changes it
(`partition`); the list of segments (`segments`).
"""

import threading

from tailrace.log import checkpoint
from tailrace.log.clock import Clock
from tailrace.log.disk import Disk
from tailrace.log.errors import InvalidError, TopicNotFoundError
from tailrace.log.partition.epochs import LeaderEpochs
from tailrace.log.partition.producers import AbortedTransaction, OpenTransaction
from tailrace.log.partition.segments import Segments
from tailrace.log.partition.stability import Stability
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig


class OffsetOutOfRangeError(InvalidError):
    """An offset below the log start or above the log end: seek, or let `reset` decide.

    Attributes: `offset`, `log_start_offset`, `log_end_offset`.
    """

    def __init__(
        self, tp: TopicPartition, offset: int, log_start_offset: int, log_end_offset: int, advice: str = "seek to one"
    ) -> None:
        """The sentence is made from the numbers; `advice` is its end."""
        super().__init__(
            f"there is no offset {offset} in {tp}, which has {log_start_offset} to {log_end_offset}: {advice}"
        )
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset


class Extent:
    """See the head of this file. The locks: `_sync_lock` is taken before `_lock`."""

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
    ) -> None:
        """Empty, whatever the folder holds."""
        self.tp = tp
        self.directory = directory
        self._config = config
        self.read_only = read_only
        self._disk = disk
        self._clock = clock
        self._lock = threading.RLock()  # offsets, segments, files
        self._sync_lock = threading.Lock()  # one sync at a time
        self._segments = Segments(
            disk, directory, interval_bytes=config.index_interval_bytes, write=not read_only, syncing=self._sync_lock
        )
        self._log_start_offset = 0
        self._log_end_offset = 0
        self._synced_offset = 0
        self._closed = False
        self._epochs = LeaderEpochs(disk, directory)
        self._stability = Stability(disk, clock, directory, tp, self._segments, wait_for_sync=wait_for_sync)

    # ---- the limits

    @property
    def config(self) -> TopicConfig:
        """The topic's; set when it is altered."""
        return self._config

    @config.setter
    def config(self, config: TopicConfig) -> None:
        self._config = config
        self._segments.interval_bytes = config.index_interval_bytes

    @property
    def leader_epoch(self) -> int:
        """Every batch that is appended gets it; a new one at each opening."""
        return self._epochs.current

    @property
    def log_start_offset(self) -> int:
        """The first offset that may be read."""
        return self._log_start_offset

    @property
    def log_end_offset(self) -> int:
        """The offset that the next record gets."""
        return self._log_end_offset

    @property
    def high_watermark(self) -> int:
        """What consumers may read ends here: the log end, with one node."""
        return self._log_end_offset

    @property
    def last_stable_offset(self) -> int:
        """What `read_committed` reads ends here: see `stability`."""
        if self.read_only:
            self._follow()
        end = self.high_watermark  # first: see there
        return max(self._stability.last_stable_offset(end), self._log_start_offset)

    def open_transactions(self) -> list[OpenTransaction]:
        """The transactions without a marker, oldest first: what holds up the last stable offset."""
        with self._lock:
            if self.read_only:
                self._follow()
            return self._stability.producers.open_transactions()

    def aborted(self, start: int, end: int) -> list[AbortedTransaction]:
        """The aborted transactions that have offsets from `start` to below `end`, in the order of their markers.

        Whoever reads up to the last stable offset leaves their producers' transactional records out, each from its
        first to its last offset.
        """
        with self._lock:
            self._check_open()
            while True:
                try:
                    if self.read_only:
                        self._follow()
                    return self._stability.aborted(start, end)
                except FileNotFoundError:
                    if not self.read_only:
                        raise
                    self._list_anew()

    @property
    def synced_offset(self) -> int:
        """Every record below is on disk."""
        return self._synced_offset

    @property
    def size_bytes(self) -> int:
        """Bytes of all data files."""
        with self._lock:
            return sum(self._segments.size_of(each) for each in self._segments)

    @property
    def segment_offsets(self) -> list[int]:
        """The base offsets of the segments, in order."""
        with self._lock:
            return self._segments.base_offsets

    @property
    def epochs(self) -> list[checkpoint.EpochEntry]:
        """Which leader epoch began at which offset, in order."""
        with self._lock:
            return self._epochs.entries

    def epoch_before(self, offset: int) -> int:
        """The leader epoch of the record before an offset; -1 where none is known."""
        with self._lock:
            return self._epochs.of(offset - 1)

    def end_of_epoch(self, leader_epoch: int) -> int:
        """The offset at which the records of an epoch, or of those before it, end; -1 for one that is still to come.

        Something that remembers (epoch, offset) with an offset above this remembers records that are not ours.
        """
        with self._lock:
            return self._epochs.end_of(leader_epoch, self._log_end_offset)

    # ---- reading

    def read(self, offset: int, max_bytes: int, *, limit: int | None = None) -> bytes:
        """Whole batches, from the one that holds `offset` on: about `max_bytes`, at least one batch; b"" at the end.

        The first may begin below `offset`. `limit`: only batches that end below this offset. CRCs are the reader's to
        check (`codec.check_crc`).

        Raises:
            OffsetOutOfRangeError: below the log start or above the log end offset.
        """
        with self._lock:
            self._check_open()
            if self.read_only and offset >= self._log_end_offset:
                self._extend()
            while True:
                end = self._log_end_offset
                if not self._log_start_offset <= offset <= end:
                    raise OffsetOutOfRangeError(self.tp, offset, self._log_start_offset, end)
                if offset == end:
                    return b""
                try:
                    return self._read(offset, max_bytes, limit)
                except FileNotFoundError:
                    if not self.read_only:
                        raise
                    self._list_anew()  # the writer's retention has taken the file

    def _read(self, offset: int, max_bytes: int, limit: int | None) -> bytes:
        for index in range(self._segments.index_of(offset), len(self._segments)):
            segment = self._segments.loaded(index)
            if offset < segment.next_offset:
                data = segment.read(offset, max_bytes, limit)
                if data or offset >= segment.base_offset:
                    return data
        return b""

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidError(f"{self.tp} is closed: open the log again")

    def locate(self, offset: int) -> tuple[str, int]:
        """For messages: the file in which an offset is, and the byte at which its batch begins (-1: not found)."""
        with self._lock:
            self._check_open()
            segment = self._segments.loaded(self._segments.index_of(offset))
            position = segment.position_of(offset)
            return segment.path, -1 if position is None else position

    @property
    def max_timestamp_ms(self) -> int:
        """The largest time of a record, or -1; those that were deleted or aborted since may count."""
        with self._lock:
            self._check_open()
            return max(self._segments.loaded(index).max_timestamp_ms for index in range(len(self._segments)))

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, int] | None:
        """The first record, by offset, that is at least as young as `timestamp_ms`: (offset, its time), or None."""
        with self._lock:
            self._check_open()
            if self.read_only:
                self._extend()
            for index in range(self._segments.index_of(self._log_start_offset), len(self._segments)):
                segment = self._segments.loaded(index)
                if segment.max_timestamp_ms >= timestamp_ms:
                    found = segment.offset_for_time(timestamp_ms, self._log_start_offset)
                    if found is not None:
                        return found
            return None

    # ---- beside a writer

    def _list_anew(self) -> None:
        """The segments as they are now; what the writer deleted is gone, and the log start goes up with it."""
        try:
            self._segments.list_anew()
        except FileNotFoundError:
            raise TopicNotFoundError(
                f"{self.tp} is gone, as its topic was deleted by the process that writes the log: read another topic"
            ) from None
        if self._segments:
            self._log_end_offset = max(self._log_end_offset, self._segments.active.next_offset)
            self._log_start_offset = max(self._log_start_offset, self._segments[0].base_offset)
        else:
            self._log_end_offset = max(self._log_end_offset, self._log_start_offset)
        self._synced_offset = self._log_end_offset

    def _follow(self) -> None:
        """Counts in what was read of producers since."""
        with self._lock:
            while True:
                try:
                    return self._stability.catch_up()
                except FileNotFoundError:
                    self._list_anew()

    def _extend(self) -> None:
        if self._segments:
            self._segments.active.extend()
        self._list_anew()
