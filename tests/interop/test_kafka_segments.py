"""Segments that real Kafka wrote, from 2018 to 3.6: read, counted, their indexes rebuilt to the same bytes."""

import shutil
from pathlib import Path

import pytest

from tailrace.log import checkpoint
from tailrace.log.checking.dump import dump
from tailrace.log.checking.verify import verify
from tailrace.log.clock import ManualClock
from tailrace.log.disk import RealDisk
from tailrace.log.partition.index import Indexer
from tailrace.log.partition.partition import Partition
from tailrace.log.partition.segment import scan
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.log.topics.layout import partition_of
from tailrace.tests.support.shared import SEGMENTS, needs_segments

pytestmark = needs_segments

# The table of ../shared/data/README.md: bytes, batches, records, last offset, compression, idempotent batches
LISTED = {
    "kafka-3.0.0_cli/__consumer_offsets-1": (626, 3, 3, 2, "none", 0),
    "kafka-3.0.0_cli/__consumer_offsets-13": (298526, 1339, 3093, 3092, "none", 0),
    "kafka-3.0.0_cli/my-first-topic-0": (754, 10, 11, 10, "none", 0),
    "kafka-3.0.0_cli/my-first-topic-1": (817, 10, 12, 11, "none", 0),
    "kafka-3.0.0_cli/my-first-topic-2": (519, 7, 7, 6, "none", 0),
    "kafka-2.8.0_snappy/__consumer_offsets-16": (15526, 69, 69, 68, "none", 0),
    "kafka-2.8.0_snappy/some-topic-0": (1989, 9, 9, 8, "snappy", 0),
    "kafka-3.6.2_idempotent/__consumer_offsets-38": (340, 1, 1, 0, "none", 0),
    "kafka-3.6.2_idempotent/one-0": (924, 11, 11, 10, "none", 11),
    "kafka-2018_with_indexes/__consumer_offsets-28": (1066451, 8202, 8202, 8201, "none", 0),
    "kafka-2018_with_indexes/debug_topic-0": (883, 3, 40, 39, "none", 0),
}


@pytest.mark.parametrize("folder", LISTED)
def test_dump_shows_what_the_table_says(folder: str) -> None:
    size, batches, records, last_offset, compression, idempotent = LISTED[folder]
    shown = list(dump(RealDisk(), str(SEGMENTS / folder / f"{0:020d}.log")))
    assert len(shown) == batches
    assert sum(each["size_bytes"] for each in shown) == size
    assert sum(each["count"] for each in shown) == sum(len(each["records"]) for each in shown) == records
    assert [record["offset"] for each in shown for record in each["records"]] == list(range(last_offset + 1))
    assert all(each["crc_ok"] and each["magic"] == 2 and not each["control"] for each in shown)
    assert {each["compression"] for each in shown} == {compression}
    assert sum(each["producer_id"] >= 0 for each in shown) == idempotent


@pytest.mark.parametrize("release", sorted({each.split("/")[0] for each in LISTED}))
def test_verify_finds_nothing_wrong(release: str) -> None:
    report = verify(RealDisk(), str(SEGMENTS / release))
    mine = [row for folder, row in LISTED.items() if folder.startswith(release)]
    assert report.damage == []
    assert report.notes == []
    assert (report.partitions, report.bytes, report.batches, report.records) == (
        len(mine),
        sum(row[0] for row in mine),
        sum(row[1] for row in mine),
        sum(row[2] for row in mine),
    )


@pytest.mark.parametrize("folder", LISTED)
def test_a_partition_of_kafka_opens_and_goes_on(folder: str, tmp_path: Path) -> None:
    copy = tmp_path / Path(folder).name
    shutil.copytree(SEGMENTS / folder, copy)
    for each in [copy, *copy.iterdir()]:
        each.chmod(0o755)
    tp = partition_of(copy.name)
    assert tp is not None
    opened = Partition.open(RealDisk(), ManualClock(), str(copy), tp, TopicConfig())
    assert opened.log_end_offset == LISTED[folder][3] + 1
    assert opened.epochs[-1].epoch == opened.leader_epoch > 0
    opened.close()
    report = verify(RealDisk(), str(copy))
    assert report.ok, report.damage
    assert report.records == LISTED[folder][2]


def test_rebuilt_indexes_are_kafkas_bytes() -> None:
    """The broker was restarted three times (the snapshots): it then forces a time entry and counts bytes afresh."""
    folder = SEGMENTS / "kafka-2018_with_indexes" / "__consumer_offsets-28"
    restarts = sorted(int(each.stem) for each in folder.glob("*.snapshot"))
    assert restarts == [142, 1693, 1715, 8202]
    indexer = Indexer(0, 4096)
    file = RealDisk().open(str(folder / f"{0:020d}.log"))
    for at, header, _ in scan(file, 0, file.size):
        if header.base_offset == restarts[0]:
            indexer.seal()
            indexer.bytes_since_entry = 0
            restarts.pop(0)
        indexer.add(header, at)
    file.close()
    indexer.seal()
    assert len(indexer.offsets) == 254
    assert len(indexer.times) == 258
    assert bytes(indexer.offsets.data) == (folder / f"{0:020d}.index").read_bytes()
    assert bytes(indexer.times.data) == (folder / f"{0:020d}.timeindex").read_bytes()


def test_checkpoint_files_of_kafka() -> None:
    cli = SEGMENTS / "kafka-3.0.0_cli"
    disk = RealDisk()
    assert checkpoint.read_epochs(disk, str(cli / "my-first-topic-0")) == [(0, 0), (2, 11)]
    assert checkpoint.read_topic_id(disk, str(cli / "my-first-topic-0")) == "2P63MtzYTASmr9ZbB4Mf_Q"
    points = checkpoint.read_offsets(disk, str(cli / checkpoint.RECOVERY_POINTS))
    assert len(points) == 59
    assert points[TopicPartition("__consumer_offsets", 13)] == 3093
    assert checkpoint.read_offsets(disk, str(cli / checkpoint.LOG_STARTS)) == {}
    assert checkpoint.read_properties(disk, str(cli / checkpoint.META_PROPERTIES)) == {
        "broker.id": "0",
        "version": "0",
        "cluster.id": "ZAJx9RX0SFuisj92dpmVfg",
    }
