"""Durations and instants as users write them, and the whole milliseconds that everything else computes with.

1. A duration inside tailrace is an `int` of milliseconds; a user's is a `timedelta`. This file is the only bridge.
2. Nothing is rounded: a part of a millisecond is refused, because two window bounds that round apart would disagree.

Not here: clocks (`log/clock.py`).
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)

TIME_MAX_MS = 2**63 - 1
"""The largest time there is, Kafka's `Long.MAX_VALUE`: the end of a window that never ends."""


def milliseconds(n: float) -> timedelta:
    """Return a duration of `n` milliseconds."""
    return timedelta(milliseconds=n)


def seconds(n: float) -> timedelta:
    """Return a duration of `n` seconds."""
    return timedelta(seconds=n)


def minutes(n: float) -> timedelta:
    """Return a duration of `n` minutes."""
    return timedelta(minutes=n)


def hours(n: float) -> timedelta:
    """Return a duration of `n` hours."""
    return timedelta(hours=n)


def days(n: float) -> timedelta:
    """Return a duration of `n` times 24 hours."""
    return timedelta(days=n)


def to_ms(duration: timedelta, name: str = "duration") -> int:
    """Return `duration` as whole milliseconds; `name` is what an error calls it.

    Raises `TypeError` for anything that is not a `timedelta`, `ValueError` for a part of a millisecond.
    """
    whole, rest = divmod(_timedelta(duration, name), _MILLISECOND)
    if duration == timedelta.max:
        raise ValueError(
            f"{name}=timedelta.max is too large: up to {timedelta.max.days:,} days can be given; for windows "
            "that never end take unlimited()"
        )
    if rest:
        raise ValueError(f"{name}={duration!r} is not a whole number of milliseconds; round it before passing it")
    return whole


def _timedelta(given: object, name: str) -> timedelta:
    if not isinstance(given, timedelta):
        raise TypeError(f"{name}={given!r} is not a timedelta; write seconds(10) or minutes(1) for example")
    return given


def instant_to_ms(instant: datetime | int, name: str = "instant") -> int:
    """Return an aware `datetime`, or an `int` of milliseconds since the epoch, as milliseconds since the epoch.

    Raises `ValueError` for a `datetime` without a time zone: its instant would depend on the machine.
    """
    if not isinstance(instant, datetime):
        return instant
    if instant.tzinfo is None:
        raise ValueError(f"{name}={instant!r} has no time zone; pass an aware datetime, such as one with tzinfo=UTC")
    return (instant - EPOCH) // _MILLISECOND


def to_datetime(time_ms: int) -> datetime:
    """Return milliseconds since the epoch as an aware UTC `datetime`.

    What lies outside of `datetime`'s years 1 to 9999 becomes the nearest instant inside: the end of an unlimited window
    (`TIME_MAX_MS`) is 9999-12-31T23:59:59.999999Z.
    """
    try:
        return EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return _LAST if time_ms > 0 else _FIRST


_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def format_ms(duration_ms: int) -> str:
    """Return a duration for people in the largest unit that divides it: `1min`, `90s`, `250ms`, `-1s`, `0s`."""
    if not duration_ms:
        return "0s"
    for unit_ms, unit in _UNITS:
        if duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms}{unit}"
    return f"{duration_ms}ms"


def format_instant(instant_ms: int) -> str:
    """Return an instant as it is written in messages, in UTC: `2026-11-21T12:00:00.000Z`; its number where none is."""
    try:
        return (EPOCH + timedelta(milliseconds=instant_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return str(instant_ms)
