"""What a cleaning keeps: the last record of each key, tombstones for their time, every offset where it was."""

import random
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.checking.verify import verify
from tailrace.log.clock import ManualClock
from tailrace.log.codec import BatchHeader
from tailrace.log.compaction.cleaning import BREATH_RECORDS, KEYS_FREED, Cleaned, clean
from tailrace.log.disk import Disk, MemoryDisk
from tailrace.log.errors import CorruptError, DiskFullError, InvalidError, TailraceError
from tailrace.log.partition.partition import Partition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.partitions import FOLDER, NOW_MS, opened

DAY_MS: Final = 86_400_000
Row = tuple[int, bytes | None, bytes | None]
Pair = tuple[bytes | None, bytes | None]

COMPACT = TopicConfig(cleanup_policy="compact", segment_bytes=400, index_interval_bytes=100)


def keyed(*pairs: Pair, timestamp_ms: int = NOW_MS, compression: int = codec.NONE) -> bytearray:
    return codec.encode([(key, value, timestamp_ms, [("h", key)]) for key, value in pairs], compression)


def rows(partition: Partition, max_bytes: int = 10_000) -> list[Row]:
    """Offset, key and value of everything, in as many reads as it takes, as a consumer reads."""
    out: list[Row] = []
    offset = partition.log_start_offset
    while data := partition.read(offset, max_bytes):
        for header, batch in codec.batches(data):
            codec.check_crc(batch, file="", position=0)
            out += [(each.offset, each.key, each.value) for each in codec.decode(batch) if each.offset >= offset]
            offset = header.next_offset
    assert offset == partition.log_end_offset
    return out


def roll(partition: Partition) -> None:
    """Fills the active segment so that the next batch makes another."""
    end = partition.segment_offsets[-1]
    while partition.segment_offsets[-1] == end:
        partition.append(keyed((b"filler", b"x" * 100)))


def cleaned(
    partition: Partition, disk: Disk, *, first_dirty: int = 0, now_ms: int = NOW_MS, budget_bytes: int = 1 << 20
) -> Cleaned:
    return clean(disk, ManualClock(now_ms), partition, first_dirty, budget_bytes=budget_bytes)


def test_l05_the_last_of_each_key_stays_and_tombstones_for_a_day() -> None:
    disk = MemoryDisk()
    batches = [
        keyed((b"a", b"1"), (b"b", b"1")),
        keyed((b"a", b"2"), (b"b", None), (b"c", b"1")),
    ]
    partition = opened(disk, TopicConfig(cleanup_policy="compact", segment_bytes=200))
    for batch in batches:
        partition.append(batch)
    partition.append(keyed((b"d", b"x" * 120)))
    assert partition.segment_offsets[-1] == 5
    done = cleaned(partition, disk)
    assert done.next_offset == 5
    assert done.due_ms == NOW_MS + DAY_MS
    assert rows(partition)[:-1] == [(2, b"a", b"2"), (3, b"b", None), (4, b"c", b"1")]
    done = cleaned(partition, disk, first_dirty=5, now_ms=NOW_MS + DAY_MS - 1)
    assert [row[0] for row in rows(partition)] == [2, 3, 4, 5]
    cleaned(partition, disk, first_dirty=5, now_ms=NOW_MS + DAY_MS)
    assert [row[0] for row in rows(partition)] == [2, 4, 5]
    assert partition.log_start_offset == 0
    assert verify(disk, FOLDER).ok


def test_l06_a_segment_younger_than_the_lag_and_all_after_it_stay() -> None:
    disk = MemoryDisk()
    config = TopicConfig(cleanup_policy="compact", segment_bytes=150, min_compaction_lag_ms=3_600_000)
    partition = opened(disk, config)
    old_ms, young_ms = NOW_MS - 7_200_000, NOW_MS - 600_000
    partition.append(keyed((b"a", b"1"), (b"b", b"1"), timestamp_ms=old_ms))
    partition.append(keyed((b"a", b"2"), (b"b", None), (b"c", b"1"), timestamp_ms=young_ms))
    partition.append(keyed((b"d", b"x" * 60), timestamp_ms=old_ms))
    partition.append(keyed((b"d", b"x" * 60), timestamp_ms=NOW_MS))
    before = rows(partition)
    done = cleaned(partition, disk)
    assert done.next_offset == 2
    assert rows(partition) == before


