"""What a join holds of one key and time: the encoded values of the records, and whether they have found a partner.

1. Values are bytes from the moment that a record is taken: nobody can change what is held.
2. Records of one key, side and time have the same partners, so one mark stands for all of them.

Format: one byte (bit 0: matched), then each value as its length (4 bytes, big-endian) and its bytes, in order of
arrival. Not here: keys and times, which are the store's (session).
"""

import struct

_pack_length = struct.Struct(">I").pack
_unpack_length = struct.Struct(">I").unpack_from
_LENGTH_BYTES = 4


class Held:
    """The records of one key and time, changed in place by the join."""

    __slots__ = ("matched", "values")

    def __init__(self, values: list[bytes], *, matched: bool) -> None:
        self.values = values
        self.matched = matched

    def __repr__(self) -> str:
        return f"Held({self.values!r}, matched={self.matched})"


class HeldCodec:
    """`Held` to bytes and back."""

    hashable = False

    def encode(self, held: Held) -> bytes:
        """The bytes of the format above."""
        parts = [b"\x01" if held.matched else b"\x00"]
        for value in held.values:
            parts += (_pack_length(len(value)), value)
        return b"".join(parts)

    def decode(self, data: bytes) -> Held:
        """What is in such bytes."""
        values: list[bytes] = []
        at = 1
        while at < len(data):
            begin = at + _LENGTH_BYTES
            at = begin + _unpack_length(data, at)[0]
            values.append(data[begin:at])
        return Held(values, matched=data[0] == 1)
