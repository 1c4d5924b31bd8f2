"""The end of a chain of nodes while a program is being written: where the next node is joined on, and what flows there.

What `Stream`, `Grouped` and `Table` have in common; each of their methods is one `then`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.streams.program.graph import Graph
from tailrace.streams.program.io import Merge, Repartition, Source
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Input, Operator
from tailrace.streams.values.derived import Slot, merged_slot
from tailrace.streams.values.place import Place, check_function, user_place


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
    if store is None:
        raise TypeError(
            f'{where} needs store=, a name for what it keeps: store="{where.rsplit(".", 1)[-1]}", for example'
        )
    if not isinstance(store, str):
        raise TypeError(f"{where}(store={store!r}) is not a name: give a str")
    return store


def source(graph: Graph, topic: Topic[Any, Any]) -> Flow:
    """The flow of a topic; however often it is read, it has one source."""
    graph.topics.append(topic)
    node = next((node for node in graph.nodes.values() if _reads(node.operator, topic)), None)
    if node is None:
        node = graph.add(Source(name=graph.name_for("source"), place=user_place(), topic=topic))
    maker = f"topic {topic.name!r}"
    key = Slot("key", maker, place=topic.place, of=topic.key_takes, codec=topic.key_codec)
    value = Slot("value", maker, place=topic.place, of=topic.value_takes, codec=topic.value_codec)
    return Flow(graph, Input(node.id), key, value)


def _reads(operator: Operator, topic: Topic[Any, Any]) -> bool:
    return isinstance(operator, Source) and operator.topic.name == topic.name


def repartitioned(
    flow: Flow, name: str, place: Place, *, partitions: int | None = None, keeps_null_keys: bool = False
) -> Flow:
    """The flow after a repartition of that name."""
    graph = flow.graph
    if graph.nodes[flow.origin.node].operator.repartition is not None:
        # Somebody has to read the one before.
        flow = flow.then(Merge(name=graph.name_for("pass"), place=place))
    flow.key.need()
    operator = Repartition(
        name=graph.name_for("repartition"),
        place=place,
        topic_name=name,
        partitions=partitions,
        key=flow.key,
        value=flow.value,
        keeps_null_keys=keeps_null_keys,
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
        merged_slot([flow.key for flow in flows], user_place()),
        merged_slot([flow.value for flow in flows], user_place()),
        rekeyed=any(flow.rekeyed for flow in flows),
    )
