"""What all windows have in common: a grace, a retention, and the bytes of a key within them.

1. A window is a value: frozen, hashable, equal to another of the same numbers, printed as the call that makes it.
2. Times are whole milliseconds since the epoch and never negative: what reads records refuses negative timestamps.
3. A window is *closed* from the first stream time that `closes_at` names; before it every record that belongs there is
   taken, from it on none. Who holds the clock decides whether that is the record's origin or the task's stream time.
4. After `retention_ms` no record that is not late can need the window any more, neither to add to it nor to copy or
   merge it: only then may a store forget it.

Two families: *aligned* windows (`AlignedWindow`: tumbling, hopping, unlimited) follow from the timestamp alone; sliding
and session windows depend on the other records of the key.
"""

from abc import ABC, abstractmethod

from tailrace.windows.duration import format_ms
from tailrace.windows.windowed import split_time_windowed, time_windowed_bytes


class Window(ABC):
    """How records of a key are gathered in time: made by `tumbling`, `hopping`, `sliding`, `session`, `unlimited`."""

    grace_ms: int
    """How long a window stays open past its end; never negative."""

    @property
    @abstractmethod
    def retention_ms(self) -> int:
        """How long after its start (a session: after its end) a window is kept: from that stream time on it may go."""

    @property
    def delay_ms(self) -> int:
        """By how much the time of a result may lag behind the clock at which it is sent."""
        return self.retention_ms

    def key_bytes(self, key: bytes, start_ms: int, end_ms: int) -> bytes:
        """Return the windowed key's bytes in Kafka's form; `end_ms` counts for sessions only."""
        del end_ms
        return time_windowed_bytes(key, start_ms)

    @abstractmethod
    def split_key(self, data: bytes) -> tuple[bytes, int, int]:
        """Return (key, start_ms, end_ms) from a windowed key's bytes; raises `ValueError` where they are too short."""


class AlignedWindow(Window):
    """A window whose bounds follow from the timestamp alone; the end is exclusive."""

    @abstractmethod
    def starts(self, timestamp_ms: int) -> list[int]:
        """Return the starts of all windows that cover the timestamp, earliest first, none of them negative."""

    @abstractmethod
    def end(self, start_ms: int) -> int:
        """Return the end, exclusive, of the window that starts at `start_ms`."""

    @abstractmethod
    def closes_at(self, start_ms: int) -> int:
        """Return the first stream time at which the window that starts at `start_ms` is closed."""

    def split_key(self, data: bytes) -> tuple[bytes, int, int]:
        """Return (key, start_ms, end_ms) from a windowed key's bytes; raises `ValueError` where they are too short."""
        key, start_ms = split_time_windowed(data)
        return key, start_ms, self.end(start_ms)


def call(name: str, *durations_ms: int, grace_ms: int) -> str:
    """Return a window as text, in the shape of the call that makes it: `tumbling(1min, grace=5s)`."""
    arguments = [format_ms(duration_ms) for duration_ms in durations_ms]
    if grace_ms:
        arguments.append(f"grace={format_ms(grace_ms)}")
    return f"{name}({', '.join(arguments)})"


def check_positive(value_ms: int, name: str) -> int:
    """Return `value_ms`; raises `ValueError`, calling it `name`, unless it is above 0."""
    if value_ms <= 0:
        raise ValueError(f"{name} must be longer than 0, not {format_ms(value_ms)}")
    return value_ms


def check_not_negative(value_ms: int, name: str) -> int:
    """Return `value_ms`; raises `ValueError`, calling it `name`, where it is below 0."""
    if value_ms < 0:
        raise ValueError(f"{name} must not be negative, but is {format_ms(value_ms)}")
    return value_ms


def checked_window(given: object) -> Window:
    """Return what was given for a window; raises `TypeError` where it is none."""
    if not isinstance(given, Window):
        raise TypeError(f"windowed_by takes a window such as tumbling(minutes(1)), not {given!r}")
    return given
