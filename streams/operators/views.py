"""Rows of a table as those behind it know them: what joins of tables look up.

1. A view shows what was *sent*: while a cache holds a change back, the value before it. So what a join made of a row
   when it saw it last can be made again, and retractions add up.
2. A table that is worked out from others (filter, map, join) is worked out again for one row; only tables that keep
   their rows are read.
3. While a kept table sends a change on, that one is in flight: its version has grown, and the value before is at hand
   (fold.InFlight). Only tables that a join reads on both of its sides are asked for that.
4. What a view gives never shares a mutable value with a store.

Not here: tables at work (kept, plain), what joins make of the rows (joining_tables).
"""

from collections.abc import Callable
from typing import Any

from tailrace.log.errors import TopologyError
from tailrace.streams.chain.chain import Chain
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.plain import RowsNode
from tailrace.streams.operators.table import TableFilter, TableMap, TableNode
from tailrace.streams.operators.table_join import JoinKind, TableJoin
from tailrace.streams.program.topology import Node
from tailrace.streams.values.place import Place

Row = tuple[Any, int]
"""Value (None: there is none) and its time in ms, -1 where there is none."""

Seen = Callable[[RowsNode, Any], Row]
"""The row of a kept table, as somebody sees it."""

View = Callable[[Any, Seen], Row]
"""The row of a table, by key."""

Joiner = Callable[[Any, Any], Any]
"""(left value, right value), either of which may be None, to the result; None for none."""


def joiner(kind: JoinKind, f: Joiner) -> Joiner:
    """f, called only for the rows that a join has."""
    if kind == "inner":
        return lambda left, right: None if left is None or right is None else f(left, right)
    if kind == "left":
        return lambda left, right: None if left is None else f(left, right)
    return lambda left, right: None if left is None and right is None else f(left, right)


def sent(node: RowsNode, key: Any) -> Row:
    """The row as it was sent last, the change in flight included."""
    return node.sent(key)


def view_of(chain: Chain, node: Node) -> View:
    """The view of a table in one task; to be called when its chain is built."""
    operator = node.operator
    if operator.stores:
        state = chain.state_nodes[operator.stores[0].name]
        assert isinstance(state, RowsNode)
        kept = state
        return lambda key, seen: seen(kept, key)
    views = [view_of(chain, chain.node(parent.node)) for parent in node.parents]
    if isinstance(operator, TableFilter | TableMap):
        return _worked_out(views[0], operator.rule())
    assert isinstance(operator, TableJoin)
    return _joined(views[0], views[1], joiner(operator.join, operator.f))


def _worked_out(view: View, rule: Callable[[Any, Any], Any]) -> View:
    def derived_view(key: Any, seen: Seen) -> Row:
        value, time_ms = view(key, seen)
        return (None if value is None else rule(key, value)), time_ms

    return derived_view


def _joined(left: View, right: View, f: Joiner) -> View:
    def joined_view(key: Any, seen: Seen) -> Row:
        left_value, left_ms = left(key, seen)
        right_value, right_ms = right(key, seen)
        return f(left_value, right_value), max(left_ms, right_ms)

    return joined_view


def look_at(chain: Chain, table: Node) -> Callable[[Any], Row]:
    """What gives a row of a table as it was sent last; the table is built after what looks it up."""
    view: View | None = None

    def look(key: Any) -> Row:
        nonlocal view
        if view is None:
            view = view_of(chain, table)
        return view(key, sent)

    return look


# ---------------------------------------------------------------- which tables a view reads


def kept_below(node_of: Callable[[int], Node], node: Node, asking: Place) -> dict[int, Node]:
    """The kept tables that a table's view reads, by id.

    Raises:
        TopologyError: there is one whose rows cannot be looked up.
    """
    operator = node.operator
    if isinstance(operator, TableNode | Aggregate) and operator.stores and getattr(operator, "window", None) is None:
        return {node.id: node}
    if operator.stores or not isinstance(operator, TableFilter | TableMap | TableJoin):
        raise TopologyError(
            f"{node.name} at {node.place} keeps no rows that a join could look up, and it is joined at {asking}: keep "
            "them in between, with .map(lambda value: value, store=…)"
        )
    found: dict[int, Node] = {}
    for parent in node.parents:
        found |= kept_below(node_of, node_of(parent.node), asking)
    return found


def read_twice(chain: Chain, left: Node, right: Node, asking: Place) -> bool:
    """Whether one change of a kept table may show on both sides of a join."""
    return bool(
        kept_below(chain.node, left, asking).keys() & _upstream(chain, right)
        or kept_below(chain.node, right, asking).keys() & _upstream(chain, left)
    )


def _upstream(chain: Chain, node: Node) -> set[int]:
    """The node and what reaches it within its task."""
    found, waiting = set[int](), [node]
    while waiting:
        each = waiting.pop()
        if each.id not in found and each.operator.repartition is None:
            found.add(each.id)
            waiting += [chain.node(parent.node) for parent in each.parents if chain.has_parent(parent.node)]
    return found
