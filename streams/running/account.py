"""What a run has done so far, in numbers, for whoever asks.

1. What a plan did and did not commit is not counted once another has taken its place: that does it again.
2. Any thread may ask. While the app runs its own thread answers, between two slices: the stores are its. What it came
   to is kept when it ends, as the stores are closed after that.
"""

import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tailrace.log.client import Log
from tailrace.log.clock import Clock
from tailrace.streams.planning.plan import Plan
from tailrace.streams.running.summary import Summary
from tailrace.streams.task import Task


class _Counts(NamedTuple):
    records_in: int
    records_out: int
    dropped: Counter[str]


class Account:
    """See the module's docstring. `begin` comes first."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._started = clock.monotonic()
        self._before = self._committed = _Counts(0, 0, Counter())
        self._thread = 0
        self._beginning = threading.Lock()
        self._ended: Summary | None = None
        self._asked: deque[Future[Summary]] = deque()

    def begin(self, plan: Plan) -> None:
        """Counts what this plan does, from the last commit on."""
        self._plan = plan
        self._before = self._committed
        self._records_in = 0

    def ran(self, records: int) -> None:
        """So many records ran."""
        self._records_in += records

    def removed(self, tasks: Iterable[Task]) -> None:
        """These have left the plan, all that they did being committed."""
        dropped = self._before.dropped.copy()
        for task in tasks:
            dropped.update(task.context.dropped)
        self._before = self._before._replace(dropped=dropped)

    def committed(self) -> None:
        """All that was done until now counts."""
        self._committed = self._counts()

    def summary(self) -> Summary:
        """What was done so far; see 2."""
        with self._beginning:  # no run begins while another thread looks
            if self._ended is not None:
                return self._ended
            if self._thread in {0, threading.get_ident()}:
                return self._summary()
            answer = Future[Summary]()
            self._asked.append(answer)
        self._log.wake()
        return answer.result()

    @contextmanager
    def running(self) -> Generator[None]:
        """Around a run, in its thread."""
        with self._beginning:
            self._thread, self._ended = threading.get_ident(), None
        try:
            yield
        finally:
            with self._beginning:
                self._thread = 0
                with suppress(Exception):  # who asks is told
                    self._ended = self._summary()
            self.answer()

    def answer(self) -> None:
        """Answers those who have asked."""
        with suppress(IndexError):  # nobody waits any more
            while True:
                answer = self._asked.popleft()
                try:
                    answer.set_result(self._summary())
                except Exception as error:  # noqa: BLE001 - it is for whoever asked
                    answer.set_exception(error)

    def _summary(self) -> Summary:
        counts = self._counts()
        return Summary(
            records_in=counts.records_in,
            records_out=counts.records_out,
            dropped=dict(counts.dropped),
            open_windows=sum(task.open_windows() for task in self._plan.tasks),
            seconds=self._clock.monotonic() - self._started,
        )

    def _counts(self) -> _Counts:
        before = self._before
        dropped = before.dropped.copy()
        for task in self._plan.tasks:
            dropped.update(task.context.dropped)
        return _Counts(before.records_in + self._records_in, before.records_out + self._plan.sent, dropped)
