"""What `verify` says of the log's own topics, and of what they and the partitions say of each other."""

import json
from collections.abc import Callable

import pytest

from tailrace.log import checkpoint, codec
from tailrace.log.checking.verify import Report, verify
from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.groups.offsets import OffsetKey, encode_key, encode_value
from tailrace.log.record import TopicPartition
from tailrace.log.topics.metadata import PRODUCER_IDS, new_topic_id
from tailrace.tests.support.disk import FaultyDisk

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
LOG = "/log"


def opened(disk: FaultyDisk) -> Log:
    return Log.open(LOG, disk=disk, clock=ManualClock(1_000_000), background=False)


@pytest.fixture
def disk() -> FaultyDisk:
    """A log of two partitions, two groups and two transactional ids, one of which has committed and one aborted."""
    disk = FaultyDisk()
    with opened(disk) as log:
        log.create_topic("t", partitions=2)
        for name in ("x", "y"):
            with log.producer(transactional_id=name) as producer:
                producer.begin()
                for partition in (0, 1):
                    producer.send("t", b"v", partition=partition)
                producer.flush()
                producer.send_offsets("g", {T0: 1 if name == "x" else 0})
                if name == "x":
                    producer.commit()
                else:
                    producer.abort()
        log.alter_offsets("h", {T0: 2, T1: 1})
    return disk


def checked(disk: FaultyDisk) -> Report:
    report = verify(disk, LOG)
    json.dumps(report.as_json())
    return report


def damage(disk: FaultyDisk) -> str:
    (found,) = checked(disk).damage
    return str(found)


def note(disk: FaultyDisk) -> str:
    report = checked(disk)
    assert report.ok
    (found,) = (each for each in report.notes if "has an open transaction" not in each)
    return found


def end_of(disk: FaultyDisk, folder: str) -> tuple[str, int]:
    """The last segment of a partition, and the offset after it."""
    name = max(each for each in disk.list(f"{LOG}/{folder}") if each.endswith(".log"))
    offset, position = int(name[:-4]), 0
    file = disk.open(f"{LOG}/{folder}/{name}")
    while position < file.size:
        header = codec.BatchHeader.parse(file.read(position, 61))
        offset, position = header.next_offset, position + header.size
    return f"{LOG}/{folder}/{name}", offset


def append(disk: FaultyDisk, folder: str, key: bytes | None, value: bytes | None, *, producer: int = -1) -> str:
    """Appends a record to a partition behind the log's back; returns the file."""
    path, offset = end_of(disk, folder)
    if producer >= 0:
        batch = codec.encode([(key, value, 1_000_000, ())], producer_id=producer, producer_epoch=0, base_sequence=0)
    else:
        batch = codec.encode([(key, value, 1_000_000, ())])
    codec.set_base(batch, offset, 0)
    disk.open(path, write=True).append(batch)
    return path


def test_all_is_well_and_counted(disk: FaultyDisk) -> None:
    report = checked(disk)
    assert (report.damage, report.notes) == ([], [])
    counted = report.as_json()
    assert (counted["groups"], counted["committed_offsets"], counted["transactional_ids"]) == (2, 3, 2)
    assert counted["topics"] == 3  # with those of offsets and transactions
    assert verify(disk, f"{LOG}/t-0").as_json()["topics"] == 0


@pytest.mark.parametrize("folder", ["__cluster_metadata-0", "__consumer_offsets-0", "__transaction_state-0"])
def test_a_record_of_the_logs_own_that_cannot_be_read(disk: FaultyDisk, folder: str) -> None:
    key = {"__consumer_offsets-0": encode_key(OffsetKey("g", T0)), "__transaction_state-0": b"\0\0\0\1x"}.get(folder)
    path = append(disk, folder, key, b"\x7f\xff")
    found = damage(disk)
    assert found.startswith(path)
    assert f"expected a record of {folder[:-2]} at offset" in found


def test_a_partition_that_is_gone(disk: FaultyDisk) -> None:
    disk.remove_tree(f"{LOG}/t-1")
    found = damage(disk)
    assert found.startswith("t-1: expected the partition, with records up to offset 3, of topic id ")
    assert found.endswith("found no folder")


def test_a_folder_of_another_topic(disk: FaultyDisk) -> None:
    other = new_topic_id()
    checkpoint.write_topic_id(disk, f"{LOG}/t-1", other)
    report = checked(disk)
    (found,) = report.damage
    assert found.found == f"a folder of topic id {other}"
    (told,) = report.notes
    assert told == f"{LOG}/t-1 is of no topic that there is: the next opening removes it"


def test_a_partition_that_a_crash_left_unmade(disk: FaultyDisk) -> None:
    with opened(disk) as log:
        log.create_topic("late")
    disk.remove_tree(f"{LOG}/late-0")
    assert "late-0 has no folder: the next opening makes it" in note(disk)
    opened(disk).close()
    assert checked(disk).notes == []


def test_a_folder_that_no_record_speaks_of(disk: FaultyDisk) -> None:
    disk.mkdir(f"{LOG}/gone-0")
    assert note(disk) == f"{LOG}/gone-0 is of no topic that there is: the next opening removes it"


def test_a_producer_id_that_was_not_given_out(disk: FaultyDisk) -> None:
    append(disk, "t-0", None, b"v", producer=PRODUCER_IDS)
    assert damage(disk) == (
        f"{LOG}/t-0: expected producer ids below {PRODUCER_IDS}, which were given out, found a batch of producer "
        f"{PRODUCER_IDS}"
    )


def test_committed_offsets_of_what_is_gone(disk: FaultyDisk) -> None:
    key, value = encode_key(OffsetKey("g", T0)), encode_value(CommittedOffset(99), 0)
    append(disk, "__consumer_offsets-0", key, value)
    assert note(disk).startswith("group 'g' has committed offset 99 in t-0, which ends at 4: records that it has read")
    append(disk, "__consumer_offsets-0", key, encode_value(CommittedOffset(1), 0))
    append(disk, "__consumer_offsets-0", encode_key(OffsetKey("g", TopicPartition("u", 3))), value)
    assert note(disk) == "group 'g' has an offset in u-3, which is gone: the next opening forgets it"


def test_a_log_start_past_the_end(disk: FaultyDisk) -> None:
    checkpoint.write_offsets(disk, f"{LOG}/{checkpoint.LOG_STARTS}", {T0: 9})
    assert "expected records up to offset 8, which were on disk at the last checkpoint, found an end at" in damage(disk)


def writing(log: Log, _disk: FaultyDisk) -> None:
    producer = log.producer(transactional_id="x")
    producer.begin()
    producer.send("t", b"v", partition=0)
    producer.flush()


def deciding(log: Log, disk: FaultyDisk) -> None:
    producer = log.producer(transactional_id="x")
    producer.begin()
    producer.send("t", b"v", partition=0)
    producer.flush()
    disk.fail("append", OSError(5, "broken"), path="t-0")  # the marker
    with pytest.raises(OSError, match="broken"):
        producer.commit()


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (writing, "is open, in t-0: the next opening aborts it"),
        (deciding, "is decided (PrepareCommit), in t-0: the next opening writes what is missing of it"),
    ],
)
def test_a_transaction_that_a_kill_left_is_named(
    disk: FaultyDisk, work: Callable[[Log, FaultyDisk], None], told: str
) -> None:
    work(opened(disk), disk)
    (in_use,) = checked(disk).notes  # beside a writer nothing of this is judged
    assert in_use.startswith("in use by process")
    disk.kill()
    assert note(disk) == f"the transaction of 'x' (producer 0) {told}"
    opened(disk).close()
    assert checked(disk).notes == []