@pytest.mark.parametrize("keys", [[None], [b"a", None, b"b"]])
def test_l07_a_record_without_a_key_refuses_its_batch(keys: list[bytes | None]) -> None:
    partition = opened(MemoryDisk(), COMPACT)
    with pytest.raises(InvalidError, match=f"record {keys.index(None) + 1} of {len(keys)} .* has no key"):
        partition.append(keyed(*[(key, b"v") for key in keys]))
    assert partition.log_end_offset == 0


@pytest.mark.parametrize("compression", range(5))
def test_everything_else_of_a_record_and_its_batch_stays(compression: int) -> None:
    disk = MemoryDisk()
    partition = opened(disk, TopicConfig(cleanup_policy="compact", segment_bytes=600))
    rows_in: list[tuple[bytes, bytes | None, int, list[tuple[str, bytes | None]]]] = [
        (b"a", b"1", 5, [("x", b"1")]),
        (b"b", b"1", 7, [("y", None)]),
        (b"c", None, 3, []),
        (b"a", b"2", 9, []),
    ]
    partition.append(codec.encode(rows_in, compression, producer_id=7, producer_epoch=2, base_sequence=40))
    partition.append(keyed((b"pad", random.Random(0).randbytes(400)), compression=compression))
    partition.append(keyed((b"b", random.Random(1).randbytes(400)), compression=compression))
    before = BatchHeader.parse(partition.read(0, 1))
    cleaned(partition, disk)
    batch = partition.read(0, 1)
    header = BatchHeader.parse(batch)
    assert codec.crc_ok(batch)
    found = [(each.offset, each.key, each.value, each.timestamp, each.headers) for each in codec.decode(batch)]
    # "b" is in the active segment again, which is no reason for it to go
    assert found == [(1, b"b", b"1", 7, [("y", None)]), (2, b"c", None, 3, []), (3, b"a", b"2", 9, [])]
    assert header.delete_horizon_ms == NOW_MS + DAY_MS
    assert header.max_timestamp_ms == 9
    changed = {"length", "crc", "attributes", "base_timestamp_ms", "max_timestamp_ms", "record_count"}
    old, new = before._asdict(), header._asdict()
    assert {name: old[name] for name in old if name not in changed} == {
        name: new[name] for name in new if name not in changed
    }
    cleaned(partition, disk, first_dirty=partition.segment_offsets[-1], now_ms=NOW_MS + 2 * DAY_MS)
    header = BatchHeader.parse(partition.read(0, 1))
    assert header.delete_horizon_ms is None
    assert (header.record_count, header.base_timestamp_ms, header.compression) == (2, 7, compression)


def test_log_append_time_stays_the_time_of_all() -> None:
    disk = MemoryDisk()
    config = TopicConfig(cleanup_policy="compact", segment_bytes=400, message_timestamp_type="LogAppendTime")
    partition = opened(disk, config)
    partition.append(keyed((b"a", b"1"), (b"b", None), (b"a", b"2"), timestamp_ms=1))
    roll(partition)
    cleaned(partition, disk)
    batch = partition.read(0, 1)
    assert BatchHeader.parse(batch).log_append_time
    assert [(each.offset, each.timestamp) for each in codec.decode(batch)] == [(1, NOW_MS), (2, NOW_MS)]


