"""From a topology and a log to the tasks of one process: topics, partition counts, state, positions, clocks.

1. Input topics are never created; a missing one is a TopologyError with near names and the user's line. Output topics,
   those that the app reads again included, changelogs and repartition topics are created when missing, and keep the
   partition count they were made with.
2. A sub-topology has one task per partition: as many as the largest topic or repartition that it reads; with state, all
   of its topics have the same count.
3. No cache merges updates ahead of a node that is to see every one: tasks with state ahead of one do without.
4. A task starts from its committed offsets, with the clocks that were committed beside them, on stores that stand for
   exactly what is in their changelogs. The first positions are committed before the first record runs, so a store
   without committed offsets means that somebody deleted them: refused.

Not here: running (runner).
"""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from tailrace.log.client import CommittedOffset, FetchedBatch, Log, Producer
from tailrace.log.clock import Clock
from tailrace.log.errors import TailraceError, TopicNotFoundError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.state.changelog import Layout
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.memory import MemoryBackend
from tailrace.state.mixed import MixedBackend
from tailrace.state.restore import Progress, restore
from tailrace.state.store import Backend
from tailrace.streams import bad_records
from tailrace.streams.build import ChainBuilder, children_of, functions_of, layout_of, retention_of
from tailrace.streams.clocks import NEVER, WriterClocks, decode_clocks
from tailrace.streams.commit import offsets_of
from tailrace.streams.context import TaskContext
from tailrace.streams.failure import identity, task_error
from tailrace.streams.hop import Hop
from tailrace.streams.operators.io import Repartition, Source
from tailrace.streams.options import AppOptions
from tailrace.streams.outputs import Outputs
from tailrace.streams.place import Place
from tailrace.streams.source import BadRecord, Decoding, SourceInput
from tailrace.streams.store import DeclaredStore
from tailrace.streams.task import Outgoing, Task, TaskId, TaskStore
from tailrace.streams.topic import Topic
from tailrace.streams.topology import (
    Input,
    Node,
    SubTopology,
    Topology,
    changelog_topic,
    repartition_topic,
)

_logger = logging.getLogger(__name__)

# Topics of the app's own take every time: the guard against times in the future is for what comes in, and has spoken.
_ANY_TIME = {"message.timestamp.after.max.ms": (1 << 63) - 1}

BackendFor = Callable[[TaskId], Backend]
"""Opens the place where a task keeps its stores."""


