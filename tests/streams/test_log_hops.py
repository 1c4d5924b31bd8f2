"""The claim of docs/design.md, "Time", with repartitions through the log: what comes out is what comes out in memory.

The same programs in both forms of the hop, as a backlog and live, in batches of one and of thousands, over restarts and
aborts; and two hops with skewed and silent writers against a plain count, in forms that change from run to run.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.clients.transactional import TransactionalProducer
from tailrace.log.errors import RetriableError
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.chain import outputs
from tailrace.streams.chain.markers import MARKER, ORIGIN
from tailrace.streams.program.options import Hops
from tailrace.streams.running import pace, patience
from tailrace.streams.running.trimming import Trimmer
from tailrace.tests.support.engine import contents, feed
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
    row,
    send,
)
from tailrace.tests.support.waiting import until
from tailrace.windows.tumbling import tumbling

HOUR_MS = 3_600_000
MS = timedelta(milliseconds=1)
TOPIC = "counter-clicks-repartition"


def end(log: Log) -> None:
    """Moves time on for every partition, twice and far enough to close all windows of all steps."""
    for hours in (1, 2):
        ends = [Click("end", "end", BEGIN_MS + hours * HOUR_MS)] * len(log.offsets("clicks"))
        send(log, [Sent(click, partition) for partition, click in enumerate(ends)])


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("cache_bytes", [0, 64 << 20])
@pytest.mark.parametrize("batch", [1, 10_000])
def test_a_backlog_is_counted_like_a_plain_count(batch: int, cache_bytes: int, partitions: int) -> None:
    clicks = arrivals(3_000 if batch == 1 else 12_000, disorder_ms=5_000, step_ms=100)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        send(log, clicks, batch=batch)
        summary = click_app(log, hops="log", cache_bytes=cache_bytes).run(until="end")
        assert last(log) == plain_count(clicks)
        assert summary.dropped == {}
        assert summary.records_in == len(clicks)
        assert summary.records_out == len(results(log))


@pytest.mark.parametrize("batch", [1, 10_000])
def test_what_is_late_is_what_is_late_in_memory(batch: int) -> None:
    clicks = arrivals(4_000, disorder_ms=20_000, step_ms=100)
    found: list[Any] = []
    for hops in ("memory", "log"):
        with Log.open("memory:") as log:
            log.create_topic("clicks", partitions=4)
            send(log, clicks, batch=batch)
            summary = click_app(log, hops=hops, size_ms=5_000, grace_ms=1_000).run(until="end")
            late = Counter((record.key, record.value) for record in contents(log, "late"))
            found.append((last(log), late, summary.dropped))
            assert late.total() > 10
    assert found[0] == found[1]


async def test_live() -> None:
    clicks = arrivals(4_000, disorder_ms=3_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        app = click_app(log, hops="log", emit="close", commit_interval=timedelta(milliseconds=5))
        async with app.running():
            for part in chunks(clicks, 80):
                await asyncio.to_thread(send, log, part)
            await asyncio.to_thread(end, log)
            wanted = Counter(plain_count(clicks).items())
            ended = f"end@{BEGIN_MS + HOUR_MS}"
            await until(lambda: ended in last(log))
            summary = app.summary()
        assert summary is not None
        assert summary.dropped == {}
        assert Counter(results(log)) == wanted + Counter([(ended, 4)])


@pytest.mark.parametrize("cache_bytes", [0, 1_000, 1 << 20])
def test_each_window_closes_exactly_once_over_restarts(cache_bytes: int) -> None:
    clicks = arrivals(6_000, disorder_ms=5_000, step_ms=60)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        for part in chunks(clicks, 7):
            send(log, part)
            click_app(log, hops="log", emit="close", cache_bytes=cache_bytes).run(until="end")
        end(log)
        click_app(log, hops="log", emit="close", cache_bytes=cache_bytes).run(until="end")
        assert Counter(results(log)) == Counter({**plain_count(clicks), f"end@{BEGIN_MS + HOUR_MS}": 4}.items())
        assert click_app(log, hops="log", emit="close").run(until="end").records_out == 0


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", ["send_many", "commit_offsets", "commit"])
def test_an_abort_at_each_step_of_many_commits(step: str, before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_SLICE", 100)
    monkeypatch.setattr(runner, "_DIRTY_MAX", 30)
    monkeypatch.setattr(patience, "FIRST_S", 0.0)
    clicks = arrivals(3_000, disorder_ms=5_000, step_ms=100)
    method, calls = getattr(TransactionalProducer, step), 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        fails = calls in {3, 8, 12, 30}
        if fails and before:
            raise RetriableError("not yet")
        done = method(*arguments, **options)
        if fails:
            raise RetriableError("not yet")
        return done

    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, clicks)
        end(log)
        monkeypatch.setattr(TransactionalProducer, step, failing)
        summary = click_app(log, hops="log", emit="close").run(until="end")
        assert calls > 12
        assert summary.dropped == {}
        assert Counter(results(log)) == Counter({**plain_count(clicks), f"end@{BEGIN_MS + HOUR_MS}": 4}.items())


# ------------------------------------------------------------ two hops


def two_hops(log: Log, hops: Hops, **options: Any) -> App:
    """Finals per product and 10 ms, added up per 50 ms over all products behind a second hop."""
    app = App("counter", log=log, **options)
    app.options = replace(app.options, hops=hops)
    clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
    counts = (
        app.stream(clicks)
        .group_by(lambda click: click.product)
        .windowed_by(tumbling(10 * MS, grace=20 * MS))
        .count(store="products", emit="close")
    )
    (
        counts.changes()
        .map_kv(lambda window, count: ("all", count), key=str, value=int)
        .group_by_key()
        .windowed_by(tumbling(50 * MS))
        .reduce(lambda so_far, count: so_far + count, store="totals", emit="close")
        .changes()
        .map_kv(row)
        .to(app.topic("counts", key=str, value=int))
    )
    return app


@st.composite
def skewed(draw: st.DrawFn) -> tuple[int, list[tuple[Hops, list[Sent]]]]:
    """Runs of clicks, none older than 20 ms before any that came before it; some partitions may never have one."""
    partitions = draw(st.integers(1, 4))
    used = draw(st.lists(st.integers(0, partitions - 1), min_size=1, max_size=partitions, unique=True))
    skew = {partition: draw(st.integers(0, 10)) for partition in used}
    steps = st.tuples(st.sampled_from("abc"), st.sampled_from(used), st.integers(0, 15), st.integers(0, 10))
    runs: list[tuple[Hops, list[Sent]]] = []
    now_ms = BEGIN_MS
    forms: list[Hops] = ["log", "log", "memory"]
    for moved in draw(st.lists(st.lists(steps, max_size=15), min_size=1, max_size=4)):
        clicks: list[Sent] = []
        for product, partition, move, late in moved:
            now_ms += move
            clicks.append(Sent(Click(product, "u", max(now_ms - late - skew[partition], BEGIN_MS)), partition))
        runs.append((draw(st.sampled_from(forms)), clicks))
    return partitions, runs


@settings(max_examples=50, deadline=None)
@given(
    program=skewed(),
    cache_bytes=st.sampled_from([0, 800, 1 << 20]),
    batch=st.sampled_from([1, 3, 100]),
    slice_=st.sampled_from([1, 3, 1_000]),
    dirty_max=st.sampled_from([1, 3, 5_000]),
    fails=st.sets(st.integers(1, 12), max_size=3),
)
def test_two_hops_with_skewed_and_silent_writers(
    program: tuple[int, list[tuple[Hops, list[Sent]]]],
    cache_bytes: int,
    batch: int,
    slice_: int,
    dirty_max: int,
    fails: set[int],
) -> None:
    partitions, runs = program
    commit, commits = TransactionalProducer.commit, 0

    def failing(producer: TransactionalProducer) -> None:
        nonlocal commits
        commits += 1
        if commits in fails:
            raise RetriableError("not yet")
        commit(producer)

    with (
        patch.object(runner, "_SLICE", slice_),
        patch.object(runner, "_DIRTY_MAX", dirty_max),
        patch.object(patience, "FIRST_S", 0.0),
        patch.object(TransactionalProducer, "commit", failing),
        Log.open("memory:", background=False) as log,
    ):
        log.create_topic("clicks", partitions=partitions)
        options: dict[str, Any] = {"cache_bytes": cache_bytes, "commit_interval": timedelta(hours=1)}
        for hops, clicks in runs:
            send(log, clicks, batch=batch)
            assert two_hops(log, hops, **options).run(until="end").dropped == {}
        end(log)
        assert two_hops(log, "log", **options).run(until="end").dropped == {}
        all_clicks = [Click("all", "", click.ts) for _, clicks in runs for click, _ in clicks]
        found = {key: count for key, count in results(log) if int(key.split("@")[1]) < BEGIN_MS + HOUR_MS}
        assert found == plain_count(all_clicks, 50)
        closed = Counter(key for key, _ in results(log))
        assert set(closed.values()) == {1}


# ------------------------------------------------------------ what is in the topic


def test_rows_origins_and_markers_in_the_topic() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=2)
        times = [10_000, 9_000, 2_000, 11_000]
        headers = [("a", b"1"), (MARKER, b"of another program")]
        with log.producer() as producer:
            for ts in times:
                value = b'{"product":"p","user":"u","ts":%d}' % ts
                producer.send("clicks", value, key=b"u", partition=0, timestamp_ms=ts, headers=headers)
        with patch.object(Trimmer, "trim"):
            click_app(log, hops="log", size_ms=1_000, grace_ms=5_000).run(until="end")
        found = contents(log, TOPIC)
        rows = [each for each in found if (MARKER, b"") not in each.headers]
        assert [(each.key, each.timestamp_ms) for each in rows] == [(b"p", ts) for ts in times]
        names = [[name for name, _ in each.headers] for each in rows]
        assert names == [["a"], ["a"], [ORIGIN, "a"], ["a"]], "the third is late by more than the grace"
        told = [each for each in found if (MARKER, b"") in each.headers]
        assert {each.partition for each in told} == {0, 1}, "every partition has every marker"
        assert all(each.timestamp_ms <= 11_000 and each.key is None for each in told)
        assert [each.timestamp_ms for each in contents(log, "late")] == [2_000]
        assert list(contents(log, "late")[0].headers) == [("a", b"1")]


def test_what_was_read_is_deleted_behind_the_commit() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=2)
        send(log, arrivals(500, disorder_ms=100))
        click_app(log, hops="log").run(until="end")
        starts, ends = log.offsets(TOPIC, "earliest"), log.offsets(TOPIC)
        assert starts == ends
        assert {partition: log.committed("counter")[partition] for partition in ends} == ends
        again = click_app(log, hops="log").run(until="end")
        assert again.dropped == {}


def test_rows_sent_ahead_of_a_commit_wait_for_it_no_longer_than_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their transaction would time out."""
    monkeypatch.setattr(outputs, "_ROWS_MAX", 10)
    monkeypatch.setattr(pace, "OPEN_S", 0.0)
    monkeypatch.setattr(runner, "_SLICE", 100)
    commit, commits = TransactionalProducer.commit, 0

    def counting(producer: TransactionalProducer) -> None:
        nonlocal commits
        commits += 1
        commit(producer)

    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=1)
        send(log, arrivals(2_000, disorder_ms=100))
        monkeypatch.setattr(TransactionalProducer, "commit", counting)
        click_app(log, hops="log", commit_interval=timedelta(hours=1)).run(until="end")
    assert commits > 20


