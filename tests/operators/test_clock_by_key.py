"""Windows by the clock of each key: as if each key had an app of its own; state that nothing needs is gone.

The records run in pieces, each in a run of its own, so that windows and clocks go through commit, changelog and
restore.
"""

from collections import defaultdict
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import App, Window, Windowed, session, tumbling, unlimited, until_window_closes
from tailrace.errors import TopologyError
from tailrace.log.client import Log
from tailrace.streams import runner
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.tests.support.semantics import case
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.sliding import sliding

Rows = list[tuple[str, str | None, int]]
Out = tuple[str, Any, int]
WINDOWS = [
    tumbling(ms(10)),
    tumbling(ms(10), grace=ms(4)),
    hopping(ms(10), ms(5)),
    sliding(ms(7), grace=ms(3)),
    session(ms(5), grace=ms(2)),
]


def concat(text: str, value: str) -> str | None:
    """The text so far and the value; d deletes."""
    return None if value == "d" else text + value


def plus(left: str, right: str) -> str:
    return f"{left}+{right}"


def program(log: Log | str, window: Window, clock: Any, *, emit: Any = "update", cache: bool = False) -> App:
    app = App("clocks", log=log, cache_bytes=1 << 20 if cache else 0)
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key().windowed_by(window, clock=clock)
    merge = plus if str(window).startswith("session") else None
    table = grouped.aggregate(str, concat, store="s", emit=emit, merge=merge, value=str)
    table.to_stream().map_kv(lambda key, value: (f"{key.key}@{key.start_ms}-{key.end_ms}", value)).to(
        app.topic("out", key=str, value=str)
    )
    grouped.late.to(app.topic("late", key=str, value=str))
    return app


def read(log: Log, topic: str) -> list[Out]:
    return decoded(contents(log, topic), App("r").topic(topic, key=str, value=str))


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Each key goes its own way through time, out of order by up to 8, with jumps."""
    now, made = defaultdict[str, int](int), Rows()
    for step in draw(st.lists(st.one_of(st.integers(0, 5), st.just(60)), min_size=1, max_size=30)):
        key = draw(st.sampled_from("ab"))
        now[key] += step
        value = draw(st.sampled_from(["x", "y", "z", "d", None]))
        made.append((key, value, max(now[key] - draw(st.integers(0, 8)), 0)))
    return made


def last(outs: list[Out]) -> dict[str, tuple[Any, int]]:
    found = {key: (value, time_ms) for key, value, time_ms in outs}
    return {key: row for key, row in found.items() if row[0] is not None}


@settings(max_examples=80, deadline=None)
@given(
    records=rows(),
    cuts=st.sets(st.integers(1, 30), max_size=4),
    window=st.sampled_from(WINDOWS),
    emit=st.sampled_from(["update", "close"]),
    cache=st.booleans(),
    batch=st.sampled_from([1, 3, 1000]),
)
def test_each_key_is_on_its_own(
    records: Rows, cuts: set[int], window: Window, emit: str, cache: bool, batch: int
) -> None:
    results: list[list[Out]] = [[], []]
    for key in "ab":
        with Log.open("memory:") as log:
            log.create_topic("in")
            feed(log, "in", [record for record in records if record[0] == key])
            program(log, window, "task", emit=emit).run(until="end")
            for number, topic in enumerate(("out", "late")):
                results[number] += read(log, topic)
    with Log.open("memory:") as log, patch.object(runner, "_SLICE", batch):
        log.create_topic("in")
        ends = sorted({cut for cut in cuts if cut < len(records)} | {len(records)})
        for begin, end in zip([0, *ends], ends, strict=False):
            feed(log, "in", records[begin:end])
            program(log, window, "key", emit=emit, cache=cache).run(until="end")
        out, late = (read(log, topic) for topic in ("out", "late"))
    assert sorted(late, key=str) == sorted(results[1], key=str)
    if emit == "close" or not cache:
        assert sorted(out, key=str) == sorted(results[0], key=str)
    assert last(out) == last(results[0])


def test_w05_with_the_clock_of_each_key() -> None:
    app = App("w05")
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key().windowed_by(tumbling(ms(10)), clock="key")
    grouped.count(store="s").to(app.topic("out", key=Windowed[str], value=int))
    with TopologyDriver(app) as driver:
        for given_, _ in case("W05").steps:
            driver.pipe("in", given_.value, key=given_.key, timestamp_ms=given_.timestamp_ms)
        rows = [(record.key.key, record.key.start_ms, record.value) for record in driver.read("out")]
        assert rows == [("A", 0, 1), ("B", 20, 1), ("A", 0, 2), ("A", 20, 1), ("A", 20, 2)]
        assert driver.dropped == {}


def test_windows_that_a_key_has_passed_are_gone_and_silent_keys_keep_theirs() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("silent", "x", 3), *[("busy", "x", time_ms) for time_ms in range(0, 2_000, 10)]])
        summary = program(log, tumbling(ms(10)), "key").run(until="end")
        assert summary.open_windows == 2
        changelog = {record.key: record.value for record in contents(log, "clocks-s-changelog")}
        assert sum(value is not None for value in changelog.values()) == 2
    with TopologyDriver(program("memory:", tumbling(ms(10)), "key")) as driver:
        driver.pipe("in", "x", key="a", timestamp_ms=12)
        assert driver.store("s").get(Windowed("a", 10, 20)) == "x"
        assert list(driver.store("s-clocks").all()) == [("a", 12)]


def test_what_cannot_be_is_refused() -> None:
    app = App("refused")
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    wrong: Any = "wall"
    with pytest.raises(ValueError, match="is neither"):
        grouped.windowed_by(tumbling(ms(10)), clock=wrong)
    with pytest.raises(ValueError, match="nothing is late for it"):
        grouped.windowed_by(unlimited(), clock="key")
    counts = grouped.windowed_by(tumbling(ms(10)), clock="key").count(store="c")
    counts.suppress(until_window_closes(), store="s")
    with pytest.raises(TopologyError, match='clock="key"'):
        app.describe()
