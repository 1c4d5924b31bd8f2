"""A finished program as plain data: its operators and nodes, its sub-topologies, and the whole of them.

1. A node never changes once it is made.
2. A sub-topology is what remains connected when the graph is cut in every repartition: a repartition is written by one
   sub-topology and read by another. All nodes of a sub-topology run in one task per partition.

Not here: writing a program, and what must hold of all its nodes together (graph); what operators do (operators/);
pictures (describe); running (task, runner).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from tailrace.log.errors import TopologyError
from tailrace.log.record import RawRecord
from tailrace.state.changelog import Layout
from tailrace.streams.program import describe
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.kept_as import KeptAs
from tailrace.streams.program.store import DeclaredStore
from tailrace.streams.program.topic import Topic
from tailrace.streams.values.place import Place

Forward = Callable[[Any, Any, int], None]
"""One link of a task's chain: takes (key, value, timestamp in ms) and returns nothing."""

Together = Callable[[Sequence[Any], Sequence[Any], Sequence[int], Sequence[RawRecord]], int]
"""Takes records by their keys, values, times in ms and as they came, in order; returns how many, from the first on, and
has moved the task's clock with these. It stops before one that needs more than being taken: what closes a window, what
is late, what has no key or no value (JSON has a null of its own)."""

Output = str
"""Which of an operator's outputs: most have "main" alone, some "late" or "errors" too, a split one for each branch."""


OldValues = Literal["unused", "passed", "wanted"]
"""What a node does with the values that a table's changes replace."""


class Input(NamedTuple):
    """One output of a node, as the input of another."""

    node: int
    output: Output = "main"


class KeptStore(NamedTuple):
    """A store that a node keeps for itself, in every task one, backed by a changelog."""

    name: str
    layout: Layout
    """How the changelog's records are laid out as rows."""
    retention_ms: int | None = None
    """How far behind stream time its windows may still be read; None: nothing in it expires by time."""
    source: Topic[Any, Any] | None = None
    """The topic that it is restored from, where it has no changelog (backed)."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What a node does, as data; one subclass per operation in operators/.

    `name` is unique in the graph, and `place` is the user's line that made it.
    """

    name: str
    place: Place

    kind: ClassVar[str] = "processor"
    """How `describe()` calls it: source, processor, sink or repartition."""
    versions: ClassVar[bool] = False
    """Whether it is a table that has versions of its rows, so that a change may be superseded when it comes."""
    effect: ClassVar[bool] = False
    """Whether it does something outside the program, so that a program may end with it."""
    sees_every_update: ClassVar[bool] = False
    """Whether no cache may merge updates ahead of it."""
    goes_on: ClassVar[bool] = False
    """Whether it does something after what it sent on, and does not itself catch what that raises (on_error)."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The names of its outputs."""
        return ("main",)

    @property
    def stores(self) -> "tuple[KeptStore, ...]":
        """The stores that it keeps for itself."""
        return ()

    def kept_as(self, store: str) -> KeptAs | None:
        """What one of its stores holds, which a later program must not take for something else; None: not compared."""
        del store
        return None

    @property
    def caches(self) -> bool:
        """Whether, with the cache on, what it sends may wait for the commit."""
        return bool(self.stores)

    @property
    def uses(self) -> tuple[DeclaredStore[Any, Any], ...]:
        """The stores of the program that it reads and writes; others may use them too."""
        return ()

    @property
    def repartition(self) -> str | None:
        """What a repartition's topic is named by."""
        return None

    @property
    def reads(self) -> Topic[Any, Any] | None:
        """The topic of the program that it reads."""
        return None

    @property
    def writes(self) -> Topic[Any, Any] | None:
        """The topic of the program that it writes, where that is known beforehand."""
        return None

    @property
    def grace_ms(self) -> int | None:
        """How late a record may come to it, in ms; None where it keeps no windows."""
        return None

    @property
    def tolerated_ms(self) -> int | None:
        """By how much a record's origin may be ahead of it without changing what comes of it; None: by any time."""
        return self.grace_ms

    @property
    def idle_after_ms(self) -> int | None:
        """After how long a silence time is to go on with the clock, in ms; None: not for its sake."""
        return None

    @property
    def old(self) -> OldValues:
        """Whether it wants to know what a table's change replaces, or passes it on to others that do."""
        return "unused"

    @property
    def row_by_row(self) -> bool:
        """Whether it is a table whose rows are worked out, each from the same row of another one."""
        return False

    @property
    def newest_only(self) -> bool:
        """Whether it stands for the newest rows of its tables, so that changes that were superseded are none to it."""
        return False

    @property
    def delay_ms(self) -> int:
        """By how much what it sends may lag behind the stream time at which it sends it, in ms."""
        return 0

    def facts(self) -> dict[str, Any]:
        """What `describe()` tells of it, beside its topics and its store."""
        return {}

    def build(self, context: object, forward: Forward) -> Forward:
        """The link of one task's chain that does what the operator says and calls `forward`; here: passes all on.

        Made once per task. Operators with state or an outside are built by what holds these (the runtime), not here.
        """
        del context
        return forward

    def check(self, inputs: int) -> None:
        """Raises TopologyError for what only the finished graph shows; `inputs` is how many parents its node has."""


