"""What processors schedule on both clocks, case P01 of the contract first."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tailrace import App, Context, Log, Processor, Record, Stream, milliseconds, tumbling
from tailrace.errors import TaskError
from tailrace.log.clock import ManualClock
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.processors import Calls, Row, called, passed_on, pipe, rows, text_app, written
from tailrace.tests.support.source import ROOT

ms = milliseconds

P01: list[dict[str, Any]] = next(
    case["steps"]
    for case in json.loads((ROOT / "tests" / "contract" / "semantics.json").read_text("utf-8"))["cases"]
    if case["id"] == "P01"
)


class Punctual(Processor[str, str, str, str]):
    """The processor of case P01."""

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        ctx.schedule(ms(10), lambda now: ctx.forward("ST", str(now)), clock="stream")
        ctx.schedule(ms(10), lambda now: ctx.forward("WC", str(now)), clock="wall")

    def process(self, record: Record[str, str]) -> None:
        self.ctx.forward(record.key, record.value)


def outputs(step: dict[str, Any]) -> list[Row]:
    return [(out["key"], out["value"], out["ts"]) for out in step["out"]]


@pytest.mark.parametrize("cache", [False, True])
def test_p01_step_by_step(cache: bool) -> None:
    with TopologyDriver(text_app(lambda _app, stream: stream.process(Punctual)), cache=cache) as driver:
        for number, step in enumerate(P01, 1):
            given = step["in"]
            if isinstance(given, str):
                driver.advance_wall_clock(ms(int(given.removeprefix("wall clock +"))))
            else:
                driver.pipe("in", given["value"], key=given["key"], timestamp_ms=given["ts"])
            assert rows(driver) == outputs(step), f"step {number}"


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_p01_in_production_and_over_restarts(restart: bool, cache_bytes: int) -> None:
    """A schedule is made anew at every start, and no output shows it."""
    steps = [step for step in P01 if not isinstance(step["in"], str)]
    wanted: list[Row] = []
    with Log.open("memory:") as log:
        log.create_topic("in")
        for number, step in enumerate(steps, 1):
            feed(log, "in", [(step["in"]["key"], step["in"]["value"], step["in"]["ts"])])
            wanted += [(key, value.encode(), ts) for key, value, ts in outputs(step)]
            if restart or number == len(steps):
                app = text_app(lambda _app, stream: stream.process(Punctual), log=log, cache_bytes=cache_bytes)
                app.run(until="end")
                # The wall clock is the machine's here, and a slow one may have its call.
                assert [row for row in written(log) if row[0] != "WC"] == wanted, f"step {number}"


def test_a_scheduled_call_has_no_record_and_may_use_stores() -> None:
    def init(ctx: Context[Any, Any]) -> None:
        def call(now: int) -> None:
            assert ctx.record is None
            assert ctx.stream_time_ms == now
            for key, value in ctx.store("s").all():
                ctx.forward(key, value, timestamp_ms=now - 1, headers=[("by", b"clock")])
                ctx.store("s").delete(key)

        ctx.schedule(ms(10), call, clock="stream")

    app = called(
        lambda ctx, r: ctx.store("s").put(r.key, r.value), init, lambda app: [app.store("s", key=str, value=str)]
    )
    with TopologyDriver(app) as driver:
        assert pipe(driver, ("a", "1", 1)) == [("a", "1", 0)]
        assert pipe(driver, ("a", "2", 2), ("b", "3", 3)) == []
        driver.pipe("in", "4", key="c", timestamp_ms=27)
        records = driver.read("out")
        assert [(r.key, r.timestamp_ms, list(r.headers)) for r in records] == [
            (key, 26, [("by", b"clock")]) for key in "abc"
        ]


def test_results_that_lag_behind_are_held_back_and_still_not_late() -> None:
    """Behind a window that is sent when it closes, time is that much earlier, in scheduled calls too."""

    def make(app: App, stream: Stream[str, str]) -> Stream[str, int]:
        first = stream.group_by_key().windowed_by(tumbling(ms(10))).count(store="first", emit="close")
        held: Stream[str, str] = first.changes().process(
            lambda: Calls(
                lambda ctx, r: ctx.store("s").put(str(r.timestamp_ms), r.key.key),
                lambda ctx: ctx.schedule(ms(1), lambda _now: send(ctx), clock="stream"),
            ),
            stores=[app.store("s", key=str, value=str)],
        )
        again = held.group_by_key(name="again").windowed_by(tumbling(ms(10))).count(store="second")
        return again.changes().map_kv(lambda w, n: (f"{w.key}@{w.start_ms}", n))

    def send(ctx: Context[Any, Any]) -> None:
        for key, value in ctx.store("s").all():
            ctx.forward(value, value, timestamp_ms=int(key))
            ctx.store("s").delete(key)

    with TopologyDriver(text_app(make, int)) as driver:
        assert pipe(driver, ("a", "", 1), ("b", "", 12), ("b", "", 25)) == [("a@0", 1, 1), ("b@10", 1, 12)]
        assert driver.dropped == {}


class Racing(ManualClock):
    """Goes on by 10 ms at every look."""

    def now_ms(self) -> int:
        self.advance(10)
        return super().now_ms()


def test_the_wall_clock_does_not_put_off_the_end() -> None:
    """A schedule shorter than a commit is always due: with until="end" it is looked at while there is work."""
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("k", "v", 1)])
        app = called(passed_on, lambda ctx: ctx.schedule(ms(1), lambda now: ctx.forward("tick", "x"), clock="wall"))
        app.options = replace(app.options, log=log)
        app.clock = Racing()
        assert app.run(until="end").records_in == 1
        assert [key for key, _, _ in written(log)] == ["k", "tick"]


def test_a_cancelled_schedule_is_not_called() -> None:
    calls: list[int] = []

    def init(ctx: Context[Any, Any]) -> None:
        def once(now: int) -> None:
            calls.append(now)
            for cancel in cancels:
                cancel()

        cancels = [ctx.schedule(ms(5), once, clock="stream") for _ in range(3)]

    with TopologyDriver(called(passed_on, init)) as driver:
        pipe(driver, ("a", "1", 1), ("a", "1", 7), ("a", "1", 70))
        assert calls == [1]


def test_a_schedule_that_a_record_makes_begins_after_it() -> None:
    """Kafka's way: made while a record is processed, it is due at once."""
    log: list[Any] = []

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        log.append(record.value)
        if record.value == "go":
            ctx.schedule(ms(10), log.append, clock="stream")

    with TopologyDriver(called(process)) as driver:
        pipe(driver, ("k", "a", 3), ("k", "go", 13), ("k", "b", 14), ("k", "c", 19), ("k", "d", 25))
        assert log == ["a", "go", 13, "b", "c", "d", 25]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((timedelta(0), print, "stream"), "above 0"),
        ((timedelta(microseconds=1), print, "wall"), "whole number"),
        ((ms(1), print, "sun"), "neither"),
        ((ms(1), "f", "wall"), "function"),
        ((1, print, "wall"), "timedelta"),
    ],
)
def test_what_schedule_refuses(arguments: tuple[Any, Any, Any], error: str) -> None:
    every, f, clock = arguments
    app = called(passed_on, lambda ctx: ctx.schedule(every, f, clock=clock))
    with pytest.raises(TaskError, match=f"(ValueError|TypeError) in process-1 .*start of task 0_0.*{error}"):
        TopologyDriver(app)


