"""Opening, creating, deleting: what a folder may be, and what becomes of what is found."""

import logging
from pathlib import Path

import pytest

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.disk import Disk, MemoryDisk, join
from tailrace.log.errors import (
    CorruptError,
    DiskFullError,
    InvalidError,
    LogLockedError,
    TopicExistsError,
    TopicNotFoundError,
)
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk

T = TopicPartition("t", 0)


def opened(disk: Disk, **more: object) -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(1_000_000), background=False, **more)  # type: ignore[arg-type]  # options


def write(disk: Disk, path: str, data: bytes) -> None:
    file = disk.open(path, write=True)
    file.truncate(0)
    file.append(data)
    file.close()


def properties(disk: Disk) -> str:
    file = disk.open("/log/meta.properties")
    return file.read(0, file.size).decode()


def test_a_folder_without_a_record_goes_and_a_missing_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t", partitions=2)
    for left in ("/log/stray-0", "/log/gone-0.abc-delete"):
        disk.mkdir(left)
        write(disk, join(left, "00000000000000000000.log"), b"")
    disk.mkdir("/log/notes")
    disk.remove_tree("/log/t-1")
    recovery = "/log/recovery-point-offset-checkpoint"
    disk.remove(recovery)
    with caplog.at_level(logging.WARNING), opened(disk) as log:
        assert log.topics() == ["t"]
        assert log.offsets("t") == {T: 0, TopicPartition("t", 1): 0}
    assert "/log/stray-0: removed" in caplog.text
    assert not disk.exists("/log/stray-0")
    assert not disk.exists("/log/gone-0.abc-delete")
    assert disk.exists("/log/notes")


def test_a_folder_of_an_earlier_topic_of_the_name_goes() -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t")
        with log.producer() as producer:
            producer.send("t", b"old")
    write(disk, "/log/t-0/partition.metadata", b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA")
    disk.remove("/log/recovery-point-offset-checkpoint")
    with opened(disk) as log:
        assert log.offsets("t") == {T: 0}


def test_what_is_known_of_topics() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t", partitions=3, config={"retention.ms": 5})
        log.create_topic("app-store-changelog", internal=True)
        assert log.topics() == ["t"]
        assert log.topics(internal=True) == ["app-store-changelog", "t"]
        described = log.describe_topic("t")
        assert (described.partitions, described.config["retention.ms"], described.internal) == (3, "5", False)
        first = described.topic_id
        log.delete_topic("t")
        log.create_topic("t")
        assert log.describe_topic("t").topic_id != first
        with pytest.raises(TopicExistsError):
            log.create_topic("t")
        log.commit_offsets("g", {T: CommittedOffset(0)})
        with pytest.raises(InvalidError, match="belongs to the log itself"):
            log.delete_topic("__consumer_offsets")
        for partitions in (0, -1):
            with pytest.raises(InvalidError, match="partitions"):
                log.create_topic("u", partitions=partitions)
        with pytest.raises(InvalidError):
            log.create_topic("a b")


def test_a_file_is_no_log_and_neither_is_what_kafka_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidError, match="is a file"):
        Log.open(str(tmp_path / "file"))
    disk = MemoryDisk()
    disk.mkdir("/log/clicks-0")
    write(disk, "/log/meta.properties", b"version=1\ncluster.id=x\nnode.id=1\n")
    with pytest.raises(InvalidError, match="Apache Kafka"):
        opened(disk)
    assert disk.list("/log") == ["clicks-0", "meta.properties"]


@pytest.mark.parametrize("name", ["version", "tailrace.format"])
def test_a_newer_format_is_refused_by_its_number(name: str) -> None:
    disk = MemoryDisk()
    opened(disk).close()
    write(disk, "/log/meta.properties", properties(disk).replace(f"{name}=1", f"{name}=2").encode())
    before = disk.list("/log")
    with pytest.raises(InvalidError, match="format version 2, and this tailrace reads up to 1"):
        opened(disk)
    assert disk.list("/log") == before
    write(disk, "/log/meta.properties", properties(disk).replace(f"{name}=2", f"{name}=").encode())
    with pytest.raises(CorruptError, match=f"cannot be read: expected a line {name}=1, found '{name}='"):
        opened(disk)


