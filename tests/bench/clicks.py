"""The input of the click counts: clicks in two topics of one log, one keyed by product and one by user.

1. The same clicks for the same number of them: the seed is fixed. 73 bytes of JSON each, about.
2. Products follow Zipf's law with exponent 1, users are uniform; clicks stand in the order of their arrival, which is
   up to DISORDER_MS after their time. Event time runs at a constant rate, however many there are.
3. Beside the log stand the counts of a plain dictionary, by product and minute, made with the clicks: what every run
   over them must find.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import msgspec

from tailrace import Log
from tailrace.tests.bench.measure import Setting

PARTITIONS = 4
PRODUCTS = 1_000
USERS = 100_000
DISORDER_MS = 5_000
CLICKS_PER_MS = 2_000_000 / 3_600_000  # two millions an hour
MINUTE_MS = 60_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
BY_PRODUCT = "clicks-by-product"
BY_USER = "clicks-by-user"
_SEED = 20_261_121
_CHUNK = 20_000

Counts = dict[str, dict[int, int]]
"""Product -> start of the minute in ms -> clicks."""


class Click(msgspec.Struct):
    """What the programs declare of a click: its url they do not look at."""

    product_id: str
    user_id: str
    ts: int


class Chunk(NamedTuple):
    """Some clicks, as a producer takes them."""

    values: list[bytes]
    products: list[bytes]
    users: list[bytes]
    times: list[int]


def clicks(count: int) -> Iterator[Chunk]:
    """Makes `count` clicks."""
    chance = random.Random(_SEED)
    weights = list(accumulate(1 / rank for rank in range(1, PRODUCTS + 1)))
    products = [f"p{number}" for number in range(PRODUCTS)]
    for first in range(0, count, _CHUNK):
        numbers = range(first, min(first + _CHUNK, count))
        chosen = chance.choices(products, cum_weights=weights, k=len(numbers))
        users = [f"u{int(chance.random() * USERS)}" for _ in numbers]
        times = [
            START_MS + max(0, int(number / CLICKS_PER_MS) - int(chance.random() * (DISORDER_MS + 1)))
            for number in numbers
        ]
        values = [
            f'{{"product_id":"{product}","user_id":"{user}","ts":{at},"url":"/p/{product[1:]}"}}'.encode()
            for product, user, at in zip(chosen, users, times, strict=True)
        ]
        yield Chunk(values, [each.encode() for each in chosen], [each.encode() for each in users], times)


def prepare(setting: Setting) -> None:
    """Fills both topics and writes the counts; done once, a second call finds them."""
    _prepare(setting, (BY_PRODUCT, BY_USER))


def prepare_by_product(setting: Setting) -> None:
    """The same without the topic keyed by user."""
    _prepare(setting, (BY_PRODUCT,))


def _prepare(setting: Setting, topics: tuple[str, ...]) -> None:
    if counts_file(setting).exists():
        return
    counts: Counter[tuple[bytes, int]] = Counter()
    with Log.open(log_directory(setting)) as log, log.producer(acks=1) as producer:
        for topic in topics:
            log.create_topic(topic, partitions=PARTITIONS)
        for chunk in clicks(setting.records):
            counts.update(zip(chunk.products, (at - at % MINUTE_MS for at in chunk.times), strict=True))
            for topic in topics:
                keys = chunk.products if topic == BY_PRODUCT else chunk.users
                producer.send_many(topic, chunk.values, keys=keys, timestamps_ms=chunk.times)
    found: Counts = {}
    for (product, minute), clicked in counts.items():
        found.setdefault(product.decode(), {})[minute] = clicked
    counts_file(setting).write_bytes(msgspec.json.encode(found))


def log_directory(setting: Setting) -> str:
    """Where the log is."""
    return f"{setting.directory}/log"


def counts_file(setting: Setting) -> Path:
    """Where the plain counts are."""
    return Path(setting.directory, "counts.json")


def check(setting: Setting, found: Counts, what: str) -> None:
    """Refuses to time what is wrong.

    Raises:
        AssertionError: a count is not that of the plain dictionary.
    """
    expected = msgspec.json.decode(counts_file(setting).read_bytes(), type=Counts)
    if found != expected:
        plain, clicked = _total(expected), _total(found)
        raise AssertionError(f"{what} counted {clicked} clicks and a plain count {plain}, or put them elsewhere")


def _total(counts: Counts) -> int:
    return sum(sum(minutes.values()) for minutes in counts.values())
