"""Sessions and sliding windows behind a repartition, over a backlog: what came in order of its partition is not late.

The same records in one partition or in four, with disorder within the grace, give the results of a naive model.
"""

import random
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.window import Window

Click = tuple[str, int]
Results = dict[str, tuple[int, int]]
GRACE, SIZE, FAR = 50, 30, 100_000


def clicks(seed: int) -> list[list[Click]]:
    """Four partitions, each out of order by less than the grace, and of quite different lengths of time."""
    chance = random.Random(seed)
    return [
        [(chance.choice("ABC"), GRACE + i * step - chance.randrange(GRACE)) for i in range(80)]
        for step in (5, 9, 2, 14)
    ]


def sessions(records: list[Click]) -> Results:
    found: Results = {}
    for key in "ABC":
        open_: list[int] = []
        times = sorted(time for k, time in records if k == key)
        for time, after in zip(times, [*times[1:], FAR], strict=True):
            open_.append(time)
            if after - time > SIZE:
                found[f"{key}@{open_[0]}-{time}"] = (len(open_), time)
                open_ = []
    return found


def slides(records: list[Click]) -> Results:
    found: Results = {}
    for key in "ABC":
        times = [time for k, time in records if k == key]
        for start in {max(0, time - SIZE) for time in times} | {time + 1 for time in times}:
            content = [time for time in times if start <= time <= start + SIZE]
            if content:
                found[f"{key}@{start}-{start + SIZE}"] = (len(content), max(content))
    return found


WINDOWS: list[tuple[Window, Any]] = [
    (session(ms(SIZE), grace=ms(GRACE)), sessions),
    (sliding(ms(SIZE), grace=ms(GRACE)), slides),
]


@pytest.mark.parametrize("emit", ["update", "close"])
@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize(("window", "model"), WINDOWS, ids=["session", "sliding"])
def test_results_are_the_models(window: Window, model: Any, partitions: int, emit: Any) -> None:
    written = clicks(partitions)[:partitions]
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        for partition, records in enumerate(written):
            # The last record of each partition closes everything before it.
            feed(log, "clicks", [(None, key, time) for key, time in [*records, ("end", FAR)]], partition)
        app = App("backlog", log=log)
        grouped = app.stream(app.topic("clicks", key=str, value=str)).group_by(lambda click: click, name="by-key")
        table = grouped.windowed_by(window).count(store="counts", emit=emit)
        shown = table.to_stream().map_kv(lambda key, count: (f"{key.key}@{key.start_ms}-{key.end_ms}", count))
        shown.to(app.topic("out", key=str, codec="json"))
        summary = app.run(until="end")
        out = [((r.key or b"").decode(), r.value, r.timestamp_ms) for r in contents(log, "out")]
    last = {key: (int(value), time) for key, value, time in out if value is not None}
    gone = {key for key, value, _ in out if value is None}
    results = {key: result for key, result in last.items() if not key.startswith("end")}
    assert not summary.dropped.get("late")
    if emit == "close":
        assert not gone
        assert len(out) == len(results), "each final result once, and none that is open"
    else:
        results = {key: result for key, result in results.items() if key not in gone}
    assert results == model([record for records in written for record in records])
