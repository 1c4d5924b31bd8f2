"""What a join holds of one key and time, to bytes and back."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.state.held import Held, HeldCodec


def test_the_format() -> None:
    assert HeldCodec().encode(Held([b"ab", b""], matched=True)) == b"\x01\x00\x00\x00\x02ab\x00\x00\x00\x00"


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.booleans())
def test_there_and_back(values: list[bytes], matched: bool) -> None:
    found = HeldCodec().decode(HeldCodec().encode(Held(values, matched=matched)))
    assert (found.values, found.matched) == (values, matched)
