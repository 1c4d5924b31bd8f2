"""A replay works in pieces and rests beside running apps, never alone, and is not starved."""

import sys
import threading
from collections.abc import Generator

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.streams.app import App
from tailrace.streams.running.precedence import PATIENCE_S, GivingWay, Precedence, precedence_on, switching_often
from tailrace.streams.start import started
from tailrace.tests.support.engine import contents


@pytest.fixture
def log() -> Generator[Log]:
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer() as producer:
            producer.send_many("in", [b"v"] * 10)
        yield log


def copying(log: Log, name: str, seen: list[bool]) -> App:
    """Copies, and notes for each record whether an app that goes first was at rest."""
    app = App(name, log=log)

    def note(value: str) -> str:
        seen.append(precedence_on(log).wait_for_rest(0))
        return value

    app.stream(app.topic("in", key=str, value=str)).map(note).to(app.topic(f"{name}-out", key=str, value=str))
    return app


class Waits:
    """Passes the time on a manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.waited: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.clock.advance(round(seconds * 1000))


def test_pieces_and_rests_beside_running_apps_alone(log: Log) -> None:
    clock = ManualClock()
    way, wait = GivingWay(log, 0.25, clock), Waits(clock)
    clock.advance(100)
    way.pause(wait)
    assert (way.beside, wait.waited) == (False, [])
    with precedence_on(log).run():
        assert way.beside
        clock.advance(1)
        way.pause(wait)
        assert wait.waited == [], "the piece is not over"
        clock.advance(9)
        way.pause(wait)
        assert wait.waited == [pytest.approx(0.03)], "a quarter of the time"
        way.pause(wait)
        assert len(wait.waited) == 1, "a rest is no work"
    clock.advance(100)
    way.pause(wait)
    assert len(wait.waited) == 1


def test_it_rests_until_all_that_go_first_do(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    clock, first = ManualClock(), precedence_on(log)
    way = GivingWay(log, 1.0, clock)
    asked: list[float] = []

    def noted(_: Precedence, timeout: float) -> bool:
        asked.append(timeout)
        return True

    monkeypatch.setattr(Precedence, "wait_for_rest", noted)
    with first.run():
        clock.advance(10)
        way.pause(lambda _: None)
    assert asked == [PATIENCE_S], "no longer, or it would be starved"


def test_who_is_at_work_is_waited_for() -> None:
    first, begun, returned = Precedence(), threading.Event(), list[bool]()
    assert first.wait_for_rest(0)

    def wait() -> None:
        begun.set()
        returned.append(first.wait_for_rest(60))

    waiting = threading.Thread(target=wait)
    with first:
        with first:
            assert not first.wait_for_rest(0)
        assert not first.wait_for_rest(0), "another is still at work"
        waiting.start()
        begun.wait()
        assert not returned
    waiting.join()
    assert returned == [True]


def test_an_app_is_at_work_while_it_runs_records_and_a_replay_is_not(log: Log) -> None:
    live, again = list[bool](), list[bool]()
    copying(log, "live", live).run(until="end")
    assert live == [False] * 10
    with copying(log, "live", again).replay(into="v2") as job:
        job.run()
    assert again == [True] * 10
    assert precedence_on(log).wait_for_rest(0)
    assert precedence_on(log).running == 0


def test_what_restoring_took_before_the_run_is_not_rested_for(log: Log) -> None:
    clock = ManualClock()
    way, wait = GivingWay(log, 0.5, clock), Waits(clock)
    app = copying(log, "again", [])
    clock.advance(60_000)
    with precedence_on(log).run(), started(app.describe(), app.options, app.clock, gives_way=way):
        way.pause(wait)
    assert wait.waited == []


def test_way_is_given_before_a_store_is_opened_and_in_the_middle_of_a_commit(log: Log) -> None:
    states: list[tuple[int, int]] = []

    class Noting(GivingWay):
        def let_first(self) -> None:
            self.pause(None)

        def pause(self, wait: object) -> None:
            del wait
            written = sum(log.offsets("again-out", isolation="read_uncommitted").values())
            states.append((written, sum(log.committed("again").values())))

    app = copying(log, "again", [])
    with started(app.describe(), app.options, app.clock, gives_way=Noting(log, 0.5, app.clock)) as runner:
        assert states == [(0, 0)]
        runner.run(until_end=True)
    assert states.count((0, 0)) > 4, "after slices, and between the steps of the commit"
    assert states[-1][1] == 10, "what is committed is followed by a write to the stores"
    assert len(contents(log, "again-out")) == 10


def test_the_interpreter_is_handed_over_as_before_when_the_last_has_ended() -> None:
    before = sys.getswitchinterval()
    first, second = switching_often(), switching_often()
    with first:
        often = sys.getswitchinterval()
        assert often < before
        second.__enter__()
    assert sys.getswitchinterval() == often, "another replay runs"
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == before
