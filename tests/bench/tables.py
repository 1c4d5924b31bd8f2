"""Tables that are joined, by key and by foreign key, and windows that are held back until they close.

1. Updates come interleaved from two topics, of keys by chance, the same for the same number of them. Every row of both
   tables is there early on.
2. A run is timed from `app.run` to its return, when state, changelogs, output and offsets are committed on disk; the
   rate is that of the updates of both topics.
3. A run whose output does not end in what a plain loop finds is an error and no number.
"""

import random
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec

from tailrace import App, Log, Table, Topic, seconds, tumbling, until_window_closes
from tailrace.tests.bench.measure import Setting, Stopwatch, Values

ORDERS, CUSTOMERS, CLICKS = "table-orders", "table-customers", "table-clicks"
RECORDS_MAX = 200_000
OF_CUSTOMERS = 20
"""One of so many updates is a customer's, and as many orders, on average, are of one customer."""
STEP_MS, WINDOW_MS = 4, 10_000
USERS = 5_000
START_MS = 1_767_225_600_000
_SEED = 20_261_121


class Order(msgspec.Struct):
    """A row of the left table."""

    customer: str
    cents: int


class Customer(msgspec.Struct):
    """A row of the right one."""

    city: str


class Bill(msgspec.Struct):
    """A row of the result."""

    city: str
    cents: int


def bill(order: Order, customer: Customer) -> Bill:
    """Makes a row of two."""
    return Bill(customer.city, order.cents)


def prepare(setting: Setting) -> None:
    """Writes all topics; done once, a second call finds them."""
    if Path(_directory(setting)).exists():
        return
    with Log.open(_directory(setting)) as log, log.producer() as producer:
        orders, customers = _updates(setting)
        for topic, rows in ((ORDERS, orders), (CUSTOMERS, customers), (CLICKS, _clicks(setting))):
            log.create_topic(topic)
            values = [msgspec.json.encode(value) for _, value, _ in rows]
            keys, times = [key.encode() for key, _, _ in rows], [time for _, _, time in rows]
            producer.send_many(topic, values, keys=keys, timestamps_ms=times)


def by_key(setting: Setting) -> Values:
    """Orders beside the customer of the same key."""

    def program(orders: Table[str, Order], customers: Table[str, Customer], output: Topic[str, Bill]) -> None:
        orders.join(customers, bill).to(output)

    updates = _updates(setting)
    orders, customers = _last(updates[0]), _last(updates[1])
    expected = {key: bill(order, customers[key]) for key, order in orders.items() if key in customers}
    return _join(setting, f"by-key-{setting.sample}", program, expected)


def by_foreign_key(setting: Setting) -> Values:
    """Orders beside the customer that they name: an update of a customer goes to all of its orders."""

    def program(orders: Table[str, Order], customers: Table[str, Customer], output: Topic[str, Bill]) -> None:
        orders.join(customers, bill, on=lambda order: order.customer, store="bills").to(output)

    updates = _updates(setting)
    orders, customers = _last(updates[0]), _last(updates[1])
    found = {key: (order, customers.get(order.customer)) for key, order in orders.items()}
    expected = {key: bill(order, customer) for key, (order, customer) in found.items() if customer is not None}
    return _join(setting, f"by-foreign-key-{setting.sample}", program, expected)


Program = Callable[[Table[str, Order], Table[str, Customer], Topic[str, Bill]], None]


def _join(setting: Setting, name: str, program: Program, expected: dict[str, Bill]) -> Values:
    with Log.open(_directory(setting)) as log:
        app = App(name, log=log)
        orders = app.table(app.topic(ORDERS, key=str, value=Order), store="orders")
        customers = app.table(app.topic(CUSTOMERS, key=str, value=Customer), store="customers")
        program(orders, customers, app.topic(f"{name}-output", key=str, value=Bill))
        with Stopwatch() as watch:
            summary = app.run(until="end")
        found = _output(log, f"{name}-output", Bill)
        if summary.dropped or found != expected:
            raise AssertionError(f"{name} ended with {len(found)} rows of {len(expected)}, or others: {summary}")
        return watch.values(summary.records_in)


def suppressed(setting: Setting) -> Values:
    """Clicks per user in windows, each sent once, when it has closed."""
    name = f"suppress-{setting.sample}"
    with Log.open(_directory(setting)) as log:
        app = App(name, log=log)
        clicks = app.stream(app.topic(CLICKS, key=str, value=Order)).group_by_key()
        counts = clicks.windowed_by(tumbling(seconds(WINDOW_MS // 1_000))).count(store="counts")
        final = counts.suppress(until_window_closes(), store="held").changes()
        rows = final.map_kv(lambda window, count: (f"{window.key} {window.start_ms}", Bill("", count)))
        rows.to(app.topic(f"{name}-output", key=str, value=Bill))
        with Stopwatch() as watch:
            summary = app.run(until="end")
        expected: dict[str, Bill] = {}
        rows_in = _clicks(setting)
        for user, _, time in rows_in:
            start_ms = time - time % WINDOW_MS
            if start_ms + WINDOW_MS <= rows_in[-1][2]:
                row = f"{user} {start_ms}"
                expected.setdefault(row, Bill("", 0)).cents += 1
        found = _output(log, f"{name}-output", Bill)
        if summary.dropped or summary.records_out != len(expected) or found != expected:
            raise AssertionError(f"{name} sent {summary.records_out} windows of {len(expected)}: {summary}")
        return watch.values(summary.records_in)


def _directory(setting: Setting) -> str:
    return str(Path(setting.directory, "tables"))


V = TypeVar("V")


def _last(rows: Iterable[tuple[str, V, int]]) -> dict[str, V]:
    """What a table of these updates ends with."""
    return {key: value for key, value, _ in rows}


def _output(log: Log, topic: str, of: type[V]) -> dict[str, V]:
    """What a table of the output ends with."""
    decode, found = msgspec.json.Decoder(of).decode, dict[str, V]()
    with log.consumer() as consumer:
        consumer.assign(list(log.offsets(topic)))
        while batches := consumer.poll_batches():
            for record in chain.from_iterable(batch.records for batch in batches):
                key = (record.key or b"").decode()
                if record.value is None:
                    found.pop(key, None)
                else:
                    found[key] = decode(record.value)
    return found


def _updates(setting: Setting) -> tuple[list[tuple[str, Order, int]], list[tuple[str, Customer, int]]]:
    """Key, value and time of both tables' updates."""
    chance, count = random.Random(_SEED), min(setting.small, RECORDS_MAX)
    keys = max(count // 10, 1)
    orders: list[tuple[str, Order, int]] = []
    customers: list[tuple[str, Customer, int]] = []
    for number in range(count):
        time = START_MS + number
        if number % OF_CUSTOMERS == 0:
            key = number // OF_CUSTOMERS % max(keys // OF_CUSTOMERS, 1)
            customers.append((f"k{key}", Customer(f"city {chance.randrange(100)}"), time))
        else:
            order = Order(f"k{chance.randrange(max(keys // OF_CUSTOMERS, 1))}", number)
            orders.append((f"k{chance.randrange(keys)}", order, time))
    return orders, customers


def _clicks(setting: Setting) -> list[tuple[str, Order, int]]:
    """User, something and time."""
    chance, count = random.Random(_SEED), max(min(setting.small, RECORDS_MAX), WINDOW_MS // STEP_MS + 1)
    return [(f"u{chance.randrange(USERS)}", Order("", 1), START_MS + number * STEP_MS) for number in range(count)]
