"""One segment of a partition: a data file of record batches, and the two indexes that point into it.

1. Every offset in the file is >= the base offset and < the next segment's base offset; batches stand in their order.
2. The data file is only ever appended to, and cut at its end; a batch that is in it never changes. A cleaning writes
   another file, which takes its place whole (`swap`).
3. The index files may lag behind the data and never run ahead of it: loading reads the rest from the data.
4. Only the last segment of a partition is written to.

Not here: when to roll (`partition`), what a bad batch means (`recovery`). Format: docs/log_format.md.
"""

import struct
from collections.abc import Iterator
from typing import Final

from tailrace.log import codec
from tailrace.log.codec import HEADER_BYTES, BatchHeader
from tailrace.log.disk import Disk, File, join, parent
from tailrace.log.errors import CorruptError, DiskFullError
from tailrace.log.partition.index import INT32_MAX, Indexer
from tailrace.log.partition.txn_index import ENTRY_BYTES, AbortedEntry, pack, unpack

CHUNK_BYTES: Final = 1 << 20
HINTS_MAX: Final = 64
LOG, INDEX, TIME_INDEX, TXN_INDEX, DELETED = ".log", ".index", ".timeindex", ".txnindex", ".deleted"
CLEANED, SWAP = ".cleaned", ".swap"  # after one of the suffixes: see `swap`
SUFFIXES: Final = (LOG, INDEX, TIME_INDEX, TXN_INDEX)


def segment_name(base_offset: int) -> str:
    """The file name without suffix: 20 digits."""
    return f"{base_offset:020d}"


def path_of(directory: str, base_offset: int, suffix: str = LOG) -> str:
    """One of a segment's files."""
    return join(directory, segment_name(base_offset) + suffix)


def base_offset_of(name: str) -> int | None:
    """The base offset in the name of a data file, None for any other name."""
    stem = name.removesuffix(LOG)
    return int(stem) if name.endswith(LOG) and len(stem) == 20 and stem.isdigit() else None


def scan(file: File, position: int, end: int) -> Iterator[tuple[int, BatchHeader, memoryview]]:
    """The batches from byte `position` up to `end`, each with its position.

    Ends quietly before one that is incomplete or has an impossible length. CRC and offsets are the caller's to check.
    """
    chunk, start = b"", position
    while end - position >= HEADER_BYTES:
        if position - start + HEADER_BYTES > len(chunk):
            chunk, start = file.read(position, min(CHUNK_BYTES, end - position)), position
            if len(chunk) < HEADER_BYTES:
                return
        header = BatchHeader.parse(chunk, position - start)
        size = header.size
        if size < HEADER_BYTES or position + size > end:
            return
        if position - start + size > len(chunk):
            chunk, start = file.read(position, max(size, min(CHUNK_BYTES, end - position))), position
            if len(chunk) < size:
                return
        yield position, header, memoryview(chunk)[position - start : position - start + size]
        position += size


