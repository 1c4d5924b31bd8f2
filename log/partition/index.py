"""The sparse indexes of a segment: offset to byte, time to offset, in Kafka's formats. Pure values, no files.

1. Offset index: 8-byte entries (offset of a batch's last record relative to the segment 4, the batch's position 4),
   one after at least `index.interval.bytes` of data, both strictly rising.
2. Time index: 12-byte entries (largest timestamp so far 8, relative last offset of the batch that has it 4), times
   strictly rising: every record up to that offset is at most that old.
3. Both may lag behind the data and never run ahead of it; both can be rebuilt from the data alone, to the same bytes.

Kafka writes the *last* offset of the batch into both (LogSegment.append, 4.x), and so do we: its DumpLogSegments checks
that. Not here: when they are read and written (`segment`). Format: docs/log_format.md.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tailrace.log.codec import BatchHeader

INT32_MAX: Final = 2**31 - 1
OFFSET_ENTRY: Final = struct.Struct(">ii")
TIME_ENTRY: Final = struct.Struct(">qi")
NO_TIMESTAMP: Final = -1


class OffsetEntry(NamedTuple):
    """The batch whose last offset is `offset` begins at byte `position`."""

    offset: int
    position: int


class TimeEntry(NamedTuple):
    """No record up to `offset` is younger than `timestamp_ms`."""

    timestamp_ms: int
    offset: int


class OffsetIndex:
    """Offset entries of one segment, in memory as they stand in the file."""

    def __init__(self, base_offset: int, data: bytes = b"") -> None:
        """`data` is the file; what is not strictly rising at its end (a torn write, preallocation) is left out."""
        self.base_offset = base_offset
        self.data = bytearray(data[: _rising_offsets(data)])

    def __len__(self) -> int:
        return len(self.data) // OFFSET_ENTRY.size

    def __getitem__(self, index: int) -> OffsetEntry:
        relative, position = OFFSET_ENTRY.unpack_from(self.data, index * OFFSET_ENTRY.size)
        return OffsetEntry(self.base_offset + relative, position)

    def __iter__(self) -> Iterator[OffsetEntry]:
        return (self[index] for index in range(len(self)))

    def append(self, offset: int, position: int) -> None:
        """Adds the batch that ends with `offset` and begins at `position`."""
        self.data += OFFSET_ENTRY.pack(offset - self.base_offset, position)

    def position_before(self, offset: int) -> int:
        """The position of the last indexed batch that begins at or before `offset`; scanning goes on from there."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle].offset <= offset:
                low = middle + 1
            else:
                high = middle
        return self[low - 1].position if low else 0

    def cut(self, count: int) -> None:
        """Keeps the first `count` entries."""
        del self.data[count * OFFSET_ENTRY.size :]


