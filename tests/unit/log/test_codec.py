"""Batches as bytes: what goes in comes out, under every compression; the header's fields; flags and CRCs."""

import struct

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchPy  # pyright: ignore[reportPrivateUsage]  # the naive model
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.codec import BatchHeader
from tailrace.log.errors import CorruptError, InvalidError

MAYBE_BYTES = st.none() | st.binary(max_size=300)
RECORDS = st.lists(
    st.tuples(
        MAYBE_BYTES,
        MAYBE_BYTES,
        st.integers(0, 2**41),
        st.lists(st.tuples(st.text(max_size=5), MAYBE_BYTES), max_size=2),
    ),
    min_size=1,
    max_size=30,
)


def shown(batch: codec.Data) -> list[tuple[object, ...]]:
    return [(each.offset, each.key, each.value, each.timestamp, each.headers) for each in codec.decode(batch)]


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.sampled_from(range(5)), st.integers(0, 2**40))
def test_what_goes_in_comes_out(
    records: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]], compression: int, base: int
) -> None:
    batch = codec.encode(records, compression)
    codec.set_base(batch, base, 7)
    assert codec.crc_ok(batch)
    expected = [(base + index, *record) for index, record in enumerate(records)]
    assert shown(batch) == expected
    naive = [(each.offset, each.key, each.value, each.timestamp, each.headers) for each in _DefaultRecordBatchPy(batch)]
    assert naive == expected
    header = BatchHeader.parse(batch)
    assert (header.base_offset, header.leader_epoch, header.magic) == (base, 7, 2)
    assert (header.size, header.record_count) == (len(batch), len(records))
    assert (header.last_offset, header.next_offset) == (base + len(records) - 1, base + len(records))
    assert header.max_timestamp_ms == max(record[2] for record in records)
    assert header.compression in {0, compression}  # what does not get smaller is left alone


@settings(max_examples=40, deadline=None)
@given(RECORDS, st.sampled_from(range(5)), st.sampled_from(range(5)))
def test_recompressing_changes_no_record(
    records: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]], before: int, after: int
) -> None:
    batch = codec.encode(records, before, transactional=True, producer_id=9, producer_epoch=2, base_sequence=4)
    codec.set_base(batch, 100, 3)
    again = codec.recompress(batch, after)
    assert codec.crc_ok(again)
    assert shown(again) == shown(batch)
    old, new = BatchHeader.parse(batch), BatchHeader.parse(again)
    assert new.compression == after
    assert new.size == len(again)
    same = (
        "base_offset",
        "leader_epoch",
        "producer_id",
        "producer_epoch",
        "base_sequence",
        "record_count",
        "transactional",
    )
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]


@pytest.mark.parametrize("shape", ["plain", "keys", "times", "headers"])
def test_columns_are_cut_into_batches(shape: str) -> None:
    values: list[bytes | None] = [b"v" * 50 + str(index).encode() for index in range(100)]
    keys: list[bytes | None] | None = [str(index).encode() for index in range(100)] if shape != "plain" else None
    times: list[int] | int = 5 if shape in {"plain", "keys"} else list(range(100))
    row: codec.RecordHeaders = [("n", b"1")]
    headers = [row] * 100 if shape == "headers" else None
    found: list[tuple[object, ...]] = []
    start = 0
    while start < len(values):
        batch, after = codec.encode_columns(
            values, start=start, keys=keys, timestamps_ms=times, headers=headers, batch_bytes=1000
        )
        assert len(batch) <= 1000
        codec.set_base(batch, start, 0)
        found += shown(batch)
        start = after
    assert found == [
        (
            index,
            keys[index] if keys else None,
            value,
            times if isinstance(times, int) else times[index],
            [("n", b"1")] if headers else [],
        )
        for index, value in enumerate(values)
    ]


def test_a_record_larger_than_the_batch_still_fits_alone() -> None:
    batch, after = codec.encode_columns([b"x" * 5000, b"y"], timestamps_ms=1, batch_bytes=100)
    assert after == 1
    assert len(batch) > 5000


def test_no_empty_batch() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        codec.encode([])
    with pytest.raises(ValueError, match="at least one record"):
        codec.encode_columns([], timestamps_ms=1)


def test_log_append_time_is_every_records_time_and_can_be_taken_back() -> None:
    batch = codec.encode([(None, b"a", 10, ()), (None, b"b", 30, ())])
    codec.set_log_append_time(batch, 99)
    assert codec.crc_ok(batch)
    assert BatchHeader.parse(batch).log_append_time
    assert [each.timestamp for each in codec.decode(batch)] == [99, 99]
    codec.set_create_time(batch)
    assert codec.crc_ok(batch)
    assert [each.timestamp for each in codec.decode(batch)] == [10, 30]


@pytest.mark.parametrize("kind", [0, 1])
def test_markers_are_recognised(kind: int) -> None:
    batch = codec.encode([(struct.pack(">hh", 0, kind), b"", 10, ())], transactional=True, producer_id=1)
    assert not BatchHeader.parse(batch).control
    codec.set_control(batch)
    assert codec.crc_ok(batch)
    header = BatchHeader.parse(batch)
    assert header.control
    assert header.transactional
    assert [codec.control_type(record) for record in codec.decode(batch)] == [kind]


def test_a_delete_horizon_is_the_base_of_the_times() -> None:
    """Kafka's cleaner writes the horizon into the base timestamp, and the records' times relative to it (KIP-534)."""
    batch = codec.encode([(b"k", None, 1000, ())])
    struct.pack_into(">h", batch, 21, codec.DELETE_HORIZON)
    assert BatchHeader.parse(batch).delete_horizon_ms == 1000
    assert [record.timestamp for record in codec.decode(batch)] == [1000]


def test_gaps_of_a_compacted_batch() -> None:
    build = codec.builder()
    build.append(0, 1, b"a", b"1", [])
    build.append(4, 1, b"b", b"2", [])
    batch = build.build()
    codec.set_base(batch, 10, 0)
    assert [record.offset for record in codec.decode(batch)] == [10, 14]
    assert BatchHeader.parse(batch).next_offset == 15


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_is_seen(place: int, bit: int) -> None:
    batch = codec.encode([(b"key", b"value" * 20, 5, ())])
    at = 21 + place % (len(batch) - 21)
    batch[at] ^= 1 << bit
    with pytest.raises(CorruptError, match=r"clicks-0@17 in 0\.log at byte 40 is damaged: its CRC is") as caught:
        codec.check_crc(batch, file="0.log", position=40, where="clicks-0@17")
    assert caught.value.position == 40
    assert caught.value.expected != caught.value.found


def test_batches_ends_quietly_at_an_incomplete_one() -> None:
    first, second = (codec.encode([(None, value, 1, ())]) for value in (b"a", b"b"))
    codec.set_base(second, 1, 0)
    data = first + second
    assert [header.base_offset for header, _ in codec.batches(data)] == [0, 1]
    for cut in range(1, len(second)):
        assert [header.base_offset for header, _ in codec.batches(data[:-cut])] == [0]
    assert codec.whole_batches(data) == len(data)
    assert codec.whole_batches(data[:-1]) == len(first)
    assert codec.whole_batches(data, limit=1) == len(first)
    assert codec.whole_batches(data, limit=0) == 0


def test_records_that_cannot_be_decompressed() -> None:
    batch = codec.encode([(None, b"a" * 1000, 1, ())], codec.GZIP)
    batch[70:80] = b"\xff" * 10
    with pytest.raises(InvalidError, match=r"offset 0 cannot be decompressed \(gzip"):
        codec.recompress(batch, codec.ZSTD)
