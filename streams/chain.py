"""The chain of one task while it is put together, from its ends to its sources: every node becomes a function.

1. One link is one Python call a record: (key, value, timestamp in ms) and nothing returned.
2. A node is built once per task, however many outputs lead to it. One with several parents may have a link for each
   (a join does: which side a record comes from is known by the link that is called), or one for all of them (merge).
3. What keeps state is found in `state_nodes`, by the name of its store: every store of a node must be there.

Not here: what the links of each operation do, which stands beside its data in operators/, and which function builds
which operation (build).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tailrace.log.clock import Clock
from tailrace.state.store import Keyspace
from tailrace.streams.context import StateNode, TaskContext
from tailrace.streams.hop import Hop
from tailrace.streams.operators.processor import RunningProcessor
from tailrace.streams.outputs import Outputs
from tailrace.streams.topic import Topic
from tailrace.streams.topology import Forward, Input, Node, Operator, Output, Topology

Children = Mapping[Input, Sequence[tuple[Node, int]]]
"""The nodes behind each output, each with the place that the output has among its parents."""


class Chain:
    """The links of one task, made as they are asked for.

    builders has the function for each class of operators (an operator without one is built by its own `build`); hops
    has each repartition that the task writes, by node; output_partitions creates an output topic that is missing, and
    gives its partition count; clock is the wall clock of what processors schedule.
    """

    def __init__(
        self,
        builders: "Mapping[type[Operator], Builder]",
        children: Children,
        context: TaskContext,
        hops: Mapping[int, Hop],
        outputs: Outputs,
        output_partitions: Callable[[Topic[Any, Any]], int],
        clock: Clock,
    ) -> None:
        self.context = context
        self.hops = hops
        self.outputs = outputs
        self.output_partitions = output_partitions
        self.clock = clock
        self.state_nodes: dict[str, StateNode] = {}
        """By the name of the store."""
        self.processors: dict[int, RunningProcessor] = {}
        """By graph node."""
        self._builders = builders
        self._children = children
        self._links: dict[int, tuple[Forward, ...]] = {}
        """By graph node: one for each parent."""

    def output(self, node: int, output: Output = "main") -> Forward:
        """What takes the records that a node sends to one of its outputs."""
        return fan_out([self._link(child, side) for child, side in self._children.get(Input(node, output), ())])

    def keyspace(self, store: str) -> Keyspace:
        """Where a store of the task keeps its rows."""
        assert self.context.backend is not None
        return self.context.backend.keyspace(store)

    def asked_for_old(self, node: Node) -> bool:
        """Whether some node behind a table's node wants to know what each change replaces."""
        return any(
            child.operator.old == "wanted" or (child.operator.old == "passed" and self.asked_for_old(child))
            for child, _ in self._children.get(Input(node.id), ())
        )

    def _link(self, node: Node, side: int) -> Forward:
        links = self._links.get(node.id)
        if links is None:
            build = self._builders.get(type(node.operator))
            made = (
                node.operator.build(self.context, self.output(node.id))
                if build is None
                else build(self, node, node.operator)
            )
            links = self._links[node.id] = made.links if isinstance(made, Sides) else (made,) * len(node.parents)
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
        return _nowhere
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


def _nowhere(_key: Any, _value: Any, _timestamp_ms: int) -> None:
    """The end of a chain that nobody reads."""


def children_of(topology: Topology) -> dict[Input, list[tuple[Node, int]]]:
    """The nodes behind each output, in the order in which the program made them."""
    children: dict[Input, list[tuple[Node, int]]] = {}
    for node in sorted(topology.nodes, key=lambda node: node.id):
        for side, parent in enumerate(node.parents):
            children.setdefault(parent, []).append((node, side))
    return children
