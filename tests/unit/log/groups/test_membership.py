"""Consumers as members of a group: expelled ones, static ones, stickiness, closing, and many threads at once."""

import asyncio
import gc
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace.log.client import Consumer, Log, MemberDescription
from tailrace.log.clock import ManualClock
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import ExpelledError, FencedError, InvalidError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.waiting import wait_until

INTERVAL_MS = 300_000


def tps(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("t", number) for number in numbers]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def log(clock: ManualClock) -> Iterator[Log]:
    with Log.open("/log", disk=MemoryDisk(), clock=clock, background=False) as opened:
        opened.create_topic("t", partitions=4)
        yield opened


def fill(log: Log) -> None:
    """Puts ten records into each partition."""
    with log.producer() as producer:
        for partition in range(4):
            producer.send_many("t", [b"read"] * 10, partition=partition)


def subscribed(log: Log, *, said: list[Any] | None = None, **more: Any) -> Consumer:
    consumer = log.consumer(group="g", **more)
    noted: list[Any] = [] if said is None else said
    consumer.subscribe(
        ["t"],
        on_assign=lambda some: noted.append(("+", some)),
        on_revoke=lambda some: noted.append(("-", some)),
        on_lost=lambda some: noted.append(("lost", some)),
    )
    return consumer


def settle(*consumers: Consumer) -> None:
    for _ in range(3):
        for consumer in consumers:
            consumer.poll()


def test_an_expelled_member_is_refused_told_and_joins_anew(
    log: Log, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[Any] = []
    stuck, well = subscribed(log, said=said), subscribed(log)
    settle(stuck, well)
    assert stuck.member() == ("consumer-000001", 2)
    clock.advance(INTERVAL_MS - 1)
    well.poll()
    clock.advance(1)
    well.poll()
    assert well.assignment() == tps(0, 1, 2, 3)
    for refused in (stuck.commit, stuck.member, lambda: stuck.commit({("t", 0): 1})):
        with pytest.raises(FencedError, match="consumer-000001 is no member of group 'g' any more: poll to join anew"):
            refused()
    said.clear()
    with caplog.at_level(logging.WARNING):
        stuck.poll()
    assert stuck.assignment() == []
    assert "consumer-000001 was expelled from group 'g'" in caplog.text
    assert "it lost t-0, t-1 and joins anew" in caplog.text
    settle(well, stuck)
    assert (well.assignment(), stuck.assignment()) == (tps(0, 1), tps(2, 3))
    assert said == [("lost", tps(0, 1)), ("+", tps(2, 3))]
    assert stuck.member()[0] == "consumer-000003"


def test_without_on_lost_the_commit_in_on_revoke_says_it(log: Log, clock: ManualClock) -> None:
    stuck, well = log.consumer(group="g"), subscribed(log)
    stuck.subscribe(["t"], on_revoke=lambda _: stuck.commit())
    settle(stuck, well)
    clock.advance(INTERVAL_MS)
    well.poll()
    with pytest.raises(FencedError, match="no member"):
        stuck.poll()
    settle(stuck, well)
    assert stuck.assignment() == tps(2, 3)


def test_a_member_that_is_alone_may_take_its_time(log: Log, clock: ManualClock) -> None:
    alone = subscribed(log, max_poll_interval_ms=1000)
    alone.poll()
    clock.advance(50_000)
    alone.commit({("t", 0): 0})
    clock.advance(50_000)
    alone.poll()
    assert (alone.member(), alone.assignment()) == (("consumer-000001", 1), tps(0, 1, 2, 3))


def test_a_static_member_comes_back_to_what_it_had(log: Log, clock: ManualClock) -> None:
    said: list[Any] = []
    static, other = subscribed(log, group_instance_id="s"), subscribed(log, said=said)
    settle(static, other)
    assert log.describe_group("g").members == [
        MemberDescription("consumer-000001", "s", tps(0, 1)),
        MemberDescription("consumer-000002", None, tps(2, 3)),
    ]
    static.close()
    settle(other)
    again = subscribed(log, group_instance_id="s")
    settle(again, other)
    assert (again.assignment(), other.assignment(), len(said)) == (tps(0, 1), tps(2, 3), 1)
    twin = subscribed(log, group_instance_id="s")
    for _ in range(2):
        with pytest.raises(FencedError, match="another consumer of group 'g' has taken the group_instance_id 's'"):
            again.poll()
    assert (again.assignment(), twin.poll(), twin.assignment()) == ([], [], tps(0, 1))
    with pytest.raises(FencedError):
        again.commit({("t", 0): 0})
    again.close()
    twin.close()
    clock.advance(INTERVAL_MS)
    other.poll()
    assert other.assignment() == tps(0, 1, 2, 3)


def test_sticky_members_keep_what_they_have(log: Log) -> None:
    first, second, third = (subscribed(log, assignor="sticky") for _ in range(3))
    settle(first, second, third)
    before = {each: set(consumer.assignment()) for each, consumer in enumerate((first, second, third))}
    assert sorted(map(len, before.values())) == [1, 1, 2]
    third.close()
    settle(first, second)
    assert before[0] <= set(first.assignment())
    assert before[1] <= set(second.assignment())
    assert sorted(first.assignment() + second.assignment()) == tps(0, 1, 2, 3)


def test_subscribing_again_shares_anew(log: Log) -> None:
    wanted = [0]

    def chosen(members: Any, counts: Any) -> dict[str, list[TopicPartition]]:
        return {member: tps(*map(int, said.split())) for member, said in members.items()}

    def userdata() -> bytes:
        return b"%d" % wanted[-1]

    with log.consumer(group="g") as consumer:
        consumer.subscribe(["t"], assignor=chosen, userdata=userdata)
        consumer.poll()
        assert consumer.assignment() == tps(0)
        wanted.append(3)
        consumer.poll()
        assert consumer.assignment() == tps(0)
        consumer.subscribe(["t"], userdata=userdata)
        consumer.poll()
        assert consumer.assignment() == tps(3)


def test_an_assignor_that_fails_fails_in_the_leaders_poll(log: Log) -> None:
    failing = True

    def moody(members: Any, counts: Any) -> dict[str, list[TopicPartition]]:
        if failing:
            raise ZeroDivisionError("moody")
        return {min(members): tps(0)}

    with log.consumer(group="g") as leader, log.consumer(group="g") as other:
        leader.subscribe(["t"], assignor=moody)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="moody"):
                leader.poll()
        other.subscribe(["t"], assignor=moody)
        other.poll()
        with pytest.raises(ZeroDivisionError, match="moody"):
            leader.poll()
        failing = False
        settle(leader, other)
        assert (leader.assignment(), other.assignment()) == (tps(0), [])


