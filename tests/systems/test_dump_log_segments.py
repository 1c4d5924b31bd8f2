"""Kafka's own DumpLogSegments reads every file that we write, and finds nothing wrong with it."""

import random
import subprocess
from pathlib import Path

import pytest

from tailrace.log import codec
from tailrace.log.clock import ManualClock
from tailrace.log.compaction.cleaning import clean
from tailrace.log.disk import RealDisk
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.shared import KAFKA, needs_kafka

pytestmark = [pytest.mark.systems, needs_kafka, pytest.mark.timeout(300)]

NOW_MS = 1_700_000_000_000
# What DumpLogSegments prints where something is wrong.
COMPLAINTS = (
    "Mismatches in",
    "mismatch",
    "not found",
    "Found ",
    "invalid",
    "out of order",
    "Exception",
    "isvalid: false",
)


def write(directory: Path, name: str, compression: int, *, log_append_time: bool) -> list[Path]:
    """A partition of many segments, closed and opened once in the middle; its files."""
    chance = random.Random(name)
    tp = TopicPartition(name, 0)
    config = TopicConfig(
        segment_bytes=60_000,
        index_interval_bytes=1000,
        message_timestamp_type="LogAppendTime" if log_append_time else "CreateTime",
    )
    clock = ManualClock(NOW_MS)
    point = 0
    for _ in range(2):
        partition = Partition.open(RealDisk(), clock, str(directory / str(tp)), tp, config, recovery_point=point)
        for _ in range(150):
            records = [
                (
                    chance.choice([None, b"", b"key"]),
                    chance.choice([None, b"", b"value " * chance.randint(1, 300)]),
                    NOW_MS - chance.randint(0, 100_000),
                    chance.choice([[], [("header", b"x"), ("header", None)]]),
                )
                for _ in range(chance.randint(1, 20))
            ]
            partition.append(codec.encode(records, compression))
            clock.advance(chance.randint(0, 3))
        partition.close()
        point = partition.recovery_point
    return sorted(each for each in (directory / str(tp)).iterdir() if each.suffix in {".log", ".index", ".timeindex"})


def test_it_finds_nothing_wrong(tmp_path: Path) -> None:
    files: list[Path] = []
    for name, compression in codec.COMPRESSIONS.items():
        files += write(tmp_path, f"created-{name}", compression, log_append_time=False)
        files += write(tmp_path, f"appended-{name}", compression, log_append_time=True)
    assert sum(each.suffix == ".log" for each in files) > 40
    said = dump_log_segments(files)
    wrong = [line for line in said.splitlines() if any(word in line for word in COMPLAINTS)]
    assert wrong == []
    assert sum(line.startswith("Dumping") for line in said.splitlines()) == len(files)
    assert said.count("isvalid: true") >= 10 * 300


def test_it_finds_nothing_wrong_after_a_compaction(tmp_path: Path) -> None:
    files: list[Path] = []
    for name, compression in codec.COMPRESSIONS.items():
        files += write_compacted(tmp_path, f"once-{name}", compression, times=1)
        files += write_compacted(tmp_path, f"often-{name}", compression, times=3)
    said = dump_log_segments(files)
    wrong = [line for line in said.splitlines() if any(word in line for word in COMPLAINTS)]
    assert wrong == []
    assert sum(line.startswith("Dumping") for line in said.splitlines()) == len(files)
    assert "deleteHorizonMs: OptionalLong[" in said
    assert "count: 0 " in said


def write_compacted(directory: Path, name: str, compression: int, *, times: int) -> list[Path]:
    """A partition that was cleaned, with tombstones that wait, some that went, and batches that lost all."""
    chance = random.Random(name)
    tp = TopicPartition(name, 0)
    folder = directory / str(tp)
    config = TopicConfig(
        cleanup_policy="compact", segment_bytes=20_000, index_interval_bytes=500, delete_retention_ms=1000
    )
    clock = ManualClock(NOW_MS)
    partition = Partition.open(RealDisk(), clock, str(folder), tp, config)
    for _ in range(2):
        for _ in range(60):
            records = [
                (
                    b"%d" % chance.randint(0, 50),
                    chance.choice([None, b"value " * 60]),
                    NOW_MS - chance.randint(0, 9),
                    (),
                )
                for _ in range(chance.randint(1, 20))
            ]
            partition.append(codec.encode(records, compression))
        clean(RealDisk(), clock, partition, 0)
        clock.advance(700)
    partition.close()
    return sorted(each for each in folder.iterdir() if each.suffix in {".log", ".index", ".timeindex"})


def dump_log_segments(files: list[Path], *options: str) -> str:
    """What the tool prints; one JVM for all files."""
    names = ",".join(str(each) for each in files)
    tool = "org.apache.kafka.tools.DumpLogSegments"
    command = [str(KAFKA), "run", tool, "--deep-iteration", *options, "--files", names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr
