"""Repartitions and topics in the middle of a program: where records go, what is created, when a run ends, clocks."""

import random
from collections import Counter

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import TopologyError
from tailrace.log.partitioner import partition_of
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.duration import seconds
from tailrace.windows.tumbling import tumbling


def test_repartition_spreads_by_key_and_keeps_null_keys() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in", partitions=2)
        feed(log, "in", [(key, key, 1) for key in "abcdefgh"] + [(None, "null", 2)], partition=1)
        app = App("shop", log=log)
        stream = app.stream(app.topic("in", key=str, value=str)).repartition(name="again", partitions=5)
        stream.to(app.topic("out", key=str, value=str))
        stream.group_by_key().count(store="counts")
        summary = app.run(until="end")
        assert summary.dropped == {"null_key": 1}, "by the grouping, not by the repartition"
        assert log.describe_topic("out").partitions == 5
        assert log.describe_topic("shop-again-repartition").partitions == 5
        assert sorted((record.value or b"").decode() for record in contents(log, "out")) == [*"abcdefgh", "null"]
        owned = {record.key: record.partition for record in contents(log, "shop-counts-changelog")}
        written = {record.key: record.partition for record in contents(log, "out") if record.key is not None}
        assert owned == written


def test_through_creates_the_topic_and_a_run_reads_it_to_its_end() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in", partitions=3)
        for partition in range(3):
            feed(log, "in", [("a", "x", 1), ("b", "y", 2)], partition=partition)
        app = App("shop", log=log)
        first, second = (app.topic(name, key=str, value=str) for name in ("first", "second"))
        counts = app.topic("counts", key=str, value=int)
        stream = app.stream(app.topic("in", key=str, value=str)).through(first).map(str.upper).through(second)
        stream.group_by_key().count(store="counts").to(counts)
        summary = app.run(until="end")
        assert summary.records_in == 18
        assert [log.describe_topic(name).partitions for name in ("first", "second")] == [3, 3]
        assert {key: n for key, n, _ in decoded(contents(log, "counts"), counts)} == {"a": 3, "b": 3}
        assert {record.value for record in contents(log, "second")} == {b"X", b"Y"}
        feed(log, "in", [("a", "z", 3)])
        app.run(until="end")
        assert {key: n for key, n, _ in decoded(contents(log, "counts"), counts)} == {"a": 4, "b": 3}


def test_partitions_of_a_topic_between() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in", partitions=2)
        app = App("shop", log=log)
        stream = app.stream(app.topic("in", key=str, value=str))
        declared = app.topic("declared", key=str, value=str, partitions=4)
        wide = app.topic("wide", key=str, value=str)
        stream.repartition(name="again", partitions=3).through(wide).to(app.topic("out", key=str, value=str))
        # What is read comes together with what it is written from: one sub-topology.
        stream.through(declared).merge(stream).print()
        app.run(until="end")
        found = [log.describe_topic(name).partitions for name in ("declared", "wide", "out")]
        assert found == [4, 3, 3]
        stream.through(app.topic("same", key=str, value=str)).merge(stream).print()
        app.run(until="end")
        assert log.describe_topic("same").partitions == 4, "as many as the others beside it"


def test_an_input_that_the_app_does_not_write_is_not_created() -> None:
    with Log.open("memory:") as log:
        app = App("shop", log=log)
        app.stream(app.topic("in", key=str, value=str)).through(app.topic("between", key=str, value=str)).print()
        with pytest.raises(TopologyError, match="an input is never created by itself"):
            app.run(until="end")


# In one run the two are far apart; where a run ends both were idle, so the next records must be within grace.
@pytest.mark.parametrize(("runs", "left_ms", "right_ms"), [(1, 70, 20), (1, 20, 70), (5, 30, 30)])
def test_nothing_is_late_where_a_repartition_meets_a_topic(runs: int, left_ms: int, right_ms: int) -> None:
    """Late is judged by each record's own partition, and windows close by the slowest of all that comes together."""
    chance = random.Random(3)
    given = {
        topic: [(chance.choice("abc"), "x", number * step + chance.randrange(1000)) for number in range(600)]
        for topic, step in (("left", left_ms), ("right", right_ms))
    }
    wanted = Counter((key, at - at % 1000) for records in given.values() for key, _, at in records)
    with Log.open("memory:") as log:
        for topic in given:
            log.create_topic(topic, partitions=2)
        app = App("shop", log=log, commit_interval=ms(1))
        sources = [app.stream(app.topic(topic, key=str, value=str)) for topic in given]
        out = app.topic("out", key=str, value=int)
        apart: Stream[str, str] = sources[0].repartition(name="again").merge(sources[1].filter(lambda _v: True))
        counts = apart.group_by_key().windowed_by(tumbling(seconds(1), grace=seconds(2))).count(store="s", emit="close")
        counts.to_stream().map_kv(lambda key, n: (f"{key.key}@{key.start_ms}", n or 0)).to(out)
        for run in range(runs):
            for topic, records in given.items():
                part = records[run * 600 // runs : (run + 1) * 600 // runs]
                for record in part:
                    at = partition_of(record[0].encode(), 2) if topic == "right" else chance.randrange(2)
                    feed(log, topic, [record], partition=at)
            summary = app.run(until="end")
            assert summary.dropped == {}
        found = {key: n for key, n, _ in decoded(contents(log, "out"), out)}
        last_ms = max(at for records in given.values() for _, _, at in records)
        closed = {f"{key}@{start}": n for (key, start), n in wanted.items() if start + 3_000 <= last_ms - 1_000}
        assert closed.items() <= found.items()
        assert all(wanted[key.split("@")[0], int(key.split("@")[1])] == n for key, n in found.items())
