"""Records of one time in several inputs of a task: what waits has one order, so that a replay gives what live gave."""

# How much runs at once is set from here.
# pyright: reportPrivateUsage=false

from collections.abc import Callable
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import App, Stream, seconds, tumbling
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import RetriableError
from tailrace.streams import runner
from tailrace.streams.running import reader
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents

TOPICS = "ABC"
Row = tuple[str, int]
"""Topic and time in ms; the values are numbered."""


def streams(app: App, names: str = TOPICS, *, by_value: bool = False) -> list[Stream[str, str]]:
    timestamp = time_in if by_value else None
    return [app.stream(app.topic(name, key=str, value=str, timestamp=timestamp)) for name in names]


def time_in(value: str) -> int:
    return int(value.split("@")[1])


def table(app: App, name: str, **options: Any) -> Any:
    return app.table(app.topic(name, key=str, value=str), store=f"table-{name}", **options)


def pair(left: str | None, right: str | None) -> str:
    return f"[{left},{right}]"


def together(left: str, right: str) -> str:
    return f"{left} {right}"


def send(log: Log, rows: list[Row], first: int = 0) -> None:
    with log.producer(linger_ms=0) as producer:
        for number, (topic, time) in enumerate(rows, first):
            producer.send(topic, f"{topic}{number}@{time}".encode(), key=b"k", timestamp_ms=time)


def results(log: Log, topic: str = "out") -> list[str]:
    return [(record.value or b"-").decode() for record in contents(log, topic)]


def in_order(rows: list[Row], ranks: str) -> list[str]:
    """The values of the oldest heads, one by one; of one time that of the topic that stands first in `ranks`."""
    left = {name: [(time, f"{name}{n}@{time}") for n, (of, time) in enumerate(rows) if of == name] for name in ranks}
    found: list[str] = []
    while heads := [(left[name][0][0], ranks.index(name), name) for name in ranks if left[name]]:
        found.append(left[min(heads)[2]].pop(0)[1])
    return found


# ---------------------------------------------------------------- a backlog, in any pieces


def at_any_pace(log: Log, app_of: Callable[[], App], chance: Random) -> None:
    """Runs of some slices with commits in between, ended or aborted; the last one comes to the end."""
    fetched, most = chance.choice([1, 1 << 20]), chance.choice([1, 3, 1_000])
    with patch.object(reader, "_FETCH_BYTES", fetched), patch.object(runner, "_SLICE", most):
        for slices in (chance.randrange(4), chance.randrange(4), None):
            run = Driven(app_of(), log, ManualClock())
            run.runner._slices = [most]
            ended = run.run_in_pieces(waiting, lambda: chance.random() < 0.4, slices)
            if not ended and chance.random() < 0.5:
                run.again(RetriableError("an abort"))
            run.end()


def waiting(tasks: Any) -> Any:
    return next((task for task in tasks if task.head_ms() is not None), None)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(TOPICS), st.integers(0, 4)), max_size=25),
    st.permutations(TOPICS),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_a_backlog_has_one_order(rows: list[Row], named: list[str], by_value: bool, seed: int) -> None:
    """With times out of order, too: in whatever slices and fetches, over commits, restarts and aborts."""
    names = "".join(named)

    with Log.open("memory:", background=False) as log:
        for name in TOPICS:
            log.create_topic(name)

        def app_of() -> App:
            app = App("app", log=log, cache_bytes=0)
            first, *others = streams(app, names, by_value=by_value)
            for other in others:
                first = first.merge(other)
            first.to(app.topic("out", key=str, value=str))
            return app

        send(log, rows)
        at_any_pace(log, app_of, Random(seed))
        assert results(log) == in_order(rows, names)


# ---------------------------------------------------------------- live, and once more


def merged(app: App) -> Stream[str, str | None]:
    a, b, c = streams(app)
    return c.merge(b).merge(a).group_by_key().reduce(together, store="all").to_stream()


