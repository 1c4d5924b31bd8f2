"""From the graph to the chain of one task: every node becomes a closure that calls the next ones.

A chain is put together once, when the app starts, from its ends to its sources. One link is one Python call a record.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tailrace.log.clock import Clock
from tailrace.log.errors import TopologyError
from tailrace.state.changelog import Layout
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session import SessionLayout, SessionStore
from tailrace.state.window import WindowStore
from tailrace.streams.codec import TypeCodec, guarded, windowed_form
from tailrace.streams.context import StateNode, TaskContext
from tailrace.streams.hop import Hop
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.aligned import AlignedAggregate
from tailrace.streams.operators.fold import Emitter, Fold, aggregate_fold, count_fold, emitter, reduce_fold
from tailrace.streams.operators.io import Late, Merge, Repartition, Sink, Source, Split
from tailrace.streams.operators.kept import KeptTable, derived
from tailrace.streams.operators.plain import PlainAggregate
from tailrace.streams.operators.process import Process
from tailrace.streams.operators.processor import OwnStore, RunningProcessor
from tailrace.streams.operators.session import Join, SessionAggregate, aggregate_join, count_join, reduce_join
from tailrace.streams.operators.sliding import SlidingAggregate
from tailrace.streams.operators.table import TableFilter, TableMap, TableNode
from tailrace.streams.outputs import Outputs
from tailrace.streams.store import DeclaredStore
from tailrace.streams.topic import Topic
from tailrace.streams.topology import Forward, Input, Node, Operator, Output, Topology
from tailrace.windows.session import SessionWindow
from tailrace.windows.sliding import SlidingWindow
from tailrace.windows.window import AlignedWindow, Window


class ChainBuilder:
    """Builds the chains of one task.

    hops has each repartition that the task writes, by node; output_partitions creates an output topic that is
    missing, and gives its partition count; clock is the wall clock of what processors schedule.
    """

    def __init__(
        self,
        children: Mapping[Input, Sequence[Node]],
        context: TaskContext,
        hops: Mapping[int, Hop],
        outputs: Outputs,
        output_partitions: Callable[[Topic[Any, Any]], int],
        clock: Clock,
    ) -> None:
        self._children = children
        self._context = context
        self._hops = hops
        self._outputs = outputs
        self._output_partitions = output_partitions
        self._clock = clock
        self._links: dict[int, Forward] = {}
        self.state_nodes: dict[int, StateNode] = {}
        """By graph node."""
        self.own_stores: dict[str, OwnStore] = {}
        """By name."""
        self.processors: dict[int, RunningProcessor] = {}
        """By graph node."""

    def output(self, node: int, output: Output = "main") -> Forward:
        """What takes the records that a node sends to one of its outputs."""
        links = [self._link(child) for child in self._children.get(Input(node, output), ())]
        return fan_out(links)

    def _link(self, node: Node) -> Forward:
        # A node with several parents is one link: it may have state.
        link = self._links.get(node.id)
        if link is None:
            link = self._links[node.id] = self._build(node)
        return link

    def _build(self, node: Node) -> Forward:
        operator = node.operator
        if isinstance(operator, Sink):
            return self._sink(operator)
        if isinstance(operator, Repartition):
            key = operator.key.codec
            return self._hops[node.id].sink(
                self._context, key.partition_bytes, hashable=key.hashable, keeps_null_keys=operator.keeps_null_keys
            )
        if isinstance(operator, Split):
            return operator.route(lambda branch: self.output(node.id, branch))
        forward = self.output(node.id)
        if isinstance(operator, TableNode):
            return self._table(node, operator, forward)
        if isinstance(operator, Aggregate):
            return self._aggregate(node, operator, forward)
        if isinstance(operator, Process):
            stores = {declared.name: self._own_store(declared) for declared in operator.own_stores}
            processor = RunningProcessor(self._context, operator, forward, stores, self._clock)
            self.processors[node.id] = processor
            return processor.link()
        if isinstance(operator, Late | Merge):
            return forward
        return operator.build(self._context, forward)

    def _sink(self, sink: Sink) -> Forward:
        if sink.topic is not None:
            return self._sink_to(sink, sink.topic)
        choose, opened = sink.choose, dict[str, Forward]()
        assert choose is not None

        def to_chosen(key: Any, value: Any, timestamp_ms: int) -> None:
            topic = choose(key, value)
            to_topic = opened.get(topic.name)
            if to_topic is None:
                to_topic = opened[topic.name] = self._sink_to(sink, topic)
            to_topic(key, value, timestamp_ms)

        return to_chosen

    def _sink_to(self, sink: Sink, topic: Topic[Any, Any]) -> Forward:
        key, value = sink.codecs(topic)
        encode_key = guarded(key, f"the key for topic {topic.name!r}, written at {sink.place},").encode
        encode_value = guarded(value, f"the value for topic {topic.name!r}, written at {sink.place},").encode
        partitions = self._output_partitions(topic)
        form = windowed_form(key)
        if form is None:
            return self._outputs.sink(self._context, topic.name, encode_key, encode_value)
        inner = form.inner.partition_bytes
        return self._outputs.windowed_sink(topic.name, partitions, inner, encode_key, encode_value)

    def _aggregate(self, node: Node, operator: Aggregate, forward: Forward) -> Forward:
        context, key, value, window = self._context, operator.key.codec, _guarded_value(operator), operator.window
        assert context.backend is not None
        keyspace = context.backend.keyspace(operator.store)
        late = self.output(node.id, "late")
        fold, on_close = _fold(operator), operator.emit == "close"
        emit = emitter(context, forward, value, old=self._asked_for_old(node))
        if window is None:
            plain = PlainAggregate(context, KeyValueStore(operator.store, keyspace, key, value), fold, emit)
            self.state_nodes[node.id] = plain
            return plain.process()
        retention_ms = operator.retention_ms or window.retention_ms
        if isinstance(window, AlignedWindow):
            aligned = AlignedAggregate(
                context,
                WindowStore(operator.store, keyspace, key, value),
                window,
                fold,
                emit,
                late,
                on_close=on_close,
                retention_ms=retention_ms,
            )
            self.state_nodes[node.id] = aligned
            return aligned.process()
        return self._spans(node, operator, window, emit, late, retention_ms=retention_ms)

    def _table(self, node: Node, operator: TableNode, forward: Forward) -> Forward:
        context, old, sparse = self._context, self._asked_for_old(node), isinstance(operator, TableFilter)
        rule = operator.rule() if isinstance(operator, TableFilter | TableMap) else None
        if operator.store is None:
            assert rule is not None
            return derived(context, rule, forward, sparse=sparse, old=old)
        assert context.backend is not None
        key, value = operator.key.codec, operator.value.codec
        value = guarded(value, f"a value of store {operator.store!r}, made at {operator.place},")
        store = KeyValueStore[Any, Any](operator.store, context.backend.keyspace(operator.store), key, value)
        emit = emitter(context, forward, value, old=old)
        kept = self.state_nodes[node.id] = KeptTable(context, store, rule, emit, value, sparse=sparse)
        return kept.process()

    def _own_store(self, declared: DeclaredStore[Any, Any]) -> OwnStore:
        own = self.own_stores.get(declared.name)
        if own is None:
            assert self._context.backend is not None
            where = f"of store {declared.name!r}, declared at {declared.place},"
            key = guarded(declared.key_codec, f"a key {where}")
            value = guarded(declared.value_codec, f"a value {where}")
            store = KeyValueStore[Any, Any](declared.name, self._context.backend.keyspace(declared.name), key, value)
            own = self.own_stores[declared.name] = OwnStore(declared, store)
        return own

    def _asked_for_old(self, node: Node) -> bool:
        """Whether some node behind a table's node wants to know what each change replaces."""
        return any(
            child.operator.old == "wanted" or (child.operator.old == "passed" and self._asked_for_old(child))
            for child in self._children.get(Input(node.id), ())
        )

    def _spans(
        self, node: Node, operator: Aggregate, window: Window, emit: Emitter, late: Forward, *, retention_ms: int
    ) -> Forward:
        context, key, value = self._context, operator.key.codec, _guarded_value(operator)
        assert context.backend is not None
        keyspace, fold, on_close = context.backend.keyspace(operator.store), _fold(operator), operator.emit == "close"
        spans: SessionAggregate | SlidingAggregate
        if isinstance(window, SessionWindow):
            store = SessionStore[Any, Any](operator.store, keyspace, key, value)
            spans = SessionAggregate(
                context,
                store,
                window,
                fold,
                _join(operator),
                emit,
                late,
                on_close=on_close,
                retention_ms=retention_ms,
            )
        elif isinstance(window, SlidingWindow):
            store = SessionStore[Any, Any](operator.store, keyspace, key, value, difference_ms=window.difference_ms)
            spans = SlidingAggregate(
                context, store, window, fold, emit, late, value, on_close=on_close, retention_ms=retention_ms
            )
        else:
            raise TopologyError(f"{window} at {operator.place} is no window that can be aggregated")
        self.state_nodes[node.id] = spans
        return spans.process()


