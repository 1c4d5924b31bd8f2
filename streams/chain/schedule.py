"""Functions that are called again and again, on one clock of one task.

1. A schedule is due at `due_ms`; after a call at `now_ms` the next is due one or more whole intervals later, first past
   `now_ms`: what was missed is not called for.
2. `next_ms` <= the smallest `due_ms` of all that are not cancelled.
3. Those due together are called in the order of their due times, then in that in which they were made. One that is made
   meanwhile waits for the next `run`.

Not here: which clock, and what a call sees (operators/processor).
"""

from collections.abc import Callable

NONE_DUE = (1 << 63) - 1
"""Later than any time."""


class Schedule:
    """One function and when it is due, in ms."""

    __slots__ = ("call", "cancelled", "due_ms", "every_ms")

    def __init__(self, call: Callable[[int], None], every_ms: int, due_ms: int) -> None:
        self.call = call
        self.every_ms = every_ms
        self.due_ms = due_ms
        self.cancelled = False

    def cancel(self) -> None:
        """Ends it; may be called at any time and again."""
        self.cancelled = True


class Schedules:
    """All schedules of a task on one clock."""

    __slots__ = ("_all", "next_ms")

    def __init__(self) -> None:
        self._all: list[Schedule] = []
        self.next_ms = NONE_DUE

    def add(self, schedule: Schedule) -> None:
        """Takes one up."""
        self._all.append(schedule)
        self.next_ms = min(self.next_ms, schedule.due_ms)

    def bring_forward(self, schedule: Schedule, due_ms: int) -> None:
        """Has one of them called at due_ms, where it would be later."""
        if due_ms < schedule.due_ms:
            schedule.due_ms = due_ms
            self.next_ms = min(self.next_ms, due_ms)

    def set_back(self, now_ms: int) -> None:
        """The clock was set back, to now_ms: nothing waits for longer than its interval from there."""
        for each in self._all:
            if each.due_ms != NONE_DUE:
                each.due_ms = min(each.due_ms, now_ms + each.every_ms)
        self.next_ms = min((each.due_ms for each in self._all), default=NONE_DUE)

    def run(self, now_ms: int) -> None:
        """Calls what is due at now_ms; a call may set the time at which it is due next."""
        due = sorted((each for each in self._all if each.due_ms <= now_ms), key=lambda each: each.due_ms)
        for each in due:
            if not each.cancelled:
                each.due_ms += ((now_ms - each.due_ms) // each.every_ms + 1) * each.every_ms
                each.call(now_ms)
        self._all = [each for each in self._all if not each.cancelled]
        self.next_ms = min((each.due_ms for each in self._all), default=NONE_DUE)
