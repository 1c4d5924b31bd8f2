"""An error of a user's function names the record that was run, wherever in the graph it came from."""

from collections.abc import Callable
from typing import Any

import pytest

from tailrace import App, Stream, seconds, tumbling
from tailrace.errors import TaskError
from tailrace.streams.chain.failure import Nodes
from tailrace.streams.values.place import Place
from tailrace.testing import TopologyDriver

Make = Callable[[Stream[str, str]], object]


def fails(*_given: Any) -> Any:
    message = "no"
    raise ValueError(message)


def behind_a_table(stream: Stream[str, str]) -> object:
    return stream.to_table(store="t").to_stream().map(fails)


def behind_two_tables(stream: Stream[str, str]) -> object:
    return stream.to_table(store="t").filter(bool, store="f").map(fails, store="m")


def behind_a_count(stream: Stream[str, str]) -> object:
    return stream.group_by_key().count(store="n").changes().peek(fails)


def behind_a_table_and_a_hop(stream: Stream[str, str]) -> object:
    return stream.to_table(store="t").changes().group_by(lambda value: value).count(store="n").changes().peek(fails)


def in_a_window(stream: Stream[str, str]) -> object:
    return stream.group_by_key().windowed_by(tumbling(seconds(1))).count(store="n").changes().peek(fails)


def behind_a_close(stream: Stream[str, str]) -> object:
    grouped = stream.group_by_key().windowed_by(tumbling(seconds(1)))
    return grouped.count(store="n", emit="close").changes().peek(fails)


def driven(make: Make, *, cache: bool) -> TopologyDriver:
    app = App("app")
    make(app.stream(app.topic("in", key=str, value=str)))
    return TopologyDriver(app, cache=cache)


@pytest.mark.parametrize(
    "make", [behind_a_table, behind_two_tables, behind_a_count, behind_a_table_and_a_hop, in_a_window]
)
def test_without_a_cache_the_record_is_named_behind_stateful_nodes(make: Make) -> None:
    with (
        driven(make, cache=False) as driver,
        pytest.raises(TaskError, match=r"ValueError in .*test_failure.py:\d+.* at in-0@0: no;"),
    ):
        driver.pipe("in", "v", key="k", timestamp_ms=1)


@pytest.mark.parametrize("make", [behind_a_table, behind_two_tables, behind_a_count, behind_a_table_and_a_hop])
def test_a_result_that_the_cache_sent_is_of_no_one_record(make: Make) -> None:
    with driven(make, cache=True) as driver:
        driver.pipe("in", "v", key="k", timestamp_ms=1)
        with pytest.raises(TaskError, match=r"at a result of a window or a cache \(key '[kv]', at 1 ms\): no;"):
            driver.commit()


def test_a_window_that_a_record_closes_is_not_that_records() -> None:
    with driven(behind_a_close, cache=False) as driver:
        driver.pipe("in", "v", key="k", timestamp_ms=1)
        with pytest.raises(
            TaskError, match=r"at a result of a window or a cache \(key Windowed\(key='k', .*\), at 1 ms\): no;"
        ):
            driver.pipe("in", "v", key="other", timestamp_ms=5_000)


def test_a_node_that_is_gone_leaves_its_id_to_another() -> None:
    nodes, gone, place = Nodes(), object(), Place("here", 1)
    nodes.add(gone, "first", place)
    nodes.add(fails, "other", place)
    nodes.forget(gone)
    assert nodes.of(gone) is None
    nodes.add(gone, "second", place)
    assert nodes.of(gone) == ("second", "here:1")
    assert nodes.of(fails) == ("other", "here:1")
