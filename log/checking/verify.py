"""Checks everything that files can be checked for: batches, CRCs, records, indexes, small files, the log's own topics.

1. It writes nothing, takes no lock, and goes on after what it finds: the report has everything.
2. *Damage* is what makes a log corrupt; a *note* is worth a look but allowed: a torn tail that the next opening cuts,
   files that a writer has taken away meanwhile.
3. Beside a writer the end of the active segment is never judged: it moves.
4. What no CRC covers is held against what else there is: base offsets against the batches around them, the names of
   segments, indexes, checkpoints. What nothing else says is taken for true (docs/limits.md names it).

Not here: repair. There is none, on purpose: what is damaged is restored from a copy.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tailrace.log import checkpoint, codec
from tailrace.log.checking.verify_producers import NOWHERE, ProducerCheck
from tailrace.log.checking.verify_state import Checked, StateCheck
from tailrace.log.codec import BatchHeader
from tailrace.log.disk import Disk, File, join
from tailrace.log.errors import CorruptError, InvalidError
from tailrace.log.partition.index import NO_TIMESTAMP, OFFSET_ENTRY, TIME_ENTRY
from tailrace.log.partition.recovery import describe, goes_on, is_torn
from tailrace.log.partition.segment import INDEX, TIME_INDEX, TXN_INDEX, path_of, scan
from tailrace.log.record import TopicPartition
from tailrace.log.topics.directory import IDS, OURS, check_format
from tailrace.log.topics.layout import PartitionFiles, look

Value = TypeVar("Value")


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: the sentence, and the same as data. `position` is -1 where there is no byte to name."""

    file: str
    position: int
    expected: str
    found: str

    def __str__(self) -> str:
        at = f" at byte {self.position}" if self.position >= 0 else ""
        return f"{self.file}{at}: expected {self.expected}, found {self.found}"


@dataclass
class Report:
    """What was checked and what was found; `in_use` is the writer's pid, None where nobody writes."""

    path: str
    in_use: int | None = None
    partitions: int = 0
    segments: int = 0
    batches: int = 0
    records: int = 0
    bytes: int = 0
    index_entries: int = 0
    committed: int = 0  # transactions per partition
    aborted: int = 0
    open: int = 0
    topics: int = 0  # on record, as the rest, where the log's own topics were looked at
    groups: int = 0
    committed_offsets: int = 0
    transactional_ids: int = 0
    damage: list[Damage] = field(default_factory=list[Damage])
    notes: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage

    def found(self, file: str, position: int, expected: str, found: str) -> None:
        """Adds a damage."""
        self.damage.append(Damage(file, position, expected, found))

    def as_json(self) -> dict[str, Any]:
        """The report as plain objects."""
        return {
            "path": self.path,
            "ok": self.ok,
            "in_use": self.in_use,
            "partitions": self.partitions,
            "segments": self.segments,
            "batches": self.batches,
            "records": self.records,
            "bytes": self.bytes,
            "index_entries": self.index_entries,
            "topics": self.topics,
            "groups": self.groups,
            "committed_offsets": self.committed_offsets,
            "transactional_ids": self.transactional_ids,
            "transactions": {"committed": self.committed, "aborted": self.aborted, "open": self.open},
            "damage": [
                {"file": each.file, "position": each.position, "expected": each.expected, "found": each.found}
                for each in self.damage
            ],
            "notes": list(self.notes),
        }


def verify(disk: Disk, path: str, *, progress: Callable[[int], None] | None = None) -> Report:
    """Checks a segment, a partition's folder or a log's; `progress` is told how many bytes were read, now and then.

    Raises:
        InvalidError: nothing of a log is there, or it is of a newer format.
    """
    place = look(disk, path)
    report = Report(path, place.lock_holder(disk))
    if report.in_use is not None:
        report.notes.append(
            f"in use by process {report.in_use or 'unknown'}: what it is writing at the ends of the logs is not judged"
        )
    promised = {} if place.directory is None else _check_small_files(disk, place.directory, report)
    kafkas = place.directory is not None and _is_kafkas(disk, place.directory)
    if report.in_use is not None:
        promised = {}
    state = StateCheck(found=report.found, note=report.notes.append)
    checked: dict[TopicPartition, Checked] = {}
    for files in place.partitions:
        report.partitions += 1
        tp = files.tp or NOWHERE
        checked[tp] = _Partition(
            disk, files, report, state, progress or _silent, promised.get(tp, 0), kafkas=kafkas
        ).check()
    if report.in_use is None and place.directory == place.path:
        state.compare(checked, promised)
    report.topics, report.transactional_ids = state.topics, state.transactional_ids
    report.groups, report.committed_offsets = state.groups, state.offsets
    return report