@dataclass(slots=True)
class Plan:
    """The tasks of a process, ready to run."""

    group: str
    producer: Producer
    outputs: Outputs
    inner_topics: set[str]
    """What the app both reads and writes."""
    tasks: list[Task] = field(default_factory=list[Task])
    """Writers of a repartition before its readers."""
    nodes: dict[int, tuple[str, Place]] = field(default_factory=dict[int, tuple[str, Place]])
    """Names and places by `identity` of the functions that the nodes were given."""

    @contextmanager
    def failing(self, task: Task) -> Generator[None]:
        """Around what calls functions of the user: what they raise becomes a TaskError that tells where."""
        try:
            yield
        except TailraceError:
            raise
        except Exception as error:
            raise task_error(error, self.nodes, task.context) from error

    def start(self) -> None:
        """Makes the processors, and has them initialised; where one cannot be, those before it are closed.

        Raises:
            TopologyError: a factory made no processor, or one that it had made before.
            TaskError: the user's code raised.
        """
        made: dict[int, str] = {}
        with ExitStack() as stack:
            stack.push(self.stop)
            for task in self.tasks:
                doing, task.context.doing = task.context.doing, f"the start of task {task.id}"
                for processor in task.processors:
                    with self.failing(task):
                        processor.start(str(task.id), made)
                task.context.doing = doing
            stack.pop_all()

    def stop(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Closes the processors, every one of them: what a `with` around the run calls, with the error that ended it.

        Raises:
            TaskError: one of them raised, and nothing had before; the others are logged.
        """
        first: Exception | None = None
        for task in self.tasks:
            task.context.record, task.context.doing = None, f"the end of task {task.id}"
            for processor in task.processors:
                try:
                    with self.failing(task):
                        processor.stop()
                except Exception as raised:
                    if error is not None or first is not None:
                        _logger.exception("closing a processor, the app having failed before")
                    first = first or raised
        if first is not None and error is None:
            raise first


class _Kept(NamedTuple):
    """A store of a sub-topology, and what it belongs to: a node, or the program."""

    name: str
    of: Node | DeclaredStore[Any, Any]
    layout: Layout
    retention_ms: int | None


class _Restored(NamedTuple):
    store: _Kept
    changelog: "ChangelogReader"


class Planner:
    """Makes a plan. Everything that can be refused is refused before the first record runs."""

    def __init__(
        self, topology: Topology, log: Log, options: AppOptions, backend_for: BackendFor, clock: Clock
    ) -> None:
        self._topology = topology
        self._log = log
        self._options = options
        self._app = options.name
        self._backend_for = backend_for
        self._clock = clock
        self._children = children_of(topology)
        self._watched = _watched(topology)
        self._partitions: dict[str, int] = {}
        """Of every topic of the program."""
        self._counts: dict[int, int] = {}
        """Tasks of each sub-topology."""
        self._written: dict[str, int] = {}
        """Of each topic that the app writes: the largest number of tasks that do."""
        self._widths: dict[int, int] = {}
        """Partitions of each repartition, by node."""

    def plan(self, producer: Producer, progress: Callable[[str], Progress] | None = None) -> Plan:
        """Creates what is missing in the log, and the tasks; progress makes a callback for each store's restoring.

        Raises:
            TopologyError: a topic is missing, partition counts do not fit, offsets were deleted, a processor cannot be
                made.
            TaskError: a processor's factory or `init` raised.
        """
        outputs = Outputs(producer)
        result = Plan(self._app, producer, outputs, self._topology.inner_topics)
        for node in self._topology.nodes:
            for function in functions_of(node.operator):
                result.nodes[identity(function)] = (node.name, node.place)
        self._count_partitions()
        committed = self._log.committed_offsets(self._app)
        self._create_topics()
        self._refuse_lost_offsets(committed)
        by_subtopology: dict[int, list[Task]] = {}
        # Readers first: a writer needs them to hand over to.
        for sub in reversed(self._topology.subtopologies):
            by_subtopology[sub.id] = [
                self._task(sub, partition, result, by_subtopology, committed, progress)
                for partition in range(self._counts[sub.id])
            ]
        result.tasks = [task for sub in self._topology.subtopologies for task in by_subtopology[sub.id]]
        first = {tp: at for tp, at in offsets_of(result.tasks).items() if tp not in committed}
        if first:
            self._log.commit_offsets(self._app, first)
        result.start()
        return result

    # ------------------------------------------------------------ partition counts and topics

    def _count_partitions(self) -> None:
        for sub in self._topology.subtopologies:
            counts = {f"repartition {cut.name!r}": (self._widths[cut.id], cut) for cut in sub.repartitions_read}
            # What the app writes itself comes last: it may be missing, and then has as many as the others.
            for node in sorted(sub.sources, key=self._is_inner):
                assert isinstance(node.operator, Source)
                topic, others = node.operator.topic, [count for count, _ in counts.values()]
                counts[f"topic {topic.name!r}"] = (self._input_partitions(topic, node, max(others, default=1)), node)
            if sub.stores and len({count for count, _ in counts.values()}) > 1:
                told = ", ".join(f"{what} at {node.place} has {count}" for what, (count, node) in counts.items())
                raise TopologyError(
                    f"the inputs of {', '.join(sub.stores)} are not co-partitioned: {told}; give them the same number "
                    "of partitions, or group_by a key"
                )
            own = self._counts[sub.id] = max(count for count, _ in counts.values())
            for cut in sub.repartitions_written:
                assert isinstance(cut.operator, Repartition)
                known = self._widths.get(cut.id, 0)
                self._widths[cut.id] = cut.operator.partitions or max(known, own)
            for output in (node.operator.writes for node in sub.nodes):
                if output is not None:
                    self._written[output.name] = max(self._written.get(output.name, 0), own)

    def _is_inner(self, node: Node) -> bool:
        return node.operator.reads is not None and node.operator.reads.name in self._topology.inner_topics

    def _input_partitions(self, topic: Topic[Any, Any], node: Node, others: int) -> int:
        """How many partitions an input has; `others` is for one that the app writes itself, and that is missing."""
        if self._is_inner(node):
            count = topic.partitions or self._written.get(topic.name, others)
            self._log.create_topic(topic.name, partitions=count, config=topic.config, exist_ok=True)
        try:
            count = self._log.describe_topic(topic.name).partitions
        except TopicNotFoundError as error:
            raise TopologyError(
                f"{error}; it is read at {node.place}, declared at {topic.place}; an input is never created by itself"
            ) from error
        self._partitions[topic.name] = count
        return count

    def _create_topics(self) -> None:
        for sub in self._topology.subtopologies:
            count = self._counts[sub.id]
            for node in sub.nodes:
                if node.operator.writes is not None:
                    self._output_partitions(node.operator.writes, count)
            for store in _kept(sub):
                policy = "compact" if store.retention_ms is None else "compact,delete"
                name = changelog_topic(self._app, store.name)
                self._internal_topic(name, count, store.of, {"cleanup.policy": policy})
            for cut in sub.repartitions_read:
                self._internal_topic(repartition_of(self._app, cut), self._widths[cut.id], cut, {})
        if self._options.on_bad_record == "dead_letter":
            self._log.create_topic(bad_records.dead_letter_topic(self._app), config=_ANY_TIME, exist_ok=True)

    def _output_partitions(self, topic: Topic[Any, Any], count: int) -> int:
        """Creates an output topic that is missing, with count partitions unless it says how many; returns how many."""
        known = self._partitions.get(topic.name)
        if known is None:
            partitions = topic.partitions or count
            self._log.create_topic(topic.name, partitions=partitions, config=topic.config, exist_ok=True)
            known = self._partitions[topic.name] = self._log.describe_topic(topic.name).partitions
        return known

    def _internal_topic(
        self, name: str, partitions: int, node: Node | DeclaredStore[Any, Any], config: Mapping[str, str]
    ) -> None:
        self._log.create_topic(
            name,
            partitions=partitions,
            config={"segment.bytes": 64 << 20, "retention.ms": -1, **_ANY_TIME, **config},
            exist_ok=True,
            internal=True,
        )
        found = self._log.describe_topic(name).partitions
        if found != partitions:
            raise TopologyError(
                f"the internal topic {name!r} has {found} partitions, and {node.name} at {node.place} needs "
                f"{partitions}: keys would be looked for in other partitions than they were written to; delete the "
                "topic and the app's state to begin anew, or give the app another name"
            )

    def _refuse_lost_offsets(self, committed: Mapping[TopicPartition, CommittedOffset]) -> None:
        if committed:
            return
        for store in (store for sub in self._topology.subtopologies for store in _kept(sub)):
            name = changelog_topic(self._app, store.name)
            if any(self._log.offsets(name).values()):
                raise TopologyError(
                    f"store {store.name!r} (at {store.of.place}) has content in {name}, but the offsets "
                    f"of group {self._app!r} are gone, so records would be counted twice: set them again with "
                    f"log.alter_offsets({self._app!r}, …), or delete that topic and the app's state to begin anew"
                )

    # ------------------------------------------------------------ tasks

    def _task(
        self,
        sub: SubTopology,
        partition: int,
        plan: Plan,
        tasks: Mapping[int, Sequence[Task]],
        committed: Mapping[TopicPartition, CommittedOffset],
        progress: Callable[[str], Progress] | None,
    ) -> Task:
        task_id = TaskId(sub.id, partition)
        caching = self._options.cache_bytes > 0 and not any(
            node.operator.store is not None and node.id in self._watched for node in sub.nodes
        )
        context = TaskContext(partition, caching=caching)
        task = Task(task_id, context)
        self._set_clocks(task, sub, committed)
        if sub.stores:
            context.backend = self._backend(task_id, sub)
        hops: dict[int, Hop] = {}
        for cut in sub.repartitions_written:
            readers = self._readers(cut, tasks)
            hops[cut.id] = Hop([(reader.context, reader.incoming[cut.id]) for reader in readers])
            delay_ms, after_state = self._lag(sub, cut, caching=context.caching)
            task.outgoing.append(Outgoing((cut.id, partition), readers, delay_ms, after_state))
        restored = self._restore(task, sub, progress)
        count = self._counts[sub.id]
        builder = ChainBuilder(
            self._children,
            context,
            hops,
            plan.outputs,
            lambda topic: self._output_partitions(topic, count),
            self._clock,
        )
        for node in self._read_by(task, sub):
            self._input(task, node, builder, plan.outputs, committed)
        for cut in sub.repartitions_read:
            task.incoming[cut.id] = builder.output(cut.id)
        for kept, changelog in restored:
            state_node = builder.state_nodes[kept.of.id] if isinstance(kept.of, Node) else builder.own_stores[kept.name]
            store = TaskStore(
                state_node, changelog.partition, changelog.topic_id, changelog.leader_epoch, changelog.end_offset
            )
            if isinstance(kept.of, Node):
                store.lag_ms, store.after_cache = self._lag(sub, kept.of, caching=context.caching)
            task.stores.append(store)
            state_node.resume(context.stream_time_ms - store.lag_ms)
        context.state_nodes = [(store.node, store.lag_ms) for store in task.stores if not store.after_cache]
        for node in sub.nodes:
            processor = builder.processors.get(node.id)
            if processor is not None:
                processor.lag_ms, _ = self._lag(sub, node, caching=False)
                plan.nodes[identity(processor)] = (node.name, node.place)
                task.processors.append(processor)
        return task

    def _backend(self, task_id: TaskId, sub: SubTopology) -> Backend:
        in_memory = {store.name for store in sub.shared_stores if store.kind == "memory"}
        if not in_memory:
            return self._backend_for(task_id)
        if in_memory == set(sub.stores):
            return MemoryBackend()
        return MixedBackend(self._backend_for(task_id), in_memory)

    def _readers(self, cut: Node, tasks: Mapping[int, Sequence[Task]]) -> Sequence[Task]:
        return next(tasks[sub.id] for sub in self._topology.subtopologies if cut in sub.repartitions_read)

    def _set_clocks(self, task: Task, sub: SubTopology, committed: Mapping[TopicPartition, CommittedOffset]) -> None:
        context, partition = task.context, task.id.partition
        task.repartitions = [TopicPartition(repartition_of(self._app, cut), partition) for cut in sub.repartitions_read]
        if task.repartitions:
            writers = [
                (cut.id, writer)
                for cut in sub.repartitions_read
                for other in self._topology.subtopologies
                if cut in other.repartitions_written
                for writer in range(self._counts[other.id])
            ]
            # Its own sources are writers among the others.
            task.clocks = WriterClocks([*writers, *((node.id, partition) for node in self._read_by(task, sub))])
            found = committed.get(task.repartitions[0])
            if found is not None and found.metadata:
                task.clocks.restore(decode_clocks(found.metadata))
            context.origin_ms = context.stream_time_ms = task.clocks.stream_time_ms
            return
        for node in sub.sources:
            origin_ms = _origin_of(committed.get(_partition_of(node, partition)))
            context.origin_ms = context.stream_time_ms = max(context.origin_ms, origin_ms)

    def _read_by(self, task: Task, sub: SubTopology) -> list[Node]:
        """The sources that have a partition for the task."""
        partition = task.id.partition
        return [
            node
            for node in sub.sources
            if node.operator.reads is not None and partition < self._partitions[node.operator.reads.name]
        ]

    def _input(
        self,
        task: Task,
        node: Node,
        builder: ChainBuilder,
        outputs: Outputs,
        committed: Mapping[TopicPartition, CommittedOffset],
    ) -> None:
        source = node.operator
        assert isinstance(source, Source)
        topic, partition = source.topic, _partition_of(node, task.id.partition)
        decoding = Decoding(topic.key_codec.decode, topic.value_codec.decode, topic.timestamp)
        bad_record = self._bad_record(node, task.context, builder, outputs)
        position = self._position(partition, committed.get(partition))
        source_input = SourceInput(partition, decoding, builder.output(node.id), bad_record, position)
        if task.clocks is not None:
            source_input.writer = (node.id, task.id.partition)
            source_input.origin_ms = _origin_of(committed.get(partition))
        task.inputs.append(source_input)

    def _position(self, partition: TopicPartition, found: CommittedOffset | None) -> int:
        start = self._log.offsets(partition.topic, "earliest")[partition]
        if found is None:
            end = self._log.offsets(partition.topic, "latest")[partition]
            return start if self._options.reset == "earliest" else end
        end = self._log.offsets(partition.topic, "latest")[partition]
        if found.leader_epoch >= 0:
            end = min(end, self._log.end_of_epoch(partition, found.leader_epoch))
        if found.offset < start:
            _logger.warning(
                "%s: records %d to %d were deleted before app %s had read them; it goes on at %d",
                partition,
                found.offset,
                start - 1,
                self._app,
                start,
            )
        elif found.offset > end:
            _logger.warning(
                "%s: app %s had read up to %d, but a crash took the records from %d on, which were not on disk yet; it "
                "goes on at %d with what was written instead",
                partition,
                self._app,
                found.offset,
                end,
                end,
            )
        return min(max(found.offset, start), max(end, start))

    def _bad_record(self, node: Node, context: TaskContext, builder: ChainBuilder, outputs: Outputs) -> BadRecord:
        """What the app asks for: a stream `.errors` takes them wherever one is made of the source, else the policy."""
        if self._children.get(Input(node.id, "errors")):
            return bad_records.to_stream(context, node.name, builder.output(node.id, "errors"))
        if self._options.on_bad_record == "skip":
            return bad_records.skip
        if self._options.on_bad_record == "dead_letter":
            return bad_records.to_dead_letters(outputs, bad_records.dead_letter_topic(self._app), node.name)
        assert isinstance(node.operator, Source)
        return bad_records.fail(context, node.operator.topic.timestamp)

    def _lag(self, sub: SubTopology, node: Node, *, caching: bool) -> tuple[int, bool]:
        """By how much what reaches a node may lag behind its task, and whether a cache stands before it."""
        nodes = {node.id: node for node in sub.nodes}

        def lag(node: Node) -> int:
            return node.operator.delay_ms + max(
                (lag(nodes[parent.node]) for parent in node.parents if parent.node in nodes), default=0
            )

        def stateful(node: Node) -> bool:
            return node.operator.store is not None or any(
                stateful(nodes[parent.node]) for parent in node.parents if parent.node in nodes
            )

        parents = [nodes[parent.node] for parent in node.parents if parent.node in nodes]
        return max(map(lag, parents), default=0), caching and any(map(stateful, parents))

    # ------------------------------------------------------------ state

    def _restore(self, task: Task, sub: SubTopology, progress: Callable[[str], Progress] | None) -> list[_Restored]:
        """Brings the task's stores up to their changelogs; in the order in which records reach them."""
        restored: list[_Restored] = []
        for store in _kept(sub):
            backend = task.context.backend
            assert backend is not None
            name = changelog_topic(self._app, store.name)
            changelog = ChangelogReader(self._log, TopicPartition(name, task.id.partition))
            expire_before_ms = 0
            if store.retention_ms and isinstance(store.of, Node):
                now_ms = task.context.stream_time_ms - self._lag(sub, store.of, caching=False)[0]
                expire_before_ms = max(now_ms - store.retention_ms + 1, 0)
            restore(
                backend,
                store.name,
                store.layout,
                changelog,
                expire_before_ms=expire_before_ms,
                progress=progress(f"{store.name}-{task.id.partition}") if progress else None,
            )
            restored.append(_Restored(store, changelog))
        return restored


def _kept(sub: SubTopology) -> list[_Kept]:
    """The stores of a sub-topology in the order in which records reach them; those that processors write to last."""
    own = [
        _Kept(node.operator.store, node, layout_of(node.operator), retention_of(node.operator))
        for node in sub.nodes
        if node.operator.store is not None
    ]
    return own + [_Kept(store.name, store, KeyValueStore.layout, None) for store in sub.shared_stores]


def _watched(topology: Topology) -> set[int]:
    """The nodes ahead of those that are to see every update."""
    found: set[int] = set()
    for node in reversed(topology.nodes):
        if node.operator.sees_every_update or node.id in found:
            found.update(parent.node for parent in node.parents)
    return found


class ChangelogReader:
    """One partition of a changelog, from the log; see `tailrace.state.restore.Changelog`."""

    def __init__(self, log: Log, partition: TopicPartition) -> None:
        self._log = log
        self.partition = partition
        self.leader_epoch = log.leader_epoch(partition)
        self.topic_id = log.describe_topic(partition.topic).topic_id
        self.start_offset = log.offsets(partition.topic, "earliest")[partition]
        self.end_offset = log.offsets(partition.topic, "latest")[partition]

    def __str__(self) -> str:
        return str(self.partition)

    def epoch_end(self, leader_epoch: int, /) -> int:
        """The first offset written after an epoch."""
        return self._log.end_of_epoch(self.partition, leader_epoch)

    def batches(self, offset: int, /) -> Iterator[FetchedBatch]:
        """Batches from offset to the end."""
        with self._log.consumer(reset="earliest") as consumer:
            consumer.assign([self.partition])
            consumer.seek(self.partition, offset)
            while consumer.position(self.partition) < self.end_offset:
                yield from consumer.poll_batches(1.0)


def repartition_of(app: str, cut: Node) -> str:
    """The name of a repartition's topic."""
    assert isinstance(cut.operator, Repartition)
    return repartition_topic(app, cut.operator.repartition)


def _origin_of(found: CommittedOffset | None) -> int:
    """The clock of a source partition that was committed beside its offset."""
    return decode_clocks(found.metadata)[0] if found is not None and found.metadata else NEVER


def _partition_of(node: Node, partition: int) -> TopicPartition:
    assert isinstance(node.operator, Source)
    return TopicPartition(node.operator.topic.name, partition)
