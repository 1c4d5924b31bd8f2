"""Joins of tables at work: what a change of one side makes of the rows of both.

1. Every change that is sent replaces exactly what was sent before it for that key: retractions add up, with any cache.
2. A result's time is the largest of the two rows' times; of a row that is missing there is none.
3. Where one change of a table shows on both sides (a table joined with itself, or with what was made of it), it brings
   about one result: the join is worked out whole, for the first side that is told, and nothing is new for the second.

Kafka Streams sends such a change twice and never deletes. Where the app goes on after errors, a row for which the
function raises is not in the result.
"""

from collections.abc import Callable, Collection
from typing import Any

from tailrace.state.keyvalue import KeyValueStore
from tailrace.streams.chain.chain import Chain, Sides
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.fold import InFlight, emitter
from tailrace.streams.operators.kept import KeptTable
from tailrace.streams.operators.plain import RowsNode
from tailrace.streams.operators.table_join import TableJoin
from tailrace.streams.operators.views import (
    Joiner,
    Row,
    Seen,
    View,
    joiner,
    kept_below,
    look_at,
    read_twice,
    sent,
    view_of,
)
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import guarded


def build_table_join(chain: Chain, node: Node, operator: TableJoin) -> Sides:
    """The links of a join, one for each side."""
    left, right = (chain.node(parent.node) for parent in node.parents)
    kept = kept_below(chain.node, left, operator.place) | kept_below(chain.node, right, operator.place)
    twice = read_twice(chain, left, right, operator.place)
    if twice:
        # Before these are built, which is after all that stands behind them.
        chain.in_flight |= kept
    join = joiner(operator.join, operator.f)
    out = _Results(chain.context, *_kept(chain, node, operator))
    if twice:
        whole = _Whole(chain, (left, right), kept.values(), join, out)
        return Sides((whole.changed, whole.changed))
    from_left = _from_side(look_at(chain, right), join, out)
    from_right = _from_side(look_at(chain, left), lambda right, left: join(left, right), out)
    return Sides((from_left, from_right))


def _kept(chain: Chain, node: Node, operator: TableJoin) -> tuple[Forward, Callable[[Any], object] | None]:
    """What takes the results; and where they are kept, what looks whether they can be."""
    forward, name = chain.output(node.id), operator.store_name
    if name is None:
        return forward, None
    value = guarded(
        operator.value.codec, f"a value of store {name!r}, made at {operator.place},", operator.value.advice
    )
    store = KeyValueStore[Any, Any](name, chain.keyspace(name), operator.key.codec, value)
    emit = emitter(chain.context, forward, value, old=chain.asked_for_old(node), in_flight=node.id in chain.in_flight)
    kept = chain.state_nodes[name] = KeptTable(chain.context, store, None, emit, value, sparse=True)
    return kept.process(), chain.known_as(node, value.encode)


class _Results:
    """What a join sends: the result, and beside it the one that it replaces, unless a store knows that."""

    def __init__(self, context: TaskContext, forward: Forward, encode: Callable[[Any], object] | None) -> None:
        self.context = context
        self._forward = forward
        self._encode = encode
        self.keeps = encode is not None

    def send(self, key: Any, before: Any, now: Any, timestamp_ms: int) -> None:
        """Sends a change on, if it is one."""
        if self.keeps:
            self._forward(key, now, timestamp_ms)
        elif before is not None or now is not None:
            context = self.context
            outer, context.old = context.old, before
            try:
                self._forward(key, now, timestamp_ms)
            finally:
                context.old = outer

    def change(self, key: Any, before: "Made", now: "Made", timestamp_ms: int) -> None:
        """Works the two values of a change out and sends it; a result's time is at least timestamp_ms."""
        if not self.context.goes_on:
            old = None if self.keeps else before(key)[0]
            value, time_ms = now(key)
            self.send(key, old, value, max(timestamp_ms, time_ms))
            return
        try:
            old = None if self.keeps else before(key)[0]
        except Exception:  # noqa: BLE001 - dealt with when the values were new: the row is not in the result
            old = None
        try:
            value, time_ms = now(key)
            if self._encode is not None and value is not None:
                self._encode(value)
        except Exception:
            self.send(key, old, None, timestamp_ms)
            raise
        self.send(key, old, value, max(timestamp_ms, time_ms))


Made = Callable[[Any], Row]
"""Key to a result and its time."""


def _from_side(look: Callable[[Any], Row], f: Joiner, out: _Results) -> Forward:
    """The link of one side, where the other one stays as it is; f takes the value of the own side first."""
    context, keeps = out.context, out.keeps

    def join_link(key: Any, value: Any, timestamp_ms: int) -> None:
        other, time_ms = look(key)
        old = context.old
        # The other row is looked up anew for each call, since a function may change what it is given.
        before = None if keeps or (old is None and other is None) else f(old, look(key)[0])
        out.send(key, before, f(value, other), timestamp_ms if timestamp_ms > time_ms else time_ms)

    def going_on_link(key: Any, value: Any, timestamp_ms: int) -> None:
        old = context.old

        def before(key: Any) -> Row:
            other, time_ms = look(key)
            return f(old, other), time_ms

        def now(key: Any) -> Row:
            other, time_ms = look(key)
            return f(value, other), time_ms

        out.change(key, before, now, timestamp_ms)

    return going_on_link if context.goes_on else join_link


class _Whole:
    """A join one change of which may show on both sides: worked out from both tables, whichever side is told."""

    def __init__(
        self, chain: Chain, sides: tuple[Node, Node], below: Collection[Node], join: Joiner, out: _Results
    ) -> None:
        self._chain = chain
        self._sides = sides
        self._below = below
        self._join = join
        self._out = out
        self._views: list[View] = []
        self._kept: list[tuple[RowsNode, InFlight]] = []
        self._told: list[int] = []
        """Of each kept table: the version that was sent on last."""

    def changed(self, key: Any, _value: Any, timestamp_ms: int) -> None:
        """Takes the changes of either side."""
        if not self._views:
            self._resolve()
        versions = [emit.version for _, emit in self._kept]
        told = self._told
        if versions == told:
            return
        known = {id(node): version for (node, _), version in zip(self._kept, told, strict=True)}
        emits = {id(node): emit for node, emit in self._kept}

        def seen(node: RowsNode, key: Any) -> Row:
            emit = emits[id(node)]
            if emit.flying == key and emit.version != known[id(node)]:
                return emit.replaced(), -1
            return node.sent(key)

        def made(seen: Seen) -> Made:
            def row(key: Any) -> Row:
                (left, left_ms), (right, right_ms) = (view(key, seen) for view in self._views)
                return self._join(left, right), max(left_ms, right_ms)

            return row

        self._told = versions
        self._out.change(key, made(seen), made(sent), timestamp_ms)

    def _resolve(self) -> None:
        chain = self._chain
        self._views = [view_of(chain, side) for side in self._sides]
        for node in self._below:
            state = chain.state_nodes[node.operator.stores[0].name]
            assert isinstance(state, RowsNode)
            assert isinstance(state.emit, InFlight)
            self._kept.append((state, state.emit))
        self._told = [0] * len(self._kept)
