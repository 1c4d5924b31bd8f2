"""Tasks that run at any pace, hear of each other through the log, and begin anew now and then: the same final results.

A program runs once over a backlog with its hops in memory; then slice by slice, each of any task that has something, as
members run at their own speed, with commits, restarts and aborts in between. What is final must be the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import (
    App,
    GroupedTable,
    Stream,
    Table,
    Windowed,
    seconds,
    session,
    sliding,
    tumbling,
    until_window_closes,
)
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import RetriableError
from tailrace.streams import runner
from tailrace.streams.task import Task
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, decoded

Row = tuple[str, str, str | None, int]
"""Topic, key, value, time in ms."""
GRACE = seconds(2)


def letter(value: str | None) -> str:
    return (value or "-").lower()


def streams(app: App) -> list[Stream[str, str]]:
    """L and R, keyed by their values: behind repartitions."""
    return [app.stream(app.topic(name, key=str, value=str)).key_by(letter) for name in "LR"]


def table(app: App, name: str = "R", **options: Any) -> Table[str, str]:
    return app.table(app.topic(name, key=str, value=str), store=f"table-{name}", **options)


def pair(left: str | None, right: str | None) -> str:
    return f"{left}+{right}"


def windows(app: App) -> Table[Windowed[str], int]:
    return streams(app)[0].group_by_key().windowed_by(tumbling(seconds(5), grace=GRACE)).count(store="n", emit="close")


def sessions(app: App) -> Table[Windowed[str], int]:
    made = streams(app)[0].group_by_key().windowed_by(session(seconds(1), grace=GRACE))
    return made.count(store="n").suppress(until_window_closes(), store="held")


def slides(app: App) -> Table[Windowed[str], int]:
    return streams(app)[0].group_by_key().windowed_by(sliding(seconds(2), grace=GRACE)).count(store="n", emit="close")


def cogroups(app: App) -> Table[Windowed[str], int]:
    left, right = streams(app)

    def add(so_far: int, _value: str) -> int:
        return so_far + 1

    def add_many(so_far: int, _value: str) -> int:
        return so_far + 1_000

    both = left.group_by_key(name="l").cogroup(add).cogroup(right.group_by_key(name="r"), add_many)
    made = both.windowed_by(tumbling(seconds(5), grace=GRACE))
    return made.aggregate(int, store="n", emit="close")


def joined(kind: str) -> Callable[[App], Stream[str, str]]:
    def join(app: App) -> Stream[str, str]:
        left, right = streams(app)
        made: Stream[str, str] = getattr(left, kind)(right, pair, store="j", within=seconds(1), grace=GRACE)
        return made

    return join


def looked_up(app: App) -> Stream[str, str]:
    """As of each record's time, when the table has waited long enough."""
    return streams(app)[0].left_join(table(app, history=seconds(60)), pair, grace=GRACE, store="waits")


def two_hops(app: App) -> Table[Windowed[str], int]:
    first = streams(app)[0].group_by_key().windowed_by(tumbling(seconds(1), grace=GRACE)).count(store="1", emit="close")
    again = first.changes().map_kv(lambda window, n: (str(n), 1), key=str, value=int).group_by_key(name="again")
    return again.windowed_by(tumbling(seconds(4))).count(store="n", emit="close")


def grouped(app: App) -> GroupedTable[str, str]:
    return table(app).group_by(lambda _key, value: (value.lower(), value), key=str)


def group_counts(app: App) -> Table[str, int]:
    return grouped(app).count(store="n")


def tables_joined(app: App) -> Table[str, int]:
    """By key the numbers of two tables, one of which is counted behind a hop."""
    counts = streams(app)[0].group_by_key().count(store="n")
    return counts.outer_join(group_counts_of(app), lambda a, b: (a or 0) * 100 + (b or 0))


def group_counts_of(app: App) -> Table[str, int]:
    return grouped(app).count(store="m")


def refers_to(value: str) -> str | None:
    return {"a": "p", "A": "q", "b": "r", "B": "s"}.get(value)


