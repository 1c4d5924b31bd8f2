"""Lanes side by side: each has a slice, quick ones go on, and an error ends the round."""

import threading
from collections import Counter

import pytest

from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.source import Decoding, SourceInput
from tailrace.streams.planning.plan import Lane
from tailrace.streams.running.rounds import Rounds
from tailrace.streams.task import Task, TaskId

# As the runner has them.
ROUND_S = 0.02


def task(number: int, waiting: int) -> Task:
    """One with so many slices of a record to run, if `run` takes them off."""
    made = Task(TaskId(0, number), TaskContext(number, caching=False))
    source = SourceInput(TopicPartition("t", number), Decoding(bytes, bytes, None), _ignore, _ignore, waiting)
    source.head_ms = number if waiting else None
    made.inputs.append(source)
    return made


def _ignore(*_: object) -> None:
    pass


def take_one(each: Task) -> None:
    source = each.inputs[0]
    source.position -= 1
    if not source.position:
        source.head_ms = None


def lanes(*counts: int) -> list[Lane]:
    return [Lane(outputs=None, tasks=[task(number, count)]) for number, count in enumerate(counts)]  # type: ignore[arg-type]  # nothing is sent


def test_a_lane_that_is_quick_goes_on_while_another_is_at_its_first_slice() -> None:
    clock, ran, quick_is_done = ManualClock(), Counter[int](), threading.Event()
    rounds = Rounds(2, clock)

    def run_slice(each: Task, lane: int) -> int:
        clock.advance(30)  # longer than a round
        take_one(each)
        ran[lane] += 1
        if lane == 0:
            assert quick_is_done.wait(20)
        elif ran[lane] == 5:
            quick_is_done.set()
        return 10

    given = lanes(4, 5)
    assert rounds.run(given, run_slice, ROUND_S) == 60
    assert ran == {0: 1, 1: 5}, "the slow one had its slice, and the time was over"
    assert rounds.run(given, run_slice, ROUND_S) == 10
    assert ran[0] == 2, "the quick one has nothing left"
    rounds.close()


def test_lanes_without_records_have_no_thread() -> None:
    rounds, ran = Rounds(3, ManualClock()), Counter[int]()

    def run_slice(each: Task, lane: int) -> int:
        take_one(each)
        ran[lane] += 1
        return 1

    assert rounds.run(lanes(0, 3, 0), run_slice, ROUND_S) == 3
    assert ran == {1: 3}
    assert rounds.run(lanes(0, 0, 0), run_slice, ROUND_S) == 0
    rounds.close()


def test_a_task_that_has_run_an_input_out_waits_for_what_may_be_fetched_there() -> None:
    joining = task(0, 1)
    joining.inputs += task(1, 3).inputs
    given = [Lane(outputs=None, tasks=[joining, task(2, 2)])]  # type: ignore[arg-type]  # nothing is sent
    rounds, ran = Rounds(1, ManualClock()), list[int]()

    def run_slice(each: Task, _lane: int) -> int:
        source = next(source for source in each.inputs if source.head_ms is not None)
        ran.append(source.partition.partition)
        source.position -= 1
        source.head_ms = source.head_ms if source.position else None
        return 1

    assert rounds.run(given, run_slice, ROUND_S) == 3
    assert ran == [0, 2, 2]
    assert rounds.run(given, run_slice, ROUND_S) == 3, "nothing had come there"
    assert ran[3:] == [1, 1, 1]
    rounds.close()


def test_an_error_is_raised_when_all_have_come_to_the_end_of_their_slices() -> None:
    rounds, raised, ended = Rounds(2, ManualClock()), threading.Event(), list[int]()

    def run_slice(each: Task, lane: int) -> int:
        take_one(each)
        if lane == 0:
            raised.set()
            raise ValueError("broken")
        assert raised.wait(20)
        ended.append(lane)
        return 1

    with pytest.raises(ValueError, match="broken"):
        rounds.run(lanes(1, 1), run_slice, ROUND_S)
    assert ended == [1]
    rounds.close()
