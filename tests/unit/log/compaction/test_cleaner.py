"""When a partition is cleaned, what is remembered of it, and that the log goes on whatever a cleaning meets."""

import threading

import pytest

from tailrace.log import checkpoint, codec
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.compaction.cleaner import Cleaner, StoppedError
from tailrace.log.disk import Disk, MemoryDisk
from tailrace.log.errors import InvalidError, TopicNotFoundError
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.partitions import FOLDER, NOW_MS, TP, opened

DAY_MS = 86_400_000


def filled(disk: Disk, config: TopicConfig, count: int = 20) -> Partition:
    partition = opened(disk, config)
    more(partition, count)
    return partition


def more(partition: Partition, count: int, value: bytes | None = b"v" * 100) -> None:
    for number in range(count):
        partition.append(codec.encode([(b"%d" % (number % 3), value, NOW_MS, ())]))


def config(dirty_ratio: float = 0.5, max_lag_ms: int = 2**63 - 1, policy: str = "compact") -> TopicConfig:
    return TopicConfig(
        cleanup_policy=policy,
        segment_bytes=400,
        min_cleanable_dirty_ratio=dirty_ratio,
        max_compaction_lag_ms=max_lag_ms,
    )


def test_it_waits_for_the_dirty_ratio() -> None:
    disk, clock = MemoryDisk(), ManualClock(NOW_MS)
    partition = filled(disk, config())
    cleaner = Cleaner(disk, clock, "/log")
    assert cleaner.clean_due(lambda: [partition]) == [TP]
    assert cleaner.clean_due(lambda: [partition]) == []
    more(partition, 2)
    assert cleaner.clean_due(lambda: [partition]) == []
    more(partition, 20)
    assert cleaner.clean_due(lambda: [partition]) == [TP]


def test_it_does_not_wait_longer_than_the_lag() -> None:
    disk, clock = MemoryDisk(), ManualClock(NOW_MS)
    partition = filled(disk, config(1.0, max_lag_ms=10_000))
    cleaner = Cleaner(disk, clock, "/log")
    cleaner.clean(partition)
    more(partition, 5)
    assert cleaner.clean_due(lambda: [partition]) == []
    clock.advance(10_001)
    assert cleaner.clean_due(lambda: [partition]) == [TP]


def test_tombstones_go_when_it_is_their_time() -> None:
    disk, clock = MemoryDisk(), ManualClock(NOW_MS)
    partition = opened(disk, config())
    more(partition, 20, None)
    cleaner = Cleaner(disk, clock, "/log")
    assert cleaner.clean(partition).due_ms == NOW_MS + DAY_MS
    clock.advance(DAY_MS - 1)
    assert cleaner.clean_due(lambda: [partition]) == []
    clock.advance(1)
    assert cleaner.clean_due(lambda: [partition]) == [TP]
    assert cleaner.clean_due(lambda: [partition]) == []


def test_other_topics_are_left_alone() -> None:
    disk = MemoryDisk()
    partition = filled(disk, config(policy="delete"))
    assert Cleaner(disk, ManualClock(NOW_MS), "/log").clean_due(lambda: [partition]) == []


def test_what_is_clean_is_remembered_and_forgotten() -> None:
    disk, clock = MemoryDisk(), ManualClock(NOW_MS)
    partition = filled(disk, config())
    Cleaner(disk, clock, "/log").clean(partition)
    file = f"/log/{checkpoint.CLEANER_OFFSETS}"
    assert checkpoint.read_offsets(disk, file) == {TP: partition.segment_offsets[-1]}
    again = Cleaner(disk, clock, "/log")
    assert again.clean_due(lambda: [partition]) == []
    again.forget([TP])
    assert checkpoint.read_offsets(disk, file) == {}
    assert again.clean_due(lambda: [partition]) == [TP]


@pytest.mark.parametrize("text", [b"0\n1\nclicks 0 100000\n", b"what?"])
def test_a_checkpoint_that_cannot_be_right_costs_work_only(text: bytes) -> None:
    disk = MemoryDisk()
    partition = filled(disk, config())
    checkpoint.write_atomic(disk, f"/log/{checkpoint.CLEANER_OFFSETS}", text)
    assert Cleaner(disk, ManualClock(NOW_MS), "/log").clean_due(lambda: [partition]) == [TP]


