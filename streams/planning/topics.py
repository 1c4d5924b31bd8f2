"""The topics of an app in its log: how many partitions each has, how many tasks follow from that, and what is created.

1. Input topics are never created; a missing one is a TopologyError with near names and the user's line. Output topics,
   those that the app reads again included, changelogs and repartition topics are created when missing, and keep the
   partition count they were made with. Beside a changelog stands what kind of store it was made for.
2. A sub-topology has one task per partition: as many as the largest topic or repartition that it reads; with state, all
   of them have the same count: repartitions without a number of their own follow the others.

Not here: where reading begins (positions), the tasks (plan).
"""

import logging
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from tailrace.log.client import CommittedOffset, Log, TopicDescription
from tailrace.log.errors import TopicExistsError, TopicNotFoundError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.state.changelog import Layout
from tailrace.streams.chain import silence
from tailrace.streams.chain.backed import check_backing_in_log
from tailrace.streams.chain.bad_records import dead_letter_topic
from tailrace.streams.chain.global_rows import ends_of
from tailrace.streams.chain.outputs import OutputTopic
from tailrace.streams.planning.topics_in_use import BEGIN_ANEW, Use
from tailrace.streams.program.io import Repartition, Source
from tailrace.streams.program.kept_as import KeptAs, from_note
from tailrace.streams.program.store import DeclaredStore
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Node, SubTopology, Topology, changelog_topic, repartition_topic

_logger = logging.getLogger(__name__)
# Topics of the app's own take every time: the guard against times in the future is for what comes in, and has spoken.
_ANY_TIME = {"message.timestamp.after.max.ms": (1 << 63) - 1}
# A letter is its record and what went wrong, so it may be larger than its topic lets records be.
_LETTER_BYTES_MAX = 64 << 20


class StoreOf(NamedTuple):
    """A store of a sub-topology, and what it belongs to: a node, or the program."""

    name: str
    of: Node | DeclaredStore[Any, Any]
    layout: Layout
    retention_ms: int | None
    source: Topic[Any, Any] | None = None
    """The topic that it is restored from, where it has no changelog (backed)."""

    def kept_as(self) -> KeptAs | None:
        """What it holds; None where that is not compared."""
        if isinstance(self.of, Node):
            return self.of.operator.kept_as(self.name)
        return self.of.kept_as()


