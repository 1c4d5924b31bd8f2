"""Orders that look up their customer: a stream joined with a table that its cache holds.

1. Every customer is written before the first order, and every order finds one.
2. A run is timed from `app.run` to its return, when state, output and offsets are committed on disk. The rate is that
   of the orders; the table's rows are read within that time.
3. A run that drops a record, or leaves an order out, is an error and no number.
"""

import random
from pathlib import Path

import msgspec

from tailrace import App, Log
from tailrace.tests.bench.measure import Setting, Stopwatch, Values

ORDERS, CUSTOMERS = "lookup-orders", "lookup-customers"
CUSTOMERS_MAX = 10_000
RECORDS_MAX = 200_000
START_MS = 1_767_225_600_000
_SEED = 20_261_121


class Order(msgspec.Struct):
    """What looks up."""

    cents: int


class Customer(msgspec.Struct):
    """A row."""

    city: str


def prepare(setting: Setting) -> None:
    """Writes both topics."""
    chance, encode = random.Random(_SEED), msgspec.json.encode
    keys = [f"c{number}".encode() for number in range(CUSTOMERS_MAX)]
    count = min(setting.small, RECORDS_MAX)
    with Log.open(_directory(setting)) as log, log.producer() as producer:
        log.create_topic(CUSTOMERS)
        log.create_topic(ORDERS)
        rows = [encode(Customer("Rome")) for _ in keys]
        producer.send_many(CUSTOMERS, rows, keys=keys, timestamps_ms=[START_MS] * len(keys))
        orders = [encode(Order(number)) for number in range(count)]
        asked = [keys[chance.randrange(len(keys))] for _ in orders]
        producer.send_many(ORDERS, orders, keys=asked, timestamps_ms=[START_MS + 1 + number for number in range(count)])


def streams(setting: Setting) -> Values:
    """The program."""
    name, count = f"lookup-{setting.sample}", min(setting.small, RECORDS_MAX)
    with Log.open(_directory(setting)) as log:
        app = App(name, log=log)
        customers = app.table(app.topic(CUSTOMERS, key=str, value=Customer), store="customers")
        orders = app.stream(app.topic(ORDERS, key=str, value=Order))
        found = orders.join(customers, lambda order, customer: order.cents if customer.city == "Rome" else 0)
        found.to(app.topic(f"{name}-output", key=str, value=int))
        with Stopwatch() as watch:
            summary = app.run(until="end")
        if summary.dropped or summary.records_out != count:
            raise AssertionError(f"{name} made {summary.records_out} of {count}, and dropped {summary.dropped}")
        return watch.values(count)


def _directory(setting: Setting) -> str:
    return str(Path(setting.directory, "lookups"))
