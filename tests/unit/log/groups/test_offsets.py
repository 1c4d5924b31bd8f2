"""Committed offsets: Kafka's bytes, and the table."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import CommittedOffset
from tailrace.log.errors import InvalidError
from tailrace.log.groups.offsets import (
    OffsetKey,
    OffsetTable,
    check_commit,
    decode_key,
    decode_value,
    encode_key,
    encode_value,
)
from tailrace.log.record import TopicPartition

KEY = OffsetKey("g", TopicPartition("clicks", 3))


def test_the_bytes_are_kafkas() -> None:
    assert encode_key(KEY) == bytes.fromhex("0001 0001 67 0006 636c69636b73 00000003".replace(" ", ""))
    value = encode_value(CommittedOffset(42, 7, "m"), 1000)
    assert value == bytes.fromhex("0003 000000000000002a 00000007 0001 6d 00000000000003e8".replace(" ", ""))


@given(
    st.text(min_size=1, max_size=20),
    st.integers(0, 2**63 - 1),
    st.integers(-1, 2**31 - 1),
    st.text(max_size=50),
    st.integers(0, 2**31 - 1),
)
@settings(max_examples=60, deadline=None)
def test_what_is_committed_comes_back(group: str, offset: int, epoch: int, metadata: str, number: int) -> None:
    key = OffsetKey(group, TopicPartition("t", number))
    committed = CommittedOffset(offset, epoch, metadata)
    assert decode_key(encode_key(key)) == key
    assert decode_value(encode_value(committed, 5)) == committed


@pytest.mark.parametrize(
    ("data", "committed"),
    [
        (struct.pack(">hqh2sq", 0, 5, 2, b"mm", 9), CommittedOffset(5, -1, "mm")),
        (struct.pack(">hqh2sqq", 1, 5, 2, b"mm", 9, 10), CommittedOffset(5, -1, "mm")),
        (struct.pack(">hqh2sq", 2, 5, 2, b"mm", 9), CommittedOffset(5, -1, "mm")),
        (struct.pack(">hqib2sqb", 4, 5, 6, 3, b"mm", 9, 0), CommittedOffset(5, 6, "mm")),
    ],
)
def test_older_and_newer_versions_are_read(data: bytes, committed: CommittedOffset) -> None:
    assert decode_value(data) == committed


def test_other_records_are_passed_over_and_unknown_values_refused() -> None:
    assert decode_key(struct.pack(">hh1s", 2, 1, b"g")) is None
    with pytest.raises(InvalidError, match="version 9"):
        decode_value(struct.pack(">hq", 9, 5))
    with pytest.raises(InvalidError, match="string"):
        decode_key(struct.pack(">hh1s", 1, 100, b"g"))


def test_the_last_record_counts_and_null_removes() -> None:
    table = OffsetTable()
    table.apply_bytes(encode_key(KEY), encode_value(CommittedOffset(1), 0))
    table.apply_bytes(encode_key(KEY), encode_value(CommittedOffset(2), 0))
    table.apply_bytes(None, b"")
    assert table.of("g") == {KEY.partition: CommittedOffset(2)}
    assert (table.groups(), table.topics()) == (["g"], {"clicks"})
    table.apply_bytes(encode_key(KEY), None)
    table.apply_bytes(encode_key(KEY), None)
    assert (table.groups(), table.get("g", KEY.partition)) == ([], None)


@pytest.mark.parametrize(
    ("group", "committed"),
    [("", CommittedOffset(1)), ("g", CommittedOffset(-1)), ("g", CommittedOffset(1, 0, "x" * 4097))],
)
def test_what_could_not_be_stored_is_refused(group: str, committed: CommittedOffset) -> None:
    with pytest.raises(InvalidError):
        check_commit(group, {KEY.partition: committed})
