"""A task comes back to a member that had it before: what others have sent meanwhile is not sent again."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.tests.support.engine import contents
from tailrace.windows.duration import milliseconds, seconds
from tailrace.windows.session import session
from tailrace.windows.tumbling import tumbling

Build = Callable[[App, Stream[str, int]], Stream[str, str]]


def waiting(app: App, numbers: Stream[str, int]) -> Stream[str, str]:
    table = app.table(app.topic("rates", key=str, value=int), store="rates", history=seconds(60))
    return numbers.left_join(table, lambda number, rate: f"{number}/{rate}", grace=milliseconds(20), store="waits")


def unmatched(app: App, numbers: Stream[str, int]) -> Stream[str, str]:
    others = app.stream(app.topic("rates", key=str, value=int)).filter(lambda _: False)
    return numbers.left_join(others, lambda number, other: f"{number}/{other}", within=milliseconds(9), store="pairs")


def windows(_: App, numbers: Stream[str, int]) -> Stream[str, str]:
    counts = numbers.group_by_key().windowed_by(tumbling(milliseconds(10))).count(store="counts", emit="close")
    return counts.changes().map_kv(lambda key, count: (str(key.key), f"{key.start}: {count}"))


def sessions(_: App, numbers: Stream[str, int]) -> Stream[str, str]:
    counts = numbers.group_by_key().windowed_by(session(milliseconds(5))).count(store="counts", emit="close")
    return counts.changes().map_kv(lambda key, count: (str(key.key), f"{key.start}: {count}"))


@pytest.mark.parametrize("build", [waiting, unmatched, windows, sessions])
@pytest.mark.parametrize("cache", [0, 64 << 20])
def test_what_another_member_has_sent_is_not_sent_again(build: Build, cache: int, tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("numbers")
        log.create_topic("rates")
        number = 0
        for stage in range(6):
            with log.producer() as producer:
                for _ in range(5):
                    number += 1
                    for topic in ("numbers", "rates"):
                        value, key = number.to_bytes(8, "big"), b"k%d" % (number % 3)
                        producer.send(topic, value, key=key, timestamp_ms=1_000 + number * 8)
            app = App("moved", log=log, state_dir=str(tmp_path / f"member-{stage % 2}"), cache_bytes=cache)
            numbers = app.stream(app.topic("numbers", key=str, value=int))
            build(app, numbers).to(app.topic("out", key=str, value=str))
            app.run(until="end")
        sent = Counter((record.key, record.value) for record in contents(log, "out"))
        assert len(sent) > 20
        assert set(sent.values()) == {1}
