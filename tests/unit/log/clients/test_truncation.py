"""Who had read what a crash then took goes on where the log was cut, and reads what was written instead."""

from collections.abc import Callable
from typing import Literal

import pytest

from tailrace.log.client import CommittedOffset, Consumer, Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk

T = TopicPartition("t", 0)


def opened(disk: FaultyDisk, flush: Literal["disk", "os"] = "disk") -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(1_000_000), background=False, flush=flush)


def by_position(_log: Log, consumer: Consumer) -> None:
    consumer.commit()


def by_offset(_log: Log, consumer: Consumer) -> None:
    consumer.commit({T: consumer.position(T)})


def by_transaction(log: Log, consumer: Consumer) -> None:
    with log.producer(transactional_id="x") as producer, producer.transaction():
        producer.send_offsets("g", {T: consumer.position(T)})


@pytest.fixture(params=[by_position, by_offset, by_transaction])
def cut(request: pytest.FixtureRequest) -> FaultyDisk:
    """A group "g" has read ten records, of which five were on disk; then the machine stopped; ten others came."""
    commit: Callable[[Log, Consumer], None] = request.param
    for seed in range(300):
        disk = FaultyDisk(seed)
        with opened(disk) as log:
            log.create_topic("t")
            log.producer().send_many("t", [b"kept"] * 5).result()
        # Else a commit puts on disk what it says was read.
        log = opened(disk, "os")
        log.producer().send_many("t", [b"lost"] * 5).result()
        consumer = log.consumer(group="g")
        consumer.assign([T])
        assert len(consumer.poll()) == 10
        commit(log, consumer)
        assert log.committed_offsets("g") == {T: CommittedOffset(10, 1)}
        disk.crash()
        with opened(disk) as again:
            if again.offsets("t")[T] == 5 and again.committed("g") == {T: 10}:
                again.producer().send_many("t", [b"instead"] * 10).result()
                return disk
    raise AssertionError("no crash took them, and left the offset")


def test_it_goes_on_where_the_log_was_cut_and_says_so(cut: FaultyDisk, caplog: pytest.LogCaptureFixture) -> None:
    with opened(cut) as log, log.consumer(group="g") as consumer:
        consumer.assign([T])
        assert consumer.position(T) == 5
        assert [record.value for record in consumer.poll()] == [b"instead"] * 10
        (told,) = [each for each in caplog.messages if "group" in each]
        assert told.startswith("t-0: group 'g' had read up to 10, but a crash took the records from 5 on")
        consumer.commit()
    with opened(cut) as log, log.consumer(group="g") as consumer:
        consumer.assign([T])
        assert (consumer.position(T), consumer.poll()) == (15, [])


def test_with_reset_none_it_is_asked(cut: FaultyDisk) -> None:
    with opened(cut) as log, log.consumer(group="g", reset="none") as consumer:
        consumer.assign([T])
        with pytest.raises(InvalidError, match=r"crash took the records from 5 on.* reset=\"none\": seek to 5"):
            consumer.poll()
        consumer.seek(T, 5)
        assert len(consumer.poll()) == 10


def test_an_offset_that_somebody_has_set_has_no_epoch(cut: FaultyDisk) -> None:
    with opened(cut) as log:
        log.alter_offsets("g", {T: 12})
        with log.consumer(group="g") as consumer:
            consumer.assign([T])
            assert len(consumer.poll()) == 3
