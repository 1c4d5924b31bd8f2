"""Versioned tables: the contract's cases, joins as of a time against a model, and what counts the newest rows alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.errors import TopologyError
from tailrace.streams.app import App
from tailrace.streams.surface.table import Table
from tailrace.testing import TopologyDriver
from tailrace.tests.support.cases import step_by_step, through_the_driver
from tailrace.tests.support.engine import contents, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.tumbling import tumbling


def pair(left: str, right: str | None) -> str:
    return f"[{left},{'null' if right is None else right}]"


def passed_on(app: App) -> None:
    table = app.table(app.topic("in", key=str, value=str), store="table", history=ms(100))
    table.to_stream().to(app.topic("out", key=str, codec="json"))


def looked_up(app: App) -> None:
    table = app.table(app.topic("R", key=str, value=str), store="table", history=ms(100))
    stream = app.stream(app.topic("L", key=str, value=str))
    stream.left_join(table, pair).to(app.topic("out", key=str, codec="json"))


@pytest.mark.parametrize("cache", [False, True])
def test_the_contracts_cases(cache: bool) -> None:
    for name, program, topics in [("T04", passed_on, ["in"]), ("K05", looked_up, ["L", "R"])]:
        assert not step_by_step(name, program, topics, cache=cache)
        assert not through_the_driver(name, program, cache=cache)


STEP = st.tuples(
    st.sampled_from(["L", "R", "R", "commit"]), st.sampled_from("ab"), st.sampled_from("uvwxyz"), st.integers(0, 60)
)
HISTORY = 20


def model(steps: list[tuple[str, str, str, int]], *, filtered: bool) -> tuple[list[Any], int]:
    """What the join brings about, and how many rows were too old."""
    rows: dict[str, dict[int, str | None]] = {}
    out: list[Any] = []
    now, late = 0, 0
    for topic, key, value, time in (step for step in steps if step[0] != "commit"):
        now = max(now, time)
        if topic == "R" and time < now - HISTORY:
            late += 1
        elif topic == "R":
            rows.setdefault(key, {})[time] = None if value == "z" else value
        else:
            before = [t for t in rows.get(key, {}) if t <= time]
            newest = max(rows.get(key, {}), default=0)
            found = rows[key][max(before)] if before and (time >= now - HISTORY or max(before) == newest) else None
            if filtered and found is not None and found >= "x":
                found = None
            out.append((key, pair(value, found), time))
    return out, late


@given(st.lists(STEP, max_size=30), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_join_as_of_the_records_time(steps: list[Any], filtered: bool, cache: bool) -> None:
    app = App("shop", log="memory:")
    table = app.table(app.topic("R", key=str, value=str), store="table", history=ms(HISTORY))
    if filtered:
        table = table.filter(lambda value: value < "x")
    out = app.topic("out", key=str, value=str)
    app.stream(app.topic("L", key=str, value=str)).left_join(table, pair).to(out)
    with TopologyDriver(app, cache=cache) as driver:
        for topic, key, value, time in steps:
            if topic == "commit":
                driver.commit()
            else:
                driver.pipe(topic, None if (topic, value) == ("R", "z") else value, key=key, timestamp_ms=time)
        found = [(record.key, record.value, record.timestamp_ms) for record in driver.read(out)]
        assert (found, driver.dropped.get("late", 0)) == model(steps, filtered=filtered)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_a_row_that_a_newer_one_precedes_is_passed_on_and_counts_for_nothing(cache: bool, kept: bool) -> None:
    """M05 and G05 of the contract's rules."""
    app = App("shop", log="memory:")
    rows = app.table(app.topic("R", key=str, value=str), store="table", history=ms(100))
    table: Table[str, str] = rows.filter(bool, store="kept" if kept else None)
    other = app.table(app.topic("B", key=str, value=str), store="other")
    joined, groups, out = (app.topic(name, key=str, value=str) for name in ("joined", "groups", "out"))
    table.join(other, pair).to(joined)
    grouped = table.group_by(lambda key, value: (value, key))
    grouped.reduce(lambda a, b: a + b, lambda a, b: a.replace(b, ""), store="g").to(groups)
    rows.to(out)
    with TopologyDriver(app, cache=cache) as driver:
        driver.pipe("B", "b", key="A", timestamp_ms=1)
        for value, time in [("x", 5), ("y", 3), ("z", 7)]:
            driver.pipe("R", value, key="A", timestamp_ms=time)
            driver.commit()
        assert [(r.value, r.timestamp_ms) for r in driver.read(joined)] == [("[x,b]", 5), ("[z,b]", 7)]
        assert [(r.key, r.value) for r in driver.read(groups)] == [("x", "A"), ("x", ""), ("z", "A")]
        assert [r.value for r in driver.read(out)] == ["x", "y", "z"]


