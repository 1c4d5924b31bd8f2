"""What differs between two topics of the same kind, by key: the last value of each, or all of them in their order.

1. Memory is bounded by `_BYTES_MAX`, whatever the number of keys. Keys are taken in ranges of their hashes: a range
   begins with all that are left; when what is held grows too large, its upper half is let go, for a later reading. So
   the topics are read once for each _BYTES_MAX of keys and values that they come to.
2. Where both have the same number of partitions, a key is in the same partition of both, and these are read pair by
   pair; else all together.
3. Bytes that are equal are the same. Only others are decoded, and compared as the values that they stand for.
4. Null keys count as one key, with all its values.

Not here: what is to be compared (replay).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

import msgspec

from tailrace.log.client import Log
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.streams.program.topic import Topic

_BYTES_MAX: Final = 256 << 20
# What an entry costs beside the bytes of its key and its value, about.
_ENTRY_BYTES: Final = 170
_NOTHING: Final = object()
_HASHES: Final = 1 << 32


class Range(NamedTuple):
    """A range of event times in ms; None has no limit."""

    since_ms: int | None
    until_ms: int | None


class Sample(NamedTuple):
    """A key that differs. Values are None where there is no such key."""

    kind: Literal["changed", "missing", "new"]
    key: Any
    before: Any
    after: Any


class Difference(NamedTuple):
    """How many keys are the same, have changed, are missing in the new topic, or are new in it; and some that differ.

    `str()` is a table of the samples under the numbers.
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
        rows = [
            ("", "key", "before", "after"),
            *((each.kind, *(_text(part) for part in each[1:])) for each in self.samples),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        return "\n".join([head, *(line.rstrip() for line in lines)])


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


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
    bytes_max: int = _BYTES_MAX,
) -> Difference:
    """Compares two topics, both up to where they end now; `declared` says how to decode both.

    Raises:
        ValueError: a tolerance below 0.
    """
    if not tolerance >= 0:
        raise ValueError(f"diff(tolerance={tolerance!r}) is below 0")
    compared = _Comparison(declared, tolerance, samples)
    old, new = sorted(log.offsets(before).items()), sorted(log.offsets(after).items())
    if len(old) == len(new):
        pairs = [({one[0]: one[1]}, {other[0]: other[1]}) for one, other in zip(old, new, strict=True)]
    else:
        pairs = [(dict(old), dict(new))]
    for pair in pairs:
        low, width = 0, _HASHES
        while low < _HASHES:
            held = _Held(low, min(low + width, _HASHES), bytes_max, sequences=sequences)
            for side, ends in enumerate(pair):
                for records in _batches(log, ends):
                    held.take(side, records, within)
            for key, old_values, new_values in held.pairs():
                compared.add(key, old_values, new_values)
            low, width = held.high, held.high - low
    return compared.result()


def _batches(log: Log, ends: Mapping[TopicPartition, int]) -> Iterator[Sequence[RawRecord]]:
    for partition, end in ends.items():
        with log.consumer(reset="earliest") as consumer:
            consumer.assign([partition])
            consumer.seek_to_beginning()
            while consumer.position(partition) < end:
                for batch in consumer.poll_batches(1.0):
                    yield batch.records if batch.next_offset <= end else [r for r in batch.records if r.offset < end]


class _Held:
    """The keys of a range of hashes, low to high, with their values on both sides."""

    def __init__(self, low: int, high: int, bytes_max: int, *, sequences: bool) -> None:
        self.low, self.high = low, high
        self._sides: tuple[dict[bytes, Any], dict[bytes, Any]] = ({}, {})
        """By key the last value; with sequences a list of all."""
        self._nulls: tuple[Values, Values] = ([], [])
        self._bytes_max = bytes_max
        self._sequences = sequences
        self._sampled = self._sampled_bytes = 0

    def take(self, side: int, records: Sequence[RawRecord], within: Range) -> None:
        """Takes the records of a batch that belong here."""
        if within != _ALWAYS:
            since_ms = -1 if within.since_ms is None else within.since_ms
            until_ms = math.inf if within.until_ms is None else within.until_ms
            records = [record for record in records if since_ms <= record.timestamp < until_ms]
        held, low, high = self._sides[side], self.low, self.high
        whole, sequences = low == 0 and high == _HASHES, self._sequences
        for record in records:  # hot: once for each record of both topics and each range
            key = record.key
            if key is None:
                if low == 0:
                    self._nulls[side].append(record.value)
            elif whole or low <= crc32(key) < high:
                if sequences:
                    held.setdefault(key, []).append(record.value)
                else:
                    held[key] = record.value
        for record in records[:1]:  # as good as any, and a look at each would cost as much as the rest
            self._sampled += 1
            self._sampled_bytes += len(record.key or b"") + len(record.value or b"")
        while self._size() > self._bytes_max and self.high - self.low > 1 and len(held) > 1:
            self._halve()

    def _size(self) -> float:
        """In bytes, about."""
        values = sum(len(side) for side in self._sides)
        if self._sequences:
            values = sum(len(each) + 2 for side in self._sides for each in side.values())
        return values * (_ENTRY_BYTES + self._sampled_bytes / max(self._sampled, 1))

    def _halve(self) -> None:
        """Lets go of the upper half of the range."""
        self.high = high = (self.low + self.high) // 2
        for side in self._sides:
            kept = {key: value for key, value in side.items() if crc32(key) < high}
            side.clear()
            side.update(kept)

    def pairs(self) -> Iterator[tuple[bytes | None, Values, Values]]:
        """Each key with its values on both sides."""
        old, new = self._sides
        if self.low == 0 and any(self._nulls):
            yield None, *self._nulls
        many = self._sequences
        for key, value in old.items():
            other = new.pop(key, _NOTHING)
            yield key, value if many else [value], [] if other is _NOTHING else other if many else [other]
        for key, value in new.items():
            yield key, [], value if many else [value]


class _Comparison:
    """Counts, and keeps samples; of each kind some, as long as there are any."""

    def __init__(self, declared: Topic[Any, Any], tolerance: float, samples: int) -> None:
        self._key: Callable[[bytes], Any] = declared.key_codec.decode
        self._value: Callable[[bytes], Any] = declared.value_codec.decode
        self._tolerance = tolerance
        self._samples_max = samples
        self._same = 0
        self._counts = {"changed": 0, "missing": 0, "new": 0}
        self._samples: dict[str, list[Sample]] = {"changed": [], "missing": [], "new": []}

    def add(self, key: bytes | None, old: Values, new: Values) -> None:
        """Takes a key with what both sides have of it."""
        if old and old[-1] is None and len(old) == 1:
            old = []
        if new and new[-1] is None and len(new) == 1:
            new = []
        if old == new:
            self._same += bool(old)
            return
        if old and new and len(old) == len(new) and all(map(self._alike, old, new)):
            self._same += 1
            return
        kind: Literal["changed", "missing", "new"] = "changed" if old and new else "missing" if old else "new"
        self._counts[kind] += 1
        if len(self._samples[kind]) < self._samples_max:
            shown = None if key is None else _decoded(self._key, key)
            self._samples[kind].append(Sample(kind, shown, self._shown(old), self._shown(new)))

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
        for kind in ("changed", "missing", "new"):
            chosen += self._samples[kind][: max(self._samples_max - len(chosen), 0)]
        return Difference(self._same, self._counts["changed"], self._counts["missing"], self._counts["new"], chosen)


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
