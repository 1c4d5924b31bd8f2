"""Clicks counted in the sessions of their user: windows that grow, merge and close.

1. Users click by chance, each twenty seconds apart on average, so a session has about four clicks; they come up to
   DISORDER_MS out of order, the same for the same number of them.
2. A run is timed from `app.run` to its return, when state, changelog, output and offsets are committed on disk.
3. A run that drops a record, or whose output is not what a plain loop finds, is an error and no number.
"""

import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec

from tailrace import App, Log, Windowed, seconds, session
from tailrace.tests.bench.measure import Setting, Stopwatch, Values

CLICKS = "session-clicks"
GAP_MS, DISORDER_MS, STEP_MS = 30_000, 2_000, 4
USERS = 5_000
RECORDS_MAX = 200_000
START_MS = 1_767_225_600_000
_SEED = 20_261_121


class Click(msgspec.Struct):
    """What is counted."""

    product: str


class UserSession(msgspec.Struct, frozen=True):
    """A result."""

    user: str
    start_ms: int
    end_ms: int
    clicks: int


def as_session(window: Windowed[str], clicks: int) -> tuple[str, UserSession]:
    """Makes a result of a window and its count."""
    return window.key, UserSession(window.key, window.start_ms, window.end_ms, clicks)


def prepare(setting: Setting) -> None:
    """Writes the clicks."""
    rows, value = _rows(setting), msgspec.json.encode(Click("p"))
    with Log.open(_directory(setting)) as log, log.producer() as producer:
        log.create_topic(CLICKS)
        keys, times = [user.encode() for user, _ in rows], [time for _, time in rows]
        producer.send_many(CLICKS, [value] * len(rows), keys=keys, timestamps_ms=times)


def counts(setting: Setting) -> Values:
    """The program."""
    name = f"sessions-{setting.sample}"
    with Log.open(_directory(setting)) as log:
        app = App(name, log=log)
        window = session(seconds(GAP_MS // 1000), grace=seconds(DISORDER_MS // 1000))
        counted = app.stream(app.topic(CLICKS, key=str, value=Click)).group_by_key().windowed_by(window)
        rows = counted.count(store="clicks").changes().map_kv(as_session)
        rows.to(app.topic(f"{name}-output", key=str, value=UserSession))
        with Stopwatch() as watch:
            summary = app.run(until="end")
        missing = _sessions(setting) - _output(log, f"{name}-output")
        if summary.dropped or missing:
            raise AssertionError(f"{name} did not find {len(missing)} sessions, and dropped {summary.dropped}")
        return watch.values(summary.records_in)


def _directory(setting: Setting) -> str:
    return str(Path(setting.directory, "sessions"))


def _rows(setting: Setting) -> list[tuple[str, int]]:
    """User and time, in order of arrival."""
    chance = random.Random(_SEED)
    times = (START_MS + number * STEP_MS for number in range(min(setting.small, RECORDS_MAX)))
    rows = [(f"u{chance.randrange(USERS)}", time, time + chance.randrange(DISORDER_MS)) for time in times]
    return [(user, time) for user, time, _ in sorted(rows, key=lambda row: row[2])]


def _output(log: Log, topic: str) -> set[UserSession]:
    """All that was sent."""
    decode = msgspec.json.Decoder(UserSession).decode
    found: set[UserSession] = set()
    with log.consumer() as consumer:
        consumer.assign(list(log.offsets(topic)))
        while batches := consumer.poll_batches():
            for batch in batches:
                found.update(decode(record.value) for record in batch.records if record.value is not None)
    return found


def _sessions(setting: Setting) -> set[UserSession]:
    """Those that there are."""
    times: dict[str, list[int]] = defaultdict(list)
    for user, time in sorted(_rows(setting), key=lambda row: row[1]):
        times[user].append(time)
    found: set[UserSession] = set()
    for user, clicks in times.items():
        begin = 0
        for place, (time, after) in enumerate(pairwise([*clicks, clicks[-1] + GAP_MS + 1]), start=1):
            if after - time > GAP_MS:
                found.add(UserSession(user, clicks[begin], time, place - begin))
                begin = place
    return found
