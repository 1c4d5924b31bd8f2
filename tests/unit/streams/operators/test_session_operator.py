"""Sessions in a task: the cases of the semantics with the cache off and on, and a naive model."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.memory import MemoryBackend
from tailrace.state.session import SessionStore
from tailrace.state.store import Codec, Keyspace
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.fold import Emitter, Ways, aggregate_fold, count_fold, reduce_fold
from tailrace.streams.operators.session import SessionAggregate, aggregate_join, count_join, reduce_join
from tailrace.streams.program.topology import Forward
from tailrace.tests.support.operators import Build, OperatorDriver, final
from tailrace.tests.support.semantics import Output, case
from tailrace.tests.support.state import IntCodec, ListCodec, TextCodec
from tailrace.windows.session import SessionWindow

Functions = tuple[Callable[..., Any], Callable[..., Any], Codec[Any]]


def _plus(left: str, right: str) -> str:
    return f"{left}+{right}"


def _concat(text: str, value: str) -> str:
    return text + value


CONCAT: Functions = (aggregate_fold(str, _concat), aggregate_join(str, _plus), TextCodec())
COUNT: Functions = (count_fold, count_join, IntCodec())


def built(gap: int, grace: int = 0, functions: Functions = CONCAT, *, on_close: bool = False) -> Build:
    def build(context: TaskContext, keyspace: Keyspace, forward: Forward, late: Forward) -> SessionAggregate:
        fold, join, codec = functions
        window = SessionWindow(gap, grace)
        store = SessionStore[Any, Any]("s", keyspace, TextCodec(), codec)
        ways = Ways(fold, Emitter(context, forward, codec), late, on_close, window.retention_ms)
        return SessionAggregate(context, store, window, ways, join, final=ways.on_close)

    return build


CASES = {
    "W14": built(5, 100),
    "W16": built(5),
    "W17": built(5, 100, COUNT),
    "W21": built(5, on_close=True),
    "W21b": built(5, on_close=True),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_without_a_cache(name: str) -> None:
    """Step by step. The null before an equal key may be left out (W14), and is."""
    found, driver = case(name), OperatorDriver(CASES[name], caching=False)
    for given_, expected in found.steps:
        driver.pipe(given_.key, given_.value, given_.timestamp_ms)
        keys = [out.key for out in expected]
        assert driver.take() == [out for i, out in enumerate(expected) if out.key not in keys[i + 1 :]], given_
    assert _dropped(driver) == found.dropped + (1 if name == "W17" else 0)  # ours drops the null value too


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("max_entries", [0, 100])
@pytest.mark.parametrize("name", CASES)
def test_cases_with_a_cache(name: str, every: int, max_entries: int) -> None:
    """The final results are the same, however often it is committed and however little stays in memory."""
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
    if name.startswith("W21"):
        assert results == expected, "finals come once, in order, cache or not"


def _dropped(driver: OperatorDriver) -> int:
    return sum(driver.context.dropped.values())


def test_late_and_nulls_are_counted_by_reason() -> None:
    driver = OperatorDriver(built(5), caching=False)
    for key, value, time in [("A", "a", 20), (None, "x", 20), ("A", None, 20), ("A", "b", 14), ("A", "c", 15)]:
        driver.pipe(key, value, time)
    assert driver.context.dropped == {"null_key": 1, "null_value": 1, "late": 1}
    assert driver.late == [("A", "b", 14)]
    assert final(driver.take()) == {"A@[15,20]": ("+ac", 20)}


def test_what_nobody_saw_is_not_retracted() -> None:
    driver = OperatorDriver(built(5), caching=True)
    driver.pipe("A", "a", 0)
    driver.pipe("A", "b", 3)
    driver.commit()
    assert driver.take() == [Output("A@[0,3]", "+ab", 3)]
    driver.pipe("A", "c", 4)
    driver.pipe("A", "d", 5)
    driver.commit()
    assert driver.take() == [Output("A@[0,3]", None, 3), Output("A@[0,5]", "+++abcd", 5)]


def test_one_record_joins_two_sessions_earliest_first() -> None:
    driver = OperatorDriver(built(5, 100), caching=False)
    for value, time in [("c", 8), ("a", 0), ("b", 4)]:
        driver.pipe("A", value, time)
    assert driver.take()[2:] == [
        Output("A@[0,0]", None, 0),
        Output("A@[8,8]", None, 8),
        Output("A@[0,8]", "+a+cb", 8),
    ]


def test_a_reducer_that_deletes_removes_the_session() -> None:
    def join(left: str, right: str) -> str | None:
        return None if right == "DEL" else left + right

    functions: Functions = (reduce_fold(join, TextCodec()), reduce_join(join), TextCodec())
    for caching in (False, True):
        driver = OperatorDriver(built(5, 100, functions), caching=caching)
        for value, time in [("a", 0), ("b", 1), ("DEL", 2), ("c", 3)]:
            driver.pipe("A", value, time)
            driver.commit()
        results = driver.take()
        assert final(results) == {"A@[3,3]": ("c", 3)}
        assert Output("A@[0,1]", None, 1 if not caching else 2) in results
        assert OperatorDriver(built(5, 100), caching=False, backend=driver.backend).node.open_windows(3) == 1


def test_closed_sessions_are_final_where_results_are_sent_once() -> None:
    """W16's input with emit="close": [0,3] went out, so what follows within the gap is a session of its own."""
    driver = OperatorDriver(built(5, on_close=True), caching=True)
    for given_, _ in case("W16").steps:
        driver.pipe(given_.key, given_.value, given_.timestamp_ms)
    assert driver.take() == [Output("A@[0,3]", "+ab", 3), Output("B@[4,4]", "x", 4)]
    driver.advance(1_000)
    assert driver.take() == [Output("A@[5,9]", "+de", 9), Output("B@[10,10]", "x", 10)]


