"""Bring a store up to the end of its changelog, from the checkpoint inside it.

1. A store whose checkpoint does not fit the changelog is emptied and read from the beginning, once, with a warning that
   names the store and the reason; one that fits reads only what came after.
2. Rows and the checkpoint they stand for are written together, so a restore that is broken off goes on where it was.
3. Compaction forgets deletions after a time. A store that has been away for about as long, while somebody else wrote to
   the changelog, is read from the beginning: else it would keep what was deleted.

Not here: where the changelog comes from (streams gives a `Changelog` over the log's consumer), nor how far it may be
read (to the last stable offset: what was not committed is not in the batches).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Protocol

from tailrace.log.record import RawRecord
from tailrace.state.changelog import Layout
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import RESERVED, Backend, Keyspace

_logger = logging.getLogger("tailrace.state")

# The newest values of a piece of the changelog are written together, sorted: updates of one key once. So many rows stay
# within reach of a processor's caches. Measured, per record of a million keys in no order: 0.70 µs in pieces of 64,000
# rows, 1.03 of 250,000.
PIECE_ROWS = 64_000
# Where records of a piece repeat its keys, a larger one saves more than the caches do: so far as memory goes.
PIECE_BYTES = 64 << 20
_REPEATING = 1.25  # records for each row
# So many records of such a piece wait as bytes, to be walked from the newest on. None of them may repeat but those that
# were looked at: then they are as many rows.
WAITING_RECORDS = 1_000_000
# A row in a dict, besides its value: two bytes objects and their slot.
_ROW_BYTES = 250

Progress = Callable[[int, int], None]
"""Called with the offsets read so far and those to read in all."""


class ChangelogBatch(Protocol):
    """The part of a fetched batch that restoring reads."""

    @property
    def base_offset(self) -> int:
        """Where it begins, or where it is read from."""
        ...

    @property
    def next_offset(self) -> int:
        """Where the next batch begins."""
        ...

    @property
    def control(self) -> bool:
        """Whether it is a marker of a transaction."""
        ...

    @property
    def leader_epoch(self) -> int:
        """The epoch in which the batch was written."""
        ...

    @property
    def records(self) -> Sequence[RawRecord]:
        """Its records from the position on, without control records; each walk may make them anew."""
        ...


class Changelog(Protocol):
    """One partition of a changelog topic, as far as it may be read now."""

    @property
    def topic_id(self) -> str:
        """The topic's id: another one means that the topic was deleted and made again."""
        ...

    @property
    def start_offset(self) -> int:
        """The log start offset."""
        ...

    @property
    def end_offset(self) -> int:
        """Where restoring ends: every offset below it is committed or aborted."""
        ...

    def epoch_end(self, leader_epoch: int, /) -> int:
        """The first offset written after `leader_epoch`; the end of the log if it is the newest epoch."""
        ...

    def batches(self, offset: int, /) -> Iterator[ChangelogBatch]:
        """Batches from `offset` to `end_offset`."""
        ...


@dataclass(frozen=True, slots=True)
class Restored:
    """What restoring a store did: how many records it read, and why the store was rebuilt (None: it was not)."""

    records: int
    rebuilt: str | None


def restore(
    backend: Backend,
    name: str,
    layout: Layout,
    changelog: Changelog,
    *,
    now_ms: int = 0,
    deletions_kept_ms: int | None = None,
    expire_before_ms: int = 0,
    progress: Progress | None = None,
) -> Restored:
    """Apply to the store `name` what its changelog holds beyond the store's checkpoint.

    `layout` is that of the store's class; windows before `expire_before_ms` are left out. `now_ms` is the wall clock,
    and `deletions_kept_ms` how long the changelog has deletions at least (None: for ever). To be called before the
    store object is made, or followed by its `discard`.
    """
    keyspace = backend.keyspace(name)
    checkpoint = keyspace.checkpoint()
    if checkpoint is None:
        reason = _leftover(keyspace)
    else:
        reason = misfit(checkpoint, changelog) or _too_old(checkpoint, changelog, now_ms, deletions_kept_ms)
    if reason is not None:
        _logger.warning("store %s is rebuilt from its changelog %s: %s", name, changelog, reason)
        keyspace.clear()
        checkpoint = None
    begin = max(checkpoint.offset if checkpoint else 0, changelog.start_offset)
    total = max(changelog.end_offset - begin, 0)
    if progress is not None:
        progress(0, total)
    records, next_offset = 0, begin
    leader_epoch = checkpoint.leader_epoch if checkpoint else -1
    piece, stands_for = _Piece(layout, expire_before_ms, repeats=layout.last_decides), begin if checkpoint else None
    # Until the end is reached, what follows is as old as the store was; one from nothing is as it is read from now on.
    as_of_ms = checkpoint.written_ms if checkpoint else now_ms
    for batch in changelog.batches(begin) if total else ():
        piece.add(batch.records)
        records += len(batch.records)
        next_offset, leader_epoch = batch.next_offset, batch.leader_epoch
        if piece.full:
            backend.ingest(name, piece.rows(), Checkpoint(changelog.topic_id, next_offset, leader_epoch, as_of_ms))
            piece, stands_for = piece.following(), next_offset
            if progress is not None:
                progress(next_offset - begin, total)
    # Offset and epoch are those of a batch that was read: an offset past the end of its epoch would mean a rebuild.
    if stands_for is None or next_offset > stands_for:
        backend.ingest(name, piece.rows(), Checkpoint(changelog.topic_id, next_offset, leader_epoch, now_ms))
    if progress is not None:
        progress(total, total)
    return Restored(records, reason)


