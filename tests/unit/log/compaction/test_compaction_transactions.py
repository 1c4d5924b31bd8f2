"""Compaction with transactions: who reads what is committed finds the same values before and after, at every crash."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.checking.verify import verify
from tailrace.log.clock import ManualClock
from tailrace.log.codec import BatchHeader
from tailrace.log.compaction.cleaning import Cleaned, clean
from tailrace.log.disk import Disk, MemoryDisk
from tailrace.log.partition.partition import Partition
from tailrace.log.partition.producers import EXPIRATION_MS, AbortedTransaction
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk, PowerLossError
from tailrace.tests.support.partitions import FOLDER, NOW_MS, opened
from tailrace.tests.support.transactions import Row, committed_rows, ended, sent

DAY_MS = 86_400_000
CONFIG = TopicConfig(cleanup_policy="compact", segment_bytes=500, index_interval_bytes=100, file_delete_delay_ms=0)


def keyed(key: bytes, value: bytes | None, producer: int, sequence: int, epoch: int = 0) -> bytearray:
    return sent(value, keys=[key], producer=producer, sequence=sequence, epoch=epoch)


def headers(partition: Partition) -> list[BatchHeader]:
    out: list[BatchHeader] = []
    offset = partition.log_start_offset
    while data := partition.read(offset, 10_000):
        out += [header for header, _ in codec.batches(data)]
        offset = out[-1].next_offset
    return out


def markers(partition: Partition) -> list[int]:
    """The offsets of the markers that are there."""
    return [each.base_offset for each in headers(partition) if each.control and each.record_count]


def roll(partition: Partition) -> None:
    """Fills the active segment with other keys, so that all before is closed."""
    last = partition.segment_offsets[-1]
    while partition.segment_offsets[-1] == last:
        partition.append(codec.encode([(b"filler%d" % partition.log_end_offset, b"x" * 100, NOW_MS, ())]))
    partition.sync()


def cleaned(partition: Partition, disk: Disk, first_dirty: int = 0, *, now_ms: int = NOW_MS) -> Cleaned:
    return clean(disk, ManualClock(now_ms), partition, first_dirty)


def table(rows: list[Row]) -> dict[bytes | None, tuple[int, bytes]]:
    latest = {key: (offset, value) for offset, key, value in rows}
    return {key: (offset, value) for key, (offset, value) in latest.items() if value is not None}


def test_aborted_records_go_and_do_not_shadow_committed_ones() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    partition.append(keyed(b"a", b"committed", 7, 0))
    ended(partition, committed=True)
    partition.append(keyed(b"a", b"aborted", 7, 1))
    ended(partition, committed=False)
    partition.append(keyed(b"b", b"of another", 7, 2))
    ended(partition, committed=True)
    roll(partition)
    before = committed_rows(partition)
    cleaned(partition, disk)
    assert committed_rows(partition) == before
    assert 2 not in [each.base_offset for each in headers(partition)]


def test_nothing_is_cleaned_from_the_last_stable_offset_on() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    partition.append(keyed(b"a", b"1", 7, 0))
    ended(partition, committed=True)
    roll(partition)
    partition.append(keyed(b"b", b"open", 8, 0))
    stop = partition.segment_offsets[-1]
    for _ in range(3):
        roll(partition)
    before = headers(partition)
    assert partition.last_stable_offset < partition.segment_offsets[-2]
    done = cleaned(partition, disk)
    assert done.next_offset <= stop
    assert [each for each in headers(partition) if each.base_offset >= stop] == [
        each for each in before if each.base_offset >= stop
    ]
    ended(partition, 8, committed=True)
    partition.sync()
    assert cleaned(partition, disk, done.next_offset).next_offset == partition.segment_offsets[-1]


def test_a_marker_stays_until_its_data_is_gone_and_a_day_has_passed() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    partition.append(keyed(b"a", b"1", 7, 0))
    ended(partition, committed=False)
    partition.append(keyed(b"b", b"1", 7, 1))
    ended(partition, committed=True)
    partition.append(keyed(b"b", b"2", 7, 2))
    ended(partition, committed=True)
    roll(partition)
    first = cleaned(partition, disk)  # the data of the first two goes
    assert markers(partition) == [1, 3, 5]
    assert first.due_ms is None
    second = cleaned(partition, disk)  # it is gone: from now on they may be forgotten
    assert markers(partition) == [1, 3, 5]
    assert partition.aborted(0, 10) == [AbortedTransaction(7, 0, 1)]
    assert second.due_ms == NOW_MS + DAY_MS
    cleaned(partition, disk, second.next_offset, now_ms=NOW_MS + DAY_MS - 1)
    assert markers(partition) == [1, 3, 5]
    waits = cleaned(partition, disk, second.next_offset, now_ms=NOW_MS + DAY_MS)
    assert (markers(partition), waits.due_ms) == ([1, 3, 5], NOW_MS + DAY_MS)  # no snapshot has counted them in
    partition.checkpoint()
    third = cleaned(partition, disk, second.next_offset, now_ms=NOW_MS + DAY_MS)
    assert markers(partition) == [5]
    assert partition.aborted(0, 10) == []
    assert third.due_ms is None
    assert [row for row in committed_rows(partition) if row[1] == b"b"] == [(4, b"b", b"2")]


def test_the_last_batch_of_a_producer_stays_empty() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    partition.append(keyed(b"a", b"1", 7, 0, epoch=3))
    partition.append(keyed(b"a", b"2", 8, 0))
    ended(partition, epoch=3, committed=True)
    ended(partition, 8, committed=True)
    roll(partition)
    for _ in range(3):
        cleaned(partition, disk, now_ms=NOW_MS + 2 * DAY_MS)
    kept = {each.producer_id: each for each in headers(partition) if each.producer_id >= 0 and not each.control}
    assert (kept[7].record_count, kept[7].base_sequence, kept[7].producer_epoch) == (0, 0, 3)
    assert kept[8].record_count == 1
    again = rebuilt(disk, partition)
    assert again.append(keyed(b"a", b"1", 7, 0, epoch=3)).duplicate
    assert not again.append(keyed(b"a", b"3", 7, 1, epoch=3)).duplicate
    assert again.open_transactions()[0].first_offset == again.log_end_offset - 1


def test_a_producer_that_is_forgotten_leaves_nothing() -> None:
    disk = MemoryDisk()
    clock = ManualClock(NOW_MS)
    partition = opened(disk, CONFIG, clock=clock)
    partition.append(keyed(b"a", b"1", 7, 0))
    ended(partition, committed=False)
    roll(partition)
    clock.advance(EXPIRATION_MS)
    partition.checkpoint()
    for days in (0, 0, 1):
        cleaned(partition, disk, now_ms=clock.now_ms() + days * DAY_MS)
    assert {each.producer_id for each in headers(partition) if each.record_count} == {-1}


def test_a_producer_known_by_its_marker_alone_stays_fenced() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    partition.append(keyed(b"a", b"1", 7, 0))
    ended(partition, epoch=1, committed=False)
    roll(partition)
    for days in range(4):
        cleaned(partition, disk, now_ms=NOW_MS + days * DAY_MS)
    again = rebuilt(disk, partition)
    with pytest.raises(Exception, match="taken its place"):
        again.append(keyed(b"a", b"1", 7, 1))


def test_aborted_ranges_move_with_merged_segments() -> None:
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    for number in range(30):
        partition.append(keyed(b"k%d" % (number % 4), b"v" * 50, 7, number))
        if number % 3 == 2:
            ended(partition, committed=number % 2 == 0)
    ended(partition, committed=True)
    partition.checkpoint()
    roll(partition)
    before = partition.aborted(0, partition.log_end_offset)
    assert len(before) == 5
    count = len(partition.segment_offsets)
    cleaned(partition, disk)
    cleaned(partition, disk)  # what shrank is put together
    assert len(partition.segment_offsets) < count
    assert partition.aborted(0, partition.log_end_offset) == before
    assert verify(disk, FOLDER).damage == []
    partition.close()
    again = opened(disk, CONFIG, recovery_point=partition.recovery_point)
    assert again.aborted(0, partition.log_end_offset) == before


def rebuilt(disk: Disk, partition: Partition, point: int = 0) -> Partition:
    """Opened anew from the log alone."""
    partition.close()
    for name in disk.list(FOLDER):
        if name.endswith(".snapshot"):
            disk.remove(f"{FOLDER}/{name}")
    return opened(disk, CONFIG, recovery_point=point)


@dataclass
class Story:
    """Producers of a table that begin, commit and abort."""

    chance: random.Random
    disk: Disk
    epochs: dict[int, int] = field(default_factory=dict[int, int])
    sequences: dict[int, int] = field(default_factory=dict[int, int])
    first_dirty: int = 0
    now_ms: int = NOW_MS

    def write(self, partition: Partition, *, count: int) -> None:
        chance = self.chance
        for _ in range(count):
            producer, key = chance.choice([7, 8, 9]), b"%d" % chance.randint(0, 12)
            epoch, sequence = self.epochs.get(producer, 0), self.sequences.get(producer, 0)
            match chance.choices(["send", "plain", "end", "fence"], [8, 2, 3, 1])[0]:
                case "send":
                    value = chance.choice([None, chance.randbytes(20)])
                    assert not partition.append(keyed(key, value, producer, sequence, epoch)).duplicate
                    self.sequences[producer] = sequence + 1
                case "plain":
                    partition.append(codec.encode([(key, chance.randbytes(10), NOW_MS, ())]))
                case "end":
                    ended(partition, producer, epoch=epoch, committed=chance.random() < 0.5)
                case _:
                    ended(partition, producer, epoch=epoch + 1, committed=False)
                    self.epochs[producer], self.sequences[producer] = epoch + 1, 0

    def clean(self, partition: Partition) -> None:
        self.now_ms += self.chance.choice([0, DAY_MS // 2, DAY_MS])
        dirty = self.chance.choice([0, self.first_dirty])
        self.first_dirty = cleaned(partition, self.disk, dirty, now_ms=self.now_ms).next_offset


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_committed_stays_per_key(seed: int) -> None:
    chance = random.Random(seed)
    disk = MemoryDisk()
    partition = opened(disk, CONFIG)
    story = Story(chance, disk)
    for _ in range(chance.randint(1, 6)):
        story.write(partition, count=chance.randint(0, 40))
        partition.sync()
        before, opens = committed_rows(partition), partition.open_transactions()
        everything = {each.producer_id: each for each in headers(partition) if each.producer_id >= 0}
        story.clean(partition)
        after = committed_rows(partition)
        assert table(after) == table(before)
        assert set(after) <= set(before)
        assert partition.open_transactions() == opens
        if chance.random() < 0.5:
            partition.checkpoint()
        if chance.random() < 0.5:
            end = partition.log_end_offset
            partition = rebuilt(disk, partition, chance.choice([0, end]))
            assert table(committed_rows(partition)) == table(before)
            assert [each.first_offset for each in partition.open_transactions()] == [
                each.first_offset for each in opens
            ]
            assert {each.producer_id: each.epoch for each in partition.producer_ends()} == {
                producer: header.producer_epoch for producer, header in everything.items()
            }
    partition.close()
    assert verify(disk, FOLDER).damage == []


def run_and_crash(seed: int, stop_after: int, *, kill_only: bool) -> bool:
    disk = FaultyDisk(seed)
    disk.mkdir("/log")
    disk.sync_dir("/")
    partition = opened(disk, CONFIG)
    story = Story(random.Random(seed % 5), disk)
    story.write(partition, count=25)
    for producer in (7, 8, 9):
        ended(partition, producer, epoch=story.epochs.get(producer, 0), committed=producer != 8)
    partition.checkpoint()
    roll(partition)
    before, aborted = committed_rows(partition), partition.aborted(0, partition.log_end_offset)
    point = partition.recovery_point
    disk.power_loss_after(stop_after)
    lost = False
    try:
        for _ in range(2):
            story.clean(partition)
            partition.apply_retention(story.now_ms)
            partition.checkpoint()
    except PowerLossError:
        lost = True
    if kill_only:
        disk.kill()
    else:
        disk.crash()
    for again in (opened(disk, CONFIG, recovery_point=point), opened(disk, CONFIG)):
        assert table(committed_rows(again)) == table(before)
        found = again.aborted(0, again.log_end_offset)  # one that is rebuilt begins with the first batch that is left
        assert {(each.producer_id, each.last_offset) for each in found} <= {
            (each.producer_id, each.last_offset) for each in aborted
        }
        assert again.open_transactions() == []
        again.close()
        assert verify(disk, FOLDER).damage == []
    for _ in range(2):
        again = opened(disk, CONFIG)
        story.clean(again)
        assert table(committed_rows(again)) == table(before)
        again.close()
    return lost


@pytest.mark.parametrize("kill_only", [False, True])
def test_at_every_operation(kill_only: bool) -> None:
    stop_after = 1
    while run_and_crash(2 * kill_only + 5 * stop_after, stop_after, kill_only=kill_only):
        stop_after += 1
    assert stop_after > 80
