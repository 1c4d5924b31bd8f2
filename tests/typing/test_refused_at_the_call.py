"""What the types let through, or a program without a checker hands over: refused by the very call that is wrong.

Whatever can be seen at the call is; what needs the whole graph is refused by `describe()`, with the lines of the calls.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import Struct

from tailrace import (
    App,
    Processor,
    Record,
    days,
    hopping,
    hours,
    minutes,
    reducers,
    seconds,
    session,
    sliding,
    tumbling,
    unlimited,
    until_window_closes,
)
from tailrace.errors import TopologyError


class Order(Struct):
    customer: str
    cents: int


class Spent(Struct):
    orders: int
    cents: int = 0


async def later(*_values: Any) -> Any:
    """What nothing here awaits."""


async def one_by_one(*_values: Any) -> Any:
    """The same, as a generator."""
    yield 1


class Awaiting(Processor[str, Order, str, Order]):
    async def process(self, record: Record[str, Order]) -> None:  # type: ignore[override]  # the mistake  # pyright: ignore[reportIncompatibleMethodOverride]
        del record


@dataclass
class Shop:
    """An app that a case adds its mistake to; untyped, as a program without a checker is."""

    app: Any = field(default_factory=lambda: App("shop", log="memory:"))

    def __post_init__(self) -> None:
        self.orders: Any = self.app.topic("orders", key=str, value=Order)
        self.stream: Any = self.app.stream(self.orders)
        self.table: Any = self.app.table(self.app.topic("customers", key=str, value=Order), store="customers")
        self.world: Any = self.app.global_table(self.app.topic("world", key=str, value=Order), store="world")
        self.grouped: Any = self.stream.group_by_key()
        self.windows: Any = self.grouped.windowed_by(tumbling(minutes(1)))
        self.sessions: Any = self.grouped.windowed_by(session(minutes(1)))
        self.by_customer: Any = self.table.group_by(by_customer)


def add(total: int, order: Order) -> int:
    return total + order.cents


def by_customer(_key: str, order: Order) -> tuple[str, Order]:
    return order.customer, order


def cents(order: Order) -> int:
    return order.cents


def both(order: Any, other: Any) -> Any:
    return order, other


Refused = tuple[Callable[[Shop], Any], type[Exception], str]

ASYNC: list[Refused] = [
    (lambda s: s.stream.map(later), TypeError, "map takes a plain function, and later is async: await within a plain"),
    (lambda s: s.stream.filter(later), TypeError, "filter takes a plain function, and later is async"),
    (lambda s: s.stream.flat_map(one_by_one), TypeError, "flat_map takes a plain function, and one_by_one is async"),
    (lambda s: s.stream.key_by(later), TypeError, "key_by takes a plain function, and later is async"),
    (lambda s: s.stream.group_by(later), TypeError, "group_by takes a plain function, and later is async"),
    (lambda s: s.stream.for_each(later), TypeError, "for_each takes a plain function, and later is async"),
    (lambda s: s.stream.peek(later), TypeError, "peek takes a plain function, and later is async"),
    (lambda s: s.stream.to(later), TypeError, "to takes a plain function, and later is async"),
    (lambda s: s.stream.split({"late": later}), TypeError, r"split\('late'\) takes a plain function"),
    (lambda s: s.stream.process(Awaiting), TypeError, r"process\(Awaiting\)"),
    (lambda s: s.stream.join(s.table, later), TypeError, "join takes a plain function, and later is async"),
    (lambda s: s.table.map(later), TypeError, "map takes a plain function, and later is async"),
    (lambda s: s.table.group_by(later), TypeError, "group_by takes a plain function, and later is async"),
    (
        lambda s: s.table.join(s.table, both, on=later, store="s"),
        TypeError,
        "takes a plain function, and later is async",
    ),
    (lambda s: s.grouped.reduce(later, store="s"), TypeError, r"reduce\(store='s'\) takes a plain function"),
    (lambda s: s.grouped.aggregate(later, add, store="s"), TypeError, "takes a plain function, and later is async"),
    (lambda s: s.grouped.aggregate(int, later, store="s"), TypeError, "takes a plain function, and later is async"),
    (lambda s: s.grouped.cogroup(later), TypeError, "cogroup takes a plain function, and later is async"),
    (lambda s: s.sessions.aggregate(int, add, merge=later, store="s"), TypeError, "takes a plain function"),
    (lambda _: reducers.sum(later), TypeError, "sum takes a plain function, and later is async"),
    (lambda s: s.app.topic("t", key=str, value=Order, timestamp=later), TypeError, "takes a plain function"),
    (lambda s: s.stream.map(3), TypeError, "map takes a function, not 3"),
]

RESULTS: list[Refused] = [
    (
        lambda s: s.grouped.agg(Spent, store="s", orders=reducers.count(), total=reducers.sum(cents)),
        TypeError,
        "Spent has no field 'total'",
    ),
    (lambda s: s.grouped.agg(Spent, store="s", cents=reducers.count()), TypeError, "no reducer for Spent.orders"),
    (
        lambda s: s.grouped.agg(Spent, store="s", orders=reducers.mean(cents)),
        TypeError,
        "Spent.orders is int, and mean",
    ),
    (
        lambda s: s.by_customer.agg(Spent, store="s", orders=reducers.max(cents)),
        TypeError,
        r"orders=max\(…\) cannot take a row back",
    ),
    (
        lambda s: s.sessions.agg(Spent, store="s", orders=reducers.reducer(int, add)),
        TypeError,
        r"orders=reducer\(…\) needs merge=",
    ),
    (lambda s: s.sessions.aggregate(int, add, store="s"), TypeError, "in sessions needs merge="),
    (lambda s: s.windows.aggregate(int, add, store="s", merge=max), TypeError, "merge=…\\) is for sessions"),
    (lambda s: s.grouped.count(store=3), TypeError, r"count\(store=3\) is not a name"),
    (lambda s: s.grouped.count(), TypeError, "missing 1 required keyword-only argument: 'store'"),
    (lambda s: s.table.suppress(minutes(1), store="s"), TypeError, "suppress takes until_window_closes"),
]

TIMES: list[Refused] = [
    (lambda s: s.grouped.windowed_by(minutes(1)), TypeError, "takes a window such as"),
    (lambda _: tumbling(seconds(0)), ValueError, "must be longer than 0"),
    (lambda _: tumbling(minutes(1), grace=seconds(-1)), ValueError, "grace must not be negative"),
    (lambda _: tumbling(60), TypeError, "is not a timedelta; write"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake
    (lambda _: hopping(minutes(1), minutes(2)), ValueError, "leave gaps"),
    (lambda _: session(seconds(0)), ValueError, "must be longer than 0"),
    (lambda _: sliding(seconds(-1)), ValueError, "must not be negative"),
    (lambda s: s.windows.count(store="s", emit="closed"), ValueError, 'neither "update" nor "close"'),
    (lambda s: s.windows.count(store="s", retention=seconds(1)), ValueError, "retention=.* is shorter than"),
    (
        lambda s: s.grouped.windowed_by(unlimited()).count(store="s", emit="close"),
        ValueError,
        "never sends anything",
    ),
    (lambda s: s.table.throttle(seconds(0), store="s"), ValueError, "is not above 0"),
    (
        lambda s: s.table.suppress(until_window_closes(), store="s", when_full="emit", max_records=1),
        ValueError,
        "results that are not final",
    ),
]

JOINS: list[Refused] = [
    (lambda s: s.stream.join(s.stream, both, store="s"), TypeError, "needs within=, or before= and after="),
    (lambda s: s.stream.join(s.stream, both, store="s", within=-seconds(1)), ValueError, "is negative"),
    (
        lambda s: s.stream.join(s.stream, both, store="s", before=-minutes(5), after=minutes(1)),
        ValueError,
        "leave no time for a partner",
    ),
    (lambda s: s.stream.join(s.table, both, within=minutes(1)), TypeError, "with a table takes no within="),
    (lambda s: s.stream.join(s.world, both), TypeError, "with a global table needs on="),
    (lambda s: s.stream.join(s.orders, both), TypeError, "join takes a stream or a table, not"),
    (lambda s: s.stream.join(Shop().table, both), ValueError, "another app"),
    (lambda s: s.table.join(Shop().table, both), ValueError, "another app"),
    (lambda s: s.table.join(s.stream, both), TypeError, "join takes a table, not"),
    (lambda s: s.stream.merge(Shop().stream), ValueError, "another app"),
    (lambda s: s.stream.merge(s.table), TypeError, "merge takes streams, not"),
    (lambda s: s.stream.late, ValueError, "has no late: take .late from what a join of two streams returned"),
    (
        lambda s: s.stream.to("orders"),
        TypeError,
        r"to takes a function of key and value, or a topic as app.topic\(\) returns it",
    ),
    (lambda s: s.stream.through("orders"), TypeError, "through takes a topic, as app.topic"),
    (lambda s: s.app.stream("orders"), TypeError, "app.stream takes topics, as app.topic"),
]


@pytest.mark.parametrize(("call", "error", "words"), [*ASYNC, *RESULTS, *TIMES, *JOINS])
def test_refused_at_the_call(call: Callable[[Shop], Any], error: type[Exception], words: str) -> None:
    shop = Shop()
    with pytest.raises(error, match=words):
        call(shop)


def a_grace_without_a_history(shop: Shop) -> None:
    shop.stream.join(shop.table, both, store="waiting", grace=minutes(1)).for_each(print)


def a_grace_beyond_the_history(shop: Shop) -> None:
    versions = shop.app.table(shop.app.topic("v", key=str, value=Order), store="v", history=hours(1))
    shop.stream.join(versions, both, store="waiting", grace=days(1)).for_each(print)


def two_stores_of_one_name(shop: Shop) -> None:
    shop.grouped.count(store="twice")
    shop.grouped.reduce(max, store="twice")


def final_results_without_windows(shop: Shop) -> None:
    shop.grouped.count(store="counts").suppress(until_window_closes(), store="held").to_stream().for_each(print)


def a_sink_of_another_type(shop: Shop) -> None:
    shop.stream.to(shop.app.topic("out", key=str, value=int))


def a_join_of_windowed_rows(shop: Shop) -> None:
    shop.windows.count(store="a").join(shop.windows.count(store="b"), both, store="c")


@pytest.mark.parametrize(
    "program",
    [
        a_grace_without_a_history,
        a_grace_beyond_the_history,
        two_stores_of_one_name,
        final_results_without_windows,
        a_sink_of_another_type,
        a_join_of_windowed_rows,
    ],
)
def test_refused_before_anything_runs(program: Callable[[Shop], None]) -> None:
    lines, first = inspect.getsourcelines(program)

    def build() -> None:
        shop = Shop()
        program(shop)
        shop.app.describe()

    with pytest.raises((TopologyError, ValueError)) as raised:
        build()
    told = str(raised.value)
    assert any(f"{__file__}:{line}" in told for line in range(first, first + len(lines))), told
