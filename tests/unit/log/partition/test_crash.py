"""Power is lost after each disk operation in turn: what was synced is there, and else a prefix of what was written."""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.clock import ManualClock
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

TP = TopicPartition("clicks", 0)
NOW_MS = 1_700_000_000_000
ACTIONS = ["append", "append", "append", "append", "sync", "checkpoint", "reopen", "kill", "retention"]


@dataclass
class Model:
    """What a client knows: what it wrote, what it was told is on disk, what the caller of the partition has noted."""

    disk: FaultyDisk
    config: TopicConfig
    values: list[bytes] = field(default_factory=list[bytes])
    synced: int = 0
    recovery_points: list[int] = field(default_factory=lambda: [0])
    log_start: int = 0

    def open(self, recovery_point: int) -> Partition:
        return Partition.open(
            self.disk, ManualClock(NOW_MS), "/log/clicks-0", TP, self.config, recovery_point=recovery_point
        )

    def act(self, partition: Partition, action: str, chance: random.Random) -> Partition:
        match action:
            case "append":
                values = [chance.randbytes(chance.choice([1, 30, 700, 2500])) for _ in range(chance.randint(1, 4))]
                self.values += values  # before: a crash in the middle may leave them
                partition.append(codec.encode([(None, value, NOW_MS, ()) for value in values]))
            case "sync":
                self.synced = max(self.synced, partition.sync())
            case "checkpoint":
                self.note(partition.checkpoint())
            case "retention":
                partition.apply_retention(NOW_MS)
                self.log_start = partition.log_start_offset
            case "kill":  # the process dies, the machine goes on; what is found then counts as on disk
                partition = self.open(self.recovery_points[-1])
                self.synced = max(self.synced, partition.synced_offset)
            case _:
                partition.close()
                self.note(partition.recovery_point)
                partition = self.open(self.recovery_points[-1])
        return partition

    def note(self, recovery_point: int) -> None:
        self.synced = max(self.synced, recovery_point)
        self.recovery_points.append(recovery_point)


def run_and_crash(seed: int, actions: list[str], stop_after: int, config: TopicConfig) -> bool:
    """Returns whether the power was lost at all."""
    chance = random.Random(seed)
    model = Model(FaultyDisk(seed), config)
    model.disk.mkdir("/log")
    model.disk.sync_dir("/")
    partition = model.open(0)
    model.disk.power_loss_after(stop_after)
    lost = False
    try:
        for action in actions:
            partition = model.act(partition, action, chance)
    except PowerLossError:
        lost = True
    model.disk.crash()
    check_survivors(model, chance)
    return lost


def check_survivors(model: Model, chance: random.Random) -> None:
    partition = model.open(chance.choice(model.recovery_points[-2:]))
    end = partition.log_end_offset
    assert model.synced <= end <= len(model.values)
    assert partition.log_start_offset <= max(model.log_start, end)
    found = read_all(partition)
    assert found == list(enumerate(model.values))[partition.log_start_offset : end]
    partition.append(codec.encode([(None, b"after", NOW_MS, ())]))
    partition.sync()
    model.disk.crash()
    assert read_all(model.open(0)) == [*found, (end, b"after")]


def read_all(partition: Partition) -> list[tuple[int, bytes | None]]:
    out: list[tuple[int, bytes | None]] = []
    offset = partition.log_start_offset
    while data := partition.read(offset, 10_000):
        for header, batch in codec.batches(data):
            codec.check_crc(batch, file="", position=0)
            out += [(record.offset, record.value) for record in codec.decode(batch)]
            offset = header.next_offset
    return out


def configured(segment_bytes: int, retention_bytes: int) -> TopicConfig:
    return TopicConfig(
        segment_bytes=segment_bytes, index_interval_bytes=500, retention_bytes=retention_bytes, file_delete_delay_ms=0
    )


def test_at_every_operation_of_one_story() -> None:
    for story in range(4):
        actions = random.Random(story).choices(ACTIONS, k=40)
        stop_after = 1
        while run_and_crash(story * 1000 + stop_after, actions, stop_after, configured(12_000, 30_000)):
            stop_after += 1
        assert stop_after > 80


def test_retention_leaves_no_gap() -> None:
    actions = ["append"] * 30 + ["retention", "append", "append", "sync"]
    for seed in range(3):
        stop_after = 40
        while run_and_crash(seed * 1000 + stop_after, actions, stop_after, configured(11_000, 0)):
            stop_after += 1


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=40),
    stop_after=st.integers(1, 150),
    segment_bytes=st.sampled_from([11_000, 50_000, 1_000_000]),
    retention_bytes=st.sampled_from([-1, 0, 40_000]),
)
def test_anywhere_in_any_story(
    seed: int, actions: list[str], stop_after: int, segment_bytes: int, retention_bytes: int
) -> None:
    run_and_crash(seed, actions, stop_after, configured(segment_bytes, retention_bytes))
