"""A stream that looks up a table: each record of the stream is joined with the row of its key, as it is then.

1. Only the stream brings results about; a result has the record's key, time and headers. None of `f` is a null value.
2. In a versioned table that is what was true at the record's time. In any other one it is the newest value, whether or
   not a cache has sent it on. A table that is worked out from another one (filter, map) is worked out for the one row.
   So results do not depend on the cache.
3. A null value is dropped ("null_value"). A null key has no row: an inner join drops it ("null_key"), a left one passes
   it on with None.
4. What the function is given never shares a mutable value with the table's store.

Not here: tables at work (kept, aggregates).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tailrace.log.errors import TopologyError
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session import SessionStore
from tailrace.state.versioned import VersionedStore
from tailrace.state.window import WindowStore
from tailrace.streams.chain.chain import Chain, Sides, nowhere
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.fold import shown
from tailrace.streams.operators.retraction import TableAggregate
from tailrace.streams.operators.table import TableFilter, TableMap, TableNode
from tailrace.streams.operators.table_join import TableJoin
from tailrace.streams.operators.views import joiner
from tailrace.streams.program.topology import Forward, Node, Operator
from tailrace.streams.values.derived import Slot, same_keys
from tailrace.streams.values.place import Place, function_name

Look = Callable[[Any, int], Any]
"""(key, time in ms) to the value of that row, None where there is none: a value that nobody else has."""


@dataclass(frozen=True, kw_only=True)
class StreamTableJoin(Operator):
    """f(value, the table's value) for each record of its first parent, the stream; its second one is the table.

    A record whose key is not in the table goes no further, or with `left` is joined with None.
    """

    f: Callable[[Any, Any], Any]
    left: bool
    key: Slot
    table_key: Slot
    table_place: Place

    def check(self, inputs: int) -> None:
        """Keys that are written differently never meet."""
        del inputs
        same_keys(self.key, self.table_key, f"the stream joined at {self.place}", f"its table, of {self.table_place},")

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"function": function_name(self.f)} | ({"left": True} if self.left else {})


def build_lookup(chain: Chain, node: Node, operator: StreamTableJoin) -> Sides:
    """The links of a join: of the stream, and of the table, whose changes bring nothing about."""
    return Sides((join_link(chain, node, operator), nowhere))


def join_link(chain: Chain, node: Node, operator: StreamTableJoin) -> Forward:
    """What joins a record with the row that is there when it is called."""
    context, forward, f, left = chain.context, chain.output(node.id), operator.f, operator.left
    _check_rows(chain, chain.node(node.parents[1].node), operator)
    look: Look | None = None

    def lookup_link(key: Any, value: Any, timestamp_ms: int) -> None:
        nonlocal look
        if value is None:
            context.drop("null_value")
            return
        if key is None:
            if left:
                forward(key, f(value, None), timestamp_ms)
            else:
                context.drop("null_key")
            return
        if look is None:
            # Not before: a chain is built from its ends, and the table stands ahead of this.
            look = reader(chain, chain.node(node.parents[1].node))
        found = look(key, timestamp_ms)
        if found is not None or left:
            forward(key, f(value, found), timestamp_ms)

    return lookup_link


# ---------------------------------------------------------------- rows of a table


def reader(chain: Chain, table: Node) -> Look:
    """What reads single rows of a table in one task, once its chain is built."""
    operator, caching = table.operator, chain.context.caching
    # Also where it is kept: behind a cache its store has what the last commit sent on.
    if isinstance(operator, TableFilter | TableMap) and (operator.store_name is None or caching):
        return _worked_out(operator.rule(), reader(chain, chain.node(table.parents[0].node)))
    if isinstance(operator, TableJoin) and (operator.store_name is None or caching):
        left, right = (reader(chain, chain.node(parent.node)) for parent in table.parents)
        join = joiner(operator.join, operator.f)
        return lambda key, time_ms: join(left(key, time_ms), right(key, time_ms))
    store = chain.state_nodes[operator.stores[0].name].store
    return _LOOKS[type(store)](store)


def _check_rows(chain: Chain, table: Node, asking: Operator) -> None:
    """Makes sure that a table has rows to look up.

    Raises:
        TopologyError: it sends changes and keeps none of them, as one that is suppressed.
    """
    operator = table.operator
    if isinstance(operator, TableFilter | TableMap | TableJoin):
        for parent in table.parents:
            _check_rows(chain, chain.node(parent.node), asking)
    elif not isinstance(operator, TableNode | Aggregate | TableAggregate):
        raise TopologyError(
            f"{table.name} at {table.place} keeps no rows that {asking.name} at {asking.place} could look up: keep "
            "them in between, with .to_stream().to_table(store=…)"
        )


def _worked_out(rule: Callable[[Any, Any], Any], look: Look) -> Look:
    def derived_look(key: Any, timestamp_ms: int) -> Any:
        value = look(key, timestamp_ms)
        return None if value is None else rule(key, value)

    return derived_look


def _plain(store: KeyValueStore[Any, Any]) -> Look:
    entries, load, codec = store.entries, store.load, store.value_codec
    cache_key = None if store.hashable else store.cache_key

    def look(key: Any, _time_ms: int) -> Any:
        if cache_key is not None:
            key = cache_key(key)
        entry = entries.get(key)
        if entry is None:
            entry = load(key)
        value = entry.value
        return value if value is None or value.__class__ is str else shown(value, codec)

    return look


def _windowed(store: WindowStore[Any, Any]) -> Look:
    return lambda key, _time_ms: shown(store.get(key.start_ms, key.key), store.value_codec)


def _spanned(store: SessionStore[Any, Any]) -> Look:
    return lambda key, _time_ms: shown(store.get(key.key, key.start_ms, key.end_ms), store.value_codec)


def _as_of(store: VersionedStore[Any, Any]) -> Look:
    def look_back(key: Any, time_ms: int) -> Any:
        found = store.as_of(key, time_ms)
        return None if found is None else shown(found[0], store.value_codec)

    return look_back


_LOOKS: Final[dict[type, Callable[[Any], Look]]] = {
    KeyValueStore: _plain,
    WindowStore: _windowed,
    SessionStore: _spanned,
    VersionedStore: _as_of,
}
