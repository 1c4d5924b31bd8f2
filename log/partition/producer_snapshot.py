"""The file `<offset>.snapshot`: what a partition knows of its producers before that offset, in Kafka's bytes.

1. Version 1: version (2 bytes), CRC-32C of all that follows (4), number of producers (4), 46 bytes for each.
2. The last batch of each is in it, not the five that are known in memory: Kafka's form has no room for more.
3. A file that is torn or damaged is none: the one before it, or the log itself, says the same.
4. Where Kafka keeps the time of the last records, the clock's time of the last batch stands: a backlog of last year
   must not make its producer look forgotten (`producers`, 4).

Not here: when it is written and removed (`stability`). Format: docs/log_format.md, after Kafka's ProducerSnapshot.json.
"""

import struct
from collections.abc import Sequence
from typing import Final

from crc32c import crc32c

from tailrace.log.disk import Disk, join, parent
from tailrace.log.partition.producers import NONE, KnownBatch, ProducerState
from tailrace.log.partition.segment import segment_name
from tailrace.log.topic import INT32_MAX

SNAPSHOT: Final = ".snapshot"
VERSION: Final = 1
_HEAD: Final = struct.Struct(">hIi")  # version, CRC, number of producers
EMPTY_BYTES: Final = _HEAD.size
_CRC_FROM: Final = 6
# producer id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch, transaction's first offset
_ENTRY: Final = struct.Struct(">qhiqiqiq")
assert _ENTRY.size == 46


def offset_of(name: str) -> int | None:
    """The offset in the name of a snapshot, None for any other name."""
    stem = name.removesuffix(SNAPSHOT)
    return int(stem) if name.endswith(SNAPSHOT) and len(stem) == 20 and stem.isdigit() else None


def path_at(directory: str, offset: int) -> str:
    """The snapshot of what stands before `offset`."""
    return join(directory, segment_name(offset) + SNAPSHOT)


def encode_snapshot(states: Sequence[ProducerState]) -> bytes:
    """The bytes of a file."""
    body = struct.pack(">i", len(states)) + b"".join(_entry(each) for each in states)
    return struct.pack(">hI", VERSION, crc32c(body)) + body


def _entry(state: ProducerState) -> bytes:
    sequence, offset, delta = NONE, NONE, 0
    if state.batches:
        last = state.batches[-1]
        sequence, offset, delta = last.last_sequence, last.last_offset, last.last_offset - last.base_offset
    return _ENTRY.pack(
        state.producer_id,
        state.epoch,
        sequence,
        offset,
        delta,
        state.seen_ms,
        state.coordinator_epoch,
        state.first_offset,
    )


def decode_snapshot(data: bytes) -> list[ProducerState]:
    """The producers in a file.

    Raises:
        ValueError: another version, a wrong CRC, or a length that does not fit.
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"{len(data)} bytes, where {_HEAD.size} are the least")
    version, crc, count = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"version {version}, where {VERSION} is known")
    if crc != (found := crc32c(data[_CRC_FROM:])):
        raise ValueError(f"crc {found:08x}, where the file says {crc:08x}")
    if len(data) != _HEAD.size + count * _ENTRY.size:
        raise ValueError(f"{len(data)} bytes for {count} producers")
    return [_state(*each) for each in _ENTRY.iter_unpack(data[_HEAD.size :])]


def _state(
    producer_id: int,
    epoch: int,
    sequence: int,
    offset: int,
    delta: int,
    timestamp_ms: int,
    coordinator_epoch: int,
    first_offset: int,
) -> ProducerState:
    state = ProducerState(producer_id, epoch, coordinator_epoch, timestamp_ms, first_offset, timestamp_ms)
    if offset >= 0:
        first = NONE if sequence == NONE else (sequence - delta) & INT32_MAX
        state.batches.append(KnownBatch(first, sequence, offset - delta, offset, timestamp_ms))
    return state


def read_snapshot(disk: Disk, path: str) -> list[ProducerState]:
    """The producers in a file.

    Raises:
        ValueError: see `decode_snapshot`.
        FileNotFoundError: it is gone.
    """
    file = disk.open(path)
    try:
        return decode_snapshot(file.read(0, file.size))
    finally:
        file.close()


def write_snapshot(disk: Disk, path: str, data: bytes, *, sync: bool) -> None:
    """Writes a file; without `sync` it may be torn by a crash, which its CRC tells.

    Raises:
        DiskFullError: no room; what is there is no snapshot.
    """
    file = disk.open(path, write=True)
    try:
        file.truncate(0)
        file.append(data)
        if sync:
            file.sync()
    finally:
        file.close()
    if sync:
        disk.sync_dir(parent(path))
