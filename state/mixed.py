"""A backend that keeps some of a task's stores in memory and the others elsewhere.

What is in memory is gone when the task ends: its stores are restored from their changelogs at every start.
"""

from collections.abc import Collection

from tailrace.state.checkpoint import Checkpoint
from tailrace.state.memory import MemoryBackend
from tailrace.state.store import Backend, Keyspace, WriteSet


class MixedBackend:
    """The stores of one task: those named in memory, all others in another backend."""

    def __init__(self, others: Backend, in_memory: Collection[str]) -> None:
        self._others = others
        self._memory = MemoryBackend()
        self._in_memory = frozenset(in_memory)

    def keyspace(self, name: str) -> Keyspace:
        """Open the keyspace where it belongs."""
        return self._of(name).keyspace(name)

    def write(self, writes: WriteSet) -> None:
        """Apply a commit: as one write where stores survive, and then to memory."""
        others, memory = WriteSet(), WriteSet()
        for name, changes in writes.keyspaces.items():
            (memory if name in self._in_memory else others).keyspaces[name] = changes
        self._others.write(others)
        self._memory.write(memory)

    def ingest(self, keyspace: str, rows: dict[bytes, bytes | None], checkpoint: Checkpoint) -> None:
        """Write many rows of one keyspace."""
        self._of(keyspace).ingest(keyspace, rows, checkpoint)

    def flush(self) -> None:
        """Return when everything that can survive does."""
        self._others.flush()

    def flush_if_due(self) -> None:
        """See `Backend`."""
        self._others.flush_if_due()

    def close(self) -> None:
        """Close what can be closed."""
        self._others.close()

    def destroy(self) -> None:
        """Remove every byte."""
        self._others.destroy()
        self._memory.destroy()

    def _of(self, name: str) -> Backend:
        return self._memory if name in self._in_memory else self._others
