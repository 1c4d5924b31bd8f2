"""Aggregates of several streams: W26 of the contract, random input against a model, and what is refused."""

from collections import defaultdict
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import App, Cogrouped, Window, session, tumbling, unlimited
from tailrace.errors import TopologyError
from tailrace.log.client import Log
from tailrace.streams import runner
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.tests.support.semantics import case
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.sliding import sliding


def concat(text: str, value: str) -> str:
    return text + value


def shout(text: str, value: str) -> str:
    return text + value.upper()


def plus(left: str, right: str) -> str:
    return f"{left}+{right}"


def both(app: App, *, rekey: bool = False) -> Cogrouped[str, str]:
    first, second = (app.stream(app.topic(name, key=str, value=str)) for name in ("in", "in2"))
    if rekey:
        second = second.key_by(lambda value: value[0])
    return first.group_by_key().cogroup(concat).cogroup(second.group_by_key(), shout)


def windowed(log: Log | str, window: Window, *, cache: bool, emit: Any = "update") -> App:
    app = App("cogroup", log=log, cache_bytes=1 << 20 if cache else 0)
    cogrouped = both(app).windowed_by(window)
    merge = plus if str(window).startswith("session") else None
    table = cogrouped.aggregate(str, store="s", emit=emit, merge=merge)
    table.to_stream().map_kv(lambda key, value: (f"{key.key}@[{key.start_ms},{key.end_ms})", value)).to(
        app.topic("out", key=str, value=str)
    )
    cogrouped.late.to(app.topic("late", key=str, value=str))
    return app


@pytest.mark.parametrize("cache", [False, True])
def test_w26_with_a_restart_after_each_step(cache: bool) -> None:
    wanted: list[Any] = []
    with Log.open("memory:") as log:
        for topic in ("in", "in2"):
            log.create_topic(topic)
        for number, (record, outs) in enumerate(case("W26").steps, 1):
            feed(log, record.topic, [(record.key, record.value, record.timestamp_ms)])
            windowed(log, tumbling(ms(10), grace=ms(10)), cache=cache).run(until="end")
            wanted += outs
            assert decoded(contents(log, "out"), App("r").topic("out", key=str, value=str)) == wanted, number


@pytest.mark.parametrize("cache", [False, True])
def test_w26_through_the_driver(cache: bool) -> None:
    with TopologyDriver(windowed("memory:", tumbling(ms(10), grace=ms(10)), cache=cache), cache=cache) as driver:
        for record, outs in case("W26").steps:
            driver.pipe(record.topic, record.value, key=record.key, timestamp_ms=record.timestamp_ms)
            if cache:
                driver.commit()
            assert [(out.key, out.value, out.timestamp_ms) for out in driver.read("out")] == outs


