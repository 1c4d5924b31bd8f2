"""A program under another name: the same graph, writing to topics of its own.

1. What the program writes is renamed wherever it is written, and wherever the program reads it again; what it only
   reads keeps its name.
2. The topics of its own are made like those that they stand beside: partitions and settings are the same, so that a key
   is found in the partition of the same number.

Not here: when such a program runs (replay).
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tailrace.log.client import Log
from tailrace.log.topic import TopicConfig
from tailrace.streams.program.io import Sink, Source
from tailrace.streams.program.topic import Topic, is_topic
from tailrace.streams.program.topology import Node, SubTopology, Topology


class Renaming:
    """Topics beside those of the program: `<name>.<into>`, one for each that it writes."""

    def __init__(self, log: Log, into: str) -> None:
        self._log = log
        self._into = into
        self._made: dict[str, Topic[Any, Any]] = {}

    @property
    def made(self) -> list[str]:
        """The topics beside those that were asked for so far, those that `to(function)` chose among them."""
        return [topic.name for topic in list(self._made.values())]

    def name(self, topic: str) -> str:
        """The name of what stands beside a topic."""
        return f"{topic}.{self._into}"

    def beside(self, topic: Topic[Any, Any]) -> Topic[Any, Any]:
        """The topic that stands beside one of the program's."""
        made = self._made.get(topic.name)
        if made is None:
            made = copy.copy(topic)
            made.name = self.name(topic.name)
            if topic.name in self._log.topics():
                found, defaults = self._log.describe_topic(topic.name), TopicConfig().as_strings()
                made.partitions = found.partitions
                made.config = {name: value for name, value in found.config.items() if value != defaults[name]}
            self._made[topic.name] = made
        return made


def replayed(topology: Topology, app: str, renaming: Renaming) -> Topology:
    """The program as app of another name, with the topics that it writes renamed."""
    written = {topic.name for node in topology.nodes if (topic := node.operator.writes) is not None}
    nodes = {node.id: _moved(node, written, renaming) for node in topology.nodes}

    def moved(some: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(nodes[node.id] for node in some)

    parts = tuple(
        SubTopology(
            sub.id,
            moved(sub.nodes),
            moved(sub.sources),
            moved(sub.repartitions_read),
            moved(sub.repartitions_written),
        )
        for sub in topology.subtopologies
    )
    return replace(topology, app=app, nodes=moved(topology.nodes), subtopologies=parts)


def _moved(node: Node, written: set[str], renaming: Renaming) -> Node:
    operator = node.operator
    if isinstance(operator, Sink) and operator.topic is not None:
        return replace(node, operator=replace(operator, topic=renaming.beside(operator.topic)))
    if isinstance(operator, Sink) and operator.choose is not None:
        return replace(node, operator=replace(operator, choose=_chooser(operator.choose, renaming)))
    if isinstance(operator, Source) and operator.topic.name in written:
        return replace(node, operator=replace(operator, topic=renaming.beside(operator.topic)))
    return node


def _chooser(
    choose: Callable[[Any, Any], Topic[Any, Any]], renaming: Renaming
) -> Callable[[Any, Any], Topic[Any, Any]]:
    @functools.wraps(choose)
    def chosen(key: Any, value: Any) -> Topic[Any, Any]:
        topic = choose(key, value)
        return renaming.beside(topic) if is_topic(topic) else topic  # what is no topic is refused where it is used

    return chosen
