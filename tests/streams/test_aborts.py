"""An error that may pass: everything since the last commit is dropped, and the same run goes on from there."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.clients.producer import EmbeddedProducer
from tailrace.log.clients.transactional import TransactionalProducer
from tailrace.log.disk import disk_full
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import CorruptError, RetriableError
from tailrace.log.record import Record
from tailrace.state.memory import MemoryBackend
from tailrace.state.rocksdb import RocksBackend
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.running import patience
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.programs import Click, arrivals, click_app, last, plain_count, results, send
from tailrace.windows.duration import seconds
from tailrace.windows.session import session

CLICKS = arrivals(4_000, disorder_ms=5_000, step_ms=100)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_SLICE", 100)
    monkeypatch.setattr(runner, "_DIRTY_MAX", 30)
    monkeypatch.setattr(patience, "FIRST_S", 0.0)


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    with Log.open("memory:" if request.param == "memory" else str(tmp_path / "log")) as opened:
        opened.create_topic("clicks", partitions=4)
        send(opened, CLICKS)
        yield opened


def failing(method: Callable[..., Any], at: set[int], *, before: bool) -> Callable[..., Any]:
    """The method, raising at some of its calls, before or after it did its work."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in at and before:
            raise RetriableError("not yet")
        done = method(*arguments, **options)
        if calls in at:
            raise RetriableError("not yet")
        return done

    return call


STEPS = [
    ("exactly_once", TransactionalProducer, "send_many"),
    ("exactly_once", TransactionalProducer, "commit_offsets"),
    ("exactly_once", TransactionalProducer, "commit"),
    ("exactly_once", RocksBackend, "write"),
    ("exactly_once", MemoryBackend, "write"),
    ("at_least_once", EmbeddedProducer, "flush"),
    ("at_least_once", EmbeddedLog, "commit_offsets"),
    ("at_least_once", RocksBackend, "write"),
]


