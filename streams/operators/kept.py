"""Tables at work: those that keep their content in a store, and those that are worked out change by change.

1. A row's value is the last one in the order of offsets, whatever its time; a result's time is the record's.
2. What is stored never shares a mutable value with what is sent on, or with the record that brought it.
3. A function of the user is called for values alone, never for a delete.
4. A *sparse* table (a filter's, a join's) says nothing of a row that neither was nor is in it. Any other passes on each
   change.
5. With the cache on, changes of one key between two commits are merged: the first old value, the last new one.
"""

from collections.abc import Callable
from typing import Any

from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.store import Codec
from tailrace.streams.chain.chain import Chain
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.fold import Emitter, emitter, snapshot
from tailrace.streams.operators.foreign import ForeignResult
from tailrace.streams.operators.plain import KeyValueNode
from tailrace.streams.operators.table import TableFilter, TableMap, TableNode
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import guarded

Rule = Callable[[Any, Any], Any]
"""(key, value) to the value in the derived table; None where there is none."""


def derived(context: TaskContext, rule: Rule, forward: Forward, *, sparse: bool, old: bool) -> Forward:
    """The link of a table that is worked out from the changes of another one; `old` says whether to pass old values on.

    A sparse one works out both values of a change, the new one and the one before.
    """
    if not sparse and not old:

        def rule_link(key: Any, value: Any, timestamp_ms: int) -> None:
            forward(key, None if value is None else rule(key, value), timestamp_ms)

        return rule_link

    def change_link(key: Any, value: Any, timestamp_ms: int) -> None:
        outer = context.old
        before = None if outer is None else rule(key, outer)
        now = None if value is None else rule(key, value)
        if sparse and before is None and now is None:
            return
        context.old = before
        try:
            forward(key, now, timestamp_ms)
        finally:
            context.old = outer

    return change_link


def build_table(chain: Chain, node: Node, operator: TableNode) -> Forward:
    """The link of a table: kept where it has a store, else worked out change by change."""
    context, forward, old = chain.context, chain.output(node.id), chain.asked_for_old(node)
    sparse, name = isinstance(operator, TableFilter | ForeignResult), operator.store_name
    rule = operator.rule() if isinstance(operator, TableFilter | TableMap) else None
    if name is None:
        assert rule is not None
        return derived(context, rule, forward, sparse=sparse, old=old)
    value = guarded(
        operator.value.codec, f"a value of store {name!r}, made at {operator.place},", operator.value.advice
    )
    store = KeyValueStore[Any, Any](name, chain.keyspace(name), operator.key.codec, value)
    if context.goes_on:
        rule = chain.known_as(node, _encodable(rule, value.encode))
    emit = emitter(context, forward, value, old=old, in_flight=node.id in chain.in_flight)
    kept = chain.state_nodes[name] = KeptTable(context, store, rule, emit, value, sparse=sparse)
    return kept.process()


def _encodable(rule: Rule | None, encode: Callable[[Any], bytes]) -> Rule:
    """The rule for an app that goes on after an error: what the store could not hold is found with the record."""

    def encodable(key: Any, value: Any) -> Any:
        made = value if rule is None else rule(key, value)
        if made is not None:
            encode(made)
        return made

    return encodable


class KeptTable(KeyValueNode):
    """A table that keeps its content, in one task. `rule`, where there is one, makes its values of those that come."""

    def __init__(
        self,
        context: TaskContext,
        store: KeyValueStore[Any, Any],
        rule: Rule | None,
        emit: Emitter,
        codec: Codec[Any],
        *,
        sparse: bool,
    ) -> None:
        super().__init__(context, store, emit)
        self._rule = rule
        self._codec = codec
        self._sparse = sparse

    def flush(self, stream_time_ms: int) -> None:
        """Sends on what changed since the last commit, where the cache held it back."""
        if not self._sparse or not self._context.caching:
            super().flush(stream_time_ms)
            return
        for (key, value, timestamp_ms), old in self.store.flush_with_old():
            # It came and went since the last commit.
            if value is not None or old is not None:
                self._emit(key, value, timestamp_ms, old)

    def process(self) -> Forward:
        """The function that takes the node's records."""
        take, rule, context = self._sparse_take() if self._sparse else self._take(), self._rule, self._context

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None:
                context.drop("null_key")
            elif value is None or rule is None:
                take(key, value, timestamp_ms)
            else:
                take(key, rule(key, value), timestamp_ms)

        return process

    def _take(self) -> Forward:
        store, codec, emit = self.store, self._codec, self._emit
        caching = self._context.caching
        put, load, cache_key = store.put, store.load, store.cache_key

        def take(key: Any, value: Any, timestamp_ms: int) -> None:
            # Nothing is read, but where somebody asks for the value before.
            old = emit.before(load(cache_key(key)).value) if emit.old and not caching else None
            put(key, snapshot(value, codec), timestamp_ms)
            if not caching:
                emit(key, value, timestamp_ms, old)

        return take

    def _sparse_take(self) -> Forward:
        store, codec, emit = self.store, self._codec, self._emit
        caching = self._context.caching
        put, load, cache_key = store.put, store.load, store.cache_key

        def take(key: Any, value: Any, timestamp_ms: int) -> None:
            before = load(cache_key(key)).value
            if value is None and before is None:
                return
            old = None if caching else emit.before(before)
            put(key, snapshot(value, codec), timestamp_ms)
            if not caching:
                emit(key, value, timestamp_ms, old)

        return take
