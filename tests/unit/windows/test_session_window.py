"""Sessions: which records belong together, against connected components, and when a session closes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import Windowed, milliseconds, seconds, session
from tailrace.windows.session import SessionWindow


def components(times: list[int], gap: int) -> list[tuple[int, int]]:
    """The naive model: sorted times, cut wherever two neighbours are further apart than the gap."""
    found: list[tuple[int, int]] = []
    for time in sorted(times):
        if found and time - found[-1][1] <= gap:
            found[-1] = (found[-1][0], time)
        else:
            found.append((time, time))
    return found


def bounds(*sessions: tuple[int, int]) -> list[Windowed[str]]:
    return [Windowed("A", start, end) for start, end in sessions]


def play(window: SessionWindow, times: list[int]) -> list[tuple[int, int]]:
    sessions: list[tuple[int, int]] = []
    for time in times:
        merge = window.merge(bounds(*sessions), time)
        kept = [found for i, found in enumerate(sessions) if i not in merge.indices]
        sessions = sorted([*kept, (merge.start_ms, merge.end_ms)])
    return sessions


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.integers(0, 120), max_size=25), gap=st.integers(1, 20))
def test_sessions_are_the_components_whatever_the_order(times: list[int], gap: int) -> None:
    assert play(SessionWindow(gap), times) == components(times, gap)


def test_w14_the_gap_is_inclusive() -> None:
    window = session(milliseconds(5), grace=milliseconds(100))
    assert window.merge(bounds((0, 0)), 5) == ([0], 0, 5)
    assert window.merge(bounds((0, 5)), 11) == ([], 11, 11)
    assert window.merge(bounds((11, 16)), 16) == ([0], 11, 16)


def test_one_record_joins_two_sessions() -> None:
    assert session(milliseconds(5)).merge(bounds((0, 3), (8, 9), (30, 31)), 6) == ([0, 1], 0, 9)


def test_w16_a_record_is_judged_by_itself() -> None:
    window = session(milliseconds(5))
    assert window.is_late(4, 10)
    assert not window.is_late(5, 10)


@settings(max_examples=100, deadline=None)
@given(
    end=st.integers(0, 100),
    time=st.integers(0, 100),
    origin=st.integers(0, 200),
    gap=st.integers(1, 20),
    grace=st.integers(0, 20),
)
def test_after_retention_no_record_in_time_can_join(end: int, time: int, origin: int, gap: int, grace: int) -> None:
    window = SessionWindow(gap, grace)
    if not window.is_late(time, origin) and window.merge(bounds((end, end)), time).indices:
        assert end + window.retention_ms > origin


def test_w21_closed_when_stream_time_is_past_end_gap_and_grace() -> None:
    assert session(milliseconds(5)).closes_at(4) == 10
    assert session(milliseconds(5), grace=milliseconds(100)).closes_at(4) == 110


def test_text_and_bytes() -> None:
    window = session(seconds(30), grace=seconds(60))
    assert str(window) == "session(30s, grace=1min)"
    assert window.split_key(window.key_bytes(b"k", 3, 9)) == (b"k", 3, 9)
