"""Streams that come together: types, keys that were changed on one side, errors of branches' functions."""

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import TaskError
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.tests.support.engine import contents, decoded, feed


def test_a_key_changed_on_one_side_is_repartitioned() -> None:
    with Log.open("memory:") as log:
        for topic in ("a", "b"):
            log.create_topic(topic, partitions=2)
        feed(log, "a", [("x", "x", 1), ("y", "y", 2)], partition=0)
        feed(log, "b", [("k", "x", 3), ("k", "y", 4)], partition=1)
        app = App("shop", log=log)
        left = app.stream(app.topic("a", key=str, value=str))
        right = app.stream(app.topic("b", key=str, value=str)).key_by(lambda v: v)
        out = app.topic("out", key=str, value=int)
        left.merge(right).group_by_key().count(store="counts").to(out)
        app.run(until="end")
        assert {key: n for key, n, _ in decoded(contents(log, "out"), out)} == {"x": 2, "y": 2}


def test_the_type_is_that_of_the_side_that_knows_it() -> None:
    app = App("shop", log="memory:")
    known = app.stream(app.topic("a", key=str, value=str))
    made = known.map_kv(lambda _k, v: (v, v))
    for merged in (known.merge(made), made.merge(known), made.merge(made).merge(known)):
        number = len(app.graph.nodes)
        merged.group_by_key(name=f"g{number}").reduce(lambda a, _b: a, store=f"s{number}")
        document = app.describe().document()
        rows = [row for part in document["sub_topologies"] for row in part["nodes"] if row.get("store")]
        assert (rows[-1]["key"], rows[-1]["value"]) == ("str", "str")
    windowless = made.merge(known.map_kv(lambda k, v: (v, k)))
    windowless.group_by_key().reduce(lambda a, _b: a, store="natural")
    assert "natural" in str(app.describe())


def test_a_stream_merged_with_itself_comes_twice() -> None:
    with Log.open("memory:") as log:
        log.create_topic("a")
        feed(log, "a", [("x", "1", 1), ("x", "2", 2)])
        app = App("shop", log=log)
        source = app.stream(app.topic("a", key=str, value=str))
        source.merge(source).to(app.topic("out", key=str, value=str))
        app.run(until="end")
        assert [record.value for record in contents(log, "out")] == [b"1", b"1", b"2", b"2"]


def test_an_error_in_a_branch_names_it() -> None:
    with Log.open("memory:") as log:
        log.create_topic("a")
        feed(log, "a", [("x", "1", 1)])
        app = App("shop", log=log)
        branches = app.stream(app.topic("a", key=str, value=str)).split({"even": lambda v: len(v) == 1 // 0})
        branches["even"].print()
        with pytest.raises(TaskError, match=r"ZeroDivisionError in split-1 .*test_merge\.py:\d+.* at a-0@0"):
            app.run(until="end")


@pytest.mark.parametrize("by_value", [False, True])
def test_two_inputs_come_in_the_order_of_their_times(by_value: bool) -> None:
    """In runs of several records and of one, past the end of an input; of one time the first named comes first."""
    times = {"a": [0, 1, 5, 5, 6, 4, 20, 21], "b": [2, 3, 5, 7, 1, 30]}
    with Log.open("memory:") as log:
        app = App("app", log=log)
        streams: list[Stream[str, int]] = []
        for name, each in times.items():
            log.create_topic(name)
            with log.producer() as producer:
                for time in each:
                    producer.send(name, time.to_bytes(8, "big"), key=name.encode(), timestamp_ms=time)
            timestamp = int if by_value else None
            streams.append(app.stream(app.topic(name, key=str, value=int, timestamp=timestamp)))
        streams[0].merge(streams[1]).to(app.topic("out", key=str, value=int))
        app.run(until="end")
        found = [((row.key or b"").decode(), row.timestamp_ms) for row in contents(log, "out")]
    assert found == [
        *(("a", 0), ("a", 1), ("b", 2), ("b", 3), ("a", 5), ("a", 5), ("b", 5)),
        *(("a", 6), ("a", 4), ("b", 7), ("b", 1), ("a", 20), ("a", 21), ("b", 30)),
    ]
