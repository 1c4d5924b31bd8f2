"""The consumer: positions, resets, seeks, waiting, iteration, groups of one process."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import CorruptError, FencedError, InvalidError, TopicNotFoundError
from tailrace.log.record import TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def log(disk: MemoryDisk) -> Iterator[Log]:
    with Log.open("/log", disk=disk, clock=ManualClock(1_000_000), background=False) as opened:
        opened.create_topic("t", partitions=2, config={"segment.bytes": 1000})
        yield opened


def send(log: Log, *values: bytes, partition: int = 0, **more: Any) -> None:
    with log.producer(batch_bytes=200) as producer:
        producer.send_many("t", values, partition=partition, **more)


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def test_it_begins_where_reset_says_and_goes_on_where_it_committed(log: Log) -> None:
    send(log, *numbers(10))
    with log.consumer(reset="latest") as late:
        late.assign([T0])
        assert (late.poll(), late.position(T0)) == ([], 10)
    with log.consumer(reset="none") as nowhere:
        nowhere.assign([T0])
        with pytest.raises(InvalidError, match="no committed offset"):
            nowhere.poll()
        nowhere.seek(T0, 9)
        assert [record.value for record in nowhere.poll()] == [b"9"]
    with log.consumer(group="g") as first:
        first.assign([T0])
        assert first.committed(T0) is None
        assert len(first.poll(max_records=4)) == 4
        assert first.position(T0) == 4
        first.commit()
        assert first.committed(T0) == 4
    with log.consumer(group="g", reset="none") as second:
        second.assign([T0])
        assert [record.value for record in second.poll()] == numbers(6, 4)
        second.commit({("t", 0): 1})
    assert log.committed("g") == {T0: 1}


def test_out_of_range_is_reset_or_refused_l15(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    send(log, *numbers(100))
    log.alter_offsets("g", {T0: 50})
    retained: Any = log
    retained._broker.catalog.partition(T0).delete_records(60)
    with log.consumer(group="g") as consumer:
        consumer.assign([T0])
        assert [consumer.poll(max_records=1)[0].value for _ in range(40)] == numbers(40, 60)
        assert caplog.messages == [
            "t-0: group 'g' was at 50, and records 50 to 59 were deleted; it goes on at 60 (reset='earliest')"
        ]
        consumer.seek(T0, 1000)
        assert consumer.poll(max_records=1)[0].offset == 60
    with log.consumer(group="g", reset="latest") as consumer:
        consumer.assign([T0])
        assert (consumer.poll(), consumer.position(T0)) == ([], 100)
        assert caplog.messages[1:] == [
            "t-0: group 'g' was at 1000, and the log has 60 to 100; it goes on at 60 (reset='earliest')",
            "t-0: group 'g' was at 50, and records 50 to 59 were deleted; it goes on at 100 (reset='latest')",
        ]
    with log.consumer(group="g", reset="none") as consumer:
        consumer.assign([T0])
        with pytest.raises(InvalidError, match=r"t-0@50 is not in the log, which has 60 to 100"):
            consumer.poll()


def test_seeks(log: Log) -> None:
    send(log, *numbers(5), timestamps_ms=[10, 30, 20, 40, 40])
    with log.consumer() as consumer:
        consumer.assign([T0, T1])
        assert consumer.offsets_for_times({T0: 15}) == {T0: 1}  # L01
        assert consumer.offsets_for_times({T0: 25, T1: 25}) == {T0: 1, T1: None}
        assert (consumer.offsets_for_times({T0: 40}), consumer.offsets_for_times({T0: 41})) == ({T0: 3}, {T0: None})
        consumer.seek_to_time(datetime.fromtimestamp(0.035, UTC))
        assert (consumer.position(T0), consumer.position(T1)) == (3, 0)
        consumer.seek_to_end()
        assert consumer.poll() == []
        consumer.seek_to_beginning([T0])
        assert len(consumer.poll(max_records=2)) == 2
        consumer.seek(T0, 4)
        assert [record.value for record in consumer.poll()] == [b"4"]
        with pytest.raises(InvalidError, match="not assigned"):
            consumer.seek(TopicPartition("t", 7), 0)
        with pytest.raises(ValueError, match="negative"):
            consumer.seek(T0, -1)
        with pytest.raises(ValueError, match="time zone"):
            consumer.seek_to_time(datetime(2026, 1, 1))
        with pytest.raises(TopicNotFoundError):
            consumer.assign([TopicPartition("t", 7)])


def test_paused_partitions_are_left_out(log: Log) -> None:
    send(log, b"a")
    send(log, b"b", partition=1)
    with log.consumer() as consumer:
        consumer.assign([T0, T1])
        consumer.pause([T0])
        assert [record.value for record in consumer.poll()] == [b"b"]
        consumer.resume([T0])
        assert [record.value for record in consumer.poll()] == [b"a"]


def test_batches_begin_at_the_position_and_move_it(log: Log) -> None:
    send(log, *numbers(60))
    with log.consumer() as consumer:
        consumer.assign([T0])
        consumer.poll(max_records=3)
        fetched = consumer.poll_batches()
        assert [record.offset for batch in fetched for record in batch.records] == list(range(3, 60))
        for batch in fetched:
            offsets = [record.offset for record in batch.records]
            assert batch.base_offset <= offsets[0] <= offsets[-1] < batch.next_offset
            assert batch.leader_epoch == 0
        assert consumer.position(T0) == 60
        consumer.seek(T0, 5)
        small = consumer.poll_batches(max_bytes=1)
        assert len(small) == 1
        assert small[0].records[0].offset == 5


def test_no_partition_starves_another(log: Log) -> None:
    send(log, *numbers(200))
    send(log, *numbers(200), partition=1)
    with log.consumer() as consumer:
        consumer.assign([T0, T1])
        seen = {record.partition for _ in range(2) for record in consumer.poll(max_records=10)}
        assert seen == {0, 1}
        assert {batch.partition for batch in consumer.poll_batches(max_bytes=500)} == {T0, T1}


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["poll", "batches", "seek", "iterate"])), max_size=25))
@settings(max_examples=50, deadline=None)
def test_every_way_of_reading_gives_the_same_records(steps: list[tuple[int, str]]) -> None:
    with Log.open("/log", disk=MemoryDisk(), clock=ManualClock(), background=False) as log:
        log.create_topic("t")
        send(log, *numbers(50))
        with log.consumer() as consumer:
            consumer.assign([T0])
            expected = 0
            for count, how in steps:
                if how == "seek":
                    expected = count * 5
                    consumer.seek(T0, expected)
                    continue
                if how == "poll":
                    got = [record.offset for record in consumer.poll(max_records=count)]
                elif how == "batches":
                    got = [record.offset for batch in consumer.poll_batches(max_bytes=1) for record in batch.records]
                elif expected < 50:
                    got = [next(iter(consumer)).offset]
                else:
                    got = []
                assert got == list(range(expected, expected + len(got)))
                assert got or expected == 50
                expected += len(got)
                assert consumer.position(T0) == expected


def test_damage_is_refused_with_file_and_byte(log: Log, disk: MemoryDisk) -> None:
    send(log, *numbers(100))
    path = next(f"/log/t-0/{name}" for name in disk.list("/log/t-0") if name.endswith(".log"))
    data: bytearray = disk._files[path].data  # pyright: ignore[reportPrivateUsage]  # the bit that flips
    sizes = [header.size for header, _ in codec.batches(bytes(data))]
    data[sizes[0] + 100] ^= 1
    with log.consumer() as consumer:
        consumer.assign([T0])
        before = consumer.poll()  # what is good is handed out
        assert before
        assert len(before) == consumer.position(T0)
        with pytest.raises(CorruptError) as caught:
            consumer.poll()
        assert (caught.value.file, caught.value.position) == (path, sizes[0])
    data[sizes[0] + 100] ^= 1
    data[8] ^= 0x40  # the length of the first batch
    with log.consumer() as consumer:
        consumer.assign([T0])
        with pytest.raises(CorruptError, match="no batch that can be read"):
            consumer.poll()


def test_an_open_transaction_is_waited_for(log: Log) -> None:
    send(log, b"0")
    inner: Any = log
    partition = inner._broker.catalog.partition(T0)
    partition.append(
        codec.encode([(None, b"1", 0, ())], transactional=True, producer_id=1, producer_epoch=0, base_sequence=0)
    )
    with log.consumer(isolation="read_uncommitted") as consumer:
        consumer.assign([T0])
        assert len(consumer.poll()) == 2
    with log.consumer() as consumer:
        consumer.assign([T0])
        assert len(consumer.poll()) == 1
        assert consumer.poll() == []


def test_a_group_is_needed_where_one_is_meant(log: Log) -> None:
    with log.consumer() as consumer:
        with pytest.raises(InvalidError, match="group"):
            consumer.commit()
        with pytest.raises(InvalidError, match="group"):
            consumer.subscribe(["t"])
        with pytest.raises(InvalidError, match="group"):
            consumer.committed(T0)
    with pytest.raises(InvalidError, match="consumer is closed"):
        consumer.poll()
    for arguments in ({"isolation": "x"}, {"reset": "x"}, {"group": ""}, {"fetch_min_bytes": 0}):
        anything: Any = arguments
        with pytest.raises(ValueError, match=r"isolation|reset|group|fetch"):
            log.consumer(**anything)


def test_members_share_partitions_and_hand_them_over(log: Log) -> None:
    send(log, *numbers(5))
    send(log, *numbers(5), partition=1)
    said: list[tuple[str, str, list[TopicPartition]]] = []

    def member(name: str) -> Any:
        consumer = log.consumer(group="g")
        consumer.subscribe(
            ["t"],
            on_assign=lambda tps: said.append((name, "+", tps)),
            on_revoke=lambda tps: said.append((name, "-", tps)) or consumer.commit(),  # type: ignore[func-returns-value]
        )
        return consumer

    first = member("first")
    assert len(first.poll()) == 10
    second = member("second")
    assert (second.poll(), second.assignment()) == ([], [])
    assert log.describe_group("g").state == "PreparingRebalance"
    first.poll()
    assert (second.poll(), second.assignment()) == ([], [T1])
    assert second.position(T1) == 5
    described = log.describe_group("g")
    assert (described.state, len(described.members), described.lag) == ("Stable", 2, {T0: 0, T1: 0})
    with pytest.raises(FencedError, match="t-1 belongs to consumer-000002"):
        first.commit({T1: 1})
    with pytest.raises(InvalidError, match="members"):
        log.alter_offsets("g", {T0: 0})
    with pytest.raises(InvalidError, match="by hand"):
        first.assign([T0])
    first.close()
    assert (second.poll(), second.assignment()) == ([], [T0, T1])
    del second  # a consumer that is dropped leaves its group
    gc.collect()
    assert log.describe_group("g").members == []
    assert said == [
        ("first", "+", [T0, T1]),
        ("first", "-", [T1]),
        ("second", "+", [T1]),
        ("second", "+", [T0]),
    ]
    log.delete_group("g")
    assert log.groups() == []
    with pytest.raises(InvalidError, match=r"no group 'g' in this log; log.groups\(\), or `tailrace groups list`"):
        log.describe_group("g")


def test_an_assignor_of_ones_own_sees_what_members_say(log: Log) -> None:
    asked: list[tuple[dict[str, bytes], dict[str, int]]] = []

    def by_rank(members: Any, counts: Any) -> dict[str, list[TopicPartition]]:
        asked.append((dict(members), dict(counts)))
        return {max(members, key=lambda each: members[each]): [T0, T1]}

    ranks = {"first": b"1", "second": b"2"}
    with log.consumer(group="g") as first, log.consumer(group="g") as second:
        first.subscribe(["t"], assignor=by_rank, userdata=lambda: ranks["first"])
        first.poll()
        assert first.assignment() == [T0, T1]
        member, generation = first.member()
        second.subscribe(["t"], assignor=by_rank, userdata=lambda: ranks["second"])
        first.poll()
        second.poll()
        assert (first.assignment(), second.assignment()) == ([], [T0, T1])
        assert asked[-1] == ({member: b"1", second.member()[0]: b"2"}, {"t": 2})
        assert first.member() == (member, generation + 1)
        with log.consumer(group="g") as third, pytest.raises(InvalidError, match=r"by_rank, and .* wants range"):
            third.subscribe(["t"])
        with log.consumer(group="g") as fourth, pytest.raises(InvalidError, match="subscribe first"):
            fourth.member()


def test_a_deleted_topic_is_revoked_from_members(log: Log) -> None:
    with log.consumer(group="g") as consumer:
        consumer.subscribe(["t"])
        consumer.poll()
        consumer.commit({T0: 0})
        log.delete_topic("t")
        assert (consumer.poll(), consumer.assignment()) == ([], [])
        assert log.committed("g") == {}


def test_a_waiting_poll_wakes_at_once() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        woken: list[Any] = []
        consumer = log.consumer()
        consumer.assign([T0])
        thread = threading.Thread(target=lambda: woken.extend(consumer.poll(timeout=60)))
        thread.start()
        send(log, b"x")
        thread.join(timeout=30)
        assert [record.value for record in woken] == [b"x"]
        thread = threading.Thread(target=lambda: woken.extend(consumer.poll(timeout=60)))
        thread.start()
        while thread.is_alive():
            log.wake()
            thread.join(timeout=0.01)
        assert len(woken) == 1


def test_enough_is_waited_for_but_not_for_ever() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        with log.consumer(fetch_min_bytes=10_000, fetch_max_wait_ms=1) as consumer:
            consumer.assign([T0])
            send(log, b"x")
            assert len(consumer.poll(timeout=60)) == 1


def test_iteration_waits_and_ends_with_the_consumer() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        seen: list[Any] = []
        consumer = log.consumer()
        consumer.assign([T0])

        def read() -> None:
            for record in consumer:
                seen.append(record.value)
                if len(seen) == 3:
                    consumer.close()

        thread = threading.Thread(target=read)
        thread.start()
        send(log, b"1", b"2")
        send(log, b"3", b"4")
        thread.join(timeout=30)
        assert seen == [b"1", b"2", b"3"]
        assert consumer.position(T0) == 3


async def test_async_iteration_leaves_the_loop_free_and_loses_nothing_when_cancelled() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        consumer = log.consumer()
        consumer.assign([T0])
        seen: list[Any] = []
        two = asyncio.Event()

        async def read(count: int) -> None:
            async for record in consumer:
                seen.append(record.value)
                if len(seen) == 2:
                    two.set()
                if len(seen) == count:
                    return

        send(log, b"1", b"2")
        await asyncio.wait_for(read(1), 30)
        task = asyncio.create_task(read(99))
        await asyncio.wait_for(two.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        task = asyncio.create_task(read(3))
        await asyncio.sleep(0)
        send(log, b"3")
        await asyncio.wait_for(task, 30)
        assert seen == [b"1", b"2", b"3"]
        consumer.close()


def test_a_member_that_waits_with_nothing_is_woken_by_its_share() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        send(log, b"x")
        first, second = log.consumer(group="g"), log.consumer(group="g")
        first.subscribe(["t"])
        first.poll()
        first.commit({T0: 0})
        second.subscribe(["t"])
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.extend(second.poll(timeout=60)))
        thread.start()
        first.close()
        thread.join(timeout=30)
        assert [record.value for record in got] == [b"x"]


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_negative_time_to_wait_is_refused(log: Log, timeout: float) -> None:
    with log.consumer() as consumer:
        consumer.assign([T0])
        for call in (consumer.poll, consumer.poll_batches):
            with pytest.raises(ValueError, match=r"timeout=.*: give 0 or more seconds"):
                call(timeout)


def test_a_partition_named_by_something_else_is_refused(log: Log) -> None:
    with log.consumer() as consumer:
        for given in ("t", 5, ("t",), ("t", "0"), ("t", True), None):
            with pytest.raises(TypeError, match=r"a partition"):
                consumer.assign([given])  # type: ignore[list-item]  # what a user may mistake for one
        consumer.assign([("t", 1)])  # type: ignore[list-item]  # a plain pair will do
        assert consumer.assignment() == [T1]
    with pytest.raises(TypeError, match=r"a partition is named by .*, not by 't'"):
        log.alter_offsets("g", {"t": 0})  # type: ignore[arg-type]  # the same


async def test_iterating_a_closed_consumer_is_refused(log: Log) -> None:
    send(log, *numbers(2))
    consumer = log.consumer()
    consumer.assign([T0])
    seen = list[int]()
    for record in consumer:
        seen.append(record.offset)
        if record.offset == 1:
            consumer.close()
    assert seen == [0, 1], "closed meanwhile, it ends"
    with pytest.raises(InvalidError, match="the consumer is closed"):
        next(iter(consumer))
    with pytest.raises(InvalidError, match="the consumer is closed"):
        async for _ in consumer:
            pass


def test_offsets_past_the_end_are_refused(log: Log) -> None:
    send(log, *numbers(3))
    log.alter_offsets("g", {T0: 3})
    with pytest.raises(InvalidError, match="the offset 4 for t-0 is past its end at 3"):
        log.alter_offsets("g", {T0: 4, T1: 0})
    assert log.committed("g") == {T0: 3}
