"""Whether the stores of tasks hold what was committed: neither more nor less.

1. The rows of a store are those of the committed records of its changelog below the offset that stands in the store;
   where one is not, it is what a committed record behind that says.
2. Where a task has just begun, there is none behind that.

What has expired is left out. Not here: what stands in a changelog (that the results are right says it).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

from tailrace.log.client import Log
from tailrace.state.changelog import Layout, WindowLayout, unpack_int64
from tailrace.state.session_rows import INDEX, SessionLayout, indexed, row_bounds
from tailrace.state.store import ROWS
from tailrace.state.versioned import VersionedLayout
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.streams.task import Task, TaskStore
from tailrace.tests.simulation.model import Violation

_FAR = 1 << 63


def check_stores(log: Log, tasks: Iterable[Task], *, begun: bool = False) -> None:
    """See the head of this file; `begun`: the tasks have just begun. Raises Violation."""
    for task in tasks:
        for store in task.stores:
            wrong = _wrong(log, task, store, begun=begun)
            if wrong:
                raise Violation(f"store {store.node.name} of task {task.id}: {wrong}")


def _wrong(log: Log, task: Task, store: TaskStore, *, begun: bool) -> str | None:
    assert task.context.backend is not None
    keyspace, kept = task.context.backend.keyspace(store.node.name), cast("Any", store.node.store)
    checkpoint, changelog = keyspace.checkpoint(), ChangelogReader(log, store.changelog)
    offset = _FAR if begun else 0 if checkpoint is None else checkpoint.offset
    committed, later = _folded(kept.layout, changelog, offset)
    bound = store.expired_before_ms(task.context.stream_time_ms)
    rows = dict(keyspace.range(ROWS, None))
    for key in rows.keys() | committed.keys():
        if _time_of(kept.layout, key) >= bound and rows.get(key) not in {committed.get(key), *later[key]}:
            return f"{key!r} is {rows.get(key)!r}, and {committed.get(key)!r} in {changelog} below {offset}"
    return None


def _folded(
    layout: Layout, changelog: ChangelogReader, offset: int
) -> tuple[dict[bytes, bytes | None], dict[bytes, set[bytes | None]]]:
    """The rows of what is below an offset, and what the records behind it make of them."""
    rows, later = dict[bytes, bytes | None](), defaultdict[bytes, set[bytes | None]](set)
    for batch in changelog.batches(changelog.start_offset):
        for record in batch.records:
            into = dict[bytes, bytes | None]() if record.offset >= offset else rows
            layout.rows([record], into, 0)
            for key, value in into.items() if into is not rows else ():
                later[key].add(value)
    return rows, later


def _time_of(layout: Layout, key: bytes) -> int:
    """What a row is kept by; -1: it is not compared."""
    if isinstance(layout, WindowLayout):
        return cast("int", unpack_int64(key, 1)[0])
    if isinstance(layout, SessionLayout):
        end_ms, start_ms = indexed(key)[:2] if key.startswith(INDEX) else row_bounds(key)
        return end_ms if layout.difference_ms is None else start_ms
    if isinstance(layout, VersionedLayout) and key.startswith(INDEX):
        return -1  # goes with what it says, which the changelog is not told of
    return _FAR
