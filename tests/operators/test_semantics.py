"""The cases of the contract that concern aggregates: what each record brings about, step by step.

Each case runs in three ways: record by record with a restart after each, so that everything between two records goes
through commit, changelog and restore; all records in one run; and record by record through the driver for tests; each
with the cache off and on.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.surface.grouped import Grouped
from tailrace.streams.surface.stream import Stream
from tailrace.streams.surface.table import Table
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.source import ROOT
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import SessionWindow, session
from tailrace.windows.sliding import SlidingWindow, sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.unlimited import unlimited
from tailrace.windows.window import Window

CASES: dict[str, Any] = {
    case["id"]: case for case in json.loads((ROOT / "tests" / "contract" / "semantics.json").read_text())["cases"]
}
Made = tuple[Window | None, Callable[[Grouped[str, str]], Table[Any, Any]]]


def concat(text: str, value: str) -> str:
    return text + value


def concat_or_delete(text: str, value: str) -> str | None:
    return None if value == "DEL" else text + value


def windowed(window: Window, emit: Any = "update") -> Made:
    """Concatenation in windows."""
    return window, lambda grouped: grouped.windowed_by(window).aggregate(str, concat, store="s", emit=emit)


def counted(window: Window, emit: Any = "update", retention: Any = None) -> Made:
    """A count in windows."""
    return window, lambda grouped: grouped.windowed_by(window).count(store="s", emit=emit, retention=retention)


def plus(left: str, right: str) -> str:
    return f"{left}+{right}"


def sessions(window: Window, emit: Any = "update") -> Made:
    """Concatenation in sessions, with a plus wherever two merge."""
    return window, lambda grouped: grouped.windowed_by(window).aggregate(str, concat, merge=plus, store="s", emit=emit)


TOPOLOGIES: dict[str, Made] = {
    "W01": counted(tumbling(ms(10))),
    "W02": windowed(tumbling(ms(10), grace=ms(20))),
    "W03": counted(tumbling(ms(10))),
    "W04": counted(tumbling(ms(10), grace=ms(5))),
    "W05": counted(tumbling(ms(10))),
    "W06": counted(tumbling(ms(10))),
    "W06b": counted(tumbling(ms(10))),
    "W07": windowed(hopping(ms(10), ms(5), grace=ms(100))),
    "W06e": counted(sliding(ms(10))),
    "W10": windowed(sliding(ms(10), grace=ms(100))),
    "W11": windowed(sliding(ms(10), grace=ms(100))),
    "W12": windowed(sliding(ms(10), grace=ms(100))),
    "W14": sessions(session(ms(5), grace=ms(100))),
    "W16": sessions(session(ms(5))),
    "W17": counted(session(ms(5), grace=ms(100))),
    "W21": sessions(session(ms(5)), "close"),
    "W21b": sessions(session(ms(5)), "close"),
    "W22": windowed(sliding(ms(10)), "close"),
    "W18": counted(tumbling(ms(10)), "close"),
    "W18b": counted(tumbling(ms(10)), "close", ms(1000)),
    "W18c": counted(tumbling(ms(10)), "close"),
    "W19": windowed(tumbling(ms(10), grace=ms(5)), "close"),
    "W20": windowed(hopping(ms(10), ms(5)), "close"),
    "W23": (
        tumbling(ms(10), grace=ms(100)),
        lambda g: g.windowed_by(tumbling(ms(10), grace=ms(100))).aggregate(str, concat_or_delete, store="s"),
    ),
    "W25": counted(unlimited(start=10)),
    "A01": (None, lambda grouped: grouped.count(store="s")),
    "A02": (None, lambda grouped: grouped.reduce(concat_or_delete, store="s")),
    "A03": (None, lambda grouped: grouped.aggregate(lambda: "i", concat_or_delete, store="s")),
    "A04": (None, lambda grouped: grouped.aggregate(str, lambda _text, _value: "same", store="s")),
}
Out = tuple[str, str | None, int]


def build(log: Log | str, case: str, *, cache: bool) -> tuple[App, Any]:
    window, make = TOPOLOGIES[case]
    app = App("semantics", log=log, cache_bytes=1 << 20 if cache else 0)
    source = app.topic("in", key=str, value=str)
    table = make(app.stream(source).group_by_key())
    to: Stream[Any, Any] = table.to_stream()
    if window is not None:
        to = to.map_kv(lambda key, value: (shown(key, window), value))
    out = app.topic("out", key=str, codec="json")
    to.to(out)
    return app, out


def shown(key: Any, window: Window) -> str:
    end = "]" if isinstance(window, SessionWindow | SlidingWindow) else ")"
    return f"{key.key}@[{key.start_ms},{key.end_ms}{end}"


def alike(case: str, outs: list[Out]) -> list[Out]:
    """What may differ made the same: the order within a record's sliding windows, a null before the same key (W14)."""
    if isinstance(TOPOLOGIES[case][0], SlidingWindow) and case != "W22":
        return sorted(outs)
    if isinstance(TOPOLOGIES[case][0], SessionWindow):
        repeated = [out[1] is None and out[0] == after[0] for out, after in pairwise(outs)]
        return [out for out, again in zip(outs, [*repeated, False], strict=False) if not again]
    return outs


