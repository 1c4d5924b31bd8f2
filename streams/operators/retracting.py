"""Grouped tables at work: how rows get to their groups, and how a group's value follows them.

1. A group has been given exactly the rows whose change was sent to it last: each row is taken from the group it was in
   before it is added to another one.
2. A group without a value has nothing to remove from: it begins anew with the next row that comes. One whose rows have
   all gone keeps what is left (a count of 0).
3. A result's time is the largest time of the rows that came or went.

Where the app goes on after errors: a row for which the grouping function raises is in no group, and leaves the one that
it was in; an `add` or `remove` that raises changes nothing, and the other of the two still happens.
"""

import operator as python
from collections.abc import Callable
from typing import Any

from tailrace.state.keyvalue import KeyValueStore
from tailrace.streams.chain.chain import Chain
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.aggregates import fold_of, guarded_value
from tailrace.streams.operators.fold import Emitter, Fold, careful_fold, emitter, snapshot
from tailrace.streams.operators.plain import KeyValueNode
from tailrace.streams.operators.retraction import Replaced, TableAggregate, TableGroup
from tailrace.streams.program.results import look_once, pair
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import TypeCodec
from tailrace.streams.values.derived import key_check

_Pair = tuple[Any, Any]


def build_table_group(chain: Chain, node: Node, operator: TableGroup) -> Forward:
    """The link of a regrouping: a change of a row to what one or two groups gain and lose."""
    context, forward = chain.context, chain.output(node.id)
    group, same = _group(chain, node, operator), _same_key(operator.key.codec)

    def send(was: _Pair | None, now: _Pair | None, timestamp_ms: int) -> None:
        if was is None:
            if now is not None:
                forward(now[0], Replaced(now[1], None), timestamp_ms)
        elif now is None:
            forward(was[0], Replaced(None, was[1]), timestamp_ms)
        elif same(was[0], now[0]):
            forward(now[0], Replaced(now[1], was[1]), timestamp_ms)
        else:
            forward(was[0], Replaced(None, was[1]), timestamp_ms)
            forward(now[0], Replaced(now[1], None), timestamp_ms)

    def group_link(key: Any, value: Any, timestamp_ms: int) -> None:
        old = context.old
        send(None if old is None else group(key, old), None if value is None else group(key, value), timestamp_ms)

    def going_on_link(key: Any, value: Any, timestamp_ms: int) -> None:
        old = context.old
        try:
            was = None if old is None else group(key, old)
        except Exception:  # noqa: BLE001 - dealt with when the value was new: the row is in no group
            was = None
        try:
            now = None if value is None else group(key, value)
        except Exception:
            send(was, None, timestamp_ms)
            raise
        send(was, now, timestamp_ms)

    return going_on_link if context.goes_on else group_link


def _group(chain: Chain, node: Node, operator: TableGroup) -> Callable[[Any, Any], _Pair | None]:
    """(key, value) to the group's key and the value for it; None where a row is in no group."""
    f = operator.f
    plain, check = key_check(operator.key, operator.place)
    value = operator.value
    look = None if value.trusted else look_once(chain.known_as(node, value.told.encode))

    def group(key: Any, value: Any) -> _Pair | None:
        made = f(key, value)
        if made is None:
            return None
        if made.__class__ is not tuple or len(made) != 2:
            made = pair(made)
        new_key, new_value = made
        if new_key is None or new_value is None:
            return None
        if new_key.__class__ is not plain and plain is not None:
            new_key = check(new_key)
        if look is not None:
            look(new_value)
        return new_key, new_value

    return group


def _same_key(codec: TypeCodec) -> Callable[[Any, Any], bool]:
    """Whether two keys are one: by their bytes, where a dict could not tell."""
    if codec.hashable:
        return python.eq
    encode = codec.encode
    return lambda one, other: encode(one) == encode(other)


def build_table_aggregate(chain: Chain, node: Node, operator: TableAggregate) -> Forward:
    """The link of a grouped table's aggregate."""
    context, name, value = chain.context, operator.store_name, guarded_value(operator)
    store = KeyValueStore[Any, Any](name, chain.keyspace(name), operator.key.codec, value)
    add, remove = fold_of(operator), _remove_of(operator)
    if context.goes_on and operator.function != "count":
        add = _going_on(context, chain.known_as(node, careful_fold(add, value)))
        remove = _going_on(context, chain.known_as(node, careful_fold(remove, value)))
    forward = chain.output(node.id)
    emit = emitter(context, forward, value, old=chain.asked_for_old(node), in_flight=node.id in chain.in_flight)
    running = chain.state_nodes[name] = RetractingAggregate(context, store, add, remove, emit)
    return running.process()


def _remove_of(operator: TableAggregate) -> Fold:
    if operator.function == "count":
        return lambda total, _value: total - 1
    if operator.reduced is not None:
        return operator.reduced.remove
    remove, codec = operator.remove, operator.value.codec
    assert remove is not None
    f = remove

    def fold(so_far: Any, value: Any) -> Any:
        result = f(so_far, value)
        return snapshot(value, codec) if result is value else result

    return fold


def _going_on(context: TaskContext, fold: Fold) -> Fold:
    """The fold, for apps that go on: what raises is told of, and nothing has changed."""

    def going_on(so_far: Any, value: Any) -> Any:
        try:
            return fold(so_far, value)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            context.failed(error)
            return so_far

    return going_on


class RetractingAggregate(KeyValueNode):
    """An aggregate of a grouped table in one task."""

    def __init__(
        self, context: TaskContext, store: KeyValueStore[Any, Any], add: Fold, remove: Fold, emit: Emitter
    ) -> None:
        super().__init__(context, store, emit)
        self._add = add
        self._remove = remove

    def process(self) -> Forward:
        """The function that takes the groups' changes."""
        store, add, remove, emit = self.store, self._add, self._remove, self._emit
        entries, load, touch = store.entries, store.load, store.touch
        cache_key = None if store.hashable else store.cache_key
        caching = self._context.caching

        def process(key: Any, replaced: Replaced, timestamp_ms: int) -> None:
            cached = key if cache_key is None else cache_key(key)
            entry = entries.get(cached)
            if entry is None:
                entry = load(cached)
            so_far = entry.value
            before = None if caching else emit.before(so_far)
            new, old = replaced
            value = so_far
            if old is not None and value is not None:
                value = remove(value, old)
            if new is not None:
                value = add(value, new)
            if value is None and so_far is None:
                return
            entry.value = value
            if so_far is None or timestamp_ms > entry.timestamp_ms:
                entry.timestamp_ms = timestamp_ms
            if not entry.dirty:
                touch(cached, entry)
            if not caching:
                emit(key, value, entry.timestamp_ms, before)

        return process
