"""Apps that go on after a function has raised: what a run over a log commits, and what a restart finds."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import DiskFullError, TaskError
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.programs import last


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        opened.create_topic("in", partitions=2)
        yield opened


def number(value: str) -> int:
    return int(value)


def add(total: int, n: int) -> int:
    if n == 13:
        raise ArithmeticError("unlucky")
    return total + n


def totals(log: Log, **options: Any) -> App:
    app = App("app", log=log, **options)
    numbers = app.stream(app.topic("in", key=str, value=str)).map(number)
    table = numbers.group_by(lambda n: "odd" if n % 2 else "even").aggregate(int, add, store="sums")
    table.changes().to(app.topic("out", key=str, value=int))
    return app


def test_what_fails_is_kept_once_and_the_rest_is_counted_once(log: Log) -> None:
    feed(log, "in", [("a", "1", 1), ("b", "x", 2), ("c", "13", 3), ("d", "2", 4)], 0)
    feed(log, "in", [("e", "y", 5), ("f", "3", 6)], 1)
    summary = totals(log, on_error="dead_letter").run(until="end")
    assert (summary.records_in, summary.dropped) == (6, {"error": 3})
    feed(log, "in", [("g", "13", 7), ("h", "4", 8)], 1)
    again = totals(log, on_error="dead_letter").run(until="end")
    assert (again.records_in, again.dropped) == (2, {"error": 1})
    assert last(log, "out") == {"odd": 4, "even": 6}
    letters = contents(log, "app-dead-letters")
    places = [dict(letter.headers) for letter in letters]
    found = sorted(
        (
            letter.key,
            letter.value,
            headers["__streams.errors.partition"],
            headers["__streams.errors.offset"],
            headers["__streams.errors.exception"],
        )
        for letter, headers in zip(letters, places, strict=True)
    )
    assert found == [
        (b"b", b"x", b"0", b"1", b"ValueError"),
        (b"c", b"13", b"0", b"2", b"ArithmeticError"),
        (b"e", b"y", b"1", b"0", b"ValueError"),
        (b"g", b"13", b"1", b"2", b"ArithmeticError"),
    ]


def test_the_first_of_each_node_is_told_in_the_log(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    feed(log, "in", [("k", value, 1) for value in ("x", "13", "y", "13", "z")])
    with caplog.at_level(logging.WARNING, logger="tailrace.streams.chain.on_error"):
        assert totals(log, on_error="skip").run(until="end").dropped == {"error": 5}
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("ValueError in map-1 at in-0@0: invalid literal")
    assert second.startswith("ArithmeticError in aggregate-")
    assert "in-0@1: unlucky" in second
    assert "app-dead-letters" not in log.topics()


def test_the_default_ends_the_app_and_names_the_way_on(log: Log) -> None:
    feed(log, "in", [("k", "1", 1), ("k", "x", 2)])
    with pytest.raises(TaskError, match=r"ValueError in map-1 .*in-0@1.*on_error=\"skip\""):
        totals(log).run(until="end")
    totals(log, on_error="skip").run(until="end")
    assert last(log, "out") == {"odd": 1}


def test_a_record_as_large_as_its_topic_takes_fits_among_the_dead_letters(log: Log) -> None:
    size = 1_048_588 - 200
    feed(log, "in", [("k", "x" * size, 1)])
    assert totals(log, on_error="dead_letter").run(until="end").dropped == {"error": 1}
    (letter,) = contents(log, "app-dead-letters")
    assert len(letter.value or b"") == size
    assert len(dict(letter.headers)["__streams.errors.message"] or b"") <= 8_000


def test_bad_records_and_errors_have_a_policy_each(log: Log) -> None:
    with log.producer() as producer:
        producer.send("in", b"\xff", key=b"bytes", timestamp_ms=1, partition=0)
        producer.send("in", b"x", key=b"text", timestamp_ms=2, partition=0)
        producer.send("in", b"5", key=b"good", timestamp_ms=3, partition=0)
    summary = totals(log, on_error="skip", on_bad_record="dead_letter").run(until="end")
    assert summary.dropped == {"error": 1, "bad_record": 1}
    assert [letter.key for letter in contents(log, "app-dead-letters")] == [b"bytes"]


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_a_log_that_refuses_to_write_is_no_error_of_the_program(
    policy: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFullError("no room")

    feed(log, "in", [("k", str(n), n) for n in range(40)])
    app = App("app", log=log, on_error=policy)
    app.stream(app.topic("in", key=str, value=str)).map(number).to(app.topic("out", key=str, value=int))
    monkeypatch.setattr("tailrace.streams.running.patience.GIVE_UP_S", 0)
    monkeypatch.setattr("tailrace.streams.chain.outputs._ROWS_MAX", 10)
    monkeypatch.setattr("tailrace.streams.chain.outputs.Columns.send", full)
    with pytest.raises(DiskFullError):
        app.run(until="end")
    monkeypatch.undo()
    summary = app.run(until="end")
    assert (summary.dropped, len(contents(log, "out"))) == ({}, 40)
