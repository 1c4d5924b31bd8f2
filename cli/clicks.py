"""Clicks out of nothing, for the demo: the same ones for the same seed.

1. Products follow Zipf's law with exponent 1 (`p0` is clicked most), users are uniform.
2. Clicks come in the order of their arrival, which is up to `DISORDER_MS` after their time; times span one hour.
3. Each chunk is counted as it is made, by product and minute, with nothing but a dictionary: what a run must find.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import msgspec

PRODUCTS = 1_000
USERS = 100_000
DISORDER_MS = 5_000
SPAN_MS = 3_600_000
MINUTE_MS = 60_000
# 2026-01-01T00:00:00Z: a full hour, so that windows begin at the first click.
START_MS = 1_767_225_600_000
_CHUNK = 20_000

Counts = Counter[tuple[str, int]]


class Chunk(NamedTuple):
    """Some clicks as a producer takes them."""

    values: list[bytes]
    keys: list[bytes | None]
    timestamps_ms: list[int]


def clicks(count: int, seed: int, counts: Counts) -> Iterator[Chunk]:
    """Make `count` clicks, and add them to `counts` by (product, start of the minute in ms)."""
    chance = random.Random(seed)  # noqa: S311 - a seeded demo, no secret
    weights = list(accumulate(1 / rank for rank in range(1, PRODUCTS + 1)))
    products = [f"p{number}" for number in range(PRODUCTS)]
    encode = msgspec.json.Encoder().encode
    for first in range(0, count, _CHUNK):
        size = min(_CHUNK, count - first)
        chosen = chance.choices(products, cum_weights=weights, k=size)
        times = [
            max(START_MS, START_MS + number * SPAN_MS // count - int(chance.random() * (DISORDER_MS + 1)))
            for number in range(first, first + size)
        ]
        users = [f"u{int(chance.random() * USERS)}" for _ in range(size)]
        counts.update((product, at - at % MINUTE_MS) for product, at in zip(chosen, times, strict=True))
        values = [
            encode({"product_id": product, "user_id": user, "ts": at})
            for product, user, at in zip(chosen, users, times, strict=True)
        ]
        yield Chunk(values, [user.encode() for user in users], times)