@dataclass(frozen=True)
class Node:
    """An operator in its graph."""

    id: int
    operator: Operator
    parents: tuple[Input, ...]

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.operator.name

    @property
    def place(self) -> Place:
        """The user's line that made it."""
        return self.operator.place


def internal_topics(app: str, nodes: Iterable[Node]) -> list[str]:
    """The names of the topics that an app keeps for itself."""
    names: dict[str, None] = {}
    for node in nodes:
        names |= dict.fromkeys(own_topics(app, node.operator))
        names |= dict.fromkeys(changelog_topic(app, store.name) for store in node.operator.uses)
    return list(names)


def own_topics(app: str, operator: Operator) -> list[str]:
    """The internal topics that belong to an operator alone."""
    names = [changelog_topic(app, store.name) for store in operator.stores]
    if operator.repartition is not None:
        names.append(repartition_topic(app, operator.repartition))
    return names


def changelog_topic(app: str, store: str) -> str:
    """The name of a store's changelog."""
    return f"{app}-{store}-changelog"


def repartition_topic(app: str, name: str) -> str:
    """The name of a repartition's topic."""
    return f"{app}-{name}-repartition"


def silences_topic(app: str, topic: str) -> str:
    """The name of the topic that has the silences of a source."""
    return f"{app}-{topic}-silences"


# ---------------------------------------------------------------- order and sub-topologies


def ordered(nodes: dict[int, Node]) -> list[Node]:
    """Parents before children, else in the order in which the program made them."""
    done: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if node.id not in done:
            for parent in node.parents:
                visit(nodes[parent.node])
            done[node.id] = node

    for node in nodes.values():
        visit(node)
    return list(done.values())


@dataclass(frozen=True)
class SubTopology:
    """Nodes that run together, one task per partition."""

    id: int
    nodes: tuple[Node, ...]
    """Without repartitions; parents before children."""
    sources: tuple[Node, ...]
    """Those of `nodes` that read topics of the program."""
    repartitions_read: tuple[Node, ...]
    repartitions_written: tuple[Node, ...]

    @property
    def stores(self) -> tuple[str, ...]:
        """The names of the stores that its tasks keep."""
        own = tuple(store.name for node in self.nodes for store in node.operator.stores)
        return own + tuple(store.name for store in self.shared_stores)

    @property
    def shared_stores(self) -> tuple[DeclaredStore[Any, Any], ...]:
        """Those of them that the program declared, for processors."""
        return tuple(dict.fromkeys(store for node in self.nodes for store in node.operator.uses))


def is_cut(node: Node) -> bool:
    """Whether it is a repartition."""
    return node.operator.repartition is not None


