"""Transactions in files: Kafka's own tools read ours, and what a real Kafka wrote is read here to the same bytes."""

import asyncio
import random
import re
import shutil
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.checking.verify import verify
from tailrace.log.clock import ManualClock
from tailrace.log.compaction.cleaning import clean
from tailrace.log.disk import RealDisk
from tailrace.log.partition.partition import Partition
from tailrace.log.partition.txn_index import pack
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.partitions import NOW_MS
from tailrace.tests.support.shared import needs_kafka
from tailrace.tests.support.transactions import committed_rows, ended, sent
from tailrace.tests.systems.test_dump_log_segments import COMPLAINTS, dump_log_segments

pytestmark = [pytest.mark.systems, needs_kafka, pytest.mark.timeout(300)]

clients: Any = import_module("aiokafka")  # without annotations
SUFFIXES = {".log", ".index", ".timeindex", ".txnindex", ".snapshot"}


def write(directory: Path, name: str, *, compacted: bool) -> tuple[list[Path], Counter[str]]:
    """A partition of many segments with three transactional producers; its files, and how many markers of a kind."""
    chance = random.Random(name)
    tp = TopicPartition(name, 0)
    config = TopicConfig(
        cleanup_policy="compact" if compacted else "delete",
        segment_bytes=15_000,
        index_interval_bytes=1000,
        delete_retention_ms=1000,
    )
    clock = ManualClock(NOW_MS)
    partition = Partition.open(RealDisk(), clock, str(directory / str(tp)), tp, config)
    sequences: dict[int, int] = {7: 0, 8: 0, 9: 0}
    kinds: Counter[str] = Counter()
    for _ in range(400):
        producer, count = chance.choice([7, 8, 9]), chance.randint(1, 5)
        if chance.random() < 0.7:
            keys = [b"%d" % chance.randint(0, 40) for _ in range(count)]
            values = [chance.randbytes(60) for _ in range(count)]
            compression = chance.randint(0, 4)
            sequence = sequences[producer]
            partition.append(sent(*values, producer=producer, sequence=sequence, keys=keys, compression=compression))
            sequences[producer] += count
        else:
            committed = chance.random() < 0.6
            kinds["COMMIT" if committed else "ABORT"] += 1
            ended(partition, producer, committed=committed, coordinator=5)
        clock.advance(1)
    for producer in sequences:
        kinds["COMMIT"] += 1
        ended(partition, producer, committed=True, coordinator=5)
    partition.sync()
    if compacted:
        for _ in range(3):
            clean(RealDisk(), clock, partition, 0)
            clock.advance(config.delete_retention_ms)
    partition.close()
    folder = directory / str(tp)
    assert verify(RealDisk(), str(folder)).damage == []
    return sorted(each for each in folder.iterdir() if each.suffix in SUFFIXES), kinds


@pytest.mark.parametrize("compacted", [False, True])
def test_dump_log_segments_reads_our_transactions(compacted: bool, tmp_path: Path) -> None:
    files, kinds = write(tmp_path, "compacted" if compacted else "plain", compacted=compacted)
    said = dump_log_segments(files, "--print-data-log")
    wrong = [line for line in said.splitlines() if any(word in line for word in COMPLAINTS)]
    assert wrong == []
    assert sum(line.startswith("Dumping") for line in said.splitlines()) == len(files)
    found = Counter(re.findall(r"endTxnMarker: (\w+) coordinatorEpoch: 5", said))
    assert found <= kinds if compacted else found == kinds
    entries = sum(each.stat().st_size for each in files if each.suffix == ".txnindex") // 34
    assert entries > (0 if compacted else 10)
    assert len(re.findall(r"version: 0 producerId: \d+ firstOffset: \d+ lastOffset: \d+ ", said)) == entries
    snapshots = sum(each.suffix == ".snapshot" for each in files)
    assert len(re.findall(r"producerId: [789] producerEpoch: 0 .*coordinatorEpoch: 5", said)) == 3 * snapshots > 0


async def fill(address: str) -> tuple[list[bytes], list[bytes]]:
    """Some transactions of two producers, in turn; the values that were committed, and those that were aborted."""
    producers = [
        clients.AIOKafkaProducer(bootstrap_servers=address, transactional_id=f"t{number}", linger_ms=0)
        for number in range(2)
    ]
    for producer in producers:
        await producer.start()
    committed: list[bytes] = []
    aborted: list[bytes] = []
    for turn in range(20):
        values = [[b"%d-%d-%d" % (turn, number, index) for index in range(3)] for number in range(2)]
        for producer in producers:
            await producer.begin_transaction()
        for index in range(3):
            for number, producer in enumerate(producers):
                await producer.send_and_wait("txn", values[number][index], partition=0)
        for number, producer in enumerate(producers):
            if (turn + number) % 3:
                await producer.commit_transaction()
                committed += values[number]
            else:
                await producer.abort_transaction()
                aborted += values[number]
    for number, producer in enumerate(producers):
        await producer.stop()
        # Kafka writes markers after it has answered; whoever takes the id next waits for them.
        successor = clients.AIOKafkaProducer(bootstrap_servers=address, transactional_id=f"t{number}")
        await successor.start()
        await successor.stop()
    return committed, aborted


def test_what_a_real_kafka_wrote(broker: tuple[str, Path], tmp_path: Path) -> None:
    address, data = broker
    committed, aborted = asyncio.run(fill(address))
    copy = tmp_path / "txn-0"
    shutil.copytree(data / "txn-0", copy)
    report = verify(RealDisk(), str(copy))
    assert report.damage == []
    assert (report.committed, report.aborted) == (len(committed) // 3, len(aborted) // 3)
    index = copy / f"{0:020d}.txnindex"
    theirs = index.read_bytes()
    index.unlink()
    partition = Partition.open(RealDisk(), ManualClock(NOW_MS), str(copy), TopicPartition("txn", 0), TopicConfig())
    assert [value for _, _, value in committed_rows(partition)] == sorted(committed, key=_place)
    assert partition.open_transactions() == []
    assert pack(partition.aborted_entries([0])) == theirs
    partition.close()
    assert index.read_bytes() == theirs


def _place(value: bytes) -> tuple[int, int, int]:
    turn, number, index = map(int, value.split(b"-"))
    return turn, index, number
