"""Members of an app with repartitions: tasks are dealt one by one, rows go through the log while there are several.

One member has them in memory, so the form of the hop changes with each that comes when there was one, and with each
that leaves one behind: nothing is lost by that, nothing is there twice, and no clock goes back.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import RetriableError, TaskError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.chain.repartition_input import RepartitionInput
from tailrace.streams.running import patience, trimming, turns
from tailrace.streams.running.turns import Turns
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import (
    BEGIN_MS,
    Click,
    Sent,
    arrivals,
    chunks,
    click_app,
    last,
    plain_count,
    results,
    send,
)
from tailrace.tests.support.waiting import until
from tailrace.windows.duration import seconds

HOUR_MS = 3_600_000
PARTITIONS = 4
TOPIC = "counter-clicks-repartition"
CLICKS = arrivals(6_000, disorder_ms=2_000, step_ms=10)


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    with Log.open("memory:" if request.param == "memory" else str(tmp_path / "log")) as opened:
        opened.create_topic("clicks", partitions=PARTITIONS)
        yield opened


def member(log: Log, **options: Any) -> App:
    return click_app(log, commit_interval=timedelta(milliseconds=5), **options)


def owners(log: Log) -> list[int]:
    """How many partitions each member has, in the order of joining."""
    return [len(each.partitions) for each in log.describe_group("counter").members]


def counted(log: Log) -> bool:
    """Whether all that was sent, and what was made of it, is read."""
    committed = log.committed("counter")
    ends = log.offsets("clicks") | log.offsets(TOPIC)
    return all(committed.get(partition, 0) >= end for partition, end in ends.items())


def left_log(log: Log) -> bool:
    """Whether what went through the log is read and deleted: then it goes through memory."""
    return log.offsets(TOPIC, "earliest") == log.offsets(TOPIC)


def end(log: Log) -> None:
    """Closes every window but that of the clicks that it sends."""
    send(log, [Sent(Click("end", "end", BEGIN_MS + HOUR_MS), number) for number in range(PARTITIONS)])


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("emit", ["update", "close"])
async def test_members_come_and_go(emit: Any, guarantee: Any, log: Log) -> None:
    first, second, third = (member(log, emit=emit, guarantee=guarantee) for _ in range(3))
    parts = iter(chunks(CLICKS, 60))

    async def some(count: int) -> None:
        for _ in range(count):
            await asyncio.to_thread(send, log, next(parts))

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first.running())
        await some(10)
        await until(lambda: counted(log))
        assert set(log.offsets(TOPIC).values()) == {0}, "alone it needs no log between its tasks"
        async with second.running():
            await some(10)
            await until(lambda: owners(log) == [4, 4])
            async with third.running():
                await some(10)
                await until(lambda: sorted(owners(log)) == [2, 3, 3])
                await some(10)
            await some(1)
            await until(lambda: counted(log))
            assert min(log.offsets(TOPIC).values()) > 0
        await until(lambda: owners(log) == [8] and left_log(log))
        before = log.offsets(TOPIC)
        await some(19)
        await asyncio.to_thread(end, log)
        await until(lambda: counted(log))
        assert log.offsets(TOPIC) == before, "alone again, it leaves the log"
        summary = first.summary()
        assert summary is not None
        assert not summary.dropped
    wanted = Counter(plain_count(CLICKS))
    if emit == "update":
        wanted[f"end@{BEGIN_MS + HOUR_MS}"] = PARTITIONS
        assert last(log) == wanted
    else:
        assert Counter(results(log)) == Counter(wanted.items())
    assert not contents(log, "late")


@pytest.mark.parametrize("members", [2, 3])
async def test_runs_to_the_end_side_by_side(members: int, log: Log) -> None:
    send(log, CLICKS)
    summaries = await asyncio.gather(*(asyncio.to_thread(member(log).run, until="end") for _ in range(members)))
    assert sum(each.records_in for each in summaries) == len(CLICKS)
    assert all(not each.dropped for each in summaries)
    assert last(log) == plain_count(CLICKS)
    assert click_app(log).run(until="end").records_in == 0


@pytest.mark.parametrize("threads", [2, 3])
async def test_lanes_hand_over_through_the_log(threads: int, log: Log) -> None:
    send(log, CLICKS[:3_000])
    for part in (CLICKS[:0], CLICKS[3_000:]):
        send(log, part)
        summary = await asyncio.to_thread(member(log, threads=threads).run, until="end")
        assert summary.dropped == {}
    assert min(log.offsets(TOPIC).values()) > 0
    assert last(log) == plain_count(CLICKS)


@pytest.mark.parametrize(("error", "ends"), [(ValueError("broken"), True), (RetriableError("not yet"), False)])
async def test_one_fails_in_the_middle_of_a_batch(
    error: Exception, ends: bool, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_SLICE", 50)
    monkeypatch.setattr(patience, "FIRST_S", 0.0)
    taken = 0

    def look(_click: Click) -> bool:
        nonlocal taken
        taken += 1
        if taken == 777:
            raise error
        return True

    async def work() -> None:
        async with member(log, look=look).running():
            await until(lambda: owners(log) == [4, 4])
            await asyncio.to_thread(send, log, CLICKS)
            await until(lambda: counted(log) and taken > 777)
            await until(lambda: not ends and owners(log) == [4, 4])

    async with member(log).running():
        if ends:
            with pytest.raises(TaskError, match="broken"):
                await work()
        else:
            await work()
        await until(lambda: counted(log))
    assert last(log) == plain_count(CLICKS)
    assert not contents(log, "late")


async def test_a_member_waits_for_another_that_is_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is held up at its first record: over a backlog the other comes as far as max_skew allows, and says so."""
    caplog.set_level("INFO", "tailrace.streams.running.turns")
    monkeypatch.setattr(turns, "_TOLD_S", 0.0)

    def has_none(_turns: Turns, _partition: TopicPartition, offset: int, end: int, _now: float) -> bool:
        return offset >= end

    # From the first moment on what is there is a backlog.
    monkeypatch.setattr(Turns, "_keeps_up", has_none)
    go_on = threading.Event()
    furthest_ms = 0

    def blocked(_click: Click) -> bool:
        go_on.wait(30)
        return True

    def look(click: Click) -> bool:
        nonlocal furthest_ms
        furthest_ms = max(furthest_ms, click.ts)
        return True

    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=2)
        async with member(log, look=look, max_skew=seconds(10)).running(), member(log, look=blocked).running():
            await until(lambda: owners(log) == [2, 2])
            clicks = [Click("p", "u", BEGIN_MS + number * 100) for number in range(1_000)]
            await asyncio.to_thread(send, log, [Sent(each, number % 2) for number, each in enumerate(clicks)])
            await until(lambda: "waits for another member of it to read clicks-" in caplog.text)
            assert BEGIN_MS + 9_000 < furthest_ms <= BEGIN_MS + 10_100
            go_on.set()
            await until(lambda: counted(log))
        assert last(log) == plain_count(clicks)


