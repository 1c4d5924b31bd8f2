"""Streams joined with tables: the contract's cases, random inputs against a model, and what is refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import until_stream_time
from tailrace.log.client import Log
from tailrace.log.errors import TopologyError
from tailrace.streams.app import App
from tailrace.streams.surface.table import Table
from tailrace.testing import TopologyDriver
from tailrace.tests.support.cases import step_by_step, through_the_driver
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.tests.support.semantics import case
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.tumbling import tumbling


def pair(left: str, right: str | None) -> str:
    return f"[{left},{'null' if right is None else right}]"


def program(*, left: bool) -> Callable[[App], object]:
    def build(app: App) -> None:
        table = app.table(app.topic("R", key=str, value=str), store="table")
        stream = app.stream(app.topic("L", key=str, value=str))
        joined = stream.left_join(table, pair) if left else stream.join(table, pair)
        joined.to(app.topic("out", key=str, codec="json"))

    return build


def longer(one: str, other: str) -> str:
    return max(one, other)


CASES = {"K01": program(left=False), "K02": program(left=True), "K03": program(left=True)}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_contracts_cases(name: str, cache: bool) -> None:
    dropped = step_by_step(name, CASES[name], ["L", "R"], cache=cache)
    assert dropped == through_the_driver(name, CASES[name], cache=cache)
    assert dropped == {"null_value": case(name).dropped}


KEYS = st.sampled_from(["a", "b", "c"])
STEP = st.tuples(
    st.sampled_from(["L", "R", "commit"]), st.none() | KEYS, st.none() | st.sampled_from("uvwxyz"), st.integers(0, 50)
)
DERIVED: dict[str, Callable[[Table[str, str]], Table[str, Any]]] = {
    "itself": lambda table: table,
    "filtered": lambda table: table.filter(lambda v: v < "x"),
    "kept": lambda table: table.filter(lambda v: v < "x", store="kept"),
    "mapped": lambda table: table.map(lambda v: v + "!", value=str).filter(lambda v: v < "x", store="kept"),
}


def model(steps: list[tuple[str, str | None, str | None, int]], derived: str, *, left: bool) -> list[Any]:
    """What a join brings about, in order."""
    table: dict[str, str] = {}
    out: list[Any] = []
    for topic, key, value, time_ms in steps:
        if topic == "R" and key is not None:
            shown = value if derived == "itself" or (value is not None and value < "x") else None
            table.pop(key, None)
            if shown is not None:
                table[key] = shown + ("!" if derived == "mapped" else "")
        elif topic == "L" and value is not None:
            found = None if key is None else table.get(key)
            if left or found is not None:
                out.append((key, pair(value, found), time_ms))
    return out


@given(st.lists(STEP, max_size=25), st.sampled_from(list(DERIVED)), st.booleans(), st.booleans(), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_any_input_as_the_model(steps: list[Any], derived: str, left: bool, cache: bool, partitions: int) -> None:
    app = App("shop", log="memory:")
    table = DERIVED[derived](app.table(app.topic("R", key=str, value=str), store="table"))
    stream = app.stream(app.topic("L", key=str, value=str))
    out = app.topic("out", key=str, value=str)
    (stream.left_join(table, pair) if left else stream.join(table, pair)).to(out)
    with TopologyDriver(app, cache=cache, partitions=partitions) as driver:
        for topic, key, value, time_ms in steps:
            if topic == "commit":
                driver.commit()
            else:
                driver.pipe(topic, value, key=key, timestamp_ms=time_ms)
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read(out)] == model(steps, derived, left=left)


def test_a_stream_with_new_keys_meets_the_table_in_the_tables_partitions() -> None:
    with Log.open("memory:") as log:
        log.create_topic("orders", partitions=2)
        log.create_topic("users", partitions=3)
        users = [f"user-{n}" for n in range(20)]
        with log.producer() as producer:
            for user in users:
                producer.send("users", user.upper().encode(), key=user.encode(), timestamp_ms=1)
        feed(log, "orders", [(None, user, 2) for user in users] + [(None, "nobody", 3)], partition=1)
        app = App("shop", log=log)
        table = app.table(app.topic("users", key=str, value=str), store="users")
        stream = app.stream(app.topic("orders", key=str, value=str)).key_by(lambda user: user)
        out = app.topic("out", key=str, value=str)
        stream.left_join(table, lambda order, user: f"{order}:{user}").to(out)
        app.run(until="end")
        found = {key: value for key, value, _ in decoded(contents(log, "out"), out)}
        assert found == {user: f"{user}:{user.upper()}" for user in users} | {"nobody": "nobody:None"}
        assert log.describe_topic("shop-users-join-repartition").partitions == 3


def test_what_a_function_changes_stays_out_of_the_table() -> None:
    class Total(msgspec.Struct):
        n: int

    def spend(_order: str, total: Total) -> int:
        total.n += 1
        return total.n

    app = App("shop", log="memory:")
    table = app.table(app.topic("totals", key=str, value=Total), store="totals")
    out = app.topic("out", key=str, value=int)
    app.stream(app.topic("orders", key=str, value=str)).join(table, spend).to(out)
    with TopologyDriver(app) as driver:
        driver.pipe("totals", Total(1), key="a")
        driver.pipe("orders", "x", key="a")
        driver.pipe("orders", "y", key="a")
        assert [record.value for record in driver.read(out)] == [2, 2]
        assert driver.store("totals").get("a") == Total(1)


def test_what_a_cache_holds_back_is_found() -> None:
    app = App("shop", log="memory:")
    orders, out = app.topic("orders", key=str, value=str), app.topic("out", key=str, value=str)
    counted = app.stream(orders).group_by_key().count(store="counts").filter(lambda n: n > 1, store="many")
    app.stream(orders).left_join(counted, lambda order, n: f"{order}{n}").to(out)
    with TopologyDriver(app, cache=True) as driver:
        for value in "xyz":
            driver.pipe(orders, value, key="a", timestamp_ms=1)
        assert [record.value for record in driver.read(out)] == ["xNone", "y2", "z3"]


def test_a_table_of_windows_is_looked_up_by_windowed_keys() -> None:
    app = App("shop", log="memory:")
    orders, out = app.topic("orders", key=str, value=str), app.topic("out", key=str, value=str)
    grouped = app.stream(orders).group_by_key()
    counts = grouped.windowed_by(tumbling(ms(10))).count(store="counts")
    longest = grouped.windowed_by(tumbling(ms(10))).reduce(longer, store="longest")
    joined = longest.to_stream().join(counts, lambda value, n: f"{value}{n}")
    joined.map_kv(lambda key, value: (key.key, value)).to(out)
    with TopologyDriver(app) as driver:
        for value, time_ms in [("x", 1), ("z", 2), ("y", 11)]:
            driver.pipe(orders, value, key="a", timestamp_ms=time_ms)
        assert [record.value for record in driver.read(out)] == ["x1", "z2", "y1"]


def test_a_join_of_tables_is_looked_up() -> None:
    app = App("shop", log="memory:")
    left = app.table(app.topic("A", key=str, value=str), store="a")
    both = left.left_join(app.table(app.topic("B", key=str, value=str), store="b"), pair)
    out = app.topic("out", key=str, value=str)
    app.stream(app.topic("L", key=str, value=str)).left_join(both, pair).to(out)
    with TopologyDriver(app) as driver:
        for topic in ["L", "B", "L", "A", "L"]:
            driver.pipe(topic, topic.lower(), key="k")
        assert [record.value for record in driver.read(out)] == ["[l,null]", "[l,null]", "[l,[a,b]]"]


def test_headers_and_times_are_the_streams() -> None:
    app = App("shop", log="memory:")
    table = app.table(app.topic("R", key=str, value=str), store="table")
    out = app.topic("out", key=str, value=str)
    app.stream(app.topic("L", key=str, value=str)).join(table, pair).to(out)
    with TopologyDriver(app) as driver:
        driver.pipe("R", "r", key="a", timestamp_ms=9, headers=[("of", b"table")])
        driver.pipe("L", "l", key="a", timestamp_ms=5, headers=[("of", b"stream")])
        (record,) = driver.read(out)
        assert (record.timestamp_ms, list(record.headers)) == (5, [("of", b"stream")])


def test_unlike_partition_counts_name_both_places() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L", partitions=2)
        log.create_topic("R", partitions=3)
        app = App("shop", log=log)
        program(left=False)(app)
        with pytest.raises(
            TopologyError, match=r"not co-partitioned: topic 'R' at .*:\d+ has 3, topic 'L' at .* has 2"
        ):
            app.run(until="end")


def test_a_table_that_keeps_no_rows_is_refused_before_anything_runs() -> None:
    app = App("shop", log="memory:")
    stream = app.stream(app.topic("L", key=str, value=str))
    held = stream.group_by_key().count(store="n").suppress(until_stream_time(ms(5)), store="held")
    stream.join(held, lambda value, n: f"{value}{n}").for_each(print)
    with pytest.raises(TopologyError, match=r"suppress-\d at .*:\d+ keeps no rows that join-\d at .*:\d+ could"):
        TopologyDriver(app)


def test_keys_of_two_types_never_meet_and_are_refused() -> None:
    app = App("shop", log="memory:")
    table: Any = app.table(app.topic("R", key=int, value=str), store="table")
    app.stream(app.topic("L", key=str, value=str)).join(table, pair).for_each(print)
    with pytest.raises(TopologyError, match=r"keys of str, from topic 'L' .* keys of int, from topic 'R'"):
        app.describe()


def test_what_cannot_be_joined_is_refused_at_the_call() -> None:
    app, other = App("shop", log="memory:"), App("other", log="memory:")
    stream = app.stream(app.topic("L", key=str, value=str))
    table = other.table(other.topic("R", key=str, value=str), store="table")

    async def wait(left: str, _right: str | None) -> str:
        return left

    wrong: Any = "R"
    with pytest.raises(TypeError, match=r"join takes .*'R'"):
        stream.join(wrong, pair)
    with pytest.raises(ValueError, match="another app"):
        stream.join(table, pair)
    with pytest.raises(TypeError, match="wait is async"):
        stream.left_join(app.table(app.topic("R", key=str, value=str), store="table"), wait)