def sent(log: Log, after: int) -> list[Out]:
    return [
        (
            (record.key or b"").decode(),
            None if record.value is None else str(json.loads(record.value)),
            record.timestamp_ms,
        )
        for record in contents(log, "out")[after:]
    ]


def expected(step: dict[str, Any]) -> list[Out]:
    return [(out["key"], out["value"], out["ts"]) for out in step.get("ours_out", step["out"])]


def dropped_in_all(case: str) -> int:
    """What the case says, and each null value once: those Kafka Streams does not count."""
    given = [step["in"] for step in CASES[case]["steps"]]
    nulls = sum(record["key"] is None or record["value"] is None for record in given)
    late: int = CASES[case].get("dropped", 0) - sum(record["key"] is None for record in given)
    return nulls + max(late, 0) - (1 if case in ("A01", "W06e") else 0)


def came_out(driver: TopologyDriver) -> list[Out]:
    return [
        (record.key, None if record.value is None else str(record.value), record.timestamp_ms)
        for record in driver.read("out")
    ]


def last_of_each(outs: list[Out]) -> dict[str, tuple[str | None, int]]:
    """What a table of the results holds: with the cache on, a session that nobody saw is not retracted."""
    last = {key: (value, timestamp_ms) for key, value, timestamp_ms in outs}
    return {key: result for key, result in last.items() if result[0] is not None}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("case", TOPOLOGIES)
def test_each_step_after_a_restart(case: str, cache: bool) -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        seen = 0
        for number, step in enumerate(CASES[case]["steps"], 1):
            record = step["in"]
            feed(log, "in", [(record["key"], record["value"], record["ts"])])
            app, _ = build(log, case, cache=cache)
            app.run(until="end")
            outs = sent(log, seen)
            seen += len(outs)
            assert alike(case, outs) == alike(case, expected(step)), f"step {number}"


@pytest.mark.parametrize("case", TOPOLOGIES)
def test_all_records_in_one_run(case: str) -> None:
    steps = CASES[case]["steps"]
    records = [(step["in"]["key"], step["in"]["value"], step["in"]["ts"]) for step in steps]
    wanted = [out for step in steps for out in expected(step)]
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", records)
        app, _ = build(log, case, cache=False)
        summary = app.run(until="end")
        assert alike(case, sent(log, 0)) == alike(case, wanted)
        assert sum(summary.dropped.values()) == dropped_in_all(case)
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", records)
        app, _ = build(log, case, cache=True)
        app.run(until="end")
        assert last_of_each(sent(log, 0)) == last_of_each(wanted)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("case", TOPOLOGIES)
def test_each_step_through_the_driver(case: str, cache: bool) -> None:
    app, _ = build("memory:", case, cache=cache)
    with TopologyDriver(app, cache=cache) as driver:
        for number, step in enumerate(CASES[case]["steps"], 1):
            record = step["in"]
            driver.pipe("in", record["value"], key=record["key"], timestamp_ms=record["ts"])
            if cache:
                driver.commit()
            assert alike(case, came_out(driver)) == alike(case, expected(step)), f"step {number}"
        assert sum(driver.dropped.values()) == dropped_in_all(case)


@pytest.mark.parametrize("case", TOPOLOGIES)
def test_one_commit_at_the_end_through_the_driver(case: str) -> None:
    steps = CASES[case]["steps"]
    app, _ = build("memory:", case, cache=True)
    with TopologyDriver(app, cache=True) as driver:
        for step in steps:
            driver.pipe("in", step["in"]["value"], key=step["in"]["key"], timestamp_ms=step["in"]["ts"])
        driver.commit()
        assert last_of_each(came_out(driver)) == last_of_each([out for step in steps for out in expected(step)])
        assert sum(driver.dropped.values()) == dropped_in_all(case)
