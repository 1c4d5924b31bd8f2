"""Tumbling windows: of one size, side by side, aligned to the epoch.

1. A window is `[start, start + size)` with `start` a multiple of the size; each timestamp lies in exactly one.
2. It is closed from stream time `start + size + grace` on (W04 of the semantics: at that very millisecond).
"""

from dataclasses import dataclass
from datetime import timedelta

from tailrace.windows.duration import to_ms
from tailrace.windows.window import AlignedWindow, call, check_not_negative, check_positive


@dataclass(frozen=True)
class TumblingWindow(AlignedWindow):
    """Windows of `size_ms` side by side, each open for `grace_ms` past its end."""

    size_ms: int
    grace_ms: int = 0

    @property
    def retention_ms(self) -> int:
        """Size and grace: a closed window is needed by nobody."""
        return self.size_ms + self.grace_ms

    def starts(self, timestamp_ms: int) -> list[int]:
        """Return the start of the one window that covers the timestamp, as a list."""
        return [timestamp_ms - timestamp_ms % self.size_ms]

    def end(self, start_ms: int) -> int:
        """Return the end, exclusive, of the window that starts at `start_ms`."""
        return start_ms + self.size_ms

    def closes_at(self, start_ms: int) -> int:
        """Return the first stream time at which the window is closed: end + grace."""
        return start_ms + self.size_ms + self.grace_ms

    def __str__(self) -> str:
        return call("tumbling", self.size_ms, grace_ms=self.grace_ms)


def tumbling(size: timedelta, *, grace: timedelta = timedelta(0)) -> TumblingWindow:
    """Return windows of one size side by side, aligned to 1970-01-01T00:00Z, each open for `grace` past its end.

    Raises `ValueError` where the size is not above 0 or the grace is negative.
    """
    size_ms = check_positive(to_ms(size, "size"), "the size of a tumbling window")
    return TumblingWindow(size_ms, check_not_negative(to_ms(grace, "grace"), "grace"))
