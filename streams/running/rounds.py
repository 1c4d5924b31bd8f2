"""Runs tasks of several lanes side by side, for functions that wait for something outside.

1. Nothing of a lane is touched by two threads at once: within a round a lane has one thread, and between two rounds,
   where all is read, committed and handed over, none is at work.
2. A round lasts until every lane has had a slice, and until its time is over; lanes that are quicker go on with slices
   meanwhile, as far as there are records.
3. A task has no slice more in a round in which one of its inputs has run out: there may be older records to fetch than
   those that wait in the others.
4. What a lane raises ends the round for all, and is raised when they have come to the end of their slices.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from tailrace.log.clock import Clock
from tailrace.streams.planning.plan import Lane
from tailrace.streams.task import Task

RunSlice = Callable[[Task, int], int]
"""Runs a slice of a task of the lane with this number; returns how many records."""


class Rounds:
    """See the module's docstring. `close` ends the threads."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, "tailrace-lane")
        self._lanes: Sequence[Lane] = ()
        self._lock = threading.Lock()
        self._first_slices = 0
        self._failed = False

    def run(self, lanes: Sequence[Lane], run_slice: RunSlice, round_s: float) -> int:
        """One round, of so many seconds; returns how many records ran. Raises what `run_slice` raises."""
        self._lanes = lanes
        waiting = [number for number, lane in enumerate(self._lanes) if oldest(lane.tasks) is not None]
        self._first_slices, self._failed = len(waiting), False
        until = self._clock.monotonic() + round_s
        done = [self._pool.submit(self._run_lane, number, run_slice, until) for number in waiting]
        wait(done)
        # The first error, in the order of the lanes, is the one that is raised.
        return sum(each.result() for each in done)

    def _run_lane(self, number: int, run_slice: RunSlice, until: float) -> int:
        records, first, tasks = 0, True, list(self._lanes[number].tasks)
        try:
            while (task := oldest(tasks)) is not None:
                inputs = _with_records(task)
                records += run_slice(task, number)
                if _with_records(task) < inputs:
                    tasks.remove(task)
                with self._lock:
                    self._first_slices -= first
                first = False
                if self._failed or (not self._first_slices and self._clock.monotonic() >= until):
                    break
        except BaseException:
            self._failed = True
            raise
        return records

    def close(self) -> None:
        """Ends the threads, which have nothing to do by now."""
        self._pool.shutdown()


def in_turn(
    task: Task,
    tasks: Sequence[Task],
    run_slice: RunSlice,
    wait: Callable[[], bool] | None,
    records_max: int,
    enough: Callable[[], bool],
) -> int:
    """Runs a slice of a task, then of those whose turn comes next, until one has no more; returns how many records.

    Where only a few may be run at a time (turns), to look at all else between any two would cost more than they do.
    `wait` says anew who may be run, and whether all are to wait; without it one slice is all.
    """
    records = run_slice(task, 0)
    while wait is not None and records < records_max and not enough():
        if any(source.head_ms is None for source in task.inputs) or wait() or (following := oldest(tasks)) is None:
            break
        task = following
        records += run_slice(task, 0)
    return records


def oldest(tasks: Sequence[Task]) -> Task | None:
    """The task with the oldest record of those whose turn it is."""
    found: Task | None = None
    oldest_ms = 0
    for task in tasks:
        head_ms = task.next_ms()
        if head_ms is not None and (found is None or head_ms < oldest_ms):
            found, oldest_ms = task, head_ms
    return found


def _with_records(task: Task) -> int:
    """How many inputs of a task have something that waits."""
    return sum(source.head_ms is not None for source in task.inputs)
