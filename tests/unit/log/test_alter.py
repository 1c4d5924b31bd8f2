"""Altering topics: settings, more partitions, records deleted by offset (L14), and a crash in any of these."""

from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import InvalidError, TopicNotFoundError
from tailrace.log.partition.extent import OffsetOutOfRangeError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError
from tailrace.tests.support.partitions import NOW_MS

TP = TopicPartition("t", 0)


def opened(disk: MemoryDisk, *, read_only: bool = False) -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(NOW_MS), background=False, read_only=read_only)


def send(log: Log, count: int, *, topic: str = "t", partition: int | None = 0) -> None:
    with log.producer() as producer:
        for number in range(count):
            producer.send(topic, b"%d" % number, key=b"k%d" % number, partition=partition)


def read(log: Log, *partitions: TopicPartition) -> list[bytes | None]:
    with log.consumer() as consumer:
        consumer.assign(partitions)
        return [each.value for each in consumer.poll(0, 10_000)]


# ---- settings


def test_settings_change_at_once_and_stay() -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t", config={"retention.ms": 5, "segment.bytes": 1000})
        producer = log.producer()
        producer.send("t", b"x" * 500).result()
        log.alter_topic("t", {"max.message.bytes": 300, "segment.bytes": None})
        with pytest.raises(InvalidError, match=r"max.message.bytes allows 300"):
            producer.send("t", b"x" * 500)
        log.alter_topic("t", {})
    for read_only in (False, True):
        with opened(disk, read_only=read_only) as log:
            config = log.describe_topic("t").config
            assert (config["retention.ms"], config["max.message.bytes"]) == ("5", "300")
            assert config["segment.bytes"] == "1073741824"


def test_settings_that_contradict_each_other_are_refused() -> None:
    both = {"min.compaction.lag.ms": 100, "max.compaction.lag.ms": 50}
    told = r"min.compaction.lag.ms=100 is more than max.compaction.lag.ms=50: .*; lower the first or raise the second"
    with opened(MemoryDisk()) as log:
        with pytest.raises(InvalidError, match=told):
            log.create_topic("t", config=both)
        assert log.topics() == []
        log.create_topic("t", config={"max.compaction.lag.ms": 50})
        with pytest.raises(InvalidError, match=told):
            log.alter_topic("t", {"min.compaction.lag.ms": 100})
        assert log.describe_topic("t").config["min.compaction.lag.ms"] == "0"
        log.alter_topic("t", {"min.compaction.lag.ms": 50})
        with pytest.raises(InvalidError, match=r"=50 is more than .*=49"):
            log.alter_topic("t", {"max.compaction.lag.ms": 49})
        log.alter_topic("t", {"min.compaction.lag.ms": 100, "max.compaction.lag.ms": None})


@pytest.mark.parametrize("name", ["__consumer_offsets", "__cluster_metadata"])
def test_the_logs_own_topics_are_not_altered(name: str) -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t")
        log.alter_offsets("g", {TP: 0})
        with pytest.raises(InvalidError, match="belongs to the log itself"):
            log.alter_topic(name, {"cleanup.policy": "delete"})


def test_a_reader_beside_the_writer_sees_what_was_altered() -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t")
        with opened(disk, read_only=True) as reader:
            log.alter_topic("t", {"retention.ms": 7})
            log.create_partitions("t", 3)
            send(log, 5, partition=2)
            reader.topics()
            assert reader.describe_topic("t").partitions == 3
            assert reader.describe_topic("t").config["retention.ms"] == "7"
            assert len(read(reader, TopicPartition("t", 2))) == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"retention.msec": 1}, r"no topic configuration 'retention.msec'; did you mean 'retention.ms'"),
        ({"retention.msec": None}, r"no topic configuration 'retention.msec'; did you mean 'retention.ms'"),
        ({"retention.bytes": 1, "retention.ms": "x"}, r"retention.ms='x' cannot be used"),
    ],
)
def test_what_cannot_be_set_changes_nothing(config: dict[str, object], message: str) -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t")
        before = log.describe_topic("t")
        with pytest.raises(InvalidError, match=message):
            log.alter_topic("t", config)
        assert log.describe_topic("t") == before
        with pytest.raises(TopicNotFoundError, match="there is no topic 'tt'"):
            log.alter_topic("tt", {})


def test_a_topic_that_becomes_compacted_wants_keys_from_then_on() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t")
        producer = log.producer()
        producer.send("t", b"without a key").result()
        lingering = producer.send("t", b"sent before")
        log.alter_topic("t", {"cleanup.policy": "compact"})
        refused = producer.send("t", b"v")
        producer.send("t", b"v", key=b"k", partition=0)
        with pytest.raises(InvalidError, match="has no key"):
            refused.result()
        with pytest.raises(InvalidError, match="has no key"):
            lingering.result()


# ---- partitions


