"""Global tables: the contract's case, what every process reads, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.errors import DecodeError, EncodeError, TopologyError
from tailrace.streams.app import App
from tailrace.testing import TopologyDriver
from tailrace.tests.support.cases import step_by_step, through_the_driver
from tailrace.tests.support.engine import contents, decoded, feed


def pair(left: str, right: str | None) -> str:
    return f"[{left},{'null' if right is None else right}]"


def by_value(_key: str, value: str) -> str | None:
    return None if value == "n" else value


def program(*, left: bool = True) -> Callable[[App], object]:
    def build(app: App) -> None:
        table = app.global_table(app.topic("R", key=str, value=str), store="rates")
        stream = app.stream(app.topic("L", key=str, value=str))
        joined = stream.left_join(table, pair, on=by_value) if left else stream.join(table, pair, on=by_value)
        joined.to(app.topic("out", key=str, codec="json"))

    return build


@pytest.mark.parametrize("cache", [False, True])
def test_the_contracts_case(cache: bool) -> None:
    assert not step_by_step("K07", program(), ["L", "R"], cache=cache)
    assert not through_the_driver("K07", program(), cache=cache)


STEP = st.tuples(st.sampled_from("LR"), st.none() | st.sampled_from("abn"), st.none() | st.sampled_from("abn"))


@given(st.lists(STEP, max_size=25), st.booleans(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_input_as_a_dict(steps: list[tuple[str, str | None, str | None]], left: bool, partitions: int) -> None:
    app = App("shop", log="memory:")
    program(left=left)(app)
    rows: dict[str, str | None] = {}
    wanted: list[Any] = []
    with TopologyDriver(app, partitions=partitions) as driver:
        for topic, key, value in steps:
            driver.pipe(topic, value, key=key, timestamp_ms=1)
            if topic == "R" and key is not None:
                rows[key] = value
            elif topic == "L" and value is not None:
                found = None if value == "n" else rows.get(value)
                if left or found is not None:
                    wanted.append((key, pair(value, found)))
        assert [(record.key, record.value) for record in driver.read("out")] == wanted
        content = [(key, value) for key, value in sorted(rows.items()) if value is not None]
        assert list(driver.store("rates").all()) == content
        assert list(driver.store("rates").range("b", reverse=True)) == [r for r in reversed(content) if r[0] >= "b"]
        assert driver.store("rates").get("a") == rows.get("a")


def test_all_of_it_is_read_before_anything_runs_and_by_no_group() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L", partitions=2)
        log.create_topic("R", partitions=3)
        for partition in range(3):
            feed(log, "R", [(f"{n}", f"{n}!", 1_000 + n) for n in range(partition, 300, 3)], partition)
            feed(log, "R", [(None, "no row", 1)], partition)
        for partition in range(2):
            feed(log, "L", [("k", f"{n}", n) for n in range(300)], partition)
        app = App("shop", log=log)
        program(left=False)(app)
        app.run(until="end")
        assert len(contents(log, "out")) == 600
        assert {partition.topic for partition in log.committed("shop")} == {"L"}
        assert [name for name in log.topics(internal=True) if name.startswith("shop-")] == [], "no changelog"


def test_keys_of_the_stream_stay_and_need_no_repartition() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L")
        log.create_topic("R", partitions=4)
        feed(log, "L", [("k", "a", 5)])
        app = App("shop", log=log)
        table = app.global_table(app.topic("R", key=str, value=str), store="rates")
        out = app.topic("out", key=str, value=str)
        app.stream(app.topic("L", key=str, value=str)).key_by(str.upper).left_join(
            table, pair, on=lambda key, _value: key
        ).to(out)
        app.run(until="end")
        assert decoded(contents(log, "out"), out) == [("A", "[a,null]", 5)]


def test_a_record_that_cannot_be_read_ends_the_app_or_is_left_out() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L")
        log.create_topic("R")
        feed(log, "R", [("a", "1", 1), ("b", "x", 2)])
        feed(log, "L", [("k", "a", 5), ("k", "b", 6)])

        def app(policy: Any) -> App:
            app = App("shop", log=log, on_bad_record=policy)
            table = app.global_table(app.topic("R", key=str, codec="json"), store="rates")
            stream = app.stream(app.topic("L", key=str, value=str))
            joined = stream.left_join(table, lambda value, rate: f"{value}{rate}", on=by_value)
            joined.to(app.topic("out", key=str, value=str))
            return app

        with pytest.raises(DecodeError, match=r"R-0@1 cannot be read"):
            app("fail").run(until="end")
        app("skip").run(until="end")
        assert [record.value for record in contents(log, "out")] == [b"a1", b"bNone"]


def test_what_cannot_be_joined_is_refused() -> None:
    app, other = App("shop", log="memory:"), App("other", log="memory:")
    stream = app.stream(app.topic("L", key=str, value=str))
    table = app.global_table(app.topic("R", key=str, value=str), store="rates")
    wrong: Any = None
    with pytest.raises(TypeError, match=r"join with a global table needs on="):
        stream.join(table, pair, on=wrong)
    with pytest.raises(ValueError, match="another app"):
        stream.join(other.global_table(other.topic("R", key=str, value=str), store="rates"), pair, on=by_value)
    with pytest.raises(TypeError, match="takes a topic"):
        app.global_table(wrong, store="x")
    options: Any = {"store": "s"}
    with pytest.raises(TypeError, match=r"join with a global table takes no store="):
        stream.join(table, pair, on=by_value, **options)
    app.table(app.topic("T", key=str, value=str), store="rates")
    stream.join(table, pair, on=by_value).for_each(print)
    with pytest.raises(TopologyError, match=r"store='rates' is used twice"):
        app.describe()


def test_a_topic_that_is_missing_and_a_key_of_another_type_are_named() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L")
        feed(log, "L", [("k", "a", 5)])
        app = App("shop", log=log)
        program()(app)
        with pytest.raises(TopologyError, match=r"'R'.*read whole by the global table at .*test_global_tables\.py"):
            app.run(until="end")
        log.create_topic("R")
        app = App("shop", log=log)
        table = app.global_table(app.topic("R", key=str, value=str), store="rates")
        number: Any = len
        app.stream(app.topic("L", key=str, value=str)).left_join(table, pair, on=lambda _key, v: number(v)).for_each(
            print
        )
        with pytest.raises(EncodeError, match=r"the key that on= of left-join-1 at .* returned"):
            app.run(until="end")