def _silent(_: int) -> None:
    pass


class _Partition:
    """The check of one partition's folder."""

    def __init__(
        self,
        disk: Disk,
        files: PartitionFiles,
        report: Report,
        state: StateCheck,
        progress: Callable[[int], None],
        promised: int,
        *,
        kafkas: bool,
    ) -> None:
        self.disk = disk
        self.files = files
        self.report = report
        self.state = state
        self.topic = (files.tp or NOWHERE).topic
        self.progress = progress
        self.promised = promised  # the recovery point: what lies below was on disk, and no crash takes it
        self.kafkas = kafkas  # Apache Kafka has written it
        self.last_epoch = -1
        self.epochs: list[checkpoint.EpochEntry] = []  # what is still to come of them
        self.epoch = -1  # at the offset that was come to
        self.producer_id = -1
        self.producers = ProducerCheck(
            disk,
            files.directory,
            files.tp,
            found=report.found,
            note=report.notes.append,
            in_use=report.in_use is not None,
        )

    def epoch_at(self, offset: int) -> int:
        """In which epoch an offset was written, as the file says; -1: it does not. Offsets come in order."""
        while self.epochs and self.epochs[-1].start_offset <= offset:
            self.epoch = self.epochs.pop().epoch
        return self.epoch

    def check(self) -> Checked:
        """Adds what is found to the report."""
        end = 0
        epochs = _readable(self.report, lambda: checkpoint.read_epochs(self.disk, self.files.directory))
        if self.report.in_use is None and epochs is not None:
            self.epochs = epochs[::-1]
        for base in self.files.chosen:
            later = [each for each in self.files.every if each > base]
            end = _Segment(self, base, later[0] if later else None).check(end)
        if end < self.promised and self.files.chosen[-1:] == self.files.every[-1:]:
            base = self.files.every[-1] if self.files.every else 0
            self.report.damage.append(
                Damage(
                    path_of(self.files.directory, base),
                    -1,
                    f"records up to offset {self.promised - 1}, which were on disk at the last checkpoint",
                    f"an end at offset {end}",
                )
            )
        self.producers.ended(whole=self.files.chosen == self.files.every)
        self.report.committed += self.producers.committed
        self.report.aborted += self.producers.aborted
        self.report.open += len(self.producers.open_transactions)
        topic_id = _readable(self.report, lambda: checkpoint.read_topic_id(self.disk, self.files.directory))
        return Checked(self.files.directory, topic_id, end, self.producer_id, self.producers.open_transactions)


