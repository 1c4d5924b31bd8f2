"""What a join holds of one key and time: the encoded values of the records, and whether they have found a partner.

1. Values are bytes from the moment that a record is taken: nobody can change what is held.
2. Records of one key, side and time have the same partners, so one mark stands for all of them.
3. One record is held as the bytes below, which is what is stored: no object to make, to encode and for the garbage
   collector to walk. Several are a `Held`, as adding to bytes would copy them each time.

Format: one byte (bit 0: matched), then each value as its length (4 bytes, big-endian) and its bytes, in order of
arrival. Not here: keys and times, which are the store's (session).
"""

import struct
from collections.abc import Sequence

_pack_head = struct.Struct(">?I").pack
_pack_length = struct.Struct(">I").pack
_unpack_length = struct.Struct(">I").unpack_from
_LENGTH_BYTES = 4
VALUE_AT = 1 + _LENGTH_BYTES
"""Where the value begins in the bytes of one record."""


class Held:
    """The records of one key and time, changed in place."""

    __slots__ = ("matched", "values")

    def __init__(self, values: list[bytes], *, matched: bool) -> None:
        self.values = values
        self.matched = matched

    def __repr__(self) -> str:
        return f"Held({self.values!r}, matched={self.matched})"


HeldValues = Held | bytes
"""What is held of one key and time."""


def held(value: bytes, *, matched: bool) -> bytes:
    """One record."""
    return _pack_head(matched, len(value)) + value


def held_with(before: HeldValues, value: bytes, *, matched: bool) -> HeldValues:
    """What was held and a record more, which may have found a partner for all of them."""
    if isinstance(before, bytes):
        before = Held([before[VALUE_AT:]], matched=before[0] == 1)
    before.values.append(value)
    before.matched = before.matched or matched
    return before


def held_values(of: HeldValues) -> Sequence[bytes]:
    """The values, in order of arrival."""
    return (of[VALUE_AT:],) if isinstance(of, bytes) else of.values


def is_matched(of: HeldValues) -> bool:
    """Whether they have found a partner."""
    return of[0] == 1 if isinstance(of, bytes) else of.matched


def held_matched(before: HeldValues) -> HeldValues:
    """The same, with a partner."""
    if isinstance(before, bytes):
        return b"\x01" + before[1:]
    before.matched = True
    return before


class HeldCodec:
    """What is held, to bytes and back."""

    hashable = False

    def encode(self, of: HeldValues) -> bytes:
        """The bytes of the format above."""
        if isinstance(of, bytes):
            return of
        parts = [b"\x01" if of.matched else b"\x00"]
        for value in of.values:
            parts += (_pack_length(len(value)), value)
        return b"".join(parts)

    def decode(self, data: bytes) -> HeldValues:
        """What is in such bytes."""
        if len(data) >= VALUE_AT and len(data) == VALUE_AT + _unpack_length(data, 1)[0]:
            return data
        values: list[bytes] = []
        at = 1
        while at < len(data):
            begin = at + _LENGTH_BYTES
            at = begin + _unpack_length(data, at)[0]
            values.append(data[begin:at])
        return Held(values, matched=data[0] == 1)
