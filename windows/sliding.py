"""Sliding windows: of one length, and only where what is in them changes.

1. A window is `[start, start + difference]`, both inclusive: records at most `difference` apart share one.
2. A key has the window that *ends* at each of its records, and the one that starts 1 ms *after* each of its records, if
   that holds any. No two windows of a key hold the same records for another reason than these two.
3. Starts are never negative: records earlier than `difference` share `[0, difference]` (W12 of the semantics).
4. A window is closed when stream time is past `end + grace` (W22). A closed window is neither changed nor opened, but
   later ones are copied from it: hence `retention_ms`.

The plan of a record is Kafka's (`KStreamSlidingWindowAggregate`), in one form for early and other records, and with
each window once (W12, step 4: Kafka sends one twice).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol

from tailrace.windows.duration import to_ms
from tailrace.windows.window import Window, call, check_not_negative
from tailrace.windows.windowed import split_time_windowed


class Content(Protocol):
    """A window of the key: its start, and the largest time of a record in it."""

    @property
    def start_ms(self) -> int:
        """Its start."""
        ...

    @property
    def timestamp_ms(self) -> int:
        """The largest time of a record in it."""
        ...


class Opened(NamedTuple):
    """A window that a record opens.

    `source` is the index of the window whose contents it begins with, as they were before the record (`None`: it begins
    empty); `takes_record` is false for the window behind the record, which holds only what is later.
    """

    start_ms: int
    source: int | None
    takes_record: bool


class Plan(NamedTuple):
    """What a record does to its key's windows: `updated` are indices of windows that take it, `opened` the new ones."""

    updated: list[int]
    opened: list[Opened]


@dataclass(frozen=True)
class SlidingWindow(Window):
    """Windows of `difference_ms`, where records make them, each open for `grace_ms` past its end."""

    difference_ms: int
    grace_ms: int = 0

    @property
    def retention_ms(self) -> int:
        """From this long after a window's start on, nothing can be copied from it any more.

        A record at t in time for its window `[t + 1, t + 1 + difference]` looks for its predecessor in windows that end
        at t - difference - 1 or later.
        """
        return 2 * self.difference_ms + self.grace_ms + 2

    @property
    def delay_ms(self) -> int:
        """An open window's length and grace: its result has the time of a record in it."""
        return self.difference_ms + self.grace_ms

    def end(self, start_ms: int) -> int:
        """Return the end, inclusive, of the window that starts at `start_ms`."""
        return start_ms + self.difference_ms

    def closes_at(self, end_ms: int) -> int:
        """Return the first stream time at which a window that ends at `end_ms` is closed: end + grace + 1."""
        return end_ms + self.grace_ms + 1

    def is_late(self, timestamp_ms: int, origin_ms: int) -> bool:
        """Whether even the last window that a record may have to do with, the one behind it, is closed for it."""
        return timestamp_ms + 1 + self.difference_ms + self.grace_ms < origin_ms

    def plan(self, windows: Sequence[Content], timestamp_ms: int) -> Plan:
        """Return which windows a record updates and opens, late or not.

        `windows` are the key's windows in order of start, none of them empty, and all of them that
        start at `timestamp_ms - 2 * difference` or later must be there. A plan leaves aside what is closed; the
        caller does not carry out what is.
        """
        difference_ms = self.difference_ms
        left_ms = max(0, timestamp_ms - difference_ms)
        updated: list[int] = []
        starts: set[int] = set()
        before: int | None = None  # The last window that ends before the record.
        behind: int | None = None  # The last window that takes the record and reaches past it.
        previous_ms = -1  # The time of the last record before this one.
        for i, found in enumerate(windows):
            start_ms, largest_ms = found.start_ms, found.timestamp_ms
            starts.add(start_ms)
            if start_ms > timestamp_ms:
                break  # Of the later ones only `timestamp + 1` matters, and it would be the first.
            if previous_ms < largest_ms < timestamp_ms:
                previous_ms = largest_ms
            end_ms = start_ms + difference_ms
            if end_ms < timestamp_ms:
                before = i
                continue
            updated.append(i)
            if end_ms > timestamp_ms:
                behind = i
        opened: list[Opened] = []
        # A predecessor whose window behind it does not exist has had no successor so far: this record is the first.
        if previous_ms >= 0 and previous_ms + 1 not in starts and previous_ms + 1 + difference_ms >= timestamp_ms:
            opened.append(Opened(previous_ms + 1, None, takes_record=True))
            starts.add(previous_ms + 1)
        if left_ms not in starts:
            opened.append(Opened(left_ms, before if previous_ms >= left_ms else None, takes_record=True))
        if timestamp_ms + 1 not in starts and behind is not None and windows[behind].timestamp_ms > timestamp_ms:
            # `behind` starts after every record up to this one, else a later window would: it holds what is later only.
            opened.append(Opened(timestamp_ms + 1, behind, takes_record=False))
        return Plan(updated, opened)

    def split_key(self, data: bytes) -> tuple[bytes, int, int]:
        """Return (key, start_ms, end_ms) from a windowed key's bytes; raises `ValueError` where they are too short."""
        key, start_ms = split_time_windowed(data)
        return key, start_ms, start_ms + self.difference_ms

    def __str__(self) -> str:
        return call("sliding", self.difference_ms, grace_ms=self.grace_ms)


def sliding(difference: timedelta, *, grace: timedelta = timedelta(0)) -> SlidingWindow:
    """Return windows that slide along the records: those at most `difference` apart share one.

    Raises `ValueError` where the difference or the grace is negative.
    """
    difference_ms = check_not_negative(to_ms(difference, "difference"), "the difference of a sliding window")
    return SlidingWindow(difference_ms, check_not_negative(to_ms(grace, "grace"), "grace"))
