"""The repartitions of an app in the form that they have in one running member: in memory (hop), or through the log.

1. In memory only where this member has all tasks of the app, in one lane, and has read what is in their topics: then
   nobody else writes there or reads, and nobody needs to be asked. The group sees to it that a task has one owner.
2. Through the log everywhere else. What a member then writes is read by whoever has the task that it is for.
3. A plan has one form. Another form is another plan, begun at a commit (start): what was committed beside the offsets
   in one form is taken up in the other, so no clock goes back; what is in a topic is read before it is left (turns).

Not here: how rows and times travel (hop, log_hop, repartition_input), when the form changes (runner, member).
"""

from collections.abc import Mapping

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.clocks import WriterClocks, decode_clocks
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.markers import SourceEnds, decode_known
from tailrace.streams.chain.positions import first_position
from tailrace.streams.chain.repartition_input import RepartitionInput
from tailrace.streams.planning.plan import Lane
from tailrace.streams.planning.topics import AppTopics, repartition_of
from tailrace.streams.program.io import Repartition
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.topology import Forward, Node, SubTopology, Topology
from tailrace.streams.task import Task, TaskId


class Repartitions:
    """See the module's docstring."""

    def __init__(self, topology: Topology, log: Log, options: AppOptions, topics: AppTopics) -> None:
        self._topology = topology
        self._log = log
        self._app = options.name
        self._hops = options.hops
        self._topics = topics
        self._subs = {sub.id: sub for sub in topology.subtopologies}
        self.cuts = [cut for sub in topology.subtopologies for cut in sub.repartitions_read]
        """The nodes."""
        self.through_log = False
        """The form, as `choose` found it."""
        self.may_change = False
        """Whether a member that reads what is in the topics may then have them in memory, once it has all tasks."""

    def choose(self, *, whole: bool, lanes: int) -> None:
        """Decides for a plan; whole: this member has all tasks."""
        alone = lanes == 1 and self._hops == "memory"
        self.through_log = bool(self.cuts) and not (alone and whole and self._all_read())
        self.may_change = alone and self.through_log

    def _all_read(self) -> bool:
        """Whether nothing waits in the topics, neither rows nor the end of a transaction."""
        committed = self._log.committed_offsets(self._app)
        for name in self.names():
            for partition, end in self._log.offsets(name, isolation="read_uncommitted").items():
                found = committed.get(partition)
                if end > 0 and (found is None or found.offset < end):
                    return False
        return True

    def names(self) -> list[str]:
        """Of their topics."""
        return [repartition_of(self._app, cut) for cut in self.cuts]

    def between(self) -> set[str]:
        """The topics that rows go through."""
        return set(self.names()) if self.through_log else set()

    def read_by(self, task: TaskId) -> list[Node]:
        """Those that have a partition for the task."""
        return [
            cut
            for cut in self._subs[task.subtopology].repartitions_read
            if task.partition < self._topics.widths[cut.id]
        ]

    def partition(self, cut: Node, number: int) -> TopicPartition:
        """One of a repartition's topic."""
        return TopicPartition(repartition_of(self._app, cut), number)

    def take_up(self, clocks: WriterClocks, cut: Node, found: CommittedOffset | None) -> None:
        """Has clocks go on from what was committed for a repartition, in either form of the hop."""
        if found is None or not found.metadata:
            return
        through_log = decode_known(found.metadata)
        if through_log is None:
            clocks.restore(decode_clocks(found.metadata))
            return
        stream_time_ms, known = through_log
        clocks.resume(stream_time_ms)
        for writer, said in known.said.items():
            clocks.add((cut.id, writer))
            clocks.advance((cut.id, writer), said.time_ms)

    # ------------------------------------------------------------ through the log

    def log_hop(self, sub: SubTopology, cut: Node, lane: Lane) -> LogHop:
        """The repartition, for the tasks of a lane that write to it."""
        if cut.id not in lane.log_hops:
            columns = [
                lane.outputs.internal(self.partition(cut, number)) for number in range(self._topics.widths[cut.id])
            ]
            lane.log_hops[cut.id] = LogHop(
                columns,
                self._topics.tasks[sub.id],
                {topic: self._topics.partitions[topic] for topic in self._sources_of(sub)},
                self._topology.least_tolerated_ms(cut),
            )
        return lane.log_hops[cut.id]

    def _sources_of(self, sub: SubTopology) -> set[str]:
        """The topics that end in a sub-topology, through whatever repartitions."""
        found = {node.operator.reads.name for node in sub.sources if node.operator.reads is not None}
        for other in self._topology.subtopologies:
            if any(cut in sub.repartitions_read for cut in other.repartitions_written):
                found |= self._sources_of(other)
        return found

    def add_input(
        self,
        task: Task,
        cut: Node,
        forward: Forward,
        ends: SourceEnds,
        committed: Mapping[TopicPartition, CommittedOffset],
    ) -> None:
        """Has a task read its partition of a repartition's topic."""
        assert isinstance(cut.operator, Repartition)
        assert task.clocks is not None
        partition = self.partition(cut, task.id.partition)
        found = committed.get(partition)
        position = first_position(self._log, self._app, "earliest", partition, found)
        if position.deleted:
            task.context.drop("deleted", position.deleted)
        source = RepartitionInput(
            partition,
            cut.operator,
            forward,
            position.offset,
            cut=cut.id,
            clocks=task.clocks,
            moved=task.move_on,
            ends=ends,
        )
        known = decode_known(found.metadata) if found is not None else None
        if known is not None:
            source.resume(known[1])
        task.inputs.append(source)
