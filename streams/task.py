"""A task: one partition of one sub-topology, with its inputs, its chain, its clocks and its state.

1. Records of one input run in the order of their offsets; among its inputs a task takes the one with the oldest head,
   and of one time the one that stands first: a function of what waits, whatever the batches and slices.
2. A task that reads source partitions has one clock: origin and stream time are the largest timestamp taken. A task
   behind repartitions has the minimum over its writers as its stream time; each row brings its own origin. Where it
   reads source partitions beside them, these are writers too.
3. What a task writes to a repartition in memory is with the readers at once; its time is told to them after that.
   Through the log it is told with the commit (log_hop).

Not here: which task runs next (runner), when state is written (commit). A task never blocks and never waits.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tailrace.log.record import TopicPartition
from tailrace.state.checkpoint import Checkpoint
from tailrace.streams.chain.chain import ProcessorLink
from tailrace.streams.chain.clocks import NEVER, WriterClocks
from tailrace.streams.chain.context import FAR, StateNode, TaskContext
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.markers import End, Said
from tailrace.streams.chain.schedule import NONE_DUE
from tailrace.streams.chain.silence import Listening
from tailrace.streams.chain.source import SourceInput, WriterId
from tailrace.streams.program.topology import Forward

# Records between two looks at the clock: a function of the user may turn slow in the middle of a slice.
_STRETCH = 250


class TaskId(NamedTuple):
    """Sub-topology and partition; prints as Kafka Streams does, 0_3."""

    subtopology: int
    partition: int

    def __str__(self) -> str:
        return f"{self.subtopology}_{self.partition}"


@dataclass(slots=True)
class Outgoing:
    """One repartition that a task writes to."""

    writer: WriterId
    readers: "Sequence[Task]"
    """By partition; none where it goes through the log."""
    delay_ms: int
    """By how much what arrives here may lag behind the task's stream time."""
    after_state: bool
    """A cache stands before it: its time may be told only when the cache was flushed."""
    log: LogHop | None = None
    """The repartition, where it goes through the log."""


@dataclass(slots=True, eq=False)
class TaskStore:
    """One store of a task, and the partition of the changelog that backs it."""

    node: StateNode
    changelog: TopicPartition
    topic_id: str
    leader_epoch: int
    changelog_end: int
    """The changelog is applied to the store, or about to be, below this offset."""
    lag_ms: int = 0
    """By how much what reaches the node may lag behind the task's stream time: results of stateful nodes before it."""
    after_cache: bool = False
    """A cache stands before the node: its windows may close only when that was flushed."""
    retention_ms: int | None = None
    """How long windows are kept after their start, or sessions after their end; None where nothing expires."""
    source: SourceInput | None = None
    """Where it has no changelog: what it is restored from (backed)."""

    def expired_before_ms(self, stream_time_ms: int) -> int:
        """What begins (a session: ends) before this has expired for a task that is at stream_time_ms."""
        if self.retention_ms is None:
            return 0
        return max(stream_time_ms - self.lag_ms - self.retention_ms + 1, 0)

    def stands_at_source(self) -> None:
        """Has the store stand for what was read of its source: what is committed."""
        assert self.source is not None
        self.changelog_end = self.source.position
        if self.source.leader_epoch >= 0:
            self.leader_epoch = self.source.leader_epoch

    def checkpoint(self, now_ms: int) -> Checkpoint:
        """What the store stands for once the pending writes are in it, by the wall clock at now_ms."""
        return Checkpoint(self.topic_id, self.changelog_end, self.leader_epoch, now_ms)


