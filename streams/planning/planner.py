"""Makes plans: from a topology and a log to the tasks of one running app: chains, state, positions, clocks.

1. No cache merges updates ahead of a node that is to see every one: tasks with state ahead of one do without.
2. A task starts from its committed offsets, with the clocks that were committed beside them, on stores that stand for
   exactly what is in their changelogs. The first positions are committed before the first record runs, so a store
   without committed offsets means that somebody deleted them: refused.
3. `load` touches nothing that a plan has; all else is done by the thread that runs the plan.

Not here: topics and partition counts (topics), which units there are (units), running (runner).
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tailrace.log.client import CommittedOffset, Log, Producer
from tailrace.log.clock import Clock
from tailrace.log.errors import RetriableError
from tailrace.log.record import TopicPartition
from tailrace.state.memory import MemoryBackend
from tailrace.state.mixed import MixedBackend
from tailrace.state.restore import Progress, restore
from tailrace.state.store import Backend
from tailrace.streams.chain import bad_records
from tailrace.streams.chain.backed import SourceReader
from tailrace.streams.chain.chain import Chain, children_of
from tailrace.streams.chain.clocks import NEVER, WriterClocks, decode_clocks
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.failure import Nodes
from tailrace.streams.chain.global_rows import GlobalRows
from tailrace.streams.chain.hop import Hop
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.markers import SourceEnds
from tailrace.streams.chain.on_error import Failures, guard
from tailrace.streams.chain.outputs import Outputs, OutputTopic
from tailrace.streams.chain.positions import ChangelogReader, UnsettledError, first_position, open_in
from tailrace.streams.chain.silence import Listening, Silences, read_silences
from tailrace.streams.chain.source import BadRecord, Decoding, Future, SourceInput
from tailrace.streams.commit import offsets_of
from tailrace.streams.operators.table import TableSource
from tailrace.streams.planning.build import BUILDERS, functions_of
from tailrace.streams.planning.lost import (
    look_at_topics_made_anew,
    refuse_broken_off,
    refuse_cut_changelog,
    refuse_other_changelog,
    refuse_rows_left_behind,
    refuse_strange_clocks,
    tell_offsets_set_by_hand,
)
from tailrace.streams.planning.plan import Lane, Loaded, Plan, RestoredStore
from tailrace.streams.planning.repartitions import Repartitions
from tailrace.streams.planning.topics import AppTopics, StoreOf, stores_of
from tailrace.streams.planning.topics_in_use import KnownTopics, TopicsInUse, Use
from tailrace.streams.planning.units import Unit, units_of
from tailrace.streams.program.io import Source
from tailrace.streams.program.lag import lag_of
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import (
    Input,
    Node,
    SubTopology,
    Topology,
    changelog_topic,
    silences_topic,
)
from tailrace.streams.task import Outgoing, Task, TaskId, TaskStore
from tailrace.streams.values.place import Place

_logger = logging.getLogger(__name__)

# How far tasks of several members may be apart, where nobody says and no window waits for longer.
_SKEW_MS = 60_000

BackendFor = Callable[[TaskId], Backend]
"""Opens the place where a task keeps its stores."""


class Planner:
    """Makes a plan. Everything that can be refused is refused before the first record runs."""

    def __init__(
        self,
        topology: Topology,
        log: Log,
        options: AppOptions,
        backend_for: BackendFor,
        clock: Clock,
        known: KnownTopics | None = None,
    ) -> None:
        """`known`: the topics of the run before."""
        self._topology = topology
        self._log = log
        self._options = options
        self._app = options.name
        self._backend_for = backend_for
        self._clock = clock
        self._children = children_of(topology)
        self._watched = _watched(topology)
        self._subs = {sub.id: sub for sub in topology.subtopologies}
        self._order = {sub.id: place for place, sub in enumerate(topology.subtopologies)}
        self._known = known or KnownTopics()
        self._choosing = threading.Lock()
        self._in_use: TopicsInUse | None = None
        self._topics = AppTopics(
            topology, log, options.name, dead_letters="dead_letter" in {options.on_bad_record, options.on_error}
        )
        self._repartitions = Repartitions(topology, log, options, self._topics)

    def plan(self, producer: Producer) -> Plan:
        """All that the app does, in one plan.

        Raises:
            TopologyError: a topic is missing, partition counts do not fit, offsets were deleted, a processor cannot be
                made.
            TaskError: a processor's factory or `init` raised.
        """
        units = self.prepare()
        with ExitStack() as stack:
            result = self.begin(producer, lanes=1)
            stack.push(result.stop)
            self.choose(result, whole=True)
            self.add(result, [self.load(unit) for unit in units])
            stack.pop_all()
        return result

    def prepare(self) -> list[Unit]:
        """Creates what is missing in the log; returns what there is to be run. Raises TopologyError as `plan`."""
        committed = self._log.committed_offsets(self._app)
        refuse_broken_off(self._app, committed)
        self._topics.prepare()
        committed = self._log.committed_offsets(self._app)
        self._in_use = TopicsInUse(self._log, self._app, self._topics.used())
        refuse_rows_left_behind(self._log, self._app, committed, self._in_use.used_for)
        anew = self._known.others(self._in_use)
        self._topics.refuse_lost_offsets(committed, anew)
        backing = self._topology.backing
        look_at_topics_made_anew(anew, self._app, {each.topic for each in committed}, self._options.reset, backing)
        units = units_of(self._topology, self._topics.tasks, self._topics.partitions, self._topics.widths)
        read = {each: committed[each] for unit in units for each in unit.inputs if each in committed}
        refuse_strange_clocks(read, self._app)
        tell_offsets_set_by_hand(read, self._topics.stores_with_content(), self._app)
        return units

    def begin(self, producer: Producer, *, lanes: int) -> Plan:
        """A plan without tasks; `choose` comes before the first."""
        nodes = Nodes()
        for node in self._topology.nodes:
            for function in functions_of(node.operator):
                nodes.add(function, node.name, node.place)
        result = Plan(
            self._app,
            producer,
            [self._lane(producer, nodes) for _ in range(lanes)],
            self._topology.inner_topics,
            {node.operator.reads.name for node in self._topology.nodes if node.operator.reads is not None},
            self._options.guarantee == "exactly_once",
            SourceEnds(self._log),
            nodes=nodes,
        )
        for node in self._topology.nodes:
            if isinstance(node.operator, Source):
                result.decodings[node.operator.topic.name] = self._decoding(node.operator)
        with ExitStack() as stack:
            stack.callback(result.let_go)
            for table in self._topology.global_tables:
                rows = GlobalRows(self._log, table, fails=self._options.on_bad_record == "fail")
                result.global_rows[table.name] = rows
                rows.read_whole()
            stack.pop_all()
        return result

    def choose(self, plan: Plan, *, whole: bool) -> None:
        """Decides how rows go through the repartitions of a plan; whole: all tasks are to be in it, now."""
        repartitions = self._repartitions
        repartitions.choose(whole=whole, lanes=len(plan.lanes))
        plan.through_log, plan.may_change = repartitions.through_log, repartitions.may_change
        plan.in_memory = bool(repartitions.cuts) and not repartitions.through_log
        plan.skew_ms = self._options.max_skew_ms
        if plan.skew_ms is None and repartitions.cuts:
            plan.skew_ms = max(_SKEW_MS, *(node.operator.grace_ms or 0 for node in self._topology.nodes))
        plan.inner_topics |= repartitions.between()
        plan.topics_read |= repartitions.between()
        assert self._in_use is not None
        plan.in_use = self._in_use if plan.through_log else self._in_use.without(repartitions.names())

    def _lane(self, producer: Producer, nodes: Nodes) -> Lane:
        outputs = Outputs(producer)
        if self._options.on_error == "fail":
            return Lane(outputs)
        letters = bad_records.dead_letter_topic(self._app) if self._options.on_error == "dead_letter" else None
        return Lane(outputs, Failures(nodes, outputs, letters))

    def remember_topics(self, plan: Plan) -> None:
        """Has the next start know the topics of this one: when first positions in them are committed."""
        assert plan.in_use is not None
        self._known.keep(plan.in_use)

    def load(
        self, unit: Unit, progress: Callable[[str], Progress] | None = None, unwanted: threading.Event | None = None
    ) -> Loaded:
        """Has the stores of a unit stand at the last commit; progress makes a callback for each.

        Any thread may call.

        Raises:
            BrokenOffError: `unwanted` was set meanwhile.
            UnsettledError: something is open of who ran the unit before.
            TopologyError: a changelog was deleted.
        """
        unwanted = unwanted or threading.Event()
        cause = self._open_in(unit)
        if cause is not None:
            raise UnsettledError(f"task {unit.name} of app {self._app!r} waits to begin: {cause}")
        committed = self._log.committed_offsets(self._app)
        loaded = Loaded(unit, committed, {})
        tasks: dict[TaskId, tuple[Task, list[RestoredStore]]] = {}
        for task_id in unit.tasks:
            sub = self._subs[task_id.subtopology]
            caching = self._options.cache_bytes > 0 and not any(
                node.operator.stores and node.id in self._watched for node in sub.nodes
            )
            task = Task(task_id, TaskContext(task_id.partition, caching=caching))
            self._set_clocks(task, sub, committed)
            if sub.stores:
                task.context.backend = self._backend(task_id, sub)
            tasks[task_id] = task, self._restore(task, sub, progress, unwanted, committed)
        return loaded._replace(tasks=tasks)

    def _open_in(self, unit: Unit) -> str | None:
        """What is not settled of a unit, in words; None: all is committed or aborted, and on disk."""
        if self._options.guarantee == "at_least_once":
            return None
        with self._log.consumer(group=self._app, reset="earliest") as consumer:
            consumer.assign(unit.inputs)
            for partition in unit.inputs:
                try:
                    consumer.position(partition)
                except RetriableError as error:
                    return str(error)
        for written in self._written_by(unit):
            end = self._log.offsets(written.topic, isolation="read_uncommitted")[written]
            if self._log.offsets(written.topic)[written] < end:
                return f"{written} has records of a transaction ({open_in(self._log, written)})"
        return None

    def _written_by(self, unit: Unit) -> list[TopicPartition]:
        """What the tasks of a unit write for who runs them next."""
        found = [
            TopicPartition(changelog_topic(self._app, store.name), partition)
            for sub, partition in unit.tasks
            for store in stores_of(self._subs[sub])
        ]
        silences = [TopicPartition(silences_topic(self._app, topic), partition) for topic, partition in unit.inputs]
        return found + [each for each in silences if each.topic in self._topology.silences()]

    def add(self, plan: Plan, units: Sequence[Loaded]) -> list[Task]:
        """Adds tasks to a plan that is not at work right now; they stand at the last commit.

        Raises:
            TopologyError, TaskError: a processor cannot be made.
        """
        committed: dict[TopicPartition, CommittedOffset] = {}
        made: list[tuple[Task, Sequence[RestoredStore], Lane]] = []
        for loaded in units:
            committed.update(loaded.committed)
            lane = min(plan.lanes, key=lambda each: len(each.tasks))
            made += [(task, restored, lane) for task, restored in loaded.tasks.values()]
            lane.tasks += [task for task, _ in loaded.tasks.values()]
        made.sort(key=lambda each: self._place(each[0]))
        by_subtopology: dict[int, list[Task]] = {}
        # Readers first: in memory, a writer needs them to hand over to.
        for task, restored, lane in reversed(made):
            self._complete(task, restored, plan, lane, by_subtopology, committed)
            by_subtopology.setdefault(task.id.subtopology, []).insert(0, task)
        added = [task for task, _, _ in made]
        # And where records were deleted unread, so that the next run does not count them again.
        first = {
            tp: at for tp, at in offsets_of(added).items() if tp not in committed or at.offset > committed[tp].offset
        }
        if first:
            self._log.commit_offsets(self._app, first)
        plan.tasks[:] = sorted([*plan.tasks, *added], key=self._place)
        plan.start(added)
        return added

    def _place(self, task: Task) -> tuple[int, int]:
        return self._order[task.id.subtopology], task.id.partition

    # ------------------------------------------------------------ tasks

    def _complete(
        self,
        task: Task,
        restored: Sequence[RestoredStore],
        plan: Plan,
        lane: Lane,
        tasks: Mapping[int, Sequence[Task]],
        committed: Mapping[TopicPartition, CommittedOffset],
    ) -> None:
        """Gives a task its chain and its inputs; `tasks` has those that it hands rows over to."""
        sub, context = self._subs[task.id.subtopology], task.context
        if lane.failures is not None:
            lane.failures.take_over(context)
        hops: dict[int, Hop | LogHop] = {}
        for cut in sub.repartitions_written:
            delay_ms, after_state = lag_of(sub, cut, caching=context.caching)
            out = Outgoing((cut.id, task.id.partition), (), delay_ms, after_state)
            if self._repartitions.through_log:
                out.log = hops[cut.id] = self._repartitions.log_hop(sub, cut, lane)
            else:
                out.readers = self._readers(cut, tasks)
                hops[cut.id] = Hop([(reader.context, reader.incoming[cut.id]) for reader in out.readers])
            task.outgoing.append(out)
        count = self._topics.tasks[sub.id]
        chain = Chain(
            BUILDERS,
            self._children,
            context,
            hops,
            lane.outputs,
            lambda topic, place: self._output(topic, place, count, plan),
            self._clock,
            plan.nodes,
        )
        chain.global_rows = plan.global_rows
        # Where nothing was committed yet, what is restored from an input says where that is read from.
        begun_at = {reader.partition: CommittedOffset(reader.end_offset) for kept, reader in restored if kept.source}
        for node in sorted(self._read_by(task, sub), key=self._is_no_table):
            self._input(task, node, chain, lane.outputs, {**begun_at, **committed})
        for cut in self._repartitions.read_by(task.id):
            if self._repartitions.through_log:
                self._repartitions.add_input(task, cut, chain.output(cut.id), plan.ends, committed)
            else:
                task.incoming[cut.id] = chain.output(cut.id)
        self._listen(task, sub, lane)
        for kept, changelog in restored:
            state_node = chain.state_nodes[kept.name]
            store = TaskStore(
                state_node, changelog.partition, changelog.topic_id, changelog.leader_epoch, changelog.end_offset
            )
            if isinstance(kept.of, Node):
                store.lag_ms, store.after_cache = lag_of(sub, kept.of, caching=context.caching)
            else:
                users = [node for node in sub.nodes if kept.of in node.operator.uses]
                store.lag_ms = max(lag_of(sub, node, caching=False).ms for node in users)
            store.retention_ms = kept.retention_ms or None
            if kept.source is not None:
                store.source = next(each for each in task.inputs if each.partition == changelog.partition)
            task.stores.append(store)
            state_node.resume(context.stream_time_ms - store.lag_ms)
        context.state_nodes = [(store.node, store.lag_ms) for store in task.stores if not store.after_cache]
        for node in sub.nodes:
            processor = chain.processors.get(node.id)
            if processor is not None:
                processor.lag_ms, _ = lag_of(sub, node, caching=False)
                plan.nodes.add(processor, node.name, node.place)
                task.processors.append(processor)

    def _output(self, topic: Topic[Any, Any], place: Place, count: int, plan: Plan) -> OutputTopic:
        """What the sink at `place` must know of its topic. One that a function chose is watched from now on.

        Any thread may call.
        """
        written = self._topics.output(topic, count)
        in_use = plan.in_use
        assert in_use is not None
        with self._choosing:
            if topic.name not in in_use.used_for:
                in_use.add(topic.name, Use("output", f"it is chosen by the function of to() at {place}"))
                look_at_topics_made_anew(self._known.others(in_use, [topic.name]), self._app, (), self._options.reset)
                self._known.keep(in_use)
        return written

    def _listen(self, task: Task, sub: SubTopology, lane: Lane) -> None:
        """Has silences be part of what the task reads, where anything wants that."""
        idle_after_ms = self._topology.idle_after_ms(sub)
        if idle_after_ms is None:
            return
        task.listening = Listening(idle_after_ms)
        for source in task.inputs:
            if source.counted:
                topic, number = source.partition
                at = TopicPartition(silences_topic(self._app, topic), number)
                known = read_silences(self._log, at, source.partition, source.position)
                topic_id = self._log.describe_topic(topic).topic_id
                source.listen(Silences(topic_id, lane.outputs.internal(at), known))

    def _backend(self, task_id: TaskId, sub: SubTopology) -> Backend:
        in_memory = {store.name for store in sub.shared_stores if store.kind == "memory"}
        if not in_memory:
            return self._backend_for(task_id)
        if in_memory == set(sub.stores):
            return MemoryBackend()
        return MixedBackend(self._backend_for(task_id), in_memory)

    def _readers(self, cut: Node, tasks: Mapping[int, Sequence[Task]]) -> Sequence[Task]:
        readers = next(tasks[sub.id] for sub in self._topology.subtopologies if cut in sub.repartitions_read)
        return readers[: self._topics.widths[cut.id]]

    def _set_clocks(self, task: Task, sub: SubTopology, committed: Mapping[TopicPartition, CommittedOffset]) -> None:
        context, partition = task.context, task.id.partition
        cuts = self._repartitions.read_by(task.id)
        if cuts:
            writers = [
                (cut.id, writer)
                for cut in cuts
                for other in self._topology.subtopologies
                if cut in other.repartitions_written
                for writer in range(self._topics.tasks[other.id])
            ]
            # Its own sources are writers among the others.
            task.clocks = WriterClocks([*writers, *((node.id, partition) for node in self._read_by(task, sub))])
            for cut in cuts:
                read = self._repartitions.partition(cut, partition)
                self._repartitions.take_up(task.clocks, cut, committed.get(read))
                if not self._repartitions.through_log:
                    task.repartitions[read] = committed[read].offset if read in committed else 0
            context.origin_ms = context.stream_time_ms = task.clocks.stream_time_ms
            return
        for node in sub.sources:
            origin_ms = _origin_of(committed.get(_partition_of(node, partition)))
            context.origin_ms = context.stream_time_ms = max(context.origin_ms, origin_ms)

    # ------------------------------------------------------------ inputs

    def _read_by(self, task: Task, sub: SubTopology) -> list[Node]:
        """The sources that have a partition for the task."""
        partition = task.id.partition
        return [
            node
            for node in sub.sources
            if node.operator.reads is not None and partition < self._topics.partitions[node.operator.reads.name]
        ]

    def _is_no_table(self, node: Node) -> bool:
        """Of one time rows come before what looks them up, as in lookups by time; else the program's order stands."""
        children = self._children.get(Input(node.id), ())
        return not any(isinstance(child.operator, TableSource) for child, _ in children)

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
        partition = _partition_of(node, task.id.partition)
        bad_record = self._bad_record(node, task.context, chain, outputs)
        # What the version before has written there is made again.
        goes_on = self._options.version > 1 and partition.topic in self._topology.inner_topics
        reset = "latest" if goes_on else self._options.reset
        position = first_position(self._log, self._app, reset, partition, committed.get(partition))
        if position.deleted:
            task.context.drop("deleted", position.deleted)
        link = chain.output(node.id)
        source_input = SourceInput(partition, self._decoding(source), link, bad_record, position.offset)
        source_input.together = chain.together.get(link)
        if task.clocks is not None:
            source_input.writer = (node.id, task.id.partition)
            source_input.origin_ms = _origin_of(committed.get(partition))
        task.inputs.append(source_input)

    def _decoding(self, source: Source) -> Decoding:
        topic, ahead_ms = source.topic, self._options.max_future_ms
        future = None if ahead_ms is None else Future(ahead_ms, self._clock.now_ms)
        return Decoding(topic.key_codec.decode, topic.value_codec.decode, topic.timestamp, future)

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
        return bad_records.fail(node.operator.topic)

    # ------------------------------------------------------------ state

    def _restore(
        self,
        task: Task,
        sub: SubTopology,
        progress: Callable[[str], Progress] | None,
        unwanted: threading.Event,
        committed: Mapping[TopicPartition, CommittedOffset],
    ) -> list[RestoredStore]:
        """Brings the task's stores up to their changelogs; in the order in which records reach them."""
        restored: list[RestoredStore] = []
        for store in stores_of(sub):
            backend = task.context.backend
            assert backend is not None
            changelog = self._changelog(store, task.id.partition, unwanted, committed)
            if committed and store.source is None:
                refuse_other_changelog(backend, store, changelog, self._app)
                refuse_cut_changelog(backend, store, changelog)
            expire_before_ms = 0
            if store.retention_ms and isinstance(store.of, Node):
                now_ms = task.context.stream_time_ms - lag_of(sub, store.of, caching=False).ms
                expire_before_ms = max(now_ms - store.retention_ms + 1, 0)
            restore(
                backend,
                store.name,
                store.layout,
                changelog,
                now_ms=self._clock.now_ms(),
                deletions_kept_ms=changelog.deletions_kept_ms,
                expire_before_ms=expire_before_ms,
                progress=progress(f"{store.name}-{task.id.partition}") if progress else None,
            )
            restored.append(RestoredStore(store, changelog))
            if store.source is not None:
                stands_for = backend.keyspace(store.name).checkpoint()
                changelog.leader_epoch = -1 if stands_for is None else stands_for.leader_epoch
        return restored

    def _changelog(
        self,
        store: StoreOf,
        number: int,
        unwanted: threading.Event,
        committed: Mapping[TopicPartition, CommittedOffset],
    ) -> ChangelogReader:
        """What one of a task's stores is restored from."""
        if store.source is None:
            name = changelog_topic(self._app, store.name)
            return ChangelogReader(self._log, TopicPartition(name, number), unwanted)
        read = TopicPartition(store.source.name, number)
        end = first_position(self._log, self._app, self._options.reset, read, committed.get(read), tell=False)
        return SourceReader(self._log, read, end.offset, unwanted)


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