class _Segment:
    """The check of one data file and its indexes."""

    def __init__(self, partition: _Partition, base: int, next_base: int | None) -> None:
        self.partition = partition
        self.disk = partition.disk
        self.report = partition.report
        self.directory = partition.files.directory
        self.base = base
        self.next_base = next_base
        self.path = path_of(self.directory, base)
        self.starts: dict[int, BatchHeader] = {}  # batches by position, for the offset index
        # Where the time index names an offset: the largest timestamp before the offset's batch, and with it.
        self.newest_at: dict[int, tuple[int, int]] = {}

    def check(self, at_least: int) -> int:
        # The indexes first: they never run ahead of the data, and the data go on growing under a writer.
        indexes = {suffix: self._bytes(suffix) for suffix in (INDEX, TIME_INDEX, TXN_INDEX)}
        try:
            file = self.disk.open(self.path)
        except FileNotFoundError:
            self.report.notes.append(f"{self.path} was deleted meanwhile")
            return at_least
        self.report.segments += 1
        self.partition.producers.segment_began(self.base)
        positions = {entry[1] for entry in _whole(OFFSET_ENTRY, indexes[INDEX])}
        offsets = sorted({self.base + entry[1] for entry in _whole(TIME_ENTRY, indexes[TIME_INDEX])}, reverse=True)
        try:
            end = self._check_data(file, max(self.base, at_least), positions, offsets)
        finally:
            file.close()
        self._note_cut_indexes(indexes)
        self._check_offset_index(indexes[INDEX])
        self._check_time_index(indexes[TIME_INDEX])
        self.report.index_entries += self.partition.producers.segment_ended(self.base, indexes[TXN_INDEX])
        return end

    def _bytes(self, suffix: str) -> bytes:
        return checkpoint.read_file(self.disk, path_of(self.directory, self.base, suffix)) or b""

    def _found(self, position: int, expected: str, found: str, suffix: str | None = None) -> None:
        path = self.path if suffix is None else path_of(self.directory, self.base, suffix)
        self.report.damage.append(Damage(path, position, expected, found))

    def _check_data(self, file: File, next_offset: int, positions: set[int], offsets: list[int]) -> int:
        """Notes on the way what the indexes say of: batches at `positions`, times at `offsets` (the next one last)."""
        size, position, told, newest = file.size, 0, 0, NO_TIMESTAMP
        for at, header, batch in scan(file, 0, size):
            if header.magic != codec.MAGIC or header.base_offset < next_offset or header.last_offset_delta < 0:
                break
            if header.base_offset > next_offset and self.next_base is None:
                self._check_gap(file, at, header, next_offset)
            self._check_batch(at, header, batch)
            if at in positions:
                self.starts[at] = header
            before, newest = newest, max(newest, header.max_timestamp_ms)
            while offsets and offsets[-1] <= header.last_offset:
                offset = offsets.pop()
                if offset >= header.base_offset:
                    self.newest_at[offset] = before, newest
            next_offset, position = header.next_offset, at + header.size
            if position - told >= 1 << 24:
                self.partition.progress(position - told)
                told = position
        self.partition.progress(position - told)
        self.report.bytes += position
        if position < size:
            self._check_rest(file, position, size, next_offset)
        return next_offset

    def _check_gap(self, file: File, position: int, header: BatchHeader, next_offset: int) -> None:
        """Offsets are missing before a batch of the active segment, which is never compacted: opening refuses it, too.

        Of several batches that agree, another broker's follower may have copied what was compacted already.
        """
        if goes_on(file, position, file.size, header):
            return
        if self.partition.kafkas:
            self.report.notes.append(
                f"{self.path} has offset {header.base_offset} at byte {position}, where {next_offset} would follow: it "
                "was copied from what was compacted, or a base offset was changed, which no CRC covers"
            )
        else:
            self._found(position, f"offset {next_offset}, as that is where the log ended", f"{header.base_offset}")

    def _check_batch(self, position: int, header: BatchHeader, batch: memoryview) -> None:
        self.report.batches += 1
        self.report.records += header.record_count
        crc = codec.compute_crc(batch)
        if crc != header.crc:
            self._found(position, f"crc {header.crc:08x}", f"crc {crc:08x} (offset {header.base_offset})")
            self.partition.producers.damaged()
            return
        if self.next_base is not None and header.last_offset >= self.next_base:
            self._found(position, f"offsets below {self.next_base}, the next segment", f"offset {header.last_offset}")
        known = self.partition.epoch_at(header.base_offset)
        if 0 <= header.leader_epoch < self.partition.last_epoch:
            self._found(position, f"leader epoch {self.partition.last_epoch} or above", str(header.leader_epoch))
        elif min(known, header.leader_epoch) >= 0 and header.leader_epoch != known:
            expected = f"leader epoch {known}, as {checkpoint.LEADER_EPOCHS} says"
            self._found(position, expected, str(header.leader_epoch))
        self.partition.last_epoch = max(self.partition.last_epoch, header.leader_epoch)
        self.partition.producer_id = max(self.partition.producer_id, header.producer_id)
        self._check_records(position, header, batch)
        self.partition.producers.took(self.path, position, header, batch)

    def _check_records(self, position: int, header: BatchHeader, batch: memoryview) -> None:
        try:
            decoded = list(codec.decode(batch))
            records = [(record.offset, record.timestamp) for record in decoded]
        except Exception as error:  # noqa: BLE001  # whatever a decompressor or the codec says of bytes it cannot read
            self._found(position, f"{header.record_count} records", f"{type(error).__name__}: {error}")
            return
        offsets = [offset for offset, _ in records]
        if len(records) != header.record_count:
            self._found(position, f"{header.record_count} records", f"{len(records)}")
        if offsets != sorted(set(offsets)) or (
            offsets and not header.base_offset <= offsets[0] <= offsets[-1] <= header.last_offset
        ):
            self._found(position, f"rising offsets in {header.base_offset}..{header.last_offset}", f"{offsets[:10]}")
        newest = max((timestamp for _, timestamp in records), default=NO_TIMESTAMP)
        if newest > header.max_timestamp_ms:
            self._found(position, f"timestamps up to {header.max_timestamp_ms}", str(newest))
        self.partition.state.took(self.partition.topic, self.path, position, header, decoded)

    def _check_rest(self, file: File, position: int, size: int, next_offset: int) -> None:
        """What stands behind the last whole batch."""
        active = self.next_base is None
        if active and self.report.in_use is not None:
            return
        damage = describe(file, position, size, next_offset)
        if active and next_offset >= self.partition.promised and is_torn(file, position, size, self.base, next_offset):
            self.report.notes.append(
                f"{self.path} has a torn tail of {size - position} bytes at byte {position}, after offset "
                f"{next_offset - 1}: the next opening cuts it"
            )
        else:
            self._found(damage.position, damage.expected, damage.found)

    def _note_cut_indexes(self, indexes: dict[str, bytes]) -> None:
        """Tells of indexes that lack their end: no damage, as opening reads from the data what they do not say."""
        for suffix, entry in ((INDEX, OFFSET_ENTRY), (TIME_INDEX, TIME_ENTRY)):
            rest = len(indexes[suffix]) % entry.size
            if rest and not self._moving():
                self.report.notes.append(
                    f"{path_of(self.directory, self.base, suffix)} ends within an entry, at byte "
                    f"{len(indexes[suffix]) - rest}: what is missing is rebuilt from the data at opening"
                )

    def _check_offset_index(self, data: bytes) -> None:
        last = (-1, 0)
        for number, (relative, position) in enumerate(_whole(OFFSET_ENTRY, data)):
            if (relative, position) == (0, 0):  # preallocated by Kafka and not trimmed: zeros to the end
                return
            self.report.index_entries += 1
            at, offset = number * OFFSET_ENTRY.size, self.base + relative
            header = self.starts.get(position)
            if relative <= last[0] or position <= last[1]:
                self._found(at, f"an entry above {last}", f"{(relative, position)}", INDEX)
            elif header is None:
                if not self._moving():
                    self._found(at, "the position of a batch", f"position {position}", INDEX)
            elif not header.base_offset <= offset <= header.last_offset:
                self._found(at, f"an offset of the batch at {position}", f"offset {offset}", INDEX)
            last = (relative, position)

    def _moving(self) -> bool:
        """Whether a writer goes on writing to this segment."""
        return self.report.in_use is not None and self.next_base is None

    def _check_time_index(self, data: bytes) -> None:
        last = (NO_TIMESTAMP, -1)
        for number, (timestamp_ms, relative) in enumerate(_whole(TIME_ENTRY, data)):
            if (timestamp_ms, relative) == (0, 0) and number:
                return
            at, offset = number * TIME_ENTRY.size, self.base + relative
            if timestamp_ms <= last[0] or relative < last[1]:
                self._found(at, f"an entry above {last}", f"{(timestamp_ms, relative)}", TIME_INDEX)
                return
            self.report.index_entries += 1
            newest = self.newest_at.get(offset)
            if newest is None:
                if not self._moving():
                    self._found(at, "an offset in the segment", f"offset {offset}", TIME_INDEX)
            # Kafka's cleaner may name a time within the batch. What a look-up needs is that nothing before is newer: it
            # begins at this batch.
            elif not newest[0] <= timestamp_ms <= newest[1]:
                self._found(at, f"timestamp {newest[1]} at offset {offset}", f"{timestamp_ms}", TIME_INDEX)
            last = (timestamp_ms, relative)