def test_options_that_cannot_be_are_refused(log: Log) -> None:
    for options, why in (
        ({"assignor": "best"}, "give one of range, roundrobin, sticky"),
        ({"max_poll_interval_ms": 0}, "max_poll_interval_ms=0 is below 1: give 1 or more"),
        ({"group_instance_id": ""}, "group_instance_id='': give a name"),
        ({"group_instance_id": "s", "group": None}, "group_instance_id='s'.* and a group"),
    ):
        wrong: Any = {"group": "g", **options}
        with pytest.raises(ValueError, match=why):
            log.consumer(**wrong)
    with log.consumer(group="g") as consumer:
        with pytest.raises(ValueError, match="assignor='best'"):
            consumer.subscribe(["t"], assignor="best")
        with pytest.raises(InvalidError, match="subscribe first"):
            consumer.member()
    assert log.groups() == []


def test_offsets_of_an_expelled_member_are_kept_out_of_a_transaction(log: Log, clock: ManualClock) -> None:
    """The consumer is out; the producer aborts, and is as good as before."""
    fill(log)
    stuck, well = subscribed(log), subscribed(log)
    settle(stuck, well)
    with log.producer(transactional_id="x") as producer:
        member = stuck.member()
        producer.begin()
        producer.send("t", b"result", partition=3)
        clock.advance(INTERVAL_MS)
        well.poll()
        with pytest.raises(ExpelledError, match="consumer-000001 is no member"):
            producer.send_offsets("g", {tps(0)[0]: 1}, member=member)
        producer.abort()
        settle(stuck, well)
        with producer.transaction():
            producer.send_offsets("g", {tps(2)[0]: 1}, member=stuck.member())
        assert log.committed("g") == {tps(2)[0]: 1}