def test_a_stream_made_of_it_counts_every_change() -> None:
    app = App("shop", log="memory:")
    rows = app.table(app.topic("R", key=str, value=str), store="table", history=ms(100))
    out = app.topic("out", key=str, value=int)
    rows.changes().group_by_key().count(store="n").to(out)
    with TopologyDriver(app) as driver:
        for value, time in [("x", 5), ("y", 3)]:
            driver.pipe("R", value, key="A", timestamp_ms=time)
        assert [record.value for record in driver.read(out)] == [1, 2]


def test_the_history_outlives_restarts_and_a_plain_table_is_no_versioned_one() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L")
        log.create_topic("R")
        for topic, value, time in [("R", "old", 10), ("R", "new", 50), ("L", "s", 30), ("R", "x", 200), ("L", "t", 30)]:
            feed(log, topic, [("A", value, time)])
            app = App("shop", log=log)
            looked_up(app)
            app.run(until="end")
        assert [record.value for record in contents(log, "out")] == [b'"[s,old]"', b'"[t,null]"']
        app = App("shop", log=log)
        app.table(app.topic("R", key=str, value=str), store="table")
        with pytest.raises(TopologyError, match=r"is a key-value store of str to str, .* by a versioned store"):
            app.run(until="end")


def test_what_is_no_history_is_refused() -> None:
    app = App("shop", log="memory:")
    topic, wrong = app.topic("R", key=str, value=str), 100
    with pytest.raises(ValueError, match="a time below 0"):
        app.table(topic, store="table", history=-ms(1))
    with pytest.raises(TypeError, match="is not a timedelta"):
        app.table(topic, store="table", history=wrong)  # type: ignore[arg-type]  # what is refused


GRACE = 8


def waiting(app: App, *, left: bool = True) -> None:
    table = app.table(app.topic("R", key=str, value=str), store="table", history=ms(HISTORY))
    stream = app.stream(app.topic("L", key=str, value=str))
    join: Any = stream.left_join if left else stream.join
    join(table, pair, grace=ms(GRACE), store="waiting").to(app.topic("out", key=str, value=str))


def waited(steps: list[tuple[str, str, str, int]], *, left: bool) -> list[Any]:
    """What comes out: late records at once, the others when the grace has passed, by time and key."""
    rows: dict[str, dict[int, str]] = {}
    held: list[tuple[int, str, int, str]] = []
    out: list[Any] = []
    now = -1

    def join(key: str, value: str, time: int, then: int) -> None:
        before = [t for t in rows.get(key, {}) if t <= time]
        known = before and (time >= then - HISTORY or max(before) == max(rows[key]))
        found = rows[key][max(before)] if known else None
        if found is not None or left:
            out.append((key, pair(value, found), time))

    for number, (topic, key, value, time) in enumerate(step for step in steps if step[0] != "commit"):
        now = max(now, time)
        for due in sorted(record for record in held if record[0] + GRACE <= now):
            held.remove(due)
            join(due[1], due[3], due[0], due[0])
        if topic == "R" and time >= now - HISTORY:
            rows.setdefault(key, {})[time] = value
        elif topic == "L" and time + GRACE <= now:
            join(key, value, time, now)
        elif topic == "L":
            held.append((time, key, number, value))
    return out


