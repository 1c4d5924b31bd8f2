"""What differs between two topics of the same kind, by key: the last value of each, or all of them in their order.

1. Memory stays below about twice `_BYTES_MAX`, whatever the number of keys: what goes beyond is in a scratch file
   (side_by_side). Each topic is read once.
2. A null value is a key that is not there.
3. Bytes that are equal are the same. Only others are decoded, and compared as the values that they stand for.
4. Records without a key are compared by their values alone: as many of each on both sides. They have no order, as the
   partitioner puts them now here, now there.

Not here: what is to be compared (replay).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

import msgspec

from tailrace.log.client import Log
from tailrace.log.disk import Disk, MemoryDisk
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.streams.program.topic import Topic
from tailrace.streams.reprocessing.side_by_side import MASK, Rows, Scratch, SideBySide

_BYTES_MAX: Final = 48 << 20
# Of a table: with the kind, and two blanks between columns, 119.
_KEY_CHARS: Final = 30
_VALUE_CHARS: Final = 38


class Range(NamedTuple):
    """A range of event times in ms; None has no limit."""

    since_ms: int | None
    until_ms: int | None


Kind = Literal["changed", "missing", "new"]


class Sample(NamedTuple):
    """A key that differs. Values are None where there is no such key."""

    kind: Kind
    key: Any
    before: Any
    after: Any


class Difference(NamedTuple):
    """How many keys are the same, have changed, are missing in the new topic, or are new in it; and some that differ.

    `str()` is a table of the samples under the numbers, of at most 120 columns: of what is long it has the part in
    which the two begin to differ. The samples themselves are whole.
    """

    same: int
    changed: int
    missing: int
    new: int
    samples: Sequence[Any] = ()
    """Each a `Sample`."""

    def __str__(self) -> str:
        """For a person."""
        head = f"{self.same:,} same, {self.changed:,} changed, {self.missing:,} missing, {self.new:,} new"
        if not self.samples:
            return head
        rows = [("", "key", "before", "after"), *map(_row, self.samples)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        return "\n".join([head, *(line.rstrip() for line in lines)])


def _row(sample: Sample) -> tuple[str, str, str, str]:
    key, before, after = (_text(part) for part in sample[1:])
    alike = next((at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), None)
    if alike is None:
        alike = 0 if before == after else min(len(before), len(after))
    return sample.kind, _part(key, _KEY_CHARS), _part(before, _VALUE_CHARS, alike), _part(after, _VALUE_CHARS, alike)


def _text(value: Any) -> str:
    return "-" if value is None else str(value).replace("\n", "\\n")


def _part(text: str, chars: int, alike: int = 0) -> str:
    """So many characters of a text at most: some of those that are `alike`, then what follows them."""
    if len(text) <= chars:
        return text
    begin = alike - chars // 3
    if begin > 0:
        text = f"…{text[begin + 1 :]}"
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


_ALWAYS: Final = Range(None, None)

Values = list[bytes | None]
"""Of a key: the last one alone, or all."""


def difference(
    log: Log,
    before: str,
    after: str,
    declared: Topic[Any, Any],
    *,
    tolerance: float,
    sequences: bool,
    samples: int,
    within: Range,
    disk: Disk | None = None,
    directory: str = "scratch",
    bytes_max: int = _BYTES_MAX,
) -> Difference:
    """Compares two topics, both up to where they end now; `declared` says how to decode both.

    disk, directory: where the scratch file is made; in memory unless given.

    Raises:
        ValueError: a tolerance below 0.
        DiskFullError: no room for the scratch file.
    """
    if not tolerance >= 0:
        raise ValueError(f"diff(tolerance={tolerance!r}) is below 0")
    compared = _Comparison(declared, tolerance, samples)
    kind: Any = dict[bytes, Values] if sequences else dict[bytes, bytes | None]
    with Scratch(disk or MemoryDisk(), directory) as scratch:
        keyed = SideBySide(scratch, kind, _one_after_another if sequences else _replaced, bytes_max)
        alone = SideBySide(scratch, dict[bytes, int], _added, bytes_max)
        for side, ends in enumerate((log.offsets(before), log.offsets(after))):
            put = (_put_all if sequences else _put_last)(keyed.sides[side].held)
            for records in _batches(log, ends, within):
                without_key = put(records)
                _count(alone.sides[side].held, without_key)
                for record in records[:1]:  # as good as any, and a look at each would cost as much as the rest
                    each_bytes = len(record.key or b"") + len(record.value or b"")
                    keyed.took(len(records) - len(without_key), each_bytes)
                    alone.took(len(without_key), each_bytes)
        for old, new in keyed.pairs():
            (compared.all_values if sequences else compared.last_values)(old, new)
        for old, new in alone.pairs():
            compared.without_key(old, new)
    return compared.result()


def _batches(log: Log, ends: Mapping[TopicPartition, int], within: Range) -> Iterator[Sequence[RawRecord]]:
    since_ms = -1 if within.since_ms is None else within.since_ms
    until_ms = math.inf if within.until_ms is None else within.until_ms
    for partition, end in ends.items():
        with log.consumer(reset="earliest") as consumer:
            consumer.assign([partition])
            consumer.seek_to_beginning()
            while consumer.position(partition) < end:
                for batch in consumer.poll_batches(1.0):
                    records = batch.records
                    if batch.next_offset > end:
                        records = [record for record in records if record.offset < end]
                    if within != _ALWAYS:
                        records = [record for record in records if since_ms <= record.timestamp < until_ms]
                    yield records


Put = Callable[[Sequence[RawRecord]], Values]
"""Takes records with a key; returns the values without one."""


def _put_last(held: Sequence[Rows]) -> Put:
    """The last value of each key."""

    def put(records: Sequence[RawRecord]) -> Values:
        without_key: Values = []
        for record in records:  # hot: once for each record of both topics
            key = record.key
            if key is None:
                without_key.append(record.value)
            else:
                held[crc32(key) & MASK][key] = record.value
        return without_key

    return put


def _put_all(held: Sequence[Rows]) -> Put:
    """All values of each key."""

    def put(records: Sequence[RawRecord]) -> Values:
        without_key: Values = []
        for record in records:
            key = record.key
            if key is None:
                without_key.append(record.value)
            else:
                held[crc32(key) & MASK].setdefault(key, []).append(record.value)
        return without_key

    return put


def _count(held: Sequence[Rows], values: Values) -> None:
    for value in values:
        if value is not None:
            rows = held[crc32(value) & MASK]
            rows[value] = rows.get(value, 0) + 1


def _replaced(rows: Rows, later: Rows) -> None:
    rows.update(later)


def _one_after_another(rows: Rows, later: Rows) -> None:
    for key, values in later.items():
        rows.setdefault(key, []).extend(values)


def _added(rows: Rows, more: Rows) -> None:
    for value, count in more.items():
        rows[value] = rows.get(value, 0) + count


class _Comparison:
    """Counts, and keeps samples; of each kind some, as long as there are any."""

    def __init__(self, declared: Topic[Any, Any], tolerance: float, samples: int) -> None:
        self._key: Callable[[bytes], Any] = declared.key_codec.decode
        self._value: Callable[[bytes], Any] = declared.value_codec.decode
        self._tolerance = tolerance
        self._samples_max = samples
        self._same = 0
        self._counts = {"changed": 0, "missing": 0, "new": 0}
        self._samples: dict[str, list[tuple[bytes, Sample]]] = {"changed": [], "missing": [], "new": []}

    def last_values(self, old: Rows, new: Rows) -> None:
        """Takes keys with their last value on both sides."""
        same, pop = 0, new.pop
        for key, value in old.items():
            other = pop(key, None)
            if value == other:
                same += value is not None
            else:
                self._compare(key, [] if value is None else [value], [] if other is None else [other])
        self._same += same
        for key, value in new.items():
            if value is not None:
                self._compare(key, [], [value])

    def all_values(self, old: Rows, new: Rows) -> None:
        """Takes keys with all their values on both sides."""
        for key in {**old, **new}:
            one, other = _there(old, key), _there(new, key)
            if one == other:
                self._same += bool(one)
            else:
                self._compare(key, one, other)

    def without_key(self, old: Rows, new: Rows) -> None:
        """Takes values with how often they are there on both sides."""
        for value in {**old, **new}:
            one, other = old.get(value, 0), new.get(value, 0)
            self._same += min(one, other)
            if one != other:
                there: Values = [value]
                if one > other:
                    self._found("missing", b"", one - other, None, there, [])
                else:
                    self._found("new", b"", other - one, None, [], there)

    def _compare(self, key: bytes, old: Values, new: Values) -> None:
        if old and new and len(old) == len(new) and all(map(self._alike, old, new)):
            self._same += 1
        else:
            kind: Kind = "changed" if old and new else "missing" if old else "new"
            self._found(kind, key, 1, key, old, new)

    def _found(self, kind: Kind, order: bytes, count: int, key: bytes | None, old: Values, new: Values) -> None:
        self._counts[kind] += count
        if len(self._samples[kind]) < self._samples_max:
            shown = None if key is None else _decoded(self._key, key)
            self._samples[kind].append((order, Sample(kind, shown, self._shown(old), self._shown(new))))

    def _shown(self, values: Values) -> Any:
        decoded = [None if value is None else _decoded(self._value, value) for value in values]
        return None if not decoded else decoded[0] if len(decoded) == 1 else decoded

    def _alike(self, old: bytes | None, new: bytes | None) -> bool:
        if old == new:
            return True
        if old is None or new is None:
            return False
        try:
            one, other = (msgspec.to_builtins(self._value(each)) for each in (old, new))
        except Exception:  # noqa: BLE001 - not to be read as what is declared, whatever says so: other bytes differ
            return False
        return _close(one, other, self._tolerance)

    def result(self) -> Difference:
        """The numbers; samples of each kind in turn, up to as many as were asked for."""
        chosen: list[Sample] = []
        for samples in self._samples.values():
            ordered = sorted(samples, key=lambda each: each[0])
            chosen += [sample for _, sample in ordered[: max(self._samples_max - len(chosen), 0)]]
        return Difference(self._same, self._counts["changed"], self._counts["missing"], self._counts["new"], chosen)


def _there(rows: Rows, key: bytes) -> Values:
    values: Values = rows.get(key, [])
    return [] if values == [None] else values


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except Exception:  # noqa: BLE001 - whatever a codec of the user's raises: shown as what it is
        return data


def _close(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two values are the same, but for numbers that differ by no more than the tolerance."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or math.isclose(one, other, rel_tol=min(tolerance, 1.0), abs_tol=tolerance)
    if one.__class__ is not other.__class__:
        return bool(one == other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(value, other[key], tolerance) for key, value in _items(one))
    if isinstance(one, list | tuple):
        return len(_all(one)) == len(other) and all(map(_close, _all(one), other, [tolerance] * len(other)))
    return bool(one == other)


def _items(of: Any) -> list[tuple[Any, Any]]:
    return list(of.items())


def _all(of: Any) -> list[Any]:
    return list(of)
