"""A commit, for all tasks of a running app at once: what a restart takes for done.

The order is the guarantee. *Exactly once*: results, changelogs and the input offsets that stand for them are one
transaction, so whoever reads what is committed sees all of them or none. *At least once*: results are on disk before
changelogs, and these before the offsets. A crash in between runs those records again, and loses none: stores that are
ahead by then would not send again what they have let go of, so that was written first. State is written last, with the
changelog offset it stands for in the same write: a store never holds what was not committed, and is at most behind.

1. After `commit`, no cache is dirty, no hop holds a row, and the committed offsets are the tasks' positions.
2. If it raises, the stores hold nothing of it, or what the log has as committed; the process goes on from the last
   commit in the log (runner), or stops.
3. Between two commits the producer of an exactly-once app is always within a transaction, which is open for readers
   only from the first record that is sent in it.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tailrace.log.client import CommittedOffset, Delivery, Log, Producer
from tailrace.log.record import TopicPartition
from tailrace.state.store import ChangelogColumns, ChangelogRow, WriteSet
from tailrace.streams.chain.clocks import encode_clocks
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.markers import Said
from tailrace.streams.chain.outputs import Outputs
from tailrace.streams.task import Task, TaskStore


@dataclass(frozen=True, slots=True)
class Committer:
    """What a commit needs beside the tasks."""

    group: str
    log: Log
    producer: Producer
    outputs: Sequence[Outputs]
    failing: Callable[[Task], AbstractContextManager[None]]
    """Around what calls functions of the user: gives what they raise a place."""
    now_ms: Callable[[], int]
    """The wall clock."""
    entries_max: int
    """Entries that a store's cache may keep after a commit."""
    transactional: bool
    """Whether the producer writes in transactions: exactly once."""
    pause: Callable[[], None]
    """Called between the steps: somebody else may go first."""
    who: Callable[[], tuple[str, int]] | None = None
    """Member id and generation of the app in its group: raises ExpelledError where others run its tasks by now."""


def commit(tasks: Sequence[Task], to: Committer) -> None:
    """Commits what the tasks did since the last commit; returns when it is on disk.

    tasks come in the order of their sub-topologies: writers of a repartition before its readers.
    """
    now_ms = to.now_ms()  # by now nobody else has written to the changelogs: the commit checks that
    # 1. Caches and hops: everything that was held back goes on, down to the outputs and the changelogs.
    for task in tasks:
        with to.failing(task):
            task.flush()
            task.tell_time(flushed=True)
        to.pause()
    # 2. What the writers of repartitions say of their times, behind their rows; results and changelogs.
    _tell_times(tasks)
    member = None if to.who is None else to.who()
    for outputs in to.outputs:
        outputs.send()
        to.pause()
    if not to.transactional:
        to.producer.flush()
        # Once more: nothing takes back what is written over the rows of others, who have the tasks by now.
        member = None if to.who is None else to.who()
    changelogs: list[tuple[TaskStore, Delivery | None]] = []
    for task in tasks:
        changelogs += [(store, _send_changelog(store, to.producer)) for store in task.stores]
        to.pause()
    # 3. Input offsets, with the clocks that were theirs; then all of it is on disk.
    offsets = offsets_of(tasks)
    if to.transactional:
        to.producer.commit_offsets(to.group, offsets, member=member)
        to.producer.commit()
    else:
        to.producer.flush()
        to.log.commit_offsets(to.group, offsets)
    # 4. State, one write per task.
    for store, delivery in changelogs:
        if store.source is not None:
            store.stands_at_source()
        elif delivery is not None:
            store.changelog_end = delivery.result().offset + 1
    for task in tasks:
        writes = WriteSet()
        for store in task.stores:
            store.node.store.take_writes(writes, store.checkpoint(now_ms))
        if writes and task.context.backend is not None:
            task.context.backend.write(writes)
        for store in task.stores:
            store.node.store.evict(to.entries_max)
        to.pause()
    if to.transactional:
        to.producer.begin()


def offsets_of(tasks: Iterable[Task]) -> dict[TopicPartition, CommittedOffset]:
    """The tasks' positions, and their clocks as the offsets' metadata.

    A task behind repartitions in memory has no position of its own: its clocks stand at that partition of the
    repartition's topic, where that was read to the end when it had rows, or at offset 0.
    """
    offsets: dict[TopicPartition, CommittedOffset] = {}
    for task in tasks:
        for source in task.inputs:
            clock = source.metadata(task.context)
            offsets[source.partition] = CommittedOffset(source.position, source.leader_epoch, clock)
        for partition, position in task.repartitions.items():
            assert task.clocks is not None
            offsets[partition] = CommittedOffset(position, -1, encode_clocks(task.clocks.snapshot()))
    return offsets


def _tell_times(tasks: Iterable[Task]) -> None:
    """Has the repartitions that go through the log tell how far their writers are."""
    said: dict[LogHop, dict[int, Said]] = {}
    for task in tasks:
        for out in task.outgoing:
            if out.log is not None:
                said.setdefault(out.log, {})[task.id.partition] = task.say(out, out.log.sources)
    for hop, by_writer in said.items():
        hop.tell(by_writer)


def _send_changelog(store: TaskStore, producer: Producer) -> Delivery | None:
    rows = store.node.store.take_changelog()
    if not rows or store.source is not None:
        return None
    topic, partition = store.changelog
    keys, values, timestamps_ms = _by_column(rows)
    return producer.send_many(topic, values, keys=keys, timestamps_ms=timestamps_ms, partition=partition)


def _by_column(
    rows: list[ChangelogRow] | ChangelogColumns,
) -> tuple[Sequence[bytes], Sequence[bytes | None], Sequence[int]]:
    if isinstance(rows, ChangelogColumns):
        return rows.keys, rows.values, rows.timestamps_ms
    keys, values, timestamps_ms = zip(*rows, strict=True)
    return keys, values, timestamps_ms
