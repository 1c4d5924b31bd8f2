"""By how much what reaches a node may lag behind the stream time of its task, and whether a cache holds it back.

1. Results lag by the `delay_ms` of what made them: the longest way from the sources, or from a repartition, counts.
2. Behind a cache nothing may close, and no time may be told, before that was flushed: at a commit. An operator that
   sends what it has at once, or when time has come for it, is no cache, though it has a store.
"""

from typing import NamedTuple

from tailrace.streams.program.topology import Node, SubTopology


class Lag(NamedTuple):
    """See the module's docstring."""

    ms: int
    after_cache: bool


def lag_of(sub: SubTopology, node: Node, *, caching: bool) -> Lag:
    """That of a node, or of a repartition that the sub-topology writes; caching: whether its tasks have caches."""
    nodes = {each.id: each for each in sub.nodes}

    def parents(each: Node) -> list[Node]:
        return [nodes[parent.node] for parent in each.parents if parent.node in nodes]

    def lag_ms(each: Node) -> int:
        return each.operator.delay_ms + max(map(lag_ms, parents(each)), default=0)

    def holds_back(each: Node) -> bool:
        return each.operator.caches or any(map(holds_back, parents(each)))

    return Lag(max(map(lag_ms, parents(node)), default=0), caching and any(map(holds_back, parents(node))))
