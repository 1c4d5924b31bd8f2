"""Topics that come again, and names that a user may not take: offsets, reserved names, `exist_ok`."""

import pytest

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.disk import Disk, MemoryDisk
from tailrace.log.errors import InvalidError, TopicExistsError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

T = TopicPartition("t", 0)


def opened(disk: Disk) -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(1_000_000), background=False)


def read_and_commit(log: Log) -> list[bytes | None]:
    with log.consumer(group="g") as consumer:
        consumer.subscribe(["t"])
        values = [each.value for each in consumer.poll()]
        consumer.commit()
        return values


def send(log: Log, *values: bytes) -> None:
    with log.producer() as producer:
        producer.send_many("t", values)


@pytest.mark.parametrize("again", ["at once", "after opening"])
def test_a_topic_of_the_same_name_is_read_from_its_beginning(again: str) -> None:
    """The group has lost its members by then: nobody is left to take the partitions from."""
    disk = MemoryDisk()
    log = opened(disk)
    log.create_topic("t")
    send(log, b"old 1", b"old 2")
    assert read_and_commit(log) == [b"old 1", b"old 2"]
    log.delete_topic("t")
    assert log.committed("g") == {}
    assert log.groups() == []
    if again == "after opening":
        log.close()
        log = opened(disk)
    log.create_topic("t")
    send(log, b"new 1", b"new 2", b"new 3")
    assert read_and_commit(log) == [b"new 1", b"new 2", b"new 3"]
    log.close()


def test_a_power_loss_anywhere_in_a_deletion_leaves_no_offset_without_its_topic() -> None:
    for stop_at in range(1, 200):
        disk = FaultyDisk(stop_at)
        log = opened(disk)
        log.create_topic("t")
        send(log, b"old")
        first = log.describe_topic("t").topic_id
        log.commit_offsets("g", {T: CommittedOffset(1)})
        disk.power_loss_after(stop_at)
        try:
            log.delete_topic("t")
            log.create_topic("t")
            ended = True
        except PowerLossError:
            ended = False
        disk.crash()
        with opened(disk) as log:
            same = log.topics() == ["t"] and log.describe_topic("t").topic_id == first
            assert log.committed("g") == ({T: 1} if same else {})
        if ended:
            assert stop_at > 5
            return
    pytest.fail("a deletion has fewer steps than that")


def test_offsets_that_a_full_disk_kept_from_being_removed_are_not_those_of_the_next_topic() -> None:
    disk = FaultyDisk()
    with opened(disk) as log:
        log.create_topic("t")
        send(log, b"old")
        log.commit_offsets("g", {T: CommittedOffset(1)})
        disk.fail("append", OSError(5, "stopped"), path="__consumer_offsets")
        with pytest.raises(OSError, match="stopped"):
            log.delete_topic("t")
        assert log.topics() == []
        log.create_topic("t")
        assert log.committed("g") == {}
    with opened(disk) as log:
        assert log.committed("g") == {}


@pytest.mark.parametrize("name", ["__cluster_metadata", "__consumer_offsets", "__consumer.offsets"])
def test_names_of_the_log_itself_are_refused(name: str) -> None:
    with opened(MemoryDisk()) as log, log.producer() as producer:
        log.create_topic("t")
        for commits in (False, True):
            if commits:
                log.commit_offsets("g", {T: CommittedOffset(0)})
            for call in (
                lambda: log.create_topic(name),
                lambda: log.create_topic(name, partitions=3, exist_ok=True),
                lambda: log.delete_topic(name),
                lambda: producer.send(name, b"junk", key=b"x"),
                lambda: producer.send_many(name, [b"junk"]),
            ):
                with pytest.raises(InvalidError, match="belongs to the log itself"):
                    call()
        assert log.topics(internal=True) == ["__consumer_offsets", "t"]
        log.create_topic("app-store-changelog", internal=True)
        log.delete_topic("app-store-changelog")


def test_a_topic_that_exists_otherwise_is_not_taken_for_the_one_that_was_asked_for() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t", partitions=3, config={"retention.ms": 5})
        for partitions, config in ((3, None), (3, {"retention.ms": "5"}), (3, {"segment.bytes": 1 << 30})):
            log.create_topic("t", partitions=partitions, config=config, exist_ok=True)
        with pytest.raises(InvalidError, match=r"exists with partitions=3 and not 9, retention.ms=5 and not 6: "):
            log.create_topic("t", partitions=9, config={"retention.ms": 6}, exist_ok=True)
        with pytest.raises(TopicExistsError):
            log.create_topic("t", partitions=3)
        assert log.describe_topic("t").partitions == 3
