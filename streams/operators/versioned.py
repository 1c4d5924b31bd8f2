"""Versioned tables: as data, and at work. A row has a history, so what was true at a time can be looked up.

1. A change is judged by its own time: one that a newer version of the row follows already is passed on too, marked as
   superseded (`TaskContext.superseded`), and counts for nothing that stands for the newest rows (`newest_only`).
2. One that is older than the history, reckoned from its record's origin, goes no further: counted as "late".
3. No cache holds changes back: two versions of a row are no update of one another.

Not here: how versions are kept (state/versioned).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tailrace.state.store import Codec
from tailrace.state.versioned import VersionedStore
from tailrace.streams.chain.chain import Chain
from tailrace.streams.chain.clocks import NEVER
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.fold import Emitter, emitter, shown, snapshot
from tailrace.streams.operators.plain import RowsNode
from tailrace.streams.operators.table import TableSource
from tailrace.streams.program.kept_as import KeptAs, kept_as
from tailrace.streams.program.topology import Forward, KeptStore, Node
from tailrace.streams.values.codec import guarded
from tailrace.windows.duration import format_ms


@dataclass(frozen=True, kw_only=True)
class VersionedSource(TableSource):
    """The values of each key of a stream by their times: see the module's docstring."""

    versions: ClassVar[bool] = True

    history_ms: int
    """How far behind the newest record what was true can be looked up."""

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """Its store."""
        assert self.store_name is not None
        return (KeptStore(self.store_name, VersionedStore.layout),)

    @property
    def caches(self) -> bool:
        """Every version goes on at once."""
        return False

    @property
    def tolerated_ms(self) -> int:
        """Older versions than its history reaches back are refused."""
        return self.history_ms

    def kept_as(self, store: str) -> KeptAs:
        """Keys and values, in rows of versions."""
        del store
        return kept_as(self.key.codec, self.value.codec, rows="versioned")

    def facts(self) -> dict[str, Any]:
        """The history, and the codecs of its store."""
        return {"history": format_ms(self.history_ms)} | super().facts()


def versioned_source(node_of: Callable[[int], Node], node: Node) -> VersionedSource | None:
    """The versioned table that a table is, or is worked out from row by row."""
    while node.operator.row_by_row:
        node = node_of(node.parents[0].node)
    return node.operator if isinstance(node.operator, VersionedSource) else None


def build_versioned(chain: Chain, node: Node, operator: VersionedSource) -> Forward:
    """The link of a versioned table."""
    context, name = chain.context, operator.store_name
    assert name is not None
    value = guarded(
        operator.value.codec, f"a value of store {name!r}, made at {operator.place},", operator.value.advice
    )
    store = VersionedStore[Any, Any](
        name,
        chain.keyspace(name),
        operator.key.codec,
        value,
        history_ms=operator.history_ms,
        now=lambda: context.origin_ms,
    )
    emit = emitter(
        context,
        chain.output(node.id),
        value,
        old=chain.asked_for_old(node),
        in_flight=node.id in chain.in_flight,
    )
    table = chain.state_nodes[name] = VersionedTable(context, store, emit, value, operator.history_ms)
    return chain.known_as(node, table.process())


class VersionedTable(RowsNode):
    """A versioned table in one task."""

    def __init__(
        self,
        context: TaskContext,
        store: VersionedStore[Any, Any],
        emit: Emitter,
        codec: Codec[Any],
        history_ms: int,
    ) -> None:
        self.name = store.name
        self.store = store
        self._context = context
        self._emit = emit
        self._codec = codec
        self._history_ms = history_ms
        self._flushed_ms = NEVER

    @property
    def emit(self) -> Emitter:
        """See `RowsNode`."""
        return self._emit

    def sent(self, key: Any) -> tuple[Any, int]:
        """See `RowsNode`: the newest version."""
        version = self.store.newest(key)
        if version is None or version.value is None:
            return None, -1
        return shown(version.value, self._codec), version.from_ms

    @property
    def dirty(self) -> int:
        """How many versions wait for the next commit."""
        return self.store.dirty

    def resume(self, _stream_time_ms: int) -> None:
        """What is told depends on the record at hand."""

    def close_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return FAR

    def open_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return 0

    def flush(self, stream_time_ms: int) -> None:
        """Hands the versions over to the commit, and lets go of those past the history."""
        self.store.flush()
        # One flush later: what stands behind may yet look up records that came since the last one.
        self.store.expire(self._flushed_ms - self._history_ms)
        self._flushed_ms = stream_time_ms

    def process(self) -> Forward:
        """The function that takes the node's records."""
        context, store, codec, emit = self._context, self.store, self._codec, self._emit
        put, newest = store.put, store.newest
        encode = codec.encode if context.goes_on else None

        def versioned_link(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None:
                context.drop("null_key")
                return
            if encode is not None and value is not None:
                encode(value)
            before = newest(key) if emit.old else None
            old = None if before is None else emit.before(before.value)
            if not put(key, snapshot(value, codec), timestamp_ms):
                context.drop("late")
                return
            last = newest(key)
            context.superseded = last is not None and last.from_ms > timestamp_ms
            try:
                emit(key, value, timestamp_ms, old)
            finally:
                context.superseded = False

        return versioned_link