def split(order: list[Node]) -> list[SubTopology]:
    """Connected components without repartitions, numbered by their first nodes."""
    cuts = [node for node in order if is_cut(node)]
    group = {node.id: node.id for node in order if not is_cut(node)}

    def find(node_id: int) -> int:
        while group[node_id] != node_id:
            node_id = group[node_id]
        return node_id

    # Readers of one repartition belong together too: they read the same partitions.
    readers: dict[int, list[int]] = {cut.id: [] for cut in cuts}
    for node in order:
        for parent in node.parents:
            if parent.node in readers:
                readers[parent.node].append(node.id)
    together = [[node.id, *(p.node for p in node.parents if p.node in group)] for node in order if not is_cut(node)]
    # What is kept together runs together.
    users: dict[DeclaredStore[Any, Any], list[int]] = {}
    for node in order:
        for store in node.operator.uses:
            users.setdefault(store, []).append(node.id)
    for first, *others in [*together, *(ids for ids in readers.values() if ids), *users.values()]:
        for other in others:
            low, high = sorted((find(first), find(other)))
            group[high] = low
    members: dict[int, list[Node]] = {}
    for node in order:
        if node.id in group:
            members.setdefault(find(node.id), []).append(node)
    return [_subtopology(number, nodes, cuts) for number, nodes in enumerate(members.values())]


def in_order(parts: list[SubTopology]) -> list[SubTopology]:
    """Writers of a repartition before its readers; as far as that goes, writers of a topic too; else by number."""
    done: list[SubTopology] = []
    waiting = list(parts)
    while waiting:
        cuts = {cut.id for part in waiting for cut in part.repartitions_written}
        ready = [part for part in waiting if not any(cut.id in cuts for cut in part.repartitions_read)]
        if not ready:
            places = ", ".join(str(cut.place) for part in waiting for cut in part.repartitions_read)
            raise TopologyError(
                f"what is repartitioned at {places} comes together with what it was made of: put a topic between, with "
                "through(topic)"
            )
        first = next((part for part in ready if not _fed_by(part, waiting)), ready[0])
        done.append(first)
        waiting.remove(first)
    return done


def _fed_by(part: SubTopology, others: Iterable[SubTopology]) -> bool:
    """Whether another sub-topology writes a topic that this one reads."""
    read = {node.operator.reads.name for node in part.sources if node.operator.reads is not None}
    written = (node.operator.writes for other in others if other is not part for node in other.nodes)
    return any(topic is not None and topic.name in read for topic in written)


def _subtopology(number: int, nodes: list[Node], cuts: list[Node]) -> SubTopology:
    ids = {node.id for node in nodes}
    parents = {parent.node for node in nodes for parent in node.parents}
    return SubTopology(
        id=number,
        nodes=tuple(nodes),
        sources=tuple(node for node in nodes if node.operator.reads is not None),
        repartitions_read=tuple(cut for cut in cuts if cut.id in parents),
        repartitions_written=tuple(cut for cut in cuts if any(parent.node in ids for parent in cut.parents)),
    )


