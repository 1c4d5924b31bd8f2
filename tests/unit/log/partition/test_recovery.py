"""Opening after a crash or damage: torn tails are cut, flipped bits are refused, indexes come back."""

import logging

import pytest

from tailrace.log import codec
from tailrace.log.disk import File, MemoryDisk, MemoryFile, MemoryNode
from tailrace.log.errors import CorruptError, TailraceError
from tailrace.log.partition.recovery import PAGE_BYTES
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.partitions import FOLDER, NOW_MS, a_batch, at_times, opened, read_all

LOG = f"{FOLDER}/{0:020d}.log"
CONFIG = TopicConfig(index_interval_bytes=200)
BATCH = len(a_batch(b"0"))


def written(count: int, *, segment_bytes: int = 1 << 20, close: bool = False) -> tuple[MemoryDisk, TopicConfig]:
    """Batches of one record each; without `close`, as a killed process leaves them."""
    disk = MemoryDisk()
    config = TopicConfig(index_interval_bytes=200, segment_bytes=segment_bytes)
    partition = opened(disk, config)
    for index in range(count):
        partition.append(a_batch(str(index % 10).encode()))
    if close:
        partition.close()
    return disk, config


def change(disk: MemoryDisk, position: int, data: bytes, path: str = LOG) -> None:
    """Puts other bytes into a file."""
    file = disk.open(path, write=True)
    before, after = file.read(0, position), file.read(position + len(data), file.size)
    file.truncate(0)
    file.append(before + data + after)


@pytest.mark.parametrize("lost", [1, 30, BATCH - 1])
def test_a_torn_tail_is_cut_and_said(lost: int, caplog: pytest.LogCaptureFixture) -> None:
    disk, config = written(10)
    disk.open(LOG, write=True).truncate(10 * BATCH - lost)
    with caplog.at_level(logging.WARNING):
        partition = opened(disk, config)
    assert partition.log_end_offset == 9
    assert disk.size(LOG) == 9 * BATCH
    assert f"a torn tail of {BATCH - lost} bytes was cut from {LOG} at byte {9 * BATCH}, after offset 8" in caplog.text
    partition.append(a_batch(b"9"))
    assert [value for _, value in read_all(partition)] == [str(index).encode() for index in range(10)]


@pytest.mark.parametrize("tail", [b"\x00" * 5000, b"garbage" * 40, b"\x00" * 16 + b"\x02" + b"\x00" * 100])
def test_a_tail_that_is_no_batch_is_cut(tail: bytes) -> None:
    disk, config = written(3)
    disk.open(LOG, write=True).append(tail)
    assert opened(disk, config).log_end_offset == 3
    assert disk.size(LOG) == 3 * BATCH


def test_a_flipped_bit_in_the_middle_is_refused_by_name() -> None:
    disk, config = written(10)
    at = 4 * BATCH + BATCH - 3
    before = disk.open(LOG).read(0, 10 * BATCH)
    change(disk, at, bytes([before[at] ^ 1]))
    damaged = disk.open(LOG).read(0, 10 * BATCH)
    with pytest.raises(CorruptError) as caught:
        opened(disk, config)
    error = caught.value
    assert (error.file, error.position) == (LOG, 4 * BATCH)
    assert str(error.expected).startswith("crc ")
    assert error.expected != error.found
    assert f"{LOG} is damaged at byte {4 * BATCH}, where offset 4 should follow" in str(error)
    assert disk.open(LOG).read(0, 10 * BATCH) == damaged, "nothing is touched"


@pytest.mark.parametrize("field", [range(8), range(8, 12), range(16, 17), range(23, 27)])
def test_any_flipped_header_field_in_the_middle_is_refused(field: range) -> None:
    for at in field:
        disk, config = written(6)
        position = 2 * BATCH + at
        change(disk, position, bytes([disk.open(LOG).read(position, 1)[0] ^ 0x41]))
        with pytest.raises(CorruptError):
            opened(disk, config)


def test_damage_below_the_recovery_point_is_never_a_torn_tail() -> None:
    disk, config = written(10)
    disk.open(LOG, write=True).truncate(10 * BATCH - 1)
    with pytest.raises(CorruptError, match="is damaged at byte"):
        opened(disk, config, recovery_point=10)


def test_records_missing_below_the_recovery_point() -> None:
    disk, config = written(10, close=True)
    disk.open(LOG, write=True).truncate(6 * BATCH)
    with pytest.raises(CorruptError, match="ends at offset 6, but everything below 10 was on disk"):
        opened(disk, config, recovery_point=10)
    disk.remove(LOG)
    with pytest.raises(CorruptError, match="ends at offset 0, but everything below 10 was on disk"):
        opened(disk, config, recovery_point=10)


def test_a_bad_batch_in_a_closed_segment_is_refused() -> None:
    disk, config = written(12, segment_bytes=4 * BATCH)
    disk.open(LOG, write=True).truncate(4 * BATCH - 1)
    with pytest.raises(CorruptError, match=f"{0:020d}.log is damaged at byte {3 * BATCH}"):
        opened(disk, config)


def test_a_page_that_was_never_written_is_cut_with_all_behind_it() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    for _ in range(10):
        partition.append(a_batch(b"x" * 2000))
    size = disk.size(LOG) // 10
    change(disk, PAGE_BYTES, bytes(PAGE_BYTES))
    again = opened(disk, CONFIG)
    assert again.log_end_offset == PAGE_BYTES // size
    assert disk.size(LOG) == again.log_end_offset * size


