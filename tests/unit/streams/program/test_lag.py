"""What lies between a source and a node: how far its results lag, and whether a cache holds them back."""

from typing import Any

import pytest

from tailrace import App, Stream, Table, Windowed, seconds, tumbling, until_window_closes
from tailrace.streams.program.lag import lag_of
from tailrace.testing import TopologyDriver
from tailrace.windows.duration import milliseconds as ms


def joined(app: App) -> Stream[str, str]:
    left, right = (app.stream(app.topic(name, key=str, value=str)) for name in "LR")
    return left.left_join(right, lambda left, right: f"{left}{right}", store="joined", within=ms(10))


def counted(stream: Stream[str, Any], store: str, emit: Any) -> Table[Windowed[str], int]:
    return stream.group_by_key().windowed_by(tumbling(ms(100))).count(store=store, emit=emit)


def finals(table: Table[Windowed[str], int]) -> Stream[str, int]:
    return table.changes().map_kv(lambda window, n: (window.key, n), key=str)


def finals_of_a_join(app: App) -> None:
    counted(joined(app), "last", "close").to(app.topic("out", key=Windowed[str], value=int))


def finals_of_finals(app: App) -> None:
    first = counted(app.stream(app.topic("L", key=str, value=str)), "first", "close")
    again = finals(first).group_by_key(name="again")
    again.windowed_by(tumbling(seconds(1))).count(store="last", emit="close").to(
        app.topic("out", key=Windowed[str], value=int)
    )


def finals_of_updates(app: App) -> None:
    counts = counted(app.stream(app.topic("L", key=str, value=str)), "first", "update")
    counts.suppress(until_window_closes(), store="last").to(app.topic("out", key=Windowed[str], value=int))


def test_the_longest_way_counts() -> None:
    app = App("app")
    finals_of_a_join(app)
    (sub,) = app.describe().subtopologies
    last = next(node for node in sub.nodes if "last" in [store.name for store in node.operator.stores])
    assert lag_of(sub, last, caching=True) == (11, False)


@pytest.mark.parametrize(("program", "count"), [(finals_of_a_join, 2), (finals_of_finals, 1)])
def test_what_is_sent_at_once_is_no_cache_and_what_follows_closes_without_a_commit(program: Any, count: int) -> None:
    app = App("app")
    program(app)
    with TopologyDriver(app, cache=True) as driver:
        for time in (5, 7, 5_000):
            driver.pipe("L", "x", key="A", timestamp_ms=time)
        assert [(record.key.key, record.value) for record in driver.read("out")] == [("A", count)]


def test_behind_a_cache_what_follows_closes_at_the_commit() -> None:
    app = App("app")
    finals_of_updates(app)
    with TopologyDriver(app, cache=True) as driver:
        for time in (5, 7, 5_000):
            driver.pipe("L", "x", key="A", timestamp_ms=time)
        assert driver.read("out") == []
        driver.commit()
        assert [(record.key.key, record.value) for record in driver.read("out")] == [("A", 2)]