@pytest.mark.parametrize(("text", "found"), [("hello", "hello"), ("", "nothing"), ("tailrace.format=1", "tailrace.")])
def test_properties_that_cannot_be_read_are_no_log_of_kafka(text: str, found: str) -> None:
    disk = MemoryDisk()
    opened(disk).close()
    write(disk, "/log/meta.properties", text.encode())
    with pytest.raises(CorruptError, match=f"expected a line version=1, found '{found}") as caught:
        opened(disk)
    assert (caught.value.file, caught.value.expected) == ("/log/meta.properties", "a line version=1")
    assert str(caught.value.found).startswith(found)


def test_lost_metadata_does_not_take_the_topics_with_it() -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t")
    disk.remove_tree("/log/__cluster_metadata-0")
    disk.remove("/log/recovery-point-offset-checkpoint")
    with pytest.raises(CorruptError, match="has no record, but there are partitions such as t-0"):
        opened(disk)
    assert disk.exists("/log/t-0")


def test_damaged_metadata_is_refused_even_at_its_end() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    log.create_topic("t")
    file = disk.open("/log/__cluster_metadata-0/00000000000000000000.log", write=True)
    size = file.size
    file.truncate(size - 3)
    file.append(b"xyz")
    disk._locks.clear()  # pyright: ignore[reportPrivateUsage]  # the process is gone without close
    with pytest.raises(CorruptError):
        opened(disk)
    assert disk.exists("/log/t-0")


def test_one_process_writes() -> None:
    disk = MemoryDisk()
    with opened(disk):
        with pytest.raises(LogLockedError, match="in this process"):
            opened(disk)
        assert opened(disk, read_only=True).topics() == []
    opened(disk).close()


def test_no_room_for_a_topic_leaves_none() -> None:
    disk = FaultyDisk()
    with opened(disk) as log:
        before = disk.list("/log")
        disk.capacity = disk.used() + 200
        with pytest.raises(DiskFullError):
            log.create_topic("t", partitions=20)
        assert (log.topics(), disk.list("/log")) == ([], before)
        disk.capacity = None
        log.create_topic("t", partitions=20)
    with opened(disk) as log:
        assert log.topics() == ["t"]


def test_no_room_for_a_log_is_said_and_the_next_opening_begins_anew() -> None:
    disk = FaultyDisk(capacity=50)
    with pytest.raises(DiskFullError):
        opened(disk)
    disk.capacity = None
    opened(disk).close()


def test_after_close_every_call_says_so() -> None:
    log = opened(MemoryDisk())
    log.create_topic("t")
    producer, consumer = log.producer(), log.consumer()
    producer.send("t", b"still written")
    log.close()
    log.close()
    for call in (
        log.topics,
        lambda: log.describe_topic("t"),
        lambda: log.create_topic("u"),
        log.producer,
        log.consumer,
        lambda: log.committed("g"),
        lambda: producer.send("t", b""),
        consumer.poll,
    ):
        with pytest.raises(InvalidError, match="closed"):
            call()


@pytest.mark.parametrize("url", ["kafka://localhost:9092", "http://x", "memory:x", "", "file:"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidError):
        Log.open(url)


def test_options_are_checked() -> None:
    with pytest.raises(InvalidError, match="did you mean 'clock'"):
        Log.open("memory:", clok=1)
    with pytest.raises(InvalidError, match="read_only"):
        Log.open("memory:", read_only=True)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    Log.open(f"file:{tmp_path}/log").close()
    Log.open(f"file://{tmp_path}/log").close()
    assert (tmp_path / "log" / "meta.properties").is_file()


def test_retention_is_driven_for_every_topic() -> None:
    disk, clock = MemoryDisk(), ManualClock(1_000_000)
    with Log.open("/log", disk=disk, clock=clock, background=False) as log:
        config = {"segment.bytes": 300, "file.delete.delay.ms": 0}
        log.create_topic("short", config={"retention.ms": 1000, **config})
        log.create_topic("kept", config=config)
        with log.producer(batch_bytes=150) as producer:
            for topic in ("short", "kept"):
                producer.send_many(topic, [b"x" * 50] * 10)
        clock.advance(2000)
        embedded: object = log
        deleted = embedded.apply_retention()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]  # of the embedded log
        assert list(deleted) == [TopicPartition("short", 0)]  # pyright: ignore[reportUnknownArgumentType]  # the same
        assert log.offsets("short", "earliest") == log.offsets("short") == {TopicPartition("short", 0): 10}
        assert log.offsets("kept", "earliest") == {TopicPartition("kept", 0): 0}
    with Log.open("/log", disk=disk, clock=clock, background=False) as log:
        assert log.offsets("short", "earliest") == {TopicPartition("short", 0): 10}


