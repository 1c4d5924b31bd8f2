"""Runs cases of the contract whose programs have several topics: with a restart after each step, or in the driver."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.semantics import Output, case

Program = Callable[[App], object]
"""Builds a case's program, which writes to the topic "out"."""


def _app(program: Program, log: Log | str, *, cache: bool) -> App:
    app = App("semantics", log=log, cache_bytes=1 << 20 if cache else 0)
    program(app)
    return app


def _outputs(found: Iterable[Any]) -> list[Output]:
    return [Output(key, None if value is None else str(value), timestamp_ms) for key, value, timestamp_ms in found]


def _sent(log: Log, after: int) -> list[Output]:
    return _outputs(
        (
            None if record.key is None else record.key.decode(),
            None if record.value is None else json.loads(record.value),
            record.timestamp_ms,
        )
        for record in contents(log, "out")[after:]
    )


def step_by_step(name: str, program: Program, topics: Iterable[str], *, cache: bool) -> Counter[str]:
    """Each record in a run of its own, so that all state goes through commit, changelog and restore."""
    dropped: Counter[str] = Counter()
    with Log.open("memory:") as log:
        for topic in topics:
            log.create_topic(topic)
        seen = 0
        for number, (given, expected) in enumerate(case(name).steps, 1):
            feed(log, given.topic, [given[1:]])
            dropped.update(_app(program, log, cache=cache).run(until="end").dropped)
            outs = _sent(log, seen)
            seen += len(outs)
            assert outs == expected, f"{name}, step {number}"
    return dropped


def through_the_driver(name: str, program: Program, *, cache: bool) -> Counter[str]:
    """Each record through the driver, with a commit after it where there is a cache."""
    with TopologyDriver(_app(program, "memory:", cache=cache), cache=cache) as driver:
        for number, (given, expected) in enumerate(case(name).steps, 1):
            driver.pipe(given.topic, given.value, key=given.key, timestamp_ms=given.timestamp_ms)
            if cache:
                driver.commit()
            outs = _outputs((record.key, record.value, record.timestamp_ms) for record in driver.read("out"))
            assert outs == expected, f"{name}, step {number}"
        return Counter(driver.dropped)
