"""Whatever a program catches: no offset passes a record whose result could not be written, and no result is half there.

A record that is too large is refused when it is handed to the producer, which is at the commit, or in the middle of a
function that made very many.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace import App, Context, Log, Processor, Record, Stream
from tailrace.errors import InvalidError, TailraceError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.engine import feed

IN = TopicPartition("in", 0)
ROWS = 250  # more than are handed to the producer at once, here


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        opened.create_topic("in")
        feed(opened, "in", [("k", "a", 1), ("k", "large", 2), ("k", "b", 3)])
        yield opened


class Swallowing(Processor[str, str, str, str]):
    """Makes `rows` of each value, one of a large one, and minds no error."""

    rows = 1

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx

    def process(self, record: Record[str, str]) -> None:
        value = "x" * 2_000_000 if record.value == "large" else record.value
        for _ in range(self.rows):
            with contextlib.suppress(Exception):
                self.ctx.forward(record.key, value)
                value = record.value


class Many(Swallowing):
    rows = ROWS


def app_of(log: Log, made: type[Swallowing], *, counted: bool, **options: Any) -> App:
    app = App("app", log=log, **options)
    stream: Stream[str, str] = app.stream(app.topic("in", key=str, value=str)).process(made)
    if counted:
        stream.group_by_key().reduce(lambda _old, new: new, store="last")
    stream.to(app.topic("out", key=str, value=str))
    return app


def written(log: Log) -> list[int]:
    """How long each result is."""
    with log.consumer() as consumer:
        consumer.assign([TopicPartition("out", 0)])
        found: list[int] = []
        while some := consumer.poll():
            found += [len(record.value or b"") for record in some]
        return found


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("on_error", ["fail", "skip", "dead_letter"])
@pytest.mark.parametrize("made", [Swallowing, Many])
@pytest.mark.parametrize("counted", [False, True])
def test_a_result_that_is_too_large_acknowledges_nothing(
    log: Log, guarantee: str, on_error: str, made: type[Swallowing], counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.streams.chain.outputs._ROWS_MAX", 100)
    app = app_of(log, made, counted=counted, guarantee=guarantee, on_error=on_error)
    for _ in range(2):
        with pytest.raises(TailraceError, match=r"max\.message\.bytes") as raised:
            app.run(until="end")
        assert isinstance(raised.value, InvalidError)
        assert log.committed("app")[IN] == 0
        if guarantee == "exactly_once":
            assert written(log) == []
        assert log.offsets("out") == log.offsets("out", isolation="read_uncommitted")
    # With room for it the app goes on where it was, and nothing is missing.
    log.alter_topic("out", {"max.message.bytes": 3_000_000})
    if counted:
        log.alter_topic("app-last-changelog", {"max.message.bytes": 3_000_000})
    assert app.run(until="end").records_in == 3
    values = written(log)
    assert 2_000_000 in values
    if guarantee == "exactly_once":
        assert len(values) == 3 * made.rows
