"""Closing a producer, or its log, while a transaction is open: what is over already is no error, and is told."""

from collections.abc import Iterator
from typing import Any

import pytest

from tailrace.log.client import Log, Producer
from tailrace.log.clock import ManualClock
from tailrace.log.errors import OverdueError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def log(clock: ManualClock, disk: FaultyDisk) -> Iterator[Log]:
    with Log.open("/log", disk=disk, clock=clock, background=False) as log:
        log.create_topic("t")
        yield log


def values(log: Log) -> list[bytes | None]:
    with log.consumer() as consumer:
        consumer.assign([TopicPartition("t", 0)])
        return [record.value for record in consumer.poll()]


def put(producer: Producer, value: bytes) -> None:
    producer.send("t", value)


def overdue(log: Log, clock: ManualClock, producer: Producer) -> None:
    """Begins a transaction, and lets its time pass."""
    embedded: Any = log
    producer.begin()
    put(producer, b"a")
    producer.flush()
    clock.advance(5_000)
    assert embedded.end_overdue_transactions() == ["x"]


@pytest.mark.parametrize("what", ["producer", "with", "log"])
def test_closing_in_a_transaction_that_has_timed_out_unnoticed_is_told_and_no_error(
    what: str, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with Log.open("/log", disk=FaultyDisk(), clock=clock, background=False) as log:
        log.create_topic("t")
        if what == "with":
            with log.producer(transactional_id="x", transaction_timeout_ms=5_000) as producer:
                overdue(log, clock, producer)
                caplog.clear()
        else:
            producer = log.producer(transactional_id="x", transaction_timeout_ms=5_000)
            overdue(log, clock, producer)
            caplog.clear()
            (producer if what == "producer" else log).close()
        (told,) = caplog.messages
        assert "closed within a transaction" in told
        assert "'x' was aborted after its time-out of 5000 ms" in told
        if what != "log":
            assert values(log) == []
        producer.close()
        assert len(caplog.messages) == 1


def test_closing_in_a_transaction_that_another_has_ended_is_told_and_no_error(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    first = log.producer(transactional_id="x")
    first.begin()
    put(first, b"a")
    first.flush()
    with log.producer(transactional_id="x") as second, second.transaction():
        caplog.clear()
        first.close()
        (told,) = caplog.messages
        assert "'x' was taken over by another producer" in told
        put(second, b"b")
    assert values(log) == [b"b"]


@pytest.mark.parametrize("error", [None, ValueError("mine")])
def test_a_block_that_has_timed_out_raises_as_it_asks_for_a_commit(
    error: Exception | None, log: Log, clock: ManualClock
) -> None:
    embedded: Any = log

    def run() -> None:
        with log.producer(transactional_id="x", transaction_timeout_ms=5_000) as producer, producer.transaction():
            put(producer, b"a")
            producer.flush()
            clock.advance(5_000)
            embedded.end_overdue_transactions()
            if error is not None:
                raise error

    # An error of the block's own is not hidden.
    with pytest.raises(OverdueError if error is None else ValueError, match=r"time-out of 5000 ms|mine"):
        run()
    assert values(log) == []


def test_a_commit_that_was_decided_is_carried_out_by_closing(log: Log, disk: FaultyDisk) -> None:
    producer = log.producer(transactional_id="x")
    producer.begin()
    put(producer, b"a")
    producer.flush()
    disk.fail("append", OSError(5, "broken"), path="t-0")  # the marker
    with pytest.raises(OSError, match="broken"):
        producer.commit()
    producer.close()
    assert values(log) == [b"a"]