FINAL: dict[str, Callable[[App], Any]] = {
    "windows": windows,
    "sessions, suppressed": sessions,
    "sliding windows": slides,
    "cogrouped": cogroups,
    "inner join": joined("join"),
    "left join": joined("left_join"),
    "outer join": joined("outer_join"),
    "as of the record's time": looked_up,
    "two hops": two_hops,
}
"""What comes once and for good."""
LATEST: dict[str, Callable[[App], Table[str, Any]]] = {
    "groups": group_counts,
    "joined tables": tables_joined,
    "foreign keys": lambda app: table(app, "L").join(table(app), pair, on=refers_to, store="j"),
    "foreign keys, left": lambda app: table(app, "L").left_join(table(app), pair, on=refers_to, store="j"),
}
"""What changes until the end."""


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Time goes on; each record is under way for up to 2 s. The last ones close what was before."""
    now, made = 0, list[Row]()
    for step in draw(st.lists(st.sampled_from([0, 200, 700, 3_000, 9_000]), min_size=3, max_size=30)):
        now += step
        topic, key, value = (draw(st.sampled_from(of)) for of in ("LR", "pqrs", "aAbBc"))
        made.append((topic, key, value, max(now - draw(st.integers(0, 2_000)), 0)))
    return made + [(topic, key, "end", now + 600_000) for topic in "LR" for key in "pqrs"]


def app_of(log: Log, program: Callable[[App], Any], **options: Any) -> App:
    app = App("app", log=log, cache_bytes=options.pop("cache", 0))
    app.options = replace(app.options, **options)
    made: Any = program(app)
    stream: Stream[Any, Any] = made.to_stream() if hasattr(made, "to_stream") else made
    texts = stream.map_kv(lambda key, value: (str(key), str(value)), key=str, value=str)
    texts.to(app.topic("out", key=str, value=str))
    return app


def send(log: Log, given: list[Row]) -> None:
    with log.producer(linger_ms=0) as producer:
        for topic, key, value, at in given:
            data = None if value is None else value.encode()
            producer.send(topic, data, key=key.encode(), timestamp_ms=at)


def any_of(chance: Random, tasks: Sequence[Task]) -> Task | None:
    waiting = [task for task in tasks if task.head_ms() is not None]
    return chance.choice(waiting) if waiting else None


def at_any_pace(log: Log, program: Callable[[App], Any], chance: Random, cache: int) -> None:
    """Each run does some slices, and ends or is aborted; the last one comes to the end."""
    with patch.object(runner, "_SLICE", chance.choice([1, 3, 1_000])):
        for slices in (chance.randrange(12), chance.randrange(12), None):
            run = Driven(app_of(log, program, hops="log", cache=cache), log, ManualClock())
            go_on = partial(run.run_in_pieces, partial(any_of, chance), lambda: chance.random() < 0.3, slices)
            if not go_on():
                run.again(RetriableError("an abort"))
                go_on()
            run.end()


def results(given: list[Row], run: Callable[[Log], None]) -> list[tuple[Any, Any, int]]:
    with Log.open("memory:", background=False) as log:
        for name in "LR":
            log.create_topic(name, partitions=3)
        send(log, given)
        run(log)
        return decoded(contents(log, "out"), App("r").topic("out", key=str, value=str))


@pytest.mark.parametrize("name", FINAL)
@settings(max_examples=12, deadline=None)
@given(rows(), st.integers(0, 10_000), st.booleans())
def test_what_is_final_is_the_same(name: str, given: list[Row], seed: int, cache: bool) -> None:
    program = FINAL[name]
    wanted = results(given, lambda log: check_nothing_late(app_of(log, program)))
    found = results(given, lambda log: at_any_pace(log, program, Random(seed), int(cache) << 20))
    assert Counter(found) == Counter(wanted)


def check_nothing_late(app: App) -> None:
    assert "late" not in app.run(until="end").dropped


@pytest.mark.parametrize("name", LATEST)
@settings(max_examples=12, deadline=None)
@given(rows(), st.integers(0, 10_000), st.booleans())
def test_what_is_there_in_the_end_is_the_same(name: str, given: list[Row], seed: int, cache: bool) -> None:
    program = LATEST[name]
    # Nothing is to be closed; and rows of the table go, too.
    given = [(topic, key, None if (topic, value) == ("R", "c") else value, at) for topic, key, value, at in given[:-8]]
    wanted = results(given, lambda log: check_nothing_late(app_of(log, program)))
    found = results(given, lambda log: at_any_pace(log, program, Random(seed), int(cache) << 20))
    # What came and went between two commits of a cache has never been there: else a group is one of 0, a row deleted.
    assert rows_left(found) == rows_left(wanted)


def rows_left(outs: list[tuple[Any, Any, int]]) -> dict[str, str]:
    """The last value of each key, without those of nothing."""
    last = {key: value for key, value, _ in outs}
    return {key: value for key, value in last.items() if value not in ("0", "None")}
