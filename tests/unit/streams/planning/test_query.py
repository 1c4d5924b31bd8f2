"""Stores read from outside, by kind: windows, sessions, sliding windows; copies of what could be changed."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tailrace.log.errors import InvalidError
from tailrace.streams.app import App
from tailrace.streams.planning.query import view_of
from tailrace.streams.program.store import Store
from tailrace.testing import TopologyDriver
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed

GIVEN = [("a", 12), ("b", 3), ("a", 14), ("c", 40), ("a", 41)]


def counted(window: Window | None, *, cache: bool = False, partitions: int = 1) -> TopologyDriver:
    """A driver of an app that has counted the records above by key."""
    app = App("app")
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    (grouped if window is None else grouped.windowed_by(window)).count(store="s")
    driver = TopologyDriver(app, cache=cache, partitions=partitions)
    for key, at in GIVEN:
        driver.pipe("in", "x", key=key, timestamp_ms=at)
    return driver


@pytest.fixture(params=[(False, 1, False), (True, 1, True), (True, 3, False), (False, 3, True)])
def how(request: pytest.FixtureRequest) -> Any:
    """Cache, partitions, and whether everything is committed and out of the cache."""
    return request.param


def opened(window: Window | None, how: tuple[bool, int, bool]) -> Store[Any, Any]:
    cache, partitions, committed = how
    driver = counted(window, cache=cache, partitions=partitions)
    if committed:
        driver.commit()
    return driver.store("s")


def test_aligned_windows(how: Any) -> None:
    store = opened(hopping(ms(10), ms(5), grace=ms(100)), how)
    everything = list(store.all())
    assert everything == [
        (Windowed("b", 0, 10), 1),
        (Windowed("a", 5, 15), 2),
        (Windowed("a", 10, 20), 2),
        (Windowed("a", 35, 45), 1),
        (Windowed("c", 35, 45), 1),
        (Windowed("a", 40, 50), 1),
        (Windowed("c", 40, 50), 1),
    ]
    assert list(store.all(reverse=True)) == everything[::-1]
    assert list(store.fetch("a", 5, 35)) == [row for row in everything if row[0].key == "a" and row[0].start_ms < 40]
    assert list(store.fetch("a", datetime.fromtimestamp(0.04, UTC), 10**15)) == [(Windowed("a", 40, 50), 1)]
    assert store.get(Windowed("a", 5, 15)) == 2
    assert store.get(Windowed("a", 5, 16)) is None
    assert store.get(Windowed("z", 5, 15)) is None


def test_sessions(how: Any) -> None:
    store = opened(session(ms(5), grace=ms(100)), how)
    everything = list(store.all())
    assert everything == [
        (Windowed("a", 12, 14), 2),
        (Windowed("a", 41, 41), 1),
        (Windowed("b", 3, 3), 1),
        (Windowed("c", 40, 40), 1),
    ]
    assert list(store.all(reverse=True)) == everything[::-1]
    assert list(store.fetch("a", 13, 40)) == everything[:1]
    assert store.get(Windowed("a", 12, 14)) == 2
    assert store.get(Windowed("a", 12, 13)) is None


def test_sliding_windows_are_fetched_by_their_start(how: Any) -> None:
    store = opened(sliding(ms(10), grace=ms(100)), how)
    assert list(store.fetch("a", 0, 12)) == [(Windowed("a", 2, 12), 1), (Windowed("a", 4, 14), 2)]
    assert list(store.fetch("a", 3, 12)) == [(Windowed("a", 4, 14), 2)]
    assert store.get(Windowed("a", 4, 14)) == 2


def test_what_a_kind_of_store_has_not_is_refused(how: Any) -> None:
    windows, plain = opened(hopping(ms(10), ms(5)), how), opened(None, how)
    for call in (lambda: windows.range("a"), lambda: windows.prefix("a"), lambda: plain.fetch("a", 0, 1)):
        with pytest.raises(InvalidError, match="store 's' has no"):
            call()
    with pytest.raises(TypeError, match="windowed keys"):
        windows.get("a")
    with pytest.raises(InvalidError, match="cannot be read"):
        view_of("s", [], None)


def test_a_value_that_is_read_is_a_copy() -> None:
    app = App("app")

    def add(words: list[str], word: str) -> list[str]:
        words.append(word)
        return words

    app.stream(app.topic("in", key=str, value=str)).group_by_key().aggregate(list, add, store="s")
    with TopologyDriver(app) as driver:
        driver.pipe("in", "x", key="a")
        words: list[str] = driver.store("s").get("a") or []
        assert words == ["x"]
        words.append("mine")
        driver.pipe("in", "y", key="a")
        assert words == ["x", "mine"]
        assert list(driver.store("s").all()) == [("a", ["x", "y"])]