def test_a_log_whose_end_was_removed_still_ends_where_it_did() -> None:
    disk = MemoryDisk()
    partition = opened(disk, TopicConfig(cleanup_policy="compact", segment_bytes=200, delete_retention_ms=0))
    partition.append(keyed((b"a", b"1")))
    partition.append(keyed((b"a", None)))
    partition.append(keyed((b"b", b"x" * 100)))
    end = partition.segment_offsets[-1]
    cleaned(partition, disk)
    cleaned(partition, disk, first_dirty=end)
    assert [row[0] for row in rows(partition)] == list(range(end, partition.log_end_offset))
    first = BatchHeader.parse(partition.read(0, 1))
    assert (first.last_offset, first.record_count) == (end - 1, 0)
    partition.close()
    again = opened(disk, COMPACT, recovery_point=partition.recovery_point)
    assert [row[0] for row in rows(again)] == list(range(end, again.log_end_offset))
    assert verify(disk, FOLDER).ok


def test_records_without_a_key_from_before_go() -> None:
    disk = MemoryDisk()
    partition = opened(disk, TopicConfig(segment_bytes=400))
    partition.append(keyed((None, b"1"), (b"a", b"1"), (None, b"2")))
    roll(partition)
    partition.config = COMPACT
    cleaned(partition, disk)
    assert rows(partition)[0] == (1, b"a", b"1")


def test_small_neighbours_become_one_segment() -> None:
    disk = MemoryDisk()
    partition = opened(disk, COMPACT)
    for number in range(60):
        partition.append(keyed((b"k%d" % (number % 5), b"v" * 100)))
    many = len(partition.segment_offsets)
    cleaned(partition, disk)
    again = cleaned(partition, disk, first_dirty=partition.segment_offsets[-1])
    assert len(partition.segment_offsets) < many / 2
    assert again.rounds == 0
    assert partition.apply_retention(NOW_MS) == []
    assert partition.offset_for_time(NOW_MS) == (rows(partition)[0][0], NOW_MS)
    assert verify(disk, FOLDER).ok
    files = set(disk.list(FOLDER))
    partition.apply_retention(NOW_MS + 60_000)
    assert {name for name in files if ".deleted" in name}
    assert not [name for name in disk.list(FOLDER) if name.endswith((".deleted", ".cleaned", ".swap"))]


def test_nothing_is_written_where_nothing_changes() -> None:
    disk = FaultyDisk()
    disk.mkdir("/log")
    partition = opened(disk, COMPACT)
    for number in range(20):
        partition.append(keyed((b"k%d" % number, b"v" * 250)))
    cleaned(partition, disk)
    before = disk.operations
    cleaned(partition, disk, first_dirty=partition.segment_offsets[-1])
    assert disk.operations == before


def test_a_damaged_segment_is_left_as_it_is() -> None:
    disk = MemoryDisk()
    partition = opened(disk, COMPACT)
    for _ in range(4):
        roll(partition)
    path = f"{FOLDER}/{partition.segment_offsets[1]:020d}.log"
    disk._node(path).data[100] ^= 1  # pyright: ignore[reportPrivateUsage]  # a bit of the disk
    with pytest.raises(CorruptError):
        cleaned(partition, disk)
    assert not [name for name in disk.list(FOLDER) if name.endswith((".cleaned", ".swap", ".deleted"))]


def test_a_full_disk_leaves_the_old_segments() -> None:
    disk = FaultyDisk()
    disk.mkdir("/log")
    partition = opened(disk, COMPACT)
    for number in range(60):
        partition.append(keyed((b"k%d" % (number if number < 10 else number % 3), b"v" * 100)))
    before = rows(partition)
    disk.capacity = disk.used() + 50
    with pytest.raises(DiskFullError):
        cleaned(partition, disk)
    assert rows(partition) == before
    assert not [name for name in disk.list(FOLDER) if name.endswith((".cleaned", ".swap", ".deleted"))]
    disk.capacity = None
    cleaned(partition, disk)
    assert len(rows(partition)) < len(before)


