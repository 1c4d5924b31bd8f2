"""Power is lost after each disk operation in turn: producers, open transactions and aborted ranges are the log's."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.disk import MemoryDisk
from tailrace.log.partition.markers import decode_marker
from tailrace.log.partition.partition import Partition
from tailrace.log.partition.producer_snapshot import offset_of, path_at
from tailrace.log.partition.producers import AbortedTransaction, OpenTransaction
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk, PowerLossError
from tailrace.tests.support.partitions import FOLDER, NOW_MS, a_batch, opened
from tailrace.tests.support.transactions import ended, sent

ACTIONS = ["send", "send", "send", "plain", "commit", "abort", "abort", "sync", "checkpoint", "reopen", "kill", "begin"]
CONFIG = TopicConfig(segment_bytes=1500, index_interval_bytes=300)


@dataclass
class Naive:
    """What the batches of a log say of producers, read from the first to the last."""

    epochs: dict[int, int] = field(default_factory=dict[int, int])
    sequences: dict[int, int] = field(default_factory=dict[int, int])
    begun: dict[int, int] = field(default_factory=dict[int, int])
    aborted: list[AbortedTransaction] = field(default_factory=list[AbortedTransaction])

    @classmethod
    def of(cls, partition: Partition) -> "Naive":
        made, offset = cls(), 0
        while data := partition.read(offset, 3000):
            for header, batch in codec.batches(data):
                made.take(header, batch)
                offset = header.next_offset
        return made

    def take(self, header: codec.BatchHeader, batch: codec.Data) -> None:
        producer = header.producer_id
        if producer < 0:
            return
        if self.epochs.get(producer, -1) != header.producer_epoch:
            self.sequences[producer] = -1
        self.epochs[producer] = header.producer_epoch
        if not header.control:
            self.begun.setdefault(producer, header.base_offset)
            self.sequences[producer] = header.base_sequence + header.last_offset_delta
        elif (first := self.begun.pop(producer, None)) is not None:
            marker = decode_marker(batch)
            assert marker is not None
            if not marker.committed:
                self.aborted.append(AbortedTransaction(producer, first, header.base_offset))


def check(partition: Partition) -> None:
    """What the partition says is what the log says."""
    naive, end = Naive.of(partition), partition.log_end_offset
    assert [(each.producer_id, each.first_offset) for each in partition.open_transactions()] == sorted(
        naive.begun.items(), key=lambda each: each[1]
    )
    assert partition.aborted(0, end) == naive.aborted
    for start in range(0, end, 7):
        for stop in range(start + 1, end + 1, 5):
            assert set(partition.aborted(start, stop)) == {
                each for each in naive.aborted if each.last_offset >= start and each.first_offset < stop
            }
    assert partition.last_stable_offset <= min([end, *naive.begun.values()])
    partition.sync()
    assert partition.last_stable_offset == min([end, *naive.begun.values()])
    for producer, epoch in naive.epochs.items():  # the next sequence of each is taken, and no other
        with pytest.raises(Exception, match="is the next"):
            partition.append(sent(b"x", producer=producer, epoch=epoch, sequence=naive.sequences[producer] + 2))


@dataclass
class Story:
    """Three producers that write to one partition."""

    disk: FaultyDisk
    chance: random.Random
    point: int = 0
    epochs: dict[int, int] = field(default_factory=dict[int, int])
    sequences: dict[int, int] = field(default_factory=dict[int, int])

    def act(self, partition: Partition, action: str) -> Partition:
        producer = self.chance.choice([7, 8, 9])
        epoch, sequence = self.epochs.get(producer, 0), self.sequences.get(producer, 0)
        match action:
            case "send":
                values = [self.chance.randbytes(self.chance.choice([1, 30, 200])) for _ in range(3)]
                self.sequences[producer] = sequence + len(values)
                partition.append(sent(*values, producer=producer, epoch=epoch, sequence=sequence))
            case "plain":
                partition.append(a_batch(b"plain"))
            case "commit" | "abort":
                ended(partition, producer, epoch=epoch, committed=action == "commit")
            case "begin":
                self.epochs[producer], self.sequences[producer] = epoch + 1, 0
                ended(partition, producer, epoch=epoch + 1, committed=False)
            case "sync":
                partition.sync()
            case "checkpoint":
                self.point = partition.checkpoint()
            case "kill":  # the process dies, the machine goes on
                partition = self.open()
            case _:
                partition.close()
                self.point = partition.recovery_point
                partition = self.open()
        return partition

    def open(self) -> Partition:
        return opened(self.disk, CONFIG, recovery_point=self.point)


def run_and_crash(seed: int, actions: list[str], stop_after: int) -> bool:
    """Returns whether the power was lost at all."""
    story = Story(FaultyDisk(seed), random.Random(seed))
    story.disk.mkdir("/log")
    story.disk.sync_dir("/")
    partition = story.open()
    story.disk.power_loss_after(stop_after)
    lost = False
    try:
        for action in actions:
            partition = story.act(partition, action)
    except PowerLossError:
        lost = True
    story.disk.crash()
    story.point = story.point if story.chance.random() < 0.5 else 0
    partition = story.open()
    check(partition)
    story.point = partition.checkpoint()
    story.disk.crash()
    check(story.open())
    return lost


def test_at_every_operation_of_one_story() -> None:
    for story in range(2):
        actions = random.Random(story).choices(ACTIONS, k=50)
        stop_after = 1
        while run_and_crash(story, actions, stop_after):
            stop_after += 1
        assert stop_after > 80


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), actions=st.lists(st.sampled_from(ACTIONS), max_size=60), stop=st.integers(1, 200))
def test_anywhere_in_any_story(seed: int, actions: list[str], stop: int) -> None:
    run_and_crash(seed, actions, stop)


def written(disk: MemoryDisk | FaultyDisk, *, closed: bool = True) -> int:
    """A log with an aborted, a committed and an open transaction over several segments; its recovery point."""
    partition = opened(disk, CONFIG)
    for number in range(20):
        partition.append(sent(b"a" * 100, sequence=number))
        partition.append(sent(b"b" * 100, producer=8, sequence=number))
        if number == 5:
            ended(partition, committed=False)
        if number == 12:
            ended(partition, 8, committed=False)
            partition.checkpoint()
    if closed:
        partition.close()
    else:
        partition.sync()
    return partition.recovery_point


SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "short": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "bits": lambda data: data[:20] + b"\xff" + data[21:],
    "version": lambda data: b"\0\2" + data[2:],
}


@pytest.mark.parametrize("how", SPOILERS)
def test_a_damaged_snapshot_is_none(how: str) -> None:
    disk = MemoryDisk()
    point = written(disk)
    names = [name for name in disk.list(FOLDER) if offset_of(name) is not None]
    assert len(names) == 2
    for count in (1, 2):
        offset = offset_of(names[-count])
        assert offset is not None
        file = disk.open(path_at(FOLDER, offset), write=True)
        data = file.read(0, file.size)
        file.truncate(0)
        file.append(SPOILERS[how](data))
        check(opened(disk, CONFIG, recovery_point=point))


def test_lost_and_stale_files_are_found_again() -> None:
    disk = MemoryDisk()
    point = written(disk, closed=False)
    for name in disk.list(FOLDER):
        if name.endswith((".snapshot", ".txnindex")):
            disk.remove(f"{FOLDER}/{name}")
    partition = opened(disk, CONFIG, recovery_point=point)
    check(partition)
    partition.close()
    assert sum(name.endswith(".txnindex") for name in disk.list(FOLDER)) == 2


def test_opening_after_a_clean_stop_reads_no_data() -> None:
    disk = MemoryDisk()
    partition = opened(disk)
    for number in range(200):
        partition.append(sent(b"x" * 1000, sequence=number))
    partition.close()
    read: list[int] = []
    plain = disk.open

    def open_counting(path: str, *, write: bool = False) -> object:
        file = plain(path, write=write)
        inner = file.read

        def counted(position: int, size: int) -> bytes:
            data = inner(position, size)
            read.append(len(data))
            return data

        file.read = counted  # type: ignore[method-assign]  # the test's own
        return file

    disk.open = open_counting  # type: ignore[method-assign,assignment]  # the test's own
    again = opened(disk, recovery_point=partition.recovery_point)
    assert sum(read) < 10_000
    assert again.open_transactions() == [OpenTransaction(7, 0, 0, NOW_MS)]


def test_retention_leaves_no_transaction_open_that_has_ended() -> None:
    config = TopicConfig(segment_bytes=600, index_interval_bytes=300, retention_bytes=1000, file_delete_delay_ms=0)
    for stop_after in range(1, 140):
        disk, chance = FaultyDisk(stop_after), random.Random(stop_after % 3)
        disk.mkdir("/log")
        disk.sync_dir("/")
        partition = opened(disk, config)
        history: list[tuple[int, int, bool]] = []  # offset, producer, whether it is a marker
        disk.power_loss_after(stop_after)
        with suppress(PowerLossError):
            for number in range(60):
                producer = chance.choice([7, 8, 9])
                marker = chance.random() < 0.4
                history.append((partition.log_end_offset, producer, marker))
                if marker:
                    ended(partition, producer, committed=chance.random() < 0.5)
                else:
                    partition.append(sent(b"x" * 60, producer=producer))
                if number % 9 == 8:
                    partition.checkpoint()
                if number % 7 == 6:
                    partition.apply_retention(NOW_MS)
        disk.crash()
        again = opened(disk, config)
        truth: set[int] = set()
        for offset, producer, marker in history:
            if offset < again.log_end_offset:
                (truth.discard if marker else truth.add)(producer)
        found = {each.producer_id for each in again.open_transactions()}
        there = {
            producer
            for offset, producer, marker in history
            if again.log_start_offset <= offset < again.log_end_offset and not marker
        }
        assert truth & there <= found <= truth
