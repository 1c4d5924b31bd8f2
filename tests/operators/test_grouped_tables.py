"""Grouped tables against what a plain loop makes of the rows that are there in the end.

Programs take random changes and deletes in random pieces, each in a run of its own, so that what lies between two of
them goes through commit, changelog and restore; with several partitions, any batch size, the cache off and on.
"""

import random
from collections import Counter, defaultdict
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tailrace import App, GroupedTable, Window, hopping, reducers, session, sliding, tumbling
from tailrace.errors import TaskError, TopologyError
from tailrace.log.client import Log
from tailrace.streams import runner
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.windows.duration import milliseconds as ms

Change = tuple[str, str | None]


class Stats(Struct):
    n: int
    total: int
    mean: float | None
    kinds: list[int]


def group_of(key: str, value: str) -> tuple[str | None, int] | None:
    """The group is the letter of the value; `x` is in none, by either way of saying so."""
    if value[0] == "x":
        return None if key < "c" else (None, 1)
    return value[0], int(value[1:])


def same(value: int) -> int:
    return value


def later_one(_so_far: int, value: int) -> int:
    return value


def plus(so_far: int, value: int) -> int:
    return so_far + value


def minus(so_far: int, value: int) -> int:
    return so_far - value


def put(values: list[int], value: int) -> list[int]:
    values.append(value)
    return sorted(values)


def take(values: list[int], value: int) -> list[int] | None:
    values.remove(value)
    return values or None


def program(log: Log | str, *, cache: bool, name: str | None = None) -> App:
    app = App("groups", log=log, cache_bytes=1 << 20 if cache else 0)
    table = app.table(app.topic("in", key=str, value=str), store="rows")
    # A table that is worked out change by change must hand old values on.
    mapped = table.map(lambda value: value).filter(lambda value: value != "z0")
    grouped: GroupedTable[str, int] = mapped.group_by(group_of, name=name, value=int)
    again = mapped.group_by(group_of, value=int) if name is None else grouped
    grouped.count(store="n").to(app.topic("n", key=str, value=int))
    grouped.reduce(plus, minus, store="sum").to(app.topic("sum", key=str, value=int))
    again.aggregate(list[int], put, take, store="all", value=list[int]).to(app.topic("all", key=str, codec="json"))
    again.aggregate(str, lambda a, v: f"{a}+{v}", lambda a, v: f"{a}-{v}", store="joined").to(
        app.topic("joined", key=str, value=str)
    )
    again.agg(
        Stats,
        store="stats",
        n=reducers.count(),
        total=reducers.sum(same),
        mean=reducers.mean(same),
        kinds=reducers.distinct(same),
    ).to(app.topic("stats", key=str, value=Stats))
    return app


