"""An app whose input is written in transactions: it reads what is committed, and its end is where that ends."""

from datetime import timedelta

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App

IN, OUT = TopicPartition("in", 0), TopicPartition("out", 0)


def copied(log: Log) -> int:
    """Run to the end; how many records were read."""
    app = App("copy", log=log, commit_interval=timedelta(milliseconds=5))
    app.stream(app.topic("in", key=str, value=str)).to(app.topic("out", key=str, value=str))
    return app.run(until="end").records_in


def test_a_run_to_the_end_passes_what_was_aborted_and_stops_at_what_is_open() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        log.create_topic("out")
        with log.producer(transactional_id="x") as producer:
            with producer.transaction():
                producer.send("in", b"a")
            producer.begin()
            producer.send("in", b"b")
            producer.flush()
            producer.abort()
            assert copied(log) == 1
            assert log.committed("copy") == {IN: 4}  # behind both markers
            producer.begin()
            producer.send("in", b"c")
            producer.flush()
            with log.producer() as plain:
                plain.send("in", b"d")
            assert copied(log) == 0
            assert log.committed("copy") == {IN: 4}
            producer.commit()
            assert copied(log) == 2
        with log.consumer() as consumer:
            consumer.assign([OUT])
            assert [record.value for record in consumer.poll()] == [b"a", b"c", b"d"]


def test_a_run_that_stops_at_an_open_transaction_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(1_000_000)
    with Log.open("memory:", clock=clock, background=False) as log:
        log.create_topic("in", partitions=2)
        with log.producer(transactional_id="x") as producer, log.producer(linger_ms=0) as plain:
            plain.send("in", b"a", partition=0)
            producer.begin()
            producer.send("in", b"b", partition=0)
            producer.flush()
            plain.send("in", b"c", partition=0)
            plain.send("in", b"d", partition=1)
            clock.advance(1_500)
            assert copied(log) == 2
            (told,) = caplog.messages
            assert "app copy stops before the end of its inputs" in told
            assert "(in-0 at offset 1 of 3, by 'x', open for 1500 ms)" in told
            producer.commit()
            caplog.clear()
            assert copied(log) == 2
            assert caplog.messages == []
