"""Power losses at every step: what was acknowledged is there afterwards, and the log opens."""

from collections import defaultdict
from typing import Any

import pytest

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

TOPICS = ("a", "b")


def opened(disk: FaultyDisk) -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(1_000_000), background=False)


class Acknowledged:
    """What the log has promised so far."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.deleted: set[str] = set()
        self.records: dict[str, list[bytes]] = defaultdict(list)
        self.committed: int | None = None

    def work(self, log: Log) -> None:
        """Something of everything, noting what came back from each call."""
        for topic in TOPICS:
            log.create_topic(topic, config={"segment.bytes": 400}, exist_ok=True)
            self.topics.add(topic)
        log.create_topic("doomed", exist_ok=True)
        with log.producer(batch_bytes=150) as producer:
            for step in range(6):
                topic = TOPICS[step % 2]
                value = b"%d %d" % (len(self.records[topic]), step)
                producer.send(topic, value * 10).result()
                self.records[topic].append(value * 10)
                if step % 2:
                    offset = len(self.records["a"])
                    log.commit_offsets("g", {TopicPartition("a", 0): CommittedOffset(offset, 0, "m" * step)})
                    self.committed = offset
        log.delete_topic("doomed")
        self.deleted.add("doomed")

    def check(self, log: Log) -> None:
        """Nothing promised is missing; what was not promised may be there, after it."""
        assert self.topics <= set(log.topics())
        assert not self.deleted & set(log.topics())
        for topic, values in self.records.items():
            with log.consumer() as consumer:
                consumer.assign([TopicPartition(topic, 0)])
                found: list[Any] = []
                while records := consumer.poll():
                    found += [record.value for record in records]
            at = 0
            for value in values:  # in between may stand what was written and not acknowledged before another crash
                at = found.index(value, at) + 1
        if self.committed is not None:
            assert log.committed("g")[TopicPartition("a", 0)] >= self.committed


@pytest.mark.parametrize("seed", range(60))
def test_what_was_acknowledged_survives_any_power_loss(seed: int) -> None:
    disk = FaultyDisk(seed)
    promised = Acknowledged()
    for crash in range(4):
        disk.power_loss_after(1 + (seed * 37 + crash * 101) % 160)
        log = None
        try:
            log = opened(disk)
            promised.check(log)
            promised.deleted.discard("doomed")
            promised.work(log)
            log.close()
        except PowerLossError:
            pass
        disk.crash()
    with opened(disk) as log:
        promised.check(log)
        promised.work(log)
    with opened(disk) as log:
        promised.check(log)
        folders = [name for name in disk.list("/log") if disk.is_dir(f"/log/{name}")]
        assert folders == ["__cluster_metadata-0", "__consumer_offsets-0", "a-0", "b-0"]