def test_who_takes_over_waits_for_offsets_that_are_on_their_way(log: Log, clock: ManualClock) -> None:
    with log.producer() as plain:
        plain.send_many("t", [b"0", b"1", b"2"], partition=0).result()
    slow, well = subscribed(log), subscribed(log)
    settle(slow, well)
    with log.producer(transactional_id="x", transaction_timeout_ms=900_000) as producer:
        producer.begin()
        producer.send_offsets("g", {tps(0)[0]: 2}, member=slow.member())
        clock.advance(INTERVAL_MS)
        assert well.poll() == []
        assert (well.assignment(), well.poll()) == (tps(0, 1, 2, 3), [])
        producer.commit()
        assert [record.value for record in well.poll()] == [b"2"]


def test_an_expelled_member_cannot_set_its_successors_offsets_back(log: Log, clock: ManualClock) -> None:
    """It is expelled between the look at it and the append: there is a second look, with the order of commits held."""
    fill(log)
    slow, well = subscribed(log), subscribed(log)
    settle(slow, well)
    inner: Any = log
    groups = inner._broker.coordinator.members
    look = groups.check_owner

    def look_and_dawdle(*arguments: Any) -> None:
        look(*arguments)
        groups.check_owner = look
        clock.advance(INTERVAL_MS)
        well.poll()
        well.commit({("t", 0): 9})

    groups.check_owner = look_and_dawdle
    with pytest.raises(ExpelledError):
        slow.commit({("t", 0): 5})
    assert log.committed("g") == {tps(0)[0]: 9}


@pytest.mark.parametrize("slow_look", [1, 2])
def test_nobody_takes_over_between_the_look_at_a_member_and_its_offsets(
    log: Log, clock: ManualClock, slow_look: int
) -> None:
    """It is expelled after a look: the next look finds it out, or who takes over waits for its offsets."""
    with log.producer() as plain:
        plain.send_many("t", [b"0", b"1"], partition=0).result()
    slow, well = subscribed(log), subscribed(log)
    settle(slow, well)
    inner: Any = log
    coordinator = inner._broker.coordinator
    look = coordinator.check_member
    looks: list[str] = []
    seen: list[Any] = []
    taker = threading.Thread(target=lambda: seen.extend(well.poll()))

    def look_and_dawdle(group: str, member: str, generation: int) -> None:
        look(group, member, generation)
        looks.append(member)
        if len(looks) == slow_look:
            clock.advance(INTERVAL_MS)
            taker.start()
            wait_until(lambda: coordinator.members.standing("g", member, None) is not None)

    coordinator.check_member = look_and_dawdle
    with log.producer(transactional_id="x", transaction_timeout_ms=900_000) as producer:
        producer.begin()
        if slow_look == 1:
            with pytest.raises(ExpelledError):
                producer.send_offsets("g", {tps(0)[0]: 2}, member=slow.member())
            producer.abort()
        else:
            producer.send_offsets("g", {tps(0)[0]: 2}, member=slow.member())
            producer.commit()
    taker.join()
    seen += well.poll()
    assert [record.value for record in seen] == ([b"0", b"1"] if slow_look == 1 else [])


def test_by_hand_nothing_is_committed_over_members(log: Log) -> None:
    fill(log)
    with log.consumer(group="g") as by_hand:
        by_hand.assign(tps(0))
        by_hand.commit({("t", 0): 1})
        member = subscribed(log)
        with pytest.raises(InvalidError, match="while it has members: close consumer-000001 first"):
            by_hand.commit({("t", 0): 2})
        member.close()
        by_hand.commit({("t", 0): 3})
    assert log.committed("g") == {TopicPartition("t", 0): 3}