@pytest.mark.parametrize("breath", range(1, 60, 3))
def test_a_segment_that_retention_takes_meanwhile_ends_the_cleaning(breath: int) -> None:
    disk = MemoryDisk()
    partition = opened(disk, replace(COMPACT, file_delete_delay_ms=0))
    for number in range(30):
        partition.append(keyed((b"k%d" % (number % 3), b"v" * 100)))
    breaths = 0

    def breathe() -> None:
        nonlocal breaths
        breaths += 1
        if breaths == breath and len(partition.segment_offsets) > 3:
            partition.delete_records(partition.segment_offsets[2])
            partition.apply_retention(NOW_MS)

    before = rows(partition)
    clean(disk, ManualClock(NOW_MS), partition, 0, breathe=breathe)
    found = rows(partition)
    assert set(found) <= {row for row in before if row[0] >= partition.log_start_offset}
    assert {row[1] for row in found} == {b"k0", b"k1", b"k2"}
    assert not [name for name in disk.list(FOLDER) if name.endswith((".cleaned", ".swap"))]
    clean(disk, ManualClock(NOW_MS), partition, 0)
    assert rows(partition) == model(before, partition.log_start_offset, partition.segment_offsets[-1])


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_reader_beside_the_writer_misses_no_last_value(seed: int) -> None:
    chance = random.Random(seed)
    disk = MemoryDisk()
    partition = opened(disk, replace(COMPACT, file_delete_delay_ms=0, segment_bytes=chance.choice([300, 1500])))
    written: list[Row] = []
    reader = opened(disk, COMPACT, read_only=True)
    offset, seen = 0, list[Row]()
    for _ in range(40):
        if chance.random() < 0.7:
            pairs: list[Pair] = [(b"%d" % chance.randint(0, 9), chance.randbytes(20)) for _ in range(3)]
            base = partition.append(keyed(*pairs)).base_offset
            written += [(base + index, key, value) for index, (key, value) in enumerate(pairs)]
        if chance.random() < 0.2:
            cleaned(partition, disk)
            partition.checkpoint()
            partition.apply_retention(NOW_MS)
        if chance.random() < 0.5:
            for header, batch in codec.batches(reader.read(offset, chance.choice([1, 500]))):
                codec.check_crc(batch, file="", position=0)
                seen += [(each.offset, each.key, each.value) for each in codec.decode(batch) if each.offset >= offset]
                offset = header.next_offset
    while data := reader.read(offset, 10_000):
        for header, batch in codec.batches(data):
            seen += [(each.offset, each.key, each.value) for each in codec.decode(batch) if each.offset >= offset]
            offset = header.next_offset
    assert offset == partition.log_end_offset
    assert {key: value for _, key, value in seen} == {key: value for _, key, value in written}
    assert set(seen) <= set(written)
    assert [row[0] for row in seen] == sorted({row[0] for row in seen})


@pytest.mark.parametrize(
    ("operation", "path"),
    [("sync_dir", FOLDER), ("rename", ".log.cleaned"), ("rename", ".log.swap"), ("rename", ".timeindex.swap")],
)
def test_a_disk_that_refuses_in_the_middle(operation: str, path: str) -> None:
    disk = FaultyDisk()
    disk.mkdir("/log")
    partition = opened(disk, COMPACT)
    for number in range(60):
        partition.append(keyed((b"k%d" % (number % 25), b"v%d" % number + b"x" * 100)))
    partition.checkpoint()
    last = {key: (offset, value) for offset, key, value in rows(partition)}
    disk.fail(operation, OSError(5, "bad disk"), path=path)
    with pytest.raises(OSError, match="bad disk"):
        cleaned(partition, disk)
    assert {key: (offset, value) for offset, key, value in rows(partition)} == last
    if path in {".log.swap", ".timeindex.swap"}:  # decided, and what is on disk is not known
        with pytest.raises(TailraceError, match="open it again"):
            partition.append(keyed((b"k", b"v")))
    again = opened(disk, COMPACT)
    assert {key: (offset, value) for offset, key, value in rows(again)} == last
    assert not [name for name in disk.list(FOLDER) if name.endswith((".cleaned", ".swap"))]


def model(records: list[Row], start: int, end: int) -> list[Row]:
    """The last of each key below `end`, and everything after."""
    last = {key: offset for offset, key, _ in records if offset < end}
    return [row for row in records if row[0] >= start and (row[0] >= end or last[row[1]] == row[0])]


