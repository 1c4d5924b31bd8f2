import dataclasses
import struct
from datetime import UTC, datetime
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.errors import DecodeError, EncodeError
from tailrace.streams.values.codec import (
    NATURAL_KEY,
    NATURAL_VALUE,
    TypeCodec,
    codec_of,
    decode_error,
    encode_error,
    guarded,
    json,
    msgpack,
    windowed,
)
from tailrace.windows.duration import minutes, seconds
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.unlimited import unlimited
from tailrace.windows.windowed import Windowed

I64 = st.integers(-(2**63), 2**63 - 1)
EXAMPLES = settings(max_examples=60, deadline=None)


class Click(msgspec.Struct):
    product: str
    at: int = 0


class Other(msgspec.Struct, tag=True):
    x: int


class Another(msgspec.Struct, tag=True):
    x: int


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Row(TypedDict):
    name: str
    tags: list[str]


def back(codec: TypeCodec, value: Any) -> Any:
    return codec.decode(codec.encode(value))


@EXAMPLES
@given(st.text(), st.binary(), I64, st.floats(allow_nan=False))
def test_what_is_encoded_comes_back(text: str, data: bytes, number: int, real: float) -> None:
    assert back(codec_of(str), text) == text
    assert back(codec_of(bytes), data) == data
    assert back(codec_of(int), number) == number
    assert back(codec_of(float), real) == real
    assert back(codec_of(Click), Click(text, number)) == Click(text, number)
    assert back(codec_of(Click, "msgpack"), Click(text, number)) == Click(text, number)
    assert back(codec_of(Point, "msgpack"), Point(real, 1.0)) == Point(real, 1.0)
    assert back(codec_of(Row), {"name": text, "tags": [text]}) == {"name": text, "tags": [text]}
    assert back(codec_of(list[int]), [number]) == [number]
    assert back(codec_of(dict[str, bytes]), {text: data}) == {text: data}
    assert back(codec_of(tuple[int, str]), (number, text)) == (number, text)


def test_the_bytes_are_kafkas() -> None:
    assert codec_of(str).encode("é") == b"\xc3\xa9"
    assert codec_of(int).encode(-1) == b"\xff" * 8
    assert codec_of(float).encode(1.5) == struct.pack(">d", 1.5)
    assert codec_of(bytes).encode(b"x") == b"x"
    assert codec_of(Click).encode(Click("tea")) == b'{"product":"tea","at":0}'


@pytest.mark.parametrize("of", [None, Any])
def test_without_a_type_json_is_read_as_it_stands(of: Any) -> None:
    assert back(codec_of(of), {"a": [1, None, "x"]}) == {"a": [1, None, "x"]}


def test_decode_is_the_bare_method() -> None:
    assert type(codec_of(Click).decode).__name__ == "builtin_function_or_method"
    assert codec_of(str).decode is bytes.decode
    assert codec_of(bytes).decode is bytes


def test_only_keys_with_one_form_are_hashable() -> None:
    assert [codec_of(of).hashable for of in (str, bytes, int)] == [True, True, True]
    assert not any(codec_of(of).hashable for of in (float, Click, tuple[int, int], bool, None))
    assert not codec_of(str, "json").hashable


def test_forms_and_objects() -> None:
    assert codec_of(Click, "json").encode(Click("a", 1)) == b'{"product":"a","at":1}'
    assert codec_of(str, "json").encode("a") == b'"a"'
    both = codec_of(Any, json(Other | Another))
    assert back(both, Another(1)) == Another(1)
    assert back(codec_of(Any, msgpack(Other | Another)), Other(2)) == Other(2)

    class Upper:
        hashable = True

        def encode(self, value: str) -> bytes:
            return value.upper().encode()

        def decode(self, data: bytes) -> str:
            return data.decode()

    codec = codec_of(str, Upper())
    assert (codec.name, codec.hashable, back(codec, "a")) == ("Upper", True, "A")


class Unknown:
    pass


@pytest.mark.parametrize(
    ("of", "codec"), [(Unknown, None), (str, "yaml"), (str, object()), (set[Unknown] | int | str, Unknown())]
)
def test_what_has_no_codec_is_refused(of: Any, codec: Any) -> None:
    with pytest.raises(TypeError, match=r"Unknown|codec="):
        codec_of(of, codec)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (str, 1),
        (str, "\ud800"),
        (bytes, "x"),
        (bytes, 5),
        (int, 2**63),
        (int, 1.0),
        (float, "1"),
        (Click, {"product": "x"}),
        (Point, 1),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_place(of: Any, value: Any) -> None:
    codec = guarded(codec_of(of), "the value of topic 'out'", "; declare another type")
    with pytest.raises(EncodeError, match=r"the value of topic 'out' cannot be encoded as .*; declare another type"):
        codec.encode(value)


