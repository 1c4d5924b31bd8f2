"""The driver for tests of programs: what goes in and out of it, its clocks, its stores, its end."""

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.errors import (
    DecodeError,
    EncodeError,
    InvalidError,
    TaskError,
    TopicNotFoundError,
    TopologyError,
)
from tailrace.streams.app import App
from tailrace.streams.program.topic import Topic
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.duration import seconds
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed


class Order(msgspec.Struct):
    customer: str
    cents: int


Texts = Topic[str, str]


def texts(app: App, name: str, **options: Any) -> Texts:
    return app.topic(name, key=str, value=str, **options)


def rows(driver: TopologyDriver, topic: Topic[Any, Any] | str) -> list[tuple[Any, Any, int]]:
    return [(record.key, record.value, record.timestamp_ms) for record in driver.read(topic)]


def shouting(**options: Any) -> tuple[App, Texts, Texts]:
    app = App("app", **options)
    source, out = texts(app, "in"), texts(app, "out")
    app.stream(source).map_values(str.upper).to(out)
    return app, source, out


# ---------------------------------------------------------------- in and out


def test_a_record_goes_through_and_is_read_once() -> None:
    app, source, out = shouting()
    with TopologyDriver(app) as driver:
        driver.pipe(source, "a", key="k", timestamp_ms=7, headers=[("h", b"1"), ("n", None)])
        driver.pipe("in", "b")
        (first, second) = driver.read(out)
        assert (first.topic, first.partition, first.offset, first.timestamp_ms) == ("out", 0, 0, 7)
        assert (first.key, first.value, list(first.headers)) == ("k", "A", [("h", b"1"), ("n", None)])
        assert (second.offset, second.key, second.value, second.timestamp_ms) == (1, None, "B", 0)
        assert driver.read(out) == []
        driver.pipe(source, "c")
        assert rows(driver, "out") == [(None, "C", 0)]
    assert driver.read(out) == []


def test_typed_values_and_the_time_within_them() -> None:
    app = App("app")
    orders = app.topic("orders", key=int, value=Order, timestamp=lambda order: order.cents)
    out = app.topic("out", key=str, value=Order)
    app.stream(orders).key_by(lambda order: order.customer).to(out)
    with TopologyDriver(app) as driver:
        driver.pipe(orders, Order("ann", 12), key=1, timestamp_ms=99)
        assert rows(driver, out) == [("ann", Order("ann", 12), 12)]


def test_windowed_keys_are_read_with_the_window_that_made_them() -> None:
    app = App("app")
    source, out = texts(app, "in"), app.topic("out", key=Windowed[str], value=int)
    app.stream(source).group_by_key().windowed_by(tumbling(ms(10))).count(store="s").to_stream().to(out)
    with TopologyDriver(app) as driver:
        driver.pipe(source, "a", key="k", timestamp_ms=25)
        assert rows(driver, out) == [(Windowed("k", 20, 30), 1, 25)]


def test_results_come_in_the_order_in_which_they_were_made_whatever_the_topic_says_of_partitions() -> None:
    app = App("app")
    source, out = texts(app, "in"), texts(app, "out", partitions=7)
    app.stream(source).flat_map(list).map_kv(lambda _key, value: (value, value)).to(out)
    with TopologyDriver(app) as driver:
        driver.pipe(source, "some words of any order")
        assert "".join(record.value for record in driver.read(out)) == "some words of any order"
    with TopologyDriver(app, partitions=3) as driver:
        driver.pipe(source, "some words of any order")
        found = driver.read(out)
        assert "".join(record.value for record in found) == "some words of any order"
        assert {record.partition for record in found} == {0, 1, 2}