def test_one_that_fails_is_not_tried_again_but_others_are(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk()
    bad = filled(disk, config())
    good = opened(disk, config(), directory="/log/clicks-1")
    good.tp = TopicPartition("clicks", 1)
    more(good, 20)
    disk._node(f"{FOLDER}/{0:020d}.log").data[80] ^= 1  # pyright: ignore[reportPrivateUsage]  # a bit of the disk
    cleaner = Cleaner(disk, ManualClock(NOW_MS), "/log")
    assert cleaner.clean_due(lambda: [bad, good]) == [good.tp]
    assert "clicks-0: could not be compacted" in caplog.text
    caplog.clear()
    assert cleaner.clean_due(lambda: [bad, good]) == []
    assert caplog.text == ""
    more(bad, 1)


def test_a_full_disk_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyDisk()
    disk.mkdir("/log")
    partition = filled(disk, config())
    disk.capacity = disk.used()
    cleaner = Cleaner(disk, ManualClock(NOW_MS), "/log")
    assert cleaner.clean_due(lambda: [partition]) == []
    assert "tried again later" in caplog.text
    disk.capacity = None
    assert cleaner.clean_due(lambda: [partition]) == [TP]


def test_a_stop_ends_it() -> None:
    disk = MemoryDisk()
    partition = filled(disk, config())
    cleaner = Cleaner(disk, ManualClock(NOW_MS), "/log")
    cleaner.stop()
    with pytest.raises(StoppedError):
        cleaner.clean(partition)
    assert cleaner.clean_due(lambda: [partition]) == []


# ---- through the log


CONFIG = {"cleanup.policy": "compact", "segment.bytes": 1000, "min.cleanable.dirty.ratio": 0.01}


def send(log: Log, count: int) -> None:
    with log.producer(linger_ms=0) as producer:
        for number in range(count):
            producer.send("t", b"%d" % number, key=b"%d" % (number % 3)).result()


def values(log: Log) -> list[tuple[int, bytes | None]]:
    with log.consumer() as consumer:
        consumer.assign([TopicPartition("t", 0)])
        out: list[tuple[int, bytes | None]] = []
        while records := consumer.poll(0):
            out += [(each.offset, each.value) for each in records]
        assert consumer.position(TopicPartition("t", 0)) == log.offsets("t")[TopicPartition("t", 0)]
        return out


def test_compact_now() -> None:
    with Log.open("memory:", background=False) as log:
        log.create_topic("t", config=CONFIG)
        log.create_topic("plain")
        send(log, 100)
        log.compact("t")
        found = values(log)
        assert len(found) < 30
        assert found[-1] == (99, b"99")
        assert all(int(value or b"") == offset for offset, value in found)
        with pytest.raises(InvalidError, match=r"'plain' is not compacted"):
            log.compact("plain")
        with pytest.raises(TopicNotFoundError):
            log.compact("none")


def test_compacting_what_is_in_active_segments_alone_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with Log.open("memory:", background=False) as log:
        log.create_topic("t", partitions=2, config=CONFIG)
        log.compact("t")
        assert caplog.text == "", "there is nothing in it"
        send(log, 1)
        log.compact("t")
        assert "t: nothing to compact yet: all of it is in the active segments" in caplog.text
        caplog.clear()
        send(log, 100)
        log.compact("t")
        assert "nothing to compact" not in caplog.text


def test_a_topic_of_the_same_name_begins_anew() -> None:
    with Log.open("memory:", background=False) as log:
        for _ in range(2):
            log.create_topic("t", config=CONFIG)
            send(log, 100)
            log.compact("t")
            assert len(values(log)) < 30
            log.delete_topic("t")


def test_it_happens_by_itself() -> None:
    with Log.open("memory:", cleaner_backoff_ms=5) as log:
        log.create_topic("t", config=CONFIG)
        send(log, 100)
        waiting = threading.Event()
        for _ in range(1000):
            if len(values(log)) < 30:
                break
            waiting.wait(0.01)
        assert values(log)[-1] == (99, b"99")
        assert len(values(log)) < 30
