"""Join windows: how long a record's window is open, how long it may still be of use, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.windows.join import JoinWindow


def test_a_window_is_open_for_the_last_partner_and_the_grace() -> None:
    window = JoinWindow(before_ms=3, after_ms=10, grace_ms=5)
    assert (window.left_open_ms, window.right_open_ms, window.either_open_ms) == (15, 8, 15)
    assert (window.retention_ms, window.either_retention_ms) == (19, 26)
    assert str(window) == "pairs(before=3ms, after=10ms, grace=5ms)"


def test_a_bound_may_be_negative_while_some_time_is_left() -> None:
    later = JoinWindow(before_ms=-5, after_ms=10)
    assert not later.takes_itself
    assert (later.left_open_ms, later.right_open_ms) == (10, 0)
    with pytest.raises(ValueError, match=r"before=-5ms and after=4ms leave no time"):
        JoinWindow(before_ms=-5, after_ms=4)
    with pytest.raises(ValueError, match=r"grace=-1ms is negative"):
        JoinWindow(before_ms=5, after_ms=4, grace_ms=-1)


_MS = st.integers(-20, 20)


@given(_MS, _MS, st.integers(0, 10), st.integers(0, 99), st.data())
def test_who_is_not_late_finds_every_partner_kept(
    one_ms: int, other_ms: int, grace_ms: int, left_ms: int, data: st.DataObject
) -> None:
    bounds = sorted((one_ms, other_ms))
    window = JoinWindow(before_ms=-bounds[0], after_ms=bounds[1], grace_ms=grace_ms)
    right_ms = left_ms + data.draw(st.integers(bounds[0], bounds[1]))
    # The last clock at which either may come, while the other one waits.
    assert left_ms + window.retention_ms > right_ms + window.right_open_ms
    assert right_ms + window.retention_ms > left_ms + window.left_open_ms
    for open_ms, time_ms, partner_ms in (
        (window.left_open_ms, left_ms, right_ms),
        (window.right_open_ms, right_ms, left_ms),
    ):
        assert time_ms + open_ms >= max(time_ms, partner_ms)
        assert partner_ms + window.either_retention_ms > time_ms + window.either_open_ms or not window.takes_itself
