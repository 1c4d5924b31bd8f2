"""A table as it was: a store's changelog read up to an instant, into memory.

1. A changelog holds one entry for each key and commit, with its time. As of an instant is what the store held after the
   last commit before the first that has anything younger: a state that there was. Live that is some milliseconds
   before; of a backlog, as far as a commit reached.
2. A table without a changelog of its own is read from its topic: as it stood before the first record that is younger.
3. A changelog is compacted by and by: values that were overwritten are gone then. A key of which only younger entries
   are left, in a changelog that has gaps, may have been there: such keys are counted, not guessed.

Nothing is changed in the log. Not here: a table with a history of its own (`as_of` of versioned stores).
"""

import logging
from typing import Any, NamedTuple, cast

from tailrace.log.client import FetchedBatch, Log, Producer
from tailrace.log.clock import Clock
from tailrace.log.errors import InvalidError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.log.topic import near_names
from tailrace.state.changelog import Layout, unpack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.memory import MemoryBackend
from tailrace.streams.chain.backed import SourceReader
from tailrace.streams.chain.chain import Chain, children_of
from tailrace.streams.chain.context import Stored, TaskContext
from tailrace.streams.chain.failure import Nodes
from tailrace.streams.chain.global_rows import GlobalRows
from tailrace.streams.chain.hop import Hop
from tailrace.streams.chain.outputs import Outputs, OutputTopic
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.streams.planning.build import BUILDERS
from tailrace.streams.planning.query import view_of, windows_of
from tailrace.streams.planning.topics import StoreOf, stores_of
from tailrace.streams.program.store import Store
from tailrace.streams.program.topology import SubTopology, Topology, changelog_topic
from tailrace.windows.duration import format_instant

_logger = logging.getLogger(__name__)


class Past(NamedTuple):
    """A store as it was, and of how many keys nobody knows whether they were there."""

    store: Store[Any, Any]
    unknown: int


def store_as_of(topology: Topology, app: str, log: Log, clock: Clock, name: str, when_ms: int) -> Past:
    """Reads a store's changelog up to an instant.

    Raises:
        InvalidError: the program has no such store, or one that cannot be read from outside.
        TopologyError: its changelog is not there.
    """
    sub, store = _found(topology, app, name)
    changelog = changelog_topic(app, name)
    if changelog not in log.topics(internal=True):
        raise TopologyError(
            f"store {name!r} (at {store.of.place}) has no changelog {changelog} in this log: the app has not run yet"
        )
    if store.source is not None:
        changelog = store.source.name
    committed = log.committed(app)
    parts: list[Stored] = []
    unknown = 0
    for partition in sorted(log.offsets(changelog)):
        backend = MemoryBackend()
        if store.source is None:
            unknown += _read(ChangelogReader(log, partition), backend, name, store.layout, when_ms)
        else:
            reader = SourceReader(log, partition, committed.get(partition, 0))
            unknown += _read_source(reader, backend, name, store.layout, when_ms)
        parts.append(_open(topology, sub, name, partition, backend, log, clock))
    if unknown:
        _logger.warning(
            "store %s of app %s as of %s: of %d keys only younger values are left in %s, which was compacted since, so "
            "what they were then is not known",
            name,
            app,
            format_instant(when_ms),
            unknown,
            changelog,
        )
    return Past(view_of(name, parts, windows_of(topology).get(name)), unknown)


def _found(topology: Topology, app: str, name: str) -> tuple[SubTopology, StoreOf]:
    stores = {store.name: (sub, store) for sub in topology.subtopologies for store in stores_of(sub)}
    if name not in stores:
        raise InvalidError(f"app {app!r} has no store {name!r}{near_names(name, stores)}")
    return stores[name]


def _read(reader: ChangelogReader, backend: MemoryBackend, name: str, layout: Layout, when_ms: int) -> int:
    """Fills the store; returns of how many keys something is missing."""
    rows: dict[bytes, bytes | None] = {}
    pending: list[FetchedBatch] = []  # of a commit whose marker was not read yet
    seen: set[bytes | None] = set()
    younger: set[bytes | None] = set()
    over = gaps = marked = False
    at = 0

    def take() -> None:
        for batch in pending:
            layout.rows(batch.records, rows, 0)
            seen.update(record.key for record in batch.records)
        pending.clear()

    for batch in reader.batches(reader.start_offset):
        count = len(batch.records)
        # A marker is a batch without records of one offset.
        gaps |= batch.base_offset > at or (0 < count < batch.next_offset - batch.base_offset)
        at = batch.next_offset
        over = over or any(record.timestamp > when_ms for record in batch.records)
        if over:
            younger.update(record.key for record in batch.records)
        elif count:
            pending.append(batch)
        else:
            marked = True
            take()
    if over and marked:  # the commit that goes beyond is left out whole
        younger.update(record.key for batch in pending for record in batch.records)
        pending.clear()
    take()
    backend.ingest(name, {key: value for key, value in rows.items() if value is not None}, Checkpoint("", at, -1))
    return len(younger - seen) if gaps else 0


def _read_source(reader: SourceReader, backend: MemoryBackend, name: str, layout: Layout, when_ms: int) -> int:
    """The same of a store without a changelog, from the topic of its table: up to the first record that is younger."""
    rows: dict[bytes, bytes | None] = {}
    seen: set[bytes | None] = set()
    younger: set[bytes | None] = set()
    over = gaps = False
    at = 0
    for batch in reader.batches(reader.start_offset):
        for record in batch.records:
            gaps |= record.offset > at
            at = record.offset + 1
            row: dict[bytes, bytes | None] = {}
            layout.rows([record], row, 0)
            times = [record.timestamp if made is None else unpack_int64(made)[0] for made in row.values()]
            over = over or any(time_ms > when_ms for time_ms in times)
            (younger if over else seen).add(record.key)
            if not over:
                rows |= row
    backend.ingest(name, {key: value for key, value in rows.items() if value is not None}, Checkpoint("", at, -1))
    return len(younger - seen) if gaps else 0


def _open(
    topology: Topology,
    sub: SubTopology,
    name: str,
    partition: TopicPartition,
    backend: MemoryBackend,
    log: Log,
    clock: Clock,
) -> Stored:
    """The store's own object over its rows: made by the chain of its task, through which nothing is sent."""
    context = TaskContext(partition.partition, caching=False)
    context.backend = backend
    hops = {cut.id: Hop([]) for cut in sub.repartitions_written}
    nobody = cast("Producer", None)
    chain = Chain(
        BUILDERS,
        children_of(topology),
        context,
        hops,
        Outputs(nobody),
        lambda _topic, _place: OutputTopic(lambda: 1, False),
        clock,
        Nodes(),
    )
    rows = {table.name: GlobalRows(log, table, fails=False) for table in topology.global_tables}
    try:
        chain.global_rows = rows
        for node in (*sub.sources, *sub.repartitions_read):
            for output in node.operator.outputs:
                chain.output(node.id, output)
        return chain.state_nodes[name].store
    finally:
        for each in rows.values():
            each.close()