def test_offsets_at_times() -> None:
    with opened(MemoryDisk()) as log:
        log.create_topic("t")
        with log.producer() as producer:
            producer.send_many("t", [b"1", b"2"], timestamps_ms=[10, 20])
        assert [log.offsets("t", at)[T] for at in ("earliest", "latest", 15, 99)] == [0, 2, 1, 2]
        with pytest.raises(ValueError, match="earliest"):
            log.offsets("t", "first")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what a user mistypes
        with pytest.raises(TopicNotFoundError):
            log.offsets("u")


def test_a_reader_beside_the_writer_sees_what_comes(tmp_path: Path) -> None:
    place = str(tmp_path / "log")
    with pytest.raises(InvalidError, match="there is no log"):
        Log.open(place, read_only=True)
    with Log.open(place, flush="os") as log:
        log.create_topic("t")
        with Log.open(place, read_only=True) as beside, log.producer() as producer, beside.consumer() as consumer:
            consumer.assign([T])
            assert consumer.poll() == []
            producer.send("t", b"1").result()
            assert [record.value for record in consumer.poll(timeout=30)] == [b"1"]
            log.create_topic("later")
            log.commit_offsets("g", {T: CommittedOffset(1)})
            producer.send("later", b"2").result()
            assert beside.topics() == ["later", "t"]
            assert beside.committed("g") == {T: 1}
            assert beside.groups() == ["g"]
            assert beside.offsets("later") == {TopicPartition("later", 0): 1}
            for wrong in (lambda: beside.create_topic("u"), beside.producer, lambda: beside.delete_topic("t")):
                with pytest.raises(InvalidError, match="read_only"):
                    wrong()
            log.delete_topic("later")
            assert beside.topics() == ["t"]
            with pytest.raises(TopicNotFoundError):
                beside.describe_topic("later")
            log.delete_topic("t")
            for call in (consumer.poll, lambda: consumer.poll(timeout=30), consumer.seek_to_end):
                with pytest.raises(TopicNotFoundError, match="there is no topic 't'"):
                    call()


@pytest.mark.parametrize("name", ["letter.txt", "old.log"])
def test_what_no_log_has_made_is_left_where_it_is(name: str, caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk()
    with opened(disk) as log:
        log.create_topic("t")
    for folder in ("/log/letters-0", "/log/to-delete", "/log/t-0"):
        disk.mkdir(folder)
        write(disk, join(folder, name), b"dear")
    disk.mkdir("/log/more-0/00000000000000000000.log")
    with caplog.at_level(logging.WARNING), opened(disk) as log:
        assert log.topics() == ["t"]
        with pytest.raises(InvalidError, match=f"/log/letters-0 is there already with {name} in it"):
            log.create_topic("letters")
        log.create_topic("letters-1")
        log.delete_topic("t")
    assert f"/log/letters-0: left as it is: no record of a topic speaks of it, but {name} in it" in caplog.text
    left = [each for each in disk.list("/log") if each.startswith("t-0.")]
    assert disk.list(f"/log/{left[0]}") == [name]
    with opened(disk) as log:
        log.create_topic("t")
    for folder in ("/log/letters-0", "/log/to-delete"):
        assert disk.exists(join(folder, name))
    assert disk.exists("/log/more-0/00000000000000000000.log")


def test_damage_in_what_is_known_of_topics_is_told_by_its_byte() -> None:
    disk = MemoryDisk()
    with Log.open("/log", disk=disk, background=False) as log:
        log.create_topic("t")
        for number in range(60):  # more than an index entry covers, so that opening does not look there by itself
            log.create_topic(f"u{number}")
    file = "/log/__cluster_metadata-0/00000000000000000000.log"
    reading = disk.open(file)
    data = reading.read(0, reading.size)
    at = data.index(b'"t"')
    write(disk, file, data[:at] + b"TTT" + data[at + 3 :])
    with pytest.raises(CorruptError, match=r"__cluster_metadata-0@1") as raised:
        Log.open("/log", disk=disk, background=False)
    assert raised.value.file == file
    assert 0 < raised.value.position < at


def test_a_count_of_partitions_has_an_end() -> None:
    with Log.open("memory:", background=False) as log:
        with pytest.raises(InvalidError, match="10001 partitions cannot be made: give 1 to 10000"):
            log.create_topic("t", partitions=10_001)
        log.create_topic("t")
        with pytest.raises(InvalidError, match="give 1 to 10000"):
            log.create_partitions("t", 2_000_000_000)
        assert log.describe_topic("t").partitions == 1
