"""Committed offsets of consumer groups: the bytes in `__consumer_offsets`, and the table they add up to.

1. A commit is one record batch: all of its offsets are on disk, or none.
2. The last record per (group, topic, partition) counts; a null value removes it. The topic can be compacted like any
   other.
3. Offsets never expire; they go with their topic, or when their group is deleted.
4. Those of a transaction are pending, by the id of its producer, until its marker: then they count, or are forgotten.

Format: Kafka's OffsetCommitKey version 1 (versions 0 and 1 are alike) and OffsetCommitValue version 3; versions 0 to 4
of the value are read. Records with other keys (2 and 3: members of groups and their assignments) are passed over.
Source: `group-coordinator/src/main/resources/common/message` of Kafka 4.3.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from tailrace.log.client import CommittedOffset
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition

METADATA_BYTES_MAX: Final = 4096  # Kafka's offset.metadata.max.bytes
KEY_VERSION: Final = 1
VALUE_VERSION: Final = 3

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")


class OffsetKey(NamedTuple):
    """Whose offset, and where."""

    group: str
    partition: TopicPartition


def encode_key(key: OffsetKey) -> bytes:
    """OffsetCommitKey version 1."""
    group, topic = key.group.encode(), key.partition.topic.encode()
    return struct.pack(
        f">hh{len(group)}sh{len(topic)}si", KEY_VERSION, len(group), group, len(topic), topic, key.partition.partition
    )


def encode_value(committed: CommittedOffset, commit_ms: int) -> bytes:
    """OffsetCommitValue version 3."""
    text = committed.metadata.encode()
    return struct.pack(
        f">hqih{len(text)}sq", VALUE_VERSION, committed.offset, committed.leader_epoch, len(text), text, commit_ms
    )


def decode_key(data: bytes) -> OffsetKey | None:
    """The key of an offset commit; None for the other kinds of record in the topic."""
    if _INT16.unpack_from(data)[0] not in {0, 1}:
        return None
    group, at = _string(data, 2)
    topic, at = _string(data, at)
    return OffsetKey(group, TopicPartition(topic, _INT32.unpack_from(data, at)[0]))


def decode_value(data: bytes) -> CommittedOffset:
    """An OffsetCommitValue of any version from 0 to 4.

    Raises:
        InvalidError: a newer version.
    """
    version: int = _INT16.unpack_from(data)[0]
    if not 0 <= version <= 4:
        raise InvalidError(f"an offset commit has version {version}, and 0 to 4 are known: use a later tailrace")
    offset: int = _INT64.unpack_from(data, 2)[0]
    if version in {0, 1, 2}:
        return CommittedOffset(offset, -1, _string(data, 10)[0])
    epoch: int = _INT32.unpack_from(data, 10)[0]
    if version == 3:
        return CommittedOffset(offset, epoch, _string(data, 14)[0])
    # Version 4 is flexible: compact strings (length + 1 as a varint), then tagged fields.
    return CommittedOffset(offset, epoch, _compact_string(data, 14))


def _string(data: bytes, at: int) -> tuple[str, int]:
    length: int = _INT16.unpack_from(data, at)[0]
    end = at + 2 + length
    if length < 0 or end > len(data):
        raise InvalidError(f"an offset commit holds a string of {length} bytes where {len(data) - at - 2} are left")
    return data[at + 2 : end].decode(), end


def _compact_string(data: bytes, at: int) -> str:
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return data[at : at + length - 1].decode()


def check_commit(group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
    """Refuses what could not be stored or read back.

    Raises:
        InvalidError: an empty group name, a negative offset, metadata over 4,096 bytes.
    """
    if not isinstance(group, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
        raise TypeError(f"the name of a group is a str, not {group!r}")
    if not group or len(group.encode()) > 32_767:
        raise InvalidError(f"the group name {group[:40]!r} cannot be used: give one of 1 to 32,767 bytes")
    for partition, committed in offsets.items():
        if committed.offset < 0:
            raise InvalidError(
                f"the offset {committed.offset} for {partition} in group {group!r} is negative: give 0 or more"
            )
        size = len(committed.metadata.encode())
        if size > METADATA_BYTES_MAX:
            raise InvalidError(
                f"the metadata of the offset for {partition} in group {group!r} has {size} bytes, "
                f"{METADATA_BYTES_MAX} are allowed: shorten it"
            )


class OffsetTable:
    """Committed offsets by group. Plain data: whoever holds it locks."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[TopicPartition, CommittedOffset]] = {}
        self._pending: dict[int, dict[OffsetKey, CommittedOffset]] = {}

    def pend(self, producer_id: int, rows: Mapping[OffsetKey, CommittedOffset]) -> None:
        """Adds the next batch of a transaction."""
        self._pending.setdefault(producer_id, {}).update(rows)

    def end(self, producer_id: int, *, committed: bool) -> bool:
        """Adds a transaction's marker; returns whether it had offsets."""
        rows = self._pending.pop(producer_id, {})
        if committed:
            for key, offset in rows.items():
                self.apply(key, offset)
        return bool(rows)

    def is_pending(self, key: OffsetKey) -> bool:
        """Whether this offset is in a transaction without a marker."""
        return any(key in rows for rows in self._pending.values())

    def forget_pending(self, gone: set[str]) -> None:
        """Leaves topics out that were deleted: no marker brings their offsets back."""
        for rows in self._pending.values():
            for key in [each for each in rows if each.partition.topic in gone]:
                del rows[key]

    def apply(self, key: OffsetKey, committed: CommittedOffset | None) -> None:
        """Adds the next record; None removes."""
        if committed is not None:
            self._groups.setdefault(key.group, {})[key.partition] = committed
        elif key.group in self._groups:
            self._groups[key.group].pop(key.partition, None)
            if not self._groups[key.group]:
                del self._groups[key.group]

    def apply_bytes(self, key: bytes | None, value: bytes | None, producer_id: int | None = None) -> None:
        """Adds the next record as it lies in the topic; `producer_id` where it is in a transaction."""
        parsed = decode_key(key) if key else None
        if parsed is None:
            return
        committed = None if value is None else decode_value(value)
        if producer_id is None:
            self.apply(parsed, committed)
        elif committed is not None:
            self.pend(producer_id, {parsed: committed})

    def of(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """A copy of the group's offsets."""
        return dict(self._groups.get(group, {}))

    def get(self, group: str, partition: TopicPartition) -> CommittedOffset | None:
        """One offset."""
        return self._groups.get(group, {}).get(partition)

    def groups(self) -> list[str]:
        """The groups that have any, sorted."""
        return sorted(self._groups)

    def keys_of_topics(self, gone: set[str]) -> list[OffsetKey]:
        """Every key whose topic is among `gone`."""
        return [
            OffsetKey(group, partition)
            for group, offsets in self._groups.items()
            for partition in offsets
            if partition.topic in gone
        ]

    def topics(self) -> set[str]:
        """The topics that offsets are committed for."""
        return {partition.topic for offsets in self._groups.values() for partition in offsets}
