"""The segments of one partition, in order: which holds an offset, which are open, how they come and go.

1. Base offsets rise; the last segment is the active one, which alone is written to.
2. At most `OPEN_SEGMENTS_MAX` closed ones have their file and indexes open, the longest unused are given up first.
3. What is deleted is renamed first, from the oldest on, with its folder synced after each, and removed when it is due:
   a crash leaves no gap.

Not here: the limits, syncing and the lock (`partition`), how many go (`retention`).
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Final

from tailrace.log.disk import Disk
from tailrace.log.partition.segment import Segment, base_offset_of

OPEN_SEGMENTS_MAX: Final = 8  # an index may have 10 MiB


class Segments:
    """Guarded by the partition's lock; `syncing` is held by whoever syncs a file, which must not be closed then."""

    def __init__(
        self, disk: Disk, directory: str, *, interval_bytes: int, write: bool, syncing: threading.Lock
    ) -> None:
        """None yet; `interval_bytes` is `index.interval.bytes`."""
        self.interval_bytes = interval_bytes
        self._disk = disk
        self._directory = directory
        self._write = write
        self._syncing = syncing
        self._all: list[Segment] = []
        self._opened: list[Segment] = []  # closed segments with an open file, longest unused first
        self._deleted: list[tuple[int, str]] = []  # (when it may be removed, path)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._all)

    def __getitem__(self, index: int) -> Segment:
        return self._all[index]

    @property
    def active(self) -> Segment:
        """The last one."""
        return self._all[-1]

    @property
    def closed(self) -> list[Segment]:
        """All but the active one."""
        return self._all[:-1]

    @property
    def base_offsets(self) -> list[int]:
        """Where each begins."""
        return [each.base_offset for each in self._all]

    @property
    def last_leader_epoch(self) -> int:
        """The largest epoch that was seen in them, -1 where none was."""
        return max((each.last_leader_epoch for each in self._all), default=-1)

    # ---- finding

    def index_of(self, offset: int) -> int:
        """The last segment that begins at or before `offset`; the first where there is none."""
        low, high = 0, len(self._all)
        while low < high:
            middle = (low + high) // 2
            if self._all[middle].base_offset <= offset:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)

    def loaded(self, index: int) -> Segment:
        """A segment with its indexes in memory."""
        segment = self._all[index]
        if not segment.loaded:
            segment.load()
        if segment is not self._all[-1]:
            self.touch(segment)
        return segment

    def touch(self, segment: Segment) -> None:
        """Says that a closed segment is in use; keeps few of them open."""
        if self._opened and self._opened[-1] is segment:
            return
        if segment in self._opened:
            self._opened.remove(segment)
        self._opened.append(segment)
        if len(self._opened) > OPEN_SEGMENTS_MAX and self._syncing.acquire(blocking=False):
            try:  # never close a file under a sync that runs
                unused = self._opened.pop(0)
                if unused.indexes_written or (unused.aborted_written and not self._write):
                    unused.unload()
                else:
                    unused.close()
            finally:
                self._syncing.release()

    def size_of(self, segment: Segment) -> int:
        """Bytes of a segment's data; it need not be loaded."""
        return segment.size if segment.loaded else self._disk.size(segment.path)

    def run_of(self, bases: Sequence[int]) -> int | None:
        """Where these closed segments stand, one behind the other; None where they do not."""
        have = self.base_offsets[:-1]
        at = have.index(bases[0]) if bases[0] in have else None
        return at if at is not None and have[at : at + len(bases)] == list(bases) else None

    # ---- coming

    def make(self, base_offset: int) -> Segment:
        """A segment that is in no list yet."""
        return Segment(self._disk, self._directory, base_offset, interval_bytes=self.interval_bytes, write=self._write)

    def add_empty(self, base_offset: int) -> Segment:
        """Makes the file of a new active segment."""
        made = self.make(base_offset)
        made.create()
        self._all.append(made)
        return made

    def load_names(self, names: list[str]) -> None:
        """Takes the segments that a folder's names say; none is opened."""
        self._all = [self.make(base) for base in _bases(names)]

    def list_anew(self) -> None:
        """Beside a writer: the segments as they are now; the active one with what was appended.

        Raises:
            FileNotFoundError: the folder is gone.
        """
        bases = _bases(self._disk.list(self._directory))
        known = {each.base_offset: each for each in self._all}
        if any(base not in bases and base > bases[0] for base in known if bases):
            # A cleaning has put one segment in the place of several: what we hold of the first ends too early.
            for base in bases[:-1]:
                if base in known:
                    known.pop(base).close()
        for base, segment in known.items():
            if base not in bases:
                segment.close()
        self._all = [known.get(base) or self.make(base) for base in bases]
        self._forget_closed()
        if self._all:
            if self._all[-1].loaded:
                self._all[-1].extend()
            else:
                self._all[-1].load()

    # ---- going

    def put(self, at: int, count: int, new: Segment) -> None:
        """Puts `new` in the place of `count` closed segments, whose files are gone or its own by now."""
        self._all[at : at + count] = [new]
        self._forget_closed()

    def rename_deleted(self, segments: Sequence[Segment], due_ms: int) -> None:
        """Closes segments and takes their names away; the files are removed at `due_ms`."""
        for segment in segments:
            segment.close()
            self._deleted += [(due_ms, path) for path in segment.rename_deleted()]

    def take_head(self, count: int) -> list[Segment]:
        """Takes the first `count` out of the list; their files are still there."""
        going, self._all = self._all[:count], self._all[count:]
        self._forget_closed()
        return going

    def delete(self, going: Sequence[Segment], due_ms: int) -> None:
        """Renames the files of segments that were the oldest: invariant 3.

        Synced before the first, as the next segment's name must be there.
        """
        self._disk.sync_dir(self._directory)
        for segment in going:
            self.rename_deleted([segment], due_ms)
            self._disk.sync_dir(self._directory)

    def remove_due(self, now_ms: int) -> None:
        """Removes the files whose time has come."""
        waiting: list[tuple[int, str]] = []
        for due, path in self._deleted:
            if due <= now_ms:
                self._disk.remove(path)
            else:
                waiting.append((due, path))
        self._deleted = waiting

    def close(self) -> None:
        """Closes every file."""
        for segment in self._all:
            segment.close()

    def _forget_closed(self) -> None:
        self._opened = [each for each in self._opened if each in self._all]


def _bases(names: list[str]) -> list[int]:
    return sorted(base for name in names if (base := base_offset_of(name)) is not None)
