"""The wall clock is set back under a running app: what goes by it waits for its interval, and not for the same time."""

from collections.abc import Callable

import pytest

from tailrace import App, Context, Processor, Record, Store, Stream, seconds
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, feed

NOW_MS = 1_700_000_000_000


class Tell(Processor[str, str, str, str]):
    """Tells every 5 s of what has come since."""

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        self.last: Store[str, str] = ctx.store("last")
        ctx.schedule(seconds(5), self.tell, clock="wall")

    def process(self, record: Record[str, str]) -> None:
        self.last.put(record.key, record.value)

    def tell(self, _: int) -> None:
        for key, value in list(self.last.all()):
            self.ctx.forward(key, value)
            self.last.delete(key)


def scheduled(app: App) -> Stream[str, str]:
    last = app.store("last", key=str, value=str)
    return app.stream(app.topic("in", key=str, value=str)).process(Tell, stores=[last])


def throttled(app: App) -> Stream[str, str]:
    return app.table(app.topic("in", key=str, value=str), store="rows").throttle(seconds(5), store="held").changes()


@pytest.mark.parametrize("program", [scheduled, throttled])
def test_what_waits_is_sent_after_its_interval(program: Callable[[App], Stream[str, str]]) -> None:
    clock = ManualClock(NOW_MS)
    with Log.open("memory:", clock=clock, background=False) as log:
        log.create_topic("in")
        app = App("app", log=log, cache_bytes=0)
        program(app).to(app.topic("out", key=str, value=str))
        run = Driven(app, log, clock)

        def found() -> list[bytes | None]:
            run.run()
            run.commit()
            return [record.value for record in contents(log, "out")]

        feed(log, "in", [("k", "a", NOW_MS)])
        run.run()
        clock.advance(5_000)
        assert found() == [b"a"]
        clock.advance(1_000)
        run.run()
        feed(log, "in", [("k", "b", NOW_MS), ("k", "c", NOW_MS)])
        first = found()
        clock.set_ms(NOW_MS - 7_200_000)
        assert found() == first
        clock.advance(5_000)
        assert found()[-1] == b"c"
        run.end()
