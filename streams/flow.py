"""The end of a chain of nodes while a program is being written: where the next node is joined on, and what flows there.

What `Stream`, `Grouped` and `Table` have in common; each of their methods is one `then`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.streams.derived import Slot, merged_slot
from tailrace.streams.operators.io import Repartition
from tailrace.streams.place import Place, check_function
from tailrace.streams.topology import Graph, Input, Operator


@dataclass(frozen=True)
class Flow:
    """One output of a node, with the types that come out of it."""

    graph: Graph
    origin: Input
    key: Slot
    value: Slot
    rekeyed: bool = False
    """Whether records may no longer be in the partition of their key."""

    def then(
        self, operator: Operator, *, key: Slot | None = None, value: Slot | None = None, rekeyed: bool | None = None
    ) -> "Flow":
        """Joins on a node; what is not given stays as it is."""
        return dataclasses.replace(
            self,
            origin=Input(self.graph.add(operator, [self.origin]).id),
            key=key or self.key,
            value=value or self.value,
            rekeyed=self.rekeyed if rekeyed is None else rekeyed,
        )


def checked_name(graph: Graph, prefix: str, f: Callable[..., Any], where: str) -> str:
    """The name of the next node, after its function was found to be one."""
    check_function(f, where)
    return graph.name_for(prefix)


def checked_store(store: object, where: str) -> str:
    """A store's name, after it was found to be one."""
    if not isinstance(store, str):
        raise TypeError(f"{where}(store={store!r}) is not a name: give a str")
    return store


def repartitioned(flow: Flow, name: str, place: Place, *, partitions: int | None = None) -> Flow:
    """The flow after a repartition of that name."""
    operator = Repartition(
        name=flow.graph.name_for("repartition"),
        place=place,
        topic_name=name,
        partitions=partitions,
        key=flow.key,
        value=flow.value,
    )
    return flow.then(operator, rekeyed=False)


def merged(graph: Graph, name: str, flows: Sequence[Flow], operator: Callable[[str], Operator]) -> Flow:
    """Several flows of the same types as one: the single one itself, else a node after all of them."""
    first = flows[0]
    if len(flows) == 1:
        return first
    node = graph.add(operator(graph.name_for(name)), [flow.origin for flow in flows])
    return Flow(
        graph,
        Input(node.id),
        merged_slot([flow.key for flow in flows]),
        merged_slot([flow.value for flow in flows]),
        rekeyed=any(flow.rekeyed for flow in flows),
    )
