"""A partition with transactions: the last stable offset, what was aborted, what is found again at the next start."""

import pytest

from tailrace.log import codec
from tailrace.log.clock import ManualClock
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import FencedError, InvalidError
from tailrace.log.partition.partition import Appended, Partition
from tailrace.log.partition.producers import AbortedTransaction, OpenTransaction, OutOfOrderSequenceError
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.partitions import FOLDER, NOW_MS, TP, a_batch, opened, read_all
from tailrace.tests.support.transactions import committed_rows, ended, sent


def test_a_resent_batch_gets_the_old_offset_and_a_gap_is_refused() -> None:  # L08
    partition = opened(MemoryDisk())
    partition.append(a_batch(*[b"x"] * 10))
    first = partition.append(sent(b"a", b"b", b"c", sequence=0, transactional=False))
    assert first == Appended(10, 12, -1)
    again = partition.append(sent(b"a", b"b", b"c", sequence=0, transactional=False))
    assert again == Appended(10, 12, -1, duplicate=True)
    assert partition.log_end_offset == 13
    with pytest.raises(OutOfOrderSequenceError):
        partition.append(sent(b"d", sequence=5, transactional=False))


def test_duplicates_are_recognised_after_a_restart_from_the_log_alone() -> None:  # L09
    disk = MemoryDisk()
    partition = opened(disk)
    for number in range(5):
        partition.append(sent(b"%d" % number, sequence=number, transactional=False))
    partition.sync()  # no close: the process dies
    partition = opened(disk)
    assert partition.append(sent(b"4", sequence=4, transactional=False)) == Appended(4, 4, -1, duplicate=True)
    assert partition.append(sent(b"5", sequence=5, transactional=False)) == Appended(5, 5, -1)


def test_the_last_stable_offset_waits_for_the_oldest_transaction() -> None:  # L10, L11
    partition = opened(MemoryDisk())
    partition.append(a_batch(*[b"x"] * 5))
    partition.append(sent(b"in T1", sequence=0))
    assert partition.last_stable_offset == 5
    partition.append(a_batch(b"plain"))
    assert (partition.last_stable_offset, partition.high_watermark) == (5, 7)
    assert partition.open_transactions() == [OpenTransaction(7, 0, 5, NOW_MS)]
    assert ended(partition, committed=False) == Appended(7, 7, -1)
    partition.sync()
    assert partition.last_stable_offset == 8
    assert partition.aborted(5, 8) == [AbortedTransaction(7, 5, 7)]
    assert [row for row in committed_rows(partition) if row[0] >= 5] == [(6, None, b"plain")]
    assert len(read_all(partition)) == 8  # the marker's record too


def test_a_marker_counts_when_it_is_on_disk() -> None:
    moves: list[int] = []

    def moved() -> None:
        moves.append(partition.last_stable_offset)

    partition = Partition.open(MemoryDisk(), ManualClock(NOW_MS), FOLDER, TP, TopicConfig(), stable_moved=moved)
    partition.append(sent(b"a", sequence=0))
    ended(partition, committed=True)
    partition.append(a_batch(b"plain"))
    assert partition.last_stable_offset == 1
    partition.append(sent(b"b", producer=8, sequence=0))
    ended(partition, 8, committed=True)
    partition.sync()
    assert partition.last_stable_offset == 5
    assert moves == [5]
    partition.append(a_batch(b"plain"))
    partition.sync()
    assert moves == [5]


def test_without_syncing_a_marker_counts_at_once() -> None:
    partition = Partition.open(MemoryDisk(), ManualClock(NOW_MS), FOLDER, TP, TopicConfig(), wait_for_sync=False)
    partition.append(sent(b"a", sequence=0))
    assert partition.last_stable_offset == 0
    ended(partition, committed=True)
    assert partition.last_stable_offset == 2


def test_a_roll_syncs_markers_too() -> None:
    partition = opened(MemoryDisk(), TopicConfig(segment_bytes=400))
    partition.append(sent(b"a", sequence=0))
    ended(partition, committed=True)
    for _ in range(6):
        partition.append(a_batch(b"plain" * 10))
    assert len(partition.segment_offsets) > 1
    assert partition.last_stable_offset == partition.log_end_offset


def test_the_marker_of_an_old_backlog_does_not_roll() -> None:
    clock = ManualClock(NOW_MS * 2)
    partition = opened(MemoryDisk(), clock=clock)
    for number in range(3):
        partition.append(sent(b"of long ago", sequence=number))
        ended(partition, committed=True)
    assert partition.segment_offsets == [0]


def test_a_marker_without_a_transaction_does_no_harm() -> None:
    partition = opened(MemoryDisk())
    assert ended(partition, committed=False) == Appended(0, 0, -1)
    partition.sync()
    assert partition.last_stable_offset == 1
    assert partition.aborted(0, 1) == []


def test_an_older_epoch_is_fenced_and_a_newer_marker_fences() -> None:  # L12
    partition = opened(MemoryDisk())
    partition.append(sent(b"a", sequence=0))
    ended(partition, committed=False, epoch=1)
    assert partition.open_transactions() == []
    with pytest.raises(FencedError):
        partition.append(sent(b"b", sequence=1))
    with pytest.raises(FencedError):
        ended(partition, committed=True)
    assert partition.append(sent(b"b", epoch=1, sequence=0)).base_offset == 2