def test_a_restart_sends_no_final_twice_and_forgets_none() -> None:
    driver = OperatorDriver(built(5, on_close=True), caching=True)
    for key, time in [("A", 0), ("B", 4), ("C", 8), ("D", 9)]:
        driver.pipe(key, "x", time)
    assert [out.key for out in driver.take()] == ["A@[0,0]"]
    assert driver.node.open_windows(driver.context.stream_time_ms) == 3
    driver.commit()
    again = OperatorDriver(built(5, on_close=True), caching=True, backend=driver.backend)
    again.resume(9)
    assert again.node.open_windows(9) == 3
    again.pipe("A", "y", 14)
    assert [out.key for out in again.take()] == ["B@[4,4]", "C@[8,8]"]
    again.advance(50)
    assert [out.key for out in again.take()] == ["D@[9,9]", "A@[14,14]"]
    again.advance(100)
    again.commit()
    assert list(driver.backend.keyspace("s").range(b"\1", None)) == [], "state of closed sessions goes"


def test_an_aggregate_changed_in_place_is_safe() -> None:
    def add(into: list[int], value: int) -> list[int]:
        into.append(value)
        return into

    def merge(left: list[int], right: list[int]) -> list[int]:
        left.extend(right)
        return left

    functions: Functions = (aggregate_fold(list, add), aggregate_join(list, merge), ListCodec())
    seen: list[Any] = []
    driver = OperatorDriver(built(5, 100, functions), caching=False)
    for value, time in [(1, 0), (2, 3), (3, 3), (4, 4)]:
        driver.pipe("A", value, time)
        seen += driver.take()
    assert [out.value for out in seen if out.value] == ["[1]", "[1, 2]", "[1, 2, 3]", "[1, 2, 3, 4]"]


def naive(records: list[tuple[str, int]], gap: int, grace: int) -> tuple[dict[tuple[str, int, int], int], int]:
    """Counts by key and session of the records that are not late, and how many are."""
    counts: dict[tuple[str, int, int], int] = {}
    late, origin = 0, 0
    for key, time in records:
        origin = max(origin, time)
        if time + gap + grace < origin:
            late += 1
            continue
        touching = [s for s in counts if s[0] == key and s[1] - gap <= time <= s[2] + gap]
        bounds = [time, *(s[1] for s in touching), *(s[2] for s in touching)]
        count = 1 + sum(counts.pop(s) for s in touching)
        counts[key, min(bounds), max(bounds)] = count
    return counts, late


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 60)), max_size=40),
    gap=st.integers(1, 8),
    grace=st.integers(0, 8),
    caching=st.booleans(),
    every=st.integers(1, 10),
    max_entries=st.sampled_from([0, 2, 100]),
)
def test_the_table_is_the_naive_models(
    records: list[tuple[str, int]], gap: int, grace: int, caching: bool, every: int, max_entries: int
) -> None:
    driver = OperatorDriver(built(gap, grace, COUNT), caching=caching, max_entries=max_entries)
    results: list[Output] = []
    for number, (key, time) in enumerate(records, 1):
        driver.pipe(key, "x", time)
        if number % every == 0:
            driver.commit()
        results += driver.take()
    driver.commit()
    results += driver.take()
    counts, late = naive(records, gap, grace)
    assert final(results) == {f"{k}@[{s},{e}]": (str(count), e) for (k, s, e), count in counts.items()}
    assert driver.context.dropped["late"] == late == len(driver.late)


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 6), st.integers(0, 12)), max_size=40),
    gap=st.integers(1, 8),
    every=st.integers(1, 10),
    max_entries=st.sampled_from([0, 100]),
)
def test_finals_are_the_sessions_where_disorder_is_within_the_grace(
    delays: list[tuple[str, int, int]], gap: int, every: int, max_entries: int
) -> None:
    driver = OperatorDriver(built(gap, 12, COUNT, on_close=True), caching=True, max_entries=max_entries)
    records: list[tuple[str, int]] = []
    now = 20
    for number, (key, step, delay) in enumerate(delays, 1):
        now += step
        records.append((key, now - delay))
        driver.pipe(key, "x", now - delay, None)
        if number % every == 0:
            driver.commit()
    driver.advance(10_000)
    counts, late = naive(records, gap, 12)
    results = driver.take()
    assert late == 0
    assert len(results) == len(counts)
    assert final(results) == {f"{k}@[{s},{e}]": (str(count), e) for (k, s, e), count in counts.items()}


def test_behind_a_repartition_late_goes_by_origin_and_closing_by_stream_time() -> None:
    driver = OperatorDriver(built(5, on_close=True), caching=True, backend=MemoryBackend())
    driver.pipe("A", "a", 100, origin_ms=100)
    driver.pipe("A", "b", 3, origin_ms=3)
    driver.pipe("A", "c", 3, origin_ms=9)
    assert driver.context.dropped == {"late": 1}
    assert driver.take() == []
    driver.advance(9)
    assert driver.take() == [Output("A@[3,3]", "b", 3)]
