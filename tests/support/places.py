"""Backends that a test can close and open again."""

from collections.abc import Callable, Iterator
from typing import Protocol

from tailrace.state.checkpoint import Checkpoint
from tailrace.state.memory import MemoryBackend
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.state.store import Backend, ChangelogColumns, ChangelogRow, WriteSet


class Place(Protocol):
    """Where a backend lives."""

    backend: Backend

    def reopen(self) -> Backend:
        """Close the backend and open it again."""
        ...


class MemoryPlace:
    """The same object again, which stands for a restart."""

    def __init__(self) -> None:
        self.backend: Backend = MemoryBackend()

    def reopen(self) -> Backend:
        self.backend.close()
        return self.backend


class RocksPlace:
    """A directory."""

    def __init__(self, path: str, memory: RocksMemory, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        self.path = path
        self.memory = memory
        self.monotonic = monotonic
        self.backend: Backend = RocksBackend(path, memory, monotonic)

    def reopen(self) -> Backend:
        self.backend.close()
        self.backend = RocksBackend(self.path, self.memory, self.monotonic)
        return self.backend


class Committed(Protocol):
    """What a commit asks of any store."""

    name: str

    def take_changelog(self) -> list[ChangelogRow] | ChangelogColumns: ...

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None: ...

    def evict(self, max_entries: int) -> None: ...


class Row:
    """A changelog record as the log hands it on."""

    def __init__(self, offset: int, row: ChangelogRow) -> None:
        self.offset = offset
        self.key, self.value, self.timestamp = row
        self.headers = ()


class Batch:
    """A fetched batch."""

    def __init__(
        self, base_offset: int, records: list[Row], next_offset: int, leader_epoch: int, *, control: bool = False
    ) -> None:
        self.base_offset = base_offset
        self.records = records
        self.next_offset = next_offset
        self.leader_epoch = leader_epoch
        self.control = control


class ListChangelog:
    """A changelog in a list, in batches of `batch_rows`; `ends` are ends of leader epochs that are over.

    At the offsets in `markers` stand markers of transactions, whatever `rows` has there.
    """

    def __init__(self, topic_id: str = "topic-1", batch_rows: int = 3, leader_epoch: int = 0) -> None:
        self.topic_id = topic_id
        self.start_offset = 0
        self.rows: list[ChangelogRow] = []
        self.ends: dict[int, int] = {}
        self.leader_epoch = leader_epoch
        self.asked: list[int] = []
        self.markers: set[int] = set()
        self._batch_rows = batch_rows

    @property
    def end_offset(self) -> int:
        return len(self.rows)

    def epoch_end(self, leader_epoch: int, /) -> int:
        return self.ends.get(leader_epoch, self.end_offset)

    def batches(self, offset: int, /) -> Iterator[Batch]:
        self.asked.append(offset)
        begin = offset
        while begin < len(self.rows):
            if begin in self.markers:
                yield Batch(begin, [], begin + 1, self.leader_epoch, control=True)
                begin += 1
                continue
            end = min([begin + self._batch_rows, len(self.rows), *(each for each in self.markers if each > begin)])
            records = [Row(at, self.rows[at]) for at in range(begin, end)]
            yield Batch(begin, records, end, self.leader_epoch)
            begin = end

    def commit(self, store: Committed, backend: Backend, max_entries: int = 1 << 30) -> None:
        """One commit of one store, as a task makes it."""
        self.rows += store.take_changelog()
        writes = WriteSet()
        store.take_writes(writes, Checkpoint(self.topic_id, self.end_offset, self.leader_epoch))
        backend.write(writes)
        store.evict(max_entries)