def test_the_log_start_pushes_the_last_stable_offset() -> None:
    partition = opened(MemoryDisk())
    partition.append(sent(b"a", b"b", b"c", sequence=0))
    assert partition.delete_records(2) == 2
    assert partition.last_stable_offset == 2
    assert partition.delete_records(-1) == 3  # Kafka's rule: the high watermark, whatever is open
    assert partition.last_stable_offset == 3


def test_a_batch_that_is_refused_leaves_no_trace() -> None:
    partition = opened(MemoryDisk(), TopicConfig(message_timestamp_after_max_ms=0), clock=ManualClock(NOW_MS - 1))
    with pytest.raises(InvalidError, match="ahead of the clock"):
        partition.append(sent(b"a", sequence=0))
    assert partition.open_transactions() == []


def test_control_batches_may_come_as_bytes() -> None:
    source, copy = opened(MemoryDisk()), opened(MemoryDisk())
    source.append(sent(b"a", sequence=0))
    ended(source, committed=False)
    for _, batch in codec.batches(source.read(0, 10_000)):
        copy.append(bytearray(batch))
    copy.sync()
    assert copy.last_stable_offset == 2
    assert copy.aborted(0, 2) == [AbortedTransaction(7, 0, 1)]


def test_beside_a_writer_transactions_are_followed() -> None:
    disk = MemoryDisk()
    writer = opened(disk, TopicConfig(segment_bytes=600))
    writer.append(a_batch(b"x"))
    reader = opened(disk, TopicConfig(segment_bytes=600), read_only=True)
    assert reader.last_stable_offset == 1
    writer.append(sent(b"a", sequence=0))
    for _ in range(10):
        writer.append(a_batch(b"plain" * 10))
    reader.read(reader.log_end_offset, 1)
    assert (reader.last_stable_offset, reader.log_end_offset) == (1, 12)
    assert [each.first_offset for each in reader.open_transactions()] == [1]
    ended(writer, committed=False)
    reader.read(reader.log_end_offset, 1)
    assert reader.last_stable_offset == 13
    assert reader.aborted(0, 13) == [AbortedTransaction(7, 1, 12)]


def test_beside_a_writer_whose_retention_takes_files() -> None:
    disk = MemoryDisk()
    config = TopicConfig(segment_bytes=400, retention_bytes=0, file_delete_delay_ms=0)
    writer = opened(disk, config)
    writer.append(sent(b"a", sequence=0))
    ended(writer, committed=False)
    reader = opened(disk, config, read_only=True)
    for number in range(12):
        writer.append(sent(b"b" * 50, producer=8, sequence=number))
    ended(writer, 8, committed=False)
    reader.read(reader.log_end_offset, 1)
    assert writer.apply_retention(NOW_MS)
    writer.append(sent(b"c", producer=9, sequence=0))
    end = writer.log_end_offset
    assert [each.last_offset for each in reader.aborted(0, end)] in ([14], [])
    reader.read(reader.log_end_offset, 1)
    assert reader.last_stable_offset == end - 1
    assert [each.producer_id for each in reader.open_transactions()] == [9]


def test_a_transaction_that_ended_in_deleted_segments_is_not_open_after_a_crash() -> None:
    disk = MemoryDisk()
    config = TopicConfig(segment_bytes=400, retention_bytes=0, file_delete_delay_ms=0)
    partition = opened(disk, config)
    partition.append(sent(b"a", sequence=0))
    partition.checkpoint()  # the snapshot says that it is open
    ended(partition, committed=True)
    for number in range(1, 12):
        partition.append(sent(b"b" * 50, sequence=number))
        ended(partition, committed=True)
    assert partition.apply_retention(NOW_MS)
    partition.append(a_batch(b"c"))
    partition.sync()
    again = opened(disk, config)
    assert again.open_transactions() == []
    assert again.last_stable_offset == again.log_end_offset
    assert again.append(sent(b"d", sequence=12)).base_offset == again.log_end_offset - 1


def test_a_snapshot_from_before_the_first_segment_is_of_no_use() -> None:
    disk = MemoryDisk()
    partition = opened(disk, TopicConfig(segment_bytes=200))
    partition.append(sent(b"a", sequence=0))
    partition.checkpoint()
    ended(partition, committed=True)
    for number in range(1, 6):
        partition.append(sent(b"b" * 50, sequence=number))
    partition.sync()
    for base in partition.segment_offsets[:3]:
        disk.remove(f"{FOLDER}/{base:020d}.log")
    again = opened(disk)
    assert [each.first_offset for each in again.open_transactions()] == [again.log_start_offset]
    assert again.append(sent(b"d", sequence=6)).base_offset == again.log_end_offset - 1


def test_a_marker_is_no_record_to_be_found_by_time() -> None:
    partition = opened(MemoryDisk(), clock=ManualClock(NOW_MS + 1_000))
    partition.append(sent(b"old", sequence=0))
    ended(partition, committed=True)
    found = partition.offset_for_time(0)
    assert found is not None
    assert found[0] == 0
    assert partition.offset_for_time(found[1] + 1) is None