def test_topics_that_the_app_writes_and_reads_are_driven_at_once() -> None:
    app = App("app")
    source, between, out = texts(app, "in"), texts(app, "between"), texts(app, "out")
    app.stream(source).map_values(str.upper).to(between)
    app.stream(between).map_values(lambda value: value * 2).to(out)
    with TopologyDriver(app, partitions=2) as driver:
        driver.pipe(source, "a", key="k")
        assert rows(driver, between) == [("k", "A", 0)]
        assert rows(driver, out) == [("k", "AA", 0)]
        driver.pipe(between, "x")
        assert rows(driver, out) == [(None, "xx", 0)]


def test_topics_that_a_function_chooses() -> None:
    app, other = App("app"), App("other")
    source = texts(app, "in")
    short, long = texts(other, "short"), texts(other, "long")
    app.stream(source).to(lambda _key, value: short if len(value) < 3 else long)
    with TopologyDriver(app) as driver:
        assert driver.read(short) == []
        driver.pipe(source, "a")
        driver.pipe(source, "words")
        assert (rows(driver, short), rows(driver, long)) == ([(None, "a", 0)], [(None, "words", 0)])
        assert driver.read("short") == []


def test_two_drivers_of_one_app_know_nothing_of_each_other_nor_of_the_apps_log() -> None:
    app, source, out = shouting(log="/nowhere/at/all")
    before = threading.active_count()
    with TopologyDriver(app) as one, TopologyDriver(app) as other:
        one.pipe(source, "a")
        assert (len(one.read(out)), len(other.read(out))) == (1, 0)
        assert threading.active_count() == before


def test_any_time_may_stand_in_a_record() -> None:
    app = App("app")
    source, out = texts(app, "in"), app.topic("out", key=str, value=int)
    app.stream(source).group_by_key().count(store="s").to_stream().to(out)
    with TopologyDriver(app, cache=True) as driver:
        driver.pipe(source, "a", key="k", timestamp_ms=4_000_000_000_000)
        driver.commit()
        assert rows(driver, out) == [("k", 1, 4_000_000_000_000)]


# ---------------------------------------------------------------- clocks


def test_the_wall_clock_stands_until_it_is_moved() -> None:
    app, source, out = shouting()
    with TopologyDriver(app, wall_clock_ms=1_000) as driver:
        driver.pipe(source, "a")
        driver.advance_wall_clock(seconds(2))
        driver.pipe(source, "b")
        driver.pipe(source, "c", timestamp_ms=5)
        assert [record.timestamp_ms for record in driver.read(out)] == [1_000, 3_000, 5]
        with pytest.raises(ValueError):
            driver.advance_wall_clock(timedelta(seconds=-1))


def per_window(log: str | Log = "memory:") -> tuple[App, Texts, Topic[Windowed[str], int]]:
    app = App("app", log=log)
    source, out = texts(app, "in"), app.topic("out", key=Windowed[str], value=int)
    windows = app.stream(source).group_by(lambda value: value).windowed_by(tumbling(ms(10), grace=ms(5)))
    windows.count(store="s", emit="close").to_stream().to(out)
    return app, source, out


def test_with_one_partition_the_largest_timestamp_closes_behind_a_repartition() -> None:
    app, source, out = per_window()
    with TopologyDriver(app) as driver:
        driver.pipe(source, "a", timestamp_ms=3)
        driver.pipe(source, "b", timestamp_ms=29)  # a row lags behind by grace at most
        assert [key.key for key, _, _ in rows(driver, out)] == ["a"]
        driver.pipe(source, "a", timestamp_ms=4)
        assert driver.dropped == {"late": 1}


def test_with_several_partitions_nothing_closes_before_the_slowest_until_the_clock_moves() -> None:
    app, source, out = per_window()
    with TopologyDriver(app, partitions=2) as driver:
        driver.pipe(source, "a", timestamp_ms=3, partition=0)
        driver.pipe(source, "a", timestamp_ms=100, partition=0)
        assert driver.read(out) == []
        driver.pipe(source, "a", timestamp_ms=4, partition=1)
        driver.pipe(source, "b", timestamp_ms=20, partition=1)
        assert rows(driver, out) == [(Windowed("a", 0, 10), 2, 4)]
        assert driver.dropped == {}
        driver.advance_wall_clock(ms(1))  # nothing more came: partition 1 holds nobody back
        assert rows(driver, out) == [(Windowed("b", 20, 30), 1, 20)]
        driver.pipe(source, "b", timestamp_ms=21, partition=1)
        assert driver.dropped == {"late": 1}


