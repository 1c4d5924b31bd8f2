"""A store of windows that follow from a key's records (sessions, sliding windows) behind a write-back cache.

Laid out by key, as a record needs all windows of its key at once, with an index by time beside it for closing.

1. `windows[k]` are all windows of k, in order of start, no two with the same start; where k is missing there, the
   keyspace holds them. So a cached key is wholly cached, and rows of the keyspace count for the others only.
2. A window is dirty exactly while it stands in `_touched`. It is `stored` exactly while a row of its present bounds is
   in the keyspace or on its way there: only then does moving or removing it need a tombstone.
3. Every cached window stands in one of the two heaps, under an end that is not above its own.
4. While `_complete` is set, every key of the keyspace is in `windows`: a key that is missing there is nowhere.
5. Nothing that ends before `expired_before_ms` is seen, though its rows leave the keyspace with the next commit only.
6. Nothing reaches the keyspace but through `take_writes`, and what stood in the cache before is dropped by `discard`.

Rows, times being 8 bytes, big-endian:
- 0x01, key with each 0x00 as 0x00 0xff, 0x00 0x00, end, start: the entry's time and the encoded value (see changelog).
  The escape keeps the order of keys and makes the rows of one key one range, whatever bytes it has.
- 0x02, end, start, key: empty. Ends of closed windows are found by one range.

Changelog keys are Kafka Streams': of sessions `key, end, start` (SessionKeySchema), of windows of one length `key,
start, sequence number (4, zero)` (WindowKeySchema).
Not here: which windows merge and when they close (windows, streams). One thread uses a store at a time.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, merge
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar, cast

from tailrace.log.record import RawRecord
from tailrace.state.changelog import NO_SEQUENCE, pack_int64, unpack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import ROWS, Change, ChangelogRow, Codec, Entry, Keyspace, Writes, WriteSet, with_old

K = TypeVar("K")
V = TypeVar("V")

_INDEX = b"\x02"
_KEY_END = b"\x00\x00"
_AFTER_TIMES = b"\x80"  # Above the first byte of every time, as times are not negative.
_TIMES_BYTES = 16
_END_MAX = (1 << 63) - 1
_pack_times = struct.Struct(">qq").pack
_unpack_times = struct.Struct(">qq").unpack_from


class Span(Entry[V]):
    """One window of a key, changed in place: its bounds through the store alone, the rest as in any entry.

    `gone` is set when the store has let go of it.
    """

    __slots__ = ("end_ms", "gone", "start_ms")

    def __init__(self, start_ms: int, end_ms: int, value: V | None, timestamp_ms: int, *, stored: bool) -> None:
        super().__init__(value, timestamp_ms, stored=stored)
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.gone = False

    def __repr__(self) -> str:
        return f"Span([{self.start_ms},{self.end_ms}], {self.value!r}, {self.timestamp_ms}, dirty={self.dirty})"


class Bounded(NamedTuple, Generic[K]):
    """What a change of this store is about: a key in a window."""

    start_ms: int
    end_ms: int
    key: K


class SessionLayout:
    """Rows of sessions, or of windows of the one length `difference_ms`, and records of their changelog."""

    def __init__(self, difference_ms: int | None = None) -> None:
        self.difference_ms = difference_ms

    def changelog_key(self, key: bytes, start_ms: int, end_ms: int) -> bytes:
        """The key of a changelog record."""
        if self.difference_ms is None:
            return key + _pack_times(end_ms, start_ms)
        return key + pack_int64(start_ms) + NO_SEQUENCE

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
            row, index = _row_key(key, start_ms, end_ms), _index_key(key, start_ms, end_ms)
            into[row] = None if value is None else pack_int64(record.timestamp) + value
            into[index] = None if value is None else b""
        return count


class SessionStore(Generic[K, V]):
    """Values by key and window, where a key's windows depend on its records.

    The hot path works on `windows` directly, under *cache keys* (the user's key where the key codec is hashable, else
    its encoded bytes):

        spans = windows.get(key)
        if spans is None:
            spans = store.load(key)
        ...
        span.value = …
        if not span.dirty: store.touch(key, span)

    `difference_ms` is the length of sliding windows, None for sessions: it decides the form of the changelog alone.
    """

    def __init__(
        self, name: str, keyspace: Keyspace, keys: Codec[K], values: Codec[V], *, difference_ms: int | None = None
    ) -> None:
        self.name = name
        self.layout = SessionLayout(difference_ms)
        self.windows: dict[Any, list[Span[V]]] = {}
        self.expired_before_ms = 0
        self._keyspace = keyspace
        self._keys = keys
        self._values = values
        self.hashable = keys.hashable
        self._touched: list[tuple[Any, Span[V]]] = []
        self._removed: list[tuple[Any, int, int, int]] = []
        self._flushed: list[Any] = []
        self._emptied: set[Any] = set()
        self._changelog: list[ChangelogRow] = []
        self._writes = Writes()
        self._open: list[tuple[int, int, Any, Span[V]]] = []
        self._closed: list[tuple[int, int, Any, Span[V]]] = []
        self._pushed = 0
        self._spans = 0
        self._complete = False
        self._committed_expiry_ms = 0
        self.discard()

    @property
    def dirty(self) -> int:
        """How many windows the next flush will look at."""
        return len(self._touched) + len(self._removed)

    @property
    def watched(self) -> int:
        """How many items wait for their end to pass, with those of windows that are gone."""
        return len(self._open) + len(self._closed)

    @property
    def key_codec(self) -> Codec[K]:
        """The codec of its keys."""
        return self._keys

    @property
    def value_codec(self) -> Codec[V]:
        """The codec of its values."""
        return self._values

    def cache_key(self, key: K) -> Any:
        """The key of `windows` for the user's key."""
        return key if self.hashable else self._keys.encode(key)

    def user_key(self, cache_key: Any) -> K:
        """The user's key for a key of `windows`."""
        return cast("K", cache_key) if self.hashable else self._keys.decode(cache_key)

    def load(self, key: Any) -> list[Span[V]]:
        """All windows of a cache key, from the cache or the keyspace, into the cache. The list is the store's own."""
        spans = self.windows.get(key)
        if spans is None:
            spans = self.windows[key] = []
            if not self._complete:
                spans += self._stored(self._encoded(key))
                spans.sort(key=_start)
                for span in spans:
                    self._watch(key, span)
            if not spans:
                self._emptied.add(key)
        return spans

    def add(self, key: Any, start_ms: int, end_ms: int, value: V, timestamp_ms: int) -> Span[V]:
        """Add a window that is not there yet to a cache key; returns it, touched."""
        spans = self.load(key)
        span = Span(start_ms, end_ms, value, timestamp_ms, stored=False)
        if not spans or spans[-1].start_ms < start_ms:
            spans.append(span)
        else:
            spans.insert(bisect_left(spans, start_ms, key=_start), span)
        self._watch(key, span)
        self.touch(key, span)
        return span

    def move(self, key: Any, span: Span[V], start_ms: int, end_ms: int) -> None:
        """Give a window of a cache key other bounds, which neither change its place among the others nor end earlier.

        If it is stored, the next flush retracts it under the bounds that it had.
        """
        if span.stored:
            self._removed.append((key, span.start_ms, span.end_ms, span.timestamp_ms))
            span.stored = False
        span.start_ms, span.end_ms = start_ms, end_ms
        if not span.dirty:
            self.touch(key, span)

    def remove(self, key: Any, span: Span[V], timestamp_ms: int) -> None:
        """Remove a window of a cache key; if it is stored, the next flush retracts it, as of `timestamp_ms`."""
        if span.stored:
            self._removed.append((key, span.start_ms, span.end_ms, timestamp_ms))
        self._let_go(key, span)

    def forget(self, key: Any, span: Span[V]) -> None:
        """Let go of a window of a cache key that was flushed and that nothing can need: no change tells of it."""
        if span.stored:
            encoded = self._encoded(key)
            self._delete(encoded, span.start_ms, span.end_ms)
            self._changelog.append(
                (self.layout.changelog_key(encoded, span.start_ms, span.end_ms), None, span.timestamp_ms)
            )
            self._flushed.append(key)
        self._let_go(key, span)

    def touch(self, key: Any, span: Span[V]) -> None:
        """Mark a window of a cache key as changed. To be called once, when it is not dirty yet."""
        span.dirty = True
        self._touched.append((key, span))

    def get(self, key: K, start_ms: int, end_ms: int) -> V | None:
        """The value of `key` in the window of exactly these bounds, or None. Leaves the cache as it is."""
        for start, end, value in self.fetch(key, start_ms, end_ms):
            if (start, end) == (start_ms, end_ms):
                return value
        return None

    def fetch(self, key: K, from_ms: int, to_ms: int, *, reverse: bool = False) -> Iterator[tuple[int, int, V]]:
        """Start, end and value of the key's windows with end >= from_ms and start <= to_ms, earliest first."""
        cache_key = self.cache_key(key)
        spans = self.windows.get(cache_key)
        if spans is None:
            spans = [] if self._complete else sorted(self._stored(self._encoded(cache_key)), key=_start)
        found = [span for span in spans if span.end_ms >= from_ms and span.start_ms <= to_ms]
        for span in reversed(found) if reverse else found:
            yield span.start_ms, span.end_ms, cast("V", span.value)

    def fetch_all(self, from_ms: int, to_ms: int) -> Iterator[tuple[int, int, K, V]]:
        """Start, end, key, value of all windows with end >= from_ms and start <= to_ms, by encoded key, end, start."""
        cached = sorted(
            ((encoded, span.end_ms, span.start_ms), key, span)
            for key, spans in self.windows.items()
            for encoded in (self._encoded(key),)
            for span in spans
        )
        for (encoded, end_ms, start_ms), _, span in merge(self._uncached(), cached, key=_order):
            if end_ms >= from_ms and start_ms <= to_ms:
                yield start_ms, end_ms, self._keys.decode(encoded), cast("V", span.value)

    def closing(self, before_ms: int, *, from_ms: int = 0) -> list[tuple[K, Span[V]]]:
        """Keys and windows with from_ms <= end < before_ms, by end, then start, then encoded key.

        What it returned once is not looked for in the cache again: `from_ms` is the `before_ms` of the call before, and
        windows that end before it are not changed any more. They stay until they expire.
        """
        found: list[tuple[int, int, bytes, Any, Span[V]]] = []
        for key, span in self._pop(self._open, before_ms):
            if span.end_ms >= from_ms:
                found.append((span.end_ms, span.start_ms, self._encoded(key), key, span))
            self._pushed += 1
            heappush(self._closed, (span.end_ms, self._pushed, key, span))
        if not self._complete:
            for end_ms, start_ms, encoded in self._index(from_ms, before_ms):
                row = self._keyspace.get(_row_key(encoded, start_ms, end_ms))
                if row is not None:
                    span = self._decode(start_ms, end_ms, row)
                    found.append((end_ms, start_ms, encoded, self._cached(encoded), span))
        found.sort(key=_closing_order)
        return [(self.user_key(key), span) for _, _, _, key, span in found]

    def first_end(self, from_ms: int) -> int | None:
        """A time that no window which ends at or after `from_ms` ends before, mostly the first end; None: no window."""
        ends: list[int] = [self._open[0][0]] if self._open else []
        if not self._complete:
            row = self._keyspace.first(_INDEX + pack_int64(max(from_ms, self.expired_before_ms)), _INDEX + _AFTER_TIMES)
            if row is not None:
                ends.append(cast("int", unpack_int64(row[0], 1)[0]))
        return min(ends, default=None)

    def expire(self, before_ms: int) -> None:
        """Let go of all windows that end before `before_ms`: for who reads at once, on disk with the next commit.

        To be called after a flush: what is dirty is neither stored nor sent on any more.
        """
        before_ms = min(before_ms, _END_MAX)
        if before_ms <= self.expired_before_ms:
            return
        if not self._complete:
            for end_ms, start_ms, encoded in self._index(self.expired_before_ms, before_ms):
                self._delete(encoded, start_ms, end_ms)
        for heap in (self._open, self._closed):
            for key, span in self._pop(heap, before_ms):
                if span.stored:
                    self._delete(self._encoded(key), span.start_ms, span.end_ms)
                self._let_go(key, span)
        self.expired_before_ms = before_ms

    def flush(self) -> list[Change[Bounded[K], V]]:
        """Take what changed since the last flush: first what was moved or removed (value None), then what is there now.

        Encodes each value once; the bytes wait for `take_changelog` and `take_writes`.
        """
        touched, self._touched = self._touched, []
        removed, self._removed = self._removed, []
        changes: list[Change[Bounded[K], V]] = []
        encode, put, log = self._values.encode, self._writes.rows.append, self._changelog.append
        changelog_key = self.layout.changelog_key
        for key, start_ms, end_ms, timestamp_ms in removed:
            encoded = self._encoded(key)
            self._delete(encoded, start_ms, end_ms)
            log((changelog_key(encoded, start_ms, end_ms), None, timestamp_ms))
            changes.append(Change(Bounded(start_ms, end_ms, self.user_key(key)), None, timestamp_ms))
            self._flushed.append(key)
        for key, span in touched:
            span.dirty = False
            if span.gone:
                continue
            encoded, start_ms, end_ms, timestamp_ms = self._encoded(key), span.start_ms, span.end_ms, span.timestamp_ms
            data = encode(cast("V", span.value))
            put((_row_key(encoded, start_ms, end_ms), pack_int64(timestamp_ms) + data))
            if not span.stored:
                put((_index_key(encoded, start_ms, end_ms), b""))
                span.stored = True
            log((changelog_key(encoded, start_ms, end_ms), data, timestamp_ms))
            changes.append(Change(Bounded(start_ms, end_ms, self.user_key(key)), span.value, timestamp_ms))
            self._flushed.append(key)
        return changes

    def flush_with_old(self) -> list[tuple[Change[Bounded[K], V], bytes | None]]:
        """`flush`, and with each change the encoded value that the flush before it left (None: there was none)."""
        pending, changes = dict(self._writes.rows), self.flush()
        encode = self._keys.encode
        rows = [_row_key(encode(key), start_ms, end_ms) for (start_ms, end_ms, key), *_ in changes]
        return with_old(changes, rows, self._keyspace, pending)

    def take_changelog(self) -> list[ChangelogRow]:
        """The changelog records of all flushes since they were taken last, in order."""
        rows, self._changelog = self._changelog, []
        return rows

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Move what was flushed and expired into the task's write set, with the changelog offset it stands for.

        The caller writes the set before anything is read, or drops it and calls `discard`.
        """
        writes, self._writes = self._writes, Writes()
        writes.checkpoint = checkpoint
        into.of(self._keyspace.name).extend(writes)

    def evict(self, max_entries: int) -> None:
        """End a commit: to be called after the write set was written.

        Drops keys without a window, and where there are more than `max_entries` windows, keys longest unchanged first.
        """
        self._committed_expiry_ms = self.expired_before_ms
        flushed, self._flushed = self._flushed, []
        windows = self.windows
        dirty = {key for key, *_ in self._touched} | {key for key, *_ in self._removed}
        for key in self._emptied - dirty:
            if not windows.get(key, True):
                del windows[key]
        self._emptied &= dirty
        if self._spans <= max_entries:
            return
        # What this commit changed goes to the end of the dict, as in a key-value store.
        for key in flushed:
            if key in windows:
                windows[key] = windows.pop(key)
        for key in [key for key in islice(windows, self._spans - max_entries + len(dirty)) if key not in dirty]:
            if self._spans <= max_entries:
                break
            self._complete = False
            for span in windows.pop(key):
                span.gone = True
                self._spans -= 1
        self._forget_gone()

    def discard(self) -> None:
        """Forget everything since the last commit, and read anew (after an abort, or a restored keyspace)."""
        for spans in self.windows.values():
            spans.clear()
        self.windows.clear()
        self._touched, self._removed, self._flushed, self._changelog = [], [], [], []
        self._emptied.clear()
        self._writes = Writes()
        self._open, self._closed, self._spans = [], [], 0
        self.expired_before_ms = self._committed_expiry_ms
        self._complete = self._keyspace.first(ROWS, None) is None

    def _delete(self, encoded: bytes, start_ms: int, end_ms: int) -> None:
        self._writes.rows.append((_row_key(encoded, start_ms, end_ms), None))
        self._writes.rows.append((_index_key(encoded, start_ms, end_ms), None))

    def _watch(self, key: Any, span: Span[V]) -> None:
        self._pushed += 1  # Decides between equal ends, so that keys and windows are never compared.
        heappush(self._open, (span.end_ms, self._pushed, key, span))
        self._spans += 1

    def _pop(self, heap: list[tuple[int, int, Any, Span[V]]], before_ms: int) -> list[tuple[Any, Span[V]]]:
        """Takes the windows that end before `before_ms` out of a heap; one that has grown since goes back in."""
        popped: list[tuple[Any, Span[V]]] = []
        while heap and heap[0][0] < before_ms:
            _, number, key, span = heappop(heap)
            if span.gone:
                continue
            if span.end_ms < before_ms:
                popped.append((key, span))
            else:
                heappush(heap, (span.end_ms, number, key, span))
        return popped

    def _let_go(self, key: Any, span: Span[V]) -> None:
        spans = self.windows[key]
        spans.remove(span)
        if not spans:
            self._emptied.add(key)
        span.gone = True
        span.stored = False
        self._spans -= 1

    def _forget_gone(self) -> None:
        # What is gone leaves the heaps when its end has passed. Evicting and loading the same keys again and again must
        # not let them grow until then.
        if self.watched > 2 * self._spans + 1_000:
            self._open = sorted(item for item in self._open if not item[3].gone)
            self._closed = sorted(item for item in self._closed if not item[3].gone)

    def _stored(self, encoded: bytes) -> list[Span[V]]:
        prefix = ROWS + _escaped(encoded)
        found = (
            (_unpack_times(row_key, len(row_key) - _TIMES_BYTES), row)
            for row_key, row in self._keyspace.range(prefix, prefix + _AFTER_TIMES)
        )
        expired = self.expired_before_ms
        return [self._decode(start, end, row) for (end, start), row in found if end >= expired]

    def _uncached(self) -> Iterator[tuple[tuple[bytes, int, int], Any, Span[V]]]:
        """All windows of the keyspace whose key is not cached, in the order of rows."""
        if self._complete:
            return
        for row_key, row in self._keyspace.range(ROWS, _INDEX):
            encoded = row_key[1 : -_TIMES_BYTES - len(_KEY_END)].replace(b"\x00\xff", b"\x00")
            end_ms, start_ms = _unpack_times(row_key, len(row_key) - _TIMES_BYTES)
            key = self._cached(encoded)
            if end_ms >= self.expired_before_ms and key not in self.windows:
                yield (encoded, end_ms, start_ms), key, self._decode(start_ms, end_ms, row)

    def _index(self, from_ms: int, before_ms: int) -> Iterator[tuple[int, int, bytes]]:
        """End, start, encoded key of the windows with from_ms <= end < before_ms whose key is not cached."""
        low = _INDEX + pack_int64(max(from_ms, self.expired_before_ms))
        for index_key, _ in self._keyspace.range(low, _INDEX + pack_int64(max(before_ms, 0))):
            end_ms, start_ms = _unpack_times(index_key, 1)
            encoded = index_key[1 + _TIMES_BYTES :]
            if self._cached(encoded) not in self.windows:
                yield end_ms, start_ms, encoded

    def _encoded(self, cache_key: Any) -> bytes:
        return self._keys.encode(cache_key) if self.hashable else cast("bytes", cache_key)

    def _cached(self, encoded: bytes) -> Any:
        return self._keys.decode(encoded) if self.hashable else encoded

    def _decode(self, start_ms: int, end_ms: int, row: bytes) -> Span[V]:
        return Span(start_ms, end_ms, self._values.decode(row[8:]), unpack_int64(row)[0], stored=True)


def _start(span: Span[Any]) -> int:
    return span.start_ms


def _order(found: tuple[tuple[bytes, int, int], Any, Span[Any]]) -> tuple[bytes, int, int]:
    return found[0]


def _closing_order(found: tuple[int, int, bytes, Any, Span[Any]]) -> tuple[int, int, bytes]:
    return found[:3]


def _escaped(encoded: bytes) -> bytes:
    return encoded.replace(b"\x00", b"\x00\xff") + _KEY_END


def _row_key(encoded: bytes, start_ms: int, end_ms: int) -> bytes:
    return ROWS + _escaped(encoded) + _pack_times(end_ms, start_ms)


def _index_key(encoded: bytes, start_ms: int, end_ms: int) -> bytes:
    return _INDEX + _pack_times(end_ms, start_ms) + encoded
