"""What a batch must be to be appended to a partition, and the form in which it is stored. Pure functions.

1. What passes is one whole batch of version 2 with a right CRC, offsets 0, 1, 2, … and times within the topic's bounds;
   in a compacted topic every record has a key. A batch that does not is refused whole, before anything is written.
2. The form stored is the topic's: its compression, its kind of timestamp. A control batch is never compressed anew.

Not here: whether its sequence is the producer's next (`producers`), where it lands (`partition`).
"""

from operator import attrgetter

from tailrace.log import codec
from tailrace.log.codec import HEADER_BYTES, BatchHeader
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig

_key = attrgetter("key")


def check_batch(tp: TopicPartition, config: TopicConfig, batch: bytearray) -> BatchHeader:
    """The header of a batch that may be appended, as far as its bytes alone say.

    Raises:
        InvalidError: not one whole batch of version 2 with a right CRC, too large, or without keys where these must be.
    """
    size = len(batch)
    if size > config.max_message_bytes:
        raise InvalidError(
            f"a batch of {size} bytes is too large for {tp}, which takes {config.max_message_bytes} "
            f"(max.message.bytes): send smaller values or batches, or raise it for the topic"
        )
    if size < HEADER_BYTES:
        raise InvalidError(f"{size} bytes for {tp} are no record batch, which has {HEADER_BYTES} at least")
    header = BatchHeader.parse(batch)
    if header.magic != codec.MAGIC or header.size != size:
        raise InvalidError(
            f"the bytes for {tp} are not one record batch of version {codec.MAGIC}: they say version "
            f"{header.magic} and {header.size} bytes, and are {size}"
        )
    if header.record_count < 1 or header.last_offset_delta != header.record_count - 1:
        raise InvalidError(
            f"the batch for {tp} says {header.record_count} records and a last offset delta of "
            f"{header.last_offset_delta}: send it with offsets 0, 1, 2, …"
        )
    if not codec.crc_ok(batch):
        raise InvalidError(f"the batch for {tp} was damaged on its way: its CRC is wrong; send it again")
    if config.compacted and not header.control:
        _check_keys(tp, batch)
    return header


def _check_keys(tp: TopicPartition, batch: bytearray) -> None:
    if all(map(_key, codec.decode(batch))):
        return
    keys = [record.key for record in codec.decode(batch)]
    if None in keys:
        raise InvalidError(
            f"record {keys.index(None) + 1} of {len(keys)} in a batch for {tp} has no key, which every record "
            f"of a compacted topic needs: give it one; nothing of its batch was appended"
        )


def check_timestamps(
    tp: TopicPartition, config: TopicConfig, batch: bytearray, header: BatchHeader, *, now_ms: int
) -> None:
    """Refuses times out of the topic's bounds around `now_ms`, unless the log's own clock replaces them.

    Raises:
        InvalidError: a record ahead of the clock, or behind it, by more than the topic allows.
    """
    if config.log_append_time:
        return
    ahead = header.max_timestamp_ms - now_ms
    if ahead > config.message_timestamp_after_max_ms:
        raise InvalidError(
            f"a record for {tp} has the time {header.max_timestamp_ms} ms, {ahead} ms ahead of the clock; "
            f"message.timestamp.after.max.ms allows {config.message_timestamp_after_max_ms}: correct the time, or "
            f"raise that for the topic; nothing of its batch was appended"
        )
    if now_ms > config.message_timestamp_before_max_ms:
        oldest = min(record.timestamp for record in codec.decode(batch))
        if now_ms - oldest > config.message_timestamp_before_max_ms:
            raise InvalidError(
                f"a record for {tp} has the time {oldest} ms, {now_ms - oldest} ms behind the clock here; "
                f"message.timestamp.before.max.ms allows {config.message_timestamp_before_max_ms}: correct the "
                f"time, or raise that for the topic; nothing of its batch was appended"
            )


def as_stored(
    config: TopicConfig, batch: bytearray, header: BatchHeader, *, now_ms: int
) -> tuple[bytearray, BatchHeader]:
    """The batch under the topic's compression and kind of timestamp."""
    wanted = config.compression_type
    changed = False
    if wanted != "producer" and not header.control:
        compression = codec.COMPRESSIONS["none" if wanted == "uncompressed" else wanted]
        if compression != header.compression:
            batch, changed = codec.recompress(batch, compression), True
    if config.log_append_time:
        codec.set_log_append_time(batch, now_ms)
        changed = True
    elif header.log_append_time:
        codec.set_create_time(batch)
        changed = True
    return batch, BatchHeader.parse(batch) if changed else header
