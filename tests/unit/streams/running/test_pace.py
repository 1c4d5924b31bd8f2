"""When a commit is due."""

import pytest

from tailrace.log.clock import ManualClock
from tailrace.streams.running.pace import OPEN_S, Pace


def paces(*, eager: bool) -> tuple[ManualClock, Pace]:
    clock = ManualClock()
    return clock, Pace(clock, 0.2, eager=eager)


def test_at_the_interval() -> None:
    clock, pace = paces(eager=False)
    for caught_up in (True, False):
        assert pace.left(caught_up=caught_up) == pytest.approx(0.2)
    clock.advance(150)
    assert pace.left(caught_up=True) == pytest.approx(0.05)
    pace.committed(clock.monotonic())
    assert pace.left(caught_up=True) == pytest.approx(0.2)


def test_eager_soon_after_everything_was_read() -> None:
    clock, pace = paces(eager=True)
    assert pace.left(caught_up=True) <= 0
    assert pace.left(caught_up=False) == pytest.approx(0.2)
    began = clock.monotonic()
    clock.advance(1)
    pace.committed(began)
    assert pace.left(caught_up=True) == pytest.approx(0.01)
    clock.advance(300)
    pace.begin()  # nothing came for a while: the next record need not wait
    assert pace.left(caught_up=True) <= 0


@pytest.mark.parametrize(("took_ms", "left_s"), [(2, 0.01), (10, 0.04), (40, 0.16), (100, 0.2), (1_000, 0.2)])
def test_commits_take_a_part_of_the_time(took_ms: int, left_s: float) -> None:
    clock, pace = paces(eager=True)
    began = clock.monotonic()
    clock.advance(took_ms)
    pace.committed(began)
    assert pace.left(caught_up=True) == pytest.approx(left_s)


def test_a_commit_that_somebody_held_up_delays_none_after_it() -> None:
    clock, pace = paces(eager=True)
    for took_ms in (5, 40, 60):
        began = clock.monotonic()
        clock.advance(took_ms)
        pace.committed(began)
        assert pace.left(caught_up=True) == pytest.approx(0.02)
    for _ in range(8):  # the disk is slower by now
        began = clock.monotonic()
        clock.advance(40)
        pace.committed(began)
    assert pace.left(caught_up=True) == pytest.approx(0.16)


def test_what_was_sent_ahead_does_not_wait_for_long() -> None:
    clock = ManualClock()
    pace = Pace(clock, 60, eager=False)
    pace.sent_ahead()
    assert pace.left(caught_up=False) == pytest.approx(OPEN_S)
    clock.advance(1_000)
    pace.sent_ahead()
    assert pace.left(caught_up=False) == pytest.approx(OPEN_S - 1)
