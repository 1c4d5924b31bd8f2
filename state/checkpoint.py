"""Which part of its changelog a store on disk stands for.

1. A checkpoint is written in the same keyspace and in the same write as the rows it speaks of (the memtables of two
   column families are flushed apart, so a checkpoint anywhere else could run ahead of its rows after a crash).
2. Rows may run ahead of the checkpoint, never behind it: applying the changelog again from `offset` is harmless.

Format, version 1, big-endian: version (1 byte) · leader epoch (4, signed) · next changelog offset (8) · topic id
(UTF-8). Not here: what a checkpoint that does not fit its changelog leads to (restore).
"""

import struct
from typing import NamedTuple

_HEADER = struct.Struct(">biq")
_VERSION = 1


class Checkpoint(NamedTuple):
    """The store holds exactly what the changelog `topic_id` says below `offset`, as written up to `leader_epoch`."""

    topic_id: str
    offset: int
    leader_epoch: int


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes kept in the store (format above)."""
    return _HEADER.pack(_VERSION, checkpoint.leader_epoch, checkpoint.offset) + checkpoint.topic_id.encode()


def decode(data: bytes) -> Checkpoint | None:
    """The checkpoint in `data`; None if the bytes are not one of a version known here (the store is then rebuilt)."""
    if len(data) < _HEADER.size or data[0] != _VERSION:
        return None
    _, leader_epoch, offset = _HEADER.unpack_from(data)
    return Checkpoint(data[_HEADER.size :].decode(), offset, leader_epoch)