@pytest.mark.parametrize("emit", ["update", "close"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("guarantee", "owner", "method"), STEPS)
def test_a_step_of_a_commit_that_fails_now_and_then(
    guarantee: Any, owner: type[Any], method: str, before: bool, emit: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plain_count(CLICKS)
    last_ms = max(click.ts for click in CLICKS)
    closed = {key for key in wanted if int(key.split("@")[1]) + 65_000 <= last_ms}
    # No two in a row: the second would be that of the producer as it is closed, and leave it with what it had.
    monkeypatch.setattr(owner, method, failing(getattr(owner, method), {6, 8, 13, 20}, before=before))
    summary = click_app(log, emit=emit, guarantee=guarantee).run(until="end")
    found = last(log)
    assert set(found) == (closed if emit == "close" else set(wanted))
    if guarantee == "exactly_once":
        assert all(count == wanted[key] for key, count in found.items())
        assert emit == "update" or len(results(log)) == len(closed), "each final result once"
    else:  # what was run again may be counted again, nothing is missing
        assert all(count >= wanted[key] for key, count in found.items())
    assert sum(log.committed("counter").values()) == len(CLICKS)
    # What was dropped is not counted; where the commit was done and then failed, it is not known to be done.
    assert summary.records_in <= len(CLICKS)
    assert summary.dropped == {}


def test_nothing_that_was_not_committed_is_left_behind(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing had reached the log, the run is as one without an error: caches, clocks and counters are back."""
    commits = 0
    send_many = EmbeddedProducer.send_many

    def failing_send(producer: EmbeddedProducer, topic: str, *arguments: Any, **options: Any) -> Any:
        nonlocal commits
        if topic == "counter-clicks-changelog":
            commits += 1
            if commits % 7 == 1:
                raise RetriableError("not yet")
        return send_many(producer, topic, *arguments, **options)

    monkeypatch.setattr(EmbeddedProducer, "send_many", failing_send)
    # One task has state with one partition: its changelog is the first thing that is sent.
    log.create_topic("all")
    send(log, CLICKS, topic="all")
    app = App("counter", log=log)
    clicks = app.topic("all", key=str, value=Click, timestamp=lambda click: click.ts)
    windowed = app.stream(clicks).group_by(lambda click: click.product).windowed_by(session(seconds(3)))
    windowed.count(store="clicks", emit="close").changes().map_kv(
        lambda window, count: (f"{window.key}@{window.start_ms}-{window.end_ms}", count)
    ).to(app.topic("counts", key=str, value=int))
    windowed.late.to(app.topic("late", key=str, value=Click))
    summary = app.run(until="end")
    assert commits > 10
    monkeypatch.undo()
    once = results(log)
    assert summary.records_in == len(CLICKS)
    late = len(contents(log, "late"))
    assert summary.dropped["late"] == late > 0
    assert summary.records_out == len(once) + late

    with Log.open("memory:") as other:
        other.create_topic("all")
        send(other, CLICKS, topic="all")
        app.options = replace(app.options, log=other)
        app.run(until="end")
        assert Counter(results(other)) == Counter(once)
        assert len(contents(other, "late")) == late


class Remembering(Processor[str, str, str, str]):
    """Keeps in memory what it should keep in a store: a new one begins with nothing."""

    lives: list["Remembering"] = []  # noqa: RUF012 - every one that was made, for the test

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx, self.seen, self.closed = ctx, list[str](), False
        self.lives.append(self)

    def process(self, record: Record[str, str]) -> None:
        self.seen.append(record.value)
        self.ctx.forward(record.key, ",".join(self.seen))

    def close(self) -> None:
        self.closed = True


LATER = [b"a,b,c,d", b"a,b,c,d,e", b"a,b,c,d,e,f"]


def test_processors_are_closed_and_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    Remembering.lives.clear()
    with Log.open("memory:") as log:
        log.create_topic("words")
        feed(log, "words", [("k", word, 1) for word in "abcdef"])
        app = App("p", log=log)
        words = app.topic("words", key=str, value=str)
        app.stream(words).process(Remembering).to(app.topic("out", key=str, value=str))
        monkeypatch.setattr(runner, "_SLICE", 3)
        monkeypatch.setattr(TransactionalProducer, "commit", failing(TransactionalProducer.commit, {1}, before=True))
        app.run(until="end")
        assert [record.value for record in contents(log, "out")] == [b"a", b"a,b", b"a,b,c", *LATER]
    first, second = Remembering.lives
    assert first.closed
    assert second.closed
    assert second.seen == list("abcdef"), "it begins at the last commit"


def test_a_full_disk_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyDisk()
    with Log.open("memory:", disk=disk) as log:
        log.create_topic("clicks", partitions=4)
        click_app(log).run(until="end")  # its topics and its first offsets are there
        send(log, CLICKS)
        for part in ("counts-2", "counter-clicks-changelog-1", "__consumer_offsets-0", "counts-0"):
            disk.fail("append", disk_full(part), path=f"{part}/000")
        with caplog.at_level(logging.WARNING):
            click_app(log).run(until="end")
        assert last(log) == plain_count(CLICKS)
    told = [record.getMessage() for record in caplog.records]
    assert any(
        text.startswith("app counter goes back to its last commit, and on from there in 0.0 s: ") for text in told
    )


def test_it_is_not_waited_for_for_ever(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.05)
    commit_offsets = failing(TransactionalProducer.commit_offsets, set(range(2, 9999)), before=True)
    monkeypatch.setattr(TransactionalProducer, "commit_offsets", commit_offsets)
    with pytest.raises(RetriableError, match="not yet"):
        click_app(log).run(until="end")


def test_what_does_not_pass_ends_the_run(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: Any) -> None:
        raise CorruptError("bytes", file="f", position=0)

    monkeypatch.setattr(TransactionalProducer, "commit", damaged)
    with pytest.raises(CorruptError):
        click_app(log).run(until="end")


async def test_a_stop_does_not_wait(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 60.0)
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def full(*_: Any) -> None:
        loop.call_soon_threadsafe(failed.set)
        raise RetriableError("not yet")

    async def run() -> None:
        async with click_app(log, commit_interval=timedelta(milliseconds=1)).running():
            monkeypatch.setattr(TransactionalProducer, "commit", full)
            await failed.wait()

    with pytest.raises(RetriableError):
        await run()
