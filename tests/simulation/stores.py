"""A backend that plays RocksDB without its write-ahead log: what was not flushed when the process ended may be gone.

A crash keeps, of each keyspace, a prefix of what was written, and perhaps rows of the next write without its
checkpoint: a write may be cut into pieces, the piece with the checkpoint last.
"""

import random

from tailrace.state.memory import MemoryBackend, MemoryKeyspace
from tailrace.state.store import Behind, Writes

_SETTLED_EACH = 4


class CrashingKeyspace(MemoryKeyspace):
    """See the head of this file."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._written: list[Writes] = []
        self._flushed = self._commits = 0
        self._behind: Behind | None = None

    def apply(self, writes: Writes) -> None:
        """Applies and remembers; what the store keeps back comes some commits later."""
        written = Writes()
        written.ranges, written.rows, written.checkpoint = writes.ranges, writes.rows, writes.checkpoint
        self._written.append(written)
        self._behind = writes.behind
        super().apply(written)
        self._commits += 1
        if self._commits % _SETTLED_EACH == 0:
            self.settle()

    def settle(self) -> None:
        """Takes what the store kept back."""
        if self._behind is not None:
            self.apply(self._behind.settle())

    def clear(self) -> None:
        """Clears, for good."""
        super().clear()
        self._written, self._flushed, self._behind = [], 0, None

    def flush(self) -> None:
        """All that was written or kept back so far stays."""
        self.settle()
        self._flushed = len(self._written)

    def crash(self, chance: random.Random) -> None:
        """Keeps what survives."""
        written, flushed = self._written, self._flushed
        keep = chance.choice([flushed, len(written), chance.randint(flushed, len(written))])
        self.clear()
        for writes in written[:keep]:
            self.apply(writes)
        if keep < len(written) and not written[keep].ranges:
            piece = Writes()
            piece.rows = written[keep].rows[: chance.randint(0, len(written[keep].rows))]
            self.apply(piece)
        self.flush()


class CrashingBackend(MemoryBackend):
    """All keyspaces of one task."""

    def keyspace(self, name: str) -> MemoryKeyspace:
        """Opens the keyspace, made if it is missing."""
        return self.keyspaces.setdefault(name, CrashingKeyspace(name))

    def flush(self) -> None:
        """All that was written so far stays."""
        for keyspace in self.keyspaces.values():
            assert isinstance(keyspace, CrashingKeyspace)
            keyspace.flush()

    def close(self) -> None:
        """Flushes."""
        self.flush()

    def crash(self, chance: random.Random) -> None:
        """Keeps what survives."""
        for keyspace in self.keyspaces.values():
            assert isinstance(keyspace, CrashingKeyspace)
            keyspace.crash(chance)
