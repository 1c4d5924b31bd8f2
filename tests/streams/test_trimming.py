"""Changelogs of windowed stores lose what has expired, by stream time; a restore gives the same state."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.disk import disk_full
from tailrace.log.errors import TopologyError
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.running import trimming
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.engine import feed
from tailrace.tests.support.programs import Click, arrivals, chunks, click_app, last, plain_count, results, send
from tailrace.windows.duration import milliseconds, minutes, seconds
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.window import Window

CLICKS = arrivals(6_000, disorder_ms=5_000, step_ms=400)  # 40 minutes
CHANGELOG = "counter-clicks-changelog"


def starts(log: Log, topic: str = CHANGELOG) -> list[int]:
    return list(log.offsets(topic, "earliest").values())


def test_what_has_expired_is_deleted_and_nothing_else() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        for part in chunks(CLICKS, 6):
            send(log, part)
            # In memory: each run restores what the changelog holds.
            click_app(log).run(until="end")
            newest = max(click.ts for click in part)
            for partition, start in log.offsets(CHANGELOG, "earliest").items():
                with log.consumer() as consumer:
                    consumer.assign([partition])
                    consumer.seek(partition, start)
                    kept = [record.timestamp_ms for record in iter_all(consumer.poll)]
                # Retention is size and grace unless told otherwise.
                assert not kept or max(kept[:1]) >= newest - 65_000 - 5_000
        assert all(start > 0 for start in starts(log))
        assert last(log) == plain_count(CLICKS)


def iter_all(poll: Callable[..., list[Any]]) -> list[Any]:
    found: list[Any] = []
    while batch := poll(0):
        found += batch
    return found


WINDOWS: list[Window] = [
    tumbling(milliseconds(50), grace=milliseconds(10)),
    hopping(milliseconds(60), milliseconds(20), grace=milliseconds(10)),
    sliding(milliseconds(40), grace=milliseconds(10)),
    session(milliseconds(30), grace=milliseconds(10)),
]


@pytest.mark.parametrize("emit", ["update", "close"])
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: str(window).partition("(")[0])
@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.integers(-25, 60)), min_size=1, max_size=60),
    runs=st.integers(1, 8),
)
def test_results_do_not_depend_on_trimming(window: Window, emit: Any, steps: list[tuple[str, int]], runs: int) -> None:
    now, records = 1_000, list[tuple[str, str, int]]()
    for key, step in steps:
        records.append((key, "v", max(now + step, 0)))
        now = max(now, now + step)
    outcomes: list[Counter[tuple[str, int]]] = []
    for trims in (False, True):
        with Log.open("memory:") as log, pytest.MonkeyPatch.context() as patch:
            if not trims:
                patch.setattr(trimming.Trimmer, "trim", nothing)
            log.create_topic("in")
            for part in chunks(records, runs):
                feed(log, "in", part)
                counting(log, window, emit).run(until="end")
            outcomes.append(Counter(results(log)))
    assert outcomes[0] == outcomes[1]


def nothing(*_: Any) -> None:
    """Trims nothing."""


def counting(log: Log, window: Window, emit: Any) -> App:
    app = App("c", log=log)
    stream = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    table = stream.windowed_by(window).count(store="n", emit=emit)
    table.to_stream().map_kv(lambda w, n: (f"{w.key}@{w.start_ms}-{w.end_ms}", n or 0)).to(
        app.topic("counts", key=str, value=int)
    )
    return app


def test_while_an_app_runs_it_is_done_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    trim = trimming.Trimmer.trim

    def counted(trimmer: trimming.Trimmer, *tasks: Any) -> None:
        calls.append(clock.monotonic())
        trim(trimmer, *tasks)

    clock = ManualClock()
    monkeypatch.setattr(trimming.Trimmer, "trim", counted)
    monkeypatch.setattr(runner, "_DIRTY_MAX", 1)
    monkeypatch.setattr(runner, "_SLICE", 10)
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("k", "v", n) for n in range(1_000)])
        app = App("c", log=log)
        app.clock = clock
        stream = app.stream(app.topic("in", key=str, value=str)).peek(lambda _: clock.advance(200))
        stream.group_by_key().windowed_by(tumbling(milliseconds(10))).count(store="n")
        app.run(until="end")
    # 200 s, and once more at the end.
    assert 5 <= len(calls) <= 8


def test_what_cannot_be_deleted_now_is_deleted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk()
    with Log.open("memory:", disk=disk) as log:
        log.create_topic("clicks", partitions=4)
        send(log, CLICKS)
        disk.fail("append", disk_full("it"), path="log-start-offset-checkpoint")
        click_app(log).run(until="end")
        send(log, [Click("end", str(user), CLICKS[-1].ts + 3_600_000) for user in range(40)])
        click_app(log).run(until="end")
        assert all(start > 0 for start in starts(log))


def test_a_table_keeps_everything() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        for n in range(3):
            feed(log, "in", [("k", "v", n * 10_000_000)])
            app = App("c", log=log)
            app.stream(app.topic("in", key=str, value=str)).group_by_key().count(store="n")
            app.run(until="end")
        assert starts(log, "c-n-changelog") == [0]


def test_one_that_lost_its_beginning_is_refused() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        app = App("c", log=log)
        app.stream(app.topic("in", key=str, value=str)).group_by_key().count(store="n")
        feed(log, "in", [("k", "v", 1), ("l", "v", 2)])
        app.run(until="end")
        log.alter_topic("c-n-changelog", {"cleanup.policy": "compact,delete"})
        log.delete_records({("c-n-changelog", 0): 1})
        with pytest.raises(TopologyError, match=r"c-n-changelog-0, begins at offset 1: what stood before was deleted"):
            app.run(until="end")


def test_retention_holds_back_what_is_deleted() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        app = App("c", log=log)
        stream = app.stream(app.topic("in", key=str, value=str)).group_by_key()
        stream.windowed_by(tumbling(seconds(10))).count(store="n", retention=minutes(10))
        for hours in chunks(range(60), 10):
            feed(log, "in", [("k", "v", minute * 60_000) for minute in hours])
            app.run(until="end")
        (start,) = starts(log, "c-n-changelog")
        with log.consumer() as consumer:
            consumer.assign(list(log.offsets("c-n-changelog")))
            consumer.seek_to_beginning()
            kept = [record.timestamp_ms for record in iter_all(consumer.poll)]
        assert start > 0
        assert min(kept) == 50 * 60_000
