"""Schedules against the rule written out: first at its due time, then at the first call past another interval."""

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.streams.chain.schedule import NONE_DUE, Schedule, Schedules


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.lists(st.integers(0, 15), max_size=30))
def test_one_call_for_each_interval_that_time_gets_into(every_ms: int, steps: list[int]) -> None:
    schedules, calls = Schedules(), list[int]()
    schedules.add(Schedule(calls.append, every_ms, 0))
    now, wanted, reached = 0, list[int](), -1
    for step in steps:
        now += step
        if now >= schedules.next_ms:
            schedules.run(now)
        if now // every_ms > reached:
            wanted.append(now)
            reached = now // every_ms
        assert calls == wanted
        assert schedules.next_ms > now


def test_those_due_together_go_by_due_time_then_as_made() -> None:
    schedules, calls = Schedules(), list[str]()

    def note(name: str, _now: int) -> None:
        calls.append(name)

    for name, due_ms in (("late", 9), ("first", 5), ("second", 5)):
        schedules.add(Schedule(partial(note, name), 100, due_ms))
    schedules.run(10)
    assert calls == ["first", "second", "late"]


def test_cancelled_while_others_are_called_and_made_meanwhile() -> None:
    schedules, calls = Schedules(), list[str]()
    second = Schedule(lambda _now: calls.append("second"), 10, 0)

    def first(now: int) -> None:
        calls.append("first")
        second.cancel()
        schedules.add(Schedule(lambda _now: calls.append("third"), 10, now))

    schedules.add(Schedule(first, 10, 0))
    schedules.add(second)
    schedules.run(3)
    assert calls == ["first"]
    assert schedules.next_ms == 3
    schedules.run(4)
    assert calls == ["first", "third"]


def test_nothing_is_due_where_there_is_nothing() -> None:
    schedules = Schedules()
    assert schedules.next_ms == NONE_DUE
    schedules.run(1)
    assert schedules.next_ms == NONE_DUE


def test_a_clock_that_is_set_back_puts_nothing_off_by_more_than_its_interval() -> None:
    schedules, calls = Schedules(), list[int]()
    schedules.add(Schedule(calls.append, 10, 1_010))
    schedules.add(Schedule(calls.append, 100, 1_020))
    schedules.add(Schedule(calls.append, 5, NONE_DUE))
    schedules.set_back(500)
    assert schedules.next_ms == 510
    schedules.run(510)
    assert (calls, schedules.next_ms) == ([510], 520)
    schedules.set_back(515)
    assert schedules.next_ms == 520, "it is no later than that"
    schedules.run(600)
    assert calls == [510, 600, 600]
