"""Durations and instants: exact, or refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tailrace import days, hours, milliseconds, minutes, seconds
from tailrace.windows.duration import TIME_MAX_MS, format_ms, instant_to_ms, to_datetime, to_ms


def test_helpers_return_timedeltas() -> None:
    assert [to_ms(d) for d in (milliseconds(1), seconds(1), minutes(1), hours(1), days(1))] == [
        1,
        1_000,
        60_000,
        3_600_000,
        86_400_000,
    ]
    assert seconds(0.5) == timedelta(milliseconds=500)


def test_a_part_of_a_millisecond_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"size=.* not a whole number of milliseconds"):
        to_ms(timedelta(microseconds=1), "size")


def test_a_number_is_not_a_duration() -> None:
    number: Any = 10
    with pytest.raises(TypeError, match=r"size=10 is not a timedelta; write seconds\(10\)"):
        to_ms(number, "size")


def test_instants() -> None:
    assert instant_to_ms(5) == 5
    assert instant_to_ms(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    # Exact where a float of seconds is not.
    assert instant_to_ms(datetime(2026, 11, 21, 12, 0, 0, 1000, tzinfo=UTC)) % 1000 == 1


def test_datetimes_at_the_ends_of_time_do_not_fail() -> None:
    assert to_datetime(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert to_datetime(TIME_MAX_MS) == datetime.max.replace(tzinfo=UTC)
    assert to_datetime(-TIME_MAX_MS) == datetime.min.replace(tzinfo=UTC)


def test_formatted_in_the_largest_unit_that_divides() -> None:
    assert [format_ms(n) for n in (0, 250, 90_000, 3_600_000, 86_400_000)] == ["0s", "250ms", "90s", "1h", "1d"]


def test_what_is_too_long_or_nothing_is_told_in_our_units() -> None:
    assert [format_ms(each) for each in (0, -1_000, -86_400_000, -1)] == ["0s", "-1s", "-1d", "-1ms"]
    with pytest.raises(ValueError, match=r"size=timedelta.max is too large: up to 999,999,999 days"):
        to_ms(timedelta.max, "size")
    assert to_ms(days(999_999_999)) == 999_999_999 * 86_400_000
