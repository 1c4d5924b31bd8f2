"""Batches of producers with an id, and what a reader of committed records sees, for the tests of transactions."""

from collections.abc import Sequence

from tailrace.log import codec
from tailrace.log.partition.partition import Appended, Partition
from tailrace.tests.support.partitions import NOW_MS

Row = tuple[int, bytes | None, bytes | None]


def sent(
    *values: bytes | None,
    producer: int = 7,
    epoch: int = 0,
    sequence: int = -1,
    keys: Sequence[bytes | None] | None = None,
    transactional: bool = True,
    compression: int = codec.NONE,
) -> bytearray:
    """One batch of a producer with an id."""
    return codec.encode(
        [(keys[at] if keys else None, value, NOW_MS, ()) for at, value in enumerate(values)],
        compression,
        transactional=transactional,
        producer_id=producer,
        producer_epoch=epoch,
        base_sequence=sequence,
    )


def ended(
    partition: Partition, producer: int = 7, *, committed: bool, epoch: int = 0, coordinator: int = 0
) -> Appended:
    """Ends a producer's transaction."""
    return partition.append_marker(producer, epoch, committed=committed, coordinator_epoch=coordinator)


def committed_rows(partition: Partition) -> list[Row]:
    """What is read up to the last stable offset without aborted records: offset, key, value."""
    offset, limit = partition.log_start_offset, partition.last_stable_offset
    out: list[Row] = []
    while offset < limit:
        data = partition.read(offset, 5000, limit=limit)
        aborted = partition.aborted(offset, limit)
        for header, batch in codec.batches(data):
            codec.check_crc(batch, file="", position=0)
            gone = header.transactional and any(
                each.producer_id == header.producer_id and each.first_offset <= header.base_offset <= each.last_offset
                for each in aborted
            )
            if not header.control and not gone:
                out += [(each.offset, each.key, each.value) for each in codec.decode(batch) if each.offset >= offset]
            offset = header.next_offset
        if not data:
            break
    return out