def test_zeros_that_belong_to_a_value_are_no_lost_page() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    for _ in range(3):
        partition.append(a_batch(bytes(1000)))
    change(disk, 100, b"\x01")
    with pytest.raises(CorruptError):
        opened(disk, CONFIG)


def test_indexes_come_back_as_they_were() -> None:
    disk, config = written(60, close=True)
    index, times = LOG.replace(".log", ".index"), LOG.replace(".log", ".timeindex")
    before = [disk.open(each).read(0, 10_000) for each in (index, times)]
    assert len(before[0]) > 100
    disk.remove(index)
    change(disk, 4, b"junk", times)
    partition = opened(disk, config, recovery_point=60)
    partition.close()
    assert [disk.open(each).read(0, 10_000) for each in (index, times)] == before


def test_a_time_index_that_could_not_be_written_is_made_again() -> None:
    """Seed 209 of the simulation, when it was made: the offset index was there, and told that all was indexed."""
    disk, config = FaultyDisk(), TopicConfig(index_interval_bytes=0)
    partition = opened(disk, config)
    partition.append(at_times(NOW_MS + 9))
    for _ in range(9):
        partition.append(at_times(NOW_MS))
    disk.fail("create", OSError(5, "Input/output error"), path=".timeindex")
    with pytest.raises(TailraceError, match="Input/output error"):
        partition.checkpoint()
    disk.kill()
    again = opened(disk, config, recovery_point=10)
    again.append(at_times(NOW_MS + 5))
    again.append(at_times(NOW_MS + 7))
    again.close()
    assert opened(disk, config, recovery_point=12).offset_for_time(NOW_MS + 6) == (0, NOW_MS + 9)


def test_a_time_index_whose_name_was_lost_is_made_again() -> None:
    disk, config = written(60, close=True)
    times = LOG.replace(".log", ".timeindex")
    before = disk.open(times).read(0, 10_000)
    disk.remove(times)
    opened(disk, config, recovery_point=60).close()
    assert disk.open(times).read(0, 10_000) == before


def test_an_index_that_points_elsewhere_is_not_believed() -> None:
    disk, config = written(60, close=True)
    index = LOG.replace(".log", ".index")
    good = disk.open(index).read(0, 10_000)
    change(disk, len(good) - 8, (55).to_bytes(4, "big") + (4321).to_bytes(4, "big"), index)
    partition = opened(disk, config, recovery_point=60)
    assert [offset for offset, _ in read_all(partition, 100)] == list(range(60))
    partition.close()
    assert disk.open(index).read(0, 10_000) == good


def test_only_what_lies_above_the_recovery_point_is_read_again() -> None:
    disk = CountingDisk()
    partition = opened(disk, CONFIG)
    for _ in range(200):
        partition.append(a_batch(b"x" * 10_000))
    partition.close()
    disk.bytes_read = 0
    assert opened(disk, CONFIG, recovery_point=200).log_end_offset == 200
    assert disk.bytes_read < 50_000
    disk.bytes_read = 0
    opened(disk, CONFIG, recovery_point=0)
    assert disk.bytes_read > 2_000_000


class CountingDisk(MemoryDisk):
    """Knows how many bytes were read."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_read = 0

    def _file(self, path: str, node: MemoryNode) -> File:
        return CountedFile(self, path, node)


class CountedFile(MemoryFile):
    def __init__(self, disk: CountingDisk, path: str, node: MemoryNode) -> None:
        super().__init__(path, node)
        self.disk = disk

    def read(self, position: int, size: int) -> bytes:
        data = super().read(position, size)
        self.disk.bytes_read += len(data)
        return data


def test_a_lost_epoch_file_is_made_from_the_batches() -> None:
    disk, config = written(3)
    opened(disk, config).append(a_batch(b"3"))
    disk.remove(f"{FOLDER}/leader-epoch-checkpoint")
    assert opened(disk, config).leader_epoch == 2
    assert [header.leader_epoch for header, _ in codec.batches(disk.open(LOG).read(0, 1000))] == [0, 0, 0, 1]


def test_a_clean_stop_and_start_without_a_record_between_syncs_nothing_but_the_epoch() -> None:
    disk = SyncCountingDisk()
    partition = opened(disk, CONFIG)
    for index in range(50):
        partition.append(a_batch(str(index % 10).encode()))
    partition.close()
    disk.synced.clear()
    again = opened(disk, CONFIG, recovery_point=50)
    again.close()
    assert [each.rsplit("/", 1)[1] for each in disk.synced] == ["leader-epoch-checkpoint.tmp"]
    assert opened(disk, CONFIG, recovery_point=50).log_end_offset == 50


class SyncCountingDisk(MemoryDisk):
    """Knows which files were synced."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[str] = []

    def _file(self, path: str, node: MemoryNode) -> File:
        return SyncCountedFile(self, path, node)


class SyncCountedFile(MemoryFile):
    def __init__(self, disk: SyncCountingDisk, path: str, node: MemoryNode) -> None:
        super().__init__(path, node)
        self.disk = disk

    def sync(self) -> None:
        self.disk.synced.append(self.path)
