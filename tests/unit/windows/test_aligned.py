"""Tumbling, hopping and unlimited windows: which ones a timestamp opens and when each one closes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import Window, hopping, milliseconds, minutes, seconds, tumbling, unlimited
from tailrace.windows.duration import TIME_MAX_MS
from tailrace.windows.hopping import HoppingWindow
from tailrace.windows.tumbling import TumblingWindow

times = st.integers(min_value=0, max_value=200)
sizes = st.integers(min_value=1, max_value=30)


@settings(max_examples=100, deadline=None)
@given(timestamp_ms=times, size=sizes, grace=sizes)
def test_tumbling_against_a_scan(timestamp_ms: int, size: int, grace: int) -> None:
    window = TumblingWindow(size, grace)
    expected = [start for start in range(0, 300, size) if start <= timestamp_ms < start + size]
    assert window.starts(timestamp_ms) == expected
    assert [window.end(start) for start in expected] == [start + size for start in expected]


@settings(max_examples=100, deadline=None)
@given(timestamp_ms=times, size=sizes, every=sizes, grace=sizes)
def test_hopping_against_a_scan(timestamp_ms: int, size: int, every: int, grace: int) -> None:
    every = min(every, size)
    window = HoppingWindow(size, every, grace)
    expected = [start for start in range(0, 300, every) if start <= timestamp_ms < start + size]
    assert window.starts(timestamp_ms) == expected
    assert all(window.closes_at(start) == start + size + grace for start in expected)
    assert all(window.closes_at(start) == start + window.retention_ms for start in expected)


def test_w04_closes_exactly_at_end_plus_grace() -> None:
    window = tumbling(milliseconds(10), grace=milliseconds(5))
    (start,) = window.starts(9)
    assert window.closes_at(start) == 15


def test_w07_hopping_earliest_first() -> None:
    window = hopping(milliseconds(10), milliseconds(5))
    assert [window.starts(t) for t in (3, 5, 12, 20)] == [[0], [0, 5], [5, 10], [15, 20]]


def test_w09_hopping_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="every must not be longer than the size"):
        hopping(seconds(5), seconds(10))


def test_w25_unlimited_starts_where_it_is_told() -> None:
    window = unlimited(start=10)
    assert window.starts(5) == []
    assert window.starts(10) == window.starts(1000) == [10]
    assert window.end(10) == window.closes_at(10) == TIME_MAX_MS == 9223372036854775807


def test_unlimited_takes_an_aware_datetime_only() -> None:
    assert unlimited(start=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)).starts(1000) == [1000]
    with pytest.raises(ValueError, match="time zone"):
        unlimited(start=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="negative"):
        unlimited(start=-1)


def test_windows_are_values() -> None:
    windows: list[Window] = [tumbling(minutes(1), grace=seconds(5)), hopping(minutes(1), seconds(90) / 3), unlimited()]
    assert [str(window) for window in windows] == ["tumbling(1min, grace=5s)", "hopping(1min, 30s)", "unlimited()"]
    assert tumbling(minutes(1)) == tumbling(seconds(60))
    assert len({tumbling(minutes(1)), tumbling(seconds(60)), tumbling(seconds(61))}) == 2
    assert str(unlimited(start=5)) == "unlimited(start=5)"
    assert repr(unlimited(start=5)) == "UnlimitedWindow(start_ms=5)"


@pytest.mark.parametrize(
    ("size", "grace"), [(timedelta(0), timedelta(0)), (seconds(-1), timedelta(0)), (seconds(1), seconds(-1))]
)
def test_bad_numbers_are_refused(size: timedelta, grace: timedelta) -> None:
    with pytest.raises(ValueError, match="must"):
        tumbling(size, grace=grace)
    with pytest.raises(ValueError, match="must"):
        hopping(size, seconds(1), grace=grace)


def test_keys_as_bytes_follow_kafka() -> None:
    window = tumbling(milliseconds(10))
    data = window.key_bytes(b"key", 256, 266)
    assert data == b"key" + bytes([0, 0, 0, 0, 0, 0, 1, 0])
    assert window.split_key(data) == (b"key", 256, 266)
