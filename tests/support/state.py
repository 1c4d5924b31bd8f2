"""Codecs for the tests of stores."""

import struct


class TextCodec:
    """UTF-8; a key that may stand in a dict."""

    hashable = True

    def encode(self, value: str, /) -> bytes:
        return value.encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()


class OpaqueCodec(TextCodec):
    """The same bytes, for keys that may not stand in a dict."""

    hashable = False


class IntCodec:
    """Eight bytes."""

    hashable = True

    def encode(self, value: int, /) -> bytes:
        return struct.pack(">q", value)

    def decode(self, data: bytes, /) -> int:
        return int(struct.unpack(">q", data)[0])


class ListCodec:
    """A list of small integers, which a test may change in place."""

    hashable = False

    def encode(self, value: list[int], /) -> bytes:
        return bytes(value)

    def decode(self, data: bytes, /) -> list[int]:
        return list(data)
