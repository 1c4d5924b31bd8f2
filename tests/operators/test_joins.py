"""Joins of two streams: what the program says, what is refused, repartitions, null keys, functions that raise."""

from typing import Any, cast

import pytest
from msgspec import Struct

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError, TopologyError
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.windows.duration import milliseconds as ms


class Order(Struct):
    customer: str
    items: list[str]


def pair(left: str | None, right: str | None) -> str:
    return f"{left}+{right}"


def two(app: App, right_key: Any = str) -> tuple[Stream[str, str], Stream[str, str]]:
    """Streams of the topics L and R."""
    return app.stream(app.topic("L", key=str, value=str)), app.stream(app.topic("R", key=right_key, value=str))


def rows(driver: TopologyDriver, topic: str = "out") -> list[tuple[Any, Any, int]]:
    return [(record.key, record.value, record.timestamp_ms) for record in driver.read(topic)]


def test_both_sides_without_a_partner_come_by_time_and_the_right_one_first() -> None:
    app = App("app")
    left, right = two(app)
    left.outer_join(right, pair, store="j", within=ms(10)).to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        for topic, key, value, time in (
            ("L", "B", "l2", 2),
            ("L", "A", "l2", 2),
            ("R", "C", "r2", 2),
            ("R", "C", "again", 2),
            ("R", "D", "r1", 1),
            ("L", "E", "l9", 9),
        ):
            driver.pipe(topic, value, key=key, timestamp_ms=time)
        assert rows(driver) == []
        driver.pipe("R", "r30", key="Z", timestamp_ms=30)
        assert rows(driver) == [
            ("D", "None+r1", 1),
            ("C", "None+r2", 2),
            ("C", "None+again", 2),
            ("A", "l2+None", 2),
            ("B", "l2+None", 2),
            ("E", "l9+None", 9),
        ]


def test_null_keys_have_no_partner_and_null_values_are_dropped() -> None:
    app = App("app")
    left, right = two(app)
    left.outer_join(right, pair, store="j", within=ms(10)).to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        for topic, key, value in (("L", None, "l"), ("R", None, "r"), ("L", None, None), ("R", "A", None)):
            driver.pipe(topic, value, key=key, timestamp_ms=5)
        assert rows(driver) == [(None, "l+None", 5), (None, "None+r", 5)]
        assert driver.dropped == {"null_key": 1, "null_value": 1}


def test_records_of_one_time_multiply() -> None:
    app = App("app")
    left, right = two(app)
    left.join(right, pair, store="j", within=ms(0)).to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        for topic, value in (("L", "a"), ("L", "b"), ("R", "x"), ("R", "y"), ("L", "c")):
            driver.pipe(topic, value, key="k", timestamp_ms=5)
        driver.commit()
        assert [value for _, value, _ in rows(driver)] == ["a+x", "b+x", "a+y", "b+y", "c+x", "c+y"]


def test_records_of_one_time_are_all_kept_over_restarts() -> None:
    with Log.open("memory:") as log:
        for topic in "LR":
            log.create_topic(topic)
        for topic, value in (("L", "a"), ("L", "b"), ("R", "x"), ("L", "c"), ("R", "y")):
            feed(log, topic, [("k", value, 5)])
            app = App("app", log=log)
            left, right = two(app)
            left.join(right, pair, store="j", within=ms(0)).to(app.topic("out", key=str, value=str))
            app.run(until="end")
        assert [record.value for record in contents(log, "out")] == [b"a+x", b"b+x", b"c+x", b"a+y", b"b+y", b"c+y"]


def test_a_record_is_kept_until_its_last_partner_may_come() -> None:
    app = App("app")
    left, right = two(app)
    joined = left.join(right, pair, store="j", before=ms(3), after=ms(10), grace=ms(5))
    joined.to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        driver.pipe("L", "l", key="k", timestamp_ms=0)
        driver.pipe("R", "-", key="other", timestamp_ms=18)  # the last at which a record at 10 is not late
        driver.commit()
        driver.pipe("R", "r", key="k", timestamp_ms=10)
        assert rows(driver) == [("k", "l+r", 10)]
        with pytest.raises(InvalidError, match=r"store 'j-left' cannot be read from outside"):
            driver.store("j-left")


def test_a_side_whose_key_was_changed_is_repartitioned_like_the_other() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L", partitions=4)
        log.create_topic("R", partitions=2)
        app = App("app", log=log)
        left, right = two(app)
        joined = left.join(right.key_by(lambda value: value[:1]), pair, store="j", within=ms(10))
        joined.to(app.topic("out", key=str, value=str))
        with log.producer() as producer:
            for key in "abcdefgh":
                producer.send("L", b"l", key=key.encode(), timestamp_ms=1)
        for partition in (0, 1):
            feed(log, "R", [("any", f"{key}{partition}", 1) for key in "abcdefgh"], partition=partition)
        app.run(until="end")
        assert log.describe_topic("app-j-right-repartition").partitions == 4
        assert log.describe_topic("app-j-left-changelog").partitions == 4
        found = sorted((record.key or b"", record.value or b"") for record in contents(log, "out"))
        assert found == sorted((key.encode(), f"l+{key}{n}".encode()) for key in "abcdefgh" for n in (0, 1))


