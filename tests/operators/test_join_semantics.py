"""The cases of the contract that concern joins of two streams: what each record brings about, step by step.

Each case runs record by record with a restart after each, and through the driver for tests; with the cache off and on.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.semantics import Case, Output, case
from tailrace.windows.duration import milliseconds as ms

NONE = timedelta()
Made = Callable[[Stream[str, str], Stream[str, str]], Stream[str, Any]]


def pair(left: str | None, right: str | None) -> str:
    return f"[{shown(left)},{shown(right)}]"


def shown(value: str | None) -> str:
    return "null" if value is None else value


def inner(within: timedelta, grace: timedelta = NONE) -> Made:
    return lambda left, right: left.join(right, pair, store="j", within=within, grace=grace)


def left(within: timedelta, grace: timedelta = NONE) -> Made:
    return lambda left, right: left.left_join(right, pair, store="j", within=within, grace=grace)


TOPOLOGIES: dict[str, Made] = {
    "J01": inner(within=ms(15)),
    "J02": left(within=ms(15)),
    "J04": inner(within=ms(10), grace=ms(100)),
    "J05": left(within=ms(10)),
    "J06": left(within=ms(10), grace=ms(5)),
    "J08": lambda left, right: left.join(right, pair, store="j", before=NONE, after=ms(10), grace=ms(100)),
    "J10": inner(within=ms(10)),
    "J11": left(within=ms(10)),
    "J14": lambda left, _right: left.join(left, pair, store="j", within=ms(10)),
    # With two stores the results are the same.
    "J14 of two": lambda left, _right: left.filter(lambda _v: True).join(left, pair, store="j", within=ms(10)),
    "B03": lambda left, right: (
        left.join(right, pair, store="j", within=ms(10), grace=ms(100))
        .group_by_key()
        .count(store="c")
        .changes()
        .map(str)
    ),
}


def build(log: Log | str, name: str, *, cache: bool) -> App:
    app = App("semantics", log=log, cache_bytes=1 << 20 if cache else 0)
    sides = [app.stream(app.topic(topic, key=str, value=str)) for topic in ("L", "R")]
    made = TOPOLOGIES[name](*sides)
    made.to(app.topic("out", key=str, value=str))
    if name != "B03":
        made.late.to(app.topic("late", key=str, value=str))
    return app


def steps_of(name: str) -> Case:
    return case(name.split(maxsplit=1)[0])


def sent(log: Log) -> list[Any]:
    return [
        Output(
            None if record.key is None else record.key.decode(),  # type: ignore[arg-type]  # J11 has a result without
            None if record.value is None else record.value.decode(),
            record.timestamp_ms,
        )
        for record in contents(log, "out")
    ]


def dropped_in_all(name: str) -> int:
    """What the case says, and the record that ours finds late (J06)."""
    return steps_of(name).dropped + (name == "J06")


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_step_after_a_restart(name: str, cache: bool) -> None:
    wanted: list[Output] = []
    with Log.open("memory:") as log:
        log.create_topic("L")
        log.create_topic("R")
        for number, (given, outs) in enumerate(steps_of(name).steps, 1):
            feed(log, given.topic, [(given.key, given.value, given.timestamp_ms)])
            build(log, name, cache=cache).run(until="end")
            wanted += merged(outs, cache=cache, name=name)
            assert sent(log) == wanted, f"step {number}"


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_step_through_the_driver(name: str, cache: bool) -> None:
    app = build("memory:", name, cache=cache)
    with TopologyDriver(app, cache=cache) as driver:
        for number, (given, outs) in enumerate(steps_of(name).steps, 1):
            driver.pipe(given.topic, given.value, key=given.key, timestamp_ms=given.timestamp_ms)
            if cache:
                driver.commit()
            found = [(record.key, record.value, record.timestamp_ms) for record in driver.read("out")]
            assert found == merged(outs, cache=cache, name=name), f"step {number}"
        assert sum(driver.dropped.values()) == dropped_in_all(name)


def merged(outs: list[Output], *, cache: bool, name: str) -> list[Output]:
    """The cache merges the two counts of one step into the last."""
    return outs[-1:] if cache and name == "B03" else outs


def test_the_late_record_of_j06_is_told() -> None:
    with TopologyDriver(build("memory:", "J06", cache=False)) as driver:
        for given, _ in case("J06").steps:
            driver.pipe(given.topic, given.value, key=given.key, timestamp_ms=given.timestamp_ms)
        assert [(late.key, late.value, late.timestamp_ms) for late in driver.read("late")] == [("B", "s3", 3)]
        assert driver.dropped == {"late": 1}
