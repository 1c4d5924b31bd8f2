"""Joins of tables by key against what a plain loop makes of the rows that are there in the end.

Programs take random changes and deletes of two tables in random pieces, each in a run of its own, so that what lies
between two of them goes through commit, changelog and restore. Behind each join everything is gathered into one group,
whose `remove` fails where a change takes back something else than what was sent before it.
"""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tailrace import App, Table, minutes, tumbling
from tailrace.errors import EncodeError, TaskError, TopologyError
from tailrace.log.client import Log
from tailrace.streams import runner
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, decoded, feed

Text = Table[str, str]
Change = tuple[str, str, str | None]
"""Topic, key, value."""


def pair(left: str | None, right: str | None) -> str:
    return f"[{left or '-'},{right or '-'}]"


def no_twos(left: str | None, right: str | None) -> str | None:
    return None if "2" in (left, right) else pair(left, right)


def marked(value: str) -> str:
    return f"m{value}"


def small(value: str) -> bool:
    return value < "2"


def in_a_list(value: str) -> list[str]:
    return [value]


def spoiling(left: list[str], right: str | None) -> str:
    """Changes what it is given."""
    left.append(f"+{right or '-'}")
    return "".join(left)


def count_of(table: Text) -> Table[str, int]:
    """A table made of the same changes, by way of a stream in the same task."""
    return table.to_stream().map(lambda v: v or "").group_by_key().aggregate(
        int, lambda _n, value: len(value) or None, store="lengths"
    )  # fmt: skip


SHAPES: dict[str, Callable[[Text, Text], Table[str, str]]] = {
    "inner": lambda a, b: a.join(b, pair),
    "left": lambda a, b: a.left_join(b, pair),
    "outer": lambda a, b: a.outer_join(b, pair),
    "stored": lambda a, b: a.outer_join(b, pair, store="j"),
    "deleting": lambda a, b: a.outer_join(b, no_twos),
    "of views": lambda a, b: a.filter(small).left_join(b.map(marked), pair),
    "of stored views": lambda a, b: a.filter(small, store="small").left_join(b.map(marked, store="marked"), pair),
    "in place": lambda a, b: a.map(in_a_list, store="lists").left_join(b, spoiling),
    "with itself": lambda a, _b: a.join(a, pair),
    "with its filter": lambda a, _b: a.left_join(a.filter(small), pair),
    "with its kept map": lambda a, _b: a.join(a.map(marked, store="marked"), pair),
    "kept map with it": lambda a, _b: a.map(marked, store="marked").left_join(a, pair),
    "with what counts it": lambda a, _b: a.left_join(count_of(a).map(str), pair),
    "of three": lambda a, b: a.outer_join(b, pair).left_join(a, pair),
    "of three, first kept": lambda a, b: a.outer_join(b, pair, store="first").left_join(b.map(marked), pair),
    "of four": lambda a, b: a.join(b, pair).outer_join(b.outer_join(a.filter(small), pair), pair, store="j"),
}


def rows_of(shape: str, a: dict[str, str], b: dict[str, str]) -> dict[str, str]:
    """What each shape must come to."""
    found: dict[str, str | None] = {}
    for key in a.keys() | b.keys():
        x, y = a.get(key), b.get(key)
        low = x if x is not None and small(x) else None
        mark = None if x is None else marked(x)
        found[key] = {
            "inner": pair(x, y) if x and y else None,
            "left": pair(x, y) if x else None,
            "outer": pair(x, y),
            "stored": pair(x, y),
            "deleting": no_twos(x, y),
            "of views": pair(low, y and marked(y)) if low else None,
            "of stored views": pair(low, y and marked(y)) if low else None,
            "in place": f"{x}+{y or '-'}" if x else None,
            "with itself": pair(x, x) if x else None,
            "with its filter": pair(x, low) if x else None,
            "with its kept map": pair(x, mark) if x else None,
            "kept map with it": pair(mark, x) if x else None,
            "with what counts it": pair(x, "1") if x else None,
            "of three": pair(pair(x, y), x),
            "of three, first kept": pair(pair(x, y), y and marked(y)),
            "of four": pair(pair(x, y) if x and y else None, pair(y, low) if y or low else None) if y or low else None,
        }[shape]
    return {key: value for key, value in found.items() if value is not None}


