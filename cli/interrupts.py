"""Ctrl-C and SIGTERM, taken at a place where nothing is half done.

1. A signal interrupts at once only inside `waiting()`, where the command waits for input; elsewhere it is remembered
   and `check()` raises it. So a producer is never cut in the middle of a batch.
2. A second signal interrupts at once, wherever the command is.
"""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM; `signal_number` tells which."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


class Interrupts:
    """What has been signalled since the command began."""

    def __init__(self) -> None:
        self._waiting = False
        self._seen: int | None = None

    @contextmanager
    def waiting(self) -> Generator[None]:
        """A stretch in which a signal may interrupt at any point."""
        self._waiting = True
        try:
            self.check()
            yield
        finally:
            self._waiting = False

    def check(self) -> None:
        """Raise a signal that came outside of `waiting()`."""
        if self._seen is not None:
            raise Interrupted(self._seen)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        again = self._seen is not None
        self._seen = number
        if self._waiting or again:
            raise Interrupted(number)


@contextmanager
def interrupts() -> Generator[Interrupts]:
    """Take SIGINT and SIGTERM for the time of a block; outside the main thread there is nothing to take."""
    taken = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield taken
        return
    before = {number: signal.signal(number, taken.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
