"""Processors of tasks that go from one member to another and come back: each task has one, and errors name it."""

from tailrace import App, Context, Processor, Record
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, feed


class Kept(Processor[str, str, str, str]):
    """One that a factory hands out again once it is closed: as memory does with the ids of what is gone."""

    def __init__(self, closed: "list[Kept]") -> None:
        self._closed = closed

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx

    def process(self, record: Record[str, str]) -> None:
        self.ctx.forward(record.key, record.value)

    def close(self) -> None:
        self._closed.append(self)


def app_of(log: Log, closed: list[Kept]) -> App:
    app = App("app", log=log)
    stream = app.stream(app.topic("in", key=str, value=str)).process(lambda: closed.pop() if closed else Kept(closed))
    stream.to(app.topic("out", key=str, value=str))
    return app


def test_an_id_that_comes_again_is_no_processor_that_comes_twice() -> None:
    with Log.open("memory:", background=False) as log:
        log.create_topic("in", partitions=4)
        clock, closed = ManualClock(), list[Kept]()
        stays = Driven(app_of(log, closed), log, clock)
        moved = 0
        for round_ in range(4):
            comes = Driven(app_of(log, []), log, clock, number=1)
            for _ in range(4):
                stays.run()
                comes.run()
            moved += len(comes.plan.tasks)
            comes.end()
            stays.run()
            assert len(stays.plan.tasks) == 4
            for partition in range(4):
                feed(log, "in", [("k", f"{round_} {partition}", 1)], partition)
            stays.run()
            stays.commit()
        assert moved >= 4, "tasks have gone and come back"
        stays.end()
        assert len(contents(log, "out")) == 16
