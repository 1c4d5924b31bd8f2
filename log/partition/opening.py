"""A partition's folder as it is found at opening: what was interrupted is finished, what a crash tore is cut.

1. Only what lies above the recovery point is read and checked, and only the last segment can be torn (`recovery`).
2. A cleaning or a deletion that was interrupted is finished first, so that the segments are those that count.

Not here: what the partition makes of them (`partition`), what a bad batch means (`recovery`).
"""

import logging

from tailrace.log import checkpoint
from tailrace.log.disk import Disk, join, parent
from tailrace.log.errors import CorruptError
from tailrace.log.partition.recovery import recover_segment
from tailrace.log.partition.segment import DELETED, Segment
from tailrace.log.partition.segments import Segments
from tailrace.log.partition.swap import settle
from tailrace.log.record import TopicPartition

logger = logging.getLogger(__name__)


def recover_segments(
    disk: Disk, directory: str, tp: TopicPartition, segments: Segments, *, recovery_point: int, interval_bytes: int
) -> list[str]:
    """Makes the folder where it is missing, and takes its segments into `segments`; returns the names in it.

    Raises:
        CorruptError: damage that no crash explains.
    """
    if not disk.is_dir(directory):
        disk.mkdir(directory)
        disk.sync_dir(parent(directory))
    names = disk.list(directory)
    if settle(disk, directory, names, interval_bytes=interval_bytes):
        names = disk.list(directory)
    for name in names:
        if name.endswith((DELETED, checkpoint.TEMPORARY)):
            disk.remove(join(directory, name))
    segments.load_names(names)
    for index, segment in enumerate(segments):
        last = index + 1 == len(segments)
        if last or segments[index + 1].base_offset > recovery_point:
            _recover(tp, segment, recovery_point, active=last)
    return names


def _recover(tp: TopicPartition, segment: Segment, recovery_point: int, *, active: bool) -> None:
    damage = recover_segment(segment, recovery_point, active=active)
    if damage is not None:
        logger.warning(
            "%s: a torn tail of %d bytes was cut from %s at byte %d, after offset %d: expected %s, found %s; it "
            "was never acknowledged as on disk",
            tp,
            segment.file.size - segment.size,
            segment.path,
            damage.position,
            segment.next_offset - 1,
            damage.expected,
            damage.found,
        )
        segment.cut()
    if not active:
        segment.seal()


def records_missing(tp: TopicPartition, path: str, position: int, *, promised: int, found: int) -> CorruptError:
    """The error for a log that ends at `found`, before an offset that was on disk at the last checkpoint."""
    return CorruptError(
        f"{tp} ends at offset {found}, but everything below {promised} was on disk at the last checkpoint: "
        f"{path} was cut, or files are missing; restore them from a copy",
        file=path,
        position=position,
        expected=f"log end offset {promised} or above",
        found=f"log end offset {found}",
    )
