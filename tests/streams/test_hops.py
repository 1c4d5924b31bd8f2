"""Programs of more than one stateful step: results of one are the input of the next, and nothing is dropped on the way.

Clicks per product and minute, then how many products and clicks each minute has (`minutes`), over a second hop; also
without one where the key stays. Plain counts say what is right.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any, Literal

import pytest

from tailrace.log.client import Log
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.program.topic import Topic
from tailrace.tests.support.engine import Fed, contents, feed
from tailrace.tests.support.programs import (
    BEGIN_MS,
    MINUTE_MS,
    Click,
    Sent,
    arrivals,
    chunks,
    last,
    plain_count,
    results,
    row,
    send,
)
from tailrace.tests.support.waiting import until
from tailrace.windows.duration import minutes, seconds
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

CLICKS = arrivals(12_000, disorder_ms=5_000)
CALM = arrivals(6_000, disorder_ms=3_000)
Emit = Literal["update", "close"]


def minute_of(window: Windowed[str], count: int) -> tuple[str, int]:
    return str(window.start_ms), count


def total_app(log: Log, *, first: Emit, second: Emit, **options: Any) -> App:
    """Finals per product and minute, added up per 5 minutes over all products by a second hop."""
    app = App("counter", log=log, **options)
    clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
    per_product = (
        app.stream(clicks)
        .group_by(lambda click: click.product)
        .windowed_by(tumbling(minutes(1), grace=seconds(5)))
        .count(store="products", emit=first)
    )
    windowed = (
        per_product.changes()
        .map_kv(lambda window, n: ("all", n), key=str, value=int)
        .group_by_key()
        .windowed_by(tumbling(minutes(5)))
    )
    if first == "close":
        totals = windowed.reduce(lambda so_far, n: so_far + n, store="totals", emit=second)
    else:
        totals = windowed.count(store="totals", emit=second)
    totals.changes().map_kv(row).to(app.topic("counts", key=str, value=int))
    windowed.late.to(app.topic("late", key=str, value=int))
    return app


def totals_of(clicks: list[Click]) -> Counter[str]:
    """What the second step adds up to; a result has the time of its window's last click, within the minute."""
    return plain_count([Click("all", "", click.ts) for click in clicks], 5 * MINUTE_MS)


def finish(log: Log, count: int = 40) -> None:
    """Moves time on for every partition, far enough to close all windows of all steps."""
    partitions = len(log.offsets("clicks"))
    for hours in (1, 2):
        ends = [Click("end", "end", BEGIN_MS + hours * 3_600_000)] * partitions
        send(log, [Sent(click, partition) for partition, click in enumerate(ends)])


def without_end(found: Counter[tuple[str, int]]) -> Counter[tuple[str, int]]:
    return Counter({key: n for key, n in found.items() if int(key[0].split("@")[1]) < BEGIN_MS + 3_000_000})


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("cache_bytes", [0, 2_000, 1 << 20])
@pytest.mark.parametrize("second", ["update", "close"])
def test_finals_added_up_by_a_second_hop(second: Emit, cache_bytes: int, partitions: int) -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        send(log, CLICKS)
        finish(log)
        summary = total_app(log, first="close", second=second, cache_bytes=cache_bytes).run(until="end")
        assert summary.dropped == {}
        found = Counter(results(log)) if second == "close" else Counter(last(log).items())
        assert without_end(found) == Counter(totals_of(CLICKS).items())


