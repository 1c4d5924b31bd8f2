"""A log on a disk without any room: it opens, is read, and what is deleted from it makes room again."""

import errno
import os

import pytest

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.disk import MemoryDisk, RealDisk
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import DiskFullError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk

A, B = TopicPartition("a", 0), TopicPartition("b", 0)
VALUES = [b"%d" % number * 50 for number in range(20)]


def opened(disk: MemoryDisk, clock: ManualClock | None = None) -> Log:
    return Log.open("/log", disk=disk, clock=clock or ManualClock(1_000_000), background=False)


def full(*, crashed: bool) -> FaultyDisk:
    """Two topics with records, and not a byte of room."""
    disk = FaultyDisk()
    log = opened(disk)
    for topic in ("a", "b"):
        log.create_topic(topic, config={"segment.bytes": 1000, "retention.ms": 1_000_000, "file.delete.delay.ms": 0})
        with log.producer(batch_bytes=200) as producer:
            producer.send_many(topic, VALUES)
    log.commit_offsets("g", {A: CommittedOffset(20), B: CommittedOffset(20)})
    disk.capacity = disk.used()
    if not crashed:
        log.close()
    disk.crash()
    disk.capacity = disk.used()
    return disk


def read(log: Log, partition: TopicPartition) -> list[bytes | None]:
    with log.consumer() as consumer:
        consumer.assign([partition])
        return [each.value for records in iter(consumer.poll, []) for each in records]


@pytest.mark.parametrize("crashed", [False, True])
def test_it_opens_and_a_topic_can_be_deleted_to_make_room(crashed: bool) -> None:
    disk = full(crashed=crashed)
    with opened(disk) as log:
        assert (read(log, A), read(log, B)) == (VALUES, VALUES)
        epoch = log.leader_epoch(B)
        with log.producer() as producer, pytest.raises(DiskFullError):
            producer.send("b", b"no room").result()
        log.delete_topic("a")
        assert disk.capacity is not None
        assert disk.used() < disk.capacity - 1000
        with log.producer() as producer:
            producer.send("b", b"room").result()
        assert log.committed("g") == {B: 20}
        log.create_topic("a")
    with opened(disk) as log:
        assert (read(log, A), read(log, B)) == ([], [*VALUES, b"room"])
        assert (log.leader_epoch(B), log.end_of_epoch(B, epoch - 1)) == (epoch + 1, 20)


@pytest.mark.parametrize("crashed", [False, True])
def test_retention_makes_room(crashed: bool) -> None:
    disk, clock = full(crashed=crashed), ManualClock(9_000_000)
    with opened(disk, clock) as log:
        assert isinstance(log, EmbeddedLog)
        assert sorted(log.apply_retention()) == [A, B]
        with log.producer() as producer:
            producer.send("b", b"room").result()
    with opened(disk, clock) as log:
        assert (read(log, A), read(log, B)) == ([], [b"room"])
        assert log.offsets("b", "earliest") == {B: 20}


def test_an_epoch_that_found_no_room_is_written_before_its_first_record() -> None:
    disk = full(crashed=False)
    with opened(disk) as log:
        first = log.leader_epoch(A)
    with opened(disk) as log:
        assert log.leader_epoch(A) == first, "no record was written in it"
        disk.capacity = None
        with log.producer() as producer:
            producer.send("a", b"1").result()
    with opened(disk) as log:
        assert log.leader_epoch(A) == first + 1
        assert (log.end_of_epoch(A, first - 1), log.end_of_epoch(A, first)) == (20, 21)


def test_a_topic_made_anew_is_not_measured_by_what_its_predecessor_had() -> None:
    """The checkpoints of the earlier partition promise offsets that the new one never had."""
    disk = FaultyDisk()
    with opened(disk) as log:
        log.create_topic("a")
        with log.producer() as producer:
            producer.send_many("a", VALUES)
        log.delete_records({A: 15})
    with opened(disk) as log:
        disk.fail("append", DiskFullError("no room"), path="recovery-point")
        log.delete_topic("a")
        log.create_topic("a")
        assert log.offsets("a") == log.offsets("a", "earliest") == {A: 0}
        disk.crash()
    with opened(disk) as log:
        assert log.offsets("a") == {A: 0}


def test_a_lock_holds_without_room_for_the_pid(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_room)
    disk, path = RealDisk(), f"{tmp_path}/.lock"
    lock = disk.lock(path)
    assert disk.lock_holder(path) == 0
    lock.release()
