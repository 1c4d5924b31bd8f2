"""Sliding windows: which ones a record updates and opens, against all windows of all records."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import milliseconds, seconds, sliding
from tailrace.windows.sliding import SlidingWindow

Content = dict[int, list[int]]


class Found(NamedTuple):
    start_ms: int
    timestamp_ms: int


def naive(times: list[int], difference: int) -> Content:
    """All windows there must be, by start, each with its records in order of arrival."""
    starts = {max(0, time - difference) for time in times} | {time + 1 for time in times}
    windows = {start: [time for time in times if start <= time <= start + difference] for start in sorted(starts)}
    return {start: content for start, content in windows.items() if content}


def add(window: SlidingWindow, contents: Content, time: int) -> tuple[Content, list[int]]:
    """Carry out the plan of one record; returns the windows and the starts of those that were written."""
    starts = sorted(contents)
    plan = window.plan([Found(start, max(contents[start])) for start in starts], time)
    after = {start: list(content) for start, content in contents.items()}
    for index in plan.updated:
        after[starts[index]].append(time)
    for start, source, takes_record in plan.opened:
        after[start] = [*(contents[starts[source]] if source is not None else []), *([time] if takes_record else [])]
    return dict(sorted(after.items())), [*(starts[i] for i in plan.updated), *(o.start_ms for o in plan.opened)]


@settings(max_examples=200, deadline=None)
@given(times=st.lists(st.integers(0, 60), max_size=20), difference=st.integers(0, 25))
def test_every_window_holds_what_it_covers(times: list[int], difference: int) -> None:
    window, contents = SlidingWindow(difference), dict[int, list[int]]()
    for count, time in enumerate(times, 1):
        contents, written = add(window, contents, time)
        assert contents == naive(times[:count], difference)
        assert len(written) == len(set(written)), "each window is written once"


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.integers(0, 200), max_size=20), difference=st.integers(0, 25), grace=st.integers(0, 10))
def test_what_retention_lets_go_is_not_missed(times: list[int], difference: int, grace: int) -> None:
    """Windows that are open come out the same with the forgotten ones there or not; closed ones are not written."""
    window = SlidingWindow(difference, grace)
    kept, all_windows, origin = dict[int, list[int]](), dict[int, list[int]](), 0
    for time in times:
        origin = max(origin, time)
        kept = _add_open(window, {s: c for s, c in kept.items() if s + window.retention_ms > origin}, time, origin)
        all_windows = _add_open(window, all_windows, time, origin)
        still_kept = {s: c for s, c in all_windows.items() if s + window.retention_ms > origin}
        assert {s: c for s, c in kept.items() if s + window.retention_ms > origin} == still_kept


def _add_open(window: SlidingWindow, contents: Content, time: int, origin: int) -> Content:
    after, _ = add(window, contents, time)
    return {
        s: c if window.closes_at(window.end(s)) > origin else contents[s]
        for s, c in after.items()
        if _is_there(window, contents, s, origin)
    }


def _is_there(window: SlidingWindow, contents: Content, start: int, origin: int) -> bool:
    return start in contents or window.closes_at(window.end(start)) > origin


def steps(difference: int, times: list[int]) -> list[Content]:
    """What each record writes: start of a window to its records."""
    window, contents, out = SlidingWindow(difference), dict[int, list[int]](), list[Content]()
    for time in times:
        contents, written = add(window, contents, time)
        out.append({start: contents[start] for start in sorted(written)})
    return out


def test_w10_in_order() -> None:
    assert steps(10, [20, 25, 30, 31]) == [
        {10: [20]},
        {15: [20, 25], 21: [25]},
        {20: [20, 25, 30], 21: [25, 30], 26: [30]},
        {21: [25, 30, 31], 26: [30, 31], 31: [31]},
    ]


def test_w11_out_of_order() -> None:
    assert steps(10, [20, 30, 25, 12]) == [
        {10: [20]},
        {20: [20, 30], 21: [30]},
        {15: [20, 25], 20: [20, 30, 25], 21: [30, 25], 26: [30]},
        {2: [12], 10: [20, 12], 13: [20]},
    ]


def test_w12_early_times_share_the_first_window() -> None:
    assert steps(10, [3, 5, 5, 16]) == [{0: [3]}, {0: [3, 5], 4: [5]}, {0: [3, 5, 5], 4: [5, 5]}, {6: [16]}]


def test_w22_closed_when_stream_time_is_past_end_and_grace() -> None:
    assert sliding(milliseconds(10)).closes_at(20) == 21
    assert sliding(milliseconds(10), grace=milliseconds(5)).closes_at(20) == 26


def test_values_text_and_refusals() -> None:
    window = sliding(seconds(10), grace=seconds(1))
    assert str(window) == "sliding(10s, grace=1s)"
    assert window.split_key(window.key_bytes(b"k", 3, 10_003)) == (b"k", 3, 10_003)
    assert sliding(seconds(0)).difference_ms == 0
    with pytest.raises(ValueError, match="difference of a sliding window must not be negative"):
        sliding(seconds(-1))
