"""Sliding windows in a task: the cases of the semantics with the cache off and on, and a naive model."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.session import SessionStore
from tailrace.state.store import Codec, Keyspace
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.fold import Emitter, Fold, Ways, aggregate_fold, count_fold, reduce_fold
from tailrace.streams.operators.sliding import SlidingAggregate
from tailrace.streams.program.topology import Forward
from tailrace.tests.support.operators import Build, OperatorDriver, final
from tailrace.tests.support.semantics import Output, case
from tailrace.tests.support.state import IntCodec, ListCodec, TextCodec
from tailrace.windows.sliding import SlidingWindow

Functions = tuple[Fold, Codec[Any]]


def _concat(text: str, value: str) -> str:
    return text + value


CONCAT: Functions = (aggregate_fold(str, _concat), TextCodec())
COUNT: Functions = (count_fold, IntCodec())


def built(difference: int, grace: int = 0, functions: Functions = CONCAT, *, on_close: bool = False) -> Build:
    def build(context: TaskContext, keyspace: Keyspace, forward: Forward, late: Forward) -> SlidingAggregate:
        fold, codec = functions
        window = SlidingWindow(difference, grace)
        store = SessionStore[Any, Any]("s", keyspace, TextCodec(), codec, difference_ms=difference)
        ways = Ways(fold, Emitter(context, forward, codec), late, on_close, window.retention_ms)
        return SlidingAggregate(context, store, window, ways, codec)

    return build


CASES = {
    "W06e": built(10, functions=COUNT),
    "W10": built(10, 100),
    "W11": built(10, 100),
    "W12": built(10, 100),
    "W22": built(10, on_close=True),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_without_a_cache(name: str) -> None:
    found, driver = case(name), OperatorDriver(CASES[name], caching=False)
    for given_, expected in found.steps:
        driver.pipe(given_.key, given_.value, given_.timestamp_ms)
        assert sorted(driver.take()) == sorted(expected), given_
    assert sum(driver.context.dropped.values()) == found.dropped


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("max_entries", [0, 100])
@pytest.mark.parametrize("name", CASES)
def test_cases_with_a_cache(name: str, every: int, max_entries: int) -> None:
    found, driver = case(name), OperatorDriver(CASES[name], caching=True, max_entries=max_entries)
    results: list[Output] = []
    for number, (given_, _) in enumerate(found.steps, 1):
        driver.pipe(given_.key, given_.value, given_.timestamp_ms)
        if number % every == 0:
            driver.commit()
        results += driver.take()
    driver.commit()
    results += driver.take()
    expected = [out for _, step in found.steps for out in step]
    assert final(results) == final(expected)
    if name == "W22":
        assert results == expected, "finals come once, in order, cache or not"


def test_a_record_that_no_open_window_takes_is_late() -> None:
    driver = OperatorDriver(built(10), caching=False)
    driver.pipe("B", "x", 35)
    driver.pipe("A", "a", 34)
    assert driver.late == [("A", "a", 34)]
    driver.pipe("A", "b", 35)
    driver.take()
    driver.pipe("A", "c", 28)
    assert driver.take() == [Output("A@[25,35]", "bc", 35), Output("A@[29,39]", "b", 35)]
    assert driver.context.dropped == {"late": 1}


def test_windows_do_not_share_what_is_changed_in_place() -> None:
    def add(into: list[int], value: list[int]) -> list[int]:
        into.extend(value)
        return into

    for fold in (aggregate_fold(list, add), reduce_fold(add, ListCodec())):
        driver = OperatorDriver(built(10, 100, (fold, ListCodec())), caching=True)
        for value, time in [([1], 20), ([3], 30), ([2], 25), ([9], 12)]:
            driver.pipe("A", value, time)
        driver.commit()
        assert {key: value for key, (value, _) in final(driver.take()).items()} == {
            "A@[10,20]": "[1, 9]",
            "A@[20,30]": "[1, 3, 2]",
            "A@[21,31]": "[3, 2]",
            "A@[15,25]": "[1, 2]",
            "A@[26,36]": "[3]",
            "A@[2,12]": "[9]",
            "A@[13,23]": "[1]",
        }


def test_a_reducer_that_deletes_removes_the_window() -> None:
    def join(left: str, right: str) -> str | None:
        return None if right == "DEL" else left + right

    driver = OperatorDriver(built(10, 100, (reduce_fold(join, TextCodec()), TextCodec())), caching=False)
    driver.pipe("A", "a", 20)
    driver.pipe("A", "DEL", 20)
    assert driver.take() == [Output("A@[10,20]", "a", 20), Output("A@[10,20]", None, 20)]
    driver.pipe("A", "b", 20)
    assert driver.take() == [Output("A@[10,20]", "b", 20)]


def test_the_changelog_is_that_of_windows() -> None:
    driver = OperatorDriver(built(10), caching=True)
    driver.pipe("A", "a", 20)
    driver.commit()
    assert driver.changelog == [(b"A" + (10).to_bytes(8) + bytes(4), b"a", 20)]


def test_a_restart_sends_no_final_twice() -> None:
    driver = OperatorDriver(built(10, on_close=True), caching=True)
    for value, time in [("a", 20), ("b", 25)]:
        driver.pipe("A", value, time)
    assert driver.take() == [Output("A@[10,20]", "a", 20)]
    driver.commit()
    again = OperatorDriver(built(10, on_close=True), caching=True, backend=driver.backend)
    again.resume(25)
    again.pipe("A", "c", 31)
    assert again.take() == [Output("A@[15,25]", "ab", 25)]
    again.advance(1_000)
    assert again.take() == [Output("A@[21,31]", "bc", 31), Output("A@[26,36]", "c", 31)]
    again.commit()
    assert list(driver.backend.keyspace("s").range(b"\1", None)) == []


def naive(records: list[tuple[str, int]], difference: int) -> dict[str, tuple[str | None, int]]:
    """All windows there must be, each with its count and its largest time."""
    found: dict[str, tuple[str | None, int]] = {}
    for key in {key for key, _ in records}:
        times = [time for k, time in records if k == key]
        for start in {max(0, time - difference) for time in times} | {time + 1 for time in times}:
            content = [time for time in times if start <= time <= start + difference]
            if content:
                found[f"{key}@[{start},{start + difference}]"] = (str(len(content)), max(content))
    return found


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 40)), max_size=30),
    difference=st.integers(0, 12),
    caching=st.booleans(),
    on_close=st.booleans(),
    every=st.integers(1, 10),
    max_entries=st.sampled_from([0, 2, 100]),
)
def test_the_table_is_the_naive_models(
    records: list[tuple[str, int]], difference: int, caching: bool, on_close: bool, every: int, max_entries: int
) -> None:
    """The grace covers all disorder, so nothing is late."""
    driver = OperatorDriver(built(difference, 40, COUNT, on_close=on_close), caching=caching, max_entries=max_entries)
    results: list[Output] = []
    for number, (key, time) in enumerate(records, 1):
        driver.pipe(key, "x", time)
        if number % every == 0:
            driver.commit()
        results += driver.take()
    driver.commit()
    driver.advance(10_000)
    results += driver.take()
    assert final(results) == naive(records, difference)
    assert driver.late == []
    if on_close:
        assert len(results) == len(final(results)), "each final result once"


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 80)), max_size=30),
    difference=st.integers(0, 8),
    grace=st.integers(0, 8),
    every=st.integers(1, 10),
)
def test_with_late_records_cache_and_commits_change_nothing(
    records: list[tuple[str, int]], difference: int, grace: int, every: int
) -> None:
    finals: list[dict[str, tuple[str | None, int]]] = []
    for caching, on_close, step, max_entries in [
        (False, False, 1000, 100),
        (True, False, every, 0),
        (True, True, every, 2),
    ]:
        driver = OperatorDriver(
            built(difference, grace, COUNT, on_close=on_close), caching=caching, max_entries=max_entries
        )
        results: list[Output] = []
        for number, (key, time) in enumerate(records, 1):
            driver.pipe(key, "x", time)
            if number % step == 0:
                driver.commit()
        driver.commit()
        driver.advance(10_000)
        results += driver.take()
        finals.append(final(results))
    assert finals[1] == finals[0]
    assert finals[2] == finals[0]
