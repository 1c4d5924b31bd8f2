"""The graph of a program while it is being written, and what must hold of all its nodes together.

1. A graph only grows, except that the late records of a windowed grouping get their parent when the first aggregate is
   made.
2. Names are unique: of nodes, because they are numbered; of stores and internal topics, because `Graph.topology`
   refuses others, with the places of both.

Not here: the finished graph (topology), what operators do (operators/).
"""

from collections.abc import Collection, Iterable
from typing import Any

from tailrace.log.errors import InvalidError, TopologyError
from tailrace.log.topic import check_topic_name
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.store import DeclaredStore
from tailrace.streams.program.topic import Topic, check_declared_alike
from tailrace.streams.program.topology import (
    Input,
    Node,
    Operator,
    Output,
    Topology,
    changelog_topic,
    in_order,
    is_cut,
    ordered,
    own_topics,
    split,
)


class Graph:
    """The nodes and topics that a program declared so far."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.topics: list[Topic[Any, Any]] = []
        """Every declaration, in order."""
        self.stores: list[DeclaredStore[Any, Any]] = []
        """The same of stores for processors."""
        self.global_tables: list[GlobalTable[Any, Any]] = []
        """The same of global tables."""

    def name_for(self, prefix: str) -> str:
        """The name of the next node, to make its operator with: `map-3`."""
        return f"{prefix}-{len(self.nodes)}"

    def add(self, operator: Operator, parents: Iterable[Input] = ()) -> Node:
        """Adds a node."""
        node = Node(len(self.nodes), operator, tuple(parents))
        self.nodes[node.id] = node
        return node

    def attach(self, node_id: int, parent: Input) -> None:
        """Gives a node one more parent."""
        node = self.nodes[node_id]
        self.nodes[node_id] = Node(node.id, node.operator, (*node.parents, parent))

    def children(self, node_id: int, output: Output = "main") -> list[Node]:
        """The nodes that one output of a node goes to, in the order in which they were made."""
        return [node for node in self.nodes.values() if Input(node_id, output) in node.parents]

    def upstream(self, start: Input) -> list[Node]:
        """A node and all that it comes from, in no particular order."""
        seen: dict[int, Node] = {}
        waiting = [start.node]
        while waiting:
            node = self.nodes[waiting.pop()]
            if node.id not in seen:
                seen[node.id] = node
                waiting += [parent.node for parent in node.parents]
        return list(seen.values())

    def feeds(self, one: Input, other: Input) -> bool:
        """Whether the task of one node is that of another, or writes to it through repartitions, so far."""
        parts = split(ordered(self.nodes))
        waiting = [part for part in parts if any(node.id == other.node for node in part.nodes)]
        seen = set[int]()
        while waiting:
            part = waiting.pop()
            if part.id in seen:
                continue
            if any(node.id == one.node for node in part.nodes):
                return True
            seen.add(part.id)
            cuts = {cut.id for cut in part.repartitions_read}
            waiting += [each for each in parts if cuts & {cut.id for cut in each.repartitions_written}]
        return False

    def topology(self, app: str) -> "Topology":
        """The finished graph.

        Raises:
            TopologyError: what the nodes are together cannot run; every place concerned is named.
        """
        check_declared_alike(self.topics)
        _check_nodes(self.nodes.values())
        _check_names(app, self.nodes.values(), self.global_tables)
        self._check_shared_stores()
        order = ordered(self.nodes)
        _check_cycles(order)
        made = Topology(
            app=app,
            nodes=tuple(order),
            subtopologies=tuple(in_order(split(order))),
            global_tables=tuple(self.global_tables),
        )
        _check_silences(made)
        _check_backed(made)
        return made

    def _check_shared_stores(self) -> None:
        """Refuses a store that is used on both sides of a repartition: that divides tasks, and the store joins them."""
        users = [node for node in self.nodes.values() if node.operator.uses]
        for node in users:
            for cut in filter(is_cut, self.upstream(Input(node.id))):
                for other in self.upstream(Input(cut.id)):
                    both = set(node.operator.uses).intersection(other.operator.uses)
                    if both:
                        raise TopologyError(
                            f"store {both.pop().name!r} is used at {other.place} and, behind the repartition at "
                            f"{cut.place}, at {node.place}: the two run in different tasks, and each has only its own "
                            "part of a store; use two stores"
                        )


# ---------------------------------------------------------------- what only the whole shows


def _check_nodes(nodes: Collection[Node]) -> None:
    operators = [node.operator for node in nodes]
    read = {parent.node for node in nodes for parent in node.parents}
    for node in nodes:
        node.operator.check(len(node.parents))
        if node.operator.repartition is not None and node.id not in read:
            raise TopologyError(
                f"the repartition at {node.place} leads nowhere: go on with the stream that repartition() returns"
            )
    if not operators:
        raise TopologyError("the app reads no topic: begin with app.stream(topic)")
    if not any(operator.effect or operator.stores for operator in operators):
        places = ", ".join(str(operator.place) for operator in operators if operator.reads is not None)
        raise TopologyError(f"the app, which reads at {places}, writes nothing and keeps nothing: end with .to(topic)")


def _check_cycles(order: Collection[Node]) -> None:
    """Raises TopologyError where a topic that is read feeds, through topics or not, a sink that writes it again."""
    writers: dict[str, list[Node]] = {}
    for node in order:
        if node.operator.writes is not None:
            writers.setdefault(node.operator.writes.name, []).append(node)
    by_id = {node.id: node for node in order}

    def before(node: Node) -> list[Node]:
        topic = node.operator.reads
        return [by_id[parent.node] for parent in node.parents] + (writers.get(topic.name, []) if topic else [])

    for source in (node for node in order if node.operator.reads is not None):
        waiting, seen = before(source), set[int]()
        while waiting:
            node = waiting.pop()
            if node is source and source.operator.reads is not None:
                name = source.operator.reads.name
                places = ", ".join(str(sink.place) for sink in writers[name])
                raise TopologyError(
                    f"topic {name!r}, read at {source.place}, is written at {places} from what it brought, and a "
                    "record would go round for ever: write to another topic"
                )
            if node.id not in seen:
                seen.add(node.id)
                waiting += before(node)


def _check_names(app: str, nodes: Collection[Node], global_tables: Iterable[GlobalTable[Any, Any]]) -> None:
    names: dict[str, _Owner] = {}
    stores: dict[str, _Owner] = {}
    internal: dict[str, _Owner] = {}
    for declared in dict.fromkeys(store for node in nodes for store in node.operator.uses):
        _check_free(stores, declared.name, declared, f"the store name {declared.name!r}")
        _check_free(internal, changelog_topic(app, declared.name), declared, f"the store name {declared.name!r}")
    for table in global_tables:
        _check_free(stores, table.name, table, f"store={table.name!r}")
    for node in nodes:
        if names.setdefault(node.name, node) is not node:
            raise TopologyError(
                f"name={node.name!r} is used twice, at {names[node.name].place} and at {node.place}: give one of them "
                "another name"
            )
        for store in node.operator.stores:
            _check_free(stores, store.name, node, f"store={store.name!r}")
    for node in nodes:
        for name in own_topics(app, node.operator):
            _check_free(internal, name, node, f"the internal topic {name!r}")
    for node in nodes:
        topic = node.operator.writes
        if topic is not None and topic.name in internal:
            raise TopologyError(
                f"the topic {topic.name!r}, written at {node.place}, is the app's own for what stands at "
                f"{internal[topic.name].place}: write to another"
            )


def _check_silences(made: Topology) -> None:
    """The topics of silences are the app's own too."""
    internal: dict[str, _Owner] = {}
    for node in made.nodes:
        for name in own_topics(made.app, node.operator):
            internal[name] = node
    for name, source in made.silences().items():
        _check_free(internal, name, source, f"the internal topic {name!r}")
    for node in made.nodes:
        topic = node.operator.writes
        if topic is not None and topic.name in made.silences():
            raise TopologyError(
                f"the topic {topic.name!r}, written at {node.place}, is the app's own for the input at "
                f"{made.silences()[topic.name].place}, which may be silent: write to another"
            )


