"""Clocks: the machine's two, and one that a test moves."""

import pytest

from tailrace.log.clock import ManualClock, SystemClock


def test_the_machines_clocks() -> None:
    clock = SystemClock()
    assert clock.now_ms() > 1_700_000_000_000
    assert clock.monotonic() <= clock.monotonic()


def test_a_clock_that_is_moved() -> None:
    clock = ManualClock(1000)
    clock.advance(250)
    assert (clock.now_ms(), clock.monotonic()) == (1250, 0.25)
    clock.set_ms(5)
    assert (clock.now_ms(), clock.monotonic()) == (5, 0.25)
    with pytest.raises(ValueError, match="time does not go back: -1 ms"):
        clock.advance(-1)
