"""The claim of docs/design.md, "Time": the same records give the same final results, however they come and are read.

A backlog of partitions keyed by user, up to 5 s out of order, re-keyed to products, grace 5 s: nothing dropped, every
count equal to a plain count; the same in batches of one and of thousands, with the cache and without, with commits
every few records, live, over restarts, with 1 or 4 partitions.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams import runner
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

HOUR_MS = 3_600_000


def run_all(
    clicks: list[Click], *, partitions: int = 4, batch: int = 500, **options: Any
) -> tuple[dict[str, int], Any]:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        send(log, clicks, batch=batch)
        summary = click_app(log, **options).run(until="end")
        return last(log), summary


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("cache_bytes", [0, 64 << 20])
def test_a_backlog_is_counted_like_a_plain_count(partitions: int, cache_bytes: int) -> None:
    clicks = arrivals(40_000, disorder_ms=5_000)
    found, summary = run_all(clicks, partitions=partitions, batch=10_000, cache_bytes=cache_bytes)
    assert found == plain_count(clicks)
    assert summary.dropped == {}
    assert summary.records_in == 40_000


@pytest.mark.parametrize("cache_bytes", [0, 400, 8_000, 1 << 20])
def test_batches_of_one_record(cache_bytes: int) -> None:
    clicks = arrivals(3_000, disorder_ms=5_000, step_ms=300)
    found, summary = run_all(clicks, batch=1, cache_bytes=cache_bytes)
    assert found == plain_count(clicks)
    assert summary.dropped == {}


@pytest.mark.parametrize("cache_bytes", [0, 400, 8_000, 1 << 20])
def test_commits_every_few_records(cache_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_DIRTY_MAX", 7)
    clicks = arrivals(5_000, disorder_ms=5_000, step_ms=200)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, clicks, batch=10)
        summary = click_app(log, cache_bytes=cache_bytes, commit_interval=timedelta(milliseconds=1)).run(until="end")
        assert last(log) == plain_count(clicks)
        assert summary.dropped == {}


@pytest.mark.parametrize("cache_bytes", [0, 1_000, 1 << 20])
@pytest.mark.parametrize("partitions", [1, 4])
def test_runs_to_the_end_while_the_input_grows(partitions: int, cache_bytes: int) -> None:
    clicks = arrivals(12_000, disorder_ms=5_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        dropped: Counter[str] = Counter()
        for part in chunks(clicks, 9):
            send(log, part)
            dropped.update(click_app(log, cache_bytes=cache_bytes).run(until="end").dropped)
        assert last(log) == plain_count(clicks)
        assert not dropped


async def test_live() -> None:
    clicks = arrivals(6_000, disorder_ms=3_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        app = click_app(log, commit_interval=timedelta(milliseconds=5))
        async with app.running():
            for part in chunks(clicks, 120):  # 50 clicks, 1.5 s: so far the partitions may be apart
                await asyncio.to_thread(send, log, part)
            await until(lambda: sum(log.committed("counter").values()) == len(clicks))
            summary = app.summary()
        assert summary is not None
        assert summary.dropped == {}
        assert last(log) == plain_count(clicks)


async def test_live_with_restarts() -> None:
    clicks = arrivals(6_000, disorder_ms=3_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        for session in chunks(clicks, 4):
            async with click_app(log, commit_interval=timedelta(milliseconds=5)).running():
                for part in chunks(session, 30):
                    await asyncio.to_thread(send, log, part)
        click_app(log).run(until="end")
        assert last(log) == plain_count(clicks)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("cache_bytes", [0, 1_000, 1 << 20])
def test_each_window_closes_exactly_once_over_restarts(keyed: bool, cache_bytes: int) -> None:
    clicks = arrivals(12_000, disorder_ms=5_000)
    if keyed:
        clicks = [Click(click.product, click.product, click.ts) for click in clicks]
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        for part in chunks(clicks, 7):
            send(log, part)
            click_app(log, keyed=keyed, emit="close", cache_bytes=cache_bytes).run(until="end")
        # Once more time goes on everywhere, all windows but that of the last clicks are final.
        ends = [Click("end", "end", BEGIN_MS + HOUR_MS)] * 4
        send(log, [Sent(click, partition) for partition, click in enumerate(ends)])
        summary = click_app(log, keyed=keyed, emit="close", cache_bytes=cache_bytes).run(until="end")
        assert Counter(results(log)) == Counter(plain_count(clicks).items())
        assert summary.open_windows == (4 if keyed else 1)
        again = click_app(log, keyed=keyed, emit="close", cache_bytes=cache_bytes).run(until="end")
        assert again.records_out == 0


def test_windows_of_a_backlog_close_as_time_goes_on() -> None:
    clicks = arrivals(12_000, disorder_ms=5_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, clicks)
        click_app(log, emit="close").run(until="end")
        end_ms = max(click.ts for click in clicks)
        closed = {key: n for key, n in plain_count(clicks).items() if int(key.split("@")[1]) + 65_000 <= end_ms}
        assert Counter(results(log)) == Counter(closed.items())
