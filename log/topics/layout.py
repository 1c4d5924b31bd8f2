"""What a path holds, for those who look at files without opening a log: a segment, a partition, a whole log.

1. A partition is a folder `<topic>-<n>` with data files in it; a log is a folder of those; a data file ends in `.log`.
2. The lock of a log is the file `.lock` in its folder, wherever below it one looks.
3. Folders of topics on their way out (`…-delete`) are left out.

Not here: opening for writing (`partition`, `broker`).
"""

import re
from dataclasses import dataclass
from typing import Final

from tailrace.log.checkpoint import LEADER_EPOCHS, META_PROPERTIES, PARTITION_METADATA, RECOVERY_POINTS, TEMPORARY
from tailrace.log.disk import Disk, join, name_of, parent
from tailrace.log.errors import InvalidError
from tailrace.log.partition.segment import base_offset_of
from tailrace.log.record import TopicPartition
from tailrace.log.topics.directory import LOCK

# A segment's files under any of their names: on their way out or in, or as Kafka has them besides.
MEMORY_PATH: Final = "/memory"  # where a log in memory believes that it is
_SEGMENT_FILE: Final = re.compile(r"\d{20}\.(log|index|timeindex|txnindex|snapshot)(\.[\w-]+)*\Z")


@dataclass(frozen=True)
class PartitionFiles:
    """A partition's folder and the base offsets of its data files to look at, in order; `every` names all there are."""

    directory: str
    tp: TopicPartition | None
    chosen: tuple[int, ...]
    every: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """What a path holds. `directory` is the log's folder where there is one."""

    path: str
    partitions: tuple[PartitionFiles, ...]
    directory: str | None

    def lock_holder(self, disk: Disk) -> int | None:
        """Who writes this log now, by pid; None where nobody does."""
        return None if self.directory is None else disk.lock_holder(join(self.directory, LOCK))


def look(disk: Disk, path: str) -> Place:
    """Finds out what a path holds.

    Raises:
        InvalidError: nothing of a log is there.
    """
    if disk.is_dir(path):
        names = disk.list(path)
        if any(base_offset_of(name) is not None for name in names):
            return Place(path, (_partition(disk, path),), _log_of(disk, parent(path)))
        folders = [name for name in names if partition_of(name) and disk.is_dir(join(path, name))]
        if folders or {META_PROPERTIES, RECOVERY_POINTS, LOCK} & set(names):
            return Place(path, tuple(_partition(disk, join(path, name)) for name in folders), path)
        if partition_of(name_of(path)) and all(is_known(name) for name in names):
            return Place(path, (_partition(disk, path),), _log_of(disk, parent(path)))
    elif disk.exists(path) and (base := base_offset_of(name_of(path))) is not None:
        every = _partition(disk, parent(path))
        only = PartitionFiles(every.directory, every.tp, (base,), every.every)
        return Place(path, (only,), _log_of(disk, parent(parent(path))))
    raise InvalidError(
        f"{path} is neither a log's folder, nor a partition's (<topic>-<number>), nor a segment ({'0' * 20}.log): give "
        f"the path of one of these"
    )


def partition_of(name: str) -> TopicPartition | None:
    """The partition that a folder is named for; None for any other name."""
    topic, dash, number = name.rpartition("-")
    return TopicPartition(topic, int(number)) if topic and dash and number.isascii() and number.isdigit() else None


def is_known(name: str) -> bool:
    """Whether a file in a partition's folder is one of the log's."""
    return bool(_SEGMENT_FILE.match(name)) or name.removesuffix(TEMPORARY) in {LEADER_EPOCHS, PARTITION_METADATA}


def _partition(disk: Disk, directory: str) -> PartitionFiles:
    bases = tuple(sorted(base for name in disk.list(directory) if (base := base_offset_of(name)) is not None))
    return PartitionFiles(directory, partition_of(name_of(directory)), bases, bases)


def _log_of(disk: Disk, directory: str) -> str | None:
    known = {META_PROPERTIES, RECOVERY_POINTS, LOCK}
    return directory if any(disk.exists(join(directory, name)) for name in known) else None


def named(path: str) -> str:
    """What a user calls the log at a path."""
    return "memory:" if path == MEMORY_PATH else path
