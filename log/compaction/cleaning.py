"""One cleaning of one partition: of the records with the same key, only the last stays.

1. What is cleaned is the closed segments below the last stable offset, before the first that is younger than
   `min.compaction.lag.ms`. A record in them goes if a later one in them has its key, if it has none, or if its
   transaction was aborted; the aborted count for nothing. Markers and last batches of producers: `retained`.
2. What stays keeps its offset, order, time, headers and leader epoch; a batch keeps its first and last offset, as holes
   in it are allowed. The last batch of a file stays, empty if need be: a log never seems to end earlier than it does,
   and who reads gets past the hole.
3. A tombstone goes `delete.retention.ms` after it was first cleaned: that time stands in its batch (the delete horizon,
   KIP-534). Older records of its key went before it, in an earlier file or an earlier cleaning, as files are replaced
   from the oldest on: no crash brings an old value back.
4. Keys are compared as bytes, never by a digest. They take at most about `budget_bytes`: the records are gone through
   from the newest back, until the keys do not fit; from there on only those known are looked for, and another round
   begins there with none. What is found is a bit for each record; then the files are written, once.
5. Nothing here holds the partition's lock; `breathe` is called every millisecond or so, however large or small batches
   are, lets other threads on (who waits for the interpreter without that waits 5 ms, for each time it lets go), and may
   raise to stop: every file is as it was or replaced.

Not here: when to clean (`cleaner`), how files are replaced (`swap`, `Partition.replace`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import Final

from tailrace.log import codec
from tailrace.log.clock import Clock
from tailrace.log.codec import BatchHeader, Data
from tailrace.log.compaction.retained import Retained
from tailrace.log.disk import Disk
from tailrace.log.errors import CorruptError
from tailrace.log.partition.index import INT32_MAX, OFFSET_ENTRY, TIME_ENTRY
from tailrace.log.partition.partition import Partition
from tailrace.log.partition.segment import CHUNK_BYTES, TXN_INDEX, Segment, path_of, scan
from tailrace.log.partition.swap import CleanedSegment

BUDGET_BYTES: Final = 768 << 20  # some 8 million short keys; Kafka takes 128 MiB, for 5 million digests
SHARDS: Final = 1024  # one table of millions would stand still for a second when it grows
KEY_BYTES: Final = 88  # of a dict entry and an object, beside the key's own bytes; measured
BREATH_RECORDS: Final = 1500  # a millisecond
KEYS_FREED: Final = 5  # so many are given back in the time that a record takes
BATCH_RECORDS: Final = 5  # so many take the time that a batch takes beside its records

_AS_TEXT: Final = bytes.maketrans(b"\0\1", b"01")
_AS_FLAGS: Final = bytes.maketrans(b"01", b"\0\1")


def no_breath() -> None:
    """For who has no other threads to think of."""


@dataclass
class Cleaned:
    """What a cleaning did. `next_offset`: everything below is clean; `due_ms`: when the first tombstones may go."""

    next_offset: int
    due_ms: int | None = None
    records_before: int = 0
    records_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rounds: int = 0


@dataclass
class _Old:
    """A closed segment to be cleaned. `masks`: per piece that loses records, a bit each below a leading 1."""

    segment: Segment
    pieces: list[tuple[int, int]]
    index_bytes: tuple[int, int]
    masks: dict[int, int] = field(default_factory=dict[int, int])
    dirty: bool = False
    stamps: bool = False  # a marker in it gets a delete horizon
    horizon_ms: int | None = None  # the earliest of its batches


def clean(
    disk: Disk,
    clock: Clock,
    partition: Partition,
    first_dirty: int,
    *,
    breathe: Callable[[], None] = no_breath,
    budget_bytes: int = BUDGET_BYTES,
) -> Cleaned:
    """Cleans a partition; everything below offset `first_dirty` was clean after an earlier cleaning.

    Raises:
        CorruptError: a damaged batch; nothing from its file on is touched.
        DiskFullError: no room for the cleaned file; the old ones stay, and what was replaced before is whole.
        TailraceError: what `Partition.replace` says.
    """
    cleaning = _Cleaning(disk, clock, partition, first_dirty, breathe, budget_bytes)
    try:
        return cleaning.run()
    except FileNotFoundError:  # retention took it: the next cleaning sees what is left
        return cleaning.result
    finally:
        cleaning.close()


class _Cleaning:
    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        partition: Partition,
        first_dirty: int,
        breathe: Callable[[], None],
        budget_bytes: int,
    ) -> None:
        self.disk = disk
        self.partition = partition
        self.config = partition.config
        self.first_dirty = first_dirty
        self.now_ms = clock.now_ms()
        self.breathe = breathe
        self.budget_bytes = budget_bytes
        self.since_breath = 0
        self.known: list[dict[bytes, None]] = []
        self.known_bytes = 0
        self.full = False  # no more keys are taken in
        self.olds: list[_Old] = []
        self.retained = Retained((), ())
        self.snapshot_offset = 0
        self.markers: set[int] = set()  # that stay, of the group that is being written
        self.result = Cleaned(first_dirty)

    def run(self) -> Cleaned:
        self.olds = list(self._cleanable())
        if self.olds:
            start, end = self.olds[0].segment.base_offset, self.olds[-1].segment.next_offset
            self.retained = Retained(self.partition.aborted(start, end), self.partition.producer_ends())
            self.snapshot_offset = self.partition.snapshot_offset
            if end > self.first_dirty:
                self._mark_all()
            else:
                self._look_for_horizons()
        self._forget_keys()
        for group in self._groups():
            if not self._replace(group):
                return self.result  # as above
        if self.olds:
            self.result.next_offset = max(self.first_dirty, self.olds[-1].segment.next_offset)
        return self.result

    def close(self) -> None:
        self._close(self.olds)

    def _close(self, olds: list[_Old]) -> None:
        for old in olds:
            old.segment.close()

    # ---- what may be cleaned

    def _cleanable(self) -> Iterator[_Old]:
        lag_ms = self.config.min_compaction_lag_ms
        for base, _ in self.partition.cleanable_segments():
            segment = Segment(
                self.disk,
                self.partition.directory,
                base,
                interval_bytes=self.config.index_interval_bytes,
                write=False,
            )
            segment.load()
            if segment.size != segment.file.size:
                raise _damaged(segment, segment.size)
            young = lag_ms and segment.max_timestamp_ms > self.now_ms - lag_ms
            if young and segment.next_offset > self.first_dirty:
                segment.close()
                return
            offsets, times = segment.indexer.offsets, segment.indexer.times
            sizes = len(offsets) * OFFSET_ENTRY.size, (len(times) + 1) * TIME_ENTRY.size
            old = _Old(segment, self._pieces(segment), sizes)
            segment.unload()  # a log may have more segments than a process may open files
            yield old
            self.breathe()

    def _pieces(self, segment: Segment) -> list[tuple[int, int]]:
        """The file in parts of some megabytes, of whole batches: these are read forward, the file from its end."""
        starts = [0]
        for entry in segment.indexer.offsets:
            if entry.position - starts[-1] >= CHUNK_BYTES:
                starts.append(entry.position)
            self._breathe(2)
        return list(zip(starts, [*starts[1:], segment.size], strict=True)) if segment.size else []

    # ---- which records go

    def _mark_all(self) -> None:
        at, piece = len(self.olds) - 1, -1
        while at >= 0:
            self._forget_keys()
            self.known = [{} for _ in range(SHARDS)]
            at, piece = self._round(at, piece)
            self.result.rounds += 1
        for place in self.retained.places():
            self.olds[place].stamps = True

    def _round(self, newest: int, newest_piece: int) -> tuple[int, int]:
        """One walk from a place back to the start; returns where the keys did not fit any more, or (-1, -1)."""
        stopped = (-1, -1)
        for at in range(newest, -1, -1):
            old = self.olds[at]
            pieces = range(len(old.pieces)) if at < newest or newest_piece < 0 else range(newest_piece + 1)
            dirty = old.segment.next_offset > self.first_dirty
            for piece in reversed(pieces):
                if dirty and not self.full and self.known_bytes > self.budget_bytes:
                    self.full, stopped = True, (at, piece)
                self._mark(at, old.pieces[piece])
            old.segment.close()
        return stopped

    def _mark(self, at: int, piece: tuple[int, int]) -> None:
        old = self.olds[at]
        flags: list[bytearray] = []
        for position, header, batch in reversed(self._batches(old.segment, *piece)):
            codec.check_crc(batch, file=old.segment.path, position=position)
            if header.transactional and self.result.rounds == 0:
                self.retained.saw(header, at)
            dirty = header.last_offset >= self.first_dirty
            if dirty:
                old.dirty = True
            elif self.result.rounds == 0:
                self._saw_horizon(old, header)
            flags.append(self._flags(old, position, header, batch, take_in=dirty and not self.full))
        every = b"".join(reversed(flags))
        if 0 in every:
            mask = int(b"1" + every.translate(_AS_TEXT), 2)
            old.masks[piece[0]] = old.masks.get(piece[0], mask) & mask

    def _batches(self, segment: Segment, start: int, end: int) -> list[tuple[int, BatchHeader, memoryview]]:
        found: list[tuple[int, BatchHeader, memoryview]] = []
        for each in _whole(segment, start, end):
            found.append(each)
            self._breathe(BATCH_RECORDS)
        return found

    def _flags(self, old: _Old, position: int, header: BatchHeader, batch: memoryview, *, take_in: bool) -> bytearray:
        """Per record 1 or 0: it stays or goes, as far as the keys known say. This and `decode` take the time."""
        if header.control:
            return bytearray(b"\1") * header.record_count
        if self.retained.is_aborted(header):
            return bytearray(header.record_count)
        keys: list[bytes | None] = []
        records = islice(codec.decode(batch), None)  # the compiled reader itself cannot be asked again at its end
        while part := [record.key for record in islice(records, BREATH_RECORDS)]:
            keys += part
            self._breathe(len(part) // 4)
        if len(keys) != header.record_count:
            raise _miscounted(old.segment.path, position, header.record_count, len(keys))
        mark = self._take_in if take_in else self._look_up
        flags = bytearray()
        while keys:
            part = keys[-BREATH_RECORDS:]
            del keys[-BREATH_RECORDS:]
            flags[:0] = mark(part)
            self._breathe(len(part))
        self._breathe(BATCH_RECORDS)
        return flags

    def _look_up(self, keys: list[bytes | None]) -> bytearray:
        known, mask = self.known, SHARDS - 1
        return bytearray([key is not None and key not in known[hash(key) & mask] for key in keys])

    def _take_in(self, keys: list[bytes | None]) -> bytearray:
        flags = bytearray(b"\1") * len(keys)
        known, mask, index = self.known, SHARDS - 1, len(keys)
        fresh = fresh_bytes = 0
        for key in reversed(keys):
            index -= 1
            if key is None:
                flags[index] = 0
                continue
            shard = known[hash(key) & mask]
            if key in shard:
                flags[index] = 0
            else:
                shard[key] = None
                fresh += 1
                fresh_bytes += len(key)
        self.known_bytes += fresh * KEY_BYTES + fresh_bytes
        return flags

    def _forget_keys(self) -> None:
        for shard in self.known:  # one by one: to free millions of keys at once takes a second
            keys = len(shard)
            shard.clear()
            self._breathe(keys // KEYS_FREED)
        self.known, self.known_bytes, self.full = [], 0, False

    def _look_for_horizons(self) -> None:
        """Nothing is dirty: it is only tombstones that may go."""
        for old in self.olds:
            for _, header, _ in _whole(old.segment, 0, old.segment.size):
                self._saw_horizon(old, header)
                self._breathe(BATCH_RECORDS)
            old.segment.close()

    def _saw_horizon(self, old: _Old, header: BatchHeader) -> None:
        horizon_ms = header.delete_horizon_ms
        if horizon_ms is not None:
            old.horizon_ms = horizon_ms if old.horizon_ms is None else min(old.horizon_ms, horizon_ms)

    def _breathe(self, records: int) -> None:
        self.since_breath += records
        if self.since_breath >= BREATH_RECORDS:
            self.since_breath = 0
            self.breathe()

    # ---- the new files

    def _groups(self) -> Iterator[list[_Old]]:
        """Neighbours that fit into one segment, with their indexes; what shrank grows together the next time."""
        group: list[_Old] = []
        for old in self.olds:
            if group and not self._fits([*group, old]):
                yield group
                group = []
            group.append(old)
        if group:
            yield group

    def _fits(self, group: list[_Old]) -> bool:
        index_bytes = self.config.segment_index_bytes
        return (
            sum(old.segment.size for old in group) <= self.config.segment_bytes
            and sum(old.index_bytes[0] for old in group) <= index_bytes
            and sum(old.index_bytes[1] for old in group) <= index_bytes
            and group[-1].segment.next_offset - group[0].segment.base_offset <= INT32_MAX
        )

    def _replace(self, group: list[_Old]) -> bool:
        """Writes the cleaned segment of a group and puts it in its place; False where the group is not there now."""
        if len(group) == 1 and not self._anything_to_do(group[0]):
            if group[0].horizon_ms is not None:
                self._due(group[0].horizon_ms)
            return True
        base = group[0].segment.base_offset
        cleaned = CleanedSegment(
            self.disk, self.partition.directory, base, interval_bytes=self.config.index_interval_bytes
        )
        try:
            changed = self._write(group, cleaned)
            if not changed and len(group) == 1:
                cleaned.discard()
                return True
            bases = [old.segment.base_offset for old in group]
            entries = self.partition.aborted_entries(bases)
            cleaned.aborted = [each for each in entries if each.last_offset in self.markers]
            cleaned.finish(transactions=bool(entries) or any(self._has_aborted(each) for each in bases))
            replaced = self.partition.replace(bases, cleaned)
        except BaseException:
            cleaned.discard()
            raise
        finally:
            self._close(group)
        if not replaced:
            cleaned.discard()
        return replaced

    def _has_aborted(self, base_offset: int) -> bool:
        return self.disk.exists(path_of(self.partition.directory, base_offset, TXN_INDEX))

    def _anything_to_do(self, old: _Old) -> bool:
        return (
            old.dirty or old.stamps or bool(old.masks) or (old.horizon_ms is not None and old.horizon_ms <= self.now_ms)
        )

    def _write(self, group: list[_Old], cleaned: CleanedSegment) -> bool:
        """Whether anything is different from what was."""
        changed = False
        self.markers = set()
        for old in group:
            for start, end in old.pieces:
                mask = old.masks.get(start)
                flags = None if mask is None else bin(mask)[3:].encode().translate(_AS_FLAGS)
                at = 0
                for position, header, batch in _whole(old.segment, start, end):
                    after = at + header.record_count
                    last = old is group[-1] and position + header.size == old.segment.size
                    kept = self._kept(header, batch, None if flags is None else flags[at:after], last=last)
                    at = after
                    if kept is not batch:
                        changed = True
                    if kept is not None:
                        cleaned.add(header if kept is batch else BatchHeader.parse(kept), kept)
                    self._breathe(header.record_count + BATCH_RECORDS)
            old.segment.close()
        self.result.bytes_before += sum(old.segment.size for old in group)
        self.result.bytes_after += cleaned.size
        return changed

    def _kept(self, header: BatchHeader, batch: memoryview, flags: bytes | None, *, last: bool) -> Data | None:
        """What stays of a batch: itself, another, or None."""
        horizon_ms = header.delete_horizon_ms
        whole = flags is None or 0 not in flags
        self.result.records_before += header.record_count
        if header.record_count == 0:
            return batch if last or self.retained.is_last(header) else None
        if header.control:
            return self._kept_marker(header, batch, last=last)
        if whole and horizon_ms is None and (header.last_offset < self.first_dirty or not _has_tombstones(batch)):
            self.result.records_after += header.record_count
            return batch
        records = codec.decode(batch)
        kept = list(records if whole or flags is None else compress(records, flags))
        tombstones = None in [record.value for record in kept]
        if tombstones and horizon_ms is not None and horizon_ms <= self.now_ms:
            kept, tombstones = [record for record in kept if record.value is not None], False
        if not tombstones:
            horizon_ms = None
        elif horizon_ms is None:
            horizon_ms = self.now_ms + self.config.delete_retention_ms
        if horizon_ms is not None:
            self._due(horizon_ms)
        self.result.records_after += len(kept)
        if len(kept) == header.record_count and horizon_ms == header.delete_horizon_ms:
            return batch
        if kept or last or self.retained.is_last(header):
            return codec.keep(batch, kept, delete_horizon_ms=horizon_ms)
        return None

    def _kept_marker(self, header: BatchHeader, batch: memoryview, *, last: bool) -> Data | None:
        """Itself, the same with a delete horizon, an empty one or None: see `retained`."""
        horizon_ms = header.delete_horizon_ms
        due = horizon_ms is not None and horizon_ms <= self.now_ms and not self.retained.is_last(header)
        if due and header.base_offset < self.snapshot_offset:  # else an older snapshot may say that it is still open
            return codec.keep(batch, []) if last else None
        self.markers.add(header.base_offset)
        self.result.records_after += header.record_count
        if horizon_ms is None and self.retained.is_without_data(header):
            horizon_ms = self.now_ms + self.config.delete_retention_ms
            self._due(horizon_ms)
            return codec.keep(batch, list(codec.decode(batch)), delete_horizon_ms=horizon_ms)
        if horizon_ms is not None and (due or horizon_ms > self.now_ms):
            self._due(horizon_ms)
        return batch

    def _due(self, horizon_ms: int) -> None:
        self.result.due_ms = horizon_ms if self.result.due_ms is None else min(self.result.due_ms, horizon_ms)


def _has_tombstones(batch: Data) -> bool:
    # Not by a list of the records: Python's collector goes through what it holds, which took four times as long.
    return None in [record.value for record in codec.decode(batch)]


def _whole(segment: Segment, start: int, end: int) -> Iterator[tuple[int, BatchHeader, memoryview]]:
    """The batches from byte `start` to `end`, all of them: `scan` alone ends quietly at one that is damaged."""
    reached = start
    for position, header, batch in scan(segment.file, start, end):
        if header.magic != codec.MAGIC:
            break
        yield position, header, batch
        reached = position + header.size
    if reached != end:
        raise _damaged(segment, reached)


def _damaged(segment: Segment, position: int) -> CorruptError:
    return CorruptError(
        f"{segment.path} is damaged at byte {position}, and is not cleaned: look with `tailrace log verify`, then "
        f"restore the file from a copy",
        file=segment.path,
        position=position,
        expected="a whole batch",
        found="something else",
    )


def _miscounted(path: str, position: int, expected: int, found: int) -> CorruptError:
    return CorruptError(
        f"a batch in {path} at byte {position} says {expected} records and has {found}: look with `tailrace log "
        f"verify`, then restore the file",
        file=path,
        position=position,
        expected=f"{expected} records",
        found=f"{found} records",
    )
