"""Running apps of one name share the work: each click is counted once, whoever comes, goes, or fails in between."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import RetriableError, TaskError
from tailrace.log.record import Record
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.program.store import Store
from tailrace.streams.running import patience
from tailrace.tests.support.programs import Click, Sent, arrivals, chunks, last, plain_count, row, send
from tailrace.tests.support.waiting import until
from tailrace.windows.duration import minutes, seconds
from tailrace.windows.tumbling import tumbling

# Keyed by product, as the app counts them: no repartition, so each partition is a unit of its own.
CLICKS = [Click(click.product, click.product, click.ts) for click in arrivals(8_000, disorder_ms=5_000, step_ms=100)]
PARTITIONS = 6


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    with Log.open("memory:" if request.param == "memory" else str(tmp_path / "log")) as opened:
        opened.create_topic("clicks", partitions=PARTITIONS)
        yield opened


def member(log: Log, look: Callable[[Click], bool] = lambda _: True, **options: Any) -> App:
    """The click count, with a look at each click that may fail."""
    app = App("counter", log=log, commit_interval=timedelta(milliseconds=5), **options)
    clicks = app.stream(app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)).filter(look)
    windowed = clicks.group_by_key().windowed_by(tumbling(minutes(1), grace=seconds(5)))
    windowed.count(store="clicks").changes().map_kv(row).to(app.topic("counts", key=str, value=int))
    return app


def owners(log: Log) -> list[int]:
    """How many partitions each member has, in the order of joining."""
    return [len(each.partitions) for each in log.describe_group("counter").members]


def counted(log: Log) -> int:
    return sum(log.committed("counter").values())


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_members_come_and_go(guarantee: Any, log: Log) -> None:
    first, second, third = (member(log, guarantee=guarantee) for _ in range(3))
    parts = iter(chunks(CLICKS, 60))
    dropped = Counter[str]()

    async def some(count: int) -> None:
        for _ in range(count):
            await asyncio.to_thread(send, log, next(parts))

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first.running())
        await some(10)
        assert owners(log) == [6]
        async with second.running():
            await some(10)
            await until(lambda: owners(log) == [3, 3])
            async with third.running():
                await some(10)
                await until(lambda: owners(log) == [2, 2, 2])
                await some(10)
                await until(lambda: counted(log) == sum(map(len, chunks(CLICKS, 60)[:40])))
                for each in (first, second, third):
                    summary = each.summary()
                    assert summary is not None
                    assert summary.records_in > 0
                    dropped.update(summary.dropped)
            await until(lambda: owners(log) == [3, 3])
            await some(10)
        await until(lambda: owners(log) == [6])
        await some(10)
        await until(lambda: counted(log) == len(CLICKS))
        summary = first.summary()
        assert summary is not None
        dropped.update(summary.dropped)
    assert last(log) == plain_count(CLICKS)
    assert not dropped


@pytest.mark.parametrize(("error", "ends"), [(ValueError("broken"), True), (RetriableError("not yet"), False)])
async def test_one_fails_in_the_middle_of_a_batch(
    error: Exception, ends: bool, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had not committed is done by the other, once; with an error that may pass it goes on beside the other."""
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
        async with member(log, look).running():
            await until(lambda: owners(log) == [3, 3])
            await asyncio.to_thread(send, log, CLICKS)
            await until(lambda: counted(log) == len(CLICKS) and taken > 777)
            await until(lambda: not ends and owners(log) == [3, 3])

    async with member(log).running():
        if ends:
            with pytest.raises(TaskError, match="broken"):
                await work()
        else:
            await work()
        await until(lambda: counted(log) == len(CLICKS))
    assert last(log) == plain_count(CLICKS)