def test_on_assign_may_say_where_to_begin(log: Log) -> None:
    with log.producer() as producer, log.consumer(group="g", reset="none") as consumer:
        producer.send_many("t", [b"0", b"1", b"2"], partition=1).result()

        def begin(assigned: list[TopicPartition]) -> None:
            consumer.seek(assigned[1], 1)
            for each in (assigned[0], *assigned[2:]):
                consumer.seek(each, 0)

        consumer.subscribe(["t"], on_assign=begin)
        assert [record.value for record in consumer.poll()] == [b"1", b"2"]
        consumer.commit()
        assert consumer.committed(tps(1)[0]) == 3


def test_a_topic_made_anew_is_read_from_its_beginning(log: Log) -> None:
    with log.producer() as producer, subscribed(log) as consumer:
        producer.send_many("t", [b"old"] * 3, partition=0).result()
        assert len(consumer.poll()) == 3
        log.delete_topic("t")
        log.create_topic("t")
        producer.send_many("t", [b"new"] * 2, partition=0).result()
        assert [record.value for record in consumer.poll()] == [b"new"] * 2
        assert consumer.assignment() == tps(0)


def test_a_dropped_consumer_leaves_though_a_lock_is_held(log: Log) -> None:
    """A garbage collector runs anywhere, also in the middle of what takes the locks that leaving takes."""
    broker: Any = log
    waiting = broker._broker.waiting
    dropped, other = subscribed(log), subscribed(log)
    settle(dropped, other)
    with waiting._lock:
        dropped = other
        gc.collect()
    other.poll()
    assert dropped.assignment() == tps(0, 1, 2, 3)


def test_closing_while_another_thread_settles_leaves_no_member_behind() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t", partitions=4)
        for _ in range(20):
            consumer, other = log.consumer(group="g"), log.consumer(group="g")
            consumer.subscribe(["t"])
            begun = threading.Event()

            def read(consumer: Consumer = consumer, begun: threading.Event = begun) -> None:
                begun.set()
                for _ in consumer:
                    pass

            thread = threading.Thread(target=read)
            thread.start()
            begun.wait()
            other.subscribe(["t"])
            consumer.close()
            other.close()
            thread.join(timeout=30)
            assert log.groups() == []


async def test_a_member_that_waits_asynchronously_says_that_it_is_alive() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t", partitions=2)
        first = log.consumer(group="g", max_poll_interval_ms=60)
        first.subscribe(["t"])

        async def read() -> str:
            async for _ in first:
                break
            return first.member()[0]

        task = asyncio.create_task(read())
        second = log.consumer(group="g", max_poll_interval_ms=60_000)
        second.subscribe(["t"])
        while second.assignment() != tps(1):
            second.poll()
            await asyncio.sleep(0)
        broker: Any = log
        member = broker._broker.coordinator.members._groups["g"].group.members["consumer-000001"]
        heard = member.expires_ms
        while member.expires_ms < heard + 60:  # several times what it may be silent for
            second.poll()
            await asyncio.sleep(0.001)
        with log.producer() as producer:
            producer.send("t", b"x", partition=0)
        assert await asyncio.wait_for(task, 30) == "consumer-000001"


RECORDS, WORKERS, LIVES = 300, 3, 6


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "sticky"])
def test_members_that_come_and_go_handle_every_record_once(assignor: str) -> None:
    """Each commits what it handled before it gives a partition up: nothing is lost, nothing handled twice."""
    with Log.open("memory:") as log:
        log.create_topic("t", partitions=4)
        with log.producer() as producer:
            for number in range(4):
                producer.send_many("t", [b"%d" % each for each in range(RECORDS)], partition=number)
        handled: list[tuple[int, int]] = []
        failures: list[BaseException] = []

        def live() -> None:
            with log.consumer(group="g", assignor=assignor) as consumer:
                consumer.subscribe(["t"], on_revoke=lambda _: consumer.commit())
                for _ in range(20):
                    handled.extend((record.partition, record.offset) for record in consumer.poll(0.002, max_records=7))
                consumer.commit()

        def work() -> None:
            try:
                for _ in range(LIVES):
                    live()
            except BaseException as error:  # noqa: BLE001  # shown at the end, whatever it is
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        while len(handled) < 4 * RECORDS:
            live()
        assert Counter(handled) == {(number, offset): 1 for number in range(4) for offset in range(RECORDS)}
