"""Loading beside the run: in order, handed over once, and broken off where it is not wanted."""

import threading

import pytest

from tailrace.log.record import TopicPartition
from tailrace.streams.chain.positions import BrokenOffError
from tailrace.streams.planning.plan import Loaded
from tailrace.streams.planning.units import Unit
from tailrace.streams.running.loading import Loader
from tailrace.streams.task import TaskId
from tailrace.tests.support.waiting import wait_until

A, B, C = (Unit((TaskId(0, number),), (TopicPartition("t", number),)) for number in range(3))


class Loads:
    """Loads when it is told to; B never, so it must be broken off; C fails."""

    def __init__(self) -> None:
        self.began: list[Unit] = []
        self.ended: list[Unit] = []
        self.go_on = threading.Event()
        self.woken = 0

    def load(self, unit: Unit, unwanted: threading.Event) -> Loaded:
        self.began.append(unit)
        try:
            assert self.go_on.wait(20)
            if unit == C:
                raise ValueError("damaged")
            if unit == B:
                assert unwanted.wait(20)
                raise BrokenOffError("not wanted")
            return Loaded(unit, {}, {})
        finally:
            self.ended.append(unit)

    def wake(self) -> None:
        self.woken += 1


def test_units_come_one_after_the_other_and_once() -> None:
    loads = Loads()
    loader = Loader(loads.load, loads.wake)
    loader.begin(A)
    assert loader.take() == []
    loads.go_on.set()
    wait_until(lambda: loads.woken == 1)
    assert [each.unit for each in loader.take()] == [A]
    assert loader.take() == []
    loader.begin(A)  # it went, and came again
    wait_until(lambda: loads.woken == 2)
    loader.forget(A)
    assert loader.take() == []
    loader.close()


def test_what_is_forgotten_is_broken_off_and_the_others_are_loaded_all_the_same() -> None:
    loads = Loads()
    loads.go_on.set()
    loader = Loader(loads.load, loads.wake)
    loader.begin(B)
    loader.begin(A)
    wait_until(lambda: loads.began == [B])
    loader.forget(B)
    assert loads.ended[0] == B, "nobody touches it any more"
    wait_until(lambda: loads.woken == 1)
    assert [each.unit for each in loader.take()] == [A]
    loader.close()


def test_what_waits_is_forgotten_without_a_word() -> None:
    loads = Loads()
    loader = Loader(loads.load, loads.wake)
    loader.begin(A)
    loader.begin(B)
    loader.forget(B)
    loads.go_on.set()
    wait_until(lambda: loads.woken == 1)
    loader.close()
    assert loads.began == [A]


def test_what_goes_wrong_is_raised_where_it_is_taken() -> None:
    loads = Loads()
    loads.go_on.set()
    loader = Loader(loads.load, loads.wake)
    loader.begin(C)
    wait_until(lambda: loads.woken == 1)
    with pytest.raises(ValueError, match="damaged"):
        loader.take()
    loader.close()


def test_close_breaks_everything_off() -> None:
    loads = Loads()
    loads.go_on.set()
    loader = Loader(loads.load, loads.wake)
    loader.begin(B)
    loader.begin(A)
    wait_until(lambda: loads.began == [B])
    loader.close()
    assert loads.ended == [B]
    assert loader.take() == []
