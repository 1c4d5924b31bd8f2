"""The cases of the contract that concern streams and tables without aggregates: what each record brings about.

Each case runs record by record with a restart after each, and all records in one run; with the cache off and on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.program.topic import Topic
from tailrace.streams.surface.stream import Stream
from tailrace.streams.surface.table import Table
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.semantics import Case, Output, case

Source = Topic[str, str]


def split(app: App, source: Source) -> Stream[str, Any]:
    branches = app.stream(source).split({"1": lambda v: v.startswith("a"), "2": lambda v: len(v) > 1}, default="d")
    named = [branch.map(partial(label, name)) for name, branch in branches.items()]
    return named[0].merge(*named[1:])


def label(name: str, value: str) -> str:
    return f"{name}:{value}"


def upper(value: str) -> str | None:
    return None if value == "n" else value.upper()


def is_k(value: str) -> bool:
    return value.startswith("k")


TOPOLOGIES: dict[str, Callable[[App, Source], Stream[str, Any]]] = {
    "B01": split,
    "T01": lambda app, source: app.table(source, store="s").to_stream(),
    "T02": lambda app, source: app.table(source, store="s").to_stream(),
    "T03": lambda app, source: app.table(source, store="s").to_stream(),
    "T05": lambda app, source: app.table(source, store="s").filter(is_k).to_stream(),
    "T05 stored": lambda app, source: app.table(source, store="s").filter(is_k, store="f").to_stream(),
    "T05 keyed": lambda app, source: app.table(source, store="s").filter_kv(lambda _k, v: is_k(v)).to_stream(),
    "T05 not": lambda app, source: app.table(source, store="s").filter_not(lambda v: not is_k(v)).to_stream(),
    "T05 of a map": lambda app, source: app.table(source, store="s").map(str).filter(is_k).map(str).to_stream(),
    "T05 beside": lambda app, source: beside(app.table(source, store="s")),
    "T05 of an aggregate": lambda app, source: (
        app.stream(source)
        .map(lambda v: v or "DEL")
        .group_by_key()
        .reduce(lambda _a, b: None if b == "DEL" else b, store="s")
        .filter(is_k)
        .to_stream()
    ),
    "T06": lambda app, source: app.table(source, store="s").map(upper).to_stream(),
    "T06 stored": lambda app, source: app.table(source, store="s").map_values(upper, store="m").to_stream(),
    "T06 keyed": lambda app, source: app.table(source, store="s").map_kv(lambda _k, v: upper(v)).to_stream(),
    "T07": lambda app, source: app.stream(source).to_table(store="s").to_stream(),
    "T07 rekeyed": lambda app, source: app.stream(source).map_kv(lambda k, v: (k, v)).to_table(store="s").to_stream(),
}


def beside(table: Table[str, str]) -> Stream[str, Any]:
    """The filter after another node that changes the old value on its way."""
    table.map(lambda _v: "k").filter(lambda _v: True).filter(is_k, store="other")
    return table.filter(is_k).to_stream()


def steps_of(name: str) -> Case:
    return case(name.split(maxsplit=1)[0])


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
        for number, (given, outs) in enumerate(steps_of(name).steps, 1):
            feed(log, "in", [(given.key, given.value, given.timestamp_ms)])
            run(log, name, cache=cache)
            wanted += outs
            assert sent(log) == wanted, f"step {number}"


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_all_records_in_one_run(name: str, cache: bool) -> None:
    steps = steps_of(name).steps
    wanted = [out for _, outs in steps for out in outs]
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [(given.key, given.value, given.timestamp_ms) for given, _ in steps])
        dropped = run(log, name, cache=cache)
        assert sum(dropped.values()) == steps_of(name).dropped
        if cache:
            assert present(sent(log)) == present(wanted)
        else:
            assert sent(log) == wanted


def present(outs: list[Output]) -> dict[str, Output]:
    """What a table of the results shows in the end."""
    return {key: out for key, out in {out.key: out for out in outs}.items() if out.value is not None}
