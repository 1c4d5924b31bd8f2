"""What one side of a stream join keeps: records by key and time, behind a write-back cache.

Rows and changelog are those of windows of length 0 (session_rows); the cache is flat (held_rows).

1. `rows[k]` are all records of k; where k is missing there, the keyspace holds them. So a cached key is wholly cached,
   and rows of the keyspace count for the others only.
2. While `_complete` is set, every key of the keyspace is in `rows`: a key that is missing there is nowhere.
3. Nothing before `expired_before_ms` is seen. It leaves the keyspace with the next commit, and the cache with one after
   the slice of time has passed in which it lies: there is nothing to do for each record at any other time.
4. Nothing reaches the keyspace but through `take_writes` and `settle`, and nothing that was not committed:
   a time that is new since stands in `_new` or `_flushed`, one that has changed in `_before`, as it was committed.
5. While the cache holds every record, committed rows stay in `_behind`, and the keyspace lags behind by them, with its
   checkpoint: most pass before their rows are asked for, and are written nowhere.
6. Of records that `marks` says need it, each time without a partner stands in `_alone`, until `closing` has told of it.

Not here: which records are partners, and when they are closed and of no use any more (streams). One thread uses a store
at a time.
"""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import islice
from operator import add
from typing import Any, Generic, TypeVar, cast

from tailrace.state.changelog import pack_int64, pack_start
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.ends import Ends
from tailrace.state.held import HeldCodec, HeldValues, held, held_matched, held_with, is_matched
from tailrace.state.held_rows import FIRST, LAST, Alone, Changed, New, Rows, by_time, first_from
from tailrace.state.session_rows import (
    INDEX,
    SessionLayout,
    first_stored_end,
    last_stored_end,
    row_key,
    rows_at,
    stored_ends,
    stored_rows,
)
from tailrace.state.store import ChangelogColumns, Codec, Keyspace, Writes, WriteSet

K = TypeVar("K")

_TIME_MAX = (1 << 63) - 1
# Of the time that a record is kept: by how much longer it may stay in memory. A slice, and what of one commit may go
# together.
_SLICES, _NEAR = 64, 8
_NOTHING: Rows = [None]
_held = HeldCodec()