def layout_of(operator: Operator) -> Layout:
    """How the changelog of an operator's store is laid out."""
    window = operator.window if isinstance(operator, Aggregate) else None
    if window is None:
        return KeyValueStore.layout
    if isinstance(window, AlignedWindow):
        return WindowStore.layout
    return SessionLayout(window.difference_ms if isinstance(window, SlidingWindow) else None)


def retention_of(operator: Operator) -> int | None:
    """How far behind stream time the windows of an operator's store may still be read, in ms; None: there are none."""
    return operator.retention_ms if isinstance(operator, Aggregate) else None


def _guarded_value(operator: Aggregate) -> TypeCodec:
    """The codec of the results; one that the user's function got wrong is told with the store and the line."""
    if operator.function == "count":
        return operator.stored
    what = f"what {operator.function}(store={operator.store!r}) at {operator.place} returned"
    return guarded(operator.stored, what, "; mend the function, or say what it returns with value=")


def _fold(operator: Aggregate) -> Fold:
    if operator.function == "count":
        return count_fold
    if operator.reduced is not None:
        return operator.reduced.fold
    assert operator.add is not None
    if operator.function == "reduce":
        return reduce_fold(operator.add, operator.value.codec)
    assert operator.zero is not None
    return aggregate_fold(operator.zero, operator.add)


def _join(operator: Aggregate) -> Join:
    if operator.function == "count":
        return count_join
    if operator.reduced is not None:
        return reduce_join(operator.reduced.merge)
    if operator.function == "reduce":
        assert operator.add is not None
        return reduce_join(operator.add)
    assert operator.zero is not None
    assert operator.merge is not None
    return aggregate_join(operator.zero, operator.merge)


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


def children_of(topology: Topology) -> dict[Input, list[Node]]:
    """The nodes behind each output, in the order in which the program made them."""
    children: dict[Input, list[Node]] = {}
    for node in sorted(topology.nodes, key=lambda node: node.id):
        for parent in node.parents:
            children.setdefault(parent, []).append(node)
    return children


def functions_of(operator: Operator) -> list[Callable[..., Any]]:
    """The functions of the user that an operator calls: to find the node when one raises."""
    names = ("f", "add", "zero", "merge", "choose", "factory")
    found = [getattr(operator, name, None) for name in names]
    if isinstance(operator, Source):
        found.append(operator.topic.timestamp)
    if isinstance(operator, Aggregate) and operator.reduced is not None:
        found += operator.reduced.functions
    if isinstance(operator, Split):
        found += operator.branches.values()
    return [function for function in found if callable(function)]
