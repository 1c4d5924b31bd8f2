"""Power is lost at every disk operation of a cleaning: the old segments are there or the new ones, never neither."""

import random

import pytest

from tailrace.log import codec
from tailrace.log.checking.verify import verify
from tailrace.log.clock import ManualClock
from tailrace.log.compaction.cleaning import clean
from tailrace.log.disk import Disk
from tailrace.log.partition.partition import Partition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk, PowerLossError
from tailrace.tests.support.partitions import FOLDER, NOW_MS, opened, read_all

DAY_MS = 86_400_000
CONFIG = TopicConfig(
    cleanup_policy="compact", segment_bytes=600, index_interval_bytes=100, file_delete_delay_ms=0, delete_retention_ms=5
)
Found = list[tuple[int, bytes | None]]


def written(disk: FaultyDisk, seed: int) -> Partition:
    chance = random.Random(seed)
    disk.mkdir("/log")
    disk.sync_dir("/")
    partition = opened(disk, CONFIG)
    for _ in range(30):
        pairs = [(b"%d" % chance.randint(0, 9), chance.choice([None, b"x" * 40])) for _ in range(chance.randint(1, 4))]
        partition.append(codec.encode([(key, value, NOW_MS, ()) for key, value in pairs]))
    partition.checkpoint()
    return partition


def latest(disk: Disk, partition: Partition) -> dict[bytes | None, bytes]:
    """What a table of the log has."""
    table: dict[bytes | None, bytes | None] = {}
    offset = partition.log_start_offset
    while data := partition.read(offset, 10_000):
        for header, batch in codec.batches(data):
            for record in codec.decode(batch):
                table[record.key] = record.value
            offset = header.next_offset
    assert verify(disk, FOLDER).damage == []
    return {key: value for key, value in table.items() if value is not None}


def twice(disk: FaultyDisk, partition: Partition) -> None:
    """The second time the tombstones of the first may go, and small segments are put together."""
    clean(disk, ManualClock(NOW_MS), partition, 0)
    clean(disk, ManualClock(NOW_MS + 5), partition, 0)
    partition.apply_retention(NOW_MS + 10)


def run_and_crash(seed: int, stop_after: int, *, kill_only: bool) -> bool:
    disk = FaultyDisk(seed)
    partition = written(disk, seed % 7)
    before, end, point = latest(disk, partition), partition.log_end_offset, partition.recovery_point
    records = dict(read_all(partition))
    disk.power_loss_after(stop_after)
    lost = False
    try:
        twice(disk, partition)
    except PowerLossError:
        lost = True
    if kill_only:  # the machine goes on: all that was written is there
        disk.kill()
    else:
        disk.crash()
    for recovery_point in (point, 0):
        again = opened(disk, CONFIG, recovery_point=recovery_point)
        found = dict(read_all(again))
        assert found.items() <= records.items()
        assert again.log_end_offset == end
        assert latest(disk, again) == before
        assert not [name for name in disk.list(FOLDER) if name.endswith((".cleaned", ".swap"))]
        again.close()
    again = opened(disk, CONFIG, recovery_point=end)
    twice(disk, again)
    assert latest(disk, again) == before
    return lost


@pytest.mark.parametrize("kill_only", [False, True])
def test_at_every_operation(kill_only: bool) -> None:
    for story in range(3):
        stop_after = 1
        while run_and_crash(story + 7 * stop_after, stop_after, kill_only=kill_only):
            stop_after += 1
        assert stop_after > 40
