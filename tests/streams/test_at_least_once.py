"""guarantee="at_least_once" where a commit is cut in two: what is done again finds stores that may be ahead of offsets.

So results are on disk before changelogs, and nobody writes to the changelogs of tasks that others have by now.
"""

import errno
from collections.abc import Iterator

import pytest

from tailrace import App, Log, seconds, until_stream_time
from tailrace.log.clock import ManualClock
from tailrace.log.errors import ExpelledError
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, feed

PATH = "/log"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def log(disk: FaultyDisk, clock: ManualClock) -> Iterator[Log]:
    with Log.open(PATH, disk=disk, clock=clock, background=False) as opened:
        opened.create_topic("words")
        yield opened


def held(log: Log) -> App:
    """The last word of each key, 5 s after it came first."""
    app = App("app", log=log, guarantee="at_least_once")
    words = app.table(app.topic("words", key=str, value=str), store="words")
    words.suppress(until_stream_time(seconds(5)), store="held").to(app.topic("out", key=str, value=str))
    return app


def counting(log: Log) -> App:
    app = App("app", log=log, guarantee="at_least_once")
    words = app.stream(app.topic("words", key=str, value=str))
    words.group_by_key().count(store="counts").to(app.topic("out", key=str, value=int))
    return app


def test_what_was_held_back_is_not_forgotten_before_it_is_written(
    log: Log, disk: FaultyDisk, clock: ManualClock
) -> None:
    """The store is told to forget it, and the result cannot be written: the process ends there."""
    feed(log, "words", [("a", "held", 0)])
    run = Driven(held(log), log, clock)
    run.run()
    run.commit()
    feed(log, "words", [("b", "next", 10_000)])
    run.run()
    disk.fail("append", OSError(errno.EIO, "Input/output error"), path="out-")
    with pytest.raises(OSError, match="out-0"):
        run.commit()
    disk.kill()
    with Log.open(PATH, disk=disk, clock=clock, background=False) as again:
        run = Driven(held(again), again, clock)
        run.run()
        run.commit()
        assert [row.value for row in contents(again, "out")] == [b"held"]


def test_an_expelled_member_writes_nothing_over_the_state_of_who_has_its_tasks(log: Log, clock: ManualClock) -> None:
    slow = Driven(counting(log), log, clock)
    feed(log, "words", [("a", "first", 0)])
    slow.run()
    clock.advance(400_000)
    other = Driven(counting(log), log, clock, number=1)
    feed(log, "words", [("a", "second", 0)])
    other.run()
    other.commit()
    with pytest.raises(ExpelledError) as raised:
        slow.commit()
    slow.end(raised.value)
    other.end()
    feed(log, "words", [("a", "third", 0)])
    last = Driven(counting(log), log, clock, number=2)
    last.run()
    last.commit()
    assert [int.from_bytes(row.value or b"", "big") for row in contents(log, "out")] == [2, 3]
    last.end()