def test_stream_time_behind_a_repartition_is_the_slowest_writers() -> None:
    calls: list[int] = []

    def make(app: App, stream: Stream[str, str]) -> Stream[str, str]:
        counts = stream.group_by(lambda value: value).count(store="n").changes()
        return counts.process(lambda: Calls(passed_on, lambda c: c.schedule(ms(10), calls.append, clock="stream")))

    app = text_app(make, int)
    with TopologyDriver(app, partitions=2) as driver:
        driver.pipe("in", "x", key="k", timestamp_ms=15, partition=0)
        assert calls == []
        driver.pipe("in", "x", key="k", timestamp_ms=12, partition=1)
        assert calls == [12, 12]  # both tasks behind it
        driver.pipe("in", "x", key="k", timestamp_ms=31, partition=1)
        assert calls == [12, 12]
        driver.advance_wall_clock(ms(1))
        assert calls[2:] == [31, 31]


def test_the_output_of_a_scheduled_call_is_late_only_where_windows_are_closed() -> None:
    def make(app: App, stream: Stream[str, str]) -> Stream[str, int]:
        held: Stream[str, str] = stream.process(
            lambda: Calls(
                lambda ctx, r: ctx.store("s").put(f"{r.timestamp_ms:03}", r.value),
                lambda ctx: ctx.schedule(ms(20), lambda _now: send(ctx), clock="stream"),
            ),
            stores=[app.store("s", key=str, value=str)],
        )
        windows = held.group_by_key().windowed_by(tumbling(ms(10), grace=ms(30)))
        return windows.count(store="n").changes().map_kv(lambda w, n: (f"{w.key}@{w.start_ms}", n))

    def send(ctx: Context[Any, Any]) -> None:
        for key, value in ctx.store("s").all():
            ctx.forward(value, value, timestamp_ms=int(key))
            ctx.store("s").delete(key)

    with TopologyDriver(text_app(make, int)) as driver:
        pipe(driver, ("k", "a", 1))
        assert pipe(driver, ("k", "a", 12), ("k", "b", 14), ("k", "c", 22)) == [
            ("a@10", 1, 12),
            ("b@10", 1, 14),
            ("c@20", 1, 22),
        ]
        assert pipe(driver, ("k", "d", 23), ("k", "e", 100)) == [("e@100", 1, 100)]
        assert driver.dropped == {"late": 1}


def test_the_wall_clock_wakes_an_app_that_has_nothing_to_read() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        app: App

        def init(ctx: Context[Any, Any]) -> None:
            times: list[int] = []

            def call(now: int) -> None:
                times.append(now)
                ctx.store("s").put("calls", len(times))
                ctx.forward("tick", str(len(times)))
                if len(times) == 3:
                    app.stop()

            ctx.schedule(ms(2), call, clock="wall")

        app = text_app(
            lambda app, stream: stream.process(
                lambda: Calls(passed_on, init), stores=[app.store("s", key=str, value=int)]
            ),
            log=log,
        )
        app.run()
        assert [(key, value) for key, value, _ in written(log)] == [("tick", b"1"), ("tick", b"2"), ("tick", b"3")]
        assert [record.value for record in contents(log, "app-s-changelog")][-1] == (3).to_bytes(8, "big")


def test_process_values_has_no_key_in_a_scheduled_call() -> None:
    app = text_app(
        lambda _app, stream: stream.process_values(
            lambda: Calls(passed_on, lambda c: c.schedule(ms(5), lambda _now: c.forward("k", "x"), clock="stream"))
        )
    )
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=r"scheduled call.*use process"):
        pipe(driver, ("k", "v", 1))
