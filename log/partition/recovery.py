"""What a bad batch means when a log is opened: a write that a crash tore, or bytes that have rotted since.

A crash loses what was not synced: the end of the active segment, from some byte on; and since a disk writes pages in
any order, pages in the middle of that end may be missing (they read as zeros) while later ones are there. Nothing
acknowledged with `acks="all"` lies behind such a hole: a sync covers all bytes before its end. Earlier segments were
synced before the next one was made (`partition`), so they are never torn.

So, scanning from the recovery point, at the first batch that is not right:
1. Before the recovery point, or in a segment that is not the last: `CorruptError`, always.
2. The file ends inside the batch, or nothing that is a valid batch follows: a torn tail. It is cut, and said so.
3. Valid batches follow, and the damaged bytes contain a page (4,096 bytes, or the part of one from the damaged batch's
   first byte on) that is all zeros: a page that was never written, so nothing from there on was synced. It is cut.
4. Valid batches follow, and every damaged page has been written: bits have changed. `CorruptError`; nothing is touched.
   The same for a batch whose CRC is right and whose offset is not: the CRC does not cover the base offset. We append
   without gaps; one that another broker's log has (compaction, then replication) shows in the batch after it.

What this cannot see: a bit that flips, between two checkpoints of the recovery point and after its sync, in the very
last batch of the log, looks like a torn write; it is cut with a warning that names file and byte. The partition's
`checkpoint()` bounds how much can lie there, and a clean stop leaves nothing.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

from tailrace.log import codec
from tailrace.log.codec import HEADER_BYTES, BatchHeader
from tailrace.log.disk import File
from tailrace.log.errors import CorruptError
from tailrace.log.partition.segment import Segment, scan

PAGE_BYTES: Final = 4096
SEARCH_BYTES: Final = 1 << 22


@dataclass(frozen=True)
class Damage:
    """The first batch of a file that is not right: where, what should stand there and what does."""

    position: int
    expected: str
    found: str


def recover_segment(segment: Segment, recovery_point: int, *, active: bool) -> Damage | None:
    """Loads a segment, checking every batch from the recovery point on; returns the damage that may be cut, if any.

    Afterwards the segment ends behind its last good batch; the file itself is not changed.

    Raises:
        CorruptError: damage that no crash explains.
    """
    position = segment.begin_loading(recovery_point)
    end = segment.file.size
    for at, header, batch in scan(segment.file, position, end):
        if not segment.follows(header) or header.crc != codec.compute_crc(batch):
            break
        if active and header.base_offset > segment.next_offset and not goes_on(segment.file, at, end, header):
            break
        segment.added(header, at)
    segment.loaded = True
    if segment.size == end:
        return None
    damage = describe(segment.file, segment.size, end, segment.next_offset)
    if (
        active
        and segment.next_offset >= recovery_point
        and is_torn(segment.file, segment.size, end, segment.base_offset, segment.next_offset)
    ):
        return damage
    raise corrupt(segment.path, segment.next_offset, damage)


def goes_on(file: File, position: int, end: int, header: BatchHeader) -> bool:
    """Whether the batch at `position`, which skips offsets, is followed by one that agrees with it."""
    after = position + header.size
    return after + HEADER_BYTES <= end and BatchHeader.parse(file.read(after, 8 + HEADER_BYTES)).base_offset == (
        header.next_offset
    )


def corrupt(path: str, offset: int, damage: Damage) -> CorruptError:
    """The error for damage that is not a torn tail."""
    return CorruptError(
        f"{path} is damaged at byte {damage.position}, where offset {offset} should follow: expected "
        f"{damage.expected}, found {damage.found}; nothing was changed: look with `tailrace log verify`, then restore "
        f"the file from a copy",
        file=path,
        position=damage.position,
        expected=damage.expected,
        found=damage.found,
    )


def describe(file: File, position: int, end: int, next_offset: int) -> Damage:
    """What is wrong with the batch that should begin at `position` with an offset of at least `next_offset`."""
    left = end - position
    data = file.read(position, min(left, HEADER_BYTES))
    if len(data) < HEADER_BYTES:
        return Damage(position, f"a batch header of {HEADER_BYTES} bytes", f"{left} bytes")
    header = BatchHeader.parse(data)
    if header.magic != codec.MAGIC:
        return Damage(position, f"magic {codec.MAGIC}", f"magic {header.magic}")
    if header.size < HEADER_BYTES:
        return Damage(position, f"a length of at least {HEADER_BYTES - codec.LENGTH_PREFIX_BYTES}", str(header.length))
    if header.base_offset < next_offset:
        return Damage(position, f"offset {next_offset} or above", f"offset {header.base_offset}")
    if header.last_offset_delta < 0:
        return Damage(position, "a last offset delta of 0 or more", str(header.last_offset_delta))
    if header.size > left:
        return Damage(position, f"a batch of {header.size} bytes", f"{left} bytes")
    found = codec.compute_crc(file.read(position, header.size))
    if found == header.crc:
        return Damage(position, f"offset {next_offset}", f"offset {header.base_offset}")
    return Damage(position, f"crc {header.crc:08x}", f"crc {found:08x}")


def is_torn(file: File, position: int, end: int, base_offset: int, next_offset: int) -> bool:
    """Whether what stands behind the last good batch, from `position` on, is what a crash leaves: rules 2 and 3.

    `base_offset` is the segment's, `next_offset` what should follow.
    """
    following = _next_valid(file, position, end, base_offset)
    if following is None:
        return True
    if following == position:  # right but for its offset
        following += BatchHeader.parse(file.read(position, HEADER_BYTES)).size
    return _has_lost_page(file, position, following, next_offset)


def _next_valid(file: File, position: int, end: int, base_offset: int) -> int | None:
    """The position of the first whole batch from `position` on with a right CRC and an offset of this segment."""
    # The upper half of an offset takes two values at most in a segment: few places have it, followed by the magic byte.
    upper = base_offset >> 32
    choices = b"|".join(re.escape(struct.pack(">I", each)) for each in (upper, upper + 1))
    pattern = re.compile(rb"(?=(?:" + choices + rb").{12}\x02)", re.DOTALL)
    while end - position >= HEADER_BYTES:
        data = file.read(position, min(SEARCH_BYTES, end - position))
        for match in pattern.finditer(data):
            if _valid_at(file, position + match.start(), end, base_offset):
                return position + match.start()
        if len(data) < SEARCH_BYTES:
            return None
        position += len(data) - HEADER_BYTES
    return None


def _valid_at(file: File, position: int, end: int, base_offset: int) -> bool:
    if end - position < HEADER_BYTES:
        return False
    header = BatchHeader.parse(file.read(position, HEADER_BYTES))
    if not HEADER_BYTES <= header.size <= end - position or header.base_offset < base_offset or header.record_count < 0:
        return False
    return header.crc == codec.compute_crc(file.read(position, header.size))


def _has_lost_page(file: File, position: int, end: int, next_offset: int) -> bool:
    # A page that ends within the first bytes of the batch says nothing where these are zeros anyway.
    natural = struct.pack(">q", next_offset)
    while position < end:
        page_end = min((position // PAGE_BYTES + 1) * PAGE_BYTES, end)
        data = file.read(position, page_end - position)
        if not any(data) and data != natural[: len(data)]:
            return True
        position, natural = page_end, b""
    return False
