"""Builds aggregates: from what the program says of one to the store, the fold and the node that runs them."""

from typing import Any

from tailrace.log.errors import TopologyError
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session import SessionStore
from tailrace.state.window import WindowStore
from tailrace.streams.chain.chain import Chain, Sides
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.aligned import AlignedAggregate
from tailrace.streams.operators.by_key import AlignedSpans, ByKey
from tailrace.streams.operators.cogroup import Cogroup, cogroup_fold, late_of_sides, side_of
from tailrace.streams.operators.fold import Fold, Ways, aggregate_fold, careful_fold, count_fold, emitter, reduce_fold
from tailrace.streams.operators.plain import Beside, PlainAggregate
from tailrace.streams.operators.session import (
    Join,
    SessionAggregate,
    aggregate_join,
    careful_join,
    count_join,
    reduce_join,
)
from tailrace.streams.operators.sliding import SlidingAggregate
from tailrace.streams.operators.spans import SpanAggregate
from tailrace.streams.operators.suppress import SuppressUntilClose, passes_windows
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import TypeCodec, codec_of, guarded
from tailrace.windows.session import SessionWindow
from tailrace.windows.sliding import SlidingWindow
from tailrace.windows.window import AlignedWindow


def build_aggregate(chain: Chain, node: Node, operator: Aggregate) -> Forward:
    """The link of an aggregate, windowed or not."""
    context, key, value = chain.context, operator.key.codec, guarded_value(operator)
    name, keyspace, window = operator.store_name, chain.keyspace(operator.store_name), operator.window
    careful = context.goes_on and operator.function != "count"
    fold = chain.known_as(node, careful_fold(fold_of(operator), value)) if careful else fold_of(operator)
    late = chain.output(node.id, "late")
    if isinstance(operator, Cogroup):
        late = late_of_sides(late)
    forward = chain.output(node.id)
    emit = emitter(context, forward, value, old=chain.asked_for_old(node), in_flight=node.id in chain.in_flight)
    running: PlainAggregate | AlignedAggregate | SessionAggregate | SlidingAggregate
    if window is None:
        running = PlainAggregate(context, KeyValueStore(name, keyspace, key, value), fold, emit)
    else:
        retention_ms = operator.retention_ms or window.retention_ms
        ways = Ways(fold, emit, late, operator.emit == "close", retention_ms)
        if operator.clock == "key":
            return _by_key(chain, operator, value, ways, careful=careful)
        if isinstance(window, AlignedWindow):
            running = AlignedAggregate(context, WindowStore(name, keyspace, key, value), window, ways)
        elif isinstance(window, SessionWindow):
            sessions = SessionStore[Any, Any](name, keyspace, key, value)
            join = careful_join(_join(operator), value) if careful else _join(operator)
            final = ways.on_close or _closed_behind(chain, node)
            running = SessionAggregate(context, sessions, window, ways, join, final=final)
        elif isinstance(window, SlidingWindow):
            spans = SessionStore[Any, Any](name, keyspace, key, value, difference_ms=window.difference_ms)
            running = SlidingAggregate(context, spans, window, ways, value)
        else:
            raise TopologyError(f"{window} at {operator.place} is no window that can be aggregated")
    chain.state_nodes[name] = running
    link = running.process()
    together = running.together() if isinstance(running, AlignedAggregate) else None
    if together is not None:
        chain.together[link] = together
    return link


def _by_key(chain: Chain, operator: Aggregate, value: TypeCodec, ways: Ways, *, careful: bool) -> Forward:
    """The link of an aggregate in windows that go by the clock of each key."""
    context, key, window, name = chain.context, operator.key.codec, operator.window, operator.store_name
    length_ms = None if isinstance(window, SessionWindow) else operator.length_ms
    store = SessionStore[Any, Any](name, chain.keyspace(name), key, value, difference_ms=length_ms)

    def make(ways: Ways) -> SpanAggregate:
        if isinstance(window, AlignedWindow):
            return AlignedSpans(context, store, window, ways)
        if isinstance(window, SlidingWindow):
            return SlidingAggregate(context, store, window, ways, value)
        assert isinstance(window, SessionWindow)
        join = careful_join(_join(operator), value) if careful else _join(operator)
        return SessionAggregate(context, store, window, ways, join, final=ways.on_close)

    clocks_name = operator.clocks_name
    clocks = KeyValueStore[Any, int](clocks_name, chain.keyspace(clocks_name), key, codec_of(int))
    running = chain.state_nodes[name] = ByKey(context, clocks, ways, make)
    chain.state_nodes[clocks_name] = Beside(clocks)
    return running.process()


def build_cogroup(chain: Chain, node: Node, operator: Cogroup) -> Sides:
    """The links of an aggregate of several streams."""
    aggregate = build_aggregate(chain, node, operator)
    return Sides(tuple(side_of(aggregate, add) for add in operator.adds))


def _closed_behind(chain: Chain, node: Node) -> bool:
    """Whether a suppress behind a table makes results of its windows final."""
    return any(
        isinstance(child.operator, SuppressUntilClose)
        or (passes_windows(child.operator) and _closed_behind(chain, child))
        for child in chain.behind(node)
    )


def guarded_value(operator: Aggregate) -> TypeCodec:
    """The codec of the results; one that the user's function got wrong is told with the store and the line."""
    if operator.function in {"count", "agg"}:  # ours, and one that tells of itself
        return operator.stored
    what = f"what {operator.function}(store={operator.store_name!r}) at {operator.place} returned"
    if operator.function == "reduce":
        # Its results are of the type that its values have.
        return guarded(
            operator.stored, what, f"; mend the function, or the values that it is given{operator.value.advice}"
        )
    return guarded(operator.stored, what, "; mend the function, or say what it returns with value=")


def fold_of(operator: Aggregate) -> Fold:
    """How a value is folded in."""
    if operator.function == "count":
        return count_fold
    if operator.reduced is not None:
        return operator.reduced.fold
    if isinstance(operator, Cogroup):
        assert operator.zero is not None
        return cogroup_fold(operator.zero)
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
