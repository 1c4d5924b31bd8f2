"""A key-value store whose entries vanish some time after they were put.

1. An entry is there while its time + ttl > now, as `now` tells it: exactly, whenever it is deleted.
2. What has vanished leaves the store one commit later at the most, as far as `expire` was told of the time.

Rows and changelog are a key-value store's. Beside each row stands an entry of the index: 0x02, time (8), key; one that
is older than its row's time says nothing, and goes when its time has come.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar, TypeVar, cast

from tailrace.log.record import RawRecord
from tailrace.state.changelog import KeyValueLayout, Layout, pack_int64, unpack_int64
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.store import Change, Codec, Entry, Keyspace

K = TypeVar("K")
V = TypeVar("V")

_INDEX = b"\x02"
_TIME_BYTES = 8


class ExpiringLayout(KeyValueLayout):
    """Rows of a key-value store, each with an entry in the index."""

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], expire_before_ms: int, /) -> int:
        """See `Layout`."""
        kept = list(records)
        for record in kept:
            if record.key is not None and record.value is not None:
                into[_INDEX + pack_int64(record.timestamp) + record.key] = b""
        return super().rows(kept, into, expire_before_ms)


class ExpiringStore(KeyValueStore[K, V]):
    """Values by key, for `ttl_ms` each."""

    layout: ClassVar[Layout] = ExpiringLayout()

    def __init__(
        self,
        name: str,
        keyspace: Keyspace,
        keys: Codec[K],
        values: Codec[V],
        *,
        ttl_ms: int,
        now: Callable[[], int],
    ) -> None:
        self._ttl_ms = ttl_ms
        self._now = now
        super().__init__(name, keyspace, keys, values)

    def alive(self, entry: Entry[V]) -> bool:
        """See `KeyValueStore.alive`."""
        return entry.timestamp_ms + self._ttl_ms > self._now()

    def get(self, key: K) -> V | None:
        """The value of `key`, or None."""
        entry = self.load(self.cache_key(key))
        return entry.value if self.alive(entry) else None

    def delete(self, key: K, timestamp_ms: int) -> V | None:
        """Remove `key`; returns the value that it had."""
        value = self.get(key)
        super().delete(key, timestamp_ms)
        return value

    def flush(self) -> list[Change[K, V]]:
        """See `KeyValueStore.flush`."""
        changes = super().flush()
        for key, value, timestamp_ms in changes:
            if value is not None:
                self._writes.put(_INDEX + pack_int64(timestamp_ms) + self._keys.encode(key), b"")
        return changes

    def expire(self, now_ms: int) -> None:
        """Delete what has vanished by then, as far as it was committed. To be called before a flush."""
        before_ms = now_ms - self._ttl_ms + 1
        if before_ms <= 0:
            return
        for index_key, _ in self._keyspace.range(_INDEX, _INDEX + pack_int64(before_ms)):
            self._writes.delete(index_key)
            encoded = index_key[1 + _TIME_BYTES :]
            key = self._keys.decode(encoded) if self.hashable else encoded
            entry = self.load(key)
            if entry.value is not None and entry.timestamp_ms == cast("int", unpack_int64(index_key, 1)[0]):
                entry.value = None
                if not entry.dirty:
                    self.touch(key, entry)
