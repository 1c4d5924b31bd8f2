"""Who had read what is gone, by a crash or with its topic, goes on where there is something, and is told."""

from collections.abc import Callable
from typing import Any, Literal

import pytest

from tailrace.log.client import CommittedOffset, Consumer, Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import InvalidError, TopicNotFoundError
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


# ---------------------------------------------------------------- a topic that was deleted and made anew


def made_anew(log: Log) -> None:
    log.delete_topic("t")
    log.create_topic("t")
    with log.producer() as producer:
        producer.send_many("t", [b"new"] * 8).result()


def read(log: Log, **options: Any) -> Consumer:
    """One that has read five records of the old topic."""
    log.create_topic("t")
    with log.producer() as producer:
        producer.send_many("t", [b"old"] * 5).result()
    consumer = log.consumer(**options)
    consumer.assign([T])
    consumer.seek(T, 0)
    assert len(consumer.poll()) == 5
    return consumer


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize(("reset", "at", "count"), [("earliest", 0, 8), ("latest", 8, 0)])
@pytest.mark.parametrize("sees", [False, True])
def test_a_topic_made_anew_under_a_reader_is_not_read_on(
    group: str | None, reset: Any, at: int, count: int, sees: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(FaultyDisk()) as log, read(log, group=group, reset=reset) as consumer:
        if sees:
            log.delete_topic("t")
            with pytest.raises(TopicNotFoundError):
                consumer.poll()
            log.create_topic("t")
        made_anew(log)
        assert len(consumer.poll()) == count
        (told,) = caplog.messages
        who = "a consumer" if group is None else "group 'g'"
        assert told == (
            "t-0: its topic was deleted and made anew, with other records at the same offsets; "
            f"{who}, which was at 5 of the old one, goes on at {at} (reset={reset!r})"
        )
        if group is not None:
            consumer.commit()
            assert log.committed("g") == {T: 8}


def test_without_reset_a_topic_made_anew_is_refused_until_a_seek() -> None:
    with opened(FaultyDisk()) as log, read(log, reset="none") as consumer:
        made_anew(log)
        for _ in range(2):
            with pytest.raises(InvalidError, match=r"t-0: its topic was deleted and made anew.* seek"):
                consumer.poll()
        consumer.seek(T, 6)
        assert len(consumer.poll()) == 2


def test_a_seek_in_a_topic_that_was_just_made_anew_is_one_of_that(caplog: pytest.LogCaptureFixture) -> None:
    with opened(FaultyDisk()) as log, read(log) as consumer:
        made_anew(log)
        consumer.seek(T, 5)
        assert len(consumer.poll()) == 3
        assert caplog.messages == []
