"""Rows of sessions and of windows of one length, with their index by time, and records of their changelog.

Rows, times being 8 bytes, big-endian:
- 0x01, key with each 0x00 as 0x00 0xff, 0x00 0x00, end, start: the entry's time and the encoded value (see changelog).
  The escape keeps the order of keys and makes the rows of one key one range, whatever bytes it has.
- 0x02, end, start, key: empty. Ends of closed windows are found by one range.

Changelog keys are Kafka Streams': of sessions `key, end, start` (SessionKeySchema), of windows of one length `key,
start, sequence number (4, zero)` (WindowKeySchema).
"""

import struct
from collections.abc import Iterable, Iterator
from typing import ClassVar, cast

from tailrace.log.record import RawRecord
from tailrace.state.changelog import NO_SEQUENCE, pack_int64, unpack_int64
from tailrace.state.store import ROWS, Keyspace, Row

INDEX = b"\x02"
"""Every key of the index begins with it."""
AFTER_TIMES = b"\x80"
"""Above the first byte of every time, as times are not negative."""

_KEY_END = b"\x00\x00"
_TIMES_BYTES = 16
_pack_times = struct.Struct(">qq").pack
_unpack_times = struct.Struct(">qq").unpack_from


class SessionLayout:
    """Rows of sessions, or of windows of the one length `difference_ms`, and records of their changelog."""

    last_decides: ClassVar[bool] = True

    def __init__(self, difference_ms: int | None = None) -> None:
        self.difference_ms = difference_ms

    def changelog_key(self, key: bytes, start_ms: int, end_ms: int) -> bytes:
        """The key of a changelog record."""
        return key + (
            _pack_times(end_ms, start_ms) if self.difference_ms is None else pack_int64(start_ms) + NO_SEQUENCE
        )

    def split(self, changelog_key: bytes) -> tuple[bytes, int, int]:
        """The key, start and end in a changelog record's key."""
        if self.difference_ms is None:
            end_ms, start_ms = _unpack_times(changelog_key, len(changelog_key) - _TIMES_BYTES)
            return changelog_key[:-_TIMES_BYTES], start_ms, end_ms
        start_ms = cast("int", unpack_int64(changelog_key, len(changelog_key) - 12)[0])
        return changelog_key[:-12], start_ms, start_ms + self.difference_ms

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], expire_before_ms: int, /) -> int:
        """See `changelog.Layout`: windows that end before `expire_before_ms` are left out."""
        count = 0
        for record in records:
            count += 1
            if record.key is None:
                continue
            key, start_ms, end_ms = self.split(record.key)
            if end_ms < expire_before_ms:
                continue
            value = record.value
            row, index = row_key(key, start_ms, end_ms), index_key(key, start_ms, end_ms)
            into[row] = None if value is None else pack_int64(record.timestamp) + value
            into[index] = None if value is None else b""
        return count


def rows_of(encoded: bytes) -> bytes:
    """What all row keys of an encoded key begin with, and no others."""
    return ROWS + encoded.replace(b"\x00", b"\x00\xff") + _KEY_END


def row_key(encoded: bytes, start_ms: int, end_ms: int) -> bytes:
    """The key of a window's row."""
    return rows_of(encoded) + _pack_times(end_ms, start_ms)


def row_owner(row: bytes) -> bytes:
    """The encoded key in a row's key."""
    return row[1 : -_TIMES_BYTES - len(_KEY_END)].replace(b"\x00\xff", b"\x00")


def row_bounds(row: bytes) -> tuple[int, int]:
    """End and start in a row's key."""
    end_ms, start_ms = _unpack_times(row, len(row) - _TIMES_BYTES)
    return end_ms, start_ms


def rows_at(encoded: bytes, time_ms: int, data: bytes) -> tuple[Row, Row]:
    """Both rows of a window of length 0, whose entry's time is its own."""
    times = _pack_times(time_ms, time_ms)
    return (rows_of(encoded) + times, times[:8] + data), (INDEX + times + encoded, b"")


def index_key(encoded: bytes, start_ms: int, end_ms: int) -> bytes:
    """The key of a window's entry in the index."""
    return INDEX + _pack_times(end_ms, start_ms) + encoded


def indexed(entry: bytes) -> tuple[int, int, bytes]:
    """End, start and encoded key in the key of an entry of the index."""
    end_ms, start_ms = _unpack_times(entry, 1)
    return end_ms, start_ms, entry[1 + _TIMES_BYTES :]


def stored_rows(keyspace: Keyspace, encoded: bytes | None) -> Iterator[tuple[bytes, int, int, bytes]]:
    """Encoded key, end, start and row of the windows of a key (None: of all), in the order of rows."""
    prefix = ROWS if encoded is None else rows_of(encoded)
    for found, row in keyspace.range(prefix, INDEX if encoded is None else prefix + AFTER_TIMES):
        yield row_owner(found) if encoded is None else encoded, *row_bounds(found), row


def stored_ends(keyspace: Keyspace, from_ms: int, before_ms: int) -> Iterator[tuple[int, int, bytes]]:
    """End, start and encoded key of the windows with from_ms <= end < before_ms, in the order of ends."""
    for found, _ in keyspace.range(INDEX + pack_int64(from_ms), INDEX + pack_int64(max(before_ms, 0))):
        yield indexed(found)


def first_stored_end(keyspace: Keyspace, from_ms: int) -> int | None:
    """The first end that is not before from_ms, by one seek; None: there is none."""
    return _end(keyspace.first(INDEX + pack_int64(from_ms), INDEX + AFTER_TIMES))


def last_stored_end(keyspace: Keyspace) -> int | None:
    """The last end, by one seek; None: there is no window."""
    return _end(keyspace.first(INDEX, INDEX + AFTER_TIMES, reverse=True))


def _end(entry: tuple[bytes, bytes] | None) -> int | None:
    return None if entry is None else cast("int", unpack_int64(entry[0], 1)[0])