class Segment:
    """A data file and its indexes. Not safe for several threads: the partition's lock guards it."""

    def __init__(self, disk: Disk, directory: str, base_offset: int, *, interval_bytes: int, write: bool) -> None:
        """Nothing is opened yet; `interval_bytes` is `index.interval.bytes`."""
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.first_timestamp_ms: int | None = None  # of the first batch, its largest: rolling by time counts from it
        self.size = 0
        self.last_leader_epoch = -1
        self.aborted: list[AbortedEntry] = []  # whose markers stand in it
        self.loaded = False
        self.settled = True  # False while an append runs
        self.write = write
        self._disk = disk
        self._stem = join(directory, segment_name(base_offset))
        self._file: File | None = None
        self._indexer = Indexer(base_offset, interval_bytes)
        self._indexes_on_disk = (0, 0)  # bytes of the two index files that are equal to what is in memory
        self._aborted_on_disk = (0, 0)  # how many of the first in `aborted` stand in the file; its bytes
        self._hints: dict[int, int] = {}

    @property
    def path(self) -> str:
        """The data file."""
        return self._stem + LOG

    @property
    def file(self) -> File:
        """The data file, opened at the first use."""
        if self._file is None:
            self._file = self._disk.open(self.path, write=self.write)
        return self._file

    @property
    def max_timestamp_ms(self) -> int:
        """The largest timestamp in it, -1 while it has none."""
        return self._indexer.max_timestamp_ms

    @property
    def indexer(self) -> Indexer:
        """The indexes in memory."""
        return self._indexer

    # ---- opening

    def create(self) -> None:
        """Makes the empty data file; stale index files of that name go."""
        for suffix in (INDEX, TIME_INDEX, TXN_INDEX):
            if self._disk.exists(self._stem + suffix):
                self._disk.remove(self._stem + suffix)
        self.file.truncate(0)
        self.loaded = True

    def begin_loading(self, below: int) -> int:
        """Takes from the index files what they say of offsets below `below`; returns the byte to scan on from."""
        interval = self._indexer.interval_bytes
        self._indexer = Indexer.load(self.base_offset, interval, self._read(INDEX), self._read(TIME_INDEX), below)
        self.next_offset, self.size, self.first_timestamp_ms = self.base_offset, 0, None
        self._hints.clear()
        data = self._read(TXN_INDEX)
        self.aborted = unpack(data)
        self._aborted_on_disk = (len(self.aborted), len(data))
        file, offsets = self.file, self._indexer.offsets
        size = file.size
        if size >= HEADER_BYTES:
            self.first_timestamp_ms = BatchHeader.parse(file.read(0, HEADER_BYTES)).max_timestamp_ms
        if not self._indexer.times:  # its file was lost with its name: the offset index alone would hide what it had
            offsets.cut(0)
        while offsets:
            entry = offsets[-1]
            if entry.position + HEADER_BYTES <= size:
                header = BatchHeader.parse(file.read(entry.position, HEADER_BYTES))
                if header.magic == codec.MAGIC and header.last_offset == entry.offset:
                    self._indexer.rewind(header.base_offset)
                    self._remember_indexes_on_disk()
                    self.next_offset, self.size = header.base_offset, entry.position
                    return entry.position
            offsets.cut(len(offsets) - 1)
        self._indexer = Indexer(self.base_offset, interval)
        self._remember_indexes_on_disk()
        return 0

    def load(self) -> None:
        """Reads what the indexes do not say from the data, up to the last whole batch; CRCs are not looked at."""
        position = self.begin_loading(INT32_MAX + self.base_offset + 1)
        for at, header, _ in scan(self.file, position, self.file.size):
            if not self.follows(header):
                break
            self.added(header, at)
        self.loaded = True

    def extend(self) -> None:
        """Takes in what a writer elsewhere has appended since."""
        for at, header, _ in scan(self.file, self.size, self.file.size):
            if not self.follows(header):
                break
            self.added(header, at)

    def adopt(
        self, indexer: Indexer, first: BatchHeader, last: BatchHeader, size: int, aborted: list[AbortedEntry]
    ) -> None:
        """Takes what is known of files that were just written as a whole, instead of loading them."""
        self._indexer = indexer
        self.aborted, self._aborted_on_disk = aborted, (len(aborted), len(aborted) * ENTRY_BYTES)
        self.first_timestamp_ms, self.last_leader_epoch = first.max_timestamp_ms, last.leader_epoch
        self.next_offset, self.size, self.loaded = last.next_offset, size, True
        self._remember_indexes_on_disk()

    def follows(self, header: BatchHeader) -> bool:
        """Whether a batch with this header can stand next: the right magic, and offsets that go up."""
        return (
            header.magic == codec.MAGIC
            and header.base_offset >= self.next_offset
            and 0 <= header.last_offset_delta <= INT32_MAX
            and header.last_offset - self.base_offset <= INT32_MAX
        )

    def added(self, header: BatchHeader, position: int) -> None:
        """Enters a batch that stands at the end of what was known."""
        if position == 0:
            self.first_timestamp_ms = header.max_timestamp_ms
        self._indexer.add(header, position)
        self.next_offset = header.next_offset
        self.size = position + header.size
        self.last_leader_epoch = header.leader_epoch

    # ---- writing

    def append(self, batch: bytearray, header: BatchHeader) -> None:
        """Writes a batch at the end; `header` has its final offsets.

        Raises:
            DiskFullError: no room; the segment is as before.
        """
        self.settled = False
        try:
            position = self.file.append(batch)
        except (DiskFullError, OSError):
            self.settled = True
            raise
        if position != self.size:
            raise CorruptError(
                f"{self.path} has {position} bytes where {self.size} are known: something else writes to it; stop it "
                f"and open the log again",
                file=self.path,
                position=self.size,
                expected=self.size,
                found=position,
            )
        self._hints[header.base_offset] = position
        if len(self._hints) > HINTS_MAX:
            self._hints.clear()
        self.added(header, position)
        self.settled = True

    def settle(self) -> None:
        """After an append that was interrupted (Ctrl-C): takes the batch in if it is whole, else cuts it off."""
        self.load()
        self.cut()
        self.settled = True

    def cut(self) -> None:
        """Cuts the data file behind the last batch that is known."""
        self.file.truncate(self.size)

    def write_indexes(self) -> None:
        """Appends to the index files what they lack, and returns when that is on disk."""
        offsets, times = self._indexer.offsets.data, self._indexer.times.data
        written = self._indexes_on_disk
        # In this order: loading takes what stands before the last entry of the offset index as known to both.
        self._append_index(TIME_INDEX, bytes(times), written[1])
        self._append_index(INDEX, bytes(offsets), written[0])
        self._indexes_on_disk = (len(offsets), len(times))
        if not self.aborted_written:
            self._write_aborted()

    def _write_aborted(self) -> None:
        """Synced in any case, with the name: no snapshot of the producers says again what must be found here."""
        path, data, count = self._stem + TXN_INDEX, pack(self.aborted), self._aborted_on_disk[0]
        file = self._disk.open(path, write=True)
        try:
            file.truncate(min(count * ENTRY_BYTES, file.size))
            if len(data) > file.size:
                file.append(data[file.size :])
            file.sync()
        finally:
            file.close()
        self._disk.sync_dir(parent(self._stem))
        self._aborted_on_disk = (len(self.aborted), len(data))

    @property
    def indexes_written(self) -> bool:
        """Whether the index files have all that is in memory."""
        have = (len(self._indexer.offsets.data), len(self._indexer.times.data))
        return self._indexes_on_disk == have and self.aborted_written

    @property
    def aborted_written(self) -> bool:
        """Whether the file has the aborted transactions, and nothing else."""
        return self._aborted_on_disk == (len(self.aborted), len(self.aborted) * ENTRY_BYTES)

    def cut_aborted(self, offset: int) -> None:
        """Forgets the aborted transactions whose markers stand at or after `offset`: they are counted in anew."""
        self.aborted = [each for each in self.aborted if each.last_offset < offset]
        self._aborted_on_disk = (min(self._aborted_on_disk[0], len(self.aborted)), self._aborted_on_disk[1])

    def seal(self) -> None:
        """Ends the time index with the largest timestamp, as Kafka does at a roll and at a clean stop."""
        self._indexer.seal()

    def _append_index(self, suffix: str, data: bytes, written: int) -> None:
        path = self._stem + suffix
        if len(data) == written and self._disk.exists(path):
            return
        file = self._disk.open(path, write=True)
        try:
            if file.read(written, len(data) + 1) == data[written:]:
                return  # what loading takes off the end and finds again
            file.truncate(min(written, file.size))
            file.append(data[file.size :])
            file.sync()
        finally:
            file.close()

    def _remember_indexes_on_disk(self) -> None:
        """What is kept after loading is a prefix of the files; the rest of them is cut when they are written next."""
        self._indexes_on_disk = (len(self._indexer.offsets.data), len(self._indexer.times.data))

    def _read(self, suffix: str) -> bytes:
        try:
            file = self._disk.open(self._stem + suffix)
        except FileNotFoundError:
            return b""
        try:
            return file.read(0, file.size)
        finally:
            file.close()

    # ---- reading

    def position_of(self, offset: int) -> int | None:
        """The byte at which the first batch stands that ends at or after `offset`; None where there is none."""
        hint = self._hints.get(offset)
        if hint is not None:
            return hint
        position = self._indexer.offsets.position_before(offset)
        for at, header, _ in scan(self.file, position, self.size):
            if header.last_offset >= offset:
                return at
        return None

    def read(self, offset: int, max_bytes: int, limit: int | None) -> bytes:
        """Whole batches from the one that holds `offset` on; at least one, unless all reach `limit`."""
        position = self.position_of(offset)
        if position is None:
            return b""
        data = self.file.read(position, min(max_bytes, self.size - position))
        if len(data) < HEADER_BYTES:
            data = self.file.read(position, HEADER_BYTES)
        first = _size_at(data)
        if first > len(data):  # the first batch is larger than was asked for: it comes whole all the same
            data = self.file.read(position, first)
        end = codec.whole_batches(data, limit=limit)
        if end:
            self._remember(position + end)
        return data if end == len(data) else data[:end]

    def _remember(self, position: int) -> None:
        """The next read goes on where this one ends: remember the byte, so that it need not search."""
        if position < self.size:
            following = self.file.read(position, 8)
            if len(self._hints) >= HINTS_MAX:
                self._hints.clear()
            self._hints[struct.unpack(">q", following)[0]] = position

    def offset_for_time(self, timestamp_ms: int, start: int) -> tuple[int, int] | None:
        """The first record at or after offset `start` that is not older: its offset and timestamp."""
        begin = max(start, self._indexer.times.offset_before(timestamp_ms))
        position = self._indexer.offsets.position_before(begin)
        for at, header, batch in scan(self.file, position, self.size):
            # A marker has the time of its commit, which says nothing of the records.
            if header.control or header.max_timestamp_ms < timestamp_ms or header.last_offset < start:
                continue
            codec.check_crc(batch, file=self.path, position=at)
            for record in codec.decode(batch):
                if record.offset >= start and record.timestamp >= timestamp_ms:
                    return record.offset, record.timestamp
        return None

    # ---- closing and deleting

    def close(self) -> None:
        """Closes the data file; it is opened again when it is needed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def unload(self) -> None:
        """Closes the data file and forgets the indexes; `load` brings them back."""
        self.close()
        self.loaded = False
        self._indexer = Indexer(self.base_offset, self._indexer.interval_bytes)
        self._remember_indexes_on_disk()
        self._hints.clear()
        self.aborted, self._aborted_on_disk = [], (0, 0)

    def rename_deleted(self) -> list[str]:
        """Renames the files to `….deleted` and returns their new names; the data file first, as it alone counts."""
        renamed: list[str] = []
        for suffix in SUFFIXES:
            path = self._stem + suffix
            if self._disk.exists(path):
                self._disk.rename(path, path + DELETED)
                renamed.append(path + DELETED)
        return renamed


def _size_at(data: bytes) -> int:
    return int(struct.unpack_from(">i", data, 8)[0]) + codec.LENGTH_PREFIX_BYTES
