"""A stream that looks up a global table, by a key that a function finds in each record: as data, and at work.

1. Only the stream brings results about: with the record's key, time and headers. The table is what the process has read
   of it by then; its times count for nothing.
2. A null value is dropped ("null_value"). Where the function returns None there is no row: an inner join drops the
   record ("null_key"), a left one passes it on with None. The record's own key may be null.

Not here: how the table is read (global_rows).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace.streams.chain.chain import Chain
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.topology import Forward, Node, Operator
from tailrace.streams.values.codec import guarded
from tailrace.streams.values.place import function_name


@dataclass(frozen=True, kw_only=True)
class GlobalJoin(Operator):
    """f(value, the row of key on(key, value)) for each record; without a row nothing, or with `left` f(value, None)."""

    table: GlobalTable[Any, Any]
    f: Callable[[Any, Any], Any]
    on: Callable[[Any, Any], Any]
    left: bool

    def facts(self) -> dict[str, Any]:
        """The table, and the functions' names."""
        facts = {"global_table": self.table.name, "of_topic": self.table.topic.name}
        facts |= {"function": function_name(self.f), "on": function_name(self.on)}
        return facts | ({"left": True} if self.left else {})


def build_global_join(chain: Chain, node: Node, operator: GlobalJoin) -> Forward:
    """The link of a join with a global table."""
    context, forward, f, on, left = chain.context, chain.output(node.id), operator.f, operator.on, operator.left
    topic, rows = operator.table.topic, chain.global_rows[operator.table.name].rows
    told = f"the key that on= of {operator.name} at {operator.place} returned"
    keys = guarded(topic.key_codec, told, f"; the keys of topic {topic.name!r} are wanted")
    encode, decode = chain.known_as(node, keys.encode), topic.value_codec.decode

    def global_link(key: Any, value: Any, timestamp_ms: int) -> None:
        if value is None:
            context.drop("null_value")
            return
        wanted = on(key, value)
        if wanted is None and not left:
            context.drop("null_key")
            return
        data = None if wanted is None else rows.get(encode(wanted))
        if data is not None:
            forward(key, f(value, decode(data)), timestamp_ms)
        elif left:
            forward(key, f(value, None), timestamp_ms)

    return global_link
