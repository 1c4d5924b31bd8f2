"""Balances of accounts, each payment counted once whatever happens to the process; and where that guarantee ends.

    tailrace topics create payments --partitions 4
    tailrace send payments payments.ndjson --key account
    tailrace run tailrace.examples.exactly_once

A line of `payments.ndjson` is `{"account": "a7", "cents": -1250}`. End the app with `kill -9` as often as you like and
start it again: `tailrace tail balances` shows each balance once for each change, and the last ones add up.

A commit is one transaction in the log: results, changes of the store, and how far the input was read. Who reads with
`isolation="read_committed"`, the default, sees all of it or nothing. What a function does outside the log (a request, a
row in a database) is not part of it, and is done again when its record runs again. `copy` below shows the way out: read
what is committed, and keep in the database, in one transaction with the rows, the offset that they came from.
"""

import sqlite3

from msgspec import Struct

from tailrace import App, Log, TopicPartition


class Payment(Struct):
    """Money that comes in, or goes out."""

    account: str
    cents: int


app = App("balances")  # guarantee="exactly_once" is the default

payments = app.topic("payments", key=str, value=Payment)
balances = app.topic("balances", key=str, value=int, compact=True)

(
    app.stream(payments)
    .group_by(lambda payment: payment.account)
    .aggregate(lambda: 0, lambda balance, payment: balance + payment.cents, store="balance")
    .changes()
    .to(balances)
)


def copy(log: Log, database: sqlite3.Connection) -> int:
    """Bring the table `balance` up to what is committed in the topic; return how many changes that took.

    The table `place` has the offset to go on from: it moves with the rows, so a copy that breaks off anywhere goes on
    where it was, and no change is applied twice.
    """
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS balance (account TEXT PRIMARY KEY, cents INTEGER)")
        database.execute("CREATE TABLE IF NOT EXISTS place (part INTEGER PRIMARY KEY, next INTEGER)")
    places = dict(database.execute("SELECT part, next FROM place").fetchall())
    ends, changes = log.offsets("balances"), 0
    with log.consumer() as consumer:
        consumer.assign(list(ends))
        for partition in ends:
            consumer.seek(partition, places.get(partition.partition, 0))
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            batch = consumer.poll(timeout=1.0)
            changes += len(batch)
            with database:
                for record in batch:
                    row = ((record.key or b"").decode(), int.from_bytes(record.value or b"", "big", signed=True))
                    database.execute("INSERT OR REPLACE INTO balance VALUES (?, ?)", row)
                for partition in ends:
                    place = (partition.partition, consumer.position(TopicPartition("balances", partition.partition)))
                    database.execute("INSERT OR REPLACE INTO place VALUES (?, ?)", place)
    return changes


if __name__ == "__main__":
    app.run()
