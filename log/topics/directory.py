"""The folder of a log: what says that it is one, and who writes it.

1. `meta.properties` is there before anything else is, and says which format the rest has.
2. A folder that holds something and no `meta.properties` is not a log, and is never written to.
3. `.lock` is held by the one process that writes; the system lets it go when that process ends, however it ends.

The names are Kafka's. `meta.properties` has Kafka's content; `tailrace.format` in it is ours, and Kafka passes over it.
Not here: what is inside partitions (`partition`), the small files' forms (`checkpoint`).
"""

from typing import Final

from tailrace.log import checkpoint
from tailrace.log.disk import Disk, Lock, join, parent
from tailrace.log.errors import CorruptError, InvalidError
from tailrace.log.topics.metadata import FORMAT_VERSION, new_topic_id, newer_format

LOCK: Final = ".lock"
FORMAT: Final = "tailrace.format"
OURS: Final = "tailrace"
KAFKA: Final = "kafka"
CLUSTER_ID: Final = "cluster.id"
DIRECTORY_ID: Final = "directory.id"
IDS: Final = (CLUSTER_ID, DIRECTORY_ID)
KAFKA_META_VERSION: Final = 1  # of meta.properties itself: 1 since KRaft

# What may lie in a folder that shall become a log: our own first file, left by a crash, and what file systems put
# there.
_NOTHING: Final = frozenset({LOCK, checkpoint.META_PROPERTIES + checkpoint.TEMPORARY, "lost+found", ".DS_Store"})


def check_format(disk: Disk, path: str) -> str:
    """Whose log the folder is, by its `meta.properties`: ours or Apache Kafka's.

    Raises:
        CorruptError: the file cannot be read.
        InvalidError: of a newer format than this program knows.
    """
    file = join(path, checkpoint.META_PROPERTIES)
    properties = checkpoint.read_properties(disk, file) or {}
    if properties.get("version", "").isdigit() and FORMAT not in properties:
        return KAFKA
    for name, known in (("version", KAFKA_META_VERSION), (FORMAT, FORMAT_VERSION)):
        text = properties.get(name, "")
        if not text.isdigit():
            found = f"{name}={text}" if name in properties else ", ".join(properties) or "nothing"
            raise CorruptError(
                f"{file} cannot be read: expected a line {name}={known}, found {found!r}; restore it from a copy",
                file=file,
                position=-1,
                expected=f"a line {name}={known}",
                found=found,
            )
        if int(text) > known:
            raise InvalidError(newer_format(text, known, f"{file} ({name})"))
    return OURS


class LogDirectory:
    """The folder of one log, opened for writing or reading."""

    def __init__(self, disk: Disk, path: str, *, read_only: bool) -> None:
        """Checks that the folder is a log or can become one; with `read_only` changes nothing.

        Raises:
            InvalidError: not a log, or one of a newer format.
            LogLockedError: another process writes it.
        """
        self.disk = disk
        self.path = path
        self._lock: Lock | None = None
        fresh = self._look(read_only=read_only)
        if read_only:
            self._check_format()
            return
        disk.mkdir(path)
        self._lock = disk.lock(join(path, LOCK))
        try:
            # Another process may have made a log here, or another thing, between the look and the lock.
            if fresh and self._look(read_only=False):
                self._create()
            self._check_format()
        except BaseException:
            self.unlock()
            raise

    def _look(self, *, read_only: bool) -> bool:
        """Whether there is nothing here yet."""
        disk, path = self.disk, self.path
        if disk.exists(path) and not disk.is_dir(path):
            raise InvalidError(f"{path} is a file, and a log is a folder: give another path")
        names = set(disk.list(path)) if disk.is_dir(path) else set[str]()
        if checkpoint.META_PROPERTIES in names:
            return False
        if names - _NOTHING:
            raise InvalidError(
                f"{path} is not a log: it holds {len(names)} other things and no {checkpoint.META_PROPERTIES}; give an "
                "empty folder or a new path, nothing was written"
            )
        if read_only:
            raise InvalidError(f"there is no log at {path}: give the path of one, or open it for writing to create it")
        return True

    def _create(self) -> None:
        properties = {
            "version": str(KAFKA_META_VERSION),
            CLUSTER_ID: new_topic_id(),
            "node.id": "0",
            DIRECTORY_ID: new_topic_id(),
            FORMAT: str(FORMAT_VERSION),
        }
        checkpoint.write_properties(self.disk, join(self.path, checkpoint.META_PROPERTIES), properties)
        self.disk.sync_dir(parent(self.path))

    def _check_format(self) -> None:
        file = join(self.path, checkpoint.META_PROPERTIES)
        if check_format(self.disk, self.path) == KAFKA:
            # Its topics are recorded elsewhere: to us all its folders would be without a record, and those are removed.
            raise InvalidError(
                f"{self.path} is a log directory of Apache Kafka, not of tailrace ({file} has no {FORMAT}): look into "
                "its files with `tailrace log dump`, or connect to its broker"
            )

    def cluster_id(self) -> str:
        """The log's own id, Kafka's `cluster.id`; empty where its `meta.properties` has none."""
        properties = checkpoint.read_properties(self.disk, join(self.path, checkpoint.META_PROPERTIES)) or {}
        return properties.get(CLUSTER_ID, "")

    def unlock(self) -> None:
        """Lets the next process in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def partition_folders(self) -> list[str]:
        """The names of the folders that look like partitions, deleted ones included."""
        return [
            name
            for name in self.disk.list(self.path)
            if self.disk.is_dir(join(self.path, name))
            and (name.endswith("-delete") or name.rpartition("-")[2].isdigit())
        ]

    def topic_id(self, folder: str) -> str | None:
        """The topic id in a partition's folder; None where there is none."""
        return checkpoint.read_topic_id(self.disk, join(self.path, folder))

    def write_topic_id(self, folder: str, topic_id: str) -> None:
        """Writes a partition's `partition.metadata`."""
        checkpoint.write_topic_id(self.disk, join(self.path, folder), topic_id)
