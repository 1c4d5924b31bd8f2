"""The cases of the contract that concern tables made of tables: what each record brings about, step by step.

Each case runs record by record with a restart after each, and through the driver with a commit after each, both with
the cache off and on; and all records in one run without a cache.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.surface.table import Table
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.semantics import Case, Output, case

Tables = Mapping[str, Table[str, str]]


def by_value(_key: str, value: str) -> tuple[str | None, str]:
    return None if value == "n" else value, value


def by_letter(_key: str, value: str) -> tuple[str, str]:
    return value[0], value[1:]


def counted(tables: Tables) -> Table[str, Any]:
    return tables["in"].group_by(by_value).count(store="s")


def pair(left: str | None, right: str | None) -> str:
    return f"[{left or 'null'},{right or 'null'}]"


def first_letter(value: str) -> str | None:
    return None if value.startswith("n") else value[:1]


def one(value: str) -> str:
    return f"{value}1"


def two(value: str) -> str:
    return f"{value}2"


WAYS = ("", " stored", " of maps", " of filters", " turned")


def joined(method: str, how: str) -> Callable[[Tables], Table[str, Any]]:
    """The same join of tables that come about in several ways."""

    def make(tables: Tables) -> Table[str, Any]:
        left, right = tables["L"], tables["R"]
        if how == " of maps":
            left, right = left.map(str), right.map(str, store="mapped")
        if how == " of filters":
            left, right = left.filter(bool, store="filtered"), right.filter(bool).filter(bool)
        if how == " turned" and method == "join":
            return right.join(left, lambda its, own: pair(own, its))
        join: Callable[..., Table[str, Any]] = getattr(left, method)
        return join(right, pair, store="j" if how == " stored" else None)

    return make


TOPOLOGIES: dict[str, Callable[[Tables], Table[str, Any]]] = {
    "G01": counted,
    "G02": lambda tables: (
        tables["in"].group_by(by_letter).aggregate(str, lambda a, v: f"{a}+{v}", lambda a, v: f"{a}-{v}", store="s")
    ),
    "G04": counted,
    "G06": counted,
    **{f"M01{how}": joined("join", how) for how in WAYS},
    **{f"M02{how}": joined("left_join", how) for how in WAYS},
    **{f"M04{how}": joined("join", how) for how in WAYS},
    "F01": lambda tables: tables["L"].join(tables["R"], pair, on=first_letter, store="j"),
    "F01 of maps": lambda tables: tables["L"].map(str).join(tables["R"].map(str), pair, on=first_letter, store="j"),
    "F03": lambda tables: tables["L"].join(tables["R"], pair, on=first_letter, store="j"),
    "M06": lambda tables: tables["L"].join(tables["L"], pair),
    "M06 stored": lambda tables: tables["L"].join(tables["L"], pair, store="j"),
    "M06 outer": lambda tables: tables["L"].outer_join(tables["L"], pair),
    "M06b": lambda tables: tables["L"].map(one).join(tables["L"].map(two), pair),
    "M06b left": lambda tables: tables["L"].map(one).left_join(tables["L"].map(two), pair),
}


def steps_of(name: str) -> Case:
    """The case; where the contract allows it, without deletes of what is not there."""
    found = case(name.split(maxsplit=1)[0])
    if not name.startswith("F"):
        return found
    there = set[str]()
    for _, outs in found.steps:
        outs[:] = [out for out in outs if out.value is not None or out.key in there]
        there = (there | {out.key for out in outs}) - {out.key for out in outs if out.value is None}
    return found


def build(log: Log | str, name: str, *, cache: bool) -> App:
    app = App("semantics", log=log, cache_bytes=1 << 20 if cache else 0)
    topics = dict.fromkeys(sorted(given.topic for given, _ in steps_of(name).steps))
    tables = {topic: app.table(app.topic(topic, key=str, value=str), store=topic) for topic in topics}
    TOPOLOGIES[name](tables).map(str, store="as-text").to(app.topic("out", key=str, value=str))
    return app


def sent(log: Log) -> list[Output]:
    return [
        Output(
            (record.key or b"").decode(), None if record.value is None else record.value.decode(), record.timestamp_ms
        )
        for record in contents(log, "out")
    ]


def create_inputs(log: Log, name: str) -> None:
    for topic in {given.topic for given, _ in steps_of(name).steps}:
        log.create_topic(topic)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_step_after_a_restart(name: str, cache: bool) -> None:
    wanted: list[Output] = []
    with Log.open("memory:") as log:
        create_inputs(log, name)
        for number, (given, outs) in enumerate(steps_of(name).steps, 1):
            feed(log, given.topic, [(given.key, given.value, given.timestamp_ms)])
            build(log, name, cache=cache).run(until="end")
            wanted += outs
            assert sent(log) == wanted, f"step {number}"


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_step_through_the_driver(name: str, cache: bool) -> None:
    with TopologyDriver(build("memory:", name, cache=cache), cache=cache) as driver:
        for number, (given, outs) in enumerate(steps_of(name).steps, 1):
            driver.pipe(given.topic, given.value, key=given.key, timestamp_ms=given.timestamp_ms)
            driver.commit()
            found = [Output(record.key, record.value, record.timestamp_ms) for record in driver.read("out")]
            assert found == outs, f"step {number}"
        assert sum(driver.dropped.values()) == steps_of(name).dropped


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_all_records_in_one_run(name: str) -> None:
    steps = steps_of(name).steps
    with Log.open("memory:") as log:
        create_inputs(log, name)
        # One time after the other, so that both inputs are read in the order of the steps.
        for given, _ in steps:
            feed(log, given.topic, [(given.key, given.value, given.timestamp_ms)])
        app = build(log, name, cache=False)
        app.run(until="end")
        if len({given.topic for given, _ in steps}) == 1 or in_order(steps_of(name)):
            assert sent(log) == [out for _, outs in steps for out in outs]


def in_order(steps: Case) -> bool:
    times = [given.timestamp_ms for given, _ in steps.steps]
    return times == sorted(times)
