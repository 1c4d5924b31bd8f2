"""Tables from topics and what is made of them, beyond the contract's cases: stores, codecs, mutable values."""

from typing import Any

import msgspec
import pytest

from tailrace.log.client import Log
from tailrace.log.errors import EncodeError, TaskError, TopologyError
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, decoded, feed


class Total(msgspec.Struct):
    n: int


def opaque(_value: str) -> object:
    return object()


def test_the_store_has_the_topic_as_its_content() -> None:
    with Log.open("memory:") as log:
        log.create_topic("users", partitions=2)
        feed(log, "users", [("a", "1", 5), ("b", "2", 6), ("a", "3", 4), ("c", None, 7), (None, "x", 8)])
        feed(log, "users", [("d", "4", 5), ("d", None, 6)], partition=1)
        app = App("shop", log=log)
        app.table(app.topic("users", key=str, value=str), store="users")
        assert app.run(until="end").dropped == {"null_key": 1}
        rows = [(record.key, record.value, record.timestamp_ms) for record in contents(log, "shop-users-changelog")]
        assert rows == [(b"a", b"3", 4), (b"b", b"2", 6)], "what came and went within one commit is nowhere"


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_values_changed_on_their_way_do_not_reach_the_store(cache_bytes: int) -> None:
    def wipe(total: Total) -> Total:
        total.n = -1
        return total

    with Log.open("memory:") as log:
        log.create_topic("totals")
        feed(log, "totals", [("a", '{"n":1}', 1), ("a", '{"n":2}', 2)])
        app = App("shop", log=log, cache_bytes=cache_bytes)
        totals, out = app.topic("totals", key=str, value=Total), app.topic("out", key=str, value=Total)
        app.stream(totals).map(wipe).to(app.topic("wiped", key=str, value=Total))
        table = app.table(totals, store="totals")
        app.stream(totals).map(wipe).to(app.topic("wiped", key=str, value=Total))
        table.map(wipe, store="mapped").to_stream().to(app.topic("wiped", key=str, value=Total))
        table.to(out)
        app.run(until="end")
        kept = [record.value for record in contents(log, "shop-totals-changelog")]
        assert kept[-1] == b'{"n":-1}', "the stream before the table changed the record itself"
        assert decoded(contents(log, "out"), out)[-1] == ("a", Total(-1), 2)


def test_a_table_changed_behind_it_stays_as_it_is() -> None:
    def wipe(total: Total) -> Total:
        total.n = -1
        return total

    with Log.open("memory:") as log:
        log.create_topic("totals")
        feed(log, "totals", [("a", '{"n":1}', 1)])
        app = App("shop", log=log)
        totals = app.topic("totals", key=str, value=Total)
        table = app.table(totals, store="totals")
        table.map(wipe, store="mapped")
        app.stream(totals).map(wipe).for_each(str)
        app.run(until="end")
        assert [record.value for record in contents(log, "shop-totals-changelog")] == [b'{"n":1}']
        assert [record.value for record in contents(log, "shop-mapped-changelog")] == [b'{"n":-1}']


def test_types_of_what_a_table_makes() -> None:
    with Log.open("memory:") as log:
        log.create_topic("users")
        app = App("shop", log=log)
        table = app.table(app.topic("users", key=str, value=str), store="users")
        table.map(lambda v: {"n": len(v)}, store="natural")
        table.map(lambda v: Total(len(v)), store="named", value=Total)
        table.map(lambda v: Total(len(v)), store="followed").to(app.topic("out", key=str, value=Total))
        rows = [row for part in app.describe().document()["sub_topologies"] for row in part["nodes"]]
        codecs = {row["store"]: row["value"] for row in rows if "store" in row}
        assert codecs == {"users": "str", "natural": "natural", "named": "json(Total)", "followed": "json(Total)"}
        feed(log, "users", [("a", "xx", 5)])
        app.run(until="end")
        table.map(opaque, store="opaque")
        strange: Any = Exception
        table.map(opaque, store="typed", value=strange)
        with pytest.raises(TopologyError, match=r"the value that .* makes has no codec"):
            app.describe()


def test_a_value_without_a_codec_names_the_argument() -> None:
    with Log.open("memory:") as log:
        log.create_topic("users")
        feed(log, "users", [("a", "xx", 5)])
        app = App("shop", log=log)
        made: Any = opaque
        app.table(app.topic("users", key=str, value=str), store="users").map(made, store="opaque")
        with pytest.raises(EncodeError, match=r"name its type with value= there"):
            app.run(until="end")


def test_an_error_of_a_tables_function_names_it() -> None:
    with Log.open("memory:") as log:
        log.create_topic("users")
        feed(log, "users", [("a", "x", 5)])
        app = App("shop", log=log)
        app.table(app.topic("users", key=str, value=str), store="users").filter(lambda v: len(v) < 1 // 0).changes()
        with pytest.raises(TaskError, match=r"ZeroDivisionError in table-filter-2 .*test_tables\.py"):
            app.run(until="end")
