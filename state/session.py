"""A store of windows that follow from a key's records (sessions, sliding windows) behind a write-back cache.

Laid out by key, as a record needs all windows of its key at once, with an index by time beside it for closing.

1. `windows[k]` are all windows of k, in order of start, no two with the same start; where k is missing there, the
   keyspace holds them. So a cached key is wholly cached, and rows of the keyspace count for the others only.
2. A window is dirty exactly while it stands in `_touched`. It is `stored` exactly while the changelog has it, or is
   about to, under its present bounds: only then does moving or removing it need a tombstone.
3. Every cached window stands in `_open`, or in `_closed` when `closing` has told of it.
4. While `_complete` is set, every key of the keyspace is in `windows`: a key that is missing there is nowhere.
5. Nothing that ends before `expired_before_ms` is seen, though its rows leave the keyspace with the next commit only.
6. Nothing reaches the keyspace but through `take_writes`, and what stood in the cache before is dropped by `discard`.
7. While the cache holds every window, committed rows stay in `_behind`, under their spans, and the keyspace lags behind
   by them, with its checkpoint: most windows pass before their rows are asked for (`settle`), and are written nowhere.
   A span is `written` exactly while the keyspace has its row; a key with rows in `_behind` is never evicted.

Not here: how rows look (session_rows), which windows merge and when they close (windows, streams). One
thread uses a store at a time.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar, cast

from tailrace.state.changelog import pack_int64, unpack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.ends import Ends
from tailrace.state.session_rows import (
    SessionLayout,
    first_stored_end,
    index_key,
    last_stored_end,
    row_key,
    stored_ends,
    stored_rows,
)
from tailrace.state.store import Change, ChangelogRow, Codec, Entry, Keyspace, Writes, WriteSet, with_old

K = TypeVar("K")
V = TypeVar("V")

_END_MAX = (1 << 63) - 1
_Row = tuple[int, int, bytes | None, int]
"""Start, end, encoded value (None: the span has no row any more), the entry's time."""


class Span(Entry[V], kw_only=True, eq=False, gc=False):
    """One window of a cache key, changed in place: its bounds through the store alone, the rest as in any entry.

    `gone` is set when the store has let go of it; `written` while the keyspace has its row.
    """

    key: Any
    start_ms: int
    end_ms: int
    gone: bool = False
    written: bool = False


class Bounded(NamedTuple, Generic[K]):
    """What a change of this store is about: a key in a window."""

    start_ms: int
    end_ms: int
    key: K


