"""Which part of its changelog a store on disk stands for.

1. A checkpoint is written in the same keyspace and in the same write as the rows it speaks of (the memtables of two
   column families are flushed apart, so a checkpoint anywhere else could run ahead of its rows after a crash).
2. Rows may run ahead of the checkpoint, never behind it: applying the changelog again from `offset` is harmless.

3. When it was written, the store was complete: nothing had been written to the changelog that it lacks; or it was on
   its way there from a store that was, and has the time of that one.

Format, version 2, big-endian: version (1 byte) · leader epoch (4, signed) · next changelog offset (8) · wall clock in
milliseconds (8) · topic id (UTF-8); version 1 had no time, and is read with the time 0. Not here: what a checkpoint
that does not fit its changelog leads to (restore).
"""

import struct
from typing import NamedTuple

_HEADER = struct.Struct(">biqq")
_VERSION = 2
_HEADER_1 = struct.Struct(">biq")


class Checkpoint(NamedTuple):
    """The store holds exactly what the changelog `topic_id` says below `offset`, as written up to `leader_epoch`.

    `written_ms`: see the head of this file; 0 where it is not known.
    """

    topic_id: str
    offset: int
    leader_epoch: int
    written_ms: int = 0


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes kept in the store (format above)."""
    head = _HEADER.pack(_VERSION, checkpoint.leader_epoch, checkpoint.offset, checkpoint.written_ms)
    return head + checkpoint.topic_id.encode()


def decode(data: bytes) -> Checkpoint | None:
    """The checkpoint in `data`; None if the bytes are not one of a version known here (the store is then rebuilt)."""
    if len(data) >= _HEADER.size and data[0] == _VERSION:
        _, leader_epoch, offset, written_ms = _HEADER.unpack_from(data)
        return Checkpoint(data[_HEADER.size :].decode(), offset, leader_epoch, written_ms)
    if len(data) >= _HEADER_1.size and data[0] == 1:
        _, leader_epoch, offset = _HEADER_1.unpack_from(data)
        return Checkpoint(data[_HEADER_1.size :].decode(), offset, leader_epoch)
    return None
