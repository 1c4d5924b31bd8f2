"""Who refers to what: the store of a foreign-key join, which finds all rows that point to one key.

1. A row is found by the key it refers to, in the order of its own encoded key; nothing is ever looked up singly.
2. What changed since the last commit stands in `_changed`, by the key referred to; the keyspace holds the rest.
3. Nothing reaches the keyspace but through `take_writes`.

Row: 0x01, the length of the key referred to (4 bytes), that key, the row's own key; the value as in key-value stores.
The changelog's key is the same without the first byte. (Kafka: CombinedKeySchema.)
Not here: what is kept of a row, and what is made of it (streams). One thread uses a store at a time.
"""

import struct
from collections.abc import Iterator
from typing import ClassVar

from tailrace.state.changelog import KeyValueLayout, Layout, pack_int64, unpack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import ROWS, ChangelogRow, Keyspace, WriteSet, after

_pack_length = struct.Struct(">I").pack


class SubscriptionStore:
    """Rows by the key that they refer to, all of them as bytes."""

    layout: ClassVar[Layout] = KeyValueLayout()

    def __init__(self, name: str, keyspace: Keyspace) -> None:
        self.name = name
        self._keyspace = keyspace
        self._changed: dict[bytes, dict[bytes, tuple[bytes | None, int]]] = {}
        """By prefix and own key: value (None: gone) and time in ms."""
        self.dirty = 0
        """How many changes came since the last flush."""

    def put(self, refers_to: bytes, key: bytes, value: bytes | None, timestamp_ms: int) -> None:
        """Keeps `value` for the row `key` that refers to `refers_to`; None: it does so no longer."""
        self._changed.setdefault(_prefix(refers_to), {})[key] = value, timestamp_ms
        self.dirty += 1

    def of(self, refers_to: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, value and time in ms of the rows that refer to a key; none of them may change meanwhile."""
        prefix = _prefix(refers_to)
        changed = sorted(self._changed.get(prefix, {}).items(), reverse=True)
        low, cut = ROWS + prefix, len(ROWS + prefix)
        for stored, row in self._keyspace.range(low, after(low)):
            key = stored[cut:]
            while changed and changed[-1][0] < key:
                yield from _there(*changed.pop())
            if changed and changed[-1][0] == key:
                yield from _there(*changed.pop())
            else:
                yield key, row[8:], unpack_int64(row)[0]
        while changed:
            yield from _there(*changed.pop())

    def flush(self) -> None:
        """Has nothing to encode: a change is bytes from the first."""
        self.dirty = 0

    def take_changelog(self) -> list[ChangelogRow]:
        """The changelog records of what changed since the last commit."""
        return [
            (prefix + key, value, timestamp_ms)
            for prefix, rows in self._changed.items()
            for key, (value, timestamp_ms) in rows.items()
        ]

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Moves what changed into the task's write set, with the changelog offset that it stands for."""
        writes = into.of(self._keyspace.name)
        for prefix, rows in self._changed.items():
            for key, (value, timestamp_ms) in rows.items():
                row = None if value is None else pack_int64(timestamp_ms) + value
                writes.rows.append((ROWS + prefix + key, row))
        writes.checkpoint = checkpoint or writes.checkpoint
        self._changed = {}

    def evict(self, max_entries: int) -> None:
        """Nothing is kept past a commit."""

    def discard(self) -> None:
        """Forgets everything since the last commit."""
        self._changed, self.dirty = {}, 0


def _prefix(refers_to: bytes) -> bytes:
    # The length first: else what refers to "a" would stand among what refers to "ab".
    return _pack_length(len(refers_to)) + refers_to


def _there(key: bytes, kept: tuple[bytes | None, int]) -> Iterator[tuple[bytes, bytes, int]]:
    value, timestamp_ms = kept
    if value is not None:
        yield key, value, timestamp_ms
