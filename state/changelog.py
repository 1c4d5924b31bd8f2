"""Rows of a store and records of its changelog, one from the other. The changelog's bytes are Kafka Streams'.

| store     | changelog key                                  | row key in the keyspace              |
|-----------|------------------------------------------------|--------------------------------------|
| key-value | key                                            | 0x01, key                            |
| window    | key, start (8), sequence number (4, zero here) | 0x01, start (8), key                 |

The record's value is the value alone, its timestamp the entry's time (a null value deletes); a row's value is the
timestamp (8) and then the value, as in Kafka Streams' timestamped stores. All numbers are big-endian, starts are
milliseconds and never negative, so the order of bytes is the order of time.
(Kafka: WindowKeySchema.toStoreKeyBinary, ValueAndTimestampSerializer.)

1. Applying the same records again, from any earlier offset, gives the same rows.

Session layouts stand in `session`, beside the store that needs them.
"""

import struct
from collections.abc import Iterable
from typing import ClassVar, Protocol

from tailrace.log.record import RawRecord
from tailrace.state.store import ROWS

pack_int64 = struct.Struct(">q").pack
"""A timestamp in the head of a row, or a window's start in a key."""

unpack_int64 = struct.Struct(">q").unpack_from

NO_SEQUENCE = b"\x00\x00\x00\x00"

pack_start = struct.Struct(">q4x").pack
"""What stands behind the key in a changelog key of a window: its start, and `NO_SEQUENCE`."""

_START_FROM, _START_TO = -12, -4


class Layout(Protocol):
    """How one kind of store lays changelog records out as rows.

    Records of one changelog key decide about its rows, and about none of another key: the order of different keys is
    free.
    """

    last_decides: ClassVar[bool]
    """Whether the last record of a changelog key decides alone: then those before it may be left out."""

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], expire_before_ms: int, /) -> int:
        """Add the rows of `records` to `into` (None deletes); returns how many records were read.

        Windows that belong to the time before `expire_before_ms` are left out.
        """
        ...


class KeyValueLayout:
    """Key-value stores: nothing expires."""

    last_decides: ClassVar[bool] = True

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], _expire_before_ms: int, /) -> int:
        """See `Layout`. A record without a key is no entry of a store: left out."""
        count = 0
        for record in records:
            count += 1
            key = record.key
            if key is not None:
                value = record.value
                into[ROWS + key] = None if value is None else pack_int64(record.timestamp) + value
        return count


class WindowLayout:
    """Window stores: time first, so that expiry is one range delete."""

    last_decides: ClassVar[bool] = True

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], expire_before_ms: int, /) -> int:
        """See `Layout`: windows that start before `expire_before_ms` are left out."""
        count = 0
        oldest = pack_int64(max(expire_before_ms, 0))
        for record in records:
            count += 1
            key = record.key
            if key is not None:
                start = key[_START_FROM:_START_TO]
                if start >= oldest:
                    value = record.value
                    into[ROWS + start + key[:_START_FROM]] = (
                        None if value is None else pack_int64(record.timestamp) + value
                    )
        return count