@pytest.mark.parametrize("cache_bytes", [0, 2_000, 1 << 20])
def test_finals_added_up_over_restarts_come_once(cache_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_DIRTY_MAX", 50)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        dropped: Counter[str] = Counter()

        def run() -> None:
            app = total_app(log, first="close", second="close", cache_bytes=cache_bytes)
            dropped.update(app.run(until="end").dropped)

        for part in chunks(CLICKS, 7):
            send(log, part)
            run()
        finish(log)
        run()
        run()
        assert not dropped
        assert without_end(Counter(results(log))) == Counter(totals_of(CLICKS).items())


@pytest.mark.parametrize("first", ["update", "close"])
async def test_two_hops_live(first: Emit) -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        app = total_app(log, first=first, second="close", commit_interval=timedelta(milliseconds=5))
        async with app.running():
            for part in chunks(CALM, 60):
                await asyncio.to_thread(send, log, part)
            finish(log)
            await until(lambda: sum(log.committed("counter").values()) >= len(CALM) + 8)
            summary = app.summary()
        assert summary is not None
        assert summary.dropped == {}
        if first == "close":
            assert without_end(Counter(results(log))) == Counter(totals_of(CALM).items())
        else:
            assert {key for key, _ in without_end(Counter(results(log)))} == set(totals_of(CALM))
        keys = [key for key, _ in results(log)]
        assert len(keys) == len(set(keys))


def test_updates_through_two_hops_are_never_late() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, CLICKS)
        summary = total_app(log, first="update", second="update", cache_bytes=0).run(until="end")
        assert summary.dropped == {}
        assert last(log) == totals_of(CLICKS), "without a cache every click is one update"


def test_a_third_hop() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=3)
        app = App("counter", log=log)
        clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
        stream = app.stream(clicks).group_by(lambda click: click.product)
        table = stream.windowed_by(tumbling(seconds(10), grace=seconds(5))).count(store="one", emit="close")
        for store, size in (("two", seconds(30)), ("three", minutes(1))):
            rekeyed = table.changes().map_kv(lambda window, n: (str(window.key)[-1], n), key=str, value=int)
            table = rekeyed.group_by_key().windowed_by(tumbling(size)).reduce(add, store=store, emit="close")
        table.changes().map_kv(row).to(app.topic("counts", key=str, value=int))
        send(log, CLICKS)
        finish(log)
        assert app.run(until="end").dropped == {}
        wanted = plain_count([Click(click.product[-1], "", click.ts) for click in CLICKS])
        assert without_end(Counter(results(log))) == Counter(wanted.items())


def add(so_far: int, n: int) -> int:
    return so_far + n


def test_two_aggregates_of_one_grouping_and_their_late_records() -> None:
    """One hop for both where the grouping has a name, one each where it has none: the same results and late records."""
    for name in (None, "shared"):
        with Log.open("memory:") as log:
            log.create_topic("clicks", partitions=2)
            app = App("counter", log=log)
            topic = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
            grouped = app.stream(topic).group_by(lambda click: click.product, name=name)
            windowed = grouped.windowed_by(tumbling(timedelta(milliseconds=10)))
            windowed.count(store="n").changes().map_kv(row).to(app.topic("counts", key=str, value=int))
            sums = windowed.aggregate(int, lambda total, click: total + int(click.user), store="sum")
            sums.changes().map_kv(row).to(app.topic("sums", key=str, value=int))
            grouped.count(store="all").changes().to(app.topic("all", key=str, value=int))
            windowed.late.to(app.topic("late", key=str, value=Click))
            rows = [("a", 1, 0), ("a", 25, 0), ("a", 3, 0), ("a", 3, 1), ("b", 26, 1), ("b", 27, 0), ("a", 2, 1)]
            send(log, [Sent(Click(product, "7", ts), partition) for product, ts, partition in rows], batch=1)
            assert app.run(until="end").dropped == {"late": 4}, "two records, each late for two aggregates"
            assert last(log) == {"a@0": 2, "a@20": 1, "b@20": 2}
            assert last(log, "sums") == {"a@0": 14, "a@20": 7, "b@20": 14}
            assert last(log, "all") == {"a": 5, "b": 2}
            late = sorted((record.key, record.timestamp_ms) for record in contents(log, "late"))
            assert late == [(b"a", 2), (b"a", 3)]
            assert sum("shared-repartition" in each for each in log.topics(internal=True)) == (1 if name else 0)


