"""An app beside a block of async code: how both begin and end, whichever ends first."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import DecodeError, InvalidError, TaskError, TopologyError
from tailrace.state.restore import Progress
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.programs import Click, arrivals, click_app, last, plain_count, send
from tailrace.tests.support.waiting import until


def threads_of_apps() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tailrace-counter")]


async def written(log: Log, count: int) -> None:
    await until(lambda: len(contents(log, "out")) == count)


async def read(app: App, count: int) -> None:
    await until(lambda: getattr(app.summary(), "records_in", 0) == count)


def ignore(_done: int, _total: int) -> None:
    """A progress that nobody looks at."""


def words_app(log: Log, f: Any, **options: Any) -> App:
    app = App("counter", log=log, commit_interval=timedelta(milliseconds=5), **options)
    app.stream(app.topic("words", key=str, value=str)).map(f, value=str).to(app.topic("out", key=str, value=str))
    return app


def fail_at_bad(word: str) -> str:
    if word == "bad":
        raise ValueError("a bad word")
    return word


@pytest.fixture
def log() -> Any:
    with Log.open("memory:") as opened:
        opened.create_topic("words")
        yield opened


async def test_what_was_read_is_committed_when_the_block_is_left() -> None:
    clicks = arrivals(5_000, disorder_ms=5_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, clicks)
        app = click_app(log, commit_interval=timedelta(hours=1))
        async with app.running():
            await read(app, len(clicks))
            assert last(log) == {}
        assert last(log) == plain_count(clicks)
        assert sum(log.committed("counter").values()) == len(clicks)
        assert app.summary() is None
        assert not threads_of_apps()


async def test_it_runs_again(log: Log) -> None:
    app = words_app(log, str.upper)
    for number, word in enumerate(["a", "b"], 1):
        async with app.running() as same:
            assert same is app
            feed(log, "words", [(None, word, 1)])
            await written(log, number)
    assert app.run(until="end").records_in == 0


async def test_a_record_runs_soon_after_it_was_sent(log: Log) -> None:
    async with words_app(log, str.upper).running():
        for number in range(1, 50):
            feed(log, "words", [(None, "a", number)])
            await written(log, number)


async def test_what_ends_the_app_cancels_the_block_and_is_raised(log: Log) -> None:
    reached = False

    async def block() -> None:
        nonlocal reached
        async with words_app(log, fail_at_bad).running():
            feed(log, "words", [(None, "good", 1), (None, "bad", 2)])
            await asyncio.sleep(60)
            reached = True

    with pytest.raises(TaskError, match=r"a bad word") as raised:
        await block()
    assert not reached
    assert "words-0@1" in str(raised.value)
    assert isinstance(raised.value.__cause__, ValueError)
    assert not threads_of_apps()


async def test_an_app_that_fails_while_it_stops_is_raised(log: Log) -> None:
    app = App("counter", log=log, commit_interval=timedelta(hours=1))
    words = app.topic("words", key=str, value=str)
    app.stream(words).group_by(lambda word: word).count(store="n").changes().map(lambda _n: 1 // 0)

    async def block() -> None:
        async with app.running():
            feed(log, "words", [(None, "a", 1)])
            await read(app, 1)

    with pytest.raises(TaskError, match="ZeroDivisionError"):
        await block()
    assert not threads_of_apps()


async def test_an_app_that_cannot_start_is_raised_and_the_block_never_begins(log: Log) -> None:
    app = App("counter", log=log)
    app.stream(app.topic("wrods", key=str, value=str)).to(app.topic("out", key=str, value=str))
    with pytest.raises(TopologyError, match="did you mean 'words'"):
        async with app.running():
            pytest.fail("it began")


async def test_an_error_in_the_block_is_raised_and_the_app_stops_cleanly(log: Log) -> None:
    feed(log, "words", [(None, "a", 1)])
    app = words_app(log, str.upper)

    async def block() -> None:
        async with app.running():
            await read(app, 1)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await block()
    assert sum(log.committed("counter").values()) == 1
    assert not threads_of_apps()


async def test_a_block_that_is_cancelled_stops_the_app_cleanly(log: Log) -> None:
    feed(log, "words", [(None, "a", 1)])
    began = asyncio.Event()

    async def beside() -> None:
        app = words_app(log, str.upper)
        async with app.running():
            await read(app, 1)
            began.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(beside())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sum(log.committed("counter").values()) == 1
    assert not threads_of_apps()


async def test_a_block_that_is_cancelled_before_the_app_is_ready_stops_it(log: Log) -> None:
    feed(log, "words", [(None, "a", 1)])
    restoring, go_on = threading.Event(), threading.Event()
    app = App("counter", log=log)
    app.stream(app.topic("words", key=str, value=str)).group_by_key().count(store="n")

    def hold(_store: str) -> Progress:
        restoring.set()
        go_on.wait(20)
        return ignore

    app.on_restore = hold

    async def beside() -> None:
        async with app.running():
            pytest.fail("it began")

    task = asyncio.create_task(beside())
    await until(restoring.is_set)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    await until(lambda: not threads_of_apps())


async def test_stop_ends_it_and_the_block_goes_on(log: Log) -> None:
    app = words_app(log, str.upper)
    async with app.running():
        app.stop()
        await until(lambda: not threads_of_apps())
    assert app.stopped_by is None


async def test_the_summary_may_be_asked_for_at_any_time() -> None:
    clicks = arrivals(20_000, disorder_ms=5_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, clicks)
        app = click_app(log, commit_interval=timedelta(milliseconds=2))
        seen = 0
        async with app.running():
            while seen < len(clicks):
                summary = app.summary()
                assert summary is not None
                assert summary.records_in >= seen
                seen = summary.records_in
                await asyncio.sleep(0)


async def test_several_apps_beside_one_block(log: Log) -> None:
    log.create_topic("clicks")
    send(log, [Click("p", "u", 1)])
    other = App("other", log=log)
    other.stream(other.topic("words", key=str, value=str)).to(other.topic("copy", key=str, value=str))
    async with click_app(log).running(), other.running():
        feed(log, "words", [(None, "a", 1)])
        await until(lambda: "copy" in log.topics() and len(contents(log, "copy")) == 1)
        await until(lambda: last(log) == {"p@0": 1})


async def test_one_app_object_cannot_run_twice_at_once(log: Log) -> None:
    app = words_app(log, str.upper)
    async with app.running():
        with pytest.raises(InvalidError, match=r"App\('counter'\) runs already: .* make one App for each"):
            await asyncio.to_thread(app.run, until="end")
        feed(log, "words", [(None, "a", 1)])
        await written(log, 1)


async def test_a_record_that_cannot_be_read_ends_it(log: Log) -> None:
    app = App("counter", log=log)
    app.stream(app.topic("words", key=str, value=int)).to(app.topic("out", key=str, value=int))

    async def block() -> None:
        async with app.running():
            feed(log, "words", [(None, "not eight bytes", 1)])
            await asyncio.sleep(60)

    with pytest.raises(DecodeError, match="words-0@0"):
        await block()


def test_a_stop_does_not_wait_for_a_thousand_calls_of_a_slow_function(log: Log) -> None:
    calls: list[str] = []

    def stopping(word: str) -> str:
        calls.append(word)
        app.stop()
        return word

    app = words_app(log, stopping)
    feed(log, "words", [(None, str(number), number) for number in range(500)])
    app.run()
    assert calls == ["0"]
    assert len(contents(log, "out")) == 1
