"""Session windows: records of a key that follow each other within a gap.

1. A session is `[start, end]`, the times of its first and last record, both inclusive; one record makes `[t, t]`.
2. A record joins every session that is at most `gap` away (W14: exactly the gap still joins) and makes them one.
   So of the records that were taken, two lie in one session exactly if a chain of steps of at most `gap` joins them,
   in whatever order they came.
3. A record is judged by itself: late when `timestamp + gap + grace < origin`, even where a session would take it.
4. A session is closed when stream time is past `end + gap + grace`. A record that is not late may still reach a session
   that closed already, up to one more gap back: hence `retention_ms`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol

from tailrace.windows.duration import to_ms
from tailrace.windows.window import Window, call, check_not_negative, check_positive
from tailrace.windows.windowed import session_windowed_bytes, split_session_windowed


class Bounds(Protocol):
    """A session that a record may join: the times of its first and last record."""

    @property
    def start_ms(self) -> int:
        """The time of its first record."""
        ...

    @property
    def end_ms(self) -> int:
        """The time of its last record."""
        ...


class Merge(NamedTuple):
    """The session that a record makes: `indices` of the sessions that go into it, earliest first, and its bounds."""

    indices: list[int]
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class SessionWindow(Window):
    """Sessions that end after `gap_ms` without a record, each open for `grace_ms` longer."""

    gap_ms: int
    grace_ms: int = 0

    @property
    def retention_ms(self) -> int:
        """From this long after a session's end on, no record that is not late can join it any more."""
        return 2 * self.gap_ms + self.grace_ms + 1

    @property
    def delay_ms(self) -> int:
        """A retraction of what a record at gap + grace merges with, one gap earlier."""
        return 2 * self.gap_ms + self.grace_ms

    def is_late(self, timestamp_ms: int, origin_ms: int) -> bool:
        """Whether a record comes too late for the session that it would make by itself."""
        return timestamp_ms + self.gap_ms + self.grace_ms < origin_ms

    def closes_at(self, end_ms: int) -> int:
        """Return the first stream time at which a session that ends at `end_ms` is closed: end + gap + grace + 1."""
        return end_ms + self.gap_ms + self.grace_ms + 1

    def merge(self, sessions: Sequence[Bounds], timestamp_ms: int, *, not_before_ms: int = 0) -> Merge:
        """Return what a record makes of its key's sessions, which are in order of time.

        Sessions that end before `not_before_ms` are final: they are not joined. No indices: the record opens a session
        of its own.
        """
        earliest_end, latest_start = max(timestamp_ms - self.gap_ms, not_before_ms), timestamp_ms + self.gap_ms
        indices: list[int] = []
        # From the latest, as nearly every record belongs there and a key may have many sessions behind it.
        for i in range(len(sessions) - 1, -1, -1):
            found = sessions[i]
            if found.end_ms < earliest_end:
                break
            if found.start_ms <= latest_start:
                indices.insert(0, i)
        if not indices:
            return Merge(indices, timestamp_ms, timestamp_ms)
        start_ms, end_ms = sessions[indices[0]].start_ms, sessions[indices[-1]].end_ms
        return Merge(indices, min(start_ms, timestamp_ms), max(end_ms, timestamp_ms))

    def key_bytes(self, key: bytes, start_ms: int, end_ms: int) -> bytes:
        """Return the session key's bytes in Kafka's form: key, end, start."""
        return session_windowed_bytes(key, start_ms, end_ms)

    def split_key(self, data: bytes) -> tuple[bytes, int, int]:
        """Return (key, start_ms, end_ms) from a session key's bytes; raises `ValueError` where they are too short."""
        return split_session_windowed(data)

    def __str__(self) -> str:
        return call("session", self.gap_ms, grace_ms=self.grace_ms)


def session(gap: timedelta, *, grace: timedelta = timedelta(0)) -> SessionWindow:
    """Return sessions: records of a key at most `gap` apart belong together; one out of order is taken for `grace`.

    Raises `ValueError` where the gap is not above 0 or the grace is negative.
    """
    gap_ms = check_positive(to_ms(gap, "gap"), "the gap of a session")
    return SessionWindow(gap_ms, check_not_negative(to_ms(grace, "grace"), "grace"))