async def test_what_was_read_is_deleted_behind_the_commit(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "INTERVAL_S", 0.0)
    async with member(log).running(), member(log).running():
        await until(lambda: owners(log) == [4, 4])
        await asyncio.to_thread(send, log, CLICKS)
        await until(lambda: counted(log))
        await until(lambda: left_log(log) and max(log.offsets(TOPIC).values()) > 1_000)
        assert owners(log) == [4, 4]
    assert last(log) == plain_count(CLICKS)


@pytest.mark.parametrize("threads", [1, 2])
async def test_rows_that_were_left_in_the_log_are_read_by_the_next_start(threads: int, log: Log) -> None:
    """All members end with rows under way: one app alone reads them first, in whatever form it goes on."""

    def fail(*_: Any) -> int:
        raise OSError("no more")

    send(log, CLICKS[:3_000])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RepartitionInput, "run_records", fail)
        with pytest.raises(TaskError, match="no more"):
            await asyncio.to_thread(member(log, threads=2).run, until="end")
    waiting = {each: end for each, end in log.offsets(TOPIC).items() if end > log.committed("counter").get(each, 0)}
    assert waiting
    assert not last(log)
    send(log, CLICKS[3_000:])
    summary = await asyncio.to_thread(member(log, threads=threads).run, until="end")
    assert summary.dropped == {}
    assert last(log) == plain_count(CLICKS)
    assert left_log(log)


async def test_rows_under_way_to_what_the_program_has_no_more_are_not_lost(log: Log) -> None:
    def program(store: str) -> App:
        app = App("counter", log=log, threads=2)
        clicks = app.stream(app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts))
        counts = clicks.group_by(lambda click: click.product).count(store=store).changes()
        counts.to(app.topic("counts", key=str, value=int))
        return app

    def fail(*_: Any) -> int:
        raise OSError("no more")

    send(log, CLICKS[:100])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RepartitionInput, "run_records", fail)
        with pytest.raises(TaskError, match="no more"):
            await asyncio.to_thread(program("before").run, until="end")
    told = r"counter-before-repartition-\d has \d+ rows that are on their way to a part of app 'counter' that is not in"
    with pytest.raises(TopologyError, match=told):
        await asyncio.to_thread(program("after").run, until="end")
    await asyncio.to_thread(program("before").run, until="end")
    send(log, CLICKS[100:150])
    await asyncio.to_thread(program("after").run, until="end")
    found = Counter[str]()
    for store, clicks in (("before", CLICKS[:100]), ("after", CLICKS[100:150])):
        counts = dict(program(store).past(store, BEGIN_MS + HOUR_MS).all())
        assert counts == Counter(click.product for click in clicks)
        found.update(counts)
    assert found.total() == 150


async def test_what_fails_behind_a_hop_is_a_letter_with_its_place_there() -> None:
    def program(log: Log) -> App:
        options: dict[str, Any] = {"cache_bytes": 0, "commit_interval": timedelta(milliseconds=5)}
        app = App("counter", log=log, on_error="dead_letter", **options)
        clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
        counts = app.stream(clicks).group_by(lambda click: click.product).count(store="clicks").changes()
        counts.filter(lambda count: 1 // (count - 2) < 5).to(app.topic("counts", key=str, value=int))
        return app

    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=2)
        async with program(log).running(), program(log).running():
            await until(lambda: owners(log) == [2, 2])
            for number in range(9):
                await asyncio.to_thread(send, log, [Click(f"p{number // 3}", "u", BEGIN_MS + number)])
            await until(lambda: counted(log))
        letters = contents(log, "counter-dead-letters")
        assert Counter(each.key for each in letters) == {b"p0": 1, b"p1": 1, b"p2": 1}
        assert {dict(each.headers)["__streams.errors.topic"] for each in letters} == {TOPIC.encode()}
        assert sorted(results(log)) == sorted((f"p{number}", count) for number in range(3) for count in (1, 3))