class _Piece:
    """Rows that are written together: the last value of each key.

    Batches wait as bytes until the piece is full. Where keys repeat, most records are superseded by later ones, and to
    find that out costs less than a row for each: batches are walked from the newest to the oldest, first for their keys
    alone. As a set, those of a batch are asked which are not known yet, and only these become rows. Measured, per
    record with ten of a key: half of what a row for each takes. A row of a dictionary costs four cache misses,
    one after the other; the difference of two sets looks for several keys at once.
    """

    __slots__ = ("_expire_before_ms", "_held", "_layout", "_records", "_repeats", "_waiting")

    def __init__(self, layout: Layout, expire_before_ms: int, *, repeats: bool) -> None:
        """`repeats`: whether keys are thought to repeat, so that it pays (and is right) to take the last records alone.

        It is looked at once the piece has some records.
        """
        self._layout = layout
        self._expire_before_ms = expire_before_ms
        self._repeats = repeats
        self._held = 0
        self._records = 0
        self._waiting: list[Sequence[RawRecord]] = []

    def add(self, records: Sequence[RawRecord]) -> None:
        """Adds a batch."""
        count, first = len(records), next(iter(records), None)
        if first is None:
            return
        looked_at = self._records >= PIECE_ROWS
        self._waiting.append(records)
        self._records += count
        # What records weigh is judged by one of each batch: exact is as dear as reading them.
        row = 0 if looked_at else _ROW_BYTES
        self._held += count * (len(first.key or b"") + len(first.value or b"") + row)
        if self._repeats and not looked_at and self._records >= PIECE_ROWS:
            keys = set[bytes | None]()
            for each in self._waiting:
                keys.update(map(_key, each))
            self._repeats = self._are_repeated(len(keys))

    @property
    def full(self) -> bool:
        """Whether it is to be written."""
        return self._held >= PIECE_BYTES or self._records >= (WAITING_RECORDS if self._repeats else PIECE_ROWS)

    def rows(self) -> dict[bytes, bytes | None]:
        """All of them, None for what is deleted; the piece is done with."""
        rows = self._newest() if self._repeats else self._each()
        self._repeats = self._layout.last_decides and self._are_repeated(len(rows))
        return rows

    def following(self) -> "_Piece":
        """The next one, once this one's rows are known: keys are thought to go on as they were."""
        return _Piece(self._layout, self._expire_before_ms, repeats=self._repeats)

    def _are_repeated(self, keys: int) -> bool:
        return self._records >= keys * _REPEATING

    def _each(self) -> dict[bytes, bytes | None]:
        rows: dict[bytes, bytes | None] = {}
        for records in self._waiting:
            self._layout.rows(records, rows, self._expire_before_ms)
        return rows

    def _newest(self) -> dict[bytes, bytes | None]:
        rows: dict[bytes, bytes | None] = {}
        waiting, seen = self._waiting, set[bytes | None]()
        while waiting:
            records = waiting.pop()
            fresh = set(map(_key, records)).difference(seen)
            if fresh:
                alone = len(fresh) == len(records)
                self._layout.rows(records if alone else _of(records, fresh), rows, self._expire_before_ms)
                seen |= fresh
        return rows


_key = attrgetter("key")


def _of(records: Sequence[RawRecord], keys: set[bytes | None]) -> Iterator[RawRecord]:
    return (record for record in records if record.key in keys)


def misfit(checkpoint: Checkpoint, changelog: Changelog) -> str | None:
    """Why a store with this checkpoint is not a beginning of the changelog; None if it is."""
    topic_id, offset, leader_epoch, _ = checkpoint
    if topic_id != changelog.topic_id:
        return f"it was written from topic id {topic_id}, and the topic's id is {changelog.topic_id} now"
    if offset > changelog.end_offset:
        return f"it stands at offset {offset}, past the end of the changelog at {changelog.end_offset}"
    if leader_epoch >= 0 and offset > (epoch_end := changelog.epoch_end(leader_epoch)):
        return f"it stands at offset {offset} of leader epoch {leader_epoch}, which ended at {epoch_end}"
    return None


def _too_old(checkpoint: Checkpoint, changelog: Changelog, now_ms: int, deletions_kept_ms: int | None) -> str | None:
    if deletions_kept_ms is None or _unchanged(checkpoint, changelog):
        return None
    # A tenth is for the restore itself. The wall clock may have been set since: then nobody knows how old it is.
    if abs(now_ms - checkpoint.written_ms) < deletions_kept_ms - deletions_kept_ms // 10:
        return None
    written = datetime.fromtimestamp(checkpoint.written_ms / 1000, UTC).isoformat(" ", "seconds")
    return (
        f"it was written last at {written}, and others have gone on since: the changelog has what was deleted for "
        f"{deletions_kept_ms} ms (delete.retention.ms), so a deletion may be missing in it by now"
    )


def _unchanged(checkpoint: Checkpoint, changelog: Changelog) -> bool:
    """Whether all that stands behind the checkpoint, but what has expired, is markers of transactions."""
    end = max(checkpoint.offset, changelog.start_offset)
    for batch in changelog.batches(end) if end < changelog.end_offset else ():
        if not batch.control or batch.base_offset != end:
            return False
        end = batch.next_offset
    return end >= changelog.end_offset


def _leftover(keyspace: Keyspace) -> str | None:
    # Rows whose deletion may have been compacted away since: nothing says which offset they stand for.
    return None if keyspace.first(RESERVED, None) is None else "it has rows and no checkpoint of a known version"
