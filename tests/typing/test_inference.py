"""Programs that mypy strict and pyright strict must pass as they stand, with the types that they must infer.

`make check` reads this file; running it only builds the graphs.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

import msgspec

from tailrace import (
    App,
    Context,
    Grouped,
    GroupedTable,
    Processor,
    Record,
    Reducer,
    Store,
    Stream,
    Table,
    Topic,
    Topology,
    Windowed,
    WindowedGrouped,
    hopping,
    json,
    minutes,
    reducers,
    seconds,
    session,
    sliding,
    tumbling,
    unlimited,
    windowed,
)


class Click(msgspec.Struct):
    product: str
    user: str
    at: datetime


class Login(msgspec.Struct, tag=True):
    user: str


class Logout(msgspec.Struct, tag=True):
    user: str


class Total(msgspec.Struct):
    cents: int = 0


class Spent(msgspec.Struct):
    n: int
    longest: int
    users: list[str]
    top: list[Click]
    words: int


class Line(msgspec.Struct):
    product: str
    start: datetime
    clicks: int


def words(click: Click) -> Iterator[str]:
    yield click.product


def add(total: Total, click: Click) -> Total:
    total.cents += len(click.product)
    return total


def test_the_main_job() -> None:
    app = App("shop", log="memory:")
    clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda c: c.at)
    out = app.topic("click-counts-output", key=Windowed[str], value=int)
    assert_type(clicks, Topic[str, Click])
    (
        app.stream(clicks)
        .group_by(lambda c: c.product)
        .windowed_by(tumbling(minutes(1), grace=seconds(5)))
        .count(store="click-counts")
        .to_stream()
        .map(lambda n: n)
        .to(out)
    )
    assert_type(app.describe(), Topology)


def test_every_step_keeps_its_types() -> None:
    app = App("shop", log="memory:")
    stream = app.stream(app.topic("clicks", key=str, value=Click))
    assert_type(stream, Stream[str, Click])
    assert_type(stream.filter(lambda c: c.at > datetime(2026, 1, 1, tzinfo=UTC)), Stream[str, Click])
    assert_type(stream.map(lambda c: c.product), Stream[str, str])
    assert_type(stream.map_values(lambda c: len(c.product)), Stream[str, int])
    assert_type(stream.map_kv(lambda k, c: (len(k), c.user)), Stream[int, str])
    assert_type(stream.flat_map(words), Stream[str, str])
    assert_type(stream.flat_map(lambda c: [c.user, c.product]), Stream[str, str])
    assert_type(stream.key_by(lambda c: c.user.encode()), Stream[bytes, Click])
    assert_type(stream.filter_not(lambda c: c.user == "x").filter_kv(lambda k, c: k == c.user), Stream[str, Click])
    assert_type(stream.flat_map_kv(lambda k, c: [(len(k), c.user)]), Stream[int, str])
    assert_type(stream.peek(lambda c: c.user).peek_kv(lambda k, c: k + c.user).print("clicks"), Stream[str, Click])
    assert_type(stream.repartition(name="again", partitions=2), Stream[str, Click])
    assert_type(stream.through(app.topic("between", key=str, value=Click)), Stream[str, Click])
    stream.for_each(lambda c: c.user)
    stream.for_each_kv(lambda k, c: k + c.user)
    assert_type(stream.split({"a": lambda c: c.user == "a"}, default="rest"), dict[str, Stream[str, Click]])
    assert_type(stream.merge(stream.filter(lambda c: c.user == "x")), Stream[str, Click])
    assert_type(stream.group_by_kv(lambda k, c: (k, c.user)), Grouped[tuple[str, str], Click])
    assert_type(stream.errors, Stream[bytes | None, bytes | None])
    stream.errors.to(app.topic("bad-clicks", key=bytes, value=bytes))
    grouped = stream.group_by(lambda c: c.user)
    assert_type(grouped, Grouped[str, Click])
    assert_type(stream.group_by_key(name="again"), Grouped[str, Click])
    assert_type(grouped.count(store="counts"), Table[str, int])
    assert_type(grouped.reduce(lambda a, b: a if a.at > b.at else b, store="latest"), Table[str, Click])
    assert_type(grouped.aggregate(Total, add, store="totals"), Table[str, Total])
    assert_type(grouped.aggregate(lambda: 0, lambda n, c: n + len(c.user), store="lengths"), Table[str, int])


class Lengths(Processor[str, Click, int, str]):
    def init(self, ctx: Context[int, str]) -> None:
        assert_type(ctx.schedule(minutes(1), lambda now: ctx.forward(now, "tick"), clock="wall"), Callable[[], None])
        self.ctx = ctx

    def process(self, record: Record[str, Click]) -> None:
        self.ctx.forward(len(record.value.user), record.key)


class Stepped(Lengths):
    def __init__(self, step: int) -> None:
        self.step = step


class Users(Processor[str, Click, str, str]):
    def process(self, record: Record[str, Click]) -> None:
        del record


def test_processors_and_their_stores() -> None:
    app = App("shop", log="memory:")
    stream = app.stream(app.topic("clicks", key=str, value=Click))
    store = app.store("seen", key=str, value=Click, kind="memory")
    assert_type(store, Store[str, Click])
    assert_type(app.store("totals", key=int, value=Total, default=Total), Store[int, Total])
    assert_type(stream.process(Lengths, stores=[store]), Stream[int, str])
    assert_type(stream.process(lambda: Stepped(3), name="stepped"), Stream[int, str])
    assert_type(stream.process_values(Users), Stream[str, str])
    app.describe()


def test_windows_and_tables() -> None:
    app = App("shop", log="memory:")
    grouped = app.stream(app.topic("clicks", key=str, value=Click)).group_by_key()
    windowed_by = grouped.windowed_by(hopping(minutes(1), seconds(10)))
    assert_type(windowed_by, WindowedGrouped[str, Click])
    assert_type(windowed_by.late, Stream[str, Click])
    table = windowed_by.count(store="counts", emit="close")
    assert_type(table, Table[Windowed[str], int])
    assert_type(table.to_stream(), Stream[Windowed[str], int | None])
    assert_type(table.changes(), Stream[Windowed[str], int])
    lines = table.changes().map_kv(lambda key, n: (key.key, Line(key.key, key.start, n)))
    assert_type(lines, Stream[str, Line])
    lines.to(app.topic("lines", key=str, value=Line))
    table.to(app.topic("counts", key=Windowed[str], value=int, key_codec=windowed(str, tumbling(minutes(1)))))
    sessions = grouped.windowed_by(session(minutes(5)))
    merged = sessions.aggregate(Total, add, store="sessions", merge=lambda a, b: Total(a.cents + b.cents))
    assert_type(merged, Table[Windowed[str], Total])
    grouped.windowed_by(sliding(seconds(5))).reduce(lambda a, _b: a, store="first")
    grouped.windowed_by(unlimited()).count(store="all")


def test_deletes_go_to_a_topic_of_the_type_itself() -> None:
    app = App("shop", log="memory:")
    counts = app.stream(app.topic("clicks", key=str, value=Click)).group_by_key().count(store="counts")
    out = app.topic("counts", key=str, value=int, compact=True)
    counts.to_stream().to(out)
    counts.to(out)
    counts.changes().to(lambda _key, _n: out)


def test_tables() -> None:
    app = App("shop", log="memory:")
    clicks = app.topic("clicks", key=str, value=Click)
    table = app.table(clicks, store="clicks")
    assert_type(table, Table[str, Click])
    assert_type(app.stream(clicks).key_by(lambda c: len(c.user)).to_table(store="users"), Table[int, Click])
    assert_type(table.filter(lambda c: c.user == "x").filter_not(lambda c: c.user == "y"), Table[str, Click])
    assert_type(table.filter_kv(lambda k, c: k == c.user, store="own"), Table[str, Click])
    assert_type(table.map(lambda c: c.user or None), Table[str, str])
    assert_type(table.map_values(lambda c: len(c.user), store="lengths"), Table[str, int])
    assert_type(table.map_kv(lambda k, c: k + c.user), Table[str, str])
    lengths = table.map(lambda c: len(c.user))
    assert_type(table.join(lengths, lambda c, n: c.user * n), Table[str, str])
    assert_type(table.left_join(lengths, lambda c, n: n or len(c.user), store="left"), Table[str, int])
    assert_type(table.outer_join(lengths, lambda c, n: n if c is None else None), Table[str, int])
    found = table.left_join(lengths, lambda c, n: c.user if n else None, on=lambda c: c.user, store="found")
    assert_type(found, Table[str, str])
    grouped = table.group_by(lambda k, c: (len(k), c.user))
    assert_type(grouped, GroupedTable[int, str])
    assert_type(grouped.count(store="n"), Table[int, int])
    assert_type(grouped.reduce(lambda a, b: a + b, lambda a, b: a.removesuffix(b), store="r"), Table[int, str])
    assert_type(
        grouped.aggregate(lambda: 0, lambda n, v: n + len(v), lambda n, v: n - len(v), store="a"), Table[int, int]
    )
    table.map_kv(lambda k, c: k + c.user).to(app.topic("names", key=str, value=str))


def test_unions_and_several_topics() -> None:
    app = App("shop", log="memory:")
    events: Topic[str, Login | Logout] = app.topic("events", key=str, codec=json(Login | Logout))
    stream = app.stream(events)
    assert_type(stream, Stream[str, Login | Logout])
    stream.filter(lambda e: isinstance(e, Login)).map(lambda e: e.user).to(app.topic("users", key=str, value=str))
    a, b = app.topic("a", key=str, value=Click), app.topic("b", key=str, value=Click)
    assert_type(app.stream([a, b]), Stream[str, Click])
    anything: Topic[str, Any] = app.topic("anything", key=str, codec="json")
    app.stream(anything).to(anything)


def test_agg() -> None:
    app = App("shop", log="memory:")
    grouped = app.stream(app.topic("clicks", key=str, value=Click)).group_by_key()
    plain = grouped.agg(
        Spent,
        store="plain",
        n=reducers.count(),
        longest=reducers.max(lambda c: len(c.product)),
        users=reducers.distinct(lambda c: c.user),
        top=reducers.top_k(3, by=lambda c: c.at),
        words=reducers.reducer(int, lambda total, click: total + len(click.product), merge=lambda a, b: a + b),
    )
    assert_type(plain, Table[str, Spent])
    plain.to(app.topic("spent", key=str, value=Spent))
    n: Reducer[Click] = reducers.sum(lambda c: len(c.user))
    windows = grouped.windowed_by(session(minutes(1)))
    assert_type(windows.agg(Total, store="windows", emit="close", cents=n), Table[Windowed[str], Total])
