"""A real Kafka compacts a topic; its segments are read here with their gaps, and compacted on."""

import asyncio
import random
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tailrace.log import codec
from tailrace.log.checking.dump import dump
from tailrace.log.checking.verify import verify
from tailrace.log.clock import ManualClock
from tailrace.log.compaction.cleaning import clean
from tailrace.log.disk import RealDisk
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.shared import needs_kafka
from tailrace.tests.support.waiting import until

pytestmark = [pytest.mark.systems, needs_kafka, pytest.mark.timeout(300)]

clients: Any = import_module("aiokafka")  # both without annotations
admins: Any = import_module("aiokafka.admin")
TP = TopicPartition("table", 0)
CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "3600000",
}
Row = tuple[int, bytes | None, bytes | None]


async def fill(address: str) -> list[Row]:
    """Some 4 MB of 200 keys in every compression, and what was written."""
    admin = admins.AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([admins.NewTopic(TP.topic, 1, 1, topic_configs=CONFIG)])
    await admin.close()
    chance = random.Random(7)
    written: list[Row] = []
    for compression in (None, "gzip", "snappy", "lz4", "zstd"):
        producer = clients.AIOKafkaProducer(bootstrap_servers=address, compression_type=compression, linger_ms=20)
        await producer.start()
        for _ in range(1000):
            key, value = b"%d" % chance.randint(0, 199), chance.choice([None, chance.randbytes(1500)])
            written.append((len(written), key, value))
            await producer.send(TP.topic, value, key=key, partition=0)
        await producer.stop()
    return written


async def compacted(folder: Path) -> None:
    """Returns when the cleaner has been there."""
    await until(lambda: sum(each["count"] for each in dump(RealDisk(), str(folder), records=False)) < 3000)


def rows(partition: Partition) -> list[Row]:
    out: list[Row] = []
    offset = partition.log_start_offset
    while data := partition.read(offset, 100_000):
        for header, batch in codec.batches(data):
            codec.check_crc(batch, file="", position=0)
            out += [(each.offset, each.key, each.value) for each in codec.decode(batch)]
            offset = header.next_offset
    return out


def test_what_it_compacted_is_read_and_compacted_on(broker: tuple[str, Path], tmp_path: Path) -> None:
    address, data = broker
    written = asyncio.run(fill(address))
    asyncio.run(compacted(data / str(TP)))
    copy = tmp_path / str(TP)
    shutil.copytree(data / str(TP), copy, ignore=shutil.ignore_patterns("*.deleted", "*.cleaned", "*.swap"))
    report = verify(RealDisk(), str(copy))
    assert report.damage == []
    clock = ManualClock(10**13)  # past every delete horizon
    config = TopicConfig.parse(CONFIG)
    partition = Partition.open(RealDisk(), clock, str(copy), TP, config)
    found = rows(partition)
    assert partition.log_end_offset == len(written)
    assert len(found) < 3000
    assert all(written[offset] == (offset, key, value) for offset, key, value in found)
    last = {key: offset for offset, key, _ in written}
    assert {key: offset for offset, key, _ in found} == last
    for offset, _, _ in found[::97]:
        assert codec.BatchHeader.parse(partition.read(offset, 1)).last_offset >= offset
    end = partition.segment_offsets[-1]
    clean(RealDisk(), clock, partition, 0)
    clean(RealDisk(), clock, partition, end)
    newest = {key: offset for offset, key, _ in found if offset < end}
    had_horizon = [row for row in rows(partition) if row[0] < end]
    assert {row for row in had_horizon if row[2] is not None} == {
        row for row in found if row[0] < end and newest[row[1]] == row[0] and row[2] is not None
    }
    partition.close()
    assert verify(RealDisk(), str(copy)).damage == []
