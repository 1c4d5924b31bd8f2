"""Processors made of functions, in an app of one input and one output, and what comes out of it."""

from collections.abc import Callable, Iterable
from typing import Any

from tailrace import App, Context, Log, Processor, Record, Store, Stream
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents

Row = tuple[Any, Any, int]
"""Key, value and timestamp of a record."""


class Calls(Processor[Any, Any, Any, Any]):
    """Hands its context and its records to functions of the test."""

    def __init__(
        self,
        process: Callable[[Context[Any, Any], Record[Any, Any]], object],
        init: Callable[[Context[Any, Any]], object] = lambda _ctx: None,
    ) -> None:
        self.on_process, self.on_init = process, init

    def init(self, ctx: Context[Any, Any]) -> None:
        self.ctx = ctx
        self.on_init(ctx)

    def process(self, record: Record[Any, Any]) -> None:
        self.on_process(self.ctx, record)


def passed_on(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
    ctx.forward(record.key, record.value)


def text_app(make: Callable[[App, Stream[str, str]], Stream[str, Any]], value: Any = str, **options: Any) -> App:
    """An app from "in" to "out", both of text keys."""
    app = App("app", **options)
    stream = make(app, app.stream(app.topic("in", key=str, value=str)))
    stream.to(app.topic("out", key=str, value=value))
    return app


def called(
    process: Callable[[Context[Any, Any], Record[Any, Any]], object],
    init: Callable[[Context[Any, Any]], object] = lambda _ctx: None,
    stores: Callable[[App], Iterable[Store[Any, Any]]] = lambda _app: (),
) -> App:
    """An app of one processor made of functions."""
    return text_app(lambda app, stream: stream.process(lambda: Calls(process, init), stores=list(stores(app))))


def rows(driver: TopologyDriver, topic: str = "out") -> list[Row]:
    return [(record.key, record.value, record.timestamp_ms) for record in driver.read(topic)]


def written(log: Log, topic: str = "out") -> list[Row]:
    return [((record.key or b"").decode(), record.value, record.timestamp_ms) for record in contents(log, topic)]


def pipe(driver: TopologyDriver, *records: tuple[str | None, str | None, int]) -> list[Row]:
    for key, value, timestamp_ms in records:
        driver.pipe("in", value, key=key, timestamp_ms=timestamp_ms)
    return rows(driver)
