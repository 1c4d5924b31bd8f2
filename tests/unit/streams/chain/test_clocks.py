"""Clocks: the minimum over the writers, idleness, and their text form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.log.errors import InvalidError
from tailrace.streams.chain.clocks import NEVER, WriterClocks, decode_clocks, encode_clocks


def test_stream_time_is_the_minimum_once_all_have_spoken() -> None:
    clocks = WriterClocks(["a", "b"])
    clocks.advance("a", 100)
    assert clocks.update() == NEVER
    clocks.advance("b", 40)
    assert clocks.update() == 40
    clocks.advance("b", 30)
    assert clocks.update() == 40


def test_an_idle_writer_does_not_hold_the_others_back_and_all_idle_is_the_maximum() -> None:
    clocks = WriterClocks(["a", "b", "c"])
    clocks.advance("a", 100)
    clocks.advance("b", 60)
    clocks.set_idle("c", idle=True)
    assert clocks.update() == 60
    clocks.set_idle("a", idle=True)
    clocks.set_idle("b", idle=True)
    assert clocks.update() == 100
    clocks.set_idle("b", idle=False)
    clocks.advance("b", 70)
    assert clocks.update() == 100


Step = tuple[int, int, bool]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000), st.booleans()), max_size=30))
def test_stream_time_never_goes_back_and_never_passes_an_active_writer_that_never_idled(steps: list[Step]) -> None:
    clocks = WriterClocks(range(4))
    told = dict.fromkeys(range(4), NEVER)
    before = NEVER
    for writer, time_ms, idle in steps:
        clocks.advance(writer, time_ms)
        told[writer] = max(told[writer], time_ms)
        if writer:
            clocks.set_idle(writer, idle=idle)
        now = clocks.update()
        assert now >= before
        assert now <= told[0]  # writer 0 is never idle
        before = now


@given(st.lists(st.integers(-1, 2**50), min_size=1, max_size=20))
def test_text_form_keeps_the_times(times: list[int]) -> None:
    assert decode_clocks(encode_clocks(times)) == times


def test_very_many_writers_keep_their_minimum_and_restore() -> None:
    times = [10**12 + 10**9 * i for i in range(2_000)]
    text = encode_clocks(times)
    assert len(text) <= 3_000
    assert decode_clocks(text) == [10**12]
    clocks = WriterClocks(range(3))
    clocks.restore(decode_clocks(text))
    assert clocks.snapshot() == [10**12] * 4


def test_a_restored_clock_goes_on() -> None:
    clocks = WriterClocks(["a", "b"])
    clocks.advance("a", 5)
    clocks.advance("b", 9)
    clocks.update()
    other = WriterClocks(["a", "b"])
    other.restore(decode_clocks(encode_clocks(clocks.snapshot())))
    assert other.snapshot() == clocks.snapshot()


def test_the_times_of_another_number_of_writers_leave_stream_time_until_all_have_spoken() -> None:
    clocks = WriterClocks(range(3))
    clocks.restore([7, 7, 9])
    assert clocks.update() == 7
    for writer, time_ms in enumerate([20, 30]):
        clocks.advance(writer, time_ms)
    assert clocks.update() == 7
    clocks.advance(2, 25)
    assert clocks.update() == 20


@pytest.mark.parametrize("text", ["hello world", "/w==", "AYA=", "AQ==", "AQM=", "Af///////////////Hw=="])
def test_text_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="clocks"):
        decode_clocks(text)


def test_no_text_is_no_clocks() -> None:
    assert decode_clocks("") == []