def _whole(entry: struct.Struct, data: bytes) -> list[tuple[Any, ...]]:
    return list(entry.iter_unpack(data[: len(data) // entry.size * entry.size]))


def _is_kafkas(disk: Disk, directory: str) -> bool:
    try:
        return disk.exists(join(directory, checkpoint.META_PROPERTIES)) and check_format(disk, directory) != OURS
    except (CorruptError, InvalidError):
        return False


def _check_small_files(disk: Disk, directory: str, report: Report) -> dict[TopicPartition, int]:
    """The log's own files; returns the offsets below which partitions were on disk, as they say."""
    if disk.exists(join(directory, checkpoint.META_PROPERTIES)):
        try:
            ours = check_format(disk, directory) == OURS
        except CorruptError as error:
            ours = True
            report.damage.append(Damage(error.file, error.position, str(error.expected), str(error.found)))
        if ours:
            _check_ids(disk, join(directory, checkpoint.META_PROPERTIES), report)
    points = _readable(report, lambda: checkpoint.read_offsets(disk, join(directory, checkpoint.RECOVERY_POINTS)))
    starts = _readable(report, lambda: checkpoint.read_offsets(disk, join(directory, checkpoint.LOG_STARTS)))
    promised = dict(points or {})
    for tp, start in (starts or {}).items():  # no log ends before its start
        promised[tp] = max(promised.get(tp, 0), start)
    return promised


def _check_ids(disk: Disk, file: str, report: Report) -> None:
    """Of a log of ours: `kafka-storage format` takes any text for a cluster id."""
    properties = checkpoint.read_properties(disk, file) or {}
    for name in IDS:
        if not checkpoint.is_id(properties.get(name, "")) and name in properties:
            report.found(file, -1, f"a line {name}=, with 22 characters of base64", f"{name}={properties[name]}")


def _readable(report: Report, read: Callable[[], Value]) -> Value | None:
    try:
        return read()
    except CorruptError as error:
        report.damage.append(Damage(error.file, error.position, str(error.expected), str(error.found)))
    except InvalidError as error:
        report.notes.append(str(error))
    return None
