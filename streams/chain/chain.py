"""The chain of one task while it is put together, from its ends to its sources: every node becomes a function.

1. One link is one Python call a record: (key, value, timestamp in ms) and nothing returned.
2. A node is built once per task, however many outputs lead to it. One with several parents may have a link for each
   (a join does: which side a record comes from is known by the link that is called), or one for all of them (merge).
3. What keeps state is found in `state_nodes`, by the name of its store: every store of a node must be there.

Not here: what the links of each operation do, which stands beside its data in operators/, and which function builds
which operation (build).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tailrace.log.clock import Clock
from tailrace.state.store import Keyspace
from tailrace.streams.chain.context import StateNode, TaskContext
from tailrace.streams.chain.failure import Nodes
from tailrace.streams.chain.global_rows import GlobalRows
from tailrace.streams.chain.hop import Hop
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.on_error import guard
from tailrace.streams.chain.outputs import Outputs, OutputTopic
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Forward, Input, Node, Operator, Output, Together, Topology
from tailrace.streams.values.place import Place

F = TypeVar("F", bound=Callable[..., Any])

Children = Mapping[Input, Sequence[tuple[Node, int]]]
"""The nodes behind each output, each with the place that the output has among its parents."""


class ProcessorLink(Protocol):
    """A link that runs the user's processor: it is started before the first record, and stopped after the last."""

    lag_ms: int

    def start(self, task: str, made: dict[int, str]) -> None:
        """Makes the processor of a task; `made` says, by the id of each that there is, for which."""
        ...

    def stop(self, made: dict[int, str]) -> None:
        """Has it closed, once, and takes it out of `made`: another may get its id."""
        ...


class Chain:
    """The links of one task, made as they are asked for.

    builders has the function for each class of operators (an operator without one is built by its own `build`); hops
    has each repartition that the task writes, by node; output_topic creates an output topic that is missing, and tells
    what it is like, given the place of who writes to it; clock is the wall clock of what processors schedule; nodes
    takes the functions that stand for one in a traceback.
    """

    def __init__(
        self,
        builders: "Mapping[type[Operator], Builder]",
        children: Children,
        context: TaskContext,
        hops: Mapping[int, Hop | LogHop],
        outputs: Outputs,
        output_topic: Callable[[Topic[Any, Any], Place], OutputTopic],
        clock: Clock,
        nodes: Nodes,
    ) -> None:
        self.context = context
        self.hops = hops
        self.outputs = outputs
        self.output_topic = output_topic
        self.clock = clock
        self.state_nodes: dict[str, StateNode] = {}
        """By the name of the store."""
        self.global_rows: Mapping[str, GlobalRows] = {}
        """Of the app's global tables, by their names."""
        self.processors: dict[int, ProcessorLink] = {}
        """By graph node."""
        self.in_flight: dict[int, Node] = {}
        """The tables, by node, that are asked which of their changes is on its way; each is built after who asks."""
        self.together: dict[Forward, Together] = {}
        """By a link: takes what it would take, many records at once."""
        self._builders = builders
        self._children = children
        self._by_id = {node.id: node for links in children.values() for node, _ in links}
        self._nodes = nodes
        self._guarded: set[int] = set()
        """Nodes that what stands behind them must not raise through."""
        self._links: dict[int, tuple[Forward, ...]] = {}
        """By graph node: one for each parent."""

    def output(self, node: int, output: Output = "main") -> Forward:
        """What takes the records that a node sends to one of its outputs."""
        links = [self._link(child, side) for child, side in self._children.get(Input(node, output), ())]
        links = [link for link in links if link is not nowhere]
        if self.context.goes_on and links:
            last = links[-1]
            links[:-1] = [guard(link, self.context) for link in links[:-1]]
            links[-1] = guard(last, self.context) if node in self._guarded else last
        return fan_out(links)

    def known_as(self, node: Node, function: F) -> F:
        """The function, which from now on stands for a node where it is found in a traceback (failure)."""
        self._nodes.add(function, node.name, node.place)
        return function

    def keyspace(self, store: str) -> Keyspace:
        """Where a store of the task keeps its rows."""
        assert self.context.backend is not None
        return self.context.backend.keyspace(store)

    def node(self, node_id: int) -> Node:
        """A node that has a parent, by its id."""
        return self._by_id[node_id]

    def has_parent(self, node_id: int) -> bool:
        """Whether a node has one, so that `node` knows it."""
        return node_id in self._by_id

    def behind(self, node: Node) -> list[Node]:
        """The nodes that read a node's results."""
        return [child for child, _ in self._children.get(Input(node.id), ())]

    def asked_for_old(self, node: Node) -> bool:
        """Whether some node behind a table's node wants to know what each change replaces."""
        return any(
            child.operator.old == "wanted" or (child.operator.old == "passed" and self.asked_for_old(child))
            for child, _ in self._children.get(Input(node.id), ())
        )

    def _newest(self, parent: Input, link: Forward) -> Forward:
        """The link, for changes that no newer version precedes."""
        if not self._versioned(self.node(parent.node)):
            return link
        context = self.context

        def newest_link(key: Any, value: Any, timestamp_ms: int) -> None:
            if not context.superseded:
                link(key, value, timestamp_ms)

        return newest_link

    def _versioned(self, table: Node) -> bool:
        """Whether changes of a table may be superseded: it has versions, or passes on what one has that does."""
        while table.operator.row_by_row:
            table = self.node(table.parents[0].node)
        return table.operator.versions

    def _link(self, node: Node, side: int) -> Forward:
        links = self._links.get(node.id)
        if links is None:
            if node.operator.goes_on:
                self._guarded.add(node.id)
            build = self._builders.get(type(node.operator))
            made = (
                node.operator.build(self.context, self.output(node.id))
                if build is None
                else build(self, node, node.operator)
            )
            links = made.links if isinstance(made, Sides) else (made,) * len(node.parents)
            if node.operator.newest_only:
                links = tuple(self._newest(parent, link) for parent, link in zip(node.parents, links, strict=True))
            self._links[node.id] = links
        return links[side]


class Sides(NamedTuple):
    """What takes the records of a node that has a link of its own for each of its parents, in their order."""

    links: tuple[Forward, ...]


Builder = Callable[[Chain, Node, Any], Forward | Sides]
"""Builds what takes one node's records; the operator is of the class that the function is registered for."""


def fan_out(links: Sequence[Forward]) -> Forward:
    """One function for all links of an output, called in order; the link itself where there is only one."""
    if len(links) == 1:
        return links[0]
    if not links:
        return nowhere
    if len(links) == 2:
        first, second = links

        def both(key: Any, value: Any, timestamp_ms: int) -> None:
            first(key, value, timestamp_ms)
            second(key, value, timestamp_ms)

        return both

    def each(key: Any, value: Any, timestamp_ms: int) -> None:
        for link in links:
            link(key, value, timestamp_ms)

    return each


def nowhere(_key: Any, _value: Any, _timestamp_ms: int) -> None:
    """The end of a chain that nobody reads, and the link of a node for a parent that it takes nothing from."""


def children_of(topology: Topology) -> dict[Input, list[tuple[Node, int]]]:
    """The nodes behind each output, in the order in which the program made them."""
    children: dict[Input, list[tuple[Node, int]]] = {}
    for node in sorted(topology.nodes, key=lambda node: node.id):
        for side, parent in enumerate(node.parents):
            children.setdefault(parent, []).append((node, side))
    return children
