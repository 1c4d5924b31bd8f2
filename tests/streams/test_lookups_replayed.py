"""A join that waits, behind a repartition: one result for any number of partitions, any cache, and over restarts."""

import random

from tailrace.log.client import Log
from tailrace.log.partitioner import partition_of
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, feed
from tailrace.windows.duration import milliseconds as ms

RECORDS = 150
KEYS = 4


def results(partitions: int, restarts: int, cache_bytes: int) -> list[tuple[bytes | None, bytes | None, int]]:
    """What comes out of rows and records that are out of order by less than the grace, in as many runs."""
    chance = random.Random(5)
    rows = [
        (number * 3 + chance.randrange(20), chance.random() < 0.4, f"k{chance.randrange(KEYS)}", chance.random())
        for number in range(RECORDS)
    ]
    with Log.open("memory:") as log:
        log.create_topic("orders", partitions=partitions)
        log.create_topic("rates", partitions=partitions)
        for run in range(restarts):
            for time, is_rate, key, number in rows[run * RECORDS // restarts : (run + 1) * RECORDS // restarts]:
                if is_rate:
                    feed(log, "rates", [(key, f"r{time}", time)], partition_of(key.encode(), partitions))
                else:
                    feed(log, "orders", [(None, f"{key}:{time}", time)], int(number * partitions))
            for partition in range(partitions if run == restarts - 1 else 0):
                feed(log, "orders", [(None, "end:", 10_000)], partition)
                feed(log, "rates", [("end", "end", 10_000)], partition)
            app = App("shop", log=log, cache_bytes=cache_bytes)
            orders, rates, out = (app.topic(name, key=str, value=str) for name in ("orders", "rates", "out"))
            table = app.table(rates, store="rates", history=ms(200))
            stream = app.stream(orders).key_by(lambda order: order.split(":")[0])
            stream.left_join(table, lambda order, rate: f"{order}={rate}", grace=ms(40), store="waiting").to(out)
            assert not app.run(until="end").dropped
        found = [(record.key, record.value, record.timestamp_ms) for record in contents(log, "out")]
    return sorted(row for row in found if row[0] != b"end")


def test_a_replay_gives_what_live_gave() -> None:
    first = results(1, 1, 0)
    assert len(first) > RECORDS // 2
    assert any(value is not None and not value.endswith(b"None") for _, value, _ in first)
    assert results(3, 1, 0) == first
    assert results(3, 3, 1 << 20) == first
    assert results(1, 3, 1 << 20) == first
