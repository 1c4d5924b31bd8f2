"""Programs that are wrong, and that mypy strict and pyright strict must both refuse, each beside the right one.

All of them stand in two generated files, so that each checker runs once; what is right must pass, as a program may
else be refused for something that is not the mistake.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.tests.support.source import ROOT

SHOP = '''"""What the programs have in common."""

from datetime import datetime

from msgspec import Struct

from tailrace import App, minutes, tumbling


class Order(Struct):
    customer: str
    cents: int
    at: datetime


class Customer(Struct):
    name: str
    city: str | None = None


class Spent(Struct):
    orders: int
    cents: int


async def is_large(order: Order) -> bool:
    return order.cents > 100


app = App("shop", log="memory:")
orders = app.topic("orders", key=str, value=Order)
texts = app.topic("texts", key=str, value=str)
numbers = app.topic("numbers", key=str, value=int)
numbers_of_numbers = app.topic("numbers-of-numbers", key=int, value=int)
stream = app.stream(orders)
prices = app.stream(numbers)
table = app.table(app.topic("orders-by-key", key=str, value=Order), store="orders")
customers = app.table(app.topic("customers", key=str, value=Customer), store="customers")
numbered = app.table(app.topic("customers-by-number", key=int, value=Customer), store="numbered")
world = app.global_table(app.topic("world", key=str, value=Customer), store="world")
counters = app.store("counters", key=str, value=int)
grouped = stream.group_by_key()
windows = grouped.windowed_by(tumbling(minutes(1)))
by_customer = table.group_by(lambda _key, order: (order.customer, order.cents))
'''

# What is wrong: the program put right, and as it is wrong.
PROGRAMS: dict[str, tuple[str, str]] = {
    # Fields.
    "misspelt field in a map": (
        "stream.map(lambda order: order.cents)",
        "stream.map(lambda order: order.cent)",
    ),
    "misspelt field in a grouping": (
        "stream.group_by(lambda order: order.customer)",
        "stream.group_by(lambda order: order.custommer)",
    ),
    "misspelt field behind a map": (
        "stream.map(lambda order: Customer(order.customer)).filter(lambda customer: customer.name != '')",
        "stream.map(lambda order: Customer(order.customer)).filter(lambda customer: customer.nam != '')",
    ),
    "misspelt field behind a join": (
        "stream.join(customers, lambda _order, customer: customer).map(lambda customer: customer.name)",
        "stream.join(customers, lambda _order, customer: customer).map(lambda customer: customer.cents)",
    ),
    "misspelt field in a reducer": (
        "grouped.agg(Spent, store='s', orders=reducers.count(), cents=reducers.sum(lambda order: order.cents))",
        "grouped.agg(Spent, store='s', orders=reducers.count(), cents=reducers.sum(lambda order: order.cent))",
    ),
    "misspelt field in a timestamp": (
        "app.topic('timed', key=str, value=Order, timestamp=lambda order: order.at)",
        "app.topic('timed', key=str, value=Order, timestamp=lambda order: order.time)",
    ),
    "misspelt field of a window": (
        "windows.count(store='s').changes().map_kv(lambda window, n: (window.key, n))",
        "windows.count(store='s').changes().map_kv(lambda window, n: (window.kez, n))",
    ),
    # Sinks.
    "values of another type than the topic's": (
        "stream.map(lambda order: order.customer).to(texts)",
        "stream.map(lambda order: order.cents).to(texts)",
    ),
    "keys of another type than the topic's": (
        "prices.map_kv(lambda key, n: (len(key), n)).to(numbers_of_numbers)",
        "prices.map_kv(lambda key, n: (key, n)).to(numbers_of_numbers)",
    ),
    "a windowed table in a topic of plain keys": (
        "windows.count(store='s').to(app.topic('counts', key=Windowed[str], value=int))",
        "windows.count(store='s').to(app.topic('counts', key=str, value=int))",
    ),
    "a table in a topic of other values": (
        "grouped.count(store='s').to(numbers)",
        "grouped.count(store='s').to(texts)",
    ),
    "through a topic of other values": (
        "prices.through(numbers)",
        "prices.through(texts)",
    ),
    "a topic's name in place of the topic": (
        "prices.to(numbers)",
        "prices.to('numbers')",
    ),
    # None.
    "None from a left join with a table": (
        "stream.left_join(customers, lambda _order, customer: customer.name if customer else '')",
        "stream.left_join(customers, lambda _order, customer: customer.name)",
    ),
    "None from a left join with a global table": (
        "stream.left_join(world, lambda _order, found: found.name if found else '', on=lambda key, _order: key)",
        "stream.left_join(world, lambda _order, found: found.name, on=lambda key, _order: key)",
    ),
    "None from a left join of streams": (
        "stream.left_join(prices, lambda order, n: order.cents - (n or 0), store='s', within=minutes(1))",
        "stream.left_join(prices, lambda order, n: order.cents - n, store='s', within=minutes(1))",
    ),
    "None from the left of an outer join of streams": (
        "stream.outer_join(prices, lambda order, n: order.cents if order else n, store='s', within=minutes(1))",
        "stream.outer_join(prices, lambda order, n: order.cents, store='s', within=minutes(1))",
    ),
    "None from a left join of tables": (
        "table.left_join(customers, lambda order, customer: customer.name if customer else order.customer)",
        "table.left_join(customers, lambda order, customer: customer.name)",
    ),
    "None from an outer join of tables": (
        "table.outer_join(customers, lambda order, customer: order.customer if order else 'nobody')",
        "table.outer_join(customers, lambda order, customer: order.customer)",
    ),
    "None from a left join by a foreign key": (
        "table.left_join(customers, lambda _o, c: c.name if c else '', on=lambda order: order.customer, store='s')",
        "table.left_join(customers, lambda _o, c: c.name, on=lambda order: order.customer, store='s')",
    ),
    "None from a field": (
        "customers.map(lambda customer: len(customer.city or ''))",
        "customers.map(lambda customer: len(customer.city))",
    ),
    "the None of a delete": (
        "grouped.count(store='s').to_stream().map(lambda n: (n or 0) + 1)",
        "grouped.count(store='s').to_stream().map(lambda n: n + 1)",
    ),
    "None from a store": (
        "print((counters.get('a') or 0) + 1)",
        "print(counters.get('a') + 1)",
    ),
    # Functions.
    "async function in a filter": (
        "stream.filter(lambda order: order.cents > 100)",
        "stream.filter(is_large)",
    ),
    "async function in the filter of a table": (
        "table.filter(lambda order: order.cents > 100)",
        "table.filter(is_large)",
    ),
    "async function in a branch": (
        "stream.split({'large': lambda order: order.cents > 100})",
        "stream.split({'large': is_large})",
    ),
    "a function of the value alone in a filter of both": (
        "stream.filter_kv(lambda _key, order: order.cents > 100)",
        "stream.filter_kv(lambda order: order.cents > 100)",
    ),
    "a map to keys and values that returns the value alone": (
        "stream.map_kv(lambda key, order: (key, order.cents))",
        "stream.map_kv(lambda key, order: order.cents)",
    ),
    "a flat map to what cannot be gone through": (
        "stream.flat_map(lambda order: [order.cents])",
        "stream.flat_map(lambda order: order.cents)",
    ),
    "a timestamp that is text": (
        "app.topic('timed', key=str, value=Order, timestamp=lambda order: order.at)",
        "app.topic('timed', key=str, value=Order, timestamp=lambda order: order.customer)",
    ),
    # State.
    "a reduce to another type": (
        "grouped.reduce(lambda so_far, order: order if order.at > so_far.at else so_far, store='s')",
        "grouped.reduce(lambda so_far, order: order.cents + so_far.cents, store='s')",
    ),
    "an aggregate that adds up something else than its zero": (
        "grouped.aggregate(lambda: 0, lambda total, order: total + order.cents, store='s')",
        "grouped.aggregate(lambda: '', lambda total, order: total + order.cents, store='s')",
    ),
    "sessions that merge something else": (
        "windows.aggregate(lambda: 0, lambda n, order: n + order.cents, store='s', merge=lambda a, b: a + b)",
        "windows.aggregate(lambda: 0, lambda n, order: n + order.cents, store='s', merge=lambda a, b: f'{a}{b}')",
    ),
    "an aggregate of grouped rows that cannot take back": (
        "by_customer.reduce(lambda total, n: total + n, lambda total, n: total - n, store='s')",
        "by_customer.reduce(lambda total, n: total + n, store='s')",
    ),
    "state without a name": (
        "grouped.count(store='s')",
        "grouped.count()",
    ),
    "reducers of other values": (
        "grouped.agg(Spent, store='s', orders=reducers.count(), cents=reducers.sum(cents_of_order))",
        "grouped.agg(Spent, store='s', orders=reducers.count(), cents=reducers.sum(name_of_customer))",
    ),
    "a cogroup of another result": (
        "grouped.cogroup(plus_order).cogroup(prices.group_by_key(), plus_price).aggregate(lambda: 0, store='s')",
        "grouped.cogroup(plus_order).cogroup(prices.group_by_key(), plus_price).aggregate(lambda: '', store='s')",
    ),
    # Time.
    "a duration in place of a window": (
        "grouped.windowed_by(tumbling(minutes(1)))",
        "grouped.windowed_by(minutes(1))",
    ),
    "a number in place of a duration": (
        "tumbling(minutes(1), grace=seconds(5))",
        "tumbling(minutes(1), grace=5)",
    ),
    "emit= of another word": (
        "windows.count(store='s', emit='close')",
        "windows.count(store='s', emit='closed')",
    ),
    "suppress until a duration": (
        "grouped.count(store='s').suppress(until_stream_time(seconds(5)), store='held')",
        "grouped.count(store='s').suppress(seconds(5), store='held')",
    ),
    "what is late belongs to windows": (
        "print(windows.late)",
        "print(grouped.late)",
    ),
    # Joins.
    "a join of unlike keys": (
        "stream.join(customers, lambda order, _customer: order)",
        "stream.join(numbered, lambda order, _customer: order)",
    ),
    "a join of tables of unlike keys": (
        "table.join(customers, lambda order, _customer: order)",
        "table.join(numbered, lambda order, _customer: order)",
    ),
    "a foreign key of another type": (
        "table.join(numbered, lambda order, _customer: order, on=lambda order: order.cents, store='s')",
        "table.join(numbered, lambda order, _customer: order, on=lambda order: order.customer, store='s')",
    ),
    "a join of streams without a store": (
        "stream.join(prices, lambda order, n: order.cents - n, store='s', within=minutes(1))",
        "stream.join(prices, lambda order, n: order.cents - n, within=minutes(1))",
    ),
    "a table joined within a time": (
        "stream.join(customers, lambda order, _customer: order)",
        "stream.join(customers, lambda order, _customer: order, within=minutes(1))",
    ),
    "a merge of unlike streams": (
        "prices.merge(prices.filter(lambda n: n > 0))",
        "prices.merge(stream)",
    ),
    # Processors and tests.
    "a processor of other values": (
        "stream.process(Cents)",
        "prices.process(Cents)",
    ),
    "what a processor forwards, in a topic of other values": (
        "stream.process(Cents).to(numbers)",
        "stream.process(Cents).to(texts)",
    ),
    "a value of another type handed to a test": (
        "TopologyDriver(app).pipe(numbers, 5, key='k')",
        "TopologyDriver(app).pipe(numbers, 'five', key='k')",
    ),
    "an option that is not there": (
        "App('shop', commit_interval=seconds(1))",
        "App('shop', commit_intervall=seconds(1))",
    ),
}

HEAD = """from shop import *  # noqa