@given(st.integers(0, 2**32), st.sampled_from([0, 2_000, 1 << 20]))
@settings(max_examples=80, deadline=None)
def test_any_appends_and_cleanings_leave_what_a_dict_would(seed: int, budget_bytes: int) -> None:
    chance = random.Random(seed)
    disk = MemoryDisk()
    config = TopicConfig(
        cleanup_policy="compact",
        segment_bytes=chance.choice([500, 2_000]),
        index_interval_bytes=200,
        delete_retention_ms=10**15,
    )
    partition = opened(disk, config)
    written: list[Row] = []
    first_dirty = point = 0
    for _ in range(chance.randint(1, 60)):
        action = chance.random()
        if action < 0.8:
            pairs = [
                (b"%d" % chance.randint(0, 30), chance.choice([None, b"", chance.randbytes(30)]))
                for _ in range(chance.randint(1, 6))
            ]
            base = partition.append(keyed(*pairs, compression=chance.choice([0, 0, 1, 4]))).base_offset
            written += [(base + index, key, value) for index, (key, value) in enumerate(pairs)]
        elif action < 0.95:
            first_dirty = cleaned(
                partition, disk, first_dirty=chance.choice([0, first_dirty]), budget_bytes=budget_bytes
            ).next_offset
            assert first_dirty == partition.segment_offsets[-1]
        else:
            partition.close()
            point = chance.choice([0, partition.recovery_point])
            partition = opened(disk, config, recovery_point=point)
        expected = model(written, 0, first_dirty)
        assert rows(partition, chance.choice([1, 300, 10_000])) == expected
        for offset, _, _ in expected[:: max(1, len(expected) // 5)]:
            found = [
                each.offset
                for _, batch in codec.batches(partition.read(offset, 1))
                for each in codec.decode(batch)
                if each.offset >= offset
            ]
            assert found[0] == offset
    report = verify(disk, FOLDER)
    assert report.damage == []


@pytest.mark.parametrize(("batches", "records", "breaths"), [(1, 12_000, 10), (2_000, 1, 10)])
def test_other_threads_are_let_on_however_large_or_small_batches_are(batches: int, records: int, breaths: int) -> None:
    disk = MemoryDisk()
    partition = opened(disk, replace(COMPACT, segment_bytes=1 << 20, max_message_bytes=1 << 20))
    for number in range(batches):
        partition.append(keyed(*((b"%d" % (number + each), b"v") for each in range(records))))
    partition.append(keyed((b"last", b"v" * ((1 << 20) - 200))))
    breathed: list[None] = []
    clean(disk, ManualClock(NOW_MS), partition, 0, breathe=lambda: breathed.append(None))
    without_work = 1  # a breath for each segment that is opened
    assert len(breathed) - without_work >= breaths


def test_a_small_cleaning_hardly_waits() -> None:
    """Each breath is a pause: one for each table of keys made forty small partitions take ten seconds."""
    disk = MemoryDisk()
    partition = opened(disk, COMPACT)
    for number in range(50):
        partition.append(keyed((b"%d" % (number % 10), b"v")))
    segments = len(partition.segment_offsets)
    breathed: list[None] = []
    clean(disk, ManualClock(NOW_MS), partition, 0, breathe=lambda: breathed.append(None))
    assert len(rows(partition)) < 20
    assert len(breathed) <= segments + 2


def breaths(keys: int) -> int:
    """How often a cleaning of 100,000 records breathes, by the number of their keys."""
    disk = MemoryDisk()
    partition = opened(disk, replace(COMPACT, segment_bytes=1 << 22, max_message_bytes=1 << 22))
    partition.append(keyed(*((b"%d" % (number % keys), b"v") for number in range(100_000))))
    partition.append(keyed((b"last", b"v" * ((1 << 22) - 200))))
    breathed: list[None] = []
    clean(disk, ManualClock(NOW_MS), partition, 0, breathe=lambda: breathed.append(None))
    return len(breathed)


def test_many_keys_are_not_given_back_at_once() -> None:
    assert breaths(100_000) - breaths(1) >= 100_000 // KEYS_FREED // BREATH_RECORDS - 1
