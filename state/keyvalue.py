"""A key-value store behind a write-back cache.

1. `entries[k]` is the newest value of k; where k is missing there, the keyspace holds it.
2. An entry is dirty exactly while it stands in `_touched`; what was flushed since the last commit stands in `_flushed`.
   All other entries equal their rows, so reading a range merges these two alone over the keyspace.
3. While `_complete` is set, every key of the keyspace is in `entries`: a key that is missing there is nowhere.
4. Nothing reaches the keyspace but through `take_writes`, and what stood in the cache before is dropped by `discard`.

Row: 0x01 and the key; the value is the entry's time (8 bytes, ms) and the encoded value (see changelog).
Not here: when to flush and commit, and what changes are forwarded to (streams). One thread uses a store at a time.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar, cast

from tailrace.state.changelog import KeyValueLayout, Layout, pack_int64, unpack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import (
    ROWS,
    Change,
    ChangelogRow,
    Codec,
    Entry,
    Keyspace,
    Writes,
    WriteSet,
    after,
    check_range,
    merged,
    new_tuple,
    with_old,
)

K = TypeVar("K")
V = TypeVar("V")


class KeyValueStore(Generic[K, V]):
    """Values by key.

    The hot path works on `entries` directly, under *cache keys*: the user's key where the key codec is hashable, else
    its encoded bytes (`cache_key`):

        entry = entries.get(key) or store.load(key)
        entry.value = …
        if not entry.dirty: store.touch(key, entry)
    """

    layout: ClassVar[Layout] = KeyValueLayout()

    def __init__(self, name: str, keyspace: Keyspace, keys: Codec[K], values: Codec[V]) -> None:
        self.name = name
        self.entries: dict[Any, Entry[V]] = {}
        self._keyspace = keyspace
        self._values = values
        self._keys = keys
        self.hashable = keys.hashable
        self._touched: list[tuple[Any, Entry[V]]] = []
        self._flushed: list[tuple[Any, Entry[V]]] = []
        self._changelog: list[ChangelogRow] = []
        self._writes = Writes()
        self._complete = False
        self.discard()

    @property
    def dirty(self) -> int:
        """How many entries changed since the last flush."""
        return len(self._touched)

    @property
    def key_codec(self) -> Codec[K]:
        """The codec of its keys."""
        return self._keys

    @property
    def value_codec(self) -> Codec[V]:
        """The codec of its values."""
        return self._values

    def cache_key(self, key: K) -> Any:
        """The key of `entries` for the user's key."""
        return key if self.hashable else self._keys.encode(key)

    def load(self, key: Any) -> Entry[V]:
        """The entry of a cache key, from cache or keyspace, now in the cache; an absent key gets an empty one."""
        entry = self.entries.get(key)
        if entry is None:
            row = None if self._complete else self._keyspace.get(ROWS + self._encoded(key))
            entry = self.entries[key] = Entry(None, -1, stored=False) if row is None else self._decode(row)
        return entry

    def touch(self, key: Any, entry: Entry[V]) -> None:
        """Mark the entry of a cache key as changed. To be called once, when it is not dirty yet."""
        entry.dirty = True
        self._touched.append((key, entry))

    def get(self, key: K) -> V | None:
        """The value of `key`, or None. Leaves the cache as it is."""
        cache_key = self.cache_key(key)
        entry = self.entries.get(cache_key)
        if entry is not None:
            return entry.value
        row = None if self._complete else self._keyspace.get(ROWS + self._encoded(cache_key))
        return None if row is None else self._values.decode(row[8:])

    def put(self, key: K, value: V | None, timestamp_ms: int) -> None:
        """Set the value of `key` as of `timestamp_ms`; None deletes. Nothing is read for it."""
        cache_key = self.cache_key(key)
        entry = self.entries.get(cache_key)
        if entry is None:
            entry = self.entries[cache_key] = Entry(None, -1, stored=not self._complete)
        entry.value = value
        entry.timestamp_ms = timestamp_ms
        if not entry.dirty:
            self.touch(cache_key, entry)

    def delete(self, key: K, timestamp_ms: int) -> V | None:
        """Remove `key`; returns the value it had. Removing what is not there changes nothing."""
        cache_key = self.cache_key(key)
        entry = self.load(cache_key)
        value = entry.value
        if value is not None:
            entry.value = None
            entry.timestamp_ms = timestamp_ms
            if not entry.dirty:
                self.touch(cache_key, entry)
        return value

    def alive(self, entry: Entry[V]) -> bool:
        """Whether an entry has not expired: here none does."""
        del entry
        return True

    def range(self, low: K | None = None, high: K | None = None, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Entries with low <= key <= high in the order of encoded keys; None leaves that side open.

        Raises:
            ValueError: see `check_range`.
        """
        begin = ROWS if low is None else ROWS + self._keys.encode(low)
        end = after(ROWS) if high is None else ROWS + self._keys.encode(high) + b"\x00"
        check_range(low, high, begin, end)
        return self._scan(begin, end, reverse=reverse)

    def prefix(self, prefix: K, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Entries whose encoded key begins with the encoded `prefix`: for text and bytes."""
        begin = ROWS + self._keys.encode(prefix)
        return self._scan(begin, after(begin), reverse=reverse)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Every entry in the order of encoded keys."""
        return self._scan(ROWS, after(ROWS), reverse=reverse)

    def flush(self) -> list[Change[K, V]]:
        """Take what changed since the last flush, in order of first touch; encodes each value once.

        The bytes wait for `take_changelog` and `take_writes`.
        """
        touched, self._touched = self._touched, []
        changes: list[Change[K, V]] = []
        change = changes.append
        encode, put, log = self._values.encode, self._writes.rows.append, self._changelog.append
        hashable, encode_key, decode_key = self.hashable, self._keys.encode, self._keys.decode
        for key, entry in touched:
            entry.dirty = False
            value, timestamp_ms = entry.value, entry.timestamp_ms
            encoded = encode_key(key) if hashable else key
            if value is not None:
                data = encode(value)
                put((ROWS + encoded, pack_int64(timestamp_ms) + data))
                log((encoded, data, timestamp_ms))
                entry.stored = True
            elif entry.stored:
                put((ROWS + encoded, None))
                log((encoded, None, timestamp_ms))
                entry.stored = False
            change(new_tuple(Change, (key if hashable else decode_key(key), value, timestamp_ms)))
        self._flushed += touched
        return changes

    def flush_with_old(self) -> list[tuple[Change[K, V], bytes | None]]:
        """`flush`, and with each change the encoded value that the flush before it left (None: there was none)."""
        pending = dict(self._writes.rows)
        rows = [ROWS + self._encoded(key) for key, _ in self._touched]
        return with_old(self.flush(), rows, self._keyspace, pending)

    def flushed(self, key: Any) -> bytes | None:
        """The row of a cache key as the last flush left it; None where there is none."""
        row_key = ROWS + self._encoded(key)
        # Empty but between a flush and the commit that it belongs to.
        for written, row in reversed(self._writes.rows):
            if written == row_key:
                return row
        return self._keyspace.get(row_key)

    def take_changelog(self) -> list[ChangelogRow]:
        """The changelog records of all flushes since they were taken last, in order."""
        rows, self._changelog = self._changelog, []
        return rows

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Move what was flushed into the task's write set, with the changelog offset it stands for.

        The caller writes the set and calls `evict`, or drops it and calls `discard`, before anything else.
        """
        writes, self._writes = self._writes, Writes()
        writes.checkpoint = checkpoint
        into.of(self._keyspace.name).extend(writes)

    def evict(self, max_entries: int) -> None:
        """End a commit, after its set was written: drop entries above `max_entries`, longest unchanged first."""
        flushed, self._flushed = self._flushed, []
        entries = self.entries
        excess = len(entries) - max_entries
        if excess <= 0:
            return
        self._complete = False
        # What this commit changed goes to the end of the dict, so that hot keys stay: from here on its order is that of
        # the last change. Done only when the cache is full, it costs nothing before.
        for key, _ in flushed:
            entries[key] = entries.pop(key)
        for key in list(islice(entries, excess + len(self._touched))):
            if excess > 0 and not entries[key].dirty:
                del entries[key]
                excess -= 1

    def discard(self) -> None:
        """Forget everything since the last commit, and read anew: after an abort or a restore."""
        self.entries.clear()
        self._touched, self._flushed, self._changelog, self._writes = [], [], [], Writes()
        self._complete = self._keyspace.first(ROWS, after(ROWS)) is None

    def _encoded(self, cache_key: Any) -> bytes:
        return self._keys.encode(cache_key) if self.hashable else cast("bytes", cache_key)

    def user_key(self, cache_key: Any) -> K:
        """The user's key of a cache key."""
        return cast("K", cache_key) if self.hashable else self._keys.decode(cache_key)

    def _decode(self, row: bytes) -> Entry[V]:
        return Entry(self._values.decode(row[8:]), unpack_int64(row)[0], stored=True)

    def _scan(self, low: bytes, high: bytes | None, *, reverse: bool) -> Iterator[tuple[K, V]]:
        changed = {ROWS + self._encoded(key): entry for key, entry in self._flushed + self._touched}
        cached = sorted((key, entry) for key, entry in changed.items() if low <= key and (high is None or key < high))
        if reverse:
            cached.reverse()
        decode = self._keys.decode
        for key, entry in merged(
            self._keyspace.range(low, high, reverse=reverse), cached, self._decode, reverse=reverse
        ):
            if self.alive(entry):
                yield decode(key[1:]), cast("V", entry.value)
