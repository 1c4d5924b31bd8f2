"""What waits of a key, as bytes and back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.waiting import Waiting, decode_waiting, encode_waiting

VALUES = st.none() | st.binary(max_size=20)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(1 << 63), (1 << 63) - 1), VALUES, VALUES, st.booleans())
def test_comes_back_as_it_was(due_ms: int, data: bytes | None, old: bytes | None, waits: bool) -> None:
    held = decode_waiting(encode_waiting(Waiting(due_ms, data, old, waits=waits)))
    assert (held.due_ms, held.data, held.old, held.waits) == (due_ms, data, old, waits)
    assert held.size == len(data or b"") + len(old or b"")


def test_the_bytes_are_those_of_the_format() -> None:
    # Flags, due time, length of the replaced value and its bytes, the value.
    assert encode_waiting(Waiting(258, b"new", b"ol")).hex(" ") == (
        "07 00 00 00 00 00 00 01 02 00 00 00 02 6f 6c 6e 65 77"
    )