def model(rows: dict[str, str]) -> dict[str, list[int]]:
    """The values of each group, sorted."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for key, value in rows.items():
        pair = None if value == "z0" else group_of(key, value)
        if pair is not None and pair[0] is not None:
            groups[pair[0]] = sorted([*groups[pair[0]], pair[1]])
    return groups


def last(log: Log, topic: str, type_: Any) -> dict[str, Any]:
    app = App("reader", log=log)
    out = app.topic(topic, key=str, value=type_)
    rows = {key: value for key, value, _ in decoded(contents(log, topic), out)}
    return {key: value for key, value in rows.items() if value is not None}


@st.composite
def changes(draw: st.DrawFn) -> list[Change]:
    values = st.one_of(st.none(), st.builds("{}{}".format, st.sampled_from("pqxz"), st.integers(0, 3)))
    return draw(st.lists(st.tuples(st.sampled_from("abcdef"), values), min_size=1, max_size=40))


@settings(max_examples=50, deadline=None)
@given(
    rows=changes(),
    cuts=st.sets(st.integers(1, 40), max_size=3),
    cache=st.booleans(),
    partitions=st.integers(1, 3),
    batch=st.sampled_from([1, 3, 1000]),
    name=st.sampled_from([None, "shared"]),
)
def test_groups_hold_the_rows_that_are_there(
    rows: list[Change], cuts: set[int], cache: bool, partitions: int, batch: int, name: str | None
) -> None:
    there: dict[str, str] = {}
    with Log.open("memory:") as log, patch.object(runner, "_SLICE", batch):
        log.create_topic("in", partitions=partitions)
        ends = sorted({cut for cut in cuts if cut < len(rows)} | {len(rows)})
        for begin, end in zip([0, *ends], ends, strict=False):
            for at in range(begin, end):
                key, value = rows[at]
                feed(log, "in", [(key, value, at)], partition=ord(key) % partitions)
                there = {k: v for k, v in {**there, key: value}.items() if v is not None}
            program(log, cache=cache, name=name).run(until="end")
        wanted = model(there)
        counts = {key: n for key, n in last(log, "n", int).items() if n}
        assert counts == {key: len(values) for key, values in wanted.items()}
        sums = {key: total for key, total in last(log, "sum", int).items() if total}
        assert sums == {key: sum(values) for key, values in wanted.items() if sum(values)}
        assert last(log, "all", list[int]) == wanted
        for key, stats in last(log, "stats", Stats).items():
            values = wanted[key]
            assert (stats.n, stats.total, sorted(stats.kinds)) == (len(values), sum(values), sorted({*values}))
            assert stats.mean == (pytest.approx(sum(values) / len(values)) if values else None)
        for key, text in last(log, "joined", str).items():
            added, removed = terms(text)
            assert added - removed == Counter(wanted[key])
            assert not removed - added, "what was removed had been added"


def terms(text: str) -> tuple[Counter[int], Counter[int]]:
    """What was added and what was removed, of `+1+2-1`."""
    found = text.replace("+", " +").replace("-", " -").split()
    return tuple(Counter(int(term[1:]) for term in found if term[0] == sign) for sign in "+-")  # type: ignore[return-value]  # two of them


@pytest.mark.parametrize("cache", [False, True])
def test_grouping_twice_adds_up(cache: bool) -> None:
    """How many groups have how many rows: a grouped table of a grouped table, whose own old values are aggregates."""
    chance = random.Random(5)
    app = App("twice", cache_bytes=1 << 20 if cache else 0)
    table = app.table(app.topic("in", key=str, value=str), store="rows")
    counts = table.group_by(lambda _key, value: (value, 1)).count(store="n")
    counts.group_by(lambda value, n: (n, value)).aggregate(
        list[str],
        lambda keys, key: sorted([*keys, key]),
        lambda keys, key: [each for each in keys if each != key],
        store="of",
        value=list[str],
    )
    with TopologyDriver(app, cache=cache) as driver:
        rows: dict[str, str | None] = {}
        seen = set[str]()
        for at in range(200):
            key, value = chance.choice("abcdef"), chance.choice(["p", "q", "r", None])
            rows[key] = value
            driver.pipe("in", value, key=key, timestamp_ms=at)
            if at % 7 == 0:
                driver.commit()
                of = {n: names for n, names in driver.store("of").all() if names}
                found = Counter(value for value in rows.values() if value is not None)
                seen |= {name for names in of.values() for name in names}
                wanted: dict[int, list[str]] = defaultdict(list)
                for name in sorted(seen):
                    wanted[found[name]].append(name)
                assert of == wanted


WINDOWS: dict[str, Window] = {
    "tumbling": tumbling(ms(10), grace=ms(100)),
    "hopping": hopping(ms(10), ms(5), grace=ms(100)),
    "sliding": sliding(ms(5), grace=ms(100)),
    "session": session(ms(5), grace=ms(100)),
}


@pytest.mark.parametrize("window", WINDOWS)
@settings(max_examples=30, deadline=None)
@given(times=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=30), cache=st.booleans())
def test_windows_of_a_key_add_up(window: str, times: list[tuple[str, int]], cache: bool) -> None:
    """Sessions that merge are taken back: what is added up is what the windows hold."""
    app = App("windows", cache_bytes=1 << 20 if cache else 0)
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key().windowed_by(WINDOWS[window])
    by_key = grouped.count(store="windows").group_by(lambda windowed, n: (windowed.key, n))
    by_key.aggregate(list[int], put, take, store="of", value=list[int])
    with TopologyDriver(app, cache=cache) as driver:
        for number, (key, time) in enumerate(times):
            driver.pipe("in", "x", key=key, timestamp_ms=time)
            if number % 5 == 4:
                driver.commit()
        driver.commit()
        wanted: dict[str, list[int]] = defaultdict(list)
        for windowed, n in driver.store("windows").all():
            wanted[windowed.key] = sorted([*wanted[windowed.key], n])
        assert dict(driver.store("of").all()) == wanted


# ---------------------------------------------------------------- what is refused, and what goes wrong


def grouped() -> GroupedTable[str, int]:
    app = App("refused")
    table = app.table(app.topic("in", key=str, value=str), store="rows")
    return table.group_by(lambda _key, value: (value, 1))


class One(Struct):
    it: Any


@pytest.mark.parametrize(
    ("reducer", "message"),
    [
        (reducers.min(same), r"it=min\(…\) cannot take a row back .*distinct"),
        (reducers.max(same), r"it=max\(…\) cannot take a row back"),
        (reducers.first(same), r"it=first\(…\) cannot take a row back"),
        (reducers.last(same), r"it=last\(…\) cannot take a row back"),
        (reducers.top_k(2, by=same), r"it=top_k\(…\) cannot take a row back"),
        (reducers.collect(same, limit=3), r"it=collect\(…\) cannot take .*leave out the limit"),
        (reducers.reducer(int, later_one), r"it=reducer\(…\) cannot take .*remove="),
    ],
)
def test_reducers_that_cannot_retract_are_refused_by_name(reducer: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        grouped().agg(One, store="one", it=reducer)


async def later(so_far: int, _value: int) -> int:
    return so_far


def test_async_functions_and_bad_names_are_refused_at_the_call() -> None:
    strange: Any = later
    with pytest.raises(TypeError, match=r"reduce\(store='s', remove=…\).* is async"):
        grouped().reduce(plus, strange, store="s")
    with pytest.raises(TypeError, match=r"aggregate\(store='s', remove=…\).* is async"):
        grouped().aggregate(int, plus, strange, store="s")
    with pytest.raises(TypeError, match=r"count\(store=5\) is not a name"):
        grouped().count(store=5)  # type: ignore[arg-type]  # what is tested
    table: Any = App("refused")
    table = table.table(table.topic("in", key=str, value=str), store="rows")
    with pytest.raises(TypeError, match=r"group_by .* is async"):
        table.group_by(later)


def test_two_aggregates_with_one_store_name_both_places() -> None:
    app = App("refused")
    made = app.table(app.topic("in", key=str, value=str), store="rows").group_by(group_of)
    made.count(store="n")
    made.count(store="n")
    with pytest.raises(TopologyError, match=r"store='n' is used twice, at .*test_grouped_tables\.py:\d+ and at"):
        app.describe()


def no_pair(_key: str, value: str) -> str:
    return value


def test_a_result_that_is_no_pair_is_refused_with_the_record() -> None:
    app = App("refused")
    strange: Any = no_pair
    app.table(app.topic("in", key=str, value=str), store="rows").group_by(strange).count(store="n")
    with (
        TopologyDriver(app) as driver,
        pytest.raises(TaskError, match=r"in table-group-by-\d+ .*it must return \(key, value\)"),
    ):
        driver.pipe("in", "abc", key="k", timestamp_ms=1)


def test_an_error_of_remove_names_the_aggregate() -> None:
    app = App("refused")
    made = app.table(app.topic("in", key=str, value=str), store="rows").group_by(lambda _k, v: ("g", v))
    made.aggregate(str, lambda a, v: a + v, lambda a, v: a[: 1 // (len(v) - 1)], store="s")
    with TopologyDriver(app) as driver:
        driver.pipe("in", "a", key="k", timestamp_ms=1)
        with pytest.raises(TaskError, match=r"ZeroDivisionError in aggregate-\d+"):
            driver.pipe("in", "b", key="k", timestamp_ms=2)


@pytest.mark.parametrize("cache", [False, True])
def test_rows_that_raise_are_in_no_group_and_the_others_add_up(cache: bool) -> None:
    def careful(key: str, value: str) -> tuple[str, int]:
        if value == "bad":
            raise LookupError(value)
        return group_of(key, value) or ("none", 0)  # type: ignore[return-value]  # no x here

    app = App("skips", on_error="skip", cache_bytes=1 << 20 if cache else 0)
    made = app.table(app.topic("in", key=str, value=str), store="rows").group_by(careful, value=int)
    made.count(store="n")
    made.aggregate(list[int], put_small, take_small, store="all", value=list[int])
    with TopologyDriver(app, cache=cache) as driver:
        for at, (key, value) in enumerate(
            [("a", "p1"), ("b", "p2"), ("a", "bad"), ("c", "p9"), ("a", "q3"), ("c", "p4"), ("b", "p9"), ("b", None)]
        ):
            driver.pipe("in", value, key=key, timestamp_ms=at)
            driver.commit()
        assert dict(driver.store("n").all()) == {"p": 1, "q": 1}
        assert dict(driver.store("all").all()) == {"p": [4], "q": [3]}
        # bad once; 9 when it came and when it went, twice
        assert driver.dropped == {"error": 5}


def put_small(values: list[int], value: int) -> list[int]:
    if value == 9:
        values.append(99)
        raise ValueError(value)
    return put(values, value)


def take_small(values: list[int], value: int) -> list[int]:
    if value == 9:
        values.clear()
        raise ValueError(value)
    return take(values, value) or []