@pytest.mark.parametrize(
    ("of", "data"),
    [(str, b"\xff"), (int, b"1234567"), (float, b""), (Click, b"{}"), (Click, b"{"), (list[int], b'["a"]')],
)
def test_bytes_of_something_else_are_an_error_in_the_decoders_words(of: Any, data: bytes) -> None:
    codec = codec_of(of)
    with pytest.raises(Exception) as raised:  # whatever the decoder raises
        codec.decode(data)
    error = decode_error("the value of clicks-0@17", codec, raised.value)
    assert isinstance(error, DecodeError)
    assert str(raised.value) in str(error)
    assert "clicks-0@17" in str(error)


@pytest.mark.parametrize(("of", "value"), [(Point, Point(float("inf"), 1)), (list[float], [float("nan")])])
def test_json_refuses_what_it_cannot_bring_back(of: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="JSON has no inf"):
        codec_of(of).encode(value)
    assert codec_of(float | None, "json").encode(None) == b"null"


def test_a_long_value_is_cut_in_the_message() -> None:
    error = encode_error("the value", codec_of(str), "x" * 10_000, ValueError("no"))
    assert len(str(error)) < 200


WINDOWS = [
    tumbling(minutes(1)),
    hopping(minutes(1), seconds(10)),
    sliding(seconds(5)),
    session(seconds(5)),
    unlimited(),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windowed_keys_have_kafkas_form(window: Any) -> None:
    end = window.split_key(window.key_bytes(b"tea", 60_000, 65_000))[2]
    codec = windowed(str, window)
    key = Windowed("tea", 60_000, end)
    times = struct.pack(">qq", end, 60_000) if window == WINDOWS[3] else struct.pack(">q", 60_000)
    assert codec.encode(key) == b"tea" + times
    assert codec.decode(codec.encode(key)) == key


def test_a_windowed_key_without_a_type_is_read_back_and_lies_where_a_typed_one_does() -> None:
    codec, key = windowed(NATURAL_KEY, tumbling(minutes(1))), Windowed("tea", 0, 60_000)
    assert codec.decode(codec.encode(key)) == key
    assert codec.partition_bytes(key) == b"tea" + bytes(8)
    assert windowed(str, tumbling(minutes(1))).encode(key) == b"tea" + bytes(8)


def test_a_windowed_key_without_its_window() -> None:
    codec = codec_of(Windowed[str])
    with pytest.raises(TypeError, match="key_codec=windowed"):
        codec.decode(b"tea" + bytes(8))
    with pytest.raises(TypeError, match="expected Windowed, got str"):
        codec.encode("tea")


@EXAMPLES
@given(st.one_of(st.text(), st.binary(), I64))
def test_natural_keys_come_back_and_partition_like_typed_ones(key: Any) -> None:
    assert back(NATURAL_KEY, key) == key
    assert type(back(NATURAL_KEY, key)) is type(key)
    assert NATURAL_KEY.partition_bytes(key) == codec_of(type(key)).encode(key)


@pytest.mark.parametrize("key", [True, 1.0, (1, 2), None])
def test_other_keys_have_no_natural_form(key: Any) -> None:
    with pytest.raises(TypeError, match="no natural bytes"):
        NATURAL_KEY.encode(key)


def test_a_natural_key_without_its_mark() -> None:
    with pytest.raises(ValueError, match="says its type"):
        NATURAL_KEY.decode(b"tea")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    I64,
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.just(UTC)),
)
BUILT_IN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | I64 | st.binary(), inner, max_size=3),
    max_leaves=6,
)


@EXAMPLES
@given(BUILT_IN)
def test_natural_values_come_back(value: Any) -> None:
    found = back(NATURAL_VALUE, value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [Click("a"), (1, 2), {1, 2}, Point(1, 2), [Click("a")], {"a": (1,)}, {(1, 2): 3}, datetime(2026, 1, 1)]
)
def test_values_that_would_come_back_as_something_else_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="would not come back"):
        NATURAL_VALUE.encode(value)


@pytest.mark.parametrize(
    ("of", "value", "told"),
    [
        (str, 5, "cannot be encoded as str: expected str, got int (the value: 5)"),
        (str, None, "expected str, got None"),
        (int, "s", "cannot be encoded as int: expected int, got str"),
        (int, 1.5, "expected int, got float"),
        (float, "x", "expected float, got str"),
        (int, 2**70, "an int has 64 bits, and this one needs more"),
    ],
)
def test_a_value_of_another_type_is_told_in_plain_words(of: Any, value: object, told: str) -> None:
    with pytest.raises(EncodeError) as raised:
        guarded(codec_of(of), "the key").encode(value)
    assert told in str(raised.value)
