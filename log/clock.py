"""Time as an object that is handed in: the wall clock, and a monotonic one for time-outs.

1. `now_ms` is UTC in milliseconds since the epoch and may jump, as the machine's clock does.
2. `monotonic` is in seconds, never goes back, and means nothing but its differences.

Not here: event time and stream time, which come out of records.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the log knows of time."""

    def now_ms(self) -> int:
        """The wall clock, in milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, for measuring how long something took."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """The wall clock, in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to go on: for tests and simulations. Safe to share by threads."""

    def __init__(self, now_ms: int = 0) -> None:
        """Starts at `now_ms`, in milliseconds since the epoch."""
        self._now_ms = now_ms
        self._elapsed_ms = 0
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """What it was set to."""
        with self._lock:
            return self._now_ms

    def monotonic(self) -> float:
        """Seconds by which it was advanced."""
        with self._lock:
            return self._elapsed_ms / 1000

    def advance(self, milliseconds: int) -> None:
        """Lets time pass, on both clocks."""
        if milliseconds < 0:
            raise ValueError(f"time does not go back: {milliseconds} ms")
        with self._lock:
            self._now_ms += milliseconds
            self._elapsed_ms += milliseconds

    def set_ms(self, now_ms: int) -> None:
        """Sets the wall clock alone, also backwards, as an administrator would."""
        with self._lock:
            self._now_ms = now_ms
