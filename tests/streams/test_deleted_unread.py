"""Records that are deleted before an app has read them: counted, told, and no end of the run."""

import logging

import pytest

from tailrace import App, Log, TopicPartition
from tailrace.tests.support.engine import contents, feed

IN = TopicPartition("in", 0)


def fill(log: Log, count: int) -> None:
    feed(log, "in", [("k", str(number), number) for number in range(count)])


def copying(log: Log) -> App:
    app = App("app", log=log)
    app.stream(app.topic("in", key=str, value=str)).to(app.topic("out", key=str, value=str))
    return app


def test_what_was_deleted_between_two_runs_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        fill(log, 3)
        assert copying(log).run(until="end").dropped == {}
        fill(log, 10)
        log.delete_records({IN: 7})
        summary = copying(log).run(until="end")
        assert summary.dropped == {"deleted": 4}
        assert summary.records_in == 6
        assert "in-0: records 3 to 6 were deleted before app app had read them; it goes on at 7" in caplog.text
        assert copying(log).run(until="end").dropped == {}


def test_a_run_that_finds_nothing_left_says_so_once() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        fill(log, 3)
        copying(log).run(until="end")
        fill(log, 5)
        log.delete_records({IN: -1})
        assert copying(log).run(until="end").dropped == {"deleted": 5}
        assert copying(log).run(until="end").dropped == {}


def test_what_was_deleted_before_the_first_run_was_never_the_apps() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        fill(log, 5)
        log.delete_records({IN: 2})
        summary = copying(log).run(until="end")
        assert (summary.records_in, summary.dropped) == (3, {})


@pytest.mark.parametrize("deleted", [1_500, 2_000])
def test_a_run_goes_on_behind_what_is_deleted_under_it(deleted: int, caplog: pytest.LogCaptureFixture) -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer() as producer:
            for _ in range(4):  # batches too large to be fetched together, so the first is run before the rest is read
                values = [b"x" * 1_000] * 500
                producer.send_many("in", values, timestamps_ms=[1] * 500)
                producer.flush()
        app = App("app", log=log)

        def delete(_value: str) -> None:
            if log.offsets("in", "earliest")[IN] == 0:
                log.delete_records({IN: deleted})

        copied = app.stream(app.topic("in", key=str, value=str)).peek(delete)
        copied.to(app.topic("out", key=str, value=str))
        with caplog.at_level(logging.WARNING):
            summary = app.run(until="end")
        read = summary.records_in
        assert 0 < read < 2_000
        assert summary.dropped == {"deleted": 2_000 - read}
        assert f"in-0: records {deleted - summary.dropped['deleted']} to {deleted - 1} were deleted" in caplog.text
        assert len(contents(log, "out")) == read
        assert log.committed("app") == {IN: 2_000}
