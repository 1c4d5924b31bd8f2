"""A partition through its public methods, on a disk in memory; what a real file system adds is at the end."""

from pathlib import Path

import pytest

from tailrace.log import codec
from tailrace.log.clock import ManualClock
from tailrace.log.disk import Disk, MemoryDisk, RealDisk, join
from tailrace.log.partition import OffsetOutOfRangeError, Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig

TP = TopicPartition("clicks", 0)
NOW_MS = 1_700_000_000_000


def opened(
    disk: Disk, *, config: TopicConfig | None = None, directory: str = "/log/clicks-0", recovery_point: int = 0
) -> Partition:
    return Partition.open(
        disk, ManualClock(NOW_MS), directory, TP, config or TopicConfig(), recovery_point=recovery_point
    )


def a_batch(*values: bytes, timestamp_ms: int = NOW_MS) -> bytearray:
    return codec.encode([(None, value, timestamp_ms, ()) for value in values])


def values_of(partition: Partition, offset: int = 0, max_bytes: int = 1 << 20) -> list[tuple[int, bytes | None]]:
    return [
        (record.offset, record.value)
        for _, batch in codec.batches(partition.read(offset, max_bytes))
        for record in codec.decode(batch)
        if record.offset >= offset
    ]


def test_what_was_appended_is_read() -> None:
    partition = opened(MemoryDisk())
    assert partition.append(a_batch(b"a", b"b")) == (0, 1, -1)
    assert partition.append(a_batch(b"c")) == (2, 2, -1)
    assert values_of(partition) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert values_of(partition, 1) == [(1, b"b"), (2, b"c")]
    assert partition.read(3, 100) == b""
    assert partition.log_end_offset == partition.high_watermark == 3
    assert partition.synced_offset == 0
    assert partition.sync() == 3


def test_outside_the_log_is_out_of_range() -> None:
    partition = opened(MemoryDisk())
    partition.append(a_batch(b"a"))
    with pytest.raises(OffsetOutOfRangeError, match="no offset 2 in clicks-0, which has 0 to 1"):
        partition.read(2, 100)


def test_it_is_all_there_after_closing(tmp_path: Path) -> None:
    disk, directory = RealDisk(), join(str(tmp_path), "clicks-0")
    partition = opened(disk, directory=directory)
    partition.append(a_batch(b"a", b"b"))
    assert partition.leader_epoch == 0
    partition.close()
    assert partition.recovery_point == 2
    again = opened(disk, directory=directory, recovery_point=2)
    assert again.leader_epoch == 1
    again.append(a_batch(b"c"))
    assert values_of(again) == [(0, b"a"), (1, b"b"), (2, b"c")]
    again.close()