@dataclass(frozen=True)
class Topology:
    """A program as a graph, checked: what `App.describe` returns. `str()` gives a text that is fit for a diff."""

    app: str
    nodes: tuple[Node, ...]
    """Parents before children."""
    subtopologies: tuple[SubTopology, ...]
    """Writers of a repartition before its readers."""
    global_tables: tuple[GlobalTable[Any, Any], ...] = ()

    def children(self, node_id: int, output: Output = "main") -> list[Node]:
        """The nodes that one output of a node goes to, in the order in which they were made."""
        return [node for node in self.nodes if Input(node_id, output) in node.parents]

    @property
    def inner_topics(self) -> set[str]:
        """The topics that the app both reads and, where that is known beforehand, writes."""
        read = {node.operator.reads.name for node in self.nodes if node.operator.reads is not None}
        return read & {node.operator.writes.name for node in self.nodes if node.operator.writes is not None}

    @property
    def backing(self) -> dict[str, Node]:
        """The topics that tables are restored from, with no changelog of their own (backed)."""
        return {
            store.source.name: node for node in self.nodes for store in node.operator.stores if store.source is not None
        }

    def idle_after_ms(self, part: SubTopology) -> int | None:
        """After how long a silence the time of its tasks goes on with the clock, in ms; None: never.

        The least that is asked for there or behind its repartitions.
        """
        asked = [node.operator.idle_after_ms for node in part.nodes]
        asked += [
            self.idle_after_ms(behind)
            for behind in self.subtopologies
            if any(cut in behind.repartitions_read for cut in part.repartitions_written)
        ]
        return min((each for each in asked if each is not None), default=None)

    def silences(self) -> dict[str, Node]:
        """The topics that silences are written to, each with the source that it is for."""
        return {
            silences_topic(self.app, node.operator.reads.name): node
            for part in self.subtopologies
            if self.idle_after_ms(part) is not None
            for node in part.sources
            if node.operator.reads is not None
        }

    def delay_ms(self, node: Node) -> int:
        """How far what reaches a node's output may lag behind the stream time of its sub-topology: the longest way."""
        by_id = {each.id: each for each in self.nodes}

        def longest(each: Node) -> int:
            parents = [by_id[parent.node] for parent in each.parents]
            ways = [longest(parent) for parent in parents if not is_cut(parent)]
            return max(ways, default=0) + each.operator.delay_ms

        return longest(node)

    def least_tolerated_ms(self, node: Node) -> int | None:
        """The least `tolerated_ms` of a node and all downstream of it, in ms; None where there is none."""
        found = [node.operator.tolerated_ms] if node.operator.tolerated_ms is not None else []
        for output in node.operator.outputs:
            for child in self.children(node.id, output):
                least = self.least_tolerated_ms(child)
                found += [least] if least is not None else []
        return min(found, default=None)

    def document(self) -> dict[str, Any]:
        """What `json()` writes."""
        return {
            "app": self.app,
            "sub_topologies": [self._part(part) for part in self.subtopologies],
            "internal_topics": internal_topics(self.app, self.nodes),
        }

    def _part(self, part: SubTopology) -> dict[str, Any]:
        return {
            "id": part.id,
            "nodes": [
                *(self._row(cut, "source") for cut in part.repartitions_read),
                *(self._row(node, node.operator.kind) for node in part.nodes),
                *(self._row(cut, "sink") for cut in part.repartitions_written),
            ],
            "stores": list(part.stores),
        }

    def _row(self, node: Node, kind: str) -> dict[str, Any]:
        operator, names = node.operator, {each.id: each.name for each in self.nodes}
        topic = operator.reads or operator.writes
        row: dict[str, Any] = {"name": node.name, "kind": kind}
        if topic is not None:
            row["topic"] = topic.name
            if operator.reads is not None and silences_topic(self.app, topic.name) in self.silences():
                row["silences"] = silences_topic(self.app, topic.name)
        if operator.repartition is not None:
            row["topic"] = repartition_topic(self.app, operator.repartition)
        if operator.stores:
            row["store"] = ", ".join(store.name for store in operator.stores)
            row["changelog"] = ", ".join(
                changelog_topic(self.app, store.name) if store.source is None else store.source.name
                for store in operator.stores
            )
        row |= operator.facts()
        if operator.repartition is not None and kind == "sink" and self.delay_ms(node):
            row["delay_ms"] = self.delay_ms(node)
        own_side_is_write = operator.repartition is not None and kind == "sink"
        own_side_is_read = operator.repartition is not None and kind == "source"
        row["from"] = [] if own_side_is_read else [[names[each.node], each.output] for each in node.parents]
        row["to"] = (
            []
            if own_side_is_write
            else [[child.name, output] for output in operator.outputs for child in self.children(node.id, output)]
        )
        return row

    def json(self) -> str:
        """The graph as JSON, indented, keys in a fixed order."""
        return json.dumps(self.document(), indent=2, default=str)

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart, to paste into Markdown."""
        return describe.mermaid(self.document())

    def __str__(self) -> str:
        return describe.text(self.document())
