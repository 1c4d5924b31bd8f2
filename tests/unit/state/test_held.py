"""What a join holds of one key and time, to bytes and back."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.state.held import HeldCodec, HeldValues, held, held_matched, held_values, held_with, is_matched


def test_the_format() -> None:
    one = held(b"ab", matched=True)
    assert HeldCodec().encode(one) == b"\x01\x00\x00\x00\x02ab"
    two = held_with(one, b"", matched=False)
    assert HeldCodec().encode(two) == b"\x01\x00\x00\x00\x02ab\x00\x00\x00\x00"


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), min_size=1, max_size=5), st.booleans())
def test_there_and_back(records: list[tuple[bytes, bool]], marked: bool) -> None:
    (first, matched), *others = records
    all_of_them: HeldValues = held(first, matched=matched)
    for value, found in others:
        all_of_them = held_with(all_of_them, value, matched=found)
    if marked:
        all_of_them = held_matched(all_of_them)
    for of in (all_of_them, HeldCodec().decode(HeldCodec().encode(all_of_them))):
        assert list(held_values(of)) == [value for value, _ in records]
        assert is_matched(of) == (marked or any(found for _, found in records))
