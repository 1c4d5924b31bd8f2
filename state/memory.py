"""A backend in memory: for tests, for `memory:` logs and for the simulation, where it plays RocksDB.

1. `_keys` is sorted and holds every key of `_rows` but those in `_fresh`; while `_removed` is set, also some that are
   gone.

It lives as long as the object: closing keeps the rows, so that opening stores on it again stands for a restart.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from tailrace.state import checkpoint as checkpoints
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import Writes, WriteSet


class MemoryKeyspace:
    """The rows of one store in a dict, sorted when somebody reads a range."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._fresh: set[bytes] = set()
        self._removed = False
        self._checkpoint: bytes | None = None

    def get(self, key: bytes, /) -> bytes | None:
        """The value of `key`."""
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        """The values of `keys`, None where there is none."""
        return [self._rows.get(key) for key in keys]

    def range(self, low: bytes, high: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows with low <= key < high, in order; deleted meanwhile: left out."""
        keys = self._sorted()
        found = keys[bisect_left(keys, low) : len(keys) if high is None else bisect_left(keys, high)]
        for key in reversed(found) if reverse else found:
            value = self._rows.get(key)
            if value is not None:
                yield key, value

    def first(self, low: bytes, high: bytes | None, *, reverse: bool = False) -> tuple[bytes, bytes] | None:
        """The first row of the range, or the last."""
        keys = self._sorted()
        begin, end = bisect_left(keys, low), len(keys) if high is None else bisect_left(keys, high)
        if begin >= end:
            return None
        key = keys[end - 1 if reverse else begin]
        return key, self._rows[key]

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint written last."""
        return None if self._checkpoint is None else checkpoints.decode(self._checkpoint)

    def clear(self) -> None:
        """Remove every row and the checkpoint."""
        self._rows, self._keys, self._fresh, self._removed, self._checkpoint = {}, [], set(), False, None

    def apply(self, writes: Writes) -> None:
        """Range deletes, then rows in order, then the checkpoint."""
        for low, high in writes.ranges:
            keys = self._sorted()
            begin, end = bisect_left(keys, low), bisect_left(keys, high)
            for key in keys[begin:end]:
                del self._rows[key]
            del keys[begin:end]
        rows, fresh = self._rows, self._fresh
        for key, value in writes.rows:
            if value is None:
                self._removed |= rows.pop(key, None) is not None
            else:
                if key not in rows:
                    fresh.add(key)
                rows[key] = value
        if writes.checkpoint is not None:
            self._checkpoint = checkpoints.encode(writes.checkpoint)
        if writes.behind is not None:
            self.apply(writes.behind.settle())  # which costs the same now as later

    def _sorted(self) -> list[bytes]:
        rows, fresh = self._rows, self._fresh
        if self._removed:
            self._keys = [key for key in self._keys if key in rows and key not in fresh]
            self._removed = False
        if fresh:
            # Two sorted runs: the sort merges them in one pass.
            self._keys += sorted(key for key in fresh if key in rows)
            self._keys.sort()
            fresh.clear()
        return self._keys


class MemoryBackend:
    """All keyspaces of one task, in memory."""

    def __init__(self) -> None:
        self.keyspaces: dict[str, MemoryKeyspace] = {}

    def keyspace(self, name: str) -> MemoryKeyspace:
        """Open the keyspace, made if it is missing."""
        return self.keyspaces.setdefault(name, MemoryKeyspace(name))

    def write(self, writes: WriteSet) -> None:
        """Apply a commit."""
        for name, changes in writes.keyspaces.items():
            self.keyspace(name).apply(changes)

    def ingest(self, keyspace: str, rows: dict[bytes, bytes | None], checkpoint: Checkpoint) -> None:
        """Write many rows."""
        writes = Writes()
        writes.put_all(rows)
        writes.checkpoint = checkpoint
        self.keyspace(keyspace).apply(writes)

    def flush(self) -> None:
        """Do nothing: memory does not survive a crash."""

    def flush_if_due(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the rows live as long as the object."""

    def destroy(self) -> None:
        """Remove every row."""
        self.keyspaces.clear()
