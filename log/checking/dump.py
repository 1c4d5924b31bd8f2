"""The batches of a segment, a partition or a log as plain objects, one per batch, in the shape of `tailrace log dump`.

1. It writes nothing and takes no lock; beside a writer it ends at what that one has not finished.
2. A batch whose CRC is wrong is shown with `crc_ok` false and without records, as nothing in it can be trusted.

Not here: whether all is well (`verify`).
"""

import base64
from collections.abc import Iterator
from typing import Any

from tailrace.log import checkpoint, codec
from tailrace.log.codec import BatchHeader
from tailrace.log.disk import Disk, File
from tailrace.log.errors import InvalidError
from tailrace.log.partition.markers import decode_marker
from tailrace.log.partition.producer_snapshot import SNAPSHOT, read_snapshot
from tailrace.log.partition.recovery import corrupt, describe, is_torn
from tailrace.log.partition.segment import TXN_INDEX, path_of, scan
from tailrace.log.partition.txn_index import unpack
from tailrace.log.record import RawRecord
from tailrace.log.topics.layout import PartitionFiles, look


def dump(disk: Disk, path: str, *, records: bool = True) -> Iterator[dict[str, Any]]:
    """One object per batch, ready for JSON: its header's fields and, unless `records` is false, its records.

    `path` is a segment, a partition's folder or a log's; or a `.snapshot`, with an object per producer, or a
    `.txnindex`, with an object per aborted transaction.

    Raises:
        InvalidError: nothing of a log is there, or a snapshot is torn.
        CorruptError: bytes in the middle that are no batch; a torn tail ends the dump quietly.
    """
    if path.endswith(SNAPSHOT):
        yield from _dump_snapshot(disk, path)
        return
    if path.endswith(TXN_INDEX):
        for entry in unpack(checkpoint.read_file(disk, path) or b""):
            yield {"file": path} | entry._asdict()
        return
    place = look(disk, path)
    for partition in place.partitions:
        for base in partition.chosen:
            try:
                file = disk.open(path_of(partition.directory, base))
            except FileNotFoundError:  # the writer's retention has taken it
                continue
            try:
                yield from _dump_file(file, partition, base, records=records)
            finally:
                file.close()


def _dump_snapshot(disk: Disk, path: str) -> Iterator[dict[str, Any]]:
    try:
        states = read_snapshot(disk, path)
    except ValueError as error:
        raise InvalidError(f"{path} is torn, and no snapshot ({error}): opening its log makes it anew") from None
    for state in states:
        last = state.batches[-1] if state.batches else None
        yield {
            "file": path,
            "producer_id": state.producer_id,
            "producer_epoch": state.epoch,
            "coordinator_epoch": state.coordinator_epoch,
            "last_sequence": state.last_sequence,
            "last_offset": -1 if last is None else last.last_offset,
            "first_offset": state.first_offset,
            "timestamp_ms": state.seen_ms,
        }


def _dump_file(file: File, partition: PartitionFiles, base: int, *, records: bool) -> Iterator[dict[str, Any]]:
    end, position, next_offset = file.size, 0, base
    for at, header, batch in scan(file, 0, end):
        if header.magic != codec.MAGIC or header.base_offset < next_offset or header.last_offset_delta < 0:
            break
        yield batch_as_json(file.path, header, batch, records=records)
        position, next_offset = at + header.size, header.next_offset
    if position < end and not (base == partition.every[-1] and is_torn(file, position, end, base, next_offset)):
        raise corrupt(file.path, next_offset, describe(file, position, end, next_offset))


def batch_as_json(file: str, header: BatchHeader, batch: codec.Data, *, records: bool = True) -> dict[str, Any]:
    """One batch in the shape of `log dump`; `file` is named in it."""
    crc_ok = header.crc == codec.compute_crc(batch)
    shown: dict[str, Any] = {
        "file": file,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.record_count,
        "crc_ok": crc_ok,
        "magic": header.magic,
        "compression": header.compression_name,
        "transactional": header.transactional,
        "control": header.control,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "leader_epoch": header.leader_epoch,
        "timestamp_type": "LogAppendTime" if header.log_append_time else "CreateTime",
        "max_timestamp_ms": header.max_timestamp_ms,
        "size_bytes": header.size,
    }
    if header.control and crc_ok:
        marker = decode_marker(batch)
        if marker is not None:
            kind = "commit" if marker.committed else "abort"
            shown["marker"] = {"type": kind, "coordinator_epoch": marker.coordinator_epoch}
    if records:
        shown["records"] = [record_as_json(each) for each in codec.decode(batch)] if crc_ok else []
    return shown


def record_as_json(record: RawRecord) -> dict[str, Any]:
    """One record in the shape of `log dump`."""
    return {
        "offset": record.offset,
        "timestamp_ms": record.timestamp,
        "key": bytes_as_json(record.key),
        "value": bytes_as_json(record.value),
        "headers": [[name, bytes_as_json(value)] for name, value in record.headers],
    }


def bytes_as_json(data: bytes | None) -> str | dict[str, str] | None:
    """Text where the bytes are UTF-8, else `{"base64": …}`; None stays None."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
