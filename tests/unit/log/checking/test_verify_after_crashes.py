"""What a crash or a kill leaves is no damage, whatever was under way: what opening mends is a note."""

import random
from contextlib import suppress

import pytest

from tailrace.log.checking.verify import verify
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def live(log: Log, chance: random.Random) -> None:
    log.create_topic("t", partitions=2, exist_ok=True, config={"segment.bytes": 2_000})
    for _ in range(30):
        with log.producer(transactional_id=chance.choice("xyz")) as producer:
            producer.begin()
            for _ in range(chance.randint(1, 6)):
                producer.send("t", b"v" * chance.randint(1, 50), partition=chance.randint(0, 1))
            if chance.random() < 0.5:
                producer.flush()
                producer.send_offsets("g", {T0: 0})
            if chance.random() < 0.6:
                producer.commit()
            else:
                producer.abort()
        if chance.random() < 0.1:
            log.create_topic("u", exist_ok=True)
        elif chance.random() < 0.1 and "u" in log.topics():
            log.delete_topic("u")
        if chance.random() < 0.1:
            log.alter_offsets("h", {T1: 0})


@pytest.mark.parametrize("seed", range(8))
def test_no_crash_is_damage(seed: int) -> None:
    disk, chance = FaultyDisk(seed), random.Random(seed)
    verified = 0
    for _ in range(4):
        disk.power_loss_after(chance.randint(20, 400))
        clock = ManualClock(1_000_000)
        with suppress(PowerLossError), Log.open("/log", disk=disk, clock=clock, background=False) as log:
            live(log, chance)
        chance.choice([disk.crash, disk.kill])()
        with suppress(InvalidError):  # not even a folder is left
            report = verify(disk, "/log")
            assert [str(each) for each in report.damage] == []
            verified += 1
    assert verified >= 2
