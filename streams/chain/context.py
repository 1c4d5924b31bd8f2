"""What the operators of one task share: the record at hand, its clocks, counters of dropped records, state.

The hot path passes key, value and timestamp as arguments; whatever else an operator may ask for stands here and is set
once per record by the task.

1. origin_ms >= the largest timestamp that the record's source partition had shown up to it, and >= stream_time_ms: a
   window is closed for a record exactly when the window's closing time <= origin_ms.
2. next_close_ms <= the first stream time at which a node that emits on close has a window to close.

Not here: how records are read (task), when state is written (commit).
"""

from collections import Counter
from typing import Any, Protocol

from tailrace.log.record import Headers, RawRecord, TopicPartition
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import Backend, ChangelogColumns, ChangelogRow, WriteSet
from tailrace.streams.chain.clocks import NEVER
from tailrace.streams.chain.schedule import Schedules

FAR = (1 << 63) - 1
"""Later than every window's closing time but that of an unlimited window."""


class Failed(Protocol):
    """Takes what a chain raised: raises, or returns when the app goes on without what was on its way (on_error)."""

    def __call__(self, error: Exception, result: tuple[Any, Any, int] | None = None, /) -> None:
        """`result` is what was on its way, where the caller has it: key, value, time in ms."""
        ...


def _raise(error: Exception, _result: object = None, /) -> None:
    raise error


class Stored(Protocol):
    """The store of a stateful operator, as the commit sees it."""

    def take_changelog(self) -> list[ChangelogRow] | ChangelogColumns:
        """The changelog records of what was flushed."""
        ...

    def take_writes(self, into: WriteSet, checkpoint: Checkpoint | None = None) -> None:
        """Moves what was flushed into the task's write set."""
        ...

    def evict(self, max_entries: int) -> None:
        """Ends a commit: keeps at most max_entries in the cache."""
        ...

    def discard(self) -> None:
        """Forgets what was not committed."""
        ...


class StateNode(Protocol):
    """The part of a stateful operator that its task and the commit speak to."""

    @property
    def name(self) -> str:
        """The store's name."""
        ...

    @property
    def store(self) -> Stored:
        """Its store."""
        ...

    @property
    def dirty(self) -> int:
        """How many updates wait in the cache for the next commit."""
        ...

    def resume(self, stream_time_ms: int, /) -> None:
        """Goes on where a run before this one had come to: what was closed then is not sent again."""
        ...

    def close_windows(self, stream_time_ms: int, /) -> int:
        """Sends final results of what closed up to stream_time_ms; returns the next time that it wants to be asked."""
        ...

    def flush(self, stream_time_ms: int, /) -> None:
        """Sends on what the cache holds back, and drops what is past its retention."""
        ...

    def open_windows(self, stream_time_ms: int, /) -> int:
        """How many results are in windows that are not closed at stream_time_ms."""
        ...


class TaskContext:
    """The shared state of one task's operators."""

    __slots__ = (
        "backend",
        "caching",
        "cause",
        "doing",
        "dropped",
        "failed",
        "goes_on",
        "next_close_ms",
        "old",
        "origin_ms",
        "partition",
        "record",
        "source",
        "state_nodes",
        "stream_calls",
        "stream_time_ms",
        "superseded",
        "wall_calls",
    )

    def __init__(self, partition: int, *, caching: bool) -> None:
        self.partition = partition
        self.backend: Backend | None = None
        """Where the stores are kept; None for a task without any."""
        self.caching = caching
        """Whether stateful nodes merge updates of a key until the commit."""
        self.record: RawRecord | None = None
        """The source record at hand; None while finals and cached updates go out."""
        self.cause: RawRecord | None = None
        """While the result of a record goes out: that record, for whom it fails."""
        self.old: Any = None
        """While a table's change is on its way to nodes that ask for it: the value that it replaces, None for none."""
        self.superseded = False
        """While a versioned table's change is on its way: whether a newer version of the row is there already."""
        self.source: TopicPartition | None = None
        self.origin_ms = NEVER
        self.stream_time_ms = NEVER
        self.next_close_ms = FAR
        self.dropped: Counter[str] = Counter()
        self.state_nodes: list[tuple[StateNode, int]] = []
        """Those that close windows as stream time goes on, in the order in which records reach them; and how far what
        comes to each may lag behind stream time, in ms."""
        self.stream_calls = Schedules()
        """What processors have called as stream time goes on, each time after the record that moved it."""
        self.wall_calls = Schedules()
        """What they have called by the wall clock."""
        self.failed: Failed = _raise
        """Where what a chain raises is handed to by whoever would go on after it."""
        self.goes_on = False
        """Whether the app goes on after a function has raised."""
        self.doing = "a result of a window or a cache"
        """What is at work while there is no record, for messages."""

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts records that go no further, by reason: see `Summary.dropped`."""
        self.dropped[reason] += count

    def close_windows(self) -> None:
        """Lets the nodes that emit on close send what closed at the present stream time."""
        now = self.stream_time_ms
        # The record that moved time is not what goes out now, and must not be blamed for it.
        record, self.record = self.record, None
        self.next_close_ms = min(
            (node.close_windows(now - lag_ms) + lag_ms for node, lag_ms in self.state_nodes), default=FAR
        )
        self.record = record

    def headers(self) -> Headers:
        """The headers of the record at hand."""
        return self.record.headers if self.record is not None else ()

    def where(self) -> str:
        """Where the record at hand stands, for messages: topic-partition@offset."""
        record, source = self.source_record(), self.source
        if record is None:
            return self.doing
        return f"{source.topic}-{source.partition}@{record.offset}" if source else f"offset {record.offset}"

    def source_record(self) -> RawRecord | None:
        """The record that is at work, as it came; None where there is none."""
        for record in (self.record, self.cause):
            came = record.record if isinstance(record, WithHeaders) else record
            if came is not None and came.offset >= 0:
                return came
        return None


class WithHeaders:
    """A record with other headers, in place of the one at hand while what was made of it goes its way."""

    __slots__ = ("headers", "key", "offset", "record", "timestamp", "value")

    def __init__(self, record: RawRecord | None, headers: Headers) -> None:
        self.record: RawRecord | None = record.record if isinstance(record, WithHeaders) else record
        """The one that came."""
        self.headers: Headers = headers
        self.offset = -1 if record is None else record.offset
        self.timestamp = -1 if record is None else record.timestamp
        self.key = None if record is None else record.key
        self.value = None if record is None else record.value
