"""Stores of processors that have windows, a history or a time to live: against models, over restarts, and refused."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError, TaskError, TopologyError
from tailrace.log.record import Record
from tailrace.streams.app import App
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.program.store import Store
from tailrace.testing import TopologyDriver
from tailrace.tests.support.cases import step_by_step, through_the_driver
from tailrace.tests.support.engine import contents, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

Step = Callable[[Store[Any, Any], Record[str, str]], Any]


def running(app: App, step: Step, store: Store[Any, Any]) -> None:
    """A program that does something to a store with each record, and writes what came of it."""

    class Do(Processor[str, str, str, str]):
        def init(self, ctx: Context[str, str]) -> None:
            self.ctx = ctx

        def process(self, record: Record[str, str]) -> None:
            self.ctx.forward(record.key, str(step(self.ctx.store(store.name), record)))

    stream = app.stream(app.topic("in", key=str, value=str)).process(Do, stores=[store])
    stream.to(app.topic("out", key=str, codec="json"))


def outcomes(step: Step, records: list[tuple[str, str | None, int]], *, cache: bool, **kind: Any) -> list[str]:
    """What came of each record, in a run of its own."""
    with Log.open("memory:") as log:
        log.create_topic("in")
        for key, value, time in records:
            feed(log, "in", [(key, value, time)])
            app = App("shop", log=log, cache_bytes=1 << 20 if cache else 0)
            running(app, step, app.store("s", key=str, value=str, **kind))
            app.run(until="end")
        return [(record.value or b"").decode().strip('"') for record in contents(log, "out")]


def versions(app: App) -> None:
    def step(store: Store[Any, Any], record: Record[str, Any]) -> str:
        key, value = record.key, record.value
        if value is not None and value.startswith("?"):
            found = store.as_of(key, int(value[1:]))
            return "none" if found is None else f"{found[0]} from {found[1]} to open"
        if not store.put(key, value):
            return "put -> validTo REJECTED"
        found = store.as_of(key, record.timestamp_ms)
        return f"put -> validTo {'open' if found is None or found[2] is None else found[2]}"

    running(app, step, app.store("s", key=str, value=str, history=ms(10)))


@pytest.mark.parametrize("cache", [False, True])
def test_the_contracts_case_of_versions(cache: bool) -> None:
    assert step_by_step("V01", versions, ["in"], cache=cache) == {"late": 1}
    assert through_the_driver("V01", versions, cache=cache) == {"late": 1}


def test_where_a_version_ends() -> None:
    app = App("shop", log="memory:")
    versions(app)
    with TopologyDriver(app) as driver:
        for value, time in [("a", 5), ("c", 12), ("b", 8), (None, 14)]:
            driver.pipe("in", value, key="A", timestamp_ms=time)
        store = driver.store("s")
        assert [store.as_of("A", when) for when in (4, 9, 12, 14)] == [None, ("b", 8, 12), ("c", 12, 14), None]
        assert (store.get("A"), list(store.all())) == (None, [])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=20), st.booleans(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_values_vanish_after_their_time_to_live(steps: list[tuple[str, int]], cache: bool, commits: int) -> None:
    def step(store: Store[Any, Any], record: Record[str, Any]) -> Any:
        before = sorted(key for key, _ in store.all()), [store.get(key) for key in "ab"]
        store.put(record.key, record.value)
        return before

    app = App("shop", log="memory:")
    running(app, step, app.store("s", key=str, value=str, ttl=ms(10)))
    put: dict[str, tuple[str, int]] = {}
    now = 0
    with TopologyDriver(app, cache=cache) as driver:
        for number, (key, time) in enumerate(steps):
            now = max(now, time)
            driver.pipe("in", f"v{number}", key=key, timestamp_ms=time)
            there = {each: value for each, (value, at) in put.items() if at + 10 > now}
            (found,) = driver.read("out")
            assert found.value == str((sorted(there), [there.get(each) for each in "ab"]))
            put[key] = f"v{number}", time
            if commits and number % commits == 0:
                driver.commit()


@pytest.mark.parametrize("cache", [False, True])
def test_what_vanished_stays_away_after_a_restart_and_leaves_its_changelog(cache: bool) -> None:
    def step(store: Store[Any, Any], record: Record[str, Any]) -> Any:
        store.put(record.key, record.value)
        return [key for key, _ in store.all()]

    records: list[tuple[str, str | None, int]] = [("a", "x", 1), ("b", "x", 5), ("c", "x", 12), ("c", None, 30)]
    assert outcomes(step, records, cache=cache, ttl=ms(10)) == ["['a']", "['a', 'b']", "['b', 'c']", "[]"]


@pytest.mark.parametrize("cache", [False, True])
def test_windows_of_the_records_time(cache: bool) -> None:
    def step(store: Store[Any, Any], record: Record[str, Any]) -> Any:
        taken = store.put(record.key, (store.get(record.key) or "") + record.value)
        found = [(windowed.start_ms, value) for windowed, value in store.fetch(record.key, 0, 100)]
        return f"{taken} {found} {[(w.key, w.start_ms) for w, _ in store.all(reverse=True)]}"

    records: list[tuple[str, str | None, int]] = [("a", "x", 1), ("a", "y", 3), ("a", "z", 12), ("a", "late", 2)]
    records += [("b", "x", 14), ("a", "w", 40)]
    assert outcomes(step, records, cache=cache, window=tumbling(ms(10), grace=ms(1))) == [
        "True [(0, 'x')] [('a', 0)]",
        "True [(0, 'xy')] [('a', 0)]",
        "True [(10, 'z')] [('a', 10)]",
        "False [(10, 'z')] [('a', 10)]",
        "True [(10, 'x')] [('b', 10), ('a', 10)]",
        "True [(40, 'w')] [('a', 40)]",
    ]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("kind", ["session", "sliding"])
def test_windows_that_are_named(cache: bool, kind: str) -> None:
    def step(store: Store[Any, Any], record: Record[str, Any]) -> Any:
        time = record.timestamp_ms
        if record.value == "-":
            return store.delete(Windowed(record.key, 2, 7))
        taken = store.put(Windowed(record.key, time, time + 5), record.value)
        return f"{taken} {[(w.start_ms, w.end_ms, v) for w, v in store.fetch(record.key, 2, 50)]}"

    records: list[tuple[str, str | None, int]] = [("a", "x", 1), ("a", "y", 2), ("a", "z", 2), ("a", "-", 3)]
    records += [("a", "w", 60), ("a", "late", 1)]
    window = session(ms(5)) if kind == "session" else sliding(ms(5))
    first = "(1, 6, 'x'), " if kind == "session" else ""
    assert outcomes(step, records, cache=cache, window=window) == [
        f"True [{first[:-2]}]",
        f"True [{first}(2, 7, 'y')]",
        f"True [{first}(2, 7, 'z')]",
        "z",
        "True []",
        "False []",
    ]


def test_what_a_driver_sees_of_windows() -> None:
    app = App("shop", log="memory:")
    store = app.store("s", key=str, value=str, window=tumbling(ms(10)))
    running(app, lambda store, record: store.put(record.key, record.value), store)
    with TopologyDriver(app) as driver:
        driver.pipe("in", "x", key="a", timestamp_ms=12)
        assert list(driver.store("s").all()) == [(Windowed("a", 10, 20), "x")]
        assert list(driver.store("s").fetch("a", 0, 10)) == [(Windowed("a", 10, 20), "x")]


NO_WINDOW: list[tuple[dict[str, Any], Step, str]] = [
    ({"window": hopping(ms(10), ms(5))}, lambda s, _r: s.get("a"), r"has 2 windows of hopping"),
    ({"window": tumbling(ms(10))}, lambda s, _r: s.put(Windowed("a", 1, 11), "x"), r"is none of them"),
    ({"window": session(ms(10))}, lambda s, _r: s.put("a", "x"), r"has windowed keys, not 'a'"),
    ({"window": sliding(ms(10))}, lambda s, _r: s.put(Windowed("a", 1, 2), "x"), r"is none of them"),
]


@pytest.mark.parametrize(("kind", "step", "words"), NO_WINDOW)
def test_keys_that_name_no_window(kind: dict[str, Any], step: Step, words: str) -> None:
    app = App("shop", log="memory:")
    running(app, step, app.store("s", key=str, value=str, **kind))
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=words):
        driver.pipe("in", "x", key="a", timestamp_ms=12)


REFUSED: list[tuple[dict[str, Any], Step, str]] = [
    ({"window": tumbling(ms(10))}, lambda s, _r: s.range("a"), r"has no range here"),
    ({"window": tumbling(ms(10))}, lambda s, _r: s.as_of("a", 1), r"has no as_of here"),
    ({"ttl": ms(10)}, lambda s, _r: s.fetch("a", 0, 1), r"has no fetch here"),
]


@pytest.mark.parametrize(("kind", "step", "words"), REFUSED)
def test_what_a_kind_cannot_do(kind: dict[str, Any], step: Step, words: str) -> None:
    app = App("shop", log="memory:")
    running(app, step, app.store("s", key=str, value=str, **kind))
    with TopologyDriver(app) as driver, pytest.raises(InvalidError, match=words):
        driver.pipe("in", "x", key="a", timestamp_ms=12)


def test_declarations_that_are_refused() -> None:
    app = App("shop", log="memory:")
    wrong: Any = "1h"
    with pytest.raises(ValueError, match="takes one of window=, history= and ttl="):
        app.store("s", key=str, value=str, history=ms(1), ttl=ms(1))
    with pytest.raises(TypeError, match="is no window"):
        app.store("s", key=str, value=str, window=wrong)
    with pytest.raises(ValueError, match="is not above 0"):
        app.store("s", key=str, value=str, ttl=timedelta(0))
    with pytest.raises(ValueError, match="a time below 0"):
        app.store("s", key=str, value=str, history=-ms(1))


def test_another_kind_under_the_same_name_is_refused() -> None:
    def put(store: Store[Any, Any], record: Record[str, Any]) -> bool:
        return store.put(record.key, record.value)

    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("a", "x", 1)])
        kinds: list[dict[str, Any]] = [{"history": ms(10)}, {"ttl": ms(10)}, {"window": tumbling(ms(10))}, {}]
        for kind in kinds:
            app = App("shop", log=log)
            running(app, put, app.store("s", key=str, value=str, **kind))
            if "history" in kind:
                app.run(until="end")
                continue
            with pytest.raises(TopologyError, match=r"was written by a versioned store of str to str"):
                app.run(until="end")