class HeldStore(Generic[K]):
    """Records by key and time, as encoded values, with a mark of which have found a partner.

    `marks` says whether somebody asks which have not; `retention_ms` is about how long a record is kept: cache and rows
    are let go of in slices of that. What takes a `key` wants a *cache key*: the user's where the key codec is hashable,
    else its encoded bytes.
    """

    def __init__(self, name: str, keyspace: Keyspace, keys: Codec[K], *, marks: bool, retention_ms: int) -> None:
        self.name = name
        self.layout = SessionLayout(0)
        self.rows: dict[Any, Rows] = {}
        self.hashable = keys.hashable
        self.expired_before_ms = 0
        self._keyspace = keyspace
        self._keys = keys
        self._marks = marks
        self._slice_ms, self._near_ms = max(retention_ms // _SLICES, 1), retention_ms // _NEAR
        self._slices: dict[int, list[Rows]] = {}
        """The keys that have records in each slice of time, or before it, once for each record."""
        self._order: list[int] = []
        """A heap of the slices' numbers."""
        self._watched = 0
        self._alone: Ends[Alone] = Ends()
        self._count = 0
        self._new = New()
        """Times that are new since the last flush."""
        self._flushed = Changed()
        """Those of flushes since the last commit."""
        self._touched: dict[tuple[Any, int], Rows] = {}
        """Times that changed since the last flush, and were there before."""
        self._before: dict[tuple[Any, int], bytes] = {}
        """Times that changed since the last commit, as they were."""
        self._behind: list[Changed] = []
        """By commit."""
        self._changed_keys: list[Any] = []
        self._checkpoint: Checkpoint | None = None
        """What the keyspace stands for once it has the rows in `_behind`."""
        self._entries_max = 0
        self._emptied: set[Any] = set()
        self._changelog = ChangelogColumns()
        self._deleted_before_ms = 0
        """The commit before has deleted what was earlier."""
        last_ms = last_stored_end(keyspace)
        self._stored_until_ms = -1 if last_ms is None else last_ms
        """No row is later."""
        self._uncached_until_ms = self._stored_until_ms
        """No row whose key is not cached is later."""
        self._complete = last_ms is None

    @property
    def dirty(self) -> int:
        """How many records the next flush will look at."""
        return len(self._new) + len(self._touched)

    @property
    def watched(self) -> int:
        """How many items wait for their slice to pass, with those of keys that are not cached any more."""
        return self._watched + len(self._alone)

    def cache_key(self, key: K) -> Any:
        """The key of `rows` for the user's key."""
        return key if self.hashable else self._keys.encode(key)

    # ------------------------------------------------------------ records

    def look(self, key: Any) -> Rows:
        """The records of a cache key, for reading, from the cache or the keyspace; see `mark` for changing them."""
        rows = self.rows.get(key)
        if rows is None:
            return _NOTHING if self._complete else self._load(key)
        return rows

    def put(self, key: Any, time_ms: int, value: bytes, matched: bool) -> None:  # noqa: FBT001 - the hot path
        """Adds a record, behind those of its key that have its time; `matched`: it has a partner, and so have they."""
        kept = held(value, matched=matched)
        rows = self.rows.get(key)
        if rows is None and self._complete:
            rows = self.rows[key] = [key, time_ms, kept]
        else:
            if rows is None:
                rows = self._load(key)
            if len(rows) == FIRST or rows[LAST] < time_ms:
                rows.append(time_ms)
                rows.append(kept)
            else:
                place = first_from(rows, time_ms)
                if rows[place] == time_ms:
                    self._will_change(rows, place)
                    rows[place + 1] = held_with(rows[place + 1], value, matched=matched)
                    return
                rows[place:place] = (time_ms, kept)
        new = self._new
        new.keys.append(key)
        new.rows.append(rows)
        new.times.append(time_ms)
        new.held.append(kept)
        if self._marks and not matched:
            self._alone.add(Alone(time_ms, rows))

    def mark(self, rows: Rows, place: int) -> None:
        """Says that the records at a place of a key's list have found a partner."""
        self._will_change(rows, place)
        rows[place + 1] = held_matched(rows[place + 1])

    def fetch_all(self, from_ms: int, to_ms: int) -> Iterator[tuple[int, K, HeldValues]]:
        """Time, key and what is held of all times with from_ms <= time <= to_ms, by encoded key, then time."""
        found = list(self._uncached())
        for key, rows in self.rows.items():
            encoded = self._encoded(key)
            found += [(encoded, time_ms, kept) for time_ms, kept in by_time(rows)]
        low = max(from_ms, self.expired_before_ms)
        for encoded, time_ms, kept in sorted(found, key=_order):
            if low <= time_ms <= to_ms:
                yield time_ms, self._keys.decode(encoded), kept

    def closing(self, before_ms: int, *, from_ms: int = 0) -> list[tuple[int, K, HeldValues]]:
        """Time, key and what is held without a partner with from_ms <= time < before_ms, by time and encoded key.

        What it returned once is not looked for in the cache again: `from_ms` is the `before_ms` of the call before, and
        nothing is added before that any more.
        """
        found: list[tuple[bytes, int, HeldValues]] = []
        for item in self._alone.take_before(before_ms):
            if item.end_ms >= from_ms:
                place = first_from(item.rows, item.end_ms)
                found.append((self._encoded(item.rows[0]), item.end_ms, item.rows[place + 1]))
        if not self._complete:
            for encoded, time_ms in self._index(max(from_ms, self.expired_before_ms), before_ms):
                row = self._keyspace.get(row_key(encoded, time_ms, time_ms))
                if row is not None and not is_matched(kept := _held.decode(row[8:])):
                    found.append((encoded, time_ms, kept))
        found.sort(key=_closing_order)
        return [(time_ms, self._keys.decode(encoded), kept) for encoded, time_ms, kept in found]

    def first_alone(self, from_ms: int) -> int | None:
        """A time before which nothing without a partner is, from from_ms on; None: there is nothing at all."""
        times = [self._alone.first()]
        if not self._complete:
            times.append(first_stored_end(self._keyspace, max(from_ms, self.expired_before_ms)))
        return min((each for each in times if each is not None), default=None)

    def expire(self, before_ms: int) -> None:
        """Lets go of all that is earlier: for who reads at once, on disk with the next commit."""
        before_ms = min(before_ms, _TIME_MAX)
        self.expired_before_ms = max(self.expired_before_ms, before_ms)

    # ------------------------------------------------------------ commits

    def flush(self) -> None:
        """Takes what changed since the last flush; what has expired meanwhile is not of it."""
        new, touched = self._new, self._touched
        self._new, self._touched = New(), {}
        if touched or (new.times and min(new.times) < self.expired_before_ms):
            known = {(rows[0], time_ms) for rows, time_ms in new}
            self._log(new)
            self._log((rows, time_ms) for (key, time_ms), rows in touched.items() if (key, time_ms) not in known)
        else:
            # All is as it came: the same records as by `_log`, without a look at memory of a minute ago.
            columns, encode_key = self._changelog, self._keys.encode
            encoded = map(encode_key, new.keys) if self.hashable else new.keys
            columns.keys += map(add, encoded, map(pack_start, new.times))
            columns.values += new.held
            columns.timestamps_ms += new.times
        self._count += len(new)
        self._flushed.extend(new)

    def _log(self, changed: Iterable[tuple[Rows, int]]) -> None:
        """Makes changelog records of what is held now."""
        expired_ms, columns = self.expired_before_ms, self._changelog
        for rows, time_ms in changed:
            if time_ms >= expired_ms:
                columns.keys.append(self._encoded(rows[0]) + pack_start(time_ms))
                columns.values.append(_held.encode(rows[first_from(rows, time_ms) + 1]))
                columns.timestamps_ms.append(time_ms)

    def take_changelog(self) -> ChangelogColumns:
        """The changelog records of all flushes since they were taken last, in order."""
        rows, self._changelog = self._changelog, ChangelogColumns()
        return rows

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Moves what was flushed and expired into the task's write set, with the changelog offset it stands for.

        To be called after a flush. The caller writes the set before anything is read, or is done with the store.
        """
        assert not self.dirty, "a commit takes what was flushed: nothing may change in between"
        writes = Writes()
        self._delete_rows(writes)
        changed, self._flushed = self._flushed, Changed()
        self._watch(changed)
        for key, time_ms in self._before:
            changed.rows.append(self.rows[key])
            changed.times.append(time_ms)
        self._before.clear()
        self._changed_keys = [rows[0] for rows in changed.rows] if self._count > self._entries_max else []
        if changed.times:
            changed.latest_ms = max(changed.times)
            self._behind.append(changed)
        self._let_go()
        self._checkpoint = checkpoint
        if self._count > self._entries_max:
            writes.extend(self.settle())
        else:
            writes.behind = self
        into.of(self._keyspace.name).extend(writes)

    @property
    def behind(self) -> int:
        """See `Behind`."""
        return sum(map(len, self._behind))

    def settle(self) -> Writes:
        """See `Behind`."""
        writes, before, encoded, encode = Writes(), self._before, self._encoded, _held.encode
        for changed in self._behind:
            self._stored_until_ms = max(self._stored_until_ms, changed.latest_ms)
            for rows, time_ms in changed:
                if time_ms < self._deleted_before_ms:
                    continue
                data = before.get((rows[0], time_ms)) if before else None
                if data is None:
                    data = encode(rows[-1] if rows[LAST] == time_ms else rows[first_from(rows, time_ms) + 1])
                writes.rows += rows_at(encoded(rows[0]), time_ms, data)
        self._behind.clear()
        writes.checkpoint, self._checkpoint = self._checkpoint, None
        return writes

    def _delete_rows(self, writes: Writes) -> None:
        """Deletes what has expired since the last commit from the keyspace."""
        low_ms, before_ms = self._deleted_before_ms, self.expired_before_ms
        if before_ms > low_ms and self._stored_until_ms >= low_ms:
            for time_ms, _, encoded in stored_ends(self._keyspace, low_ms, before_ms):
                writes.delete(row_key(encoded, time_ms, time_ms))
            writes.delete_range(INDEX + pack_int64(low_ms), INDEX + pack_int64(before_ms))
        self._deleted_before_ms = before_ms
        if before_ms > self._uncached_until_ms:
            self._complete = True

    def _let_go(self) -> None:
        """Frees what is cached of slices that have expired."""
        before_ms, order, cached, slices = self._deleted_before_ms, self._order, self.rows, self._slices
        while order and (order[0] + 1) * self._slice_ms <= before_ms:
            passed = slices.pop(heappop(order))
            self._watched -= len(passed)
            for rows in passed:
                if len(rows) == FIRST or rows[FIRST] >= before_ms:
                    continue
                end = len(rows) if rows[LAST] < before_ms else first_from(rows, before_ms)
                if end == len(rows):
                    del cached[rows[0]]
                del rows[FIRST:end]
                self._count -= end // 2
        self._behind = [changed for changed in self._behind if changed.latest_ms >= before_ms]

    def evict(self, max_entries: int) -> None:
        """Ends a commit: to be called after the write set was written.

        Drops keys without a record, and where there are more than `max_entries`, keys longest unchanged first.
        """
        self._entries_max = max_entries
        changed, self._changed_keys = self._changed_keys, []
        cached = self.rows
        dirty = {rows[0] for rows in self._new.rows} | {key for key, _ in self._touched}
        for key in self._emptied - dirty:
            rows = cached.get(key)
            if rows is not None and len(rows) == FIRST:
                del cached[key]
        self._emptied &= dirty
        if self._count <= max_entries or self._behind:  # which the next commit hands over: then they may go
            return
        # What this commit changed goes to the end of the dict, as in a key-value store.
        for key in changed:
            if key in cached:
                cached[key] = cached.pop(key)
        for key in [key for key in islice(cached, self._count - max_entries + len(dirty)) if key not in dirty]:
            if self._count <= max_entries:
                break
            self._drop(cached.pop(key))
        self._forget_gone()

    def _drop(self, rows: Rows) -> None:
        """Forgets a key that was evicted."""
        if len(rows) > FIRST:
            self._uncached_until_ms = max(self._uncached_until_ms, rows[LAST])
            self._complete = False
            self._count -= len(rows) // 2
            del rows[FIRST:]

    def discard(self) -> None:
        """Takes back everything since the last commit."""
        for (key, time_ms), data in self._before.items():
            rows = self.rows[key]
            rows[first_from(rows, time_ms) + 1] = _held.decode(data)
        for rows, time_ms in (*self._flushed, *self._new):
            place = first_from(rows, time_ms)
            del rows[place : place + 2]
            if len(rows) == FIRST:
                self._emptied.add(rows[0])
        self._new, self._flushed, self._touched, self._before = New(), Changed(), {}, {}
        self._changelog = ChangelogColumns()
        self.expired_before_ms = self._deleted_before_ms
        self._watch_anew()

    # ------------------------------------------------------------ within

    def _will_change(self, rows: Rows, place: int) -> None:
        """Notes that what is held at a place changes now."""
        time_ms = rows[place]
        changing = rows[0], time_ms
        if changing not in self._touched:
            self._touched[changing] = rows
            if changing not in self._before:
                self._before[changing] = _held.encode(rows[place + 1])

    def _watch(self, changed: Changed) -> None:
        """Has records go when their slice of time has passed: those of one commit together, where times are near."""
        if changed.times:
            latest_ms = max(changed.times)
            if latest_ms - min(changed.times) <= self._near_ms:
                self._slice(latest_ms).extend(changed.rows)
            else:
                for rows, time_ms in changed:
                    self._slice(time_ms).append(rows)
            self._watched += len(changed)

    def _slice(self, time_ms: int) -> list[Rows]:
        number = time_ms // self._slice_ms
        found = self._slices.get(number)
        if found is None:
            found = self._slices[number] = []
            heappush(self._order, number)
        return found

    def _watch_all(self, rows: Rows) -> None:
        """The same of all records of a key, which are counted here, too."""
        for time_ms, kept in by_time(rows):
            self._slice(time_ms).append(rows)
            self._watched += 1
            self._count += 1
            if self._marks and not is_matched(kept):
                self._alone.add(Alone(time_ms, rows))

    def _watch_anew(self) -> None:
        """The same of all that is cached."""
        self._slices, self._order, self._alone, self._watched = {}, [], Ends(), 0
        self._count = -len(self._new)  # which are counted with their flush
        for rows in self.rows.values():
            self._watch_all(rows)

    def _forget_gone(self) -> None:
        # What is gone is met when its slice has passed. Evicting and loading the same keys again and again must not let
        # it become more until then.
        if self.watched > 4 * self._count + 1_000:
            self._watch_anew()

    def _load(self, key: Any) -> Rows:
        """The records of a key that is not cached, from the keyspace into the cache."""
        rows = self.rows[key] = [key]
        for _, time_ms, _, row in stored_rows(self._keyspace, self._encoded(key)):
            if time_ms >= self._deleted_before_ms:  # what has expired since may be taken back
                rows += (time_ms, _held.decode(row[8:]))
        self._watch_all(rows)
        if len(rows) == FIRST:
            self._emptied.add(key)
        return rows

    def _uncached(self) -> Iterator[tuple[bytes, int, HeldValues]]:
        """Encoded key, time and what is held of the keys that are not cached."""
        if not self._complete:
            for encoded, time_ms, _, row in stored_rows(self._keyspace, None):
                if self._cached(encoded) not in self.rows:
                    yield encoded, time_ms, _held.decode(row[8:])

    def _index(self, from_ms: int, before_ms: int) -> Iterator[tuple[bytes, int]]:
        """Encoded key and time, from_ms <= time < before_ms, of the keys that are not cached."""
        for time_ms, _, encoded in stored_ends(self._keyspace, from_ms, before_ms):
            if self._cached(encoded) not in self.rows:
                yield encoded, time_ms

    def _encoded(self, key: Any) -> bytes:
        return self._keys.encode(key) if self.hashable else cast("bytes", key)

    def _cached(self, encoded: bytes) -> Any:
        return self._keys.decode(encoded) if self.hashable else encoded


def _order(found: tuple[bytes, int, HeldValues]) -> tuple[bytes, int]:
    return found[:2]


def _closing_order(found: tuple[bytes, int, HeldValues]) -> tuple[int, bytes]:
    return found[1], found[0]
