"""Windowed keys: values, times, and Kafka's bytes."""

from datetime import UTC, datetime

import pytest

from tailrace import Windowed
from tailrace.windows.duration import TIME_MAX_MS
from tailrace.windows.windowed import (
    session_windowed_bytes,
    split_session_windowed,
    split_time_windowed,
    time_windowed_bytes,
)


def test_is_a_value() -> None:
    key = Windowed("A", 0, 10)
    assert (key.key, key.start_ms, key.end_ms) == ("A", 0, 10)
    assert key == Windowed("A", 0, 10)
    assert hash(key) == hash(Windowed("A", 0, 10))
    assert sorted([Windowed("B", 0, 10), Windowed("A", 10, 20), key]) == [
        key,
        Windowed("A", 10, 20),
        Windowed("B", 0, 10),
    ]
    assert repr(key) == "Windowed(key='A', start_ms=0, end_ms=10)"
    with pytest.raises(AttributeError):
        setattr(key, "key", "B")  # noqa: B010 -- the type checkers refuse the plain form, as they should


def test_start_and_end_are_aware() -> None:
    key = Windowed("A", 1_000, 61_000)
    assert key.start == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert key.end == datetime(1970, 1, 1, 0, 1, 1, tzinfo=UTC)


def test_the_end_of_an_unlimited_window_is_the_last_instant() -> None:
    assert Windowed("A", 10, TIME_MAX_MS).end == datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_bytes_follow_kafka() -> None:
    assert time_windowed_bytes(b"k", 1) == b"k\0\0\0\0\0\0\0\1"
    assert session_windowed_bytes(b"k", 1, 2) == b"k\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1"
    assert split_time_windowed(time_windowed_bytes(b"\0key\0", 7)) == (b"\0key\0", 7)
    assert split_session_windowed(session_windowed_bytes(b"", 7, TIME_MAX_MS)) == (b"", 7, TIME_MAX_MS)


def test_bytes_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes of time"):
        split_time_windowed(b"1234567")
    with pytest.raises(ValueError, match="16 bytes of times"):
        split_session_windowed(b"123456789012345")
