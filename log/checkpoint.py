"""Kafka's small text files beside the data: epochs, recovery points, log starts, topic ids, the log's own name.

1. A file is replaced in one step (written beside, synced, renamed, folder synced): a crash leaves the old or the new.
2. Reading refuses what it does not understand, by file and line (`CorruptError`), and a newer version (`InvalidError`);
   a missing file reads as empty.

Not here: what the numbers promise (`partition`, `broker`). Formats: docs/log_format.md, after Kafka's CheckpointFile,
LeaderEpochCheckpointFile, OffsetCheckpointFile, PartitionMetadataFile, MetaProperties.
"""

import base64
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

from tailrace.log.disk import Disk, join, parent
from tailrace.log.errors import CorruptError, InvalidError
from tailrace.log.record import TopicPartition

TEMPORARY: Final = ".tmp"
LEADER_EPOCHS: Final = "leader-epoch-checkpoint"
RECOVERY_POINTS: Final = "recovery-point-offset-checkpoint"
LOG_STARTS: Final = "log-start-offset-checkpoint"
CLEANER_OFFSETS: Final = "cleaner-offset-checkpoint"
PARTITION_METADATA: Final = "partition.metadata"
META_PROPERTIES: Final = "meta.properties"
VERSION: Final = 0
ID_BYTES: Final = 16


class EpochEntry(NamedTuple):
    """Records from `start_offset` on were written in `epoch`."""

    epoch: int
    start_offset: int


def write_atomic(disk: Disk, path: str, data: bytes) -> None:
    """Puts `data` at `path` in one step; on disk when this returns.

    Raises:
        DiskFullError: no room; the file is as before.
    """
    beside = path + TEMPORARY
    file = disk.open(beside, write=True)
    try:
        file.truncate(0)
        file.append(data)
        file.sync()
    finally:
        file.close()
    disk.rename(beside, path)
    disk.sync_dir(parent(path))


def read_file(disk: Disk, path: str) -> bytes | None:
    """All of a small file; None where there is none."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return None
    try:
        return file.read(0, file.size)
    finally:
        file.close()


# ---- leader-epoch-checkpoint


def read_epochs(disk: Disk, directory: str) -> list[EpochEntry]:
    """The epochs of a partition in order; empty where there is no file."""
    path = join(directory, LEADER_EPOCHS)
    rows = [EpochEntry(int(row[0]), int(row[1])) for row in _rows(disk, path, columns=2)]
    for before, after in pairwise(rows):
        if after.epoch <= before.epoch or after.start_offset < before.start_offset:
            raise _corrupt(
                path, f"epoch and offset above {before.epoch} {before.start_offset}", " ".join(map(str, after))
            )
    return rows


def write_epochs(disk: Disk, directory: str, entries: Iterable[EpochEntry]) -> None:
    """Replaces the epochs of a partition."""
    _write_rows(disk, join(directory, LEADER_EPOCHS), [f"{each.epoch} {each.start_offset}" for each in entries])


# ---- recovery-point-offset-checkpoint, log-start-offset-checkpoint, cleaner-offset-checkpoint


def read_offsets(disk: Disk, path: str) -> dict[TopicPartition, int]:
    """One offset per partition, from one of these files; empty where there is none."""
    return {TopicPartition(row[0], int(row[1])): int(row[2]) for row in _rows(disk, path, columns=3)}


def write_offsets(disk: Disk, path: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Replaces the file."""
    _write_rows(disk, path, [f"{tp.topic} {tp.partition} {offset}" for tp, offset in sorted(offsets.items())])


# ---- partition.metadata, meta.properties


def read_topic_id(disk: Disk, directory: str) -> str | None:
    """The id of the topic that a partition's folder belongs to, 22 characters of base64 for URLs, without padding.

    None where there is no file (Kafka before 2.8).
    """
    path = join(directory, PARTITION_METADATA)
    data = read_file(disk, path)
    if data is None:
        return None
    fields = dict(line.split(": ", 1) for line in data.decode("utf-8", "replace").splitlines() if ": " in line)
    if fields.get("version") != str(VERSION):
        raise _newer(path, fields.get("version", "none"))
    topic_id = fields.get("topic_id", "").rstrip("=")
    if not is_id(topic_id):
        raise _corrupt(path, "topic_id: 22 characters of base64", fields.get("topic_id", "none"))
    return topic_id


def write_topic_id(disk: Disk, directory: str, topic_id: str) -> None:
    """Says to which topic a partition's folder belongs."""
    text = f"version: {VERSION}\ntopic_id: {topic_id}"
    write_atomic(disk, join(directory, PARTITION_METADATA), text.encode())


def is_id(text: str) -> bool:
    """Whether a text has the form of the ids of topics and logs."""
    try:
        return len(base64.b64decode(text + "==", altchars=b"-_", validate=True)) == ID_BYTES
    except ValueError:  # what is no base64 at all included
        return False


def read_properties(disk: Disk, path: str) -> dict[str, str] | None:
    """A Java properties file such as `meta.properties`: `name=value` lines, `#` comments; None where there is none."""
    data = read_file(disk, path)
    if data is None:
        return None
    lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith(("#", "!")))
    return {name.strip(): value.strip() for name, _, value in pairs}


def write_properties(disk: Disk, path: str, properties: Mapping[str, str]) -> None:
    """Replaces a properties file; names in order, no date, so that equal contents are equal bytes."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(properties.items()))
    write_atomic(disk, path, text.encode())


# ---- the common form: version, number of rows, rows


def _rows(disk: Disk, path: str, *, columns: int) -> list[list[str]]:
    data = read_file(disk, path)
    if data is None:
        return []
    lines = data.decode("utf-8", "replace").splitlines()
    if not lines or not lines[0].strip().isdigit():
        raise _corrupt(path, "a version in line 1", lines[0] if lines else "an empty file")
    if int(lines[0]) != VERSION:
        raise _newer(path, lines[0])
    rows = [line.rsplit(" ", columns - 1) for line in lines[2:] if line]
    if len(lines) < 2 or lines[1].strip() != str(len(rows)):
        raise _corrupt(path, f"{lines[1] if len(lines) > 1 else 'a number of'} rows", f"{len(rows)} rows")
    for row in rows:
        if len(row) != columns or not all(each.lstrip("-").isdigit() for each in row[-2:]):
            raise _corrupt(path, f"{columns} columns with numbers at the end", " ".join(row))
    return rows


def _write_rows(disk: Disk, path: str, rows: list[str]) -> None:
    write_atomic(disk, path, "".join(f"{row}\n" for row in (str(VERSION), str(len(rows)), *rows)).encode())


def _corrupt(path: str, expected: str, found: str) -> CorruptError:
    return CorruptError(
        f"{path} cannot be read: expected {expected}, found {found!r}; restore it from a copy",
        file=path,
        position=-1,
        expected=expected,
        found=found,
    )


def _newer(path: str, version: str) -> InvalidError:
    return InvalidError(
        f"{path} has version {version}, and this tailrace knows {VERSION}: open the log with the newer release that "
        f"wrote it"
    )
