"""Bytes as what they are said to be."""

import struct

import pytest

from tailrace.cli.typed import BytesType, shower
from tailrace.log.errors import DecodeError

START = 1_700_000_000_000
NUMBER = struct.pack(">q", START)


@pytest.mark.parametrize(
    ("kind", "data", "as_json", "as_text"),
    [
        ("auto", b"p1", "p1", "p1"),
        ("auto", b"\xff\x00", {"base64": "/wA="}, "0xff00"),
        ("auto", struct.pack(">q", 7), "\0\0\0\0\0\0\0\x07", "7"),
        ("auto", b"two\nlines", "two\nlines", "two\nlines"),
        ("auto", None, None, "null"),
        ("str", b"p1", "p1", "p1"),
        ("int", NUMBER, START, str(START)),
        ("float", struct.pack(">d", 0.5), 0.5, "0.5"),
        ("json", b'{"a": [1]}', {"a": [1]}, '{"a":[1]}'),
        ("bytes", b"\x01\x02", "0x0102", "0x0102"),
        ("windowed", b"p1" + NUMBER, {"key": "p1", "start_ms": START}, "p1@2023-11-14T22:13:20.000Z"),
        (
            "session",
            b"p1" + struct.pack(">q", START + 1) + NUMBER,
            {"key": "p1", "start_ms": START, "end_ms": START + 1},
            "p1@2023-11-14T22:13:20.000Z/2023-11-14T22:13:20.001Z",
        ),
        ("int", None, None, "null"),
    ],
)
def test_bytes_are_shown_by_their_type(kind: str, data: bytes | None, as_json: object, as_text: str) -> None:
    assert shower(BytesType(kind), json=True)(data) == as_json
    assert shower(BytesType(kind), json=False)(data) == as_text


@pytest.mark.parametrize(("kind", "data"), [("int", b"p1"), ("json", b"{"), ("str", b"\xff"), ("windowed", b"x")])
def test_bytes_of_another_type_are_refused(kind: str, data: bytes) -> None:
    with pytest.raises(DecodeError, match=f"is not {kind}"):
        shower(BytesType(kind), json=True)(data)