def gathered(values: list[str], value: str) -> list[str]:
    return sorted([*values, value])


def taken_back(values: list[str], value: str) -> list[str]:
    values.remove(value)
    return values


def program(log: Log | str, shape: str, *, cache: bool) -> App:
    app = App("joins", log=log, cache_bytes=1 << 20 if cache else 0)
    a, b = (app.table(app.topic(name, key=str, value=str), store=name) for name in "ab")
    made = SHAPES[shape](a, b)
    made.to(app.topic("out", key=str, value=str))
    by_key = made.group_by(lambda key, value: ("all", f"{key}={value}"), value=str)
    by_key.aggregate(list[str], gathered, taken_back, store="all", value=list[str]).to(
        app.topic("all", key=str, codec="json")
    )
    return app


changes = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("pqr"), st.sampled_from(["1", "2", "3", None])),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=30, deadline=None)
@given(
    rows=changes,
    cuts=st.sets(st.integers(1, 30), max_size=3),
    cache=st.booleans(),
    partitions=st.integers(1, 2),
    batch=st.sampled_from([1, 1000]),
)
def test_the_result_follows_the_rows(
    shape: str, rows: list[Change], cuts: set[int], cache: bool, partitions: int, batch: int
) -> None:
    tables: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    with Log.open("memory:") as log, patch.object(runner, "_SLICE", batch):
        for name in "ab":
            log.create_topic(name, partitions=partitions)
        ends = sorted({cut for cut in cuts if cut < len(rows)} | {len(rows)})
        for begin, end in zip([0, *ends], ends, strict=False):
            for at in range(begin, end):
                name, key, value = rows[at]
                feed(log, name, [(key, value, at)], partition=ord(key) % partitions)
                there = tables[name] | ({} if value is None else {key: value})
                tables[name] = there if value is not None else {k: v for k, v in there.items() if k != key}
            app = program(log, shape, cache=cache)
            app.run(until="end")
            wanted = rows_of(shape, tables["a"], tables["b"])
            out, every = app.topic("out", key=str, value=str), app.topic("all", key=str, codec="json")
            last = {key: value for key, value, _ in decoded(contents(log, "out"), out)}
            assert {key: value for key, value in last.items() if value is not None} == wanted
            together = [value for _, value, _ in decoded(contents(log, "all"), every)]
            assert (together[-1] if together else []) == sorted(f"{key}={value}" for key, value in wanted.items())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_result_that_was_never_there_is_not_deleted(shape: str) -> None:
    with TopologyDriver(program("memory:", shape, cache=False)) as driver:
        for at, (topic, value) in enumerate([("a", None), ("b", None), ("b", "1"), ("b", None), ("a", None)]):
            driver.pipe(topic, value, key="k", timestamp_ms=at)
        outs = [record.value for record in driver.read("out")]
        assert all(value is not None for value in outs[::2])
        assert all(value is None for value in outs[1::2])


# ---------------------------------------------------------------- what is refused, and what goes wrong


def tables(app: App) -> tuple[Text, Text]:
    a, b = (app.table(app.topic(name, key=str, value=str), store=name) for name in "ab")
    return a, b


async def later(left: str, _right: str) -> str:
    return left


def test_what_is_wrong_in_itself_is_refused_at_the_call() -> None:
    app = App("refused")
    a, b = tables(app)
    strange: Any = later
    with pytest.raises(TypeError, match=r"join takes a plain function, and later is async"):
        a.join(b, strange)
    number: Any = 5
    topic: Any = app.topic("a", key=str, value=str)
    with pytest.raises(TypeError, match=r"outer_join takes a table, not "):
        a.outer_join(topic, pair)
    with pytest.raises(ValueError, match=r"join was given a table of another app"):
        a.join(tables(App("other"))[1], pair)
    with pytest.raises(TypeError, match=r"left_join\(store=5\) is not a name"):
        a.left_join(b, pair, store=number)


def test_tables_with_other_keys_or_partitions_are_refused_with_both_places() -> None:
    app = App("refused")
    numbers: Any = app.table(app.topic("n", key=int, value=str), store="n")
    tables(app)[0].join(numbers, pair)
    with pytest.raises(TopologyError, match=r"have keys of two types: str, from topic 'a' at .*, and int, from"):
        app.describe()
    with Log.open("memory:") as log:
        log.create_topic("a", partitions=2)
        log.create_topic("b", partitions=3)
        app = App("refused", log=log)
        a, b = tables(app)
        a.join(b, pair)
        with pytest.raises(TopologyError, match=r"not co-partitioned: .*'a' at .* has 2, .*'b' at .* has 3"):
            app.run(until="end")