def test_more_partitions() -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t", partitions=2)
        producer, consumer, other = log.producer(), log.consumer(group="g"), log.consumer(group="g")
        consumer.subscribe(["t"])
        consumer.poll(0)
        first = producer.send("t", b"1", partition=1)
        with pytest.raises(InvalidError, match="has partitions 0 to 1"):
            producer.send("t", b"", partition=4)
        log.create_partitions("t", 5)
        second = producer.send("t", b"2", partition=1)
        producer.send("t", b"3", partition=4).result()
        assert first.result().offset < second.result().offset
        assert {each.value for each in consumer.poll(0)} == {b"1", b"2", b"3"}
        assert [each.partition for each in consumer.assignment()] == [0, 1, 2, 3, 4]
        other.subscribe(["t"])
        for _ in range(3):
            consumer.poll(0)
            other.poll(0)
        assert len(consumer.assignment()) + len(other.assignment()) == 5
    with opened(disk) as log:
        assert log.describe_topic("t").partitions == 5
        assert read(log, TopicPartition("t", 1), TopicPartition("t", 4)) == [b"1", b"2", b"3"]
        log.delete_topic("t")
        assert not [name for name in disk.list("/log") if name.startswith("t-")]


@pytest.mark.parametrize("total", [1, 2, 0, -1])
def test_fewer_partitions_are_refused(total: int) -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t", partitions=2)
        with pytest.raises(InvalidError):
            log.create_partitions("t", total)
        with pytest.raises(TypeError, match="total is an int"):
            log.create_partitions("t", "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose
        with pytest.raises(TopicNotFoundError):
            log.create_partitions("u", 3)


def test_a_producer_learns_that_its_altered_topic_is_gone() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t")
        producer = log.producer()
        sent = producer.send("t", b"v")
        log.alter_topic("t", {"retention.ms": 1})
        log.delete_topic("t")
        with pytest.raises(TopicNotFoundError, match="was deleted"):
            sent.result()


def test_power_is_lost_at_any_operation() -> None:
    stop_after, done = 1, False
    while not done:
        disk = FaultyDisk(stop_after)
        log = opened(disk)
        log.create_topic("t", partitions=2)
        send(log, 3)
        disk.power_loss_after(stop_after)
        try:
            log.alter_topic("t", {"retention.ms": 10**15})
            log.create_partitions("t", 4)
            done = True
        except PowerLossError:
            stop_after += 1
        disk.crash()
        with opened(disk) as again:
            topic = again.describe_topic("t")
            assert (topic.partitions, topic.config["retention.ms"]) in {(2, "-1"), (2, str(10**15)), (4, str(10**15))}
            assert len([name for name in disk.list("/log") if name.startswith("t-")]) == topic.partitions
            assert len(read(again, TP)) == 3
            again.create_partitions("t", 6)
            assert again.describe_topic("t").partitions == 6
    assert stop_after > 10


# ---- records


def test_what_is_no_offsets_and_no_configuration_is_named() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t")
        admin: Any = log
        for before in ([("t", 0)], {"t": 0}, {("t", 0, 1): 5}, {(0, "t"): 5}, {("t", "0"): 5}, None):
            with pytest.raises(TypeError, match="delete_records takes a dict of TopicPartition to offset"):
                admin.delete_records(before)
        assert admin.delete_records({("t", 0): 0}) == {TP: 0}
        for config in ("a=b", ["retention.ms"]):
            with pytest.raises(TypeError, match=r"config is a dict .*, not "):
                admin.alter_topic("t", config)
            with pytest.raises(TypeError, match=r"config is a dict .*, not "):
                admin.create_topic("u", config=config)
        with pytest.raises(InvalidError, match="no topic configuration 1:"):
            admin.alter_topic("t", {1: 2})
        with pytest.raises(InvalidError, match=r"retention\.ms=\[1\] cannot be used: it is a list, and only"):
            admin.create_topic("u", config={"retention.ms": [1]})
        assert log.topics() == ["t"]


def test_a_log_in_memory_is_called_that_once_it_is_closed() -> None:
    log = Log.open("memory:")
    log.close()
    with pytest.raises(InvalidError, match="the log memory: is closed"):
        log.topics()


def test_l14_records_are_deleted_up_to_an_offset() -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t", partitions=2, config={"segment.bytes": 2000})
        send(log, 90)
        with pytest.raises(OffsetOutOfRangeError, match=r"no offset 100 .*: give up to 90, or -1 for all"):
            log.delete_records({TopicPartition("t", 1): 0, TP: 100})
        for offset in (-2, 91):
            with pytest.raises(InvalidError):
                log.delete_records({TP: offset})
        assert log.offsets("t", "earliest")[TP] == 0
        assert log.delete_records({TP: 40}) == {TP: 40}
        assert log.delete_records({TP: 20}) == {TP: 40}
        assert read(log, TP)[0] == b"40"
    with opened(disk) as log:
        assert log.offsets("t", "earliest")[TP] == 40
        assert log.delete_records({("t", 0): -1, ("t", 1): -1}) == {TP: 90, TopicPartition("t", 1): 0}
        assert read(log, TP) == []
        send(log, 1)
        assert read(log, TP) == [b"0"]
        with pytest.raises(TopicNotFoundError):
            log.delete_records({("t", 2): 0})
        with pytest.raises(TypeError):
            log.delete_records({TP: "1"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose


def test_records_of_a_compacted_topic_go_by_key_alone() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t", config={"cleanup.policy": "compact"})
        send(log, 5)
        with pytest.raises(InvalidError, match="compact,delete"):
            log.delete_records({TP: 1})
        log.alter_topic("t", {"cleanup.policy": "compact,delete"})
        assert log.delete_records({TP: 1}) == {TP: 1}
