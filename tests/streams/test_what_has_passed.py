"""What no record can reach any more is nowhere: closed windows and sessions, and what a join kept.

Keys come once each, on stores on disk; in the store and in the changelog stays what the last seconds may still change.
A second has a thousand keys, so that commits find windows that are open: what opens and closes between two of them is
written nowhere in any case.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.streams.app import App
from tailrace.streams.program.topic import Topic
from tailrace.streams.surface.stream import Stream
from tailrace.windows.duration import milliseconds, seconds
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.window import Window

Program = Callable[[Stream[int, int], Stream[int, int], Topic[int, int]], None]

STEP_MS = 1
GRACE = milliseconds(500)
# Of windows of one second, whatever their kind: nothing can change what ended four seconds ago.
ALIVE = 4_000 // STEP_MS
# Two rows and two records for each at the most: its index, and what it was before.
LEFT_MAX = 2 * ALIVE


def counted(window: Window) -> Program:
    """Counts a stream in windows."""

    def program(left: Stream[int, int], _: Stream[int, int], output: Topic[int, int]) -> None:
        windowed = left.group_by_key().windowed_by(window)
        windowed.count(store="kept").changes().map_kv(lambda window, count: (window.key, count)).to(output)

    return program


def joined(left: Stream[int, int], right: Stream[int, int], output: Topic[int, int]) -> None:
    """Joins two streams, and sends left records that find nothing."""
    left.left_join(right, lambda a, b: a + (b or 0), store="kept", within=seconds(1), grace=GRACE).to(output)


PROGRAMS: dict[str, Program] = {
    "tumbling": counted(tumbling(seconds(1), grace=GRACE)),
    "session": counted(session(seconds(1), grace=GRACE)),
    "sliding": counted(sliding(seconds(1), grace=GRACE)),
    "join": joined,
}


def fill(log: Log, topic: str, keys: range) -> None:
    """Each key once, one every STEP_MS."""
    log.create_topic(topic)
    with log.producer() as producer:
        if not keys:
            return
        encoded = [key.to_bytes(8, "big") for key in keys]
        producer.send_many(topic, encoded, keys=encoded, timestamps_ms=[key * STEP_MS for key in keys])


def stored(log: str, names: list[str]) -> Iterator[int]:
    """How many rows each store has on disk."""
    backend = RocksBackend(str(Path(log, "state", "passing", "0_0")), RocksMemory(), lambda: 0.0)
    for name in names:
        yield sum(1 for _ in backend.keyspace(name).range(b"", None))
    backend.close()


@pytest.mark.parametrize("keys", [30_000, pytest.param(1_000_000, marks=pytest.mark.kills)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_only_what_may_still_change_is_kept(tmp_path: Path, program: str, keys: int) -> None:
    directory = str(tmp_path / "log")
    names = ["kept-left", "kept-right"] if program == "join" else ["kept"]
    with Log.open(directory) as log:
        fill(log, "left", range(0, keys, len(names)))
        fill(log, "right", range(1, keys, len(names)) if program == "join" else range(0))
        app = App("passing", log=log)
        left, right = (app.stream(app.topic(topic, key=int, value=int)) for topic in ("left", "right"))
        PROGRAMS[program](left, right, app.topic("output", key=int, value=int))
        summary = app.run(until="end")
        assert summary.records_in == keys
        assert not summary.dropped
        for name in names:
            changelog = TopicPartition(f"passing-{name}-changelog", 0)
            begin, end = (log.offsets(changelog.topic, at)[changelog] for at in ("earliest", "latest"))
            assert begin > 0
            assert 0 < end - begin <= LEFT_MAX
    for rows in stored(directory, names):
        assert 0 < rows <= LEFT_MAX
