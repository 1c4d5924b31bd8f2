"""Silences as records of their topic, and how long a task has been silent."""

import pytest

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.outputs import InternalColumns
from tailrace.streams.chain.silence import NOWHERE, Listening, Silence, Silences, read_silences
from tailrace.tests.support.engine import contents, feed

OF, IN = TopicPartition("in", 0), TopicPartition("app-in-silences", 0)


def log_of(records: int) -> Log:
    log = Log.open("memory:", background=False)
    log.create_topic("in")
    log.create_topic(IN.topic, config={"cleanup.policy": "compact,delete"}, internal=True)
    feed(log, "in", [("k", "v", 1)] * records)
    return log


def write(log: Log, silences: list[Silence], topic_id: str | None = None) -> None:
    with log.producer(linger_ms=0) as producer:
        column = InternalColumns(IN, producer)
        kept = Silences(topic_id or log.describe_topic("in").topic_id, column, [])
        for each in silences:
            kept.add(each, data_ms=5)
        column.send(producer)


def test_what_is_written_is_read_from_a_position_on_and_the_last_one_of_an_offset_counts() -> None:
    with log_of(9) as log:
        write(log, [Silence(2, 100), Silence(2, 200), Silence(7, 300)])
        assert read_silences(log, IN, OF, 0) == [Silence(2, 200), Silence(7, 300)]
        assert read_silences(log, IN, OF, 2) == [Silence(2, 200), Silence(7, 300)]
        assert read_silences(log, IN, OF, 3) == [Silence(7, 300)]
        assert read_silences(log, IN, OF, 8) == []
        assert [record.timestamp_ms for record in contents(log, IN.topic)] == [5, 5, 5]


def test_those_of_another_topic_of_the_name_and_those_before_the_start_are_deleted() -> None:
    with log_of(9) as log:
        write(log, [Silence(5, 1)], topic_id="another")
        write(log, [Silence(2, 100), Silence(4, 200), Silence(7, 300)])
        log.delete_records({OF: 4})
        assert read_silences(log, IN, OF, 4) == [Silence(4, 200), Silence(7, 300)]
        assert log.offsets(IN.topic, "earliest")[IN] == 2
        log.delete_records({OF: 9})
        assert read_silences(log, IN, OF, 9) == []
        assert log.offsets(IN.topic, "earliest")[IN] == 4
        assert read_silences(log, IN, OF, 9) == []


def test_they_are_passed_in_order() -> None:
    with log_of(0) as log, log.producer() as producer:
        silences = Silences("id", InternalColumns(IN, producer), [Silence(2, 100), Silence(7, 300)])
        assert (silences.next_offset, silences.next_ms) == (2, 100)
        assert silences.take() == 100
        silences.add(Silence(7, 400), data_ms=-1)
        assert (silences.next_offset, silences.take(), silences.take()) == (7, 300, 400)
        assert silences.next_offset == NOWHERE


def test_a_silence_is_as_long_as_nothing_moves() -> None:
    listening = Listening(2_000)
    assert not listening.is_due((3, 4), 10.0)
    assert listening.due_s == 12.0
    assert not listening.is_due((3, 4), 11.9)
    assert listening.is_due((3, 4), 12.5)
    assert listening.passed_ms(12.5) == 2_500
    assert not listening.is_due((3, 4), 14.4)
    # Nobody asked what had passed: it is not lost.
    assert listening.is_due((3, 4), 14.5)
    assert listening.is_due((3, 4), 16.5)
    assert listening.passed_ms(16.5) == 4_000
    assert not listening.is_due((3, 5), 17.0)
    assert not listening.is_due(None, 18.0)
    assert listening.due_s == pytest.approx(float("inf"))
    assert not listening.is_due((3, 5), 30.0)
    assert listening.is_due((3, 5), 32.0)
    assert listening.passed_ms(32.0) == 2_000
