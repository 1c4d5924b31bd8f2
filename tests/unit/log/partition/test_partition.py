"""A partition through its public methods: offsets, reading, refusals, rolls, times, epochs."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.clock import ManualClock
from tailrace.log.codec import BatchHeader
from tailrace.log.disk import MemoryDisk, RealDisk, join
from tailrace.log.errors import InvalidError
from tailrace.log.partition.extent import OffsetOutOfRangeError
from tailrace.log.partition.partition import Appended
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.partitions import FOLDER, NOW_MS, a_batch, at_times, opened, read_all, rows_of


def test_what_was_appended_is_read() -> None:
    partition = opened(MemoryDisk())
    assert partition.append(a_batch(b"a", b"b")) == Appended(0, 1, -1)
    assert partition.append(a_batch(b"c")) == Appended(2, 2, -1)
    assert rows_of(partition.read(0, 1 << 20)) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert rows_of(partition.read(1, 1 << 20), 1) == [(1, b"b"), (2, b"c")]
    assert partition.read(3, 100) == b""
    assert partition.log_end_offset == partition.high_watermark == partition.last_stable_offset == 3
    assert partition.synced_offset == 0
    assert partition.sync() == 3


@pytest.mark.parametrize("offset", [-1, 2])
def test_outside_the_log_is_out_of_range(offset: int) -> None:
    partition = opened(MemoryDisk())
    partition.append(a_batch(b"a"))
    with pytest.raises(OffsetOutOfRangeError, match=f"no offset {offset} in clicks-0, which has 0 to 1") as caught:
        partition.read(offset, 100)
    assert (caught.value.offset, caught.value.log_start_offset, caught.value.log_end_offset) == (offset, 0, 1)


def test_l16_a_batch_larger_than_asked_for_comes_whole() -> None:
    partition = opened(MemoryDisk())
    partition.append(a_batch(b"x" * 1_000_000))
    partition.append(a_batch(b"y"))
    assert [len(value or b"") for _, value in rows_of(partition.read(0, 1024))] == [1_000_000]
    assert rows_of(partition.read(1, 1)) == [(1, b"y")]


def test_a_limit_ends_the_reading() -> None:
    partition = opened(MemoryDisk())
    for value in (b"a", b"b", b"c"):
        partition.append(a_batch(value))
    assert rows_of(partition.read(0, 1000, limit=2)) == [(0, b"a"), (1, b"b")]
    assert partition.read(2, 1000, limit=2) == b""


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=60),
    segment_bytes=st.sampled_from([200, 500, 100_000]),
    interval=st.sampled_from([0, 100, 4096]),
    max_bytes=st.sampled_from([1, 150, 300, 100_000]),
    start=st.integers(0, 60),
)
def test_reading_is_a_slice_of_what_was_written(
    sizes: list[int], segment_bytes: int, interval: int, max_bytes: int, start: int
) -> None:
    disk = MemoryDisk()
    config = TopicConfig(segment_bytes=segment_bytes, index_interval_bytes=interval)
    partition = opened(disk, config)
    written: list[bytes] = []
    for size in sizes:
        values = [str(len(written) + index).encode() for index in range(size)]
        written += values
        partition.append(a_batch(*values))
    expected = list(enumerate(written))
    start = min(start, len(written))
    assert read_all(partition, max_bytes) == expected
    assert rows_of(partition.read(start, 1), start)[:1] == expected[start : start + 1]
    partition.close()
    assert read_all(opened(disk, config, recovery_point=len(written)), max_bytes) == expected
    assert read_all(opened(disk, config, recovery_point=0), max_bytes) == expected


def test_it_is_all_there_after_closing(tmp_path: Path) -> None:
    disk, directory = RealDisk(), join(str(tmp_path), "clicks-0")
    partition = opened(disk, directory=directory)
    partition.append(a_batch(b"a", b"b"))
    partition.close()
    assert partition.recovery_point == 2
    again = opened(disk, directory=directory, recovery_point=2)
    again.append(a_batch(b"c"))
    assert read_all(again) == [(0, b"a"), (1, b"b"), (2, b"c")]
    again.close()
    with pytest.raises(InvalidError, match="clicks-0 is closed"):
        again.read(0, 1)
    with pytest.raises(InvalidError, match="clicks-0 is closed"):
        again.append(a_batch(b"d"))


# ---- leader epochs


def test_each_opening_raises_the_epoch_and_batches_carry_it() -> None:
    disk = MemoryDisk()
    partition = opened(MemoryDisk())
    for round_ in range(3):
        partition = opened(disk)
        assert partition.leader_epoch == round_
        partition.append(a_batch(b"a"))
        partition.close()
    assert partition.epochs == [(0, 0), (1, 1), (2, 2)]
    assert [header.leader_epoch for header, _ in codec.batches(partition_bytes(disk))] == [0, 1, 2]
    assert [partition.end_of_epoch(each) for each in (-1, 0, 1, 2, 3)] == [0, 1, 2, 3, -1]


def test_an_epoch_without_a_record_leaves_no_trace() -> None:
    disk = MemoryDisk()
    opened(disk).close()
    opened(disk).close()
    assert opened(disk).epochs == [(2, 0)]


def partition_bytes(disk: MemoryDisk) -> bytes:
    file = disk.open(f"{FOLDER}/{0:020d}.log")
    return file.read(0, file.size)


# ---- refusals


def test_not_a_batch() -> None:
    partition = opened(MemoryDisk())
    good = a_batch(b"a")
    for bad, words in [
        (bytearray(b"hello"), "5 bytes for clicks-0 are no record batch"),
        (good + b"x", "are not one record batch of version 2"),
        (good[:16] + b"\x01" + good[17:], "they say version 1"),
        (good[:-1] + bytes([good[-1] ^ 1]), "damaged on its way"),
        (with_gap(), "says 2 records and a last offset delta of 5"),
    ]:
        with pytest.raises(InvalidError, match=words):
            partition.append(bad)
    assert partition.log_end_offset == 0


def with_gap() -> bytearray:
    build = codec.builder()
    build.append(0, 1, None, b"", [])
    build.append(5, 1, None, b"", [])
    return build.build()


def test_too_large_names_both_sizes() -> None:
    partition = opened(MemoryDisk(), TopicConfig(max_message_bytes=1000))
    with pytest.raises(InvalidError, match=r"a batch of 20\d\d bytes is too large for clicks-0, which takes 1000"):
        partition.append(a_batch(b"x" * 2000))
    small = opened(MemoryDisk(), TopicConfig(segment_bytes=1000))
    with pytest.raises(
        InvalidError, match=r"does not fit into a segment of clicks-0, which has 1000 \(segment.bytes\)"
    ):
        small.append(a_batch(b"x" * 2000))


def test_a_time_far_ahead_refuses_the_whole_batch() -> None:
    partition = opened(MemoryDisk())
    far = NOW_MS + 3_600_001
    with pytest.raises(
        InvalidError, match=rf"has the time {far} ms, 3600001 ms ahead .* message.timestamp.after.max.ms"
    ):
        partition.append(at_times(NOW_MS, far))
    assert partition.log_end_offset == 0
    partition.append(at_times(NOW_MS, far - 1))


def test_a_time_far_behind_refuses_the_whole_batch() -> None:
    partition = opened(MemoryDisk(), TopicConfig(message_timestamp_before_max_ms=1000))
    with pytest.raises(InvalidError, match=r"1001 ms behind .* message.timestamp.before.max.ms allows 1000"):
        partition.append(at_times(NOW_MS, NOW_MS - 1001, NOW_MS))
    partition.append(at_times(NOW_MS - 1000))


# ---- what the topic's configuration makes of a batch


def test_log_append_time() -> None:
    clock = ManualClock(NOW_MS)
    partition = opened(MemoryDisk(), TopicConfig(message_timestamp_type="LogAppendTime"), clock=clock)
    assert partition.append(at_times(1, 2, NOW_MS * 2)) == Appended(0, 2, NOW_MS)
    data = partition.read(0, 1000)
    assert [record.timestamp for _, batch in codec.batches(data) for record in codec.decode(batch)] == [NOW_MS] * 3
    assert codec.crc_ok(data)
    assert partition.offset_for_time(NOW_MS) == (0, NOW_MS)


def test_create_time_is_restored() -> None:
    batch = at_times(5, 7)
    codec.set_log_append_time(batch, 9)
    partition = opened(MemoryDisk())
    partition.append(batch)
    data = partition.read(0, 1000)
    assert not BatchHeader.parse(data).log_append_time
    assert codec.crc_ok(data)


@pytest.mark.parametrize(
    ("wanted", "sent", "stored"),
    [
        ("producer", codec.GZIP, codec.GZIP),
        ("uncompressed", codec.GZIP, codec.NONE),
        ("zstd", codec.NONE, codec.ZSTD),
        ("lz4", codec.SNAPPY, codec.LZ4),
    ],
)
def test_compression_is_the_producers_or_the_topics(wanted: str, sent: int, stored: int) -> None:
    partition = opened(MemoryDisk(), TopicConfig(compression_type=wanted))
    partition.append(a_batch(b"a" * 1000, b"b" * 1000, compression=sent))
    data = partition.read(0, 10_000)
    assert BatchHeader.parse(data).compression == stored
    assert rows_of(data) == [(0, b"a" * 1000), (1, b"b" * 1000)]
    assert codec.crc_ok(data)


# ---- rolling


def bases(config: TopicConfig, *batches: bytearray) -> list[int]:
    partition = opened(MemoryDisk(), config)
    for batch in batches:
        partition.append(batch)
    return partition.segment_offsets


def test_rolls_by_size() -> None:
    size = len(a_batch(b"a"))
    assert bases(TopicConfig(segment_bytes=2 * size), *(a_batch(b"a") for _ in range(5))) == [0, 2, 4]
    assert bases(TopicConfig(segment_bytes=2 * size - 1), *(a_batch(b"a") for _ in range(3))) == [0, 1, 2]


def test_rolls_by_record_time() -> None:
    times = [NOW_MS, NOW_MS + 1000, NOW_MS + 1001, NOW_MS + 900, NOW_MS + 2002]
    assert bases(TopicConfig(segment_ms=1000), *(at_times(each) for each in times)) == [0, 2, 4]


def test_rolls_when_an_index_is_full() -> None:
    config = TopicConfig(segment_index_bytes=36, index_interval_bytes=0)  # 4 offset entries; 3 time entries, 1 kept
    rising = bases(config, *(at_times(NOW_MS + index) for index in range(8)))
    assert rising == [0, 3, 6]
    same = bases(config, *(at_times(NOW_MS) for _ in range(11)))
    assert same == [0, 5, 10]


def test_rolls_before_a_relative_offset_overflows() -> None:
    disk = MemoryDisk()
    disk.mkdir(FOLDER)
    for offset in (2**31 - 3, 2**31 - 2):  # what compaction left of two thousand million records
        batch = a_batch(b"a")
        codec.set_base(batch, offset, 0)
        disk.open(f"{FOLDER}/{0:020d}.log", write=True).append(batch)
    partition = opened(disk)
    assert partition.log_end_offset == 2**31 - 1
    partition.append(a_batch(b"b"))
    partition.append(a_batch(b"c"))
    assert partition.segment_offsets == [0, 2**31]


# ---- offsets for times


def test_l01_offset_for_time() -> None:
    partition = opened(MemoryDisk())
    partition.append(at_times(10, 30, 20, 40, 40))
    assert [partition.offset_for_time(each) for each in (15, 25, 40, 41)] == [(1, 30), (1, 30), (3, 40), None]
    one_by_one = opened(MemoryDisk(), TopicConfig(segment_bytes=200, index_interval_bytes=0))
    for each in (10, 30, 20, 40, 40):
        one_by_one.append(at_times(each))
    assert [one_by_one.offset_for_time(each) for each in (15, 25, 40, 41)] == [(1, 30), (1, 30), (3, 40), None]


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=40),
    wanted=st.integers(0, 51),
    segment_bytes=st.sampled_from([200, 400, 100_000]),
    start=st.integers(0, 30),
)
def test_offset_for_time_is_the_first_not_older(
    times: list[list[int]], wanted: int, segment_bytes: int, start: int
) -> None:
    disk = MemoryDisk()
    config = TopicConfig(segment_bytes=segment_bytes, index_interval_bytes=100)
    partition = opened(disk, config)
    for each in times:
        partition.append(at_times(*each))
    flat = [each for batch in times for each in batch]
    start = min(start, len(flat))
    partition.delete_records(start)
    naive = next(((offset, each) for offset, each in enumerate(flat) if each >= wanted and offset >= start), None)
    assert partition.offset_for_time(wanted) == naive
    partition.close()
    again = opened(disk, config, recovery_point=len(flat), log_start_offset=start)
    assert again.offset_for_time(wanted) == naive