class SessionStore(Generic[K, V]):
    """Values by key and window, where a key's windows depend on its records.

    The hot path works on `windows` directly, under *cache keys* (the user's key where the key codec is hashable, else
    its encoded bytes):

        spans = windows.get(key)
        if spans is None:
            spans = store.load(key)
        ...
        span.value = …
        if not span.dirty: store.touch(span)

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
        self._touched: list[Span[V]] = []
        self._removed: list[tuple[Span[V], int, int, int]] = []
        self._flushed: list[Span[V]] = []
        self._steps: list[tuple[Span[V], _Row]] = []
        """What was flushed and dropped since the last commit, in order."""
        self._behind: dict[Span[V], _Row] = {}
        self._checkpoint: Checkpoint | None = None
        """What the keyspace stands for once it has the rows in `_behind`."""
        self._reads_rows = False
        """Whether old values are read from the keyspace, so that it must not lag behind."""
        self._entries_max = 0
        self._emptied: set[Any] = set()
        self._changelog: list[ChangelogRow] = []
        self._writes = Writes()
        self._open: Ends[Span[V]] = Ends()
        self._closed: Ends[Span[V]] = Ends()
        self._spans = 0
        self._complete = False
        self._uncached_until_ms = -1
        """No row whose key is not cached ends after it."""
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
                spans += self._stored(key)
                spans.sort(key=_start)
                for span in spans:
                    self._watch(span)
            if not spans:
                self._emptied.add(key)
        return spans

    def look(self, key: Any) -> Sequence[Span[V]]:
        """The same for one who only looks: where it is known that a key has none, nothing is cached for it."""
        return () if self._complete and key not in self.windows else self.load(key)

    def add(self, key: Any, start_ms: int, end_ms: int, value: V, timestamp_ms: int) -> Span[V]:
        """Add a window that is not there yet to a cache key; returns it, touched."""
        spans = self.windows.get(key)
        if spans is None:
            if self._complete:
                spans = self.windows[key] = []
            else:
                spans = self.load(key)
        span = Span(value, timestamp_ms, stored=False, key=key, start_ms=start_ms, end_ms=end_ms)
        if not spans or spans[-1].start_ms < start_ms:
            spans.append(span)
        else:
            spans.insert(bisect_left(spans, start_ms, key=_start), span)
        self._open.add(span)
        self._spans += 1
        span.dirty = True
        self._touched.append(span)
        return span

    def move(self, span: Span[V], start_ms: int, end_ms: int) -> None:
        """Give a window other bounds, which neither change its place among the others nor end earlier.

        If it is stored, the next flush retracts it under the bounds that it had.
        """
        if span.stored:
            self._removed.append((span, span.start_ms, span.end_ms, span.timestamp_ms))
            span.stored = False
        span.start_ms, span.end_ms = start_ms, end_ms
        if not span.dirty:
            self.touch(span)

    def remove(self, span: Span[V], timestamp_ms: int) -> None:
        """Remove a window; if it is stored, the next flush retracts it, as of `timestamp_ms`."""
        if span.stored:
            self._removed.append((span, span.start_ms, span.end_ms, timestamp_ms))
        self._let_go(span)

    def forget(self, span: Span[V]) -> None:
        """Let go of a window that was flushed and that nothing can need: no change tells of it."""
        if span.stored:
            start_ms, end_ms = span.start_ms, span.end_ms
            self._steps.append((span, (start_ms, end_ms, None, span.timestamp_ms)))
            changelog_key = self.layout.changelog_key(self._encoded(span.key), start_ms, end_ms)
            self._changelog.append((changelog_key, None, span.timestamp_ms))
            self._flushed.append(span)
        self._let_go(span)

    def touch(self, span: Span[V]) -> None:
        """Mark a window as changed. To be called once, when it is not dirty yet."""
        span.dirty = True
        self._touched.append(span)

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
            spans = [] if self._complete else sorted(self._stored(cache_key), key=_start)
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
        found: list[tuple[int, int, bytes, Span[V]]] = []
        for span in self._open.take_before(before_ms):
            if span.end_ms >= from_ms:
                found.append((span.end_ms, span.start_ms, self._encoded(span.key), span))
            self._closed.add(span)
        if not self._complete:
            for end_ms, start_ms, encoded in self._index(from_ms, before_ms):
                row = self._keyspace.get(row_key(encoded, start_ms, end_ms))
                if row is not None:
                    span = self._decode(self._cached(encoded), start_ms, end_ms, row)
                    found.append((end_ms, start_ms, encoded, span))
        found.sort(key=_closing_order)
        return [(self.user_key(span.key), span) for _, _, _, span in found]

    def first_end(self, from_ms: int) -> int | None:
        """A time that no window which ends at or after `from_ms` ends before, mostly the first end; None: no window."""
        ends = [self._open.first()]
        if not self._complete:
            ends.append(first_stored_end(self._keyspace, max(from_ms, self.expired_before_ms)))
        return min((each for each in ends if each is not None), default=None)

    def expire(self, before_ms: int) -> None:
        """Let go of all windows that end before `before_ms`: for who reads at once, on disk with the next commit.

        To be called after a flush: what is dirty is neither stored nor sent on any more.
        """
        before_ms = min(before_ms, _END_MAX)
        if before_ms <= self.expired_before_ms:
            return
        if not self._complete:
            for end_ms, start_ms, encoded in self._index(self.expired_before_ms, before_ms):
                _delete(self._writes, encoded, start_ms, end_ms)
        step, windows, emptied = self._steps.append, self.windows, self._emptied.add
        for ends in (self._open, self._closed):
            for span in ends.take_before(before_ms):
                if span.stored:
                    step((span, (span.start_ms, span.end_ms, None, span.timestamp_ms)))
                    span.stored = False
                spans = windows[span.key]
                if len(spans) > 1:
                    spans.remove(span)
                elif self._complete:
                    del windows[span.key]
                else:
                    spans.clear()
                    emptied(span.key)
                span.gone = True
                self._spans -= 1
        self.expired_before_ms = before_ms
        if before_ms > self._uncached_until_ms:
            self._complete = True

    def flush(self) -> list[Change[Bounded[K], V]]:
        """Take what changed since the last flush: first what was moved or removed (value None), then what is there now.

        Encodes each value once; the bytes wait for `take_changelog` and `take_writes`.
        """
        removed, touched = self.flush_untold()
        changes: list[Change[Bounded[K], V]] = []
        hashable, decode_key = self.hashable, self._keys.decode
        for span, start_ms, end_ms, timestamp_ms in removed:
            key = span.key if hashable else decode_key(span.key)
            changes.append(Change(Bounded(start_ms, end_ms, key), None, timestamp_ms))
        for span in touched:
            if not span.gone:
                key = span.key if hashable else decode_key(span.key)
                changes.append(Change(Bounded(span.start_ms, span.end_ms, key), span.value, span.timestamp_ms))
        return changes

    def flush_untold(self) -> tuple[list[tuple[Span[V], int, int, int]], list[Span[V]]]:
        """`flush`, where nobody is told: windows with the bounds and time that they had, and those that changed."""
        touched, self._touched = self._touched, []
        removed, self._removed = self._removed, []
        encode, step, log = self._values.encode, self._steps.append, self._changelog.append
        changelog_key, hashable, encode_key = self.layout.changelog_key, self.hashable, self._keys.encode
        for span, start_ms, end_ms, timestamp_ms in removed:
            encoded = encode_key(span.key) if hashable else span.key
            step((span, (start_ms, end_ms, None, timestamp_ms)))
            log((changelog_key(encoded, start_ms, end_ms), None, timestamp_ms))
            self._flushed.append(span)
        for span in touched:
            span.dirty = False
            if span.gone:
                continue
            start_ms, end_ms, timestamp_ms, value = span.start_ms, span.end_ms, span.timestamp_ms, span.value
            encoded = encode_key(span.key) if hashable else span.key
            data = encode(value)  # type: ignore[arg-type]  # what is touched has a value; a cast is a call for each
            step((span, (start_ms, end_ms, data, timestamp_ms)))
            span.stored = True
            log((changelog_key(encoded, start_ms, end_ms), data, timestamp_ms))
        self._flushed += touched
        return removed, touched

    def flush_with_old(self) -> list[tuple[Change[Bounded[K], V], bytes | None]]:
        """`flush`, and with each change the encoded value that the flush before it left (None: there was none)."""
        self._reads_rows = True
        pending: dict[bytes, bytes | None] = {}
        for span, (start_ms, end_ms, data, timestamp_ms) in (*self._behind.items(), *self._steps):
            row = None if data is None else pack_int64(timestamp_ms) + data
            pending[row_key(self._encoded(span.key), start_ms, end_ms)] = row
        changes, encode = self.flush(), self._keys.encode
        rows = [row_key(encode(key), start_ms, end_ms) for (start_ms, end_ms, key), *_ in changes]
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
        behind, self._checkpoint = self._behind, checkpoint
        for span, row in self._steps:
            if row[2] is not None:
                behind[span] = row
                continue
            behind.pop(span, None)
            if span.written:
                _delete(writes, self._encoded(span.key), row[0], row[1])
                span.written = False
        self._steps.clear()
        if self._spans > self._entries_max or self._reads_rows:
            writes.extend(self.settle())
        else:
            writes.behind = self
        into.of(self._keyspace.name).extend(writes)

    @property
    def behind(self) -> int:
        """See `Behind`."""
        return len(self._behind)

    def settle(self) -> Writes:
        """See `Behind`."""
        writes = Writes()
        for span, (start_ms, end_ms, data, timestamp_ms) in self._behind.items():
            assert data is not None
            encoded = self._encoded(span.key)
            writes.put(row_key(encoded, start_ms, end_ms), pack_int64(timestamp_ms) + data)
            if not span.written:
                writes.put(index_key(encoded, start_ms, end_ms), b"")
                span.written = True
        self._behind.clear()
        writes.checkpoint, self._checkpoint = self._checkpoint, None
        return writes

    def evict(self, max_entries: int) -> None:
        """End a commit: to be called after the write set was written.

        Drops keys without a window, and where there are more than `max_entries` windows, keys longest unchanged first.
        """
        self._committed_expiry_ms, self._entries_max = self.expired_before_ms, max_entries
        flushed, self._flushed = self._flushed, []
        windows = self.windows
        dirty = {span.key for span in self._touched} | {span.key for span, *_ in self._removed}
        for key in self._emptied - dirty:
            if not windows.get(key, True):
                del windows[key]
        self._emptied &= dirty
        if self._spans <= max_entries or self._behind:  # which the next commit hands over: then they may go
            return
        # What this commit changed goes to the end of the dict, as in a key-value store.
        for key in [span.key for span in flushed]:
            if key in windows:
                windows[key] = windows.pop(key)
        for key in [key for key in islice(windows, self._spans - max_entries + len(dirty)) if key not in dirty]:
            if self._spans <= max_entries:
                break
            self._complete = False
            for span in windows.pop(key):
                span.gone = True
                self._spans -= 1
                self._uncached_until_ms = max(self._uncached_until_ms, span.end_ms)
        self._forget_gone()

    def discard(self) -> None:
        """Forget everything since the last commit, and read anew (after an abort, or a restored keyspace)."""
        for spans in self.windows.values():
            spans.clear()
        self.windows.clear()
        self._touched, self._removed, self._flushed, self._changelog, self._steps = [], [], [], [], []
        self._emptied.clear()
        self._writes = Writes()
        self._open, self._closed, self._spans = Ends(), Ends(), 0
        self.expired_before_ms = self._committed_expiry_ms
        last_ms = last_stored_end(self._keyspace)
        self._complete = last_ms is None
        self._uncached_until_ms = -1 if last_ms is None else last_ms
        behind, self._behind = self._behind, {}
        for span, row in behind.items():
            self._behind[self._again(span, row)] = row

    def _again(self, committed: Span[V], row: _Row) -> Span[V]:
        """The span of a committed row that the keyspace lacks."""
        start_ms, end_ms, data, timestamp_ms = row
        key = committed.key
        spans = self.load(key)
        for older in [span for span in spans if span.start_ms == start_ms]:
            self._let_go(older)
        value = self._values.decode(cast("bytes", data))
        span = Span(value, timestamp_ms, stored=True, key=key, start_ms=start_ms, end_ms=end_ms)
        span.written = committed.written
        spans.insert(bisect_left(spans, start_ms, key=_start), span)
        self._watch(span)
        return span

    def _watch(self, span: Span[V]) -> None:
        self._open.add(span)
        self._spans += 1

    def _let_go(self, span: Span[V]) -> None:
        spans = self.windows[span.key]
        if len(spans) > 1:
            spans.remove(span)
        else:
            spans.clear()
            self._emptied.add(span.key)
        span.gone = True
        span.stored = False
        self._spans -= 1

    def _forget_gone(self) -> None:
        # What is gone is met when its end has passed. Evicting and loading the same keys again and again must not let
        # it become more until then.
        if self.watched > 2 * self._spans + 1_000:
            self._open.prune()
            self._closed.prune()

    def _stored(self, key: Any) -> list[Span[V]]:
        rows, expired = stored_rows(self._keyspace, self._encoded(key)), self.expired_before_ms
        return [self._decode(key, start, end, row) for _, end, start, row in rows if end >= expired]

    def _uncached(self) -> Iterator[tuple[tuple[bytes, int, int], Any, Span[V]]]:
        """All windows of the keyspace whose key is not cached, in the order of rows."""
        if self._complete:
            return
        for encoded, end_ms, start_ms, row in stored_rows(self._keyspace, None):
            key = self._cached(encoded)
            if end_ms >= self.expired_before_ms and key not in self.windows:
                yield (encoded, end_ms, start_ms), key, self._decode(key, start_ms, end_ms, row)

    def _index(self, from_ms: int, before_ms: int) -> Iterator[tuple[int, int, bytes]]:
        """End, start, encoded key of the windows with from_ms <= end < before_ms whose key is not cached."""
        for found in stored_ends(self._keyspace, max(from_ms, self.expired_before_ms), before_ms):
            if self._cached(found[2]) not in self.windows:
                yield found

    def _encoded(self, cache_key: Any) -> bytes:
        return self._keys.encode(cache_key) if self.hashable else cast("bytes", cache_key)

    def _cached(self, encoded: bytes) -> Any:
        return self._keys.decode(encoded) if self.hashable else encoded

    def _decode(self, key: Any, start_ms: int, end_ms: int, row: bytes) -> Span[V]:
        value = self._values.decode(row[8:])
        span = Span(value, unpack_int64(row)[0], stored=True, key=key, start_ms=start_ms, end_ms=end_ms)
        span.written = True
        return span


def _start(span: Span[Any]) -> int:
    return span.start_ms


def _order(found: tuple[tuple[bytes, int, int], Any, Span[Any]]) -> tuple[bytes, int, int]:
    return found[0]


def _closing_order(found: tuple[int, int, bytes, Span[Any]]) -> tuple[int, int, bytes]:
    return found[:3]


def _delete(writes: Writes, encoded: bytes, start_ms: int, end_ms: int) -> None:
    writes.delete(row_key(encoded, start_ms, end_ms))
    writes.delete(index_key(encoded, start_ms, end_ms))
