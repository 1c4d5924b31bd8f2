"""Record batches as bytes: Kafka's RecordBatch v2, through aiokafka's compiled codec. Pure functions.

1. A batch is 61 bytes of header and then its records, which alone are compressed. Its CRC-32C covers everything from
   the attributes on; base offset and leader epoch stand before it, so the log sets them without touching the rest.
2. What is decoded was checked: a function that reads records is given a batch whose CRC was found right.
3. There is no way around the compiled codec: without it everything is 11 to 29 times slower, so importing this module
   fails.

Not here: files (`segment`), what a timestamp may be (`partition`). Format: docs/log_format.md.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, cast

from aiokafka import codec as compression_codecs
from crc32c import crc32c

from tailrace.log.errors import CorruptError, InvalidError
from tailrace.log.record import RawRecord

try:
    from aiokafka.record._crecords import default_records as compiled
except ImportError as error:  # pragma: no cover - needs a broken installation
    raise ImportError(
        "aiokafka is installed without its compiled record codec, and tailrace does not run on the slow one: install "
        "a wheel of aiokafka for this Python (`pip install --force-reinstall --only-binary aiokafka aiokafka`)"
    ) from error

Data = bytes | bytearray | memoryview
RecordHeaders = list[tuple[str, bytes | None]]

MAGIC: Final = 2
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
COMPRESSIONS: Final = {"none": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
COMPRESSION_NAMES: Final = tuple(COMPRESSIONS)

# attributes
CODEC_MASK: Final = 0x07
LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20
DELETE_HORIZON: Final = 0x40  # the first timestamp is then the time at which tombstones may go (KIP-534)

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES: Final = _HEADER.size
LENGTH_PREFIX_BYTES: Final = 12  # base offset and length: what the field `length` does not count
_START: Final = struct.Struct(">qi")
_TIMES: Final = struct.Struct(">qq")
_EPOCH_AT, _CRC_AT, _ATTRIBUTES_AT, _LAST_DELTA_AT, _BASE_TIME_AT, _MAX_TIME_AT, _PRODUCER_AT, _COUNT_AT = (
    12,
    17,
    21,
    23,
    27,
    35,
    43,
    57,
)
_EMPTY_RECORD_BYTES: Final = 7  # length, attributes, both deltas, no key, no value, no headers: a byte each
_NO_HEADERS: RecordHeaders = []  # the builder only reads it; one list for all records
assert HEADER_BYTES == 61


class BatchBuilder(Protocol):
    """A batch that is being filled (aiokafka's DefaultRecordBatchBuilder)."""

    def append(
        self, offset: int, timestamp: int | None, key: bytes | None, value: bytes | None, headers: RecordHeaders
    ) -> object | None:
        """Adds a record at `offset` after the first; None where it does not fit any more. Headers: a list, always."""
        ...

    def size(self) -> int:
        """Bytes so far, before compression."""
        ...

    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Says whose batch it is, before `build`."""
        ...

    def build(self) -> bytearray:
        """The batch, sealed; base offset 0."""
        ...


class BatchHeader(NamedTuple):
    """The 61 bytes before the records, in their order."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @classmethod
    def parse(cls, data: Data, position: int = 0) -> "BatchHeader":
        """Reads a header; `struct.error` where fewer than 61 bytes are left. Nothing is checked."""
        return cls._make(_HEADER.unpack_from(data, position))

    @property
    def size(self) -> int:
        """The whole batch in bytes."""
        return self.length + LENGTH_PREFIX_BYTES

    @property
    def last_offset(self) -> int:
        """Offset of the last record, or of where it was before compaction."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The offset after this batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def compression(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
        return self.attributes & CODEC_MASK

    @property
    def compression_name(self) -> str:
        """The codec's name, `unknown-5` for one that Kafka does not have."""
        codec = self.attributes & CODEC_MASK
        return COMPRESSION_NAMES[codec] if codec <= ZSTD else f"unknown-{codec}"

    @property
    def log_append_time(self) -> bool:
        """Whether the log's clock stands in the max timestamp and holds for every record."""
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def control(self) -> bool:
        """Whether its records are markers (commit, abort) and not a user's."""
        return bool(self.attributes & CONTROL)

    @property
    def delete_horizon_ms(self) -> int | None:
        """When the tombstones in it may go, where a compaction has written that down."""
        return self.base_timestamp_ms if self.attributes & DELETE_HORIZON else None


# ---- writing


def builder(
    compression: int = NONE,
    batch_bytes: int = 65_536,
    *,
    transactional: bool = False,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> BatchBuilder:
    """A batch to be filled record by record: `append(offset_delta, timestamp_ms, key, value, headers)`, then `build()`.

    `append` returns None when the record does not fit into `batch_bytes` any more; the first one always fits.
    """
    made = compiled.DefaultRecordBatchBuilder(
        MAGIC, compression, int(transactional), producer_id, producer_epoch, base_sequence, batch_bytes
    )
    return cast("BatchBuilder", made)


def encode(
    records: Iterable[tuple[bytes | None, bytes | None, int, Sequence[tuple[str, bytes | None]]]],
    compression: int = NONE,
    *,
    transactional: bool = False,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytearray:
    """One batch of all `records`, each `(key, value, timestamp_ms, headers)`; offsets from 0.

    Raises:
        ValueError: no record: Kafka has no empty batch.
    """
    build = builder(
        compression,
        2**31 - 1,
        transactional=transactional,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
    )
    append = build.append
    delta = -1
    for delta, (key, value, timestamp_ms, headers) in enumerate(records):
        append(delta, timestamp_ms, key, value, list(headers) if headers else _NO_HEADERS)
    if delta < 0:
        raise ValueError("a batch needs at least one record")
    return build.build()


def encode_columns(
    values: Sequence[bytes | None],
    *,
    start: int = 0,
    keys: Sequence[bytes | None] | None = None,
    timestamps_ms: Sequence[int] | int,
    headers: Sequence[RecordHeaders] | None = None,
    compression: int = NONE,
    batch_bytes: int = 65_536,
) -> tuple[bytearray, int]:
    """The fast way for bulk: one batch of as many records from `start` on as fit, and the index after the last.

    `timestamps_ms` is one for all or one each; `headers` likewise (a list of pairs for all, or a list of such lists).

    Raises:
        ValueError: nothing from `start` on.
    """
    if start >= len(values):
        raise ValueError("a batch needs at least one record")
    batch = builder(compression, batch_bytes)
    append = batch.append
    # The shapes of bulk input have loops of their own: one loop over all columns makes 3.9 M records/s, these 5.
    if headers is None and isinstance(timestamps_ms, int):
        if keys is None:
            for index in range(start, len(values)):
                if append(index - start, timestamps_ms, None, values[index], _NO_HEADERS) is None:
                    return batch.build(), index
        else:
            for index in range(start, len(values)):
                if append(index - start, timestamps_ms, keys[index], values[index], _NO_HEADERS) is None:
                    return batch.build(), index
    elif headers is None and keys is not None and not isinstance(timestamps_ms, int):
        for index in range(start, len(values)):
            if append(index - start, timestamps_ms[index], keys[index], values[index], _NO_HEADERS) is None:
                return batch.build(), index
    else:
        for index in range(start, len(values)):
            timestamp = timestamps_ms if isinstance(timestamps_ms, int) else timestamps_ms[index]
            key = None if keys is None else keys[index]
            row = _NO_HEADERS if headers is None else headers[index]
            if append(index - start, timestamp, key, values[index], row) is None:
                return batch.build(), index
    return batch.build(), len(values)


def set_base(batch: bytearray, base_offset: int, leader_epoch: int) -> None:
    """Writes where the batch stands into it; neither field is under the CRC."""
    _START.pack_into(batch, 0, base_offset, len(batch) - LENGTH_PREFIX_BYTES)
    struct.pack_into(">i", batch, _EPOCH_AT, leader_epoch)


def set_log_append_time(batch: bytearray, timestamp_ms: int) -> None:
    """Makes `timestamp_ms` the time of every record in it; with a new CRC."""
    _set_attributes(batch, _attributes(batch) | LOG_APPEND_TIME)
    struct.pack_into(">q", batch, _MAX_TIME_AT, timestamp_ms)
    _seal(batch)


def set_create_time(batch: bytearray) -> None:
    """Takes the log-append-time bit away; with a new CRC."""
    _set_attributes(batch, _attributes(batch) & ~LOG_APPEND_TIME)
    _seal(batch)


def set_control(batch: bytearray) -> None:
    """Marks its records as markers; with a new CRC."""
    _set_attributes(batch, _attributes(batch) | CONTROL)
    _seal(batch)


def recompress(batch: Data, compression: int) -> bytearray:
    """The same records, offsets, timestamps and flags under another codec; with a new CRC.

    Raises:
        CorruptError: the records cannot be decompressed.
    """
    header = BatchHeader.parse(batch)
    payload = _compress(_decompress(header, memoryview(batch)[HEADER_BYTES:]), compression)
    out = bytearray(memoryview(batch)[:HEADER_BYTES])
    out += payload
    _set_attributes(out, header.attributes & ~CODEC_MASK | compression)
    struct.pack_into(">i", out, 8, len(out) - LENGTH_PREFIX_BYTES)
    _seal(out)
    return out


def keep(batch: Data, records: Sequence[RawRecord], *, delete_horizon_ms: int | None = None) -> bytearray:
    """The batch with only these of its records, as a cleaning leaves it: the rest of the header stays, but for times.

    No record at all is allowed. `delete_horizon_ms`: from when on its tombstones may go.
    """
    header = BatchHeader.parse(batch)
    compression, horizon_bit = header.compression if records else NONE, 0
    base_ms = max_ms = -1  # without records there is no time: the time index must not point here
    payload: Data = b""
    if records:
        build = builder(NONE, 2**31 - 1)
        if delete_horizon_ms is not None:  # times are relative to the first: it is put there, and then cut off again
            build.append(0, delete_horizon_ms, None, None, _NO_HEADERS)
        base_offset, append = header.base_offset, build.append
        for record in records:
            pairs = cast("RecordHeaders", record.headers) or _NO_HEADERS  # the compiled codec makes lists
            append(record.offset - base_offset, record.timestamp, record.key, record.value, pairs)
        built = build.build()
        base_ms, max_ms = _TIMES.unpack_from(built, _BASE_TIME_AT)
        payload = memoryview(built)[HEADER_BYTES:]
        if delete_horizon_ms is not None:
            horizon_bit, payload = DELETE_HORIZON, payload[_EMPTY_RECORD_BYTES:]
            max_ms = max(record.timestamp for record in records)
    out = bytearray(memoryview(batch)[:HEADER_BYTES])
    out += _compress(bytes(payload), compression)
    struct.pack_into(">i", out, 8, len(out) - LENGTH_PREFIX_BYTES)
    _set_attributes(out, header.attributes & ~(CODEC_MASK | DELETE_HORIZON) | compression | horizon_bit)
    _TIMES.pack_into(out, _BASE_TIME_AT, base_ms, max_ms)
    struct.pack_into(">i", out, _COUNT_AT, len(records))
    _seal(out)
    return out


def _attributes(batch: Data) -> int:
    return int(struct.unpack_from(">h", batch, _ATTRIBUTES_AT)[0])


def _set_attributes(batch: bytearray, attributes: int) -> None:
    struct.pack_into(">h", batch, _ATTRIBUTES_AT, attributes)


def _seal(batch: bytearray) -> None:
    with memoryview(batch) as view:
        crc = crc32c(view[_ATTRIBUTES_AT:])
    struct.pack_into(">I", batch, _CRC_AT, crc)


# ---- reading


def compute_crc(batch: Data) -> int:
    """CRC-32C over attributes to end of one batch."""
    return crc32c(memoryview(batch)[_ATTRIBUTES_AT:])


def crc_ok(batch: Data) -> bool:
    """Whether one batch is as it was sealed."""
    return compute_crc(batch) == int(struct.unpack_from(">I", batch, _CRC_AT)[0])


def check_crc(batch: Data, *, file: str, position: int, where: str = "") -> None:
    """Refuses a batch whose CRC is wrong; `where` is what the reader knows of it, `clicks-0@17`.

    Raises:
        CorruptError: with the CRC in the header as expected, the computed one as found.
    """
    expected, found = int(struct.unpack_from(">I", batch, _CRC_AT)[0]), compute_crc(batch)
    if expected != found:
        raise CorruptError(
            f"{where or 'a batch'} in {file} at byte {position} is damaged: its CRC is {found:08x}, the header says "
            f"{expected:08x}; look with `tailrace log verify`, then restore the file",
            file=file,
            position=position,
            expected=f"crc {expected:08x}",
            found=f"crc {found:08x}",
        )


def batches(data: Data) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The whole batches in `data`, one after the other; ends quietly at an incomplete one. Nothing is checked."""
    view = memoryview(data)
    position, end = 0, len(view)
    while end - position >= HEADER_BYTES:
        header = BatchHeader.parse(view, position)
        if header.length < HEADER_BYTES - LENGTH_PREFIX_BYTES or header.size > end - position:
            return
        yield header, view[position : position + header.size]
        position += header.size


def whole_batches(data: Data, *, limit: int | None = None) -> int:
    """How many bytes at the start of `data` are whole batches, all of whose offsets are below `limit`."""
    position, end = 0, len(data)
    start = _START.unpack_from
    last_delta = struct.Struct(">i").unpack_from
    while end - position >= HEADER_BYTES:
        base_offset, length = start(data, position)
        after = position + length + LENGTH_PREFIX_BYTES
        if length < HEADER_BYTES - LENGTH_PREFIX_BYTES or after > end:
            break
        if limit is not None and base_offset + last_delta(data, position + _LAST_DELTA_AT)[0] >= limit:
            break
        position = after
    return position


def decode(batch: Data) -> Iterator[RawRecord]:
    """The records of one batch, to be iterated once: `.offset .timestamp .key .value .headers`. CRC not checked here.

    Offsets are those of the records themselves: in a compacted batch there are gaps.
    """
    # A delete horizon in place of the base timestamp changes nothing here: the deltas are relative to that field.
    records = compiled.DefaultRecordBatch(cast("bytes", batch))  # takes every buffer
    return cast("Iterator[RawRecord]", iter(records))  # it is the asking for the iterator that decompresses


def control_type(record: RawRecord) -> int:
    """What a marker says, from its key (version 2 bytes, type 2 bytes): 0 abort, 1 commit; -1 where it is none."""
    key = record.key
    return int(struct.unpack_from(">h", key, 2)[0]) if key is not None and len(key) >= 4 else -1


def _decompress(header: BatchHeader, payload: memoryview) -> bytes:
    try:
        match header.compression:
            case 0:
                return bytes(payload)
            case 1:
                return bytes(compression_codecs.gzip_decode(payload))
            case 2:
                return bytes(compression_codecs.snappy_decode(payload))
            case 3:
                return bytes(compression_codecs.lz4_decode(payload))
            case 4:
                return bytes(compression_codecs.zstd_decode(payload))
            case unknown:
                raise ValueError(f"there is no compression {unknown}")
    except Exception as error:
        raise InvalidError(
            f"the records of the batch at offset {header.base_offset} cannot be decompressed ({header.compression_name}"
            f": {error}); write them again"
        ) from error


def _compress(payload: bytes, compression: int) -> bytes:
    match compression:
        case 1:
            return bytes(compression_codecs.gzip_encode(payload))
        case 2:
            return bytes(compression_codecs.snappy_encode(payload))
        case 3:
            return bytes(compression_codecs.lz4_encode(payload))
        case 4:
            return bytes(compression_codecs.zstd_encode(payload))
        case _:
            return payload
