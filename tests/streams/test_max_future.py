"""A record dated too far in the future is one that cannot be read, and moves no clock."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from tailrace import App, Windowed, tumbling
from tailrace.errors import DecodeError
from tailrace.testing import TopologyDriver
from tailrace.windows.duration import hours, minutes, seconds

NOW = 1_700_000_000_000
HOUR = 3_600_000


class Click(Struct):
    at: int


def at_of(click: Click) -> int:
    return click.at


def program(**options: Any) -> App:
    app = App("future", max_future=hours(1), **options)
    for name, timestamp in (("own", None), ("value", at_of)):
        clicks = app.topic(name, key=str, value=Click, timestamp=timestamp)
        counts = app.stream(clicks).group_by_key().windowed_by(tumbling(minutes(1))).count(store=name)
        counts.to(app.topic(f"{name}-out", key=Windowed[str], value=int))
    return app


@pytest.mark.parametrize("topic", ["own", "value"])
def test_one_record_from_tomorrow_makes_no_other_late(topic: str) -> None:
    with TopologyDriver(program(on_bad_record="skip"), wall_clock_ms=NOW) as driver:
        for at in (NOW, NOW + 24 * HOUR, NOW + 1, NOW + HOUR, NOW + HOUR + 1):
            driver.pipe(topic, Click(at), key="a", timestamp_ms=at if topic == "own" else None)
        assert [record.timestamp_ms for record in driver.read(f"{topic}-out")] == [NOW, NOW + 1, NOW + HOUR]
        assert driver.dropped == {"bad_record": 2}
        driver.advance_wall_clock(seconds(1))
        driver.pipe(topic, Click(NOW + HOUR + 1_000), key="a", timestamp_ms=NOW + HOUR + 1_000)
        assert [record.value for record in driver.read(f"{topic}-out")] == [2]


def test_a_replay_refuses_what_the_live_run_refused() -> None:
    """Years later: by the time that the record was written with."""
    with TopologyDriver(program(on_bad_record="skip"), wall_clock_ms=2 * NOW) as driver:
        for at, written in ((NOW, NOW), (NOW + 24 * HOUR, NOW + 5), (NOW + 1, NOW + 6)):
            driver.pipe("value", Click(at), key="a", timestamp_ms=written)
        assert [record.timestamp_ms for record in driver.read("value-out")] == [NOW, NOW + 1]
        assert driver.dropped == {"bad_record": 1}


@pytest.mark.parametrize(
    ("topic", "written", "of"), [("own", NOW + 2 * HOUR, "the wall clock"), ("value", NOW - 24 * HOUR, "the time that")]
)
def test_it_ends_the_app_unless_told_otherwise(topic: str, written: int, of: str) -> None:
    at = NOW + 2 * HOUR if topic == "own" else NOW
    with (
        TopologyDriver(program(), wall_clock_ms=NOW) as driver,
        pytest.raises(DecodeError, match=rf"{topic}-0@0 cannot be read: .* ahead of {of}.* max_future allows 1h"),
    ):
        driver.pipe(topic, Click(at), key="a", timestamp_ms=written)


def test_without_it_any_time_is_taken_and_a_negative_one_is_refused() -> None:
    app = App("any")
    clicks = app.topic("in", key=str, value=int)
    app.stream(clicks).to(app.topic("out", key=str, value=int))
    with TopologyDriver(app) as driver:
        driver.pipe(clicks, 1, key="a", timestamp_ms=NOW)
        assert len(driver.read("out")) == 1
    with pytest.raises(ValueError, match="below 0"):
        App("wrong", max_future=timedelta(seconds=-1))