@dataclass(slots=True, eq=False)
class Task:
    """See the module's docstring."""

    id: TaskId
    context: TaskContext
    inputs: list[SourceInput] = field(default_factory=list[SourceInput])
    """In the order in which records of one time run."""
    incoming: dict[int, Forward] = field(default_factory=dict[int, Forward])
    """By repartition node: what takes its rows."""
    outgoing: list[Outgoing] = field(default_factory=list[Outgoing])
    clocks: WriterClocks | None = None
    """Of a task behind repartitions."""
    repartitions: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    """The partitions it reads through repartitions in memory, and up to where they were read when they had rows."""
    stores: list[TaskStore] = field(default_factory=list[TaskStore])
    """In the order in which records reach them; those that processors write to last."""
    processors: list[ProcessorLink] = field(default_factory=list[ProcessorLink])
    listening: Listening | None = None
    """Where wall time moves its time when nothing comes."""
    closes_behind_caches_ms: int = NEVER
    """As of the last flush, a time at which nothing behind a cache closes before."""
    idle: bool = False
    records_in: int = 0
    """Records of source partitions that it has run."""

    def head_ms(self) -> int | None:
        """The time of the oldest record that waits in its inputs."""
        heads = [source.head_ms for source in self.inputs if source.head_ms is not None]
        return min(heads) if heads else None

    def next_ms(self) -> int | None:
        """The same of those that need not wait for other tasks (turns)."""
        heads = [source.head_ms for source in self.inputs if _may_run(source)]
        return min((head for head in heads if head is not None), default=None)

    def run(self, records_max: int, enough: Callable[[], bool]) -> int:
        """Runs up to records_max records, each time of the oldest input, until it is enough; returns how many.

        Ends with the batch of an only input, and where an input has no more: there may be older ones to fetch.
        """
        count = 0
        while True:
            stretch = min(records_max - count, _STRETCH)
            waiting = [source for source in self.inputs if _may_run(source)]
            if not waiting:
                return count
            if len(waiting) == 1:
                source = waiting[0]
                ran = source.run(self.context, stretch)
            else:
                source, limit_ms = self._oldest(waiting)
                ran = source.run_until(self.context, limit_ms, stretch)
            count += ran
            self.records_in += ran if source.counted else 0
            if source.writer is not None:
                self.hear(source.writer, source.origin_ms, idle=False)
            batch_ended = len(waiting) == 1 and ran < stretch
            if count >= records_max or batch_ended or source.head_ms is None or enough():
                return count

    def _oldest(self, waiting: list[SourceInput]) -> tuple[SourceInput, int]:
        """The input whose turn it is, of two or more, and up to which time."""
        waiting.sort(key=_head)  # it keeps the order of those of one time
        source, following = waiting[0], waiting[1]
        stands_first = self.inputs.index(source) < self.inputs.index(following)
        return source, _head(following) if stands_first else _head(following) - 1

    def hear_inputs(self, expected: Collection[TopicPartition]) -> bool:
        """Takes the word of its own inputs, where they are writers among others; returns whether time went on.

        One that has nothing is idle, but where more is expected of its partition.
        """
        before_ms = self.context.stream_time_ms
        for source in self.inputs:
            more = source.partition in expected
            if source.writer is not None:
                self.hear(source.writer, source.origin_ms, idle=source.head_ms is None and not more)
            else:
                source.look_again(expected=more)
        return self.context.stream_time_ms > before_ms

    def tell_time(self, *, flushed: bool) -> None:
        """Tells the readers of its repartitions how far it is, once the rows up to there are with them.

        flushed says that the task's caches are empty, so that the time behind them may be told.
        """
        for out in self.outgoing:
            if flushed or not out.after_state:
                time_ms = max(self.context.stream_time_ms - out.delay_ms, NEVER)
                for reader in out.readers:
                    reader.hear(out.writer, time_ms, idle=self.idle)
        for out in self.outgoing:
            for reader in out.readers:
                if reader.outgoing:
                    reader.tell_time(flushed=False)

    def say(self, out: Outgoing, partitions: Mapping[str, int]) -> Said:
        """What it says at a commit through the log; `partitions` are those of the topics that end there."""
        claim = frozenset[End]().union(*(source.claim(partitions) for source in self.inputs)) if self.idle else None
        return Said(max(self.context.stream_time_ms - out.delay_ms, NEVER), claim)

    def hear(self, writer: WriterId, time_ms: int, *, idle: bool) -> None:
        """Takes a writer's time, and closes what it closes."""
        clocks = self.clocks
        assert clocks is not None
        clocks.advance(writer, time_ms)
        clocks.set_idle(writer, idle=idle)
        self.move_on()

    def move_on(self) -> None:
        """Goes by what its writers have said, and closes what that closes."""
        context, clocks = self.context, self.clocks
        assert clocks is not None
        now_ms = clocks.update()
        if now_ms > context.stream_time_ms:
            context.stream_time_ms = now_ms
            context.origin_ms = max(context.origin_ms, now_ms)
            if now_ms >= context.next_close_ms:
                context.close_windows()
            if now_ms >= context.stream_calls.next_ms:
                context.stream_calls.run(now_ms)

    def listen(self, now_s: float) -> bool:
        """Lets its time go on with the clock where that is due (silence); returns whether it did."""
        listening = self.listening
        assert listening is not None
        silent = all(source.empty for source in self.inputs)
        positions = tuple(source.position for source in self.inputs) if silent else None
        if not listening.is_due(positions, now_s) or self.head_ms() is not None or not self.waits_for_time():
            return False
        passed_ms = listening.passed_ms(now_s)
        for source in self.inputs:
            from_ms = self.context.stream_time_ms if source.writer is None else source.origin_ms
            if source.silences is not None and from_ms != NEVER:
                source.fall_silent(from_ms + passed_ms, from_ms)
        return self.head_ms() is not None

    def waits_for_time(self) -> bool:
        """Whether anything happens as its time goes on, here or in the tasks behind it, as far as is known here."""
        if self.context.next_close_ms < FAR or self.context.stream_calls.next_ms < NONE_DUE:
            return True
        held = any(store.after_cache for store in self.stores)
        if held and (self.closes_behind_caches_ms < FAR or self.dirty()):
            return True
        return any(
            out.log is not None or any(reader.waits_for_time() for reader in out.readers) for out in self.outgoing
        )

    def flush(self) -> None:
        """Sends on what the caches of its stateful nodes hold back."""
        self.context.record = None
        next_ms = FAR
        for store in self.stores:
            now_ms = self.context.stream_time_ms - store.lag_ms
            if store.after_cache:
                next_ms = min(next_ms, store.node.close_windows(now_ms))
            store.node.flush(now_ms)
        self.closes_behind_caches_ms = next_ms

    def open_windows(self) -> int:
        """How many results are in windows that are not closed."""
        now_ms = self.context.stream_time_ms
        return sum(store.node.open_windows(now_ms - store.lag_ms) for store in self.stores)

    def dirty(self) -> int:
        """How many updates its caches hold back."""
        return sum(store.node.dirty for store in self.stores)


def _may_run(source: SourceInput) -> bool:
    return source.head_ms is not None and source.head_ms <= source.limit_ms


def _head(source: SourceInput) -> int:
    assert source.head_ms is not None
    return source.head_ms