def test_two_sides_whose_keys_were_changed_get_the_larger_number() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L", partitions=2)
        log.create_topic("R", partitions=3)
        app = App("app", log=log)
        left, right = (side.key_by(lambda value: value[:1]) for side in two(app))
        left.left_join(right, pair, store="j", within=ms(10)).to(app.topic("out", key=str, value=str))
        feed(log, "L", [(None, "al", 1)], partition=1)
        feed(log, "R", [(None, "ar", 1)], partition=2)
        app.run(until="end")
        assert [log.describe_topic(f"app-j-{side}-repartition").partitions for side in ("left", "right")] == [3, 3]
        assert [(record.key, record.value) for record in contents(log, "out")] == [(b"a", b"al+ar")]


def test_unlike_partitions_are_refused_with_both_places() -> None:
    with Log.open("memory:") as log:
        log.create_topic("L", partitions=2)
        log.create_topic("R", partitions=3)
        app = App("app", log=log)
        left, right = two(app)
        left.join(right, pair, store="j", within=ms(10)).to(app.topic("out", key=str, value=str))
        wanted = r"j-left, j-right are not co-partitioned: topic 'L' at .*py:\d+ has 2, topic 'R' at .*py:\d+ has 3"
        with pytest.raises(TopologyError, match=wanted):
            app.run(until="end")
        app = App("other", log=log)
        left, right = two(app)
        wider = left.repartition(name="by", partitions=5)
        wider.join(right, pair, store="j", within=ms(10)).to(app.topic("out", key=str, value=str))
        wanted = r"repartition '.*' at .*py:\d+ has 5, topic 'R' at .*py:\d+ has 3"
        with pytest.raises(TopologyError, match=wanted):
            app.run(until="end")


def test_keys_of_two_types_are_refused_with_both_places() -> None:
    app = App("app")
    left, right = two(app, right_key=int)
    left.join(right, pair, store="j", within=ms(10)).to(app.topic("out", key=str, value=str))
    wanted = r"test_joins.py:\d+ has keys of type str, from topic 'L' at .*, and of type int, from topic 'R' at "
    with pytest.raises(TopologyError, match=wanted):
        app.describe()


async def later(left: str, right: str) -> str:
    return left + right


def test_arguments_are_refused_at_the_call() -> None:
    app = App("app")
    left, right = two(app)
    with pytest.raises(TypeError, match=r"join takes a stream or a table, not 'R'"):
        left.join(cast("Any", "R"), pair, store="j", within=ms(1))
    with pytest.raises(TypeError, match=r"join\(store='j'\) takes a plain function, and later is async"):
        left.join(right, later, store="j", within=ms(1))
    with pytest.raises(TypeError, match=r"left_join needs within=, or before= and after="):
        left.left_join(right, pair, store="j")
    with pytest.raises(ValueError, match=r"within=-1\w+ is negative"):
        left.join(right, pair, store="j", within=-ms(1))
    with pytest.raises(ValueError, match=r"before=1ms and after=-2ms leave no time"):
        left.join(right, pair, store="j", before=ms(1), after=-ms(2))
    with pytest.raises(ValueError, match=r"was given a stream of another app"):
        left.join(two(App("other"))[1], pair, store="j", within=ms(1))
    with pytest.raises(
        ValueError, match=r"source-0 at .* has no late: take .late from what a join of two streams returned"
    ):
        _ = left.late


def test_what_is_kept_is_changed_by_nobody() -> None:
    app = App("app")
    orders = app.stream(app.topic("L", key=str, value=Order))
    words = app.stream(app.topic("R", key=str, value=str))

    def added(order: Order, word: str) -> Order:
        order.items.append(word)
        return order

    joined = orders.join(words, added, store="j", within=ms(10))
    joined.map(lambda order: ",".join(order.items)).to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        driver.pipe("L", Order("c", ["x"]), key="k", timestamp_ms=1)
        for word in "ab":
            driver.pipe("R", word, key="k", timestamp_ms=1)
        driver.pipe("L", Order("c", ["y"]), key="k", timestamp_ms=2)
        assert [value for _, value, _ in rows(driver)] == ["x,a", "x,b", "y,a", "y,b"]


def test_a_function_that_raises_costs_its_pair_alone() -> None:
    def picky(left: str | None, right: str | None) -> str:
        if "bad" in (left, right):
            raise ValueError("no")
        return pair(left, right)

    with Log.open("memory:") as log:
        app = App("app", log=log, on_error="skip")
        log.create_topic("L")
        log.create_topic("R")
        left, right = two(app)
        joined = left.left_join(right, picky, store="j", within=ms(10))
        joined.peek(lambda value: 1 // (value != "b+x")).to(app.topic("out", key=str, value=str))
        feed(log, "L", [("k", "a", 1), ("k", "bad", 1), ("k", "b", 1), ("k", "c", 1), ("m", "bad", 1), ("n", "d", 1)])
        feed(log, "R", [("k", "x", 2), ("z", "-", 99)])
        summary = app.run(until="end")
        assert [record.value for record in contents(log, "out")] == [b"a+x", b"c+x", b"d+None"]
        assert summary.dropped == {"error": 3}


def test_results_of_another_type_are_named_where_they_are_made() -> None:
    app = App("app")
    left, right = two(app)
    joined = left.join(right, lambda a, b: Order(a, [b]), store="j", within=ms(10), value=Order)
    joined.group_by(lambda order: order.customer).reduce(lambda a, _b: a, store="r").to(
        app.topic("out", key=str, value=Order)
    )
    with TopologyDriver(app) as driver:
        driver.pipe("L", "a", key="k", timestamp_ms=1)
        driver.pipe("R", "b", key="k", timestamp_ms=1)
        assert rows(driver) == [("a", Order("a", ["b"]), 1)]
