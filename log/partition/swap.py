"""How a cleaned segment takes the place of those it was made from: the old ones or the new one, never neither.

1. A cleaned segment is written beside (`<base>.log.cleaned` and its indexes) and is on disk before anything else
   happens. While `….log.cleaned` is there, the old segments count: `settle` removes what was written.
2. Renaming it to `….log.swap`, after the indexes, decides: from then on the new one counts, and `settle` goes on.
3. The old segments' files and the stale offset index go with the rename to `….log`; the name `….timeindex.swap` stays
   until all that is on disk, so that a crash in between, which may keep any of these renames, is seen and finished.
   (A stale time index does no harm meanwhile: what it says stays true when records are taken out.)
4. `settle` removes the indexes of such a segment instead of finding out whose they are: loading rebuilds them. Not so
   the index of aborted transactions, which the data alone does not say: it is written, empty if need be, wherever one
   of the old segments has one, so that what stands under its last name once the new data counts is the new one's.

Nothing here but the files: which records stay (`compaction`), readers and appends meanwhile (`partition`). The names
are Kafka's, as its page on segments has them; docs/log_format.md.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tailrace.log.codec import BatchHeader, Data
from tailrace.log.disk import Disk, File, join
from tailrace.log.errors import DiskFullError, InvalidError
from tailrace.log.partition.index import INT32_MAX, Indexer
from tailrace.log.partition.segment import (
    CHUNK_BYTES,
    CLEANED,
    INDEX,
    LOG,
    SWAP,
    TIME_INDEX,
    TXN_INDEX,
    Segment,
    base_offset_of,
    path_of,
    segment_name,
)
from tailrace.log.partition.txn_index import AbortedEntry, pack

INDEXES: Final = (INDEX, TIME_INDEX, TXN_INDEX)
SYNC_BYTES: Final = 32 << 20  # a sync of a whole segment at once would hold up those of others


class CleanedSegment:
    """A segment that is being written beside the ones it will replace; `base_offset` is the first one's.

    `decided` is whether it counts now, and not those.
    """

    def __init__(self, disk: Disk, directory: str, base_offset: int, *, interval_bytes: int) -> None:
        """Begins the file; what an earlier attempt left is overwritten."""
        self.base_offset = base_offset
        self.size = 0
        self.aborted: list[AbortedEntry] = []  # whose markers were added
        self._suffixes: tuple[str, ...] = (INDEX, TIME_INDEX)
        self._disk = disk
        self._directory = directory
        self._indexer = Indexer(base_offset, interval_bytes)
        self._first: BatchHeader | None = None
        self._last: BatchHeader | None = None
        self._waiting = bytearray()
        self._unsynced = 0
        self.decided = False
        self._file = self._begin(LOG)

    def _path(self, suffix: str, state: str = "") -> str:
        return path_of(self._directory, self.base_offset, suffix) + state

    def _begin(self, suffix: str) -> File:
        file = self._disk.open(self._path(suffix, CLEANED), write=True)
        file.truncate(0)
        return file

    def add(self, header: BatchHeader, batch: Data) -> None:
        """Adds a batch, offsets and all as they are.

        Raises:
            InvalidError: the file would have more bytes than an index can name.
            DiskFullError: no room; `discard` this.
        """
        if self.size + len(batch) > INT32_MAX:
            raise InvalidError(f"{self._path(LOG)} would have over 2 GiB after its cleaning: it stays as it is")
        self._indexer.add(header, self.size)
        self._first = self._first or header
        self._last = header
        self.size += len(batch)
        self._waiting += batch
        if len(self._waiting) >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._file.append(self._waiting)
        self._unsynced += len(self._waiting)
        self._waiting = bytearray()
        if self._unsynced >= SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0

    def finish(self, *, transactions: bool) -> None:
        """Returns when file and indexes are on disk, under names that count for nothing yet.

        `transactions`: one of the old segments has an index of aborted ones.
        """
        self._flush()
        self._file.sync()
        self._file.close()
        self._indexer.seal()
        indexes = [(INDEX, bytes(self._indexer.offsets.data)), (TIME_INDEX, bytes(self._indexer.times.data))]
        if transactions:
            indexes.append((TXN_INDEX, pack(self.aborted)))
            self._suffixes = (INDEX, TIME_INDEX, TXN_INDEX)
        for suffix, data in indexes:
            file = self._begin(suffix)
            try:
                file.append(data)
                file.sync()
            finally:
                file.close()
        self._disk.sync_dir(self._directory)

    def discard(self) -> None:
        """Removes what was written; nothing happens where it counts already."""
        self._file.close()
        if self.decided:
            return
        for suffix in (*self._suffixes, LOG):
            for state in (CLEANED, SWAP):
                with suppress(OSError):
                    self._disk.remove(self._path(suffix, state))

    def commit(self) -> None:
        """From here on it counts, whatever happens: invariant 2.

        Raises:
            DiskFullError: no room for a name: it does not count.
        """
        for suffix in self._suffixes:
            self._disk.rename(self._path(suffix, CLEANED), self._path(suffix, SWAP))
        self.decided = True  # before, as Ctrl-C may come between the two
        try:
            self._disk.rename(self._path(LOG, CLEANED), self._path(LOG, SWAP))
        except (OSError, DiskFullError):
            self.decided = False
            raise
        self._disk.sync_dir(self._directory)

    def put_in_place(self, segment: Segment) -> None:
        """Gives the data its final name and hands what is known of it to `segment`; the old files are gone by then."""
        for suffix in (*self._suffixes, LOG):
            if suffix != TIME_INDEX:
                self._disk.rename(self._path(suffix, SWAP), self._path(suffix))
        assert self._first is not None
        assert self._last is not None
        segment.adopt(self._indexer, self._first, self._last, self.size, self.aborted)

    def end(self) -> None:
        """Takes the mark away, once the names are on disk: invariant 3."""
        self._disk.rename(self._path(TIME_INDEX, SWAP), self._path(TIME_INDEX))


def settle(disk: Disk, directory: str, names: Sequence[str], *, interval_bytes: int) -> bool:
    """At opening: finishes or undoes what a crash interrupted; returns whether anything has changed."""
    bases = {name[:20] for name in names if name.endswith((CLEANED, SWAP))}
    for stem in sorted(bases):
        decided = stem + LOG + SWAP in names
        marked = any(stem + suffix + SWAP in names for suffix in (INDEX, TIME_INDEX))
        if decided or (marked and stem + LOG + CLEANED not in names and stem + LOG in names):
            _go_on(disk, directory, names, int(stem), interval_bytes=interval_bytes)
        for state in (CLEANED, SWAP):
            _remove_all(disk, directory, [stem + suffix + state for suffix in (*INDEXES, LOG)])
    return bool(bases)


def _go_on(disk: Disk, directory: str, names: Sequence[str], base_offset: int, *, interval_bytes: int) -> None:
    stem = segment_name(base_offset)
    if stem + LOG + SWAP in names:
        disk.rename(join(directory, stem + LOG + SWAP), join(directory, stem + LOG))
    for state in (SWAP, CLEANED):  # a crash may have kept the last rename before the decision from the disk
        if stem + TXN_INDEX + state in names:
            disk.rename(join(directory, stem + TXN_INDEX + state), join(directory, stem + TXN_INDEX))
    _remove_all(disk, directory, [stem + INDEX, stem + TIME_INDEX])
    segment = Segment(disk, directory, base_offset, interval_bytes=interval_bytes, write=False)
    segment.load()
    segment.close()
    for name in names:
        other = base_offset_of(name)
        if other is not None and base_offset < other < segment.next_offset:
            _remove_all(disk, directory, [segment_name(other) + suffix for suffix in (LOG, *INDEXES)])
    disk.sync_dir(directory)


def _remove_all(disk: Disk, directory: str, names: Sequence[str]) -> None:
    for name in names:
        if disk.exists(join(directory, name)):
            disk.remove(join(directory, name))
