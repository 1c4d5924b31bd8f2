"""What a table holds back of one key: the update that waits, what it replaces, and when it is due.

1. Values are bytes from the moment that an update is taken: nobody can change what is held.

Format: one byte of flags (1: an update waits, 2: it has a value, 4: it replaces one), the due time (8 bytes,
big-endian, ms), the length of the replaced value (4 bytes) and its bytes where there is one, then the update's value.
Not here: keys and the updates' times, which are the store's (keyvalue); what is due when (streams).
"""

import struct

_pack = struct.Struct(">Bq").pack
_unpack = struct.Struct(">Bq").unpack_from
_pack_length = struct.Struct(">I").pack
_unpack_length = struct.Struct(">I").unpack_from
_HEAD_BYTES = 9
_WAITS, _HAS_VALUE, _REPLACES = 1, 2, 4


class Waiting:
    """One key's update, changed in place by the table that holds it back.

    `data` is the encoded value, None for a delete; `old` the encoded value that those behind know, where they ask.
    `waits` is False for a key of which nothing waits, and that may send nothing before `due_ms`.
    """

    __slots__ = ("data", "due_ms", "old", "waits")

    def __init__(self, due_ms: int, data: bytes | None, old: bytes | None, *, waits: bool = True) -> None:
        self.due_ms = due_ms
        self.data = data
        self.old = old
        self.waits = waits

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return len(self.data or b"") + len(self.old or b"")

    def __repr__(self) -> str:
        return f"Waiting({self.due_ms}, {self.data!r}, {self.old!r}, waits={self.waits})"


def encode_waiting(held: Waiting) -> bytes:
    """The bytes of the format above."""
    data, old = held.data, held.old
    flags = _WAITS * held.waits | _HAS_VALUE * (data is not None) | _REPLACES * (old is not None)
    head = _pack(flags, held.due_ms)
    if old is not None:
        head += _pack_length(len(old)) + old
    return head if data is None else head + data


def decode_waiting(row: bytes) -> Waiting:
    """What is in such bytes."""
    flags, due_ms = _unpack(row)
    at, old = _HEAD_BYTES, None
    if flags & _REPLACES:
        begin = at + 4
        at = begin + _unpack_length(row, at)[0]
        old = row[begin:at]
    return Waiting(due_ms, row[at:] if flags & _HAS_VALUE else None, old, waits=bool(flags & _WAITS))