class AppTopics:
    """The topics of one app; made complete in the log by `prepare`."""

    def __init__(self, topology: Topology, log: Log, app: str, *, dead_letters: bool) -> None:
        self._topology = topology
        self._log = log
        self._app = app
        self._dead_letters = dead_letters
        self.partitions: dict[str, int] = {}
        """Of every topic of the program."""
        self.tasks: dict[int, int] = {}
        """Of each sub-topology."""
        self.widths: dict[int, int] = {}
        """Partitions of each repartition, by node."""
        self._written: dict[str, int] = {}
        """Of each topic that the app writes: the largest number of tasks that do."""
        self._told: set[str] = set()
        """The topics of which it was told that they are not as declared."""

    def prepare(self) -> None:
        """Counts, and creates what is missing.

        Raises:
            TopologyError: an input is missing, partition counts do not fit.
        """
        self._count_partitions()
        for table in self._topology.global_tables:
            ends_of(self._log, table)
        for store in (store for sub in self._topology.subtopologies for store in stores_of(sub)):
            if store.source is not None:
                policy = self._log.describe_topic(store.source.name).config["cleanup.policy"]
                check_backing_in_log(store.source, policy, store.of.place)
        self._create_topics()

    def _count_partitions(self) -> None:
        for sub in self._topology.subtopologies:
            counts = self._inputs_of(sub)
            if sub.stores and len({count for count, _ in counts.values()}) > 1:
                told = ", ".join(f"{what} at {node.place} has {count}" for what, (count, node) in counts.items())
                raise TopologyError(
                    f"the inputs of {', '.join(sub.stores)} are not co-partitioned: {told}; give them the same number "
                    "of partitions, or group_by a key (before a join: key_by), which repartitions"
                )
            own = self.tasks[sub.id] = max(count for count, _ in counts.values())
            for cut in sub.repartitions_written:
                assert isinstance(cut.operator, Repartition)
                known = self.widths.get(cut.id, 0)
                self.widths[cut.id] = cut.operator.partitions or max(known, own)
            for output in (node.operator.writes for node in sub.nodes):
                if output is not None:
                    self._written[output.name] = max(self._written.get(output.name, 0), own)

    def _inputs_of(self, sub: SubTopology) -> dict[str, tuple[int, Node]]:
        """The partitions of what a sub-topology reads, and where, by what it is.

        Beside state, repartitions that nobody gave a number get that of the others: the largest of their own otherwise.
        """
        counts: dict[str, tuple[int, Node]] = {}
        # What the app writes itself comes last where it is missing, and then has as many as the others.
        inner = [node for node in sub.sources if self._is_inner(node) and not self._is_known(node)]
        free = [cut for cut in sub.repartitions_read if sub.stores and not _partitions_given(cut)]
        for cut in sub.repartitions_read:
            if cut not in free:
                counts[f"repartition {cut.name!r}"] = (self.widths[cut.id], cut)
        for node in sub.sources:
            if node not in inner:
                self._count_input(node, counts)
        fitting = max((count for count, _ in counts.values()), default=None)
        if fitting is None and free:
            fitting = max(self.widths[cut.id] for cut in free)
        for cut in free:
            assert fitting is not None
            self.widths[cut.id] = fitting
            counts[f"repartition {cut.name!r}"] = (fitting, cut)
        for node in inner:
            self._count_input(node, counts)
        return counts

    def _count_input(self, node: Node, counts: dict[str, tuple[int, Node]]) -> None:
        assert isinstance(node.operator, Source)
        topic, others = node.operator.topic, max((count for count, _ in counts.values()), default=1)
        counts[f"topic {topic.name!r}"] = (self._input_partitions(topic, node, others), node)

    def _is_inner(self, node: Node) -> bool:
        return node.operator.reads is not None and node.operator.reads.name in self._topology.inner_topics

    def _is_known(self, node: Node) -> bool:
        """Whether the partitions of a topic that the app writes itself follow from something else than its readers."""
        topic = node.operator.reads
        return topic is not None and (
            topic.partitions is not None or topic.name in self._written or topic.name in self._log.topics()
        )

    def _input_partitions(self, topic: Topic[Any, Any], node: Node, others: int) -> int:
        """How many partitions an input has; `others` is for one that the app writes itself, and that is missing."""
        if self._is_inner(node):
            count = topic.partitions or self._written.get(topic.name, others)
            self._create(topic.name, count, topic.config)
        try:
            found = self._log.describe_topic(topic.name)
        except TopicNotFoundError as error:
            raise TopologyError(
                f"{error}; it is read at {node.place}, declared at {topic.place}; an input is never created by itself"
            ) from error
        self._tell_other_settings(topic, found)
        self.partitions[topic.name] = found.partitions
        return found.partitions

    def _create_topics(self) -> None:
        for sub in self._topology.subtopologies:
            count = self.tasks[sub.id]
            for node in sub.nodes:
                if node.operator.writes is not None:
                    self.output(node.operator.writes, count)
            for store in stores_of(sub):
                policy = "compact" if store.retention_ms is None else "compact,delete"
                name = changelog_topic(self._app, store.name)
                self._internal_topic(name, count, store.of, {"cleanup.policy": policy}, self._counts(sub))
                self._note_kind(store, name)
            for cut in sub.repartitions_read:
                self._internal_topic(repartition_of(self._app, cut), self.widths[cut.id], cut, {}, {})
        for name, source in self._topology.silences().items():
            self._silences(name, source)
        if self._dead_letters:
            self._create(dead_letter_topic(self._app), 1, _ANY_TIME | {"max.message.bytes": _LETTER_BYTES_MAX})

    def _silences(self, name: str, source: Node) -> None:
        """Creates the topic of an input's silences, with the input's partitions: those that it has got since, too."""
        assert source.operator.reads is not None
        count = self.partitions[source.operator.reads.name]
        self._create(name, count, silence.CONFIG, internal=True)
        if self._log.describe_topic(name).partitions < count:
            self._log.create_partitions(name, count)

    def _counts(self, sub: SubTopology) -> dict[str, int]:
        """The partitions of what a sub-topology reads."""
        topics = [node.operator.reads.name for node in sub.sources if node.operator.reads is not None]
        return {f"repartition {cut.name!r}": self.widths[cut.id] for cut in sub.repartitions_read} | {
            f"topic {name!r}": self.partitions[name] for name in topics
        }

    def output(self, topic: Topic[Any, Any], count: int) -> OutputTopic:
        """Creates an output topic that is missing, with count partitions unless it says how many."""
        # An event time in the future has been let in where it was read; refused here, it would end every run anew.
        self._create(topic.name, topic.partitions or count, _ANY_TIME | topic.config)
        found = self._log.describe_topic(topic.name)
        self._tell_other_settings(topic, found)
        self.partitions[topic.name] = found.partitions
        return OutputTopic(
            lambda: self._log.describe_topic(topic.name).partitions, "compact" in found.config["cleanup.policy"]
        )

    def _tell_other_settings(self, topic: Topic[Any, Any], found: TopicDescription) -> None:
        """Warns, once, where a topic that was there has other settings than the program declares."""
        declared = dict(topic.config)
        has = {name: found.config[name] for name in declared}
        if topic.partitions is not None:
            declared["partitions"], has["partitions"] = str(topic.partitions), str(found.partitions)
        others = [name for name, value in declared.items() if value != has[name]]
        if others and topic.name not in self._told:
            self._told.add(topic.name)
            _logger.warning(
                "topic %r, declared with %s at %s, has %s in the log, which stays: change that with alter_topic, or "
                "the declaration",
                topic.name,
                ", ".join(f"{name}={declared[name]}" for name in others),
                topic.place,
                ", ".join(f"{name}={has[name]}" for name in others),
            )

    def _internal_topic(
        self,
        name: str,
        partitions: int,
        node: Node | DeclaredStore[Any, Any],
        config: Mapping[str, str],
        counts: Mapping[str, int],
    ) -> None:
        """Creates an internal topic that is missing; `counts` are the partitions that its number follows from."""
        wanted = {"segment.bytes": 64 << 20, "retention.ms": -1, **_ANY_TIME, **config}
        self._create(name, partitions, wanted, internal=True)
        found = self._log.describe_topic(name).partitions
        if found != partitions:
            told = ", ".join(f"{what} has {count}" for what, count in counts.items())
            keep = f"put repartition(partitions={found}, name=…) before it, which keeps what it has, or "
            raise TopologyError(
                f"the internal topic {name!r} has {found} partitions, and {node.name} at {node.place} needs "
                f"{partitions}{f', as {told}' if told else ''}: one of these was changed after the app had begun, and "
                "keys would be looked for in other partitions than they were written to; "
                f"{keep if told and found < partitions else ''}{BEGIN_ANEW}"
            )

    def _note_kind(self, store: StoreOf, changelog: str) -> None:
        """Compares what a store holds with what its changelog was begun with, and notes it there.

        A changelog without a note is of an app that wrote none: it is taken as what the program says.
        """
        now = store.kept_as()
        if now is None:
            return
        before = from_note(self._log.describe_topic(changelog).note)
        if before == now:
            return
        if before is not None and not now.like(before) and self._has_begun(changelog, before):
            if before.source and not now.source:
                raise TopologyError(
                    f"store {store.name!r} (at {store.of.place}) was begun without a changelog, as a {before}: what it "
                    f'holds is nowhere else, so keep changelog="source", or {BEGIN_ANEW}'
                )
            raise TopologyError(
                f"store {store.name!r} (at {store.of.place}) is a {now}, and its changelog {changelog} was written "
                f"by a {before}, which it would misread: give the store another name, or {BEGIN_ANEW}"
            )
        self._log.note_topic(changelog, now.note())

    def _has_begun(self, changelog: str, kept: KeptAs) -> bool:
        """Whether a store has, or may have, content, by its changelog's note."""
        if any(self._log.offsets(changelog).values()):
            return True
        return bool(kept.source) and any(each.topic == kept.source for each in self._log.committed_offsets(self._app))

    def _create(self, name: str, partitions: int, config: Mapping[str, Any], *, internal: bool = False) -> None:
        """Creates a topic that is missing; one that is there may have been altered since, and stays so."""
        if name not in self._log.topics(internal=True):
            try:
                self._log.create_topic(name, partitions=partitions, config=config, internal=internal)
            except TopicExistsError:
                if name not in self._log.topics(internal=True):  # it is another one's that cannot stand beside it
                    raise

    def used(self) -> dict[str, Use]:
        """What the app does with each topic, but for those that a function chooses, which are known when it has."""
        used = {dead_letter_topic(self._app): Use("output", "dead letters go to it")} if self._dead_letters else {}
        for sub in self._topology.subtopologies:
            for node in sub.nodes:
                if node.operator.writes is not None:
                    used[node.operator.writes.name] = Use("output", f"it is written at {node.place}")
            for store in stores_of(sub):
                told = f"it backs store {store.name!r}, at {store.of.place}"
                used[changelog_topic(self._app, store.name)] = Use("changelog", told)
            for cut in sub.repartitions_read:
                used[repartition_of(self._app, cut)] = Use("rows", f"rows go through it, as made at {cut.place}")
        for node in self._topology.nodes:
            if node.operator.reads is not None:
                used[node.operator.reads.name] = Use("input", f"it is read at {node.place}")
        for table in self._topology.global_tables:
            used[table.topic.name] = Use("table", f"it is read whole by the global table at {table.place}")
        return used

    def refuse_lost_offsets(
        self, committed: Mapping[TopicPartition, CommittedOffset], anew: Container[str] = ()
    ) -> None:
        """Raises TopologyError where stores have content and the app has no committed offsets.

        `anew` are topics that were made anew since: their offsets went with them.
        """
        if committed:
            return
        for store in self.stores_with_content():
            # Once more: another member of the app may have begun in between.
            if not self._log.committed_offsets(self._app):
                name = changelog_topic(self._app, store.name)
                reads = {node.operator.reads.name for node in self._topology.nodes if node.operator.reads is not None}
                gone = sorted(each for each in reads if each in anew)
                cause = f" with topic {gone[0]!r}, which was deleted and made anew" if gone else ""
                raise TopologyError(
                    f"store {store.name!r} (at {store.of.place}) has content in {name}, but the offsets "
                    f"of group {self._app!r} are gone{cause}, so records would be counted twice: {BEGIN_ANEW}; or, if "
                    f"you know up to where the stores hold them, set just that with log.alter_offsets({self._app!r}, …)"
                )

    def stores_with_content(self) -> list[StoreOf]:
        """Those whose changelogs have records."""
        stores = [store for sub in self._topology.subtopologies for store in stores_of(sub)]
        return [each for each in stores if any(self._log.offsets(changelog_topic(self._app, each.name)).values())]


def stores_of(sub: SubTopology) -> list[StoreOf]:
    """The stores of a sub-topology in the order in which records reach them; those that processors write to last."""
    own = [
        StoreOf(store.name, node, store.layout, store.retention_ms, store.source)
        for node in sub.nodes
        for store in node.operator.stores
    ]
    return own + [
        StoreOf(store.name, store, store.layout, None if store.window is None else store.window.retention_ms)
        for store in sub.shared_stores
    ]


def _partitions_given(cut: Node) -> bool:
    return isinstance(cut.operator, Repartition) and cut.operator.partitions is not None


def repartition_of(app: str, cut: Node) -> str:
    """The name of a repartition's topic."""
    assert isinstance(cut.operator, Repartition)
    return repartition_topic(app, cut.operator.repartition)
