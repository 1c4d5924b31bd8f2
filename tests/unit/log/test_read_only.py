"""Reading beside a writer: nothing is locked or written, the tail moves, files go away."""

import pytest

from tailrace.log.checking.dump import dump
from tailrace.log.checking.verify import verify
from tailrace.log.errors import TopicNotFoundError
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.partitions import FOLDER, a_batch, opened, read_all

BATCH = len(a_batch(b"a"))
CONFIG = TopicConfig(segment_bytes=2 * BATCH, index_interval_bytes=0, file_delete_delay_ms=0)


def test_it_follows_appends_and_rolls_and_writes_nothing() -> None:
    disk = FaultyDisk()
    writer = opened(disk, CONFIG)
    writer.append(a_batch(b"0"))
    reader = opened(disk, CONFIG, read_only=True)
    assert read_all(reader) == [(0, b"0")]
    for index in range(1, 8):
        writer.append(a_batch(str(index).encode()))
        before = disk.operations
        data = reader.read(index, 1000)
        assert len(data) == BATCH
        assert disk.operations == before
    assert reader.segment_offsets == [0, 2, 4, 6]
    assert reader.log_end_offset == 8
    assert reader.leader_epoch == writer.leader_epoch
    reader.close()


def test_it_ends_quietly_at_a_batch_that_is_being_written() -> None:
    disk = FaultyDisk()
    opened(disk, CONFIG).append(a_batch(b"0"))
    tail = disk.open(f"{FOLDER}/{0:020d}.log", write=True)
    whole = bytes(a_batch(b"1"))
    whole = (1).to_bytes(8, "big") + whole[8:]
    reader = opened(disk, CONFIG, read_only=True)
    for cut in (1, 30, 61, BATCH - 1):
        tail.truncate(BATCH)
        tail.append(whole[:cut])
        assert reader.read(1, 1000) == b""
    tail.truncate(BATCH)
    tail.append(whole)
    assert [offset for offset, _ in read_all(reader)] == [0, 1]


def test_it_lists_anew_when_retention_took_a_file() -> None:
    disk = FaultyDisk()
    config = TopicConfig(segment_bytes=BATCH, retention_bytes=2 * BATCH, file_delete_delay_ms=0)
    writer = opened(disk, config)
    for index in range(6):
        writer.append(a_batch(str(index).encode()))
    reader = opened(disk, config, read_only=True)
    assert reader.log_start_offset == 0
    writer.apply_retention(0)
    assert reader.read(4, 1000) != b""
    assert reader.read(5, 1000) != b""
    assert reader.read(6, 1000) == b""
    assert reader.log_start_offset == writer.log_start_offset == 4
    assert reader.offset_for_time(0) is not None


def test_beside_a_writer_the_tail_is_not_judged() -> None:
    disk = FaultyDisk()
    writer = opened(disk, CONFIG)
    writer.append(a_batch(b"0"))
    lock = disk.lock("/log/.lock")
    disk.open("/log/.lock", write=True)
    disk.open(f"{FOLDER}/{0:020d}.log", write=True).append(b"\x00\x00half a batch")
    report = verify(disk, "/log")
    assert report.ok
    assert report.in_use is not None
    assert "in use by process" in report.notes[0]
    assert len(report.notes) == 1
    assert len(list(dump(disk, "/log"))) == 1
    lock.release()
    alone = verify(disk, "/log")
    assert alone.ok
    assert alone.in_use is None
    assert "has a torn tail of 14 bytes" in alone.notes[0]


def test_a_partition_that_the_writer_has_deleted_is_said_to_be_gone() -> None:
    disk = FaultyDisk()
    opened(disk, CONFIG).append(a_batch(b"0"))
    reader = opened(disk, CONFIG, read_only=True)
    disk.remove_tree(FOLDER)
    for call in (
        lambda: reader.read(1, 1000),
        lambda: reader.offset_for_time(0),
        lambda: opened(disk, CONFIG, read_only=True),
    ):
        with pytest.raises(TopicNotFoundError, match="its topic was deleted by the process that writes"):
            call()