class TimeIndex:
    """Time entries of one segment, in memory as they stand in the file."""

    def __init__(self, base_offset: int, data: bytes = b"") -> None:
        """`data` is the file; what is not strictly rising at its end is left out."""
        self.base_offset = base_offset
        self.data = bytearray(data[: _rising_times(data)])

    def __len__(self) -> int:
        return len(self.data) // TIME_ENTRY.size

    def __getitem__(self, index: int) -> TimeEntry:
        timestamp_ms, relative = TIME_ENTRY.unpack_from(self.data, index * TIME_ENTRY.size)
        return TimeEntry(timestamp_ms, self.base_offset + relative)

    def __iter__(self) -> Iterator[TimeEntry]:
        return (self[index] for index in range(len(self)))

    @property
    def last(self) -> TimeEntry:
        """The last entry, or no timestamp at the base offset."""
        return self[len(self) - 1] if self.data else TimeEntry(NO_TIMESTAMP, self.base_offset)

    def append(self, timestamp_ms: int, offset: int) -> None:
        """Adds an entry where it says something new."""
        if timestamp_ms > self.last.timestamp_ms:
            self.data += TIME_ENTRY.pack(timestamp_ms, offset - self.base_offset)

    def offset_before(self, timestamp_ms: int) -> int:
        """An offset before which every record is older than `timestamp_ms`."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle].timestamp_ms <= timestamp_ms:
                low = middle + 1
            else:
                high = middle
        return self[low - 1].offset if low else self.base_offset

    def cut_after(self, offset: int) -> None:
        """Keeps the entries that speak of offsets below `offset`."""
        count = len(self)
        while count and self[count - 1].offset >= offset:
            count -= 1
        del self.data[count * TIME_ENTRY.size :]


class Indexer:
    """Both indexes as they grow with the segment: each batch once, in order."""

    __slots__ = ("bytes_since_entry", "interval_bytes", "max_timestamp_ms", "max_timestamp_offset", "offsets", "times")

    def __init__(self, base_offset: int, interval_bytes: int) -> None:
        """Empty indexes; `interval_bytes` is `index.interval.bytes`."""
        self.offsets = OffsetIndex(base_offset)
        self.times = TimeIndex(base_offset)
        self.interval_bytes = interval_bytes
        self.bytes_since_entry = 0
        self.max_timestamp_ms = NO_TIMESTAMP
        self.max_timestamp_offset = base_offset

    @classmethod
    def load(cls, base_offset: int, interval_bytes: int, offsets: bytes, times: bytes, below: int) -> "Indexer":
        """The indexes as the files have them, of batches below offset `below`.

        The last offset entry is taken off again: scanning resumes at its batch (`resume_position`), which adds it.
        """
        made = cls(base_offset, interval_bytes)
        made.offsets = OffsetIndex(base_offset, offsets)
        made.times = TimeIndex(base_offset, times)
        while made.offsets and made.offsets[-1].offset >= below:
            made.offsets.cut(len(made.offsets) - 1)
        return made

    def rewind(self, base_offset: int) -> None:
        """Takes back what is known of the batch at the last entry, whose first offset is `base_offset`, and after."""
        self.offsets.cut(len(self.offsets) - 1)
        self.times.cut_after(base_offset)
        self.max_timestamp_ms, self.max_timestamp_offset = self.times.last
        self.bytes_since_entry = self.interval_bytes + 1  # so that its entry comes again

    def add(self, header: BatchHeader, position: int) -> None:
        """A batch that begins at byte `position`."""
        last_offset = header.base_offset + header.last_offset_delta
        if header.max_timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms, self.max_timestamp_offset = header.max_timestamp_ms, last_offset
        if self.bytes_since_entry > self.interval_bytes:
            self.offsets.append(last_offset, position)
            self.times.append(self.max_timestamp_ms, self.max_timestamp_offset)
            self.bytes_since_entry = 0
        self.bytes_since_entry += header.length + 12

    def seal(self) -> None:
        """The entry that a closed segment ends with: its largest timestamp, which retention goes by."""
        self.times.append(self.max_timestamp_ms, self.max_timestamp_offset)

    def full(self, index_bytes: int) -> bool:
        """Whether one more entry would not fit into `segment.index.bytes` (one time entry is kept for `seal`)."""
        return (
            len(self.offsets) >= index_bytes // OFFSET_ENTRY.size
            or len(self.times) >= index_bytes // TIME_ENTRY.size - 1
        )


def _rising_offsets(data: bytes) -> int:
    end, last = 0, (-1, 0)  # position 0 is never indexed; a preallocated file is full of it
    for entry in OFFSET_ENTRY.iter_unpack(data[: len(data) // OFFSET_ENTRY.size * OFFSET_ENTRY.size]):
        if entry[0] <= last[0] or entry[1] <= last[1]:
            break
        end, last = end + OFFSET_ENTRY.size, entry
    return end


def _rising_times(data: bytes) -> int:
    end, last = 0, (NO_TIMESTAMP, -1)
    for entry in TIME_ENTRY.iter_unpack(data[: len(data) // TIME_ENTRY.size * TIME_ENTRY.size]):
        if entry[0] <= last[0] or entry[1] < last[1]:
            break
        end, last = end + TIME_ENTRY.size, entry
    return end
