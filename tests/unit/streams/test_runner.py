"""How the runner shares its time out."""

from itertools import pairwise

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.streams.app import App
from tailrace.streams.runner import Runner
from tailrace.tests.support.engine import contents
from tailrace.windows.duration import milliseconds


def test_slow_functions_do_not_hold_a_commit_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, commits = ManualClock(), list[float]()
    commit = Runner.commit

    def counted(runner: Runner) -> None:
        commits.append(clock.monotonic())
        commit(runner)

    monkeypatch.setattr(Runner, "commit", counted)
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer(batch_bytes=1 << 20) as producer:
            producer.send_many("in", [b"v"] * 3_000, timestamps_ms=[0] * 3_000)
        app = App("slow", log=log, commit_interval=milliseconds(100))
        app.clock = clock

        ran = 0

        def slow(value: str) -> str:
            nonlocal ran
            ran += 1
            if ran > 1_500:  # in the middle of a slice
                clock.advance(50)
            return value

        app.stream(app.topic("in", key=str, value=str)).map(slow).to(app.topic("out", key=str, value=str))
        app.run(until="end")
        assert len(contents(log, "out")) == 3_000
    gaps = [later - earlier for earlier, later in pairwise(commits)]
    # 250 calls of 50 ms pass at most before the clock is looked at.
    assert max(gaps) <= 12.6
    assert len(gaps) > 100
    assert max(gaps[20:]) <= 0.2
