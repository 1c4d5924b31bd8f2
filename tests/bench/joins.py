"""Clicks joined to purchases of the same user within a minute, from two topics whose times interleave.

1. Half of the records are clicks and half purchases, of users at random, up to DISORDER_MS out of order; the same for
   the same number of them. A pair is found for about every second record.
2. A run is timed from `app.run` to its return, when state, changelogs, output and offsets are committed on disk.
3. A run that drops a record, or does not find every pair, is an error and no number.
"""

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from pathlib import Path

import msgspec

from tailrace import App, Log, seconds
from tailrace.tests.bench.measure import Setting, Stopwatch, Values

CLICKS, BUYS = "join-clicks", "join-buys"
WITHIN_MS, DISORDER_MS, STEP_MS = 60_000, 2_000, 4
USERS = 20_000
RECORDS_MAX = 200_000
START_MS = 1_767_225_600_000
_SEED = 20_261_121


class Click(msgspec.Struct):
    """One side."""

    user: str
    product: str


class Buy(msgspec.Struct):
    """The other side."""

    user: str
    cents: int


class Sold(msgspec.Struct):
    """A result."""

    user: str
    product: str
    cents: int


def sold(click: Click, buy: Buy) -> Sold:
    """Makes a result of a pair."""
    return Sold(click.user, click.product, buy.cents)


def prepare(setting: Setting) -> None:
    """Writes both topics."""
    encode = msgspec.json.encode
    with Log.open(_directory(setting)) as log, log.producer() as producer:
        for topic, rows in _rows(setting).items():
            log.create_topic(topic)
            values = [encode(Click(user, "p") if topic == CLICKS else Buy(user, 5)) for user, _ in rows]
            producer.send_many(
                topic, values, keys=[user.encode() for user, _ in rows], timestamps_ms=[time for _, time in rows]
            )


def streams(setting: Setting) -> Values:
    """The program."""
    name = f"join-{setting.sample}"
    with Log.open(_directory(setting)) as log:
        app = App(name, log=log)
        clicks = app.stream(app.topic(CLICKS, key=str, value=Click))
        buys = app.stream(app.topic(BUYS, key=str, value=Buy))
        joined = clicks.join(
            buys, sold, store="pairs", within=seconds(WITHIN_MS // 1000), grace=seconds(DISORDER_MS // 1000)
        )
        joined.to(app.topic(f"{name}-output", key=str, value=Sold))
        with Stopwatch() as watch:
            summary = app.run(until="end")
        pairs = _pairs(setting)
        if summary.dropped or summary.records_out != pairs:
            raise AssertionError(f"{name} made {summary.records_out} of {pairs} pairs, and dropped {summary.dropped}")
        return watch.values(summary.records_in)


def _directory(setting: Setting) -> str:
    return str(Path(setting.directory, "joins"))


def _rows(setting: Setting) -> dict[str, list[tuple[str, int]]]:
    """User and time of the records of each topic, in order of arrival."""
    chance = random.Random(_SEED)
    half = min(setting.small, RECORDS_MAX) // 2

    def arriving() -> list[tuple[str, int]]:
        times = (START_MS + number * STEP_MS for number in range(half))
        rows = [(f"u{chance.randrange(USERS)}", time, time + chance.randrange(DISORDER_MS)) for time in times]
        return [(user, time) for user, time, _ in sorted(rows, key=lambda row: row[2])]

    return {CLICKS: arriving(), BUYS: arriving()}


def _pairs(setting: Setting) -> int:
    """How many there are."""
    rows = _rows(setting)
    times: dict[str, list[int]] = defaultdict(list)
    for user, time in sorted(rows[BUYS], key=lambda row: row[1]):
        times[user].append(time)
    return sum(
        bisect_right(times[user], time + WITHIN_MS) - bisect_left(times[user], time - WITHIN_MS)
        for user, time in rows[CLICKS]
    )
