"""The cases of the contract that concern streams and tables without aggregates: what each record brings about.

Each case runs record by record with a restart after each, and all records in one run; with the cache off and on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.stream import Stream
from tailrace.streams.topic import Topic
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.semantics import Output, case

Source = Topic[str, str]


def split(app: App, source: Source) -> Stream[str, Any]:
    branches = app.stream(source).split({"1": lambda v: v.startswith("a"), "2": lambda v: len(v) > 1}, default="d")
    named = [branch.map(partial(label, name)) for name, branch in branches.items()]
    return named[0].merge(*named[1:])


def label(name: str, value: str) -> str:
    return f"{name}:{value}"


TOPOLOGIES: dict[str, Callable[[App, Source], Stream[str, Any]]] = {
    "B01": split,
}


def run(log: Log, name: str, *, cache: bool) -> dict[str, int]:
    """Runs the case's program over what is in the log; returns what it dropped."""
    app = App("semantics", log=log, cache_bytes=1 << 20 if cache else 0)
    made = TOPOLOGIES[name](app, app.topic("in", key=str, value=str))
    made.to(app.topic("out", key=str, value=str))
    return dict(app.run(until="end").dropped)


def sent(log: Log) -> list[Output]:
    return [
        Output(
            (record.key or b"").decode(), None if record.value is None else record.value.decode(), record.timestamp_ms
        )
        for record in contents(log, "out")
    ]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_step_after_a_restart(name: str, cache: bool) -> None:
    wanted: list[Output] = []
    with Log.open("memory:") as log:
        log.create_topic("in")
        for number, (given, outs) in enumerate(case(name).steps, 1):
            feed(log, "in", [(given.key, given.value, given.timestamp_ms)])
            run(log, name, cache=cache)
            wanted += outs
            assert sent(log) == wanted, f"step {number}"


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_all_records_in_one_run(name: str, cache: bool) -> None:
    steps = case(name).steps
    wanted = [out for _, outs in steps for out in outs]
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [(given.key, given.value, given.timestamp_ms) for given, _ in steps])
        dropped = run(log, name, cache=cache)
        assert sum(dropped.values()) == case(name).dropped
        if cache:
            assert present(sent(log)) == present(wanted)
        else:
            assert sent(log) == wanted


def present(outs: list[Output]) -> dict[str, Output]:
    """What a table of the results shows in the end."""
    return {key: out for key, out in {out.key: out for out in outs}.items() if out.value is not None}
