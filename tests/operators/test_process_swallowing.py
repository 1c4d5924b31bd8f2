"""A processor that catches what goes wrong behind its `forward`: the task fails all the same, and nothing is kept."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tailrace import App, Context, Log, Record, Stream
from tailrace.errors import TaskError
from tailrace.log.record import TopicPartition
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.processors import Calls, text_app


def boom(value: str) -> str:
    if value == "bad":
        raise LookupError("no such thing")
    return value


def swallowing(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
    with contextlib.suppress(Exception):
        ctx.forward(record.key, record.value, headers=[("x", None)])
    assert ctx.record is record


def app_of(process: Callable[[Context[Any, Any], Record[Any, Any]], object], **options: Any) -> App:
    def make(_app: App, stream: Stream[str, str]) -> Stream[str, str]:
        made: Stream[str, str] = stream.process(lambda: Calls(process))
        return made.group_by_key(name="by-key").reduce(lambda _a, b: b, store="last").changes().map(boom)

    return text_app(make, **options)


def test_what_is_caught_ends_the_task_with_its_own_node_and_record() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("k", "good", 1), ("k", "bad", 2), ("k", "later", 3)])
        with pytest.raises(TaskError, match=r"LookupError in map-\d+ .*test_process_swallowing\.py:\d+.*no such thing"):
            app_of(swallowing, log=log, cache_bytes=0).run(until="end")
        assert not contents(log, "out")
        assert log.committed_offsets("app")[TopicPartition("in", 0)].offset == 0


def test_the_record_is_named_and_the_processor_ended_as_ever() -> None:
    closed: list[Any] = []

    class Closing(Calls):
        def close(self) -> None:
            closed.append(self.ctx.record)
            with pytest.raises(RuntimeError, match="nothing else can send"):
                self.ctx.forward("k", "v")

    app = text_app(lambda _app, stream: stream.process(lambda: Closing(swallowing)).map(boom))
    with TopologyDriver(app) as driver:
        driver.pipe("in", "good", key="k")
        with pytest.raises(TaskError, match=r"LookupError in map-\d+ .* at in-0@1: no such thing"):
            driver.pipe("in", "bad", key="k")
        with pytest.raises(Exception, match="has ended with TaskError"):
            driver.pipe("in", "good", key="k")
        assert not closed
    assert closed == [None]


def test_what_a_scheduled_call_catches() -> None:
    def call(ctx: Context[Any, Any]) -> Callable[[int], None]:
        def at(_now_ms: int) -> None:
            with contextlib.suppress(Exception):
                ctx.forward("k", "bad")

        return at

    def start(ctx: Context[Any, Any]) -> None:
        ctx.schedule(timedelta(seconds=1), call(ctx), clock="wall")

    app = text_app(lambda _app, stream: stream.process(lambda: Calls(lambda _ctx, _r: None, start)).map(boom))
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=r"LookupError in map-\d+ .* scheduled on"):
        driver.advance_wall_clock(timedelta(seconds=1))


def test_what_forward_itself_refuses_may_be_caught() -> None:
    """Nothing was sent: the processor may go on with something else."""

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        with pytest.raises(ValueError, match="before 1970"):
            ctx.forward(record.key, "early", timestamp_ms=-1)
        ctx.forward(record.key, "in time")

    with TopologyDriver(text_app(lambda _app, stream: stream.process(lambda: Calls(process)))) as driver:
        driver.pipe("in", "v", key="k")
        assert [row.value for row in driver.read("out")] == ["in time"]


def test_another_error_in_its_place_names_the_processor() -> None:
    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        try:
            ctx.forward(record.key, record.value)
        except Exception as error:
            raise RuntimeError("mine") from error

    app = text_app(lambda _app, stream: stream.process(lambda: Calls(process)).map(boom))
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=r"RuntimeError in process-\d+ .*: mine"):
        driver.pipe("in", "bad", key="k")


def test_what_no_policy_takes_is_not_forgotten_for_an_error_that_one_takes() -> None:
    """Nor is anything done after it: what is behind has taken a part of a record."""
    came: list[str] = []

    def raising(value: str) -> str:
        came.append(value)
        if value == "no memory":
            raise MemoryError(value)
        return boom(value)

    def one_after_the_other(ctx: Context[Any, Any], _record: Record[Any, Any]) -> None:
        for value in ("good", "no memory", "bad", "good"):
            with contextlib.suppress(Exception):
                ctx.forward("k", value)

    app = text_app(
        lambda _app, stream: stream.process(lambda: Calls(one_after_the_other)).map(raising), on_error="skip"
    )
    with (
        TopologyDriver(app) as driver,
        pytest.raises(TaskError, match=r"MemoryError in map-\d+ .* at in-0@0: no memory"),
    ):
        driver.pipe("in", "v", key="k")
    assert came == ["good", "no memory"]


@pytest.mark.parametrize("scheduled", [False, True])
def test_what_no_policy_takes_is_not_forgotten_for_what_a_processor_makes_of_it(scheduled: bool) -> None:
    def raising(_value: str) -> str:
        raise MemoryError("no memory")

    def send(ctx: Context[Any, Any]) -> None:
        try:
            ctx.forward("k", "v")
        except MemoryError as error:
            raise LookupError("mine") from error

    def start(ctx: Context[Any, Any]) -> None:
        if scheduled:
            ctx.schedule(timedelta(seconds=1), lambda _now_ms: send(ctx), clock="wall")

    def process(ctx: Context[Any, Any], _record: Record[Any, Any]) -> None:
        if not scheduled:
            send(ctx)

    app = text_app(lambda _app, stream: stream.process(lambda: Calls(process, start)).map(raising), on_error="skip")
    with TopologyDriver(app) as driver:
        if scheduled:
            driver.pipe("in", "v", key="k")
        with pytest.raises(TaskError, match=r"MemoryError in map-\d+ .*: no memory"):
            driver.advance_wall_clock(timedelta(seconds=2)) if scheduled else driver.pipe("in", "v", key="k")
