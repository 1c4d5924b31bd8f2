"""What is deleted, when, and what is left: cases L02 to L04, records deleted on request, files on their way out."""

from dataclasses import replace

import pytest

from tailrace.log.clock import ManualClock
from tailrace.log.disk import File, MemoryDisk, MemoryFile, MemoryNode
from tailrace.log.partition.extent import OffsetOutOfRangeError
from tailrace.log.partition.partition import Partition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.partitions import FOLDER, a_batch, at_times, opened, read_all

ONE = len(at_times(0))  # every batch of one record has this size
OLD = TopicConfig(retention_ms=500, segment_bytes=ONE, message_timestamp_after_max_ms=10_000, file_delete_delay_ms=0)


def segments_of(*times: int, config: TopicConfig, disk: MemoryDisk | None = None) -> Partition:
    """One segment per time."""
    partition = opened(disk or MemoryDisk(), config, clock=ManualClock(1000))
    for each in times:
        partition.append(at_times(each))
    assert len(partition.segment_offsets) == len(times)
    return partition


def names(*bases: int) -> list[str]:
    return [f"{FOLDER}/{base:020d}.log" for base in bases]


def test_l02_expired_segments_go_from_the_head() -> None:
    partition = segments_of(100, 50, 900, 1000, config=OLD)
    assert partition.apply_retention(1000) == names(0, 1)
    assert partition.log_start_offset == 2
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(1, 100)


def test_l03_a_record_of_the_future_pins_the_rest() -> None:
    disk = MemoryDisk()
    partition = opened(disk, replace(OLD, segment_bytes=2 * ONE), clock=ManualClock(1000))
    for each in (100, 5000, 50, 50, 900, 900, 1000):
        partition.append(at_times(each))
    assert partition.apply_retention(1000) == []


def test_l04_sizes() -> None:
    config = TopicConfig(segment_bytes=2 * ONE, retention_bytes=5 * ONE, file_delete_delay_ms=0)
    partition = opened(MemoryDisk(), config)
    for _ in range(6):
        partition.append(at_times(0))
    assert partition.segment_offsets == [0, 2, 4]
    assert partition.apply_retention(0) == []  # 6 - 2 < 5
    partition.append(at_times(0))
    assert partition.apply_retention(0) == names(0)  # 7 - 2 >= 5
    assert partition.log_start_offset == 2


def test_an_expired_active_segment_is_rolled_and_goes_too() -> None:
    disk = MemoryDisk()
    partition = segments_of(100, 200, config=OLD, disk=disk)
    assert partition.apply_retention(1000) == names(0, 1)
    assert partition.segment_offsets == [2]
    assert (partition.log_start_offset, partition.log_end_offset) == (2, 2)
    partition.append(at_times(900))
    partition.close()
    again = opened(disk, OLD, recovery_point=3)
    assert read_all(again) == [(2, b"value")]


def test_an_empty_partition_stays_as_it_is() -> None:
    partition = opened(MemoryDisk(), TopicConfig(retention_ms=0, retention_bytes=0))
    assert partition.apply_retention(10**15) == []


def test_without_retention_all_stays_and_compacted_topics_do_not_expire() -> None:
    assert segments_of(1, 2, config=replace(OLD, retention_ms=-1)).apply_retention(10**15) == []
    partition = segments_of(1, 2, config=OLD)
    partition.config = replace(OLD, cleanup_policy="compact")
    assert partition.apply_retention(10**15) == []


def test_deleted_records_are_out_of_reach_at_once_and_their_segments_go_later() -> None:
    partition = segments_of(1, 2, 3, config=replace(OLD, retention_ms=-1))
    assert partition.delete_records(2) == 2
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(1, 100)
    assert partition.apply_retention(1000) == names(0, 1)
    assert partition.delete_records(1) == 2
    assert partition.delete_records(-1) == 3
    assert read_all(partition) == []
    with pytest.raises(OffsetOutOfRangeError, match="no offset 4 in clicks-0"):
        partition.delete_records(4)


def test_deleted_files_wait_for_their_readers() -> None:
    disk = MemoryDisk()
    partition = segments_of(100, 900, config=replace(OLD, file_delete_delay_ms=60), disk=disk)
    partition.checkpoint()
    partition.apply_retention(1000)
    doomed = [name for name in disk.list(FOLDER) if name.endswith(".deleted")]
    assert doomed == [f"{0:020d}{suffix}.deleted" for suffix in (".index", ".log", ".timeindex")]
    partition.apply_retention(1059)
    assert [name for name in disk.list(FOLDER) if name.endswith(".deleted")] == doomed
    partition.apply_retention(1060)
    assert [name for name in disk.list(FOLDER) if name.endswith(".deleted")] == []


def test_what_was_left_to_delete_goes_at_the_next_opening() -> None:
    disk = MemoryDisk()
    config = replace(OLD, file_delete_delay_ms=60_000)
    partition = segments_of(100, 900, config=config, disk=disk)
    partition.apply_retention(1000)
    partition.close()
    assert any(name.endswith(".deleted") for name in disk.list(FOLDER))
    opened(disk, config, recovery_point=2)
    assert not any(name.endswith(".deleted") for name in disk.list(FOLDER))


def test_many_closed_segments_keep_few_files_open() -> None:
    disk = CountingDisk()
    partition = opened(disk, TopicConfig(segment_bytes=len(a_batch(b"0"))))
    for index in range(30):
        partition.append(a_batch(str(index % 10).encode()))
    assert [value for _, value in read_all(partition)] == [str(index % 10).encode() for index in range(30)]
    partition.checkpoint()
    assert [value for _, value in read_all(partition)] == [str(index % 10).encode() for index in range(30)]
    assert disk.open_files <= 9
    partition.close()
    assert disk.open_files == 0


class CountingDisk(MemoryDisk):
    """Knows how many files are open."""

    open_files = 0

    def _file(self, path: str, node: MemoryNode) -> File:
        self.open_files += 1
        return CountedFile(self, path, node)


class CountedFile(MemoryFile):
    def __init__(self, disk: CountingDisk, path: str, node: MemoryNode) -> None:
        super().__init__(path, node)
        self.disk = disk

    def close(self) -> None:
        self.disk.open_files -= 1
