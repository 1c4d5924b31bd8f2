"""A store of versions behind a write-back cache: what the value of a key was at any time of the last while.

1. `versions[k]` has all versions of k, earliest first; where k is missing there, the keyspace holds them.
2. A version holds from its time until the next one's; one without a value says that the key was deleted then.
3. `horizon_ms` = the present (as `now` tells it) less the history. A version that is older than it is refused; and
   what was true before it is not told, but where the newest version tells it. What is told depends on nothing else:
   not on when commits were, nor on what was purged.
4. What no reading from the purge's horizon on can find leaves the store, one commit later at the most: versions that
   another one followed by then, and deletes.
5. A version is dirty exactly while it stands in `_touched`.
6. While `_complete` is set, every key of the keyspace is in `versions`.
7. Nothing reaches the keyspace but through `take_writes`, and what stood in the cache before is dropped by `discard`.

| | key | value |
|---|---|---|
| changelog | key, time (8) | 0x00: deleted, or 0x01 and the encoded value; null: purged |
| row | 0x01, escaped key, 0x00 0x00, greatest time less the version's (8) | the same |
| index | 0x02, time (8), key | empty; gone when the horizon has passed it |

Every version has its own record of the changelog, so that compaction keeps the history (Kafka Streams writes them all
under the key, and keeps compaction away from them by wall time, which a replay outruns). In a row's key 0x00 stands as
0x00 0xFF. The newest version comes first, so one seek finds what was true at a time.
Not here: what is done with a record that is refused (streams). One thread uses a store at a time.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar, cast

from tailrace.log.record import RawRecord
from tailrace.state.changelog import Layout, pack_int64, unpack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import ROWS, ChangelogRow, Codec, Keyspace, Writes, WriteSet, after, check_range

K = TypeVar("K")
V = TypeVar("V")

_INDEX = b"\x02"
_KEY_END = b"\x00\x00"
_TIME_BYTES = 8
_TIME_MAX = (1 << 63) - 1
_DELETED, _VALUE = b"\x00", b"\x01"


class Version(Generic[V]):
    """What a key was from one time on; None: deleted."""

    __slots__ = ("dirty", "from_ms", "value")

    def __init__(self, from_ms: int, value: V | None) -> None:
        self.from_ms = from_ms
        self.value = value
        self.dirty = False

    def __repr__(self) -> str:
        return f"Version({self.from_ms}, {self.value!r})"


_from_ms = attrgetter("from_ms")


class VersionedLayout:
    """Every version is a row of its own, with an entry in the index."""

    last_decides: ClassVar[bool] = True

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], _expire_before_ms: int, /) -> int:
        """See `Layout`. What is past its history goes with the first commit."""
        count = 0
        for record in records:
            count += 1
            if record.key is not None:
                key, time = record.key[:-_TIME_BYTES], record.key[-_TIME_BYTES:]
                value = record.value
                into[_row_key(key, cast("int", unpack_int64(time)[0]))] = value
                into[_INDEX + time + key] = None if value is None else b""
        return count


class VersionedStore(Generic[K, V]):
    """Versions by key. `now` tells the present, in ms: that of the record at hand."""

    layout: ClassVar[Layout] = VersionedLayout()

    def __init__(
        self,
        name: str,
        keyspace: Keyspace,
        keys: Codec[K],
        values: Codec[V],
        *,
        history_ms: int,
        now: Callable[[], int],
    ) -> None:
        self.name = name
        self.versions: dict[Any, list[Version[V]]] = {}
        self.hashable = keys.hashable
        self._history_ms = history_ms
        self._now = now
        self._keyspace = keyspace
        self._keys = keys
        self._values = values
        self._touched: list[tuple[Any, Version[V]]] = []
        self._flushed: list[Any] = []
        self._changelog: list[ChangelogRow] = []
        self._writes = Writes()
        self._cached = 0
        self._complete = False
        self.discard()

    @property
    def dirty(self) -> int:
        """How many versions changed since the last flush."""
        return len(self._touched)

    @property
    def key_codec(self) -> Codec[K]:
        """The codec of its keys."""
        return self._keys

    @property
    def value_codec(self) -> Codec[V]:
        """The codec of its values."""
        return self._values

    @property
    def horizon_ms(self) -> int:
        """The time from which on everything is known."""
        return self._now() - self._history_ms

    def cache_key(self, key: K) -> Any:
        """The key of `versions` for the user's key."""
        return key if self.hashable else self._keys.encode(key)

    def load(self, key: Any) -> list[Version[V]]:
        """The versions of a cache key, from cache or keyspace, now in the cache; none: an empty list."""
        versions = self.versions.get(key)
        if versions is None:
            versions = [] if self._complete else self._stored(self._encoded(key))
            self.versions[key] = versions
            self._cached += len(versions)
        return versions

    def put(self, key: K, value: V | None, timestamp_ms: int) -> bool:
        """Says what a key was from a time on, None for deleted; False: refused, that is past the history."""
        if timestamp_ms < self.horizon_ms:
            return False
        cache_key = self.cache_key(key)
        versions = self.versions.get(cache_key)
        if versions is None:
            versions = self.load(cache_key)
        if not versions or versions[-1].from_ms < timestamp_ms:
            at = len(versions)
        else:
            at = bisect_right(versions, timestamp_ms, key=_from_ms)
            if at and versions[at - 1].from_ms == timestamp_ms:
                version = versions[at - 1]
                version.value = value
                if not version.dirty:
                    self._touch(cache_key, version)
                return True
        version = Version(timestamp_ms, value)
        versions.insert(at, version)
        self._cached += 1
        self._touch(cache_key, version)
        return True

    def newest(self, key: K) -> Version[V] | None:
        """The version of a key that no other one follows; None where there is none."""
        versions = self.load(self.cache_key(key))
        return versions[-1] if versions else None

    def delete(self, key: K, timestamp_ms: int) -> V | None:
        """Says that a key is no more from a time on; returns the value that it had then."""
        found = self.as_of(key, timestamp_ms)
        self.put(key, None, timestamp_ms)
        return None if found is None else found[0]

    def get(self, key: K) -> V | None:
        """The value of the newest version, or None."""
        version = self.newest(key)
        return None if version is None else version.value

    def as_of(self, key: K, when_ms: int) -> tuple[V, int, int | None] | None:
        """What a key was at a time: value, from when, until when (exclusive; None: still). None: nothing is known."""
        versions = self.load(self.cache_key(key))
        if not versions:
            return None
        last = versions[-1]
        if last.from_ms <= when_ms:
            return None if last.value is None else (last.value, last.from_ms, None)
        at = bisect_right(versions, when_ms, key=_from_ms)
        if not at or when_ms < self.horizon_ms:
            return None
        version = versions[at - 1]
        return None if version.value is None else (version.value, version.from_ms, versions[at].from_ms)

    def range(self, low: K | None = None, high: K | None = None, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Keys from low to high, both included, with the values of their newest versions; by encoded key."""
        encode = self._keys.encode
        begin = ROWS if low is None else ROWS + _escaped(encode(low))
        end = _INDEX if high is None else ROWS + _escaped(encode(high)) + b"\xff"
        check_range(low, high, begin, end)
        return self._scan(begin, end, reverse=reverse)

    def prefix(self, prefix: K, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Keys whose bytes begin with the prefix's, as `range`: for text and bytes."""
        begin = ROWS + _escaped(self._keys.encode(prefix))[: -len(_KEY_END)]
        return self._scan(begin, after(begin) or _INDEX, reverse=reverse)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """All keys, as `range`."""
        return self._scan(ROWS, _INDEX, reverse=reverse)

    def expire(self, horizon_ms: int) -> None:
        """Purge what no reading from `horizon_ms` on can find, as far as it was committed. To be called after a flush.

        An entry of the index stands for its version: once the horizon has passed it, all earlier ones may go.
        """
        if horizon_ms < 0:
            return
        for index_key, _ in self._keyspace.range(_INDEX, _INDEX + pack_int64(min(horizon_ms, _TIME_MAX - 1) + 1)):
            from_ms, encoded = cast("int", unpack_int64(index_key, 1)[0]), index_key[1 + _TIME_BYTES :]
            self._writes.delete(index_key)
            versions = self.load(self._keys.decode(encoded) if self.hashable else encoded)
            count = bisect_right(versions, from_ms, key=_from_ms)
            if count and versions[count - 1].value is not None:
                count -= 1
            for version in versions[:count]:
                self._purge(encoded, version)
            del versions[:count]
            self._cached -= count

    def flush(self) -> None:
        """Take what changed since the last flush; encodes each value once.

        The bytes wait for `take_changelog` and `take_writes`.
        """
        touched, self._touched = self._touched, []
        encode, log = self._values.encode, self._changelog.append
        for key, version in touched:
            version.dirty = False
            encoded, time = self._encoded(key), pack_int64(version.from_ms)
            data = _DELETED if version.value is None else _VALUE + encode(version.value)
            self._writes.put(_row_key(encoded, version.from_ms), data)
            self._writes.put(_INDEX + time + encoded, b"")
            log((encoded + time, data, version.from_ms))
            self._flushed.append(key)

    def take_changelog(self) -> list[ChangelogRow]:
        """The changelog records of all flushes since they were taken last, in order."""
        rows, self._changelog = self._changelog, []
        return rows

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Move what was flushed and purged into the task's write set, with the changelog offset it stands for.

        The caller writes the set and calls `evict`, or drops it and calls `discard`, before anything else.
        """
        writes, self._writes = self._writes, Writes()
        writes.checkpoint = checkpoint
        into.of(self._keyspace.name).extend(writes)

    def evict(self, max_entries: int) -> None:
        """End a commit, after its set was written: drop versions above `max_entries`, keys longest unchanged first."""
        flushed, self._flushed = self._flushed, []
        if self._cached <= max_entries and len(self.versions) <= max_entries:
            return
        self._complete = False
        dirty = {key for key, _ in self._touched}
        for key in flushed:
            if key in self.versions:
                self.versions[key] = self.versions.pop(key)
        excess = max(self._cached, len(self.versions)) - max_entries
        for key in [key for key in islice(self.versions, excess + len(dirty)) if key not in dirty]:
            if self._cached <= max_entries and len(self.versions) <= max_entries:
                break
            self._cached -= len(self.versions.pop(key))

    def discard(self) -> None:
        """Forget everything since the last commit, and read anew: after an abort or a restore."""
        self.versions.clear()
        self._touched, self._flushed, self._changelog, self._writes = [], [], [], Writes()
        self._cached = 0
        self._complete = self._keyspace.first(ROWS, None) is None

    def _touch(self, key: Any, version: Version[V]) -> None:
        version.dirty = True
        self._touched.append((key, version))

    def _purge(self, encoded: bytes, version: Version[V]) -> None:
        self._writes.delete(_row_key(encoded, version.from_ms))
        self._writes.delete(_INDEX + pack_int64(version.from_ms) + encoded)
        self._changelog.append((encoded + pack_int64(version.from_ms), None, version.from_ms))

    def _stored(self, encoded: bytes) -> list[Version[V]]:
        prefix = ROWS + _escaped(encoded)
        rows = self._keyspace.range(prefix, prefix + b"\xff", reverse=True)
        return [self._decode(key, row) for key, row in rows]

    def _decode(self, row_key: bytes, row: bytes) -> Version[V]:
        from_ms = _TIME_MAX - cast("int", unpack_int64(row_key, len(row_key) - _TIME_BYTES)[0])
        return Version(from_ms, None if row == _DELETED else self._values.decode(row[1:]))

    def _scan(self, low: bytes, high: bytes, *, reverse: bool) -> Iterator[tuple[K, V]]:
        """Newest values by encoded key: what is cached, and of other keys the first row of each in the keyspace."""
        newest: dict[bytes, V | None] = {}
        for key, versions in self.versions.items():
            escaped = _escaped(self._encoded(key))
            if low <= ROWS + escaped < high:
                newest[escaped] = versions[-1].value if versions else None
        if not self._complete:
            for row_key, row in self._keyspace.range(low, high):
                escaped = row_key[1:-_TIME_BYTES]
                if escaped not in newest:
                    newest[escaped] = self._decode(row_key, row).value
        for escaped in sorted(newest, reverse=reverse):
            value = newest[escaped]
            if value is not None:
                yield self._keys.decode(escaped[: -len(_KEY_END)].replace(b"\x00\xff", b"\x00")), value

    def _encoded(self, cache_key: Any) -> bytes:
        return self._keys.encode(cache_key) if self.hashable else cast("bytes", cache_key)


def _escaped(encoded: bytes) -> bytes:
    return encoded.replace(b"\x00", b"\x00\xff") + _KEY_END


def _row_key(encoded: bytes, from_ms: int) -> bytes:
    return ROWS + _escaped(encoded) + pack_int64(_TIME_MAX - from_ms)