Row = tuple[str, str, str, int]


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Topic, key, value and time: those of both topics come in one order, by time."""
    times = sorted(draw(st.lists(st.integers(0, 60), min_size=1, max_size=30)))
    return [
        (draw(st.sampled_from(["in", "in2"])), draw(st.sampled_from("pq")), draw(st.sampled_from("abc")), time_ms)
        for time_ms in times
    ]


@settings(max_examples=50, deadline=None)
@given(
    records=rows(), cut=st.integers(0, 30), cache=st.booleans(), batch=st.sampled_from([1, 1000]), rekey=st.booleans()
)
def test_every_value_is_folded_in_once(records: list[Row], cut: int, cache: bool, batch: int, rekey: bool) -> None:
    """With one side behind a repartition the order of arrival is not given, but what arrives is."""
    wanted = defaultdict[str, str](str)
    for topic, key, value, _ in records:
        wanted[value if rekey and topic == "in2" else key] += value.upper() if topic == "in2" else value
    with Log.open("memory:") as log, patch.object(runner, "_SLICE", batch):
        for topic in ("in", "in2"):
            log.create_topic(topic, partitions=2)
        for piece in (records[:cut], records[cut:]):
            for topic, key, value, time_ms in piece:
                feed(log, topic, [(key, value, time_ms)], partition=ord(key) % 2)
            app = App("cogroup", log=log, cache_bytes=1 << 20 if cache else 0)
            both(app, rekey=rekey).aggregate(str, store="s").to(app.topic("out", key=str, value=str))
            if piece:
                app.run(until="end")
        found = {
            key: value for key, value, _ in decoded(contents(log, "out"), App("r").topic("out", key=str, value=str))
        }
    assert {key: sorted(text) for key, text in found.items()} == {k: sorted(text) for k, text in wanted.items()}


@pytest.mark.parametrize("window", [hopping(ms(10), ms(5)), sliding(ms(10)), session(ms(5)), unlimited(start=0)])
def test_windows_of_every_kind_take_both_sides(window: Window) -> None:
    """As one stream of values that were made alike before."""
    records = [("in", "a", 1), ("in2", "b", 4), ("in", "c", 12), ("in2", "d", 14), ("in", "e", 3), ("in2", "f", 40)]
    one = App("one")
    mixed = one.stream(one.topic("in", key=str, value=str)).group_by_key().windowed_by(window)
    merge = plus if str(window).startswith("session") else None
    mixed.aggregate(str, concat, store="s", merge=merge).to_stream().map_kv(
        lambda key, value: (f"{key.key}@[{key.start_ms},{key.end_ms})", value)
    ).to(one.topic("out", key=str, value=str))
    with TopologyDriver(windowed("memory:", window, cache=False)) as driver, TopologyDriver(one) as other:
        for topic, value, time_ms in records:
            driver.pipe(topic, value, key="k", timestamp_ms=time_ms)
            other.pipe("in", value.upper() if topic == "in2" else value, key="k", timestamp_ms=time_ms)
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read("out")] == [
            (r.key, r.value, r.timestamp_ms) for r in other.read("out")
        ]
        assert driver.dropped == other.dropped


def test_late_records_come_as_they_came_and_finals_once() -> None:
    with TopologyDriver(windowed("memory:", tumbling(ms(10)), cache=False, emit="close")) as driver:
        for topic, value, time_ms in [
            ("in", "a", 1),
            ("in2", "b", 5),
            ("in", "c", 12),
            ("in2", "d", 9),
            ("in", "e", 30),
        ]:
            driver.pipe(topic, value, key="k", timestamp_ms=time_ms)
        driver.pipe("in2", None, key="k", timestamp_ms=31)
        assert [(r.key, r.value) for r in driver.read("out")] == [("k@[0,10)", "aB"), ("k@[10,20)", "c")]
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read("late")] == [("k", "d", 9)]
        assert driver.dropped == {"late": 1, "null_value": 1}


def test_values_of_two_types_make_one_of_a_third() -> None:
    app = App("types")
    paid = app.topic("paid", key=str, value=int)
    notes = app.topic("notes", key=str, value=str)
    out = app.topic("out", key=str, codec="json")

    def pay(so_far: list[Any], cents: int) -> list[Any]:
        so_far.append(cents)
        return so_far

    def note(so_far: list[Any], text: str) -> list[Any] | None:
        return None if text == "forget" else [*so_far, text]

    by_key = app.stream(paid).group_by_key().cogroup(pay).cogroup(app.stream(notes).group_by_key(), note)
    by_key.aggregate(list[Any], store="s").to(out)
    with TopologyDriver(app) as driver:
        driver.pipe(paid, 5, key="a", timestamp_ms=1)
        driver.pipe(notes, "thanks", key="a", timestamp_ms=2)
        driver.pipe(notes, "forget", key="a", timestamp_ms=3)
        driver.pipe(paid, 7, key="a", timestamp_ms=2)
        found = [(record.value, record.timestamp_ms) for record in driver.read(out)]
        assert found == [([5], 1), ([5, "thanks"], 2), (None, 3), ([7], 2)]


def test_the_function_that_raised_is_named() -> None:
    app = App("raises", on_error="skip")

    def unlucky(text: str, value: str) -> str:
        raise ValueError(value)

    source = app.topic("in", key=str, value=str)
    grouped = app.stream(source).group_by_key()
    grouped.cogroup(concat).cogroup(grouped, unlucky).aggregate(str, store="s").to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        driver.pipe(source, "x", key="a", timestamp_ms=1)
        assert [record.value for record in driver.read("out")] == ["x"]
        assert driver.dropped == {"error": 1}


def test_inputs_must_be_co_partitioned() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in", partitions=2)
        log.create_topic("in2", partitions=3)
        app = App("cogroup", log=log)
        both(app).aggregate(str, store="s").to(app.topic("out", key=str, value=str))
        with pytest.raises(TopologyError, match=r"not co-partitioned: .*'in' .* has 2, .*'in2' .* has 3"):
            app.run(until="end")


def test_what_is_wrong_is_refused_at_the_call() -> None:
    app, other = App("refused"), App("other")
    cogrouped = both(app)
    foreign = other.stream(other.topic("in", key=str, value=str))
    wrong: Any = foreign
    with pytest.raises(TypeError, match=r"takes a grouped stream, as stream.group_by\(f\) makes it"):
        cogrouped.cogroup(wrong, concat)
    with pytest.raises(ValueError, match="of another app"):
        cogrouped.cogroup(foreign.group_by_key(), concat)
    no_function: Any = "f"
    with pytest.raises(TypeError):
        foreign.group_by_key().cogroup(no_function)
    no_window: Any = 10
    with pytest.raises(TypeError, match="takes a window"):
        cogrouped.windowed_by(no_window)
    with pytest.raises(TypeError, match="needs merge="):
        cogrouped.windowed_by(session(ms(5))).aggregate(str, store="s")
    with pytest.raises(TypeError, match="never merges"):
        cogrouped.windowed_by(tumbling(ms(5))).aggregate(str, store="s", merge=plus)