def test_several_partitions_give_the_final_results_of_a_backlog() -> None:
    # One partition after the other: only who waits for the slowest finds them in time.
    fed = sorted((n % 3, n, "abc"[n % 2], 40 * (n // 12) + (n * 7) % 26) for n in range(96))
    with Log.open("memory:") as log:
        log.create_topic("in", partitions=3)
        for partition in range(3):
            feed(log, "in", [(None, word, at) for p, _, word, at in fed if p == partition], partition)
        app, _, out = per_window(log)
        summary = app.run(until="end")
        assert summary.records_in == len(fed)
        produced = {(key[:-8], at): value for key, value, at in _raw(log, "out")}
        dropped = dict(summary.dropped)
        assert 0 < dropped["late"] < 20
    app, source, out = per_window()
    with TopologyDriver(app, partitions=3) as driver:
        for partition, _, word, at in fed:
            driver.pipe(source, word, timestamp_ms=at, partition=partition)
        driver.advance_wall_clock(ms(0))
        driven = {(key.key.encode(), at): value for key, value, at in rows(driver, out)}
        assert dict(driver.dropped) == dropped
    assert produced == {key: value.to_bytes(8, "big") for key, value in driven.items()}
    assert len(driven) > 10


def _raw(log: Log, topic: str) -> list[tuple[bytes, bytes, int]]:
    return [(record.key or b"", record.value or b"", record.timestamp_ms) for record in contents(log, topic)]


# ---------------------------------------------------------------- cache, commit, stores


def counting() -> tuple[App, Texts, Topic[str, int]]:
    app = App("app")
    source, out = texts(app, "in"), app.topic("out", key=str, value=int)
    app.stream(source).group_by_key().count(store="counts").to_stream().to(out)
    return app, source, out


def test_with_the_cache_results_wait_for_the_commit() -> None:
    app, source, out = counting()
    with TopologyDriver(app, cache=True) as driver:
        driver.pipe(source, "x", key="a", timestamp_ms=1)
        driver.pipe(source, "x", key="a", timestamp_ms=2)
        assert driver.read(out) == []
        assert driver.store("counts").get("a") == 2
        driver.commit()
        assert rows(driver, out) == [("a", 2, 2)]
        driver.commit()
        assert driver.read(out) == []
        driver.pipe(source, "x", key="a", timestamp_ms=3)
    assert driver.read(out) == []


def test_a_commit_writes_the_changelog_and_the_state_goes_on() -> None:
    app, source, out = counting()
    with TopologyDriver(app) as driver:
        for at in range(3):
            driver.pipe(source, "x", key="a", timestamp_ms=at)
            driver.commit()
        changelog = driver.read("app-counts-changelog")
        assert [(record.key, record.value) for record in changelog] == [(b"a", n.to_bytes(8, "big")) for n in (1, 2, 3)]
        assert [value for _, value, _ in rows(driver, out)] == [1, 2, 3]


def test_a_commit_feeds_topics_that_the_app_reads() -> None:
    app = App("app")
    source, between, out = (
        texts(app, "in"),
        app.topic("between", key=str, value=int),
        app.topic("out", key=str, value=int),
    )
    app.stream(source).group_by_key().count(store="s").to_stream().to(between)
    app.stream(between).map_values(lambda n: n * 10).to(out)
    with TopologyDriver(app, cache=True) as driver:
        driver.pipe(source, "x", key="a")
        driver.commit()
        assert rows(driver, out) == [("a", 10, 0)]


def test_stores_are_read_over_all_partitions() -> None:
    app, source, _ = counting()
    with TopologyDriver(app, partitions=3) as driver:
        for key in "banana":
            driver.pipe(source, "x", key=key)
        counts = driver.store("counts")
        assert counts.name == "counts"
        assert list(counts.all()) == [("a", 3), ("b", 1), ("n", 2)]
        assert list(counts.all(reverse=True)) == [("n", 2), ("b", 1), ("a", 3)]
        assert list(counts.range("b")) == [("b", 1), ("n", 2)]
        assert list(counts.prefix("n")) == [("n", 2)]
        assert (counts.get("a"), counts.get("x")) == (3, None)
        with pytest.raises(InvalidError, match="'count'; did you mean 'counts'"):
            driver.store("count")


# ---------------------------------------------------------------- what is refused, and how it ends


def test_what_was_dropped_by_reason() -> None:
    app, source, _ = per_window()
    with TopologyDriver(app) as driver:
        assert driver.dropped == {}
        driver.pipe(source, "a", timestamp_ms=50)
        driver.pipe(source, "a", timestamp_ms=1)
        driver.pipe(source, None, timestamp_ms=50)
        assert driver.dropped == {"late": 1, "null_key": 1}


def test_bad_records_fare_as_the_app_says() -> None:
    raw = App("raw").topic("in", key=bytes, value=bytes)
    made: dict[str, App] = {}
    for policy in ("fail", "skip", "dead_letter"):
        app = made[policy] = App("app", on_bad_record=policy)
        app.stream(app.topic("in", key=str, value=int)).to(app.topic("out", key=str, value=int))
    with TopologyDriver(made["fail"]) as driver, pytest.raises(DecodeError, match="in-0@0"):
        driver.pipe(raw, b"12")
    with TopologyDriver(made["skip"]) as driver:
        driver.pipe(raw, b"12")
        driver.pipe("in", 12)
        assert driver.dropped == {"bad_record": 1}
        assert rows(driver, "out") == [(None, 12, 0)]
    with TopologyDriver(made["dead_letter"]) as driver:
        driver.pipe(raw, b"12", key=b"k", timestamp_ms=3)
        (letter,) = driver.read("app-dead-letters")
        assert (letter.key, letter.value, letter.timestamp_ms) == (b"k", b"12", 3)
        assert ("__streams.errors.topic", b"in") in letter.headers


def test_after_an_error_of_the_app_it_has_ended() -> None:
    app = App("app")
    source, out = texts(app, "in"), app.topic("out", key=str, value=int)

    def parse(value: str) -> int:
        return int(value)

    app.stream(source).map_values(parse).to(out)
    with TopologyDriver(app) as driver:
        driver.pipe(source, "1")
        with pytest.raises(TaskError, match="in-0@1") as failed:
            driver.pipe(source, "one")
        assert isinstance(failed.value.__cause__, ValueError)
        with pytest.raises(InvalidError, match="has ended with TaskError"):
            driver.pipe(source, "2")
        with pytest.raises(InvalidError, match="has ended with TaskError"):
            driver.commit()
        with pytest.raises(InvalidError, match="has ended with TaskError"):
            driver.advance_wall_clock(ms(1))
        assert rows(driver, out) == [(None, 1, 0)]


def test_an_error_in_a_commit_ends_the_app_too() -> None:
    app = App("app")
    source = texts(app, "in")

    def refuse(value: int | None) -> str:
        raise ValueError(value)

    app.stream(source).group_by_key().count(store="s").to_stream().map_values(refuse).to(texts(app, "out"))
    with TopologyDriver(app, cache=True) as driver:
        driver.pipe(source, "x", key="a")
        with pytest.raises(TaskError, match="ValueError in map-3"):
            driver.commit()
        with pytest.raises(InvalidError, match="has ended"):
            driver.pipe(source, "x", key="a")


def test_a_record_that_is_refused_leaves_the_app_as_it_is() -> None:
    app, source, out = shouting()
    with TopologyDriver(app) as driver:
        with pytest.raises(EncodeError, match="value for topic 'in'"):
            driver.pipe("in", 12)
        with pytest.raises(EncodeError, match="key for topic 'in'"):
            driver.pipe("in", "a", key=12)
        with pytest.raises(InvalidError, match="partition"):
            driver.pipe(source, "a", partition=1)
        with pytest.raises(InvalidError, match="does not read topic 'inn'; did you mean 'in'"):
            driver.pipe("inn", "a")
        with pytest.raises(InvalidError, match="does not read topic 'out'"):
            driver.pipe(out, "a")
        with pytest.raises(TypeError, match="pipe takes a topic"):
            driver.pipe(12, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TopicNotFoundError, match="'ouut'; did you mean 'out'"):
            driver.read("ouut")
        driver.pipe(source, "a")
        assert rows(driver, out) == [(None, "A", 0)]
        driver.pipe(source, "b")
        with pytest.raises(DecodeError, match="out-0@1"):
            driver.read(App("other").topic("out", key=str, value=int))


def test_a_driver_that_is_closed_takes_nothing_and_still_shows_what_came_out() -> None:
    app, source, out = counting()
    with TopologyDriver(app) as driver:
        driver.pipe(source, "x", key="a")
    assert rows(driver, out) == [("a", 1, 0)]
    assert driver.store("counts").get("a") == 1
    with pytest.raises(InvalidError, match="closed"):
        driver.pipe(source, "x", key="a")


def test_arguments_that_are_wrong_in_themselves() -> None:
    app, _, _ = shouting()
    with pytest.raises(ValueError, match="partitions=0"):
        TopologyDriver(app, partitions=0)
    with pytest.raises(ValueError, match="wall_clock_ms=-1"):
        TopologyDriver(app, wall_clock_ms=-1)


def test_a_program_that_cannot_be_built() -> None:
    app = App("app")
    grouped = app.stream(texts(app, "in")).group_by_key()
    grouped.count(store="s")
    grouped.count(store="s")
    with pytest.raises(TopologyError, match="store='s'"):
        TopologyDriver(app)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.integers(0, 60)), max_size=40),
    st.integers(1, 3),
    st.booleans(),
)
def test_two_stages_against_plain_counts(records: list[tuple[int, str, int]], partitions: int, cache: bool) -> None:
    """Counts per word, then per count how often a word had it when it was sent on: each time, or at the commit."""
    app = App("app", log="memory:")
    source, out = texts(app, "in"), app.topic("out", key=int, value=int)
    words = app.stream(source).group_by(lambda value: value).count(store="words").to_stream()
    words.map(lambda count: count or 0).group_by(lambda count: count).count(store="counts").to_stream().to(out)
    plain = Counter(word for _, word, _ in records)
    with TopologyDriver(app, cache=cache, partitions=partitions) as driver:
        for partition, word, at in records:
            driver.pipe(source, word, timestamp_ms=at, partition=partition % partitions)
        driver.commit()
        assert dict(driver.store("words").all()) == plain
        seen = driver.read(out)
        steps = Counter(n for total in plain.values() for n in range(1, total + 1))
        if cache:
            assert dict(driver.store("counts").all()) == Counter(plain.values())
            assert {record.key: record.value for record in seen} == Counter(plain.values())
        else:
            assert dict(driver.store("counts").all()) == steps
            assert Counter(record.key for record in seen) == steps


def test_what_comes_out_is_what_production_gives() -> None:
    fed = [("abcab"[n % 5], str(n % 7), 3 * n) for n in range(60)]
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", fed)
        app = App("app", log=log, cache_bytes=0)
        source, out = texts(app, "in"), app.topic("out", key=str, value=str)
        app.stream(source).group_by(lambda value: value).reduce(max, store="s").to_stream().to(out)
        app.run(until="end")
        produced = decoded(contents(log, "out"), out)
    with TopologyDriver(app) as driver:
        for key, value, at in fed:
            driver.pipe(source, value, key=key, timestamp_ms=at)
        assert rows(driver, out) == produced
