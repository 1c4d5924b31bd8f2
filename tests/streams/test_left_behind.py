"""A state directory that was left behind while others went on: what was deleted meanwhile is not there again."""

from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.record import Record
from tailrace.streams.app import App
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.program.store import Store
from tailrace.tests.support.engine import contents, feed

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
CHANGELOG = "keeper-kept-changelog"


class Keep(Processor[str, str, str, str]):
    """Keeps the last value of each key, forgets those that say so, and tells all of it when asked."""

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        self.kept: Store[str, str] = ctx.store("kept")

    def process(self, record: Record[str, str]) -> None:
        if record.value == "?":
            self.ctx.forward(record.key, ",".join(f"{key}={value}" for key, value in sorted(self.kept.all())))
        elif record.value == "-":
            self.kept.delete(record.key)
        else:
            self.kept.put(record.key, record.value)


def keeper(log: Log, state: Path, clock: ManualClock) -> App:
    app = App("keeper", log=log, state_dir=str(state))
    app.clock = clock
    store = app.store("kept", key=str, value=str)
    changes = app.stream(app.topic("changes", key=str, value=str))
    changes.process(Keep, stores=[store]).to(app.topic("told", key=str, value=str))
    return app


@pytest.mark.parametrize(
    ("away_ms", "others", "rebuilt"),
    [(HOUR_MS, True, False), (3 * DAY_MS, True, True), (3 * DAY_MS, False, False)],
)
def test_what_was_deleted_stays_deleted(
    away_ms: int, others: bool, rebuilt: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(1_700_000_000_000)
    with Log.open("memory:", clock=clock, background=False) as log:
        log.create_topic("changes")
        feed(log, "changes", [("a", "1", 1), ("b", "1", 1)])
        keeper(log, tmp_path / "left", clock).run(until="end")
        log.alter_topic(CHANGELOG, config={"segment.ms": 1, "min.cleanable.dirty.ratio": 0.0})
        if others:
            feed(log, "changes", [("a", "-", 2), ("c", "1", 2)])
            keeper(log, tmp_path / "others", clock).run(until="end")
        for _ in range(3):  # a deletion goes a day after compaction has seen it first
            clock.advance(away_ms // 3)
            if others:
                feed(log, "changes", [("c", "2", 3)])
                keeper(log, tmp_path / "others", clock).run(until="end")
            log.compact(CHANGELOG)
        gone = others and not any(row.key == b"a" for row in contents(log, CHANGELOG))
        assert gone is rebuilt, "this is what it is about"
        feed(log, "changes", [("z", "?", 4)])
        caplog.clear()
        keeper(log, tmp_path / "left", clock).run(until="end")
        assert [row.value for row in contents(log, "told")] == [b"b=1,c=2" if others else b"a=1,b=1"]
    assert ("store kept is rebuilt from its changelog" in caplog.text) is rebuilt
    assert ("(delete.retention.ms), so a deletion may be missing" in caplog.text) is rebuilt
