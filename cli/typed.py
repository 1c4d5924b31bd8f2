"""Bytes of a key or value, shown as what they are said to be.

`auto` is for a person: printable text, else a small 8-byte number, else hexadecimal; for a program it is text where
UTF-8, else `{"base64": …}`, as in `log dump`. The other types are the codecs of a topic's declared types; a windowed
key is Kafka's: the key's bytes and the window's start, in 8 bytes (a session's: end and start).
"""

import struct
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from tailrace.cli.output import instant, readable
from tailrace.log.checking.dump import bytes_as_json
from tailrace.log.errors import DecodeError


class BytesType(StrEnum):
    """What bytes are said to be."""

    AUTO = "auto"
    STR = "str"
    INT = "int"
    FLOAT = "float"
    JSON = "json"
    BYTES = "bytes"
    WINDOWED = "windowed"
    SESSION = "session"


Show = Callable[[bytes | None], Any]


def shower(kind: BytesType, *, json: bool) -> Show:
    """Make the function that shows bytes of this type: as a JSON value, or as text for a person.

    The function raises DecodeError where the bytes are none of this type.
    """
    read = _READERS[kind] if kind is not BytesType.AUTO else bytes_as_json

    def show(data: bytes | None) -> Any:
        try:
            return None if data is None else read(data)
        except (struct.error, ValueError, msgspec.DecodeError) as error:
            what = f"{data!r:.60} is not {kind} ({error})"
            raise DecodeError(f"{what}; say --key-type or --value-type auto to see the bytes as they are") from error

    if json:
        return show
    if kind is BytesType.AUTO:
        return readable
    return lambda data: _text(show(data))


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case {"key": key, "start_ms": int(start), "end_ms": int(end)}:
            return f"{_text(key)}@{instant(start)}/{instant(end)}"
        case {"key": key, "start_ms": int(start)}:
            return f"{_text(key)}@{instant(start)}"
        case _:
            return msgspec.json.encode(value).decode()


def _windowed(data: bytes) -> Any:
    (start,) = struct.unpack(">q", data[-8:])
    return {"key": bytes_as_json(data[:-8]), "start_ms": start}


def _session(data: bytes) -> Any:
    end, start = struct.unpack(">qq", data[-16:])
    return {"key": bytes_as_json(data[:-16]), "start_ms": start, "end_ms": end}


_READERS: dict[BytesType, Callable[[bytes], Any]] = {
    BytesType.STR: bytes.decode,
    BytesType.INT: lambda data: struct.unpack(">q", data)[0],
    BytesType.FLOAT: lambda data: struct.unpack(">d", data)[0],
    BytesType.JSON: msgspec.json.decode,
    BytesType.BYTES: lambda data: "0x" + data.hex(),
    BytesType.WINDOWED: _windowed,
    BytesType.SESSION: _session,
}
