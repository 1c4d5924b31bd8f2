"""A store of aligned windows behind a write-back cache: values by window start and key, laid out by time.

1. `windows[start][k]` is the newest value of k in that window; where it is missing, the keyspace holds it.
2. An entry is dirty exactly while it stands in `_touched`.
3. While `start` is in `_complete`, every key of that window is in `windows[start]`: a key that is missing there is
   nowhere. A window that was made here, and of which nothing was evicted, is complete; so counting into new windows
   reads nothing.
4. `_greatest_start` >= every start in the keyspace and in the writes that are on their way there.
5. Nothing that starts before `expired_before_ms` is seen, though its rows leave the keyspace with the next commit only.
6. Nothing reaches the keyspace but through `take_writes`, and what stood in the cache before is dropped by `discard`.

Row: 0x01, start in ms (8 bytes), key; the value is the entry's time (8) and the encoded value (see changelog).
Not here: which windows a record belongs to and when they close (windows, streams). One thread uses a store at a time.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar, cast

from tailrace.state.changelog import NO_SEQUENCE, Layout, WindowLayout, pack_int64, unpack_int64
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
    merged,
    new_tuple,
    with_old,
)

K = TypeVar("K")
V = TypeVar("V")

_HEAD = 9
_START_MAX = (1 << 63) - 1


class WindowStore(Generic[K, V]):
    """Values by window start (ms, never negative) and key.

    The hot path works on `windows` directly, under *cache keys* (the user's key where the key codec is hashable, else
    its encoded bytes):

        window = windows.get(start_ms) or store.open(start_ms)
        entry = window.get(key) or store.load(start_ms, key)
        entry.value = …
        if not entry.dirty: store.touch(start_ms, key, entry)

    A dict of `windows` may be kept until the next `evict`, `expire` or `discard`.
    """

    layout: ClassVar[Layout] = WindowLayout()

    def __init__(self, name: str, keyspace: Keyspace, keys: Codec[K], values: Codec[V]) -> None:
        self.name = name
        self.windows: dict[int, dict[Any, Entry[V]]] = {}
        self.expired_before_ms = 0
        self._keyspace = keyspace
        self._keys = keys
        self._values = values
        self.hashable = keys.hashable
        self._touched: list[tuple[int, Any, Entry[V]]] = []
        self._changelog: list[ChangelogRow] = []
        self._writes = Writes()
        self._complete: set[int] = set()
        self._greatest_start = -1
        self._committed_expiry_ms = 0
        self._flushed: list[tuple[int, Any, Entry[V]]] = []
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
        """The key of the dicts in `windows` for the user's key."""
        return key if self.hashable else self._keys.encode(key)

    def open(self, start_ms: int) -> dict[Any, Entry[V]]:
        """The cache of one window, made if it is missing. Raises ValueError for a window that has expired."""
        window = self.windows.get(start_ms)
        if window is None:
            if start_ms < self.expired_before_ms:
                raise ValueError(
                    f"store {self.name}: the window at {start_ms} has expired, as all before {self.expired_before_ms}; "
                    "a record this late must be dropped before it reaches the store"
                )
            window = self.windows[start_ms] = {}
            # One seek for a window instead of one get for each of its keys.
            if start_ms > self._greatest_start or self._first_start(start_ms, start_ms) is None:
                self._complete.add(start_ms)
        return window

    def load(self, start_ms: int, key: Any) -> Entry[V]:
        """The entry of a cache key in a window, from the cache or the keyspace, into the cache; absent: an empty entry.

        Raises ValueError for a window that has expired.
        """
        window = self.open(start_ms)
        entry = window.get(key)
        if entry is None:
            row = None if start_ms in self._complete else self._keyspace.get(_row_key(start_ms) + self._encoded(key))
            entry = window[key] = Entry(None, -1, stored=False) if row is None else self._decode(row)
        return entry

    def touch(self, start_ms: int, key: Any, entry: Entry[V]) -> None:
        """Mark the entry of a cache key as changed. To be called once, when it is not dirty yet."""
        entry.dirty = True
        self._touched.append((start_ms, key, entry))

    def get(self, start_ms: int, key: K) -> V | None:
        """The value of `key` in the window, or None. Leaves the cache as it is."""
        if start_ms < self.expired_before_ms:
            return None
        cache_key = self.cache_key(key)
        window = self.windows.get(start_ms)
        if window is not None:
            entry = window.get(cache_key)
            if entry is not None:
                return entry.value
            if start_ms in self._complete:
                return None
        row = self._keyspace.get(_row_key(start_ms) + self._encoded(cache_key))
        return None if row is None else self._values.decode(row[8:])

    def put(self, start_ms: int, key: K, value: V | None, timestamp_ms: int) -> None:
        """Set the value of `key` in the window as of `timestamp_ms`; None deletes. Raises ValueError as `open`."""
        cache_key = self.cache_key(key)
        entry = self.load(start_ms, cache_key)
        entry.value = value
        entry.timestamp_ms = timestamp_ms
        if not entry.dirty:
            self.touch(start_ms, cache_key, entry)

    def fetch(self, key: K, from_ms: int, to_ms: int, *, reverse: bool = False) -> Iterator[tuple[int, V]]:
        """Start and value of the key's windows with from_ms <= start <= to_ms, earliest first."""
        for start_ms in self.starts(from_ms, to_ms, reverse=reverse):
            value = self.get(start_ms, key)
            if value is not None:
                yield start_ms, value

    def fetch_all(self, from_ms: int, to_ms: int, *, reverse: bool = False) -> Iterator[tuple[int, K, V]]:
        """Start, key and value of all windows with from_ms <= start <= to_ms, by start and then encoded key."""
        for start_ms, key, entry in self._scan(from_ms, to_ms, reverse=reverse):
            yield start_ms, key, cast("V", entry.value)

    def windows_before(self, before_ms: int, *, from_ms: int = 0) -> Iterator[tuple[int, K, Entry[V]]]:
        """Start, key and entry of all windows with from_ms <= start < before_ms, in order of start and encoded key.

        Entries are for reading: those that were not cached are not in the cache now either.
        """
        return self._scan(from_ms, before_ms - 1, reverse=False)

    def starts(self, from_ms: int, to_ms: int, *, reverse: bool = False) -> Iterator[int]:
        """Starts from `from_ms` to `to_ms` that have rows or cached entries, in order, by one seek each."""
        low, high = max(from_ms, self.expired_before_ms), min(to_ms, _START_MAX)
        cached = sorted((s for s in self.windows if low <= s <= high), reverse=reverse)
        position = 0
        stored = self._first_start(low, min(high, self._greatest_start), reverse=reverse)
        while position < len(cached) or stored is not None:
            if stored is None or (position < len(cached) and (cached[position] > stored) == reverse):
                start_ms = cached[position]
            else:
                start_ms = stored
            if position < len(cached) and cached[position] == start_ms:
                position += 1
            yield start_ms
            if stored == start_ms:
                low, high = (low, start_ms - 1) if reverse else (start_ms + 1, high)
                stored = self._first_start(low, min(high, self._greatest_start), reverse=reverse)

    def expire(self, before_ms: int) -> None:
        """Let go of windows that start before `before_ms`: at once for who reads, in the keyspace at the next commit.

        To be called when they were flushed: what is dirty still goes out with the next flush, but is stored no more.
        """
        if before_ms <= self.expired_before_ms:
            return
        self._writes.delete_range(_row_key(self.expired_before_ms), _row_key(min(before_ms, _START_MAX)))
        self.expired_before_ms = before_ms
        for start_ms in [s for s in self.windows if s < before_ms]:
            self._forget(start_ms)

    def flush(self) -> list[Change[tuple[int, K], V]]:
        """Take what changed since the last flush, in order of first touch, by (start, key); encodes each value once.

        The bytes wait for `take_changelog` and `take_writes`.
        """
        touched, self._touched = self._touched, []
        changes: list[Change[tuple[int, K], V]] = []
        encode, put, log = self._values.encode, self._writes.rows.append, self._changelog.append
        hashable, encode_key, decode_key = self.hashable, self._keys.encode, self._keys.decode
        for start_ms, key, entry in touched:
            entry.dirty = False
            value, timestamp_ms = entry.value, entry.timestamp_ms
            encoded = encode_key(key) if hashable else key
            changes.append(new_tuple(Change, ((start_ms, key if hashable else decode_key(key)), value, timestamp_ms)))
            if start_ms < self.expired_before_ms:
                continue
            start = pack_int64(start_ms)
            if value is not None:
                data = encode(value)
                put((ROWS + start + encoded, pack_int64(timestamp_ms) + data))
                log((encoded + start + NO_SEQUENCE, data, timestamp_ms))
                entry.stored = True
                self._greatest_start = max(self._greatest_start, start_ms)
            elif entry.stored:
                put((ROWS + start + encoded, None))
                log((encoded + start + NO_SEQUENCE, None, timestamp_ms))
                entry.stored = False
        self._flushed += touched
        return changes

    def flush_with_old(self) -> list[tuple[Change[tuple[int, K], V], bytes | None]]:
        """`flush`, and with each change the encoded value that the flush before it left (None: there was none)."""
        pending = dict(self._writes.rows)
        rows = [_row_key(start_ms) + self._encoded(key) for start_ms, key, _ in self._touched]
        return with_old(self.flush(), rows, self._keyspace, pending)

    def take_changelog(self) -> list[ChangelogRow]:
        """The changelog records of all flushes since they were taken last, in order."""
        rows, self._changelog = self._changelog, []
        return rows

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Move what was flushed and expired into the task's write set, with the changelog offset it stands for.

        The caller writes the set and calls `evict`, or drops it and calls `discard`, before anything else.
        """
        writes, self._writes = self._writes, Writes()
        writes.checkpoint = checkpoint
        into.of(self._keyspace.name).extend(writes)

    def evict(self, max_entries: int) -> None:
        """End a commit, after its set was written: drop entries above `max_entries`, oldest windows first."""
        self._committed_expiry_ms = self.expired_before_ms
        flushed, self._flushed = self._flushed, []
        excess = sum(map(len, self.windows.values())) - max_entries
        if excess <= 0:
            return
        dirty = {start_ms for start_ms, _, _ in self._touched}
        for start_ms in sorted(self.windows):
            window = self.windows[start_ms]
            if len(window) <= excess and start_ms not in dirty:
                excess -= len(window)
                self._forget(start_ms)
            elif excess > 0:
                # The window that is cut keeps what this commit changed: it goes to the end of the dict.
                for start, key, _ in flushed:
                    if start == start_ms:
                        window[key] = window.pop(key)
                excess -= self._evict_from(start_ms, window, excess)
            if excess <= 0:
                return

    def discard(self) -> None:
        """Forget everything since the last commit, and read anew: after an abort or a restore."""
        for window in self.windows.values():
            window.clear()
        self.windows.clear()
        self._complete.clear()
        self._touched, self._flushed, self._changelog, self._writes = [], [], [], Writes()
        self.expired_before_ms = self._committed_expiry_ms
        greatest = self._first_start(0, _START_MAX, reverse=True)
        self._greatest_start = -1 if greatest is None else greatest

    def _forget(self, start_ms: int) -> None:
        # Emptied too: whoever still holds the dict misses, and loads the true entry.
        self.windows.pop(start_ms).clear()
        self._complete.discard(start_ms)

    def _evict_from(self, start_ms: int, window: dict[Any, Entry[V]], excess: int) -> int:
        clean = (key for key, entry in window.items() if not entry.dirty)
        evicted = list(islice(clean, excess))
        for key in evicted:
            del window[key]
        self._complete.discard(start_ms)
        return len(evicted)

    def _first_start(self, from_ms: int, to_ms: int, *, reverse: bool = False) -> int | None:
        if from_ms > to_ms:
            return None
        row = self._keyspace.first(_row_key(from_ms), after(_row_key(to_ms)), reverse=reverse)
        return None if row is None else cast("int", unpack_int64(row[0], 1)[0])

    def _scan(self, from_ms: int, to_ms: int, *, reverse: bool) -> Iterator[tuple[int, K, Entry[V]]]:
        for start_ms in self.starts(from_ms, to_ms, reverse=reverse):
            prefix = _row_key(start_ms)
            window = self.windows.get(start_ms, {})
            cached = sorted(((prefix + self._encoded(key), entry) for key, entry in window.items()), reverse=reverse)
            complete = start_ms in self._complete
            stored = iter(()) if complete else self._keyspace.range(prefix, after(prefix), reverse=reverse)
            for key, entry in merged(stored, cached, self._decode, reverse=reverse):
                yield start_ms, self._keys.decode(key[_HEAD:]), entry

    def _encoded(self, cache_key: Any) -> bytes:
        return self._keys.encode(cache_key) if self.hashable else cast("bytes", cache_key)

    def user_key(self, cache_key: Any) -> K:
        """The user's key of a cache key."""
        return cast("K", cache_key) if self.hashable else self._keys.decode(cache_key)

    def _decode(self, row: bytes) -> Entry[V]:
        return Entry(self._values.decode(row[8:]), unpack_int64(row)[0], stored=True)


def _row_key(start_ms: int) -> bytes:
    return ROWS + pack_int64(start_ms)
