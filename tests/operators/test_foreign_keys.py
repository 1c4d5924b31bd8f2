"""Foreign-key joins against what a plain loop makes of the rows that are there in the end.

Programs take random changes and deletes of two tables in random pieces, each in a run of its own, so that what lies
between two of them goes through commit, changelog and restore. Behind each join everything is gathered into one group,
whose `remove` fails where a change takes back something else than what was sent before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tailrace import App, Table, minutes
from tailrace.errors import EncodeError, TaskError, TopologyError
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.streams import runner
from tailrace.streams.task import Task
from tailrace.testing import TopologyDriver
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, decoded

Text = Table[str, str]
Change = tuple[str, str, str | None]
"""Topic, key, value. A value of "a" begins with the key in "b" that it refers to; `-` is none."""


def refers_to(value: str) -> str | None:
    return None if value[0] == "-" else value[0]


def pair(left: str, right: str | None) -> str:
    return f"{left}>{right or '-'}"


def no_twos(left: str, right: str | None) -> str | None:
    return None if "2" in left or right == "2" else pair(left, right)


def doubled(value: str) -> str:
    return value * 2


def in_a_list(value: str) -> list[str]:
    return [value]


def spoiling(left: list[str], right: list[str] | None) -> str:
    """Changes what it is given."""
    left.append(">")
    left += right or ["-"]
    if right:
        right.append("spoilt")
    return "".join(left)


SHAPES: dict[str, Callable[[Text, Text], Table[str, str]]] = {
    "inner": lambda a, b: a.join(b, pair, on=refers_to, store="j"),
    "left": lambda a, b: a.left_join(b, pair, on=refers_to, store="j"),
    "deleting": lambda a, b: a.left_join(b, no_twos, on=refers_to, store="j"),
    "of views": lambda a, b: a.map(doubled).join(b.map(doubled), pair, on=refers_to, store="j"),
    "of kept views": lambda a, b: a.map(doubled, store="aa").left_join(
        b.map(doubled, store="bb"), pair, on=refers_to, store="j"
    ),
    "in place": lambda a, b: a.map(in_a_list, value=list[str]).left_join(
        b.map(in_a_list, store="lists"), spoiling, on=lambda value: refers_to(value[0]), store="j"
    ),
    "with itself": lambda a, _b: a.join(a, pair, on=refers_to, store="j"),
    "with what is behind it": lambda a, b: a.left_join(b, pair, on=refers_to, store="j").join(
        a.map(doubled), pair, on=refers_to, store="again"
    ),
    "twice": lambda a, b: a.join(b, pair, on=refers_to, store="j").left_join(
        a.left_join(b, pair, on=refers_to, store="k"), pair
    ),
}


def rows_of(shape: str, a: dict[str, str], b: dict[str, str]) -> dict[str, str]:
    """What each shape must come to."""
    found: dict[str, str | None] = {}
    for key, x in a.items():
        to = refers_to(x)
        y, other = b.get(to or ""), a.get(to or "")
        found[key] = {
            "inner": y and pair(x, y),
            "left": pair(x, y),
            "deleting": no_twos(x, y),
            "of views": y and pair(doubled(x), doubled(y)),
            "of kept views": pair(doubled(x), y and doubled(y)),
            "in place": pair(x, y),
            "with itself": other and pair(x, other),
            "with what is behind it": other and pair(pair(x, y), doubled(other)),
            "twice": y and pair(pair(x, y), pair(x, y)),
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


left_changes = st.tuples(
    st.just("a"),
    st.sampled_from("pqrs"),
    st.one_of(st.none(), st.builds("{}{}".format, st.sampled_from("pqx-"), st.integers(1, 3))),
)
right_changes = st.tuples(st.just("b"), st.sampled_from("pqr"), st.sampled_from(["1", "2", "3", None]))


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.one_of(left_changes, right_changes), min_size=1, max_size=30),
    cuts=st.sets(st.integers(1, 30), max_size=3),
    cache=st.booleans(),
    partitions=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    batch=st.sampled_from([1, 1000]),
)
def test_the_result_follows_the_rows(
    shape: str, rows: list[Change], cuts: set[int], cache: bool, partitions: tuple[int, int], batch: int
) -> None:
    tables: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    counts = dict(zip("ab", partitions, strict=True))
    with Log.open("memory:") as log, patch.object(runner, "_SLICE", batch):
        for name, count in counts.items():
            log.create_topic(name, partitions=count)
        ends = sorted({cut for cut in cuts if cut < len(rows)} | {len(rows)})
        for begin, end in zip([0, *ends], ends, strict=False):
            with log.producer(linger_ms=0) as producer:
                for at in range(begin, end):
                    name, key, value = rows[at]
                    producer.send(name, None if value is None else value.encode(), key=key.encode(), timestamp_ms=at)
                    tables[name] = {k: v for k, v in {**tables[name], key: value}.items() if v is not None}
            app = program(log, shape, cache=cache)
            app.run(until="end")
            wanted = rows_of(shape, tables["a"], tables["b"])
            out, every = app.topic("out", key=str, value=str), app.topic("all", key=str, codec="json")
            last = {key: value for key, value, _ in decoded(contents(log, "out"), out)}
            assert {key: value for key, value in last.items() if value is not None} == wanted
            together = [value for _, value, _ in decoded(contents(log, "all"), every)]
            assert (together[-1] if together else []) == sorted(f"{key}={value}" for key, value in wanted.items())


@pytest.mark.parametrize("shape", ["inner", "left", "deleting", "twice"])
@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.one_of(left_changes, right_changes), min_size=4, max_size=20),
    seed=st.integers(0, 1000),
)
def test_tasks_that_run_at_any_pace_and_hear_of_each_other_through_the_log(
    shape: str, rows: list[Change], seed: int
) -> None:
    tables: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    chance = Random(seed)
    with Log.open("memory:", background=False) as log:
        with log.producer(linger_ms=0) as producer:
            for name in tables:
                log.create_topic(name, partitions=3)
            for at, (name, key, value) in enumerate(rows):
                producer.send(name, None if value is None else value.encode(), key=key.encode(), timestamp_ms=at)
                tables[name] = {k: v for k, v in {**tables[name], key: value}.items() if v is not None}
        app = program(log, shape, cache=False)
        app.options = replace(app.options, hops="log")
        run = Driven(app, log, ManualClock())
        with patch.object(runner, "_SLICE", 1):
            run.run_in_pieces(partial(any_of, chance), lambda: chance.random() < 0.3)
        run.end()
        wanted = rows_of(shape, tables["a"], tables["b"])
        last = {key: value for key, value, _ in decoded(contents(log, "out"), app.topic("out", key=str, value=str))}
        assert {key: value for key, value in last.items() if value is not None} == wanted


def any_of(chance: Random, tasks: Sequence[Task]) -> Task | None:
    """Any task for which a record waits: as members run at their own pace."""
    waiting = [task for task in tasks if task.head_ms() is not None]
    return chance.choice(waiting) if waiting else None


def test_a_row_that_turns_to_another_key_gives_one_result() -> None:
    with TopologyDriver(program("memory:", "inner", cache=False), partitions=3) as driver:
        for at, (topic, key, value) in enumerate(
            [("b", "p", "1"), ("b", "q", "2"), ("a", "k", "p5"), ("a", "k", "q5"), ("b", "p", "3"), ("a", "k", "-5")]
        ):
            driver.pipe(topic, value, key=key, timestamp_ms=at)
        outs = [(record.value, record.timestamp_ms) for record in driver.read("out")]
        assert outs == [("p5>1", 2), ("q5>2", 3), (None, 5)], "p says nothing more to it"
        assert driver.dropped == {"null_key": 1}


def test_keys_of_other_types_find_their_rows() -> None:
    class Id(Struct, frozen=True):
        n: int

    app = App("ids")
    orders = app.table(app.topic("orders", key=int, value=list[int]), store="orders")
    users = app.table(app.topic("users", key=Id, value=str), store="users")

    def join(order: list[int], user: str) -> str:
        return f"{user}{order}"

    orders.join(users, join, on=lambda order: Id(order[0]), store="j").to(app.topic("out", key=int, value=str))
    with TopologyDriver(app, partitions=2) as driver:
        driver.pipe("orders", [7, 1], key=1, timestamp_ms=1)
        driver.pipe("orders", [7, 2], key=256, timestamp_ms=2)
        driver.pipe("users", "ann", key=Id(7), timestamp_ms=3)
        driver.pipe("orders", [7, 3], key=1, timestamp_ms=4)
        assert dict(driver.store("j").all()) == {1: "ann[7, 3]", 256: "ann[7, 2]"}


def test_of_tables_with_a_history_the_newest_rows_are_joined() -> None:
    app = App("versions")
    a, b = (app.table(app.topic(name, key=str, value=str), store=name, history=minutes(1)) for name in "ab")
    a.join(b, pair, on=refers_to, store="j").to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        for topic, key, value, at in [
            ("a", "k", "p1", 10),
            ("b", "p", "x", 20),
            ("b", "p", "late", 15),
            ("a", "k", "q1", 5),
            ("b", "p", "y", 30),
        ]:
            driver.pipe(topic, value, key=key, timestamp_ms=at)
        outs = [(record.value, record.timestamp_ms) for record in driver.read("out")]
        assert outs == [("p1>x", 20), ("p1>y", 30)]


# ---------------------------------------------------------------- what is refused, and what goes wrong


def tables(app: App) -> tuple[Text, Text]:
    a, b = (app.table(app.topic(name, key=str, value=str), store=name) for name in "ab")
    return a, b


async def later(value: str) -> str:
    return value


def test_what_is_wrong_in_itself_is_refused_at_the_call() -> None:
    app = App("refused")
    a, b = tables(app)
    strange: Any = later
    with pytest.raises(TypeError, match=r"join\(store='j', on=…\) takes a plain function, and later is async"):
        a.join(b, pair, on=strange, store="j")
    nothing: Any = None
    with pytest.raises(TypeError, match=r"left_join needs store=, a name"):
        a.left_join(b, pair, on=refers_to, store=nothing)


def number_of(value: str) -> int:
    return len(value)


def unsaid(value: str) -> Any:
    return len(value)


def test_a_key_that_the_other_table_cannot_have_is_refused() -> None:
    app = App("refused")
    a, b = tables(app)
    strange: Any = number_of
    a.join(b, pair, on=strange, store="j")
    with pytest.raises(TopologyError, match=r"on= of the join at .*finds keys of type int, .* 'b' at .* str"):
        app.describe()
    app = App("refused")
    a, b = tables(app)
    a.join(b, pair, on=unsaid, store="j")
    with (
        TopologyDriver(app) as driver,
        pytest.raises(EncodeError, match=r"subscribe-\d+ at .* made the key 2 of type int"),
    ):
        driver.pipe("a", "p5", key="k", timestamp_ms=1)


def test_a_result_joined_with_its_own_left_table_is_refused_with_a_way_out() -> None:
    app = App("refused")
    a, b = tables(app)
    a.join(b, pair, on=refers_to, store="j").join(a, pair)
    with pytest.raises(TopologyError, match=r"put a topic between"):
        app.describe()


def test_an_error_names_the_join() -> None:
    app = App("refused")
    a, b = tables(app)
    a.join(b, lambda left, _right: left[5], on=refers_to, store="j")
    with TopologyDriver(app) as driver:
        driver.pipe("a", "p1", key="k", timestamp_ms=1)
        with pytest.raises(TaskError, match=r"IndexError in foreign-lookup-\d+ .*test_foreign_keys\.py.* at b-0@0"):
            driver.pipe("b", "2", key="p", timestamp_ms=2)


@pytest.mark.parametrize("cache", [False, True])
def test_rows_that_raise_are_not_in_the_result(cache: bool) -> None:
    def careful(left: str, right: str) -> str:
        if "bad" in (left[1:], right):
            raise LookupError(right)
        return left + right

    def finds(value: str) -> str | None:
        if value == "lost":
            raise LookupError(value)
        return refers_to(value)

    app = App("skips", on_error="skip", cache_bytes=1 << 20 if cache else 0)
    a, b = tables(app)
    a.join(b, careful, on=finds, store="j").to(app.topic("out", key=str, value=str))
    with TopologyDriver(app, cache=cache) as driver:
        for at, (topic, key, value) in enumerate(
            [
                ("b", "p", "x"),
                ("a", "k", "p1"),
                ("a", "l", "pbad"),
                ("a", "k", "lost"),
                ("a", "k", "p2"),
                ("b", "p", "bad"),
                ("b", "p", "y"),
            ]
        ):
            driver.pipe(topic, value, key=key, timestamp_ms=at)
            driver.commit()
        outs = [(record.key, record.value, record.timestamp_ms) for record in driver.read("out")]
        assert outs == [("k", "p1x", 1), ("k", None, 3), ("k", "p2x", 4), ("k", None, 5), ("k", "p2y", 6)]
        # l three times, lost, and k for which the other row was bad
        assert driver.dropped == {"error": 5}
