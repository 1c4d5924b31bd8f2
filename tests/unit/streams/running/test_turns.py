"""Who may be read: nobody is further ahead of the slowest than the skew allows, and somebody always goes on."""

import random
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.bad_records import skip
from tailrace.streams.chain.clocks import encode_clocks
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.source import Decoding, SourceInput
from tailrace.streams.running import turns
from tailrace.streams.running.rounds import oldest
from tailrace.streams.running.turns import KEEPS_UP_S, SILENT_S, Turns, all_read, hold_sources
from tailrace.streams.task import Task, TaskId

SKEW_MS = 100
# Values are times, and what the log itself says is none.
DECODINGS = {"t": Decoding(bytes, int, lambda value: value)}


def partition(number: int) -> TopicPartition:
    return TopicPartition("t", number)


def nowhere(_key: object, _value: object, _timestamp_ms: int) -> None:
    pass


def task(number: int, head_ms: int | None) -> Task:
    """A task whose next record has that time."""
    source = SourceInput(partition(number), DECODINGS["t"], nowhere, skip, 0)
    source.head_ms = head_ms
    return Task(TaskId(0, number), TaskContext(number, caching=False), [source])


class Others:
    """A log whose partitions others read, and how far they say they are."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.clock = ManualClock()
        self.turns = Turns(log, self.clock, "app", DECODINGS, SKEW_MS, 0.2)

    def send(self, number: int, *times_ms: int) -> None:
        with self.log.producer() as producer:
            producer.send_many("t", [str(time_ms).encode() for time_ms in times_ms], partition=number)

    def commit(self, number: int, offset: int, time_ms: int) -> None:
        self.log.commit_offsets("app", {partition(number): CommittedOffset(offset, -1, encode_clocks([time_ms]))})

    def may(self, *tasks: Task, ends: Mapping[TopicPartition, int] | None = None) -> list[int]:
        """Which tasks may be run."""
        self.clock.advance(21)
        self.turns.set_limits(tasks, ends)
        return [each.id.partition for each in tasks if each.next_ms() is not None]


@pytest.fixture
def others() -> Iterator[Others]:
    with Log.open("memory:", background=False) as log:
        log.create_topic("t", partitions=4)
        yield Others(log)


def test_of_its_own_the_slowest_sets_the_pace(others: Others) -> None:
    assert others.may(task(0, 1_000), task(1, 1_100), task(2, 1_101), task(3, None)) == [0, 1]


def test_another_holds_by_what_it_has_committed_until_it_comes_closer(others: Others) -> None:
    others.send(1, *range(0, 2_000, 10))
    others.commit(1, 50, 490)
    assert others.may(task(0, 600)) == [0], "500 comes next"
    assert others.may(task(0, 601)) == []
    assert others.turns.waits([task(0, 601)])
    others.commit(1, 60, 590)
    assert others.may(task(0, 601)) == [0]


def test_a_gap_in_the_data_of_another_holds_nobody(others: Others) -> None:
    others.send(1, 10, 5_000)
    others.commit(1, 1, 10)
    assert others.may(task(0, 5_050)) == [0]
    assert others.may(task(0, 5_101)) == []


def test_who_has_no_data_or_was_never_begun_holds_nobody(others: Others) -> None:
    others.send(1, 10)
    others.send(2, 10)
    others.commit(1, 1, 10)
    assert others.may(task(0, 5_000)) == [0], "1 is read, of 2 nobody has said where it begins, 3 has nothing"
    others.commit(2, 0, -1)
    assert others.may(task(0, 5_000)) == [], "now 2 is at its first record"


def test_in_a_run_to_the_end_another_is_done_at_the_end(others: Others) -> None:
    others.send(1, 10, 20)
    others.commit(1, 1, 10)
    assert others.may(task(0, 5_000), ends={partition(1): 1}) == [0]
    assert others.may(task(0, 5_000), ends={partition(1): 2}) == []


def test_who_does_not_move_is_waited_for_no_longer_until_it_does(others: Others) -> None:
    others.send(1, *range(0, 2_000, 10))
    others.commit(1, 1, 0)
    assert others.may(task(0, 5_000)) == []
    others.clock.advance(int(SILENT_S * 1000) - 50)
    assert others.may(task(0, 5_000)) == []
    others.clock.advance(50)
    assert others.may(task(0, 5_000)) == [0]
    others.commit(1, 2, 10)
    assert others.may(task(0, 5_000)) == []


def test_who_keeps_up_holds_nobody_however_old_its_records_are(others: Others) -> None:
    others.send(1, *range(10))
    others.commit(1, 5, 4)
    assert others.may(task(0, 5_000)) == [], "as far as is known, it has a backlog"
    for sent in range(10, 60):
        others.commit(1, sent, sent)
        others.send(1, sent)
        assert others.may(task(0, 5_000)) == [0]
    others.clock.advance(int(KEEPS_UP_S * 1000) - 50)
    assert others.may(task(0, 5_000)) == [0]
    others.clock.advance(50)
    assert others.may(task(0, 5_000)) == [], "that one record it should have had by now"


def test_for_whom_it_waits_is_told(others: Others, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    others.send(1, 10, 20)
    others.commit(1, 1, 10)
    for _ in range(60):
        assert others.may(task(0, 5_000)) == []
        assert others.turns.waits([task(0, 5_000)])
    assert len(caplog.records) == 1
    assert "waits for another member of it to read t-1, which is behind by more than max_skew=100ms" in caplog.text


def test_sources_that_are_held_are_not_idle(others: Others) -> None:
    one = task(0, 10)
    hold_sources([one])
    assert (one.next_ms(), one.head_ms()) == (None, 10)
    assert all_read([one], others.log), "it is what goes between tasks that is to be read"


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.lists(st.integers(0, 2_000), max_size=12), min_size=2, max_size=4),
    seed=st.integers(0, 1_000),
)
def test_two_members_come_to_the_end_and_are_never_further_apart(times: Sequence[Sequence[int]], seed: int) -> None:
    """Records out of order and with gaps, dealt to two members; each commits now and then."""
    chance = random.Random(seed)
    count = len(times)
    position, clock = [0] * count, [-1] * count
    with Log.open("memory:", background=False) as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "LOOK_S", 0.0)  # always; time stands still, so nobody is silent, and what is there counts
        log.create_topic("t", partitions=count)
        world = Others(log)
        members = [[number for number in range(count) if number % 2 == which] for which in (0, 1)]
        seen_by = [world.turns, Turns(log, world.clock, "app", DECODINGS, SKEW_MS, 0.2)]
        for number, each in enumerate(times):
            if each:
                world.send(number, *each)
            world.commit(number, 0, -1)

        def head(number: int) -> int | None:
            return times[number][position[number]] if position[number] < len(times[number]) else None

        stuck = 0
        while any(head(number) is not None for number in range(count)):
            which = chance.randrange(2)
            tasks = [task(number, head(number)) for number in members[which]]
            seen_by[which].set_limits(tasks, None)
            chosen = oldest(tasks)
            if chosen is None or chance.random() < 0.3:
                for number in members[which]:
                    world.commit(number, position[number], clock[number])
                stuck += 1
                assert stuck < 200, "both wait for each other"
                continue
            stuck = 0
            number = chosen.id.partition
            now_ms = head(number)
            assert now_ms is not None
            slowest = min(max(clock[each], left) for each in range(count) if (left := head(each)) is not None)
            assert now_ms <= slowest + SKEW_MS
            position[number] += 1
            clock[number] = max(clock[number], now_ms)