def test_late_records_go_on_as_a_stream() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks")
        app = App("counter", log=log)
        topic = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
        windowed = (
            app.stream(topic).group_by(lambda click: click.product).windowed_by(tumbling(timedelta(milliseconds=10)))
        )
        windowed.late.group_by(lambda click: click.user).count(store="late").changes().to(
            app.topic("counts", key=str, value=int)
        )
        windowed.count(store="n")
        send(
            log, [Click("a", "u", 1), Click("a", "u", 25), Click("a", "v", 3), Click("b", "v", 4), Click("b", "w", 24)]
        )
        app.run(until="end")
        assert last(log) == {"v": 2}


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("rekeyed", [False, True])
def test_two_topics_as_one_stream(rekeyed: bool, partitions: int) -> None:
    """Both are read in step with event time, so a backlog of one does not make the other late."""
    halves = [CLICKS[0::2], CLICKS[1::2]]
    with Log.open("memory:") as log:
        app = App("counter", log=log)
        topics: list[Topic[str, Click]] = []
        for name, half in zip(["left", "right"], halves, strict=True):
            log.create_topic(name, partitions=partitions)
            send(log, half, topic=name)
            topics.append(app.topic(name, key=str, value=Click, timestamp=lambda click: click.ts))
        stream = app.stream(topics)
        grouped: Any = stream.group_by(lambda click: click.product) if rekeyed else stream.group_by_key()
        windowed = grouped.windowed_by(tumbling(minutes(1), grace=seconds(5)))
        windowed.count(store="n").changes().map_kv(row).to(app.topic("counts", key=str, value=int))
        assert app.run(until="end").dropped == {}
        wanted = CLICKS if rekeyed else [Click(click.user, click.user, click.ts) for click in CLICKS]
        assert last(log) == plain_count(wanted)


# ---------------------------------------------------------------- two steps in one task


def steps(log: Log, plain: bool, emit: Emit, cache_bytes: int) -> App:
    """A second windowed count of the updates of the first step, by the same key: no hop between them."""
    app = App("counter", log=log, cache_bytes=cache_bytes)
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    if plain:
        changes: Any = grouped.count(store="first").changes()
    else:
        window = tumbling(timedelta(milliseconds=10), grace=timedelta(milliseconds=50))
        changes = grouped.windowed_by(window).count(store="first", emit="close").changes()
    second = changes.group_by_key().windowed_by(tumbling(timedelta(milliseconds=20)))
    second.reduce(add, store="second", emit=emit).changes().map_kv(described).to(
        app.topic("counts", key=str, value=int)
    )
    return app


def described(window: Windowed[Any], count: int) -> tuple[str, int]:
    inner: Any = window.key
    key = inner if isinstance(inner, str) else f"{inner.key}@{inner.start_ms}"
    return f"{key}@{window.start_ms}", count


@pytest.mark.parametrize("emit", ["update", "close"])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("dirty_max", [1, 10, 5_000])
@pytest.mark.parametrize("runs", [1, 5])
def test_finals_of_one_step_reach_a_second_in_the_same_task(
    runs: int, dirty_max: int, cache_bytes: int, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_DIRTY_MAX", dirty_max)
    monkeypatch.setattr(runner, "_SLICE", 7)
    records: list[Fed] = [("a", "x", ts) for ts in range(0, 2_000, 5)]
    with Log.open("memory:") as log:
        log.create_topic("in")
        for part in (*chunks(records, runs), [("a", "x", 9_000)], [("a", "x", 99_000)]):
            feed(log, "in", part)
            assert steps(log, False, emit, cache_bytes).run(until="end").dropped == {}
        assert len(results(log)) == len(last(log)) or emit == "update"
        found = {key: n for key, n in last(log).items() if "9000" not in key}
        assert found == {f"a@{start}@{start - start % 20}": 2 for start in range(0, 2_000, 10)}


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("dirty_max", [1, 10, 5_000])
@pytest.mark.parametrize("runs", [1, 5])
def test_cached_updates_reach_a_second_step_in_the_same_task_before_its_windows_close(
    runs: int, dirty_max: int, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_DIRTY_MAX", dirty_max)
    records: list[Fed] = [(f"k{number}", "x", number * 20) for number in range(200)]
    with Log.open("memory:") as log:
        log.create_topic("in")
        for part in (*chunks(records, runs), [("end", "x", 99_000)]):
            feed(log, "in", part)
            assert steps(log, True, "close", cache_bytes).run(until="end").dropped == {}
        assert Counter(results(log)) == Counter([(f"{key}@{ts}", 1) for key, _, ts in records])
