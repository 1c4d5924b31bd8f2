"""Power losses at every step of transactions, and of their recovery: all of one is seen, or nothing."""

import pytest

from tailrace.log.client import CommittedOffset, Log, Producer
from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]
A0 = PARTITIONS[0]
STEPS = 8


def opened(disk: FaultyDisk) -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(1_000_000), background=False)


class Work:
    """Transactions, numbered: each puts its number into three partitions, and commits it as an offset.

    `committed` and `aborted` are those whose end was acknowledged; whatever else was begun may be either.
    """

    def __init__(self) -> None:
        self.next = 1
        self.committed: set[int] = set()
        self.aborted: set[int] = set()

    def run(self, log: Log) -> None:
        """Every way in which a transaction ends: committed, aborted, taken over, left open at the close."""
        log.create_topic("a", partitions=2, config={"segment.bytes": 700}, exist_ok=True)
        log.create_topic("b", exist_ok=True)
        producer = log.producer(transactional_id="x")
        plain = log.producer(acks=1)
        for step in range(STEPS):
            number = self.put(producer)
            if step % 3 == 1:  # synced by somebody else, in one partition
                log.producer().send("a", b"0", partition=step % 2).result()
            elif step % 4 == 2:
                plain.send("a", b"0", partition=step % 2).result()
            if step == STEPS // 2:
                producer = log.producer(transactional_id="x")
                self.aborted.add(number)
            elif step % 4 == 3:
                producer.abort()
                self.aborted.add(number)
            else:
                producer.commit()
                self.committed.add(number)
        self.put(producer)

    def put(self, producer: Producer) -> int:
        number, self.next = self.next, self.next + 1
        producer.begin()
        for topic, partition in PARTITIONS:
            producer.send(topic, b"%d" % number, partition=partition)
        producer.commit_offsets("g", {A0: CommittedOffset(0, metadata=str(number))})
        producer.flush()
        return number

    def check(self, log: Log) -> None:
        """What is seen is whole transactions, none acknowledged is missing, and nobody waits for anything."""
        seen = [numbers(log, partition) for partition in PARTITIONS]
        assert seen[0] == seen[1] == seen[2]
        assert seen[0] == sorted(set(seen[0]))
        assert self.committed <= set(seen[0])
        assert not self.aborted & set(seen[0])
        offsets = log.committed_offsets("g")
        assert int(offsets[A0].metadata if offsets else 0) == max(seen[0], default=0)
        for topic in log.topics():
            assert log.offsets(topic) == log.offsets(topic, isolation="read_uncommitted")


def numbers(log: Log, partition: TopicPartition) -> list[int]:
    if partition.topic not in log.topics():
        return []
    with log.consumer() as consumer:
        consumer.assign([partition])
        found: list[bytes | None] = []
        while records := consumer.poll():
            found += [record.value for record in records]
    return [int(each or b"0") for each in found if each != b"0"]


def operations() -> int:
    disk = FaultyDisk(0)
    with opened(disk) as log:
        Work().run(log)
    return disk.operations


@pytest.mark.parametrize("part", range(8))
def test_a_power_loss_at_any_step_leaves_whole_transactions(part: int) -> None:
    for stop_at in range(1 + part, operations() + 8, 8):
        disk = FaultyDisk(stop_at)
        work = Work()
        disk.power_loss_after(stop_at)
        try:
            with opened(disk) as log:
                work.run(log)
        except PowerLossError:
            pass
        disk.crash()
        with opened(disk) as log:
            work.check(log)


@pytest.mark.parametrize("seed", range(40))
def test_power_losses_in_the_recovery_of_power_losses(seed: int) -> None:
    disk = FaultyDisk(seed)
    work = Work()
    for crash in range(5):
        disk.power_loss_after(1 + (seed * 31 + crash * 57) % (40 if crash % 2 else 260))
        try:
            with opened(disk) as log:
                if crash:
                    work.check(log)
                work.run(log)
        except PowerLossError:
            pass
        disk.crash()
    with opened(disk) as log:
        work.check(log)
