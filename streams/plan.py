"""From a topology and a log to the tasks of one process: chains, state, positions, clocks.

1. No cache merges updates ahead of a node that is to see every one: tasks with state ahead of one do without.
2. A task starts from its committed offsets, with the clocks that were committed beside them, on stores that stand for
   exactly what is in their changelogs. The first positions are committed before the first record runs, so a store
   without committed offsets means that somebody deleted them: refused.

Not here: topics and partition counts (topics), running (runner).
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from tailrace.log.client import CommittedOffset, Log, Producer
from tailrace.log.clock import Clock
from tailrace.log.errors import TailraceError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.state.memory import MemoryBackend
from tailrace.state.mixed import MixedBackend
from tailrace.state.restore import Progress, restore
from tailrace.state.store import Backend
from tailrace.streams import bad_records
from tailrace.streams.build import BUILDERS, functions_of
from tailrace.streams.chain import Chain, children_of
from tailrace.streams.clocks import NEVER, WriterClocks, decode_clocks
from tailrace.streams.commit import offsets_of
from tailrace.streams.context import TaskContext
from tailrace.streams.failure import Nodes, task_error
from tailrace.streams.global_rows import GlobalRows
from tailrace.streams.hop import Hop
from tailrace.streams.on_error import Failures, guard
from tailrace.streams.operators.io import Source
from tailrace.streams.options import AppOptions
from tailrace.streams.outputs import Outputs
from tailrace.streams.positions import ChangelogReader, first_position
from tailrace.streams.source import BadRecord, Decoding, Future, SourceInput
from tailrace.streams.task import Outgoing, Task, TaskId, TaskStore
from tailrace.streams.topics import AppTopics, StoreOf, repartition_of, stores_of
from tailrace.streams.topics_in_use import TopicsInUse
from tailrace.streams.topology import (
    Input,
    Node,
    SubTopology,
    Topology,
    changelog_topic,
)

_logger = logging.getLogger(__name__)

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
    transactional: bool
    """Whether the producer writes in transactions."""
    in_use: TopicsInUse | None = None
    """What the tasks read and keep their state in, as it was when the app began."""
    failures: Failures | None = None
    """Where the app goes on after a function has raised: what is done about it."""
    global_rows: dict[str, GlobalRows] = field(default_factory=dict[str, GlobalRows])
    """Of the app's global tables, by name."""
    tasks: list[Task] = field(default_factory=list[Task])
    """Writers of a repartition before its readers."""
    nodes: Nodes = field(default_factory=Nodes)
    """By the functions that they were given."""

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

    def let_go(self) -> None:
        """Ends the reading of global tables."""
        for rows in self.global_rows.values():
            rows.close()

    def stop(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Closes the processors, every one of them: what a `with` around the run calls, with the error that ended it.

        Raises:
            TaskError: one of them raised, and nothing had before; the others are logged.
        """
        first: Exception | None = None
        self.let_go()
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


class _Restored(NamedTuple):
    store: StoreOf
    changelog: ChangelogReader


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
        self._topics = AppTopics(
            topology, log, options.name, dead_letters="dead_letter" in {options.on_bad_record, options.on_error}
        )

    def plan(self, producer: Producer, progress: Callable[[str], Progress] | None = None) -> Plan:
        """Creates what is missing in the log, and the tasks; progress makes a callback for each store's restoring.

        Raises:
            TopologyError: a topic is missing, partition counts do not fit, offsets were deleted, a processor cannot be
                made.
            TaskError: a processor's factory or `init` raised.
        """
        outputs = Outputs(producer)
        transactional = self._options.guarantee == "exactly_once"
        result = Plan(self._app, producer, outputs, self._topology.inner_topics, transactional)
        with ExitStack() as stack:
            stack.callback(result.let_go)
            self._fill(result, progress)
            stack.pop_all()
        return result

    def _fill(self, result: Plan, progress: Callable[[str], Progress] | None) -> None:
        outputs = result.outputs
        if self._options.on_error != "fail":
            keeps = self._options.on_error == "dead_letter"
            letters = bad_records.dead_letter_topic(self._app) if keeps else None
            result.failures = Failures(result.nodes, outputs, letters)
        for node in self._topology.nodes:
            for function in functions_of(node.operator):
                result.nodes.add(function, node.name, node.place)
        self._topics.prepare()
        for table in self._topology.global_tables:
            rows = GlobalRows(self._log, table, fails=self._options.on_bad_record == "fail")
            result.global_rows[table.name] = rows
            rows.read_whole()
        committed = self._log.committed_offsets(self._app)
        self._topics.refuse_lost_offsets(committed)
        by_subtopology: dict[int, list[Task]] = {}
        # Readers first: a writer needs them to hand over to.
        for sub in reversed(self._topology.subtopologies):
            by_subtopology[sub.id] = [
                self._task(sub, partition, result, by_subtopology, committed, progress)
                for partition in range(self._topics.tasks[sub.id])
            ]
        result.tasks = [task for sub in self._topology.subtopologies for task in by_subtopology[sub.id]]
        # And where records were deleted unread, so that the next run does not count them again.
        first = {
            tp: at
            for tp, at in offsets_of(result.tasks).items()
            if tp not in committed or at.offset > committed[tp].offset
        }
        if first:
            self._log.commit_offsets(self._app, first)
        result.in_use = self._in_use(result.tasks)
        result.start()

    def _in_use(self, tasks: Sequence[Task]) -> TopicsInUse:
        used = {store.changelog.topic: f"it backs store {store.node.name!r}" for task in tasks for store in task.stores}
        for node in self._topology.nodes:
            topic = node.operator.reads
            if topic is not None:
                used[topic.name] = f"it is read at {node.place}"
        for table in self._topology.global_tables:
            used[table.topic.name] = f"it is read whole by the global table at {table.place}"
        return TopicsInUse(self._log, self._app, used)

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
            node.operator.stores and node.id in self._watched for node in sub.nodes
        )
        context = TaskContext(partition, caching=caching)
        if plan.failures is not None:
            plan.failures.take_over(context)
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
        restored = self._restore(task, sub, progress, begun=bool(committed))
        count = self._topics.tasks[sub.id]
        chain = Chain(
            BUILDERS,
            self._children,
            context,
            hops,
            plan.outputs,
            lambda topic: self._topics.output(topic, count),
            self._clock,
            plan.nodes,
        )
        chain.global_rows = plan.global_rows
        for node in self._read_by(task, sub):
            self._input(task, node, chain, plan.outputs, committed)
        for cut in sub.repartitions_read:
            task.incoming[cut.id] = chain.output(cut.id)
        for kept, changelog in restored:
            state_node = chain.state_nodes[kept.name]
            store = TaskStore(
                state_node, changelog.partition, changelog.topic_id, changelog.leader_epoch, changelog.end_offset
            )
            if isinstance(kept.of, Node):
                store.lag_ms, store.after_cache = self._lag(sub, kept.of, caching=context.caching)
            else:
                users = [node for node in sub.nodes if kept.of in node.operator.uses]
                store.lag_ms = max(self._lag(sub, node, caching=False)[0] for node in users)
            store.retention_ms = kept.retention_ms or None
            task.stores.append(store)
            state_node.resume(context.stream_time_ms - store.lag_ms)
        context.state_nodes = [(store.node, store.lag_ms) for store in task.stores if not store.after_cache]
        for node in sub.nodes:
            processor = chain.processors.get(node.id)
            if processor is not None:
                processor.lag_ms, _ = self._lag(sub, node, caching=False)
                plan.nodes.add(processor, node.name, node.place)
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
                for writer in range(self._topics.tasks[other.id])
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
            if node.operator.reads is not None and partition < self._topics.partitions[node.operator.reads.name]
        ]

    def _input(
        self,
        task: Task,
        node: Node,
        chain: Chain,
        outputs: Outputs,
        committed: Mapping[TopicPartition, CommittedOffset],
    ) -> None:
        source = node.operator
        assert isinstance(source, Source)
        topic, partition = source.topic, _partition_of(node, task.id.partition)
        ahead_ms = self._options.max_future_ms
        future = None if ahead_ms is None else Future(ahead_ms, self._clock.now_ms)
        decoding = Decoding(topic.key_codec.decode, topic.value_codec.decode, topic.timestamp, future)
        bad_record = self._bad_record(node, task.context, chain, outputs)
        position = first_position(self._log, self._app, self._options.reset, partition, committed.get(partition))
        if position.deleted:
            task.context.drop("deleted", position.deleted)
        source_input = SourceInput(partition, decoding, chain.output(node.id), bad_record, position.offset)
        if task.clocks is not None:
            source_input.writer = (node.id, task.id.partition)
            source_input.origin_ms = _origin_of(committed.get(partition))
        task.inputs.append(source_input)

    def _bad_record(self, node: Node, context: TaskContext, chain: Chain, outputs: Outputs) -> BadRecord:
        """What the app asks for: a stream `.errors` takes them wherever one is made of the source, else the policy."""
        if self._children.get(Input(node.id, "errors")):
            errors = chain.output(node.id, "errors")
            return bad_records.to_stream(context, node.name, guard(errors, context) if context.goes_on else errors)
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
            return (bool(node.operator.stores) and not node.operator.versions) or any(
                stateful(nodes[parent.node]) for parent in node.parents if parent.node in nodes
            )

        parents = [nodes[parent.node] for parent in node.parents if parent.node in nodes]
        return max(map(lag, parents), default=0), caching and any(map(stateful, parents))

    # ------------------------------------------------------------ state

    def _restore(
        self, task: Task, sub: SubTopology, progress: Callable[[str], Progress] | None, *, begun: bool
    ) -> list[_Restored]:
        """Brings the task's stores up to their changelogs; in the order in which records reach them."""
        restored: list[_Restored] = []
        for store in stores_of(sub):
            backend = task.context.backend
            assert backend is not None
            name = changelog_topic(self._app, store.name)
            changelog = ChangelogReader(self._log, TopicPartition(name, task.id.partition))
            if begun:
                self._refuse_other_changelog(backend, store, changelog)
                self._refuse_cut_changelog(backend, store, changelog)
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

    def _refuse_other_changelog(self, backend: Backend, store: StoreOf, changelog: ChangelogReader) -> None:
        """Raises TopologyError where the store was written from a topic that is gone, and the input has been read."""
        checkpoint = backend.keyspace(store.name).checkpoint()
        if checkpoint is not None and checkpoint.topic_id != changelog.topic_id:
            raise TopologyError(
                f"the changelog of store {store.name!r} (at {store.of.place}), {changelog.partition.topic}, was "
                f"deleted since app {self._app!r} ran last: what the store holds on disk is not in it, and what that "
                "was made of has been read; begin anew: give the app another name, or delete its internal topics, its "
                "committed offsets and its state"
            )

    def _refuse_cut_changelog(self, backend: Backend, store: StoreOf, changelog: ChangelogReader) -> None:
        """Raises TopologyError where records are gone that the store would need, and nothing expires in it."""
        checkpoint = backend.keyspace(store.name).checkpoint()
        if not store.retention_ms and changelog.start_offset > (checkpoint.offset if checkpoint is not None else 0):
            raise TopologyError(
                f"the changelog of store {store.name!r} (at {store.of.place}), {changelog.partition}, begins at offset "
                f"{changelog.start_offset}: what stood before was deleted, and entries of the store with it; "
                "begin anew, with cleanup.policy=compact as it was: give the app another name, or delete its internal "
                "topics, its committed offsets and its state"
            )


def _watched(topology: Topology) -> set[int]:
    """The nodes ahead of those that are to see every update."""
    found: set[int] = set()
    for node in reversed(topology.nodes):
        if node.operator.sees_every_update or node.id in found:
            found.update(parent.node for parent in node.parents)
    return found


def _origin_of(found: CommittedOffset | None) -> int:
    """The clock of a source partition that was committed beside its offset."""
    return decode_clocks(found.metadata)[0] if found is not None and found.metadata else NEVER


def _partition_of(node: Node, partition: int) -> TopicPartition:
    assert isinstance(node.operator, Source)
    return TopicPartition(node.operator.topic.name, partition)