from tailrace import App, Context, Processor, Record, Windowed, minutes, reducers, seconds, tumbling, until_stream_time
from tailrace.testing import TopologyDriver


class Cents(Processor[str, Order, str, int]):
    def init(self, ctx: Context[str, int]) -> None:
        self.ctx = ctx

    def process(self, record: Record[str, Order]) -> None:
        self.ctx.forward(record.key, record.value.cents)


def cents_of_order(order: Order) -> int:
    return order.cents


def name_of_customer(customer: Customer) -> str:
    return customer.name


def plus_order(total: int, order: Order) -> int:
    return total + order.cents


def plus_price(total: int, price: int) -> int:
    return total + price
"""

# A value is forwarded inside of a class, so this one is no expression as the others are.
FORWARDS = "a processor that forwards something else"
FORWARDING = """

class Texts(Processor[str, Order, str, str]):
    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx

    def process(self, record: Record[str, Order]) -> None:
        self.ctx.forward(record.key, record.value.{})
"""


def write(folder: Path, name: str, which: int) -> dict[int, str]:
    """Write all programs of one kind to a file; give the mistake that each line is about."""
    mistakes: dict[int, str] = {}
    lines: list[str] = [*HEAD.splitlines()]
    for mistake, pair in PROGRAMS.items():
        lines.append(pair[which])
        mistakes[len(lines)] = mistake
    forwarding = FORWARDING.format(("customer", "cents")[which]).splitlines()
    mistakes |= {len(lines) + line: FORWARDS for line in range(1, len(forwarding) + 1)}
    (folder / name).write_text("\n".join([*lines, *forwarding, ""]), encoding="utf-8")
    return mistakes


def mypy(folder: Path) -> list[tuple[str, int, str]]:
    """What mypy says under the settings of this repository, which are strict: file, line, words."""
    files = [str(folder / name) for name in ("right.py", "wrong.py")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--show-absolute-path", *files],
        cwd=ROOT,
        env=dict(os.environ, MYPYPATH=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return [(Path(path).name, int(line), words) for path, line, words in found]


def pyright(folder: Path) -> list[tuple[str, int, str]]:
    """What pyright says in its strict mode: file, line, words."""
    link = ROOT / ".dev" if (ROOT / ".dev").exists() else ROOT.parent
    settings: dict[str, object] = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(link)]}
    settings["reportUnusedImport"] = False  # what is right and what is wrong need not use the same names
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "-p", str(folder), "--pythonpath", sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [each for each in found if each["severity"] == "error"]
    return [(Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"]) for e in errors]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_refused_and_put_right(checker: Callable[[Path], list[tuple[str, int, str]]], tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    write(tmp_path, "right.py", 0)
    mistakes = write(tmp_path, "wrong.py", 1)
    errors = checker(tmp_path)
    assert [error for error in errors if error[0] != "wrong.py"] == [], "these are right"
    refused = {mistakes.get(line, f"line {line}: {words}") for _, line, words in errors}
    assert refused - set(mistakes.values()) == set(), "refused for something else"
    assert set(mistakes.values()) - refused == set(), "let through"