def windowed(app: App) -> Stream[Any, str | None]:
    a, b, _ = streams(app)
    windows = b.merge(a).group_by_key().windowed_by(tumbling(seconds(0.004)))
    return windows.reduce(together, store="windows", emit="close").to_stream()


def cogrouped(app: App) -> Stream[Any, str | None]:
    a, b, _ = streams(app)
    both = b.group_by_key(name="b").cogroup(lambda so_far, value: f"{so_far} {value}")
    both = both.cogroup(a.group_by_key(name="a"), lambda so_far, value: f"{so_far} {value}")
    return both.aggregate(str, store="both").to_stream()


def row_of_table_first(app: App) -> Stream[str, str]:
    rows = table(app, "A")
    return streams(app, "B")[0].left_join(rows, pair)


def row_of_stream_first(app: App) -> Stream[str, str]:
    stream = streams(app, "B")[0]
    return stream.left_join(table(app, "A"), pair)


def row_of_the_past(app: App) -> Stream[str, str]:
    stream = streams(app, "B")[0]
    return stream.left_join(table(app, "A", history=seconds(1)), pair)


def joined_streams(app: App) -> Stream[str, str]:
    a, b, _ = streams(app)
    return a.outer_join(b, pair, within=seconds(0.002), grace=seconds(0), store="j")


def joined_tables(app: App) -> Stream[str, str]:
    made: Stream[str, str] = table(app, "B").outer_join(table(app, "A"), pair).to_stream()
    return made


PROGRAMS: list[Callable[[App], Stream[Any, Any]]] = [
    merged,
    windowed,
    cogrouped,
    row_of_table_first,
    row_of_stream_first,
    row_of_the_past,
    joined_streams,
    joined_tables,
]


@st.composite
def moments(draw: st.DrawFn) -> list[list[Row]]:
    """What arrives until somebody looks: of each time all there is, in any order."""
    now, made = 0, list[list[Row]]()
    for step in draw(st.lists(st.integers(1, 4), min_size=1, max_size=10)):
        now += step
        made.append([(topic, now) for topic in draw(st.lists(st.sampled_from(TOPICS), max_size=6))])
    return made


@pytest.mark.parametrize("program", PROGRAMS)
@settings(max_examples=15, deadline=None)
@given(moments(), st.integers(1, 3))
def test_a_replay_gives_what_live_gave(
    program: Callable[[App], Stream[Any, Any]], given: list[list[Row]], at_once: int
) -> None:
    """Every result, in order: with many records of one time, which live come in any order."""
    with Log.open("memory:", background=False) as log:
        for name in TOPICS:
            log.create_topic(name)

        def run(name: str) -> None:
            app = App(name, log=log, cache_bytes=0)
            texts = program(app).map_kv(lambda key, value: (str(key), value), key=str, value=str)
            texts.to(app.topic(f"{name}-out", key=str, value=str))
            app.run(until="end")

        sent = 0
        for number, rows in enumerate(given):
            send(log, rows, sent)
            sent += len(rows)
            if number % at_once == 0:
                run("live")
        run("live")
        run("replay")
        assert results(log, "replay-out") == results(log, "live-out")


@pytest.mark.parametrize("program", [row_of_table_first, row_of_stream_first, row_of_the_past])
def test_a_row_comes_before_what_looks_it_up(program: Callable[[App], Stream[str, str]]) -> None:
    """However the program names them, and with a history or without."""
    with Log.open("memory:", background=False) as log:
        for name in TOPICS:
            log.create_topic(name)
        send(log, [("B", 1), ("A", 1), ("B", 1), ("A", 2), ("B", 2), ("A", 2)])
        app = App("app", log=log)
        program(app).to(app.topic("out", key=str, value=str))
        app.run(until="end")
        assert results(log) == ["[B0@1,A1@1]", "[B2@1,A1@1]", "[B4@2,A5@2]"]
