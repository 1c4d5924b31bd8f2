"""The click count as whole programs over an embedded log: clicks in arrival order, the app, and plain counts.

1. `arrivals` gives clicks as they arrive: sorted by event time plus a delay below `disorder_ms`, so no partition is
   further out of order than that, however the clicks are dealt to partitions.
2. A result is keyed "product@start"; `last` is what a reader of the output holds in the end.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.json import encode

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.program.options import Hops
from tailrace.tests.support.engine import contents
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

T = TypeVar("T")

BEGIN_MS = 1_700_000_040_000  # the beginning of a minute
MINUTE_MS = 60_000


class Click(Struct):
    product: str
    user: str
    ts: int


class Sent(NamedTuple):
    """A click, and where it goes; partition None leaves that to the user's key."""

    click: Click
    partition: int | None = None


def arrivals(count: int, *, disorder_ms: int, step_ms: int = 30, seed: int = 3) -> list[Click]:
    """Clicks in the order in which they arrive: one event every step_ms, each under way for up to disorder_ms."""
    chance = random.Random(seed)
    made = [
        Click(f"p{int(chance.random() ** 2 * 20)}", f"u{chance.randrange(500)}", BEGIN_MS + number * step_ms)
        for number in range(count)
    ]
    return sorted(made, key=lambda click: click.ts + chance.uniform(0, disorder_ms))


def plain_count(clicks: Iterable[Click], size_ms: int = MINUTE_MS) -> Counter[str]:
    """What the program must come to where nothing is late."""
    return Counter(f"{click.product}@{click.ts - click.ts % size_ms}" for click in clicks)


def send(log: Log, clicks: Iterable[Click | Sent], *, batch: int = 500, topic: str = "clicks") -> None:
    """Sends clicks keyed by user, in batches of so many records a partition at most."""
    rows = [each if isinstance(each, Sent) else Sent(each) for each in clicks]
    # One flush a slice: no batch is larger than a slice, and one of 1 is one record.
    with log.producer(linger_ms=0, batch_bytes=1 << 20) as producer:
        for at in range(0, len(rows), batch):
            for partition, part in groupby(rows[at : at + batch], key=lambda row: row.partition):
                chosen = [row.click for row in part]
                producer.send_many(
                    topic,
                    [encode(click) for click in chosen],
                    keys=[click.user.encode() for click in chosen],
                    timestamps_ms=[click.ts for click in chosen],
                    partition=partition,
                )
            producer.flush()


def click_app(
    log: Log | str,
    *,
    keyed: bool = False,
    emit: Literal["update", "close"] = "update",
    size_ms: int = MINUTE_MS,
    grace_ms: int = 5_000,
    hops: Hops = "memory",
    look: Callable[[Click], bool] | None = None,
    **options: Any,
) -> App:
    """The main job: clicks per product (per user with keyed=True, read without a hop) and window to "counts".

    What is late goes to "late". `look` is a look at each click, which may fail.
    """
    app = App("counter", log=log, **options)
    app.options = replace(app.options, hops=hops)
    clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
    stream = app.stream(clicks) if look is None else app.stream(clicks).filter(look)
    grouped = stream.group_by_key() if keyed else stream.group_by(lambda click: click.product)
    window = tumbling(timedelta(milliseconds=size_ms), grace=timedelta(milliseconds=grace_ms))
    windowed = grouped.windowed_by(window)
    table = windowed.count(store="clicks", emit=emit)
    table.changes().map_kv(row).to(app.topic("counts", key=str, value=int))
    windowed.late.to(app.topic("late", key=str, value=Click))
    return app


def row(window: Windowed[str], count: int) -> tuple[str, int]:
    """A result as it is written."""
    return f"{window.key}@{window.start_ms}", count


def results(log: Log, topic: str = "counts") -> list[tuple[str, int]]:
    """Every result that was written, in the order of each partition."""
    return [
        ((record.key or b"").decode(), int.from_bytes(record.value or b"", "big")) for record in contents(log, topic)
    ]


def last(log: Log, topic: str = "counts") -> dict[str, int]:
    """The last result of each window."""
    return dict(results(log, topic))


def chunks(rows: Sequence[T], count: int) -> list[Sequence[T]]:
    """About equal parts, in order."""
    size = -(-len(rows) // count)
    return [rows[at : at + size] for at in range(0, len(rows), size)]