@given(st.lists(STEP, max_size=30), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_records_that_wait_for_rows(steps: list[Any], left: bool, cache: bool) -> None:
    app = App("shop", log="memory:")
    waiting(app, left=left)
    with TopologyDriver(app, cache=cache) as driver:
        for topic, key, value, time in steps:
            if topic == "commit":
                driver.commit()
            else:
                driver.pipe(topic, value, key=key, timestamp_ms=time)
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read("out")] == waited(steps, left=left)


@given(st.lists(STEP, max_size=10), st.booleans())
@settings(max_examples=25, deadline=None)
def test_records_that_wait_outlive_restarts(steps: list[Any], cache: bool) -> None:
    with Log.open("memory:") as log:
        for topic in ("L", "R", "out"):
            log.create_topic(topic)
        for topic, key, value, time in steps:
            if topic != "commit":
                feed(log, topic, [(key, value, time)])
            app = App("shop", log=log, cache_bytes=1 << 20 if cache else 0)
            waiting(app)
            app.run(until="end")
        found = [((r.key or b"").decode(), (r.value or b"").decode(), r.timestamp_ms) for r in contents(log, "out")]
        assert found == waited(steps, left=True)


def test_what_waited_has_its_headers_and_nulls_do_not_wait() -> None:
    app = App("shop", log="memory:")
    waiting(app)
    with TopologyDriver(app) as driver:
        driver.pipe("L", "l", key="a", timestamp_ms=5, headers=[("of", b"stream")])
        driver.pipe("L", "n", timestamp_ms=6)
        driver.pipe("L", None, key="a", timestamp_ms=6)
        assert [(r.value, r.timestamp_ms) for r in driver.read("out")] == [("[n,null]", 6)]
        driver.pipe("R", "r", key="a", timestamp_ms=50)
        (record,) = driver.read("out")
        assert (record.value, record.timestamp_ms, list(record.headers)) == ("[l,null]", 5, [("of", b"stream")])
        assert driver.dropped == {"null_value": 1}


def test_late_behind_a_join_is_what_would_be_late_without_it() -> None:
    app = App("shop", log="memory:")
    table = app.table(app.topic("R", key=str, value=str), store="table", history=ms(HISTORY))
    stream = app.stream(app.topic("L", key=str, value=str)).left_join(table, pair, grace=ms(GRACE), store="waiting")
    counted = stream.group_by_key().windowed_by(tumbling(ms(10))).count(store="n", emit="close")
    counted.to_stream().map_kv(lambda key, n: (key.key, n)).to(app.topic("out", key=str, value=int))
    with TopologyDriver(app) as driver:
        for time in [5, 12, 9, 11, 100, 200]:
            driver.pipe("L", "l", key="a", timestamp_ms=time)
        assert [record.value for record in driver.read("out")] == [1, 2, 1]
        assert driver.dropped == {"late": 1}, "the one of 9 came after 12 had closed its window"


def test_a_grace_that_cannot_be_kept_names_both_places() -> None:
    app = App("shop", log="memory:")
    topic, stream = app.topic("R", key=str, value=str), app.stream(app.topic("L", key=str, value=str))
    plain = app.table(topic, store="plain")
    with pytest.raises(TypeError, match=r"join\(grace=…\) keeps the records that wait: name their store"):
        stream.join(plain, pair, grace=ms(5))
    with pytest.raises(ValueError, match="is negative"):
        stream.join(plain, pair, grace=-ms(5), store="w")
    stream.join(plain, pair, grace=ms(5), store="w").for_each(print)
    with pytest.raises(TopologyError, match=r"grace=5ms at .*:\d+ needs a versioned table, and that of .*:\d+ has no"):
        app.describe()
    other = App("shop", log="memory:")
    short = other.table(other.topic("R", key=str, value=str), store="table", history=ms(4))
    other.stream(other.topic("L", key=str, value=str)).join(short, pair, grace=ms(5), store="w").for_each(print)
    with pytest.raises(TopologyError, match=r"longer than the history of the table of .*:\d+, 4ms"):
        other.describe()