async def test_one_that_was_expelled_joins_anew(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A function that blocks holds its member's polls; the others take its tasks, and what it did then is not kept."""
    blocked, go_on = threading.Event(), threading.Event()

    def look(_click: Click) -> bool:
        blocked.set()
        go_on.wait(30)
        return True

    assert isinstance(log, EmbeddedLog)
    members = log._broker.coordinator.members  # pyright: ignore[reportPrivateUsage]  # as an administrator would
    async with member(log).running():
        async with member(log, look).running():
            await until(lambda: owners(log) == [3, 3])
            send(log, CLICKS)
            await asyncio.to_thread(blocked.wait, 30)
            stuck = log.describe_group("counter").members[1].member
            members.leave_group("counter", stuck)
            await until(lambda: owners(log) == [6])
            await until(lambda: counted(log) == len(CLICKS))
            go_on.set()
            await until(lambda: owners(log) == [3, 3])
        assert "joins anew" in caplog.text or "no member of group" in caplog.text
    assert last(log) == plain_count(CLICKS)


async def test_a_unit_is_handed_over_in_this_order(log: Log) -> None:
    """Committed, processors and stores closed, and only then begun by the other, whose store stands there."""
    done: list[str] = []

    class Seen(Processor[str, Click, str, int]):
        def __init__(self, name: str) -> None:
            self.name = name

        def init(self, ctx: Context[str, int]) -> None:
            self.store: Store[str, int] = ctx.store("seen")
            done.append(f"{self.name} begins with {sum(n for _, n in self.store.all())}")

        def process(self, record: Record[str, Click]) -> None:
            self.store.put(record.key, (self.store.get(record.key) or 0) + 1)

        def close(self) -> None:
            done.append(f"{self.name} ends with {sum(n for _, n in self.store.all())}")

    def counting(name: str) -> App:
        app = App("counter", log=log)
        store = app.store("seen", key=str, value=int)
        app.stream(app.topic("clicks", key=str, value=Click)).process(lambda: Seen(name), stores=[store])
        return app

    send(log, [Sent(click, number % 2) for number, click in enumerate(CLICKS[:100])])
    async with counting("one").running():
        await until(lambda: counted(log) == 100)
        assert done == ["one begins with 0"] * PARTITIONS
        done.clear()
        async with counting("two").running():
            await until(lambda: owners(log) == [3, 3] and len(done) == 6)
            handed_over = [line for line in done if "one" in line]
            assert done[:3] == handed_over
            assert sorted(handed_over) == sorted(line.replace("two begins", "one ends") for line in done[3:])
            done.clear()
        await until(lambda: len(done) == 6)
        assert all("two ends" in line for line in done[:3])
        assert sorted(line.replace("two ends", "one begins") for line in done[:3]) == sorted(done[3:])


async def test_a_store_that_went_is_deleted_and_one_that_came_is_whole(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=4)
        state = Path(log.state_directory or "") / "counter"
        send(log, CLICKS[:2_000])
        async with member(log).running():
            await until(lambda: counted(log) == 2_000)
            assert {path.name for path in state.iterdir() if "_" in path.name} == {"0_0", "0_1", "0_2", "0_3"}
            async with member(log).running():
                await until(lambda: owners(log) == [2, 2])
                await until(lambda: len(list((state / "member-1").glob("0_*"))) == 2)
                assert len(list(state.glob("0_*"))) == 2
                kept = {path.name for path in (state / "member-1").glob("0_*")}
                send(log, CLICKS[2_000:])
                await until(lambda: counted(log) == len(CLICKS))
        async with member(log).running(), member(log).running():
            await until(lambda: owners(log) == [2, 2])
            assert {path.name for path in (state / "member-1").glob("0_*")} == kept
        assert last(log) == plain_count(CLICKS)


async def test_one_without_work_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=1)
        async with member(log).running(), member(log).running():
            await until(lambda: "has 2 running members and work for 1" in caplog.text)
            send(log, CLICKS)
            await until(lambda: counted(log) == len(CLICKS))
        assert last(log) == plain_count(CLICKS)


@pytest.mark.parametrize("threads", [2, 8])
async def test_threads(threads: int, log: Log) -> None:
    """Slices run side by side: so many functions wait at the same time."""
    at_once, most = 0, 0
    lock = threading.Lock()
    meet = threading.Barrier(min(threads, PARTITIONS), timeout=20)
    met = threading.Event()

    def look(_click: Click) -> bool:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        if not met.is_set():
            meet.wait()
            met.set()
        with lock:
            at_once -= 1
        return True

    send(log, [Sent(click, number % PARTITIONS) for number, click in enumerate(CLICKS)])
    summary = await asyncio.to_thread(member(log, look, threads=threads).run, until="end")
    assert most == min(threads, PARTITIONS)
    assert summary.records_in == len(CLICKS)


async def test_threads_share_the_work_exactly(log: Log) -> None:
    send(log, CLICKS)
    summary = await asyncio.to_thread(member(log, threads=3).run, until="end")
    assert summary.records_in == len(CLICKS)
    assert summary.dropped == {}
    assert last(log) == plain_count(CLICKS)


async def test_a_function_that_fails_in_a_thread_ends_the_app(log: Log) -> None:
    def look(click: Click) -> bool:
        if click.product == "p3":
            raise ValueError("no p3")
        return True

    send(log, CLICKS)
    with pytest.raises(TaskError, match="no p3"):
        await asyncio.to_thread(member(log, look, threads=3).run, until="end")
    assert not any("p3@" in key for key in last(log))
    member(log).run(until="end")
    assert last(log) == plain_count(CLICKS)


async def test_runs_to_the_end_side_by_side(log: Log) -> None:
    send(log, CLICKS)
    summaries = await asyncio.gather(*(asyncio.to_thread(member(log).run, until="end") for _ in range(3)))
    assert sum(each.records_in for each in summaries) == len(CLICKS)
    assert all(not each.dropped for each in summaries)
    assert last(log) == plain_count(CLICKS)
