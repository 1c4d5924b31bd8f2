"""Reads a topic of the log's own from an offset to its end: topics' records, committed offsets.

Not here: what the records mean (metadata, offsets).
"""

from collections.abc import Iterator
from typing import Final

from tailrace.log.codec import BatchHeader, batches, check_crc, crc_ok, decode
from tailrace.log.partition.partition import Partition

READ_BYTES: Final = 1 << 20


def batches_of(log: Partition, offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Every batch from `offset`, where one begins, to the end.

    Raises:
        CorruptError: a batch fails its CRC; file and byte are named.
    """
    offset = max(offset, log.log_start_offset)
    while data := log.read(offset, READ_BYTES):
        for header, view in batches(data):
            if not crc_ok(view):
                file, at = log.locate(header.base_offset)
                check_crc(view, file=file, position=at, where=f"{log.tp}@{header.base_offset}")
            yield header, view
            offset = header.next_offset


def records_of(log: Partition, offset: int) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Key and value of every record from `offset` to the end, control records left out. Raises as `batches_of`."""
    for header, view in batches_of(log, offset):
        if not header.control:
            for record in decode(view):
                if record.offset >= offset:
                    yield record.key, record.value
