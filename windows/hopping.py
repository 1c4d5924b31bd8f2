"""Hopping windows: of one size, a new one every `every`, overlapping, aligned to the epoch.

1. A window is `[start, start + size)` with `start` a multiple of `every`, and 0 < every <= size: no gaps.
2. A timestamp lies in `size / every` windows, rounded up or down; in fewer near 0, as starts are never negative.
3. Each window closes by itself, at stream time `start + size + grace`: a record may be late for the earlier of its
   windows and in time for the later ones.
"""

from dataclasses import dataclass
from datetime import timedelta

from tailrace.windows.duration import to_ms
from tailrace.windows.window import AlignedWindow, call, check_not_negative, check_positive


@dataclass(frozen=True)
class HoppingWindow(AlignedWindow):
    """Windows of `size_ms`, one every `every_ms`, each open for `grace_ms` past its end."""

    size_ms: int
    every_ms: int
    grace_ms: int = 0

    @property
    def retention_ms(self) -> int:
        """Size and grace: a closed window is needed by nobody."""
        return self.size_ms + self.grace_ms

    def starts(self, timestamp_ms: int) -> list[int]:
        """Return the starts of all windows that cover the timestamp, earliest first, none of them negative."""
        every_ms = self.every_ms
        # The earliest start above timestamp - size, rounded up to a multiple of `every`.
        first = max(0, timestamp_ms - self.size_ms + every_ms) // every_ms * every_ms
        return list(range(first, timestamp_ms + 1, every_ms))

    def end(self, start_ms: int) -> int:
        """Return the end, exclusive, of the window that starts at `start_ms`."""
        return start_ms + self.size_ms

    def closes_at(self, start_ms: int) -> int:
        """Return the first stream time at which the window is closed: end + grace."""
        return start_ms + self.size_ms + self.grace_ms

    def __str__(self) -> str:
        return call("hopping", self.size_ms, self.every_ms, grace_ms=self.grace_ms)


def hopping(size: timedelta, every: timedelta, *, grace: timedelta = timedelta(0)) -> HoppingWindow:
    """Return overlapping windows of one size, a new one every `every`, aligned to 1970-01-01T00:00Z.

    Raises `ValueError` where the size or `every` is not above 0, `every` is longer than the size (records would fall
    between the windows), or the grace is negative.
    """
    size_ms = check_positive(to_ms(size, "size"), "the size of a hopping window")
    every_ms = check_positive(to_ms(every, "every"), "every of a hopping window")
    if every_ms > size_ms:
        raise ValueError(
            f"hopping windows of {size_ms} ms every {every_ms} ms leave gaps: every must not be longer than the size"
        )
    return HoppingWindow(size_ms, every_ms, check_not_negative(to_ms(grace, "grace"), "grace"))