def test_a_form_changes_when_the_rest_was_read() -> None:
    """Rows that wait in the topic are read there, although the next run was to go through memory."""
    clicks = arrivals(2_000, disorder_ms=1_000)
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=2)
        send(log, clicks)
        app = click_app(log, hops="log")
        commit = TransactionalProducer.commit
        commits = 0

        def stop_soon(producer: TransactionalProducer) -> None:
            nonlocal commits
            commits += 1
            commit(producer)
            if commits == 2:
                raise ValueError("killed")

        with patch.object(TransactionalProducer, "commit", stop_soon), pytest.raises(ValueError, match="killed"):
            app.run(until="end")
        waiting = log.offsets(TOPIC)
        assert sum(waiting.values()) > len(clicks)
        assert last(log) == {}
        assert click_app(log).run(until="end").dropped == {}
        assert last(log) == plain_count(clicks)
        before = log.offsets(TOPIC)
        send(log, clicks)
        assert click_app(log).run(until="end").dropped == {}
        assert log.offsets(TOPIC) == before, "this one went through memory"
        send(log, clicks)
        assert click_app(log, hops="log").run(until="end").dropped == {}
        assert last(log) == {key: 3 * count for key, count in plain_count(clicks).items()}


def test_changes_of_tables_and_null_keys_travel() -> None:
    found: list[dict[bytes | None, bytes | None]] = []
    for hops in ("memory", "log"):
        app_hops: Hops = hops
        with Log.open("memory:") as log:
            log.create_topic("orders", partitions=2)
            log.create_topic("products", partitions=2)
            rows = [
                ("o1", "p1", 1),
                ("o2", "p2", 2),
                ("o3", "p1", 3),
                ("o1", "p2", 4),
                ("o2", None, 5),
                ("o4", "p9", 6),
            ]
            for key, value, ts in rows:
                feed(log, "orders", [(key, value, ts)], int(key[1]) % 2)
            with log.producer() as producer:
                for key in ("p1", "p2"):
                    producer.send("products", key.upper().encode(), key=key.encode(), timestamp_ms=1)
            app = App("shop", log=log)
            app.options = replace(app.options, hops=app_hops)
            orders = app.table(app.topic("orders", key=str, value=str), store="orders")
            products = app.table(app.topic("products", key=str, value=str), store="products")
            out = app.topic("out", key=str, value=str)
            orders.group_by(lambda key, value: (value, key)).count(store="n").to(app.topic("n", key=str, value=int))
            orders.left_join(products, lambda left, right: f"{left}:{right}", on=lambda o: o, store="named").to(out)
            app.run(until="end")
            found.append({each.key: each.value for topic in ("out", "n") for each in contents(log, topic)})
    assert found[0] == found[1]
    assert len(found[0]) > 5
