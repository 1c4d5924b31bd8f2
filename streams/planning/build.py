"""Which function builds the link of which operation, and those of what goes in and out.

Operators that need no more than what is sent on have a method `build` instead. Not here: the order of building, and
what links there are (chain).
"""

from collections.abc import Callable
from typing import Any, Final

from tailrace.streams.chain.chain import Builder, Chain
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.aggregates import build_aggregate, build_cogroup
from tailrace.streams.operators.answering import build_result
from tailrace.streams.operators.cogroup import Cogroup
from tailrace.streams.operators.foreign import ForeignLookup, ForeignResult, Subscribe
from tailrace.streams.operators.global_join import GlobalJoin, build_global_join
from tailrace.streams.operators.holding import build_holding
from tailrace.streams.operators.join import StreamJoin
from tailrace.streams.operators.joining import build_join
from tailrace.streams.operators.joining_tables import build_table_join
from tailrace.streams.operators.kept import build_table
from tailrace.streams.operators.lookup import StreamTableJoin, build_lookup
from tailrace.streams.operators.own_stores import OwnStore, kept_store
from tailrace.streams.operators.process import Process
from tailrace.streams.operators.processor import RunningProcessor
from tailrace.streams.operators.retracting import build_table_aggregate, build_table_group
from tailrace.streams.operators.retraction import TableAggregate, TableGroup
from tailrace.streams.operators.subscribing import build_foreign_lookup, build_subscribe
from tailrace.streams.operators.suppress import SuppressUntilClose, SuppressUntilTime, ThrottleTable
from tailrace.streams.operators.table import TableFilter, TableMap, TableSource
from tailrace.streams.operators.table_join import TableJoin
from tailrace.streams.operators.versioned import VersionedSource, build_versioned
from tailrace.streams.operators.waiting import WaitingJoin, build_waiting
from tailrace.streams.program.io import Repartition, Sink, Source, Split
from tailrace.streams.program.results import chosen_topic, look_once
from tailrace.streams.program.store import DeclaredStore
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Forward, Node, Operator
from tailrace.streams.values.codec import guarded, windowed_form


def _sink(chain: Chain, node: Node, sink: Sink) -> Forward:
    if sink.topic is not None:
        return _sink_to(chain, node, sink, sink.topic)
    choose, opened = sink.choose, dict[str, Forward]()
    assert choose is not None

    def to_chosen(key: Any, value: Any, timestamp_ms: int) -> None:
        topic = choose(key, value)
        if topic.__class__ is not Topic:
            topic = chosen_topic(topic)
        to_topic = opened.get(topic.name)
        if to_topic is None:
            to_topic = opened[topic.name] = _sink_to(chain, node, sink, topic)
        to_topic(key, value, timestamp_ms)

    return to_chosen


def _sink_to(chain: Chain, node: Node, sink: Sink, topic: Topic[Any, Any]) -> Forward:
    key, value = sink.codecs(topic)
    encode_key = guarded(key, f"the key for topic {topic.name!r}, written at {sink.place},", sink.key.advice).encode
    what = f"the value for topic {topic.name!r}, written at {sink.place},"
    encode_value = guarded(value, what, sink.value.advice).encode
    encode_key, encode_value = chain.known_as(node, encode_key), chain.known_as(node, encode_value)
    written = chain.output_topic(topic, sink.place)
    form = windowed_form(key)
    if form is None:
        place = sink.place if written.compacted else None
        return chain.outputs.sink(chain.context, topic.name, encode_key, encode_value, place=place)
    return chain.outputs.windowed_sink(
        topic.name, written.partitions_now, form.inner.partition_bytes, encode_key, encode_value
    )


def _repartition(chain: Chain, node: Node, operator: Repartition) -> Forward:
    key, value = operator.key.told, operator.value
    hop = chain.hops[node.id]
    if isinstance(hop, LogHop):
        encode_key, encode_value = chain.known_as(node, key.encode), chain.known_as(node, value.told.encode)
        return hop.sink(chain.context, operator, encode_key, encode_value)
    to_reader = hop.sink(
        chain.context, key.partition_bytes, hashable=key.hashable, keeps_null_keys=operator.keeps_null_keys
    )
    return to_reader if value.trusted else _checking(chain.known_as(node, value.told.encode), to_reader)


def _checking(encode_value: Callable[[Any], bytes], forward: Forward) -> Forward:
    """A link that passes on the values that can be written, and raises for others, though nothing is written here."""
    look = look_once(encode_value)

    def checking_link(key: Any, value: Any, timestamp_ms: int) -> None:
        look(value)
        forward(key, value, timestamp_ms)

    return checking_link


def _split(chain: Chain, node: Node, operator: Split) -> Forward:
    return operator.route(lambda branch: chain.output(node.id, branch))


def _process(chain: Chain, node: Node, operator: Process) -> Forward:
    stores = {declared.name: _own_store(chain, declared) for declared in operator.own_stores}
    processor = RunningProcessor(chain.context, operator, chain.output(node.id), stores, chain.clock)
    chain.processors[node.id] = processor
    return processor.link()


def _own_store(chain: Chain, declared: DeclaredStore[Any, Any]) -> OwnStore:
    own = chain.state_nodes.get(declared.name)
    if own is None:
        where = f"of store {declared.name!r}, declared at {declared.place},"
        key = guarded(declared.key_codec, f"a key {where}")
        value = guarded(declared.value_codec, f"a value {where}")
        store = kept_store(declared, chain.keyspace(declared.name), key, value, chain.context)
        own = chain.state_nodes[declared.name] = OwnStore(chain.context, declared, store)
    assert isinstance(own, OwnStore)
    return own


BUILDERS: Final[dict[type[Operator], Builder]] = {
    Sink: _sink,
    Repartition: _repartition,
    Split: _split,
    Process: _process,
    Aggregate: build_aggregate,
    Cogroup: build_cogroup,
    StreamJoin: build_join,
    TableSource: build_table,
    VersionedSource: build_versioned,
    TableFilter: build_table,
    TableMap: build_table,
    TableJoin: build_table_join,
    Subscribe: build_subscribe,
    ForeignLookup: build_foreign_lookup,
    ForeignResult: build_result,
    SuppressUntilClose: build_holding,
    SuppressUntilTime: build_holding,
    ThrottleTable: build_holding,
    TableGroup: build_table_group,
    TableAggregate: build_table_aggregate,
    StreamTableJoin: build_lookup,
    GlobalJoin: build_global_join,
    WaitingJoin: build_waiting,
}


def functions_of(operator: Operator) -> list[Callable[..., Any]]:
    """The functions of the user that an operator calls: to find the node when one raises."""
    names = ("f", "add", "remove", "zero", "merge", "choose", "factory", "on")
    found = [getattr(operator, name, None) for name in names]
    if isinstance(operator, Source):
        found.append(operator.topic.timestamp)
    if isinstance(operator, Aggregate) and operator.reduced is not None:
        found += operator.reduced.functions
    if isinstance(operator, Cogroup):
        found += operator.adds
    if isinstance(operator, Split):
        found += operator.branches.values()
    return [function for function in found if callable(function)]