def test_windows_that_keep_no_rows_to_look_up_are_refused_with_both_places() -> None:
    app = App("refused")
    windows: Any = app.stream(app.topic("w", key=str, value=str)).group_by_key().windowed_by(tumbling(minutes(1)))
    counts = windows.count(store="n")
    with pytest.raises(TopologyError, match=r"count-\d+ at .*keeps no rows .*joined at .*store="):
        counts.join(counts, pair)
    with pytest.raises(TopologyError, match=r"count-\d+ at .*keeps no rows .*joined at .*store="):
        tables(app)[0].join(counts.map(str), pair, on=str, store="j")


@pytest.mark.parametrize("cache", [False, True])
def test_windowed_results_that_are_kept_are_joined(cache: bool) -> None:
    app = App("windows", cache_bytes=1 << 20 if cache else 0)
    clicks, views = (app.stream(app.topic(name, key=str, value=str)).group_by_key() for name in ("clicks", "views"))
    minute = tumbling(minutes(1))
    clicked = clicks.windowed_by(minute).count(store="c").map(lambda n: n, store="clicked")
    viewed = views.windowed_by(minute).count(store="v").map(lambda n: n, store="viewed")
    viewed.left_join(clicked, lambda v, c: f"{c or 0}/{v}", store="rate")
    with TopologyDriver(app, cache=cache) as driver:
        for at, topic in enumerate(["views", "clicks", "views", "views", "clicks"]):
            driver.pipe(topic, "x", key="k", timestamp_ms=at)
        driver.pipe("views", "x", key="k", timestamp_ms=60_000)
        driver.commit()
        rates = {(key.key, key.start_ms): rate for key, rate in driver.store("rate").all()}
        assert rates == {("k", 0): "2/3", ("k", 60_000): "0/1"}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("store", [None, "j"])
def test_rows_that_raise_are_not_in_the_result(cache: bool, store: str | None) -> None:
    def careful(left: str, right: str) -> str:
        if left == "bad":
            raise LookupError(right)
        return left + right

    app = App("skips", on_error="skip", cache_bytes=1 << 20 if cache else 0)
    a, b = tables(app)
    a.join(b, careful, store=store).to(app.topic("out", key=str, value=str))
    with TopologyDriver(app, cache=cache) as driver:
        for at, (topic, value) in enumerate([("a", "1"), ("b", "x"), ("a", "bad"), ("b", "y"), ("a", "2")]):
            driver.pipe(topic, value, key="k", timestamp_ms=at)
            driver.commit()
        outs = [(record.value, record.timestamp_ms) for record in driver.read("out")]
        assert outs == [("1x", 1), (None, 2), ("2y", 4)]
        assert driver.dropped == {"error": 2}


class Both(Struct):
    left: str
    right: str | None


def both(left: str, right: str | None) -> Any:
    return Both(left, right)


@pytest.mark.parametrize("store", [None, "j"])
def test_the_type_of_a_result_is_named_where_nothing_tells_it(store: str | None) -> None:
    app = App("types")
    a, b = tables(app)
    made = a.left_join(b, both, store=store, value=Both)
    made.group_by(lambda key, made: (key, made), value=Both).count(store="n")
    a.join(b, both, on=str, store="f", value=Both)
    a.left_join(b, both, store="nameless")
    with TopologyDriver(app) as driver:
        driver.pipe("b", "y", key="k", timestamp_ms=1)
        with pytest.raises(EncodeError, match=r"table-left-join-\d+ .*value="):
            driver.pipe("a", "x", key="k", timestamp_ms=2)


def test_an_error_names_the_join() -> None:
    app = App("refused")
    a, b = tables(app)
    a.join(b, lambda left, _right: left[5])
    with TopologyDriver(app) as driver:
        driver.pipe("a", "1", key="k", timestamp_ms=1)
        with pytest.raises(TaskError, match=r"IndexError in table-join-\d+ .*test_table_joins\.py.* at b-0@0"):
            driver.pipe("b", "2", key="k", timestamp_ms=2)