def _check_backed(made: Topology) -> None:
    """Refuses tables without a changelog where what their topic has does not do (backed)."""
    inner = made.inner_topics
    for node in made.nodes:
        for topic in (store.source for store in node.operator.stores if store.source is not None):
            if topic.name in inner:
                place = next(each.place for each in made.nodes if each.operator.writes == topic)
                raise TopologyError(
                    f'the table at {node.place} says changelog="source", and the app itself writes its topic '
                    f"{topic.name!r}, at {place}: what a reset takes back would be in the table again; leave "
                    'changelog="source" out'
                )
            asks = _asks_for_old(made, node)
            if asks is not None:
                raise TopologyError(
                    f'the table at {node.place} says changelog="source", and {asks.name} at {asks.place} takes back '
                    "the value that a change replaces, which a compacted topic may have no more after a restore: leave "
                    'changelog="source" out'
                )


def _asks_for_old(made: Topology, node: Node) -> Node | None:
    """A node behind a table's that wants to know what each change replaces."""
    for child in made.children(node.id):
        if child.operator.old == "wanted":
            return child
        found = _asks_for_old(made, child) if child.operator.old == "passed" else None
        if found is not None:
            return found
    return None


_Owner = Node | DeclaredStore[Any, Any] | GlobalTable[Any, Any]


def _check_free(taken: dict[str, _Owner], name: str, node: _Owner, what: str) -> None:
    try:
        check_topic_name(name)
    except InvalidError as error:
        raise TopologyError(f"{what} at {node.place} cannot name a topic: {error}") from error
    other = taken.setdefault(name, node)
    if other is not node:
        raise TopologyError(
            f"{what} is used twice, at {other.place} and at {node.place}: give one of them another name"
        )
