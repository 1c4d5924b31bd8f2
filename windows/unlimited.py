"""The unlimited window: one for all time from its start on.

1. The only window is `[start, TIME_MAX_MS)`; it never closes and is never forgotten.
2. A timestamp before the start lies in no window: such a record is ignored and is not late (W25 of the semantics).
"""

from dataclasses import dataclass, field
from datetime import datetime

from tailrace.windows.duration import TIME_MAX_MS, instant_to_ms
from tailrace.windows.window import AlignedWindow, check_not_negative


@dataclass(frozen=True)
class UnlimitedWindow(AlignedWindow):
    """One window from `start_ms` on, without an end."""

    start_ms: int = 0
    grace_ms: int = field(default=0, init=False, repr=False)  # Nothing can be late for a window that does not end.

    @property
    def retention_ms(self) -> int:
        """For ever."""
        return TIME_MAX_MS

    def starts(self, timestamp_ms: int) -> list[int]:
        """Return the window's start, as a list; an empty one for a timestamp before it."""
        return [self.start_ms] if timestamp_ms >= self.start_ms else []

    def end(self, start_ms: int) -> int:
        """Return the largest time there is, 9223372036854775807."""
        del start_ms
        return TIME_MAX_MS

    def closes_at(self, start_ms: int) -> int:
        """Return the largest time there is: stream time never reaches it."""
        del start_ms
        return TIME_MAX_MS

    def __str__(self) -> str:
        return f"unlimited(start={self.start_ms})" if self.start_ms else "unlimited()"


def unlimited(*, start: datetime | int = 0) -> UnlimitedWindow:
    """Return the one window that holds every record from `start` on (an aware `datetime`, or ms since the epoch).

    Raises `ValueError` where the start has no time zone or lies before 1970.
    """
    return UnlimitedWindow(check_not_negative(instant_to_ms(start, "start"), "start"))
