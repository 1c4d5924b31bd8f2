"""A full disk and a disk that fails: who is told, what stays, when writing goes on."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tailrace.log.checking.verify import verify
from tailrace.log.disk import RealDisk
from tailrace.log.errors import DiskFullError, TailraceError
from tailrace.log.partition.partition import Partition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk, void
from tailrace.tests.support.partitions import FOLDER, a_batch, opened, read_all

BATCH = len(a_batch(b"a"))
CONFIG = TopicConfig(index_interval_bytes=0, segment_bytes=100)
STORAGE = ("log/partition/partition.py", "log/partition/segment.py", "log/disk.py", "log/partition/index.py")


def ready(disk: FaultyDisk, config: TopicConfig | None = None) -> Partition:
    disk.mkdir("/log")
    partition = opened(disk, config)
    partition.append(a_batch(b"a"))
    partition.sync()
    return partition


def test_a_full_disk_refuses_the_append_and_goes_on_when_there_is_room() -> None:
    disk = FaultyDisk()
    partition = ready(disk)
    disk.capacity = disk.used() + BATCH // 2
    with pytest.raises(DiskFullError, match=r"no room on the disk for .*/clicks-0/0+\.log"):
        partition.append(a_batch(b"b"))
    assert partition.log_end_offset == 1
    assert partition.sync() == 1
    disk.capacity = None
    assert partition.append(a_batch(b"c")).base_offset == 1
    assert read_all(partition) == [(0, b"a"), (1, b"c")]


def test_a_full_disk_at_a_roll() -> None:
    disk = FaultyDisk()
    partition = ready(disk, TopicConfig(segment_bytes=BATCH))
    disk.fail("create", DiskFullError("no room"))
    with pytest.raises(DiskFullError):
        partition.append(a_batch(b"b"))
    assert partition.append(a_batch(b"c")).base_offset == 1
    assert read_all(partition) == [(0, b"a"), (1, b"c")]
    disk.crash()
    assert read_all(opened(disk)) in ([(0, b"a")], [(0, b"a"), (1, b"c")])


def test_a_full_disk_at_the_close_loses_indexes_only() -> None:
    disk = FaultyDisk()
    partition = ready(disk)
    partition.append(a_batch(b"b"))
    disk.capacity = disk.used()
    partition.close()
    assert partition.synced_offset == 2
    disk.crash()
    disk.capacity = None
    assert read_all(opened(disk)) == [(0, b"a"), (1, b"b")]


@pytest.mark.parametrize("operation", ["sync", "sync_dir"])
def test_after_a_failed_sync_nothing_is_promised_any_more(operation: str) -> None:
    disk = FaultyDisk()
    disk.mkdir("/log")
    partition = opened(disk, TopicConfig(segment_bytes=BATCH))
    partition.append(a_batch(b"a"))
    partition.sync()
    partition.append(a_batch(b"b"))
    disk.fail(operation, OSError(errno.EIO, "Input/output error"), path=FOLDER)
    with pytest.raises(TailraceError, match=r"clicks-0 could not be synced .* offsets 1 to 1 are there is not known"):
        partition.sync()
    for again in (partition.sync, partition.checkpoint, lambda: partition.append(a_batch(b"c"))):
        with pytest.raises(TailraceError, match="close the log and open it again"):
            again()
    assert partition.synced_offset == 1
    assert [value for _, value in read_all(partition)] == [b"a", b"b"], "reading goes on"
    partition.close()
    assert partition.recovery_point < 2
    disk.crash()
    assert read_all(opened(disk))[:1] == [(0, b"a")]


def test_a_failed_sync_at_a_roll_is_the_same() -> None:
    disk = FaultyDisk()
    partition = ready(disk, TopicConfig(segment_bytes=BATCH))
    disk.fail("sync", OSError(errno.EIO, "Input/output error"))
    for _ in range(2):
        with pytest.raises(TailraceError, match="could not be synced"):
            partition.append(a_batch(b"b"))
    assert partition.log_end_offset == 1
    partition.close()


def test_ctrl_c_between_any_two_lines_of_an_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise anywhere; the batch is then there or not, and the next one follows it."""
    monkeypatch.setattr(os, "fdatasync", void)
    monkeypatch.setattr(os, "fsync", void)
    for stop_at in range(1, 400):
        partition = opened(RealDisk(), CONFIG, directory=str(tmp_path / f"{stop_at}" / "clicks-0"))
        partition.append(a_batch(b"before"))
        interrupted = run_interrupted(lambda: void(partition.append(a_batch(b"interrupted"))), stop_at)  # noqa: B023
        partition.append(a_batch(b"after"))
        rows = read_all(partition)
        assert [offset for offset, _ in rows] == list(range(len(rows)))
        values = [value for _, value in rows]
        assert values in ([b"before", b"after"], [b"before", b"interrupted", b"after"])
        partition.close()
        assert verify(RealDisk(), partition.directory).ok
        assert read_all(opened(RealDisk(), CONFIG, directory=partition.directory)) == rows
        if not interrupted:
            assert stop_at > 30
            return
    pytest.fail("an append has fewer lines than that")


def run_interrupted(work: Callable[[], None], stop_at: int) -> bool:
    """Raises KeyboardInterrupt at the nth line of our storage's code; whether it came so far."""
    left = [stop_at]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(STORAGE):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False
