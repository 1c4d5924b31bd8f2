"""Names that stand for others: one step, whoever reads and writes; and power losses at every step of it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tailrace.log.client import CommittedOffset, Consumer, Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import ExpelledError, InvalidError, RetriableError, TopicExistsError, TopicNotFoundError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

OLD, NEW, IN = TopicPartition("counts", 0), TopicPartition("counts.v2", 0), TopicPartition("clicks", 0)
TOPICS = {"counts": "counts.v2", "counts.old": "counts"}


def write(log: Log, topic: str, times: range, prefix: str) -> None:
    with log.producer() as producer:
        for time in times:
            producer.send(topic, f"{prefix}{time}".encode(), key=b"k", timestamp_ms=time * 1_000)


def filled(log: Log) -> None:
    """Old results of the seconds 0 to 9, new ones (twice as many) of 0 to 11; groups that read, and an app's."""
    log.create_topic("counts")
    log.create_topic("counts.v2")
    log.create_topic("clicks")
    write(log, "clicks", range(12), "click")
    write(log, "counts", range(10), "old")
    for time in range(12):
        write(log, "counts.v2", range(time, time + 1), "new")
        write(log, "counts.v2", range(time, time + 1), "more")
    log.alter_offsets("readers", {OLD: 10})
    log.alter_offsets("slow", {OLD: 4})
    log.commit_offsets("shop", {IN: CommittedOffset(3, -1, "of the old")})
    log.commit_offsets("shop.v2", {IN: CommittedOffset(9, -1, "of the new")})


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:", clock=ManualClock(10**9)) as opened:
        filled(opened)
        yield opened


def values(consumer: Consumer) -> list[str]:
    found = [record for some in iter(lambda: consumer.poll(0), []) for record in some]
    return [(record.value or b"").decode() for record in found]


def read(log: Log, topic: str, at: int = 0) -> list[str]:
    with log.consumer() as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), at)
        found = [record for some in iter(lambda: consumer.poll(0), []) for record in some]
        assert {record.topic for record in found} <= {topic}, "records have the name that was asked for"
        return [(record.value or b"").decode() for record in found]


def switch(log: Log) -> None:
    log.switch("v2", topics=TOPICS, groups={"shop": "shop.v2"})


def test_names_stand_for_others_and_back(log: Log) -> None:
    before = {name: log.describe_topic(name).topic_id for name in log.topics()}
    switch(log)
    assert log.switches() == ["v2"]
    assert log.topics() == ["clicks", "counts", "counts.old", "counts.v2"]
    assert read(log, "counts")[:3] == ["new0", "more0", "new1"]
    assert read(log, "counts.old") == [f"old{time}" for time in range(10)]
    assert log.describe_topic("counts").topic_id == before["counts.v2"]
    assert log.describe_topic("counts.old").topic_id == before["counts"]
    write(log, "counts", range(12, 13), "late")
    assert read(log, "counts.v2")[-1] == "late12"
    log.switch_back("v2")
    assert log.switches() == []
    assert {name: log.describe_topic(name).topic_id for name in log.topics()} == before
    assert read(log, "counts") == [f"old{time}" for time in range(10)]


def test_readers_go_on_where_they_were_in_time(log: Log) -> None:
    switch(log)
    # Behind all that is no younger than what was read; the slow one at the first record of second 4.
    assert {group: log.committed(group)[OLD] for group in ("readers", "slow")} == {"readers": 20, "slow": 8}
    assert read(log, "counts", 20)[0] == "new10"
    assert log.describe_group("slow").lag[OLD] == 16
    log.alter_offsets("slow", {OLD: 13})
    log.switch_back("v2")
    assert {group: log.committed(group)[OLD] for group in ("readers", "slow")} == {"readers": 10, "slow": 6}


def test_the_offsets_of_a_group_that_stands_for_another_are_that_ones(log: Log) -> None:
    switch(log)
    assert log.committed_offsets("shop")[IN].metadata == "of the new"
    assert "shop" in log.groups()
    log.commit_offsets("shop", {IN: CommittedOffset(11, -1, "further")})
    assert log.committed_offsets("shop.v2")[IN] == log.committed_offsets("shop")[IN]
    assert log.group_behind("shop") == "shop.v2"
    log.switch_back("v2")
    assert log.committed_offsets("shop")[IN].metadata == "of the old"
    assert log.group_behind("shop") == "shop"


def test_members_join_anew_and_what_they_had_under_way_is_refused(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lost: list[Any] = []
    with log.consumer(group="slow") as member, log.producer(transactional_id="t") as producer:
        member.subscribe(["counts"], on_lost=lost.append)
        assert values(member)[0] == "old4"
        who = member.member()
        switch(log)
        with pytest.raises(ExpelledError):
            member.commit()
        producer.begin()
        with pytest.raises(ExpelledError):
            producer.send_offsets("slow", {OLD: 10}, member=who)
        producer.abort()
        assert values(member)[:2] == ["new4", "more4"]
        assert lost == [[OLD]]
        assert "joins group 'slow' anew, without counts-0: names of topics that it reads" in caplog.text
        assert "poll more often" not in caplog.text
        member.commit()
        log.switch_back("v2")
        assert values(member) == []
        assert member.position(OLD) == 10


def test_one_that_assigns_itself_goes_on_there_too(log: Log) -> None:
    with log.consumer() as consumer:
        consumer.assign([OLD])
        consumer.seek(OLD, 4)
        assert values(consumer)[-1] == "old9"
        switch(log)
        assert values(consumer) == ["new10", "more10", "new11", "more11"]
        write(log, "counts", range(12, 13), "new")
        assert values(consumer) == ["new12"]


def test_a_waiting_reader_is_woken_by_whatever_name_is_written(log: Log) -> None:
    switch(log)
    end = log.offsets("counts")[OLD]
    for name in ("counts", "counts.v2"):
        assert not log.wait_for_data({OLD: end}, timeout=0)
        write(log, name, range(20, 21), "x")
        assert log.wait_for_data({OLD: end}, timeout=0)
        end += 1


def test_transactions_under_either_name_are_committed_and_seen(log: Log) -> None:
    switch(log)
    with log.producer(transactional_id="t") as producer:
        for name in ("counts", "counts.v2", "counts.old"):
            with producer.transaction():
                producer.send(name, b"in a transaction", timestamp_ms=30_000)
                producer.send_offsets("slow", {OLD: 9})
    assert read(log, "counts")[-2:] == ["in a transaction"] * 2
    assert read(log, "counts.old")[-1] == "in a transaction"
    assert log.committed("slow")[OLD] == 9


REFUSED: list[tuple[bool, Callable[[Log], Any], type[Exception], str]] = [
    (False, lambda log: log.switch("v3", topics={"counts": "nowhere"}), InvalidError, "no such topic"),
    (True, lambda log: log.switch("v2"), InvalidError, "'v2' is in force already"),
    (False, lambda log: log.switch_back("v2"), InvalidError, "no switch 'v2' in force"),
    (False, lambda log: log.drop_replaced("v2"), InvalidError, "no switch 'v2' in force"),
    (True, lambda log: log.create_topic("counts"), TopicExistsError, "exists already"),
    (True, lambda log: log.create_topic("counts.old"), TopicExistsError, "exists already"),
]


@pytest.mark.parametrize(("first", "change", "error", "told"), REFUSED)
def test_what_cannot_be_is_refused(
    log: Log, first: bool, change: Callable[[Log], Any], error: type[Exception], told: str
) -> None:
    if first:
        switch(log)
    with pytest.raises(error, match=told):
        change(log)


def test_topics_with_other_partitions_and_groups_with_members_are_refused(log: Log) -> None:
    log.create_topic("wide", partitions=2)
    with pytest.raises(InvalidError, match="'counts' has 1 partitions, and 'wide' has 2"):
        log.switch("v2", topics={"counts": "wide"})
    with log.consumer(group="shop") as member:
        member.subscribe(["counts"])
        with pytest.raises(InvalidError, match="of group 'shop' while it has members: close consumer-"):
            switch(log)
    assert log.switches() == []
    switch(log)


def test_an_open_transaction_is_waited_for(log: Log) -> None:
    with log.producer(transactional_id="t") as producer:
        producer.begin()
        producer.send("counts", b"open").result()
        with pytest.raises(RetriableError, match="a transaction is open in counts-0"):
            switch(log)
        producer.commit()
        producer.begin()
        producer.send_offsets("slow", {OLD: 5})
        with pytest.raises(RetriableError, match="group 'slow' commits offsets of counts-0 just now"):
            switch(log)
        producer.commit()
    switch(log)
    assert read(log, "counts.old")[-1] == "open"


def test_what_stood_there_may_be_deleted_and_then_there_is_no_way_back(log: Log) -> None:
    switch(log)
    log.delete_topic("counts.old")
    assert log.topics() == ["clicks", "counts", "counts.v2"]
    assert read(log, "counts")[0] == "new0"
    assert log.committed("readers") == {OLD: 20, NEW: 20}
    with pytest.raises(InvalidError, match="the topic 'counts' of before was deleted"):
        log.switch_back("v2")
    log.delete_topic("counts")
    assert log.topics() == ["clicks"]
    with pytest.raises(TopicNotFoundError):
        log.describe_topic("counts")


@pytest.mark.parametrize("name", ["counts", "counts.v2"])
def test_what_a_name_hides_does_not_come_to_light_when_what_it_stands_for_goes(log: Log, name: str) -> None:
    switch(log)
    log.delete_topic(name)
    assert log.topics() == ["clicks", "counts.old"]
    with pytest.raises(TopicNotFoundError):
        log.offsets("counts")
    assert log.committed("readers") == {TopicPartition("counts.old", 0): 10}
    log.create_topic("counts", partitions=2)
    assert log.topics() == ["clicks", "counts", "counts.old", "counts.v2"]
    assert log.describe_topic("counts").topic_id == log.describe_topic("counts.v2").topic_id
    assert log.describe_topic("counts").partitions == 2
    assert log.offsets("counts")[OLD] == 0
    log.delete_topic("counts")
    log.switch_back("v2")
    assert log.topics() == ["clicks", "counts"]
    assert read(log, "counts")[0] == "old0"


def test_an_internal_name_may_lead_to_what_is_not_there_yet() -> None:
    with Log.open("memory:") as log:
        log.create_topic("shop-a-changelog", internal=True)
        log.create_topic("shop-b-changelog", internal=True, partitions=3)
        log.create_topic("shop.v2-b-changelog", internal=True, partitions=2)
        write(log, "shop-a-changelog", range(3), "old")
        names = {f"shop-{name}-changelog": f"shop.v2-{name}-changelog" for name in "ab"}
        log.switch("v2", topics=names)  # who reads its own topics minds no number of partitions
        assert log.topics(internal=True) == sorted([*log_own(log), "shop-b-changelog", "shop.v2-b-changelog"])
        log.create_topic("shop-a-changelog", internal=True)
        write(log, "shop-a-changelog", range(1), "new")
        assert read(log, "shop.v2-a-changelog") == ["new0"]
        log.delete_topic("shop-a-changelog")
        log.create_topic("shop-a-changelog", internal=True)
        assert "shop.v2-a-changelog" in log.topics(internal=True), "made anew, it is the same"
        log.switch_back("v2")
        assert read(log, "shop-a-changelog") == ["old0", "old1", "old2"]
        assert log.describe_topic("shop-b-changelog").partitions == 3


def log_own(log: Log) -> list[str]:
    return [name for name in log.topics(internal=True) if name.startswith("__")]


def test_what_was_replaced_is_dropped_for_good(log: Log) -> None:
    switch(log)
    log.create_topic("counts.v3")
    log.switch("v3", topics={"counts": "counts.v3", "counts.old3": "counts"}, groups={"shop": "shop.v3"})
    assert log.drop_replaced("v2") == ["shop"]
    assert log.topics() == ["clicks", "counts", "counts.old3", "counts.v2", "counts.v3"]
    log.switch_back("v3")
    assert read(log, "counts")[0] == "new0"
    assert log.committed_offsets("shop")[IN].metadata == "of the new"
    assert log.drop_replaced("v2") == ["shop"], "to be called again where it was broken off"
    with pytest.raises(InvalidError, match="what was there before was dropped"):
        log.switch_back("v2")
    assert log.switches() == ["v2"]
    assert log.topics() == ["clicks", "counts", "counts.v2", "counts.v3"]
    assert log.groups() == ["readers", "shop", "shop.v2", "slow"]


def test_what_another_switch_leads_back_to_is_not_dropped(log: Log) -> None:
    switch(log)
    log.create_topic("counts.v3")
    log.switch("v3", topics={"counts": "counts.v3", "counts.old3": "counts"}, groups={"shop": "shop.v3"})
    assert log.drop_replaced("v3") == ["shop.v2"]
    assert log.topics() == ["clicks", "counts", "counts.old", "counts.v3"]
    assert log.committed_offsets("shop.v2") == {}
    assert log.drop_replaced("v2") == ["shop"]
    assert log.topics() == ["clicks", "counts", "counts.v3"]


def test_of_what_comes_out_of_order_none_is_skipped(log: Log) -> None:
    """A reader has read the seconds 0 to 9; 12 and, late, 10 are to come, which the new topic has in another order."""
    for time in (12, 10):
        write(log, "counts", range(time, time + 1), "late")
    log.alter_offsets("readers", {OLD: 10})
    log.alter_offsets("slow", {OLD: 11})
    write(log, "counts.v2", range(12, 13), "new")
    switch(log)
    for group in ("readers", "slow"):
        assert read(log, "counts", log.committed(group)[OLD])[0] == "new10"


def test_one_switch_after_another_is_taken_back_in_order(log: Log) -> None:
    switch(log)
    log.create_topic("counts.v3")
    log.switch("v3", topics={"counts": "counts.v3", "counts.old3": "counts"}, groups={"shop": "shop.v3"})
    assert read(log, "counts") == []
    assert read(log, "counts.old3")[0] == "new0"
    with pytest.raises(InvalidError, match="'v3' came after 'v2'"):
        log.switch_back("v2")
    log.switch_back("v3")
    assert (read(log, "counts")[0], log.group_behind("shop")) == ("new0", "shop.v2")
    log.switch_back("v2")
    assert read(log, "counts")[0] == "old0"


def test_settings_of_a_topic_under_another_name(log: Log) -> None:
    switch(log)
    log.alter_topic("counts", {"retention.ms": 5})
    log.note_topic("counts", "mine")
    log.create_partitions("counts", 3)
    for name in ("counts", "counts.v2"):
        found = log.describe_topic(name)
        assert (found.config["retention.ms"], found.note, found.partitions) == ("5", "mine", 3)
    assert log.describe_topic("counts.old").partitions == 1


# ---------------------------------------------------------------- crashes


def opened(disk: FaultyDisk, *, read_only: bool = False) -> Log:
    return Log.open("/log", disk=disk, clock=ManualClock(10**9), background=False, read_only=read_only)


def state(log: Log) -> tuple[Any, ...]:
    """All that a switch changes."""
    return (
        log.switches(),
        log.topics(),
        read(log, "counts"),
        {group: log.committed(group).get(OLD) for group in ("readers", "slow")},
        log.committed_offsets("shop")[IN].metadata,
    )


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("machine", [False, True], ids=["kill", "power"])
def test_a_crash_at_any_step_leaves_all_of_it_or_nothing(back: bool, machine: bool) -> None:
    for seed in range(2):
        found: set[bool] = set()
        for step in range(200):
            disk = FaultyDisk(seed * 1_000 + step)
            log = opened(disk)
            filled(log)
            if back:
                switch(log)
            before = state(log)
            disk.power_loss_after(step)
            try:
                if back:
                    log.switch_back("v2")
                else:
                    switch(log)
                done = True
                disk.heal()
                after = state(log)
            except PowerLossError:
                done = False
                after = None
            (disk.crash if machine else disk.kill)()
            with opened(disk, read_only=True) as beside:
                seen = state(beside)
            with opened(disk) as again:
                now = state(again)
            assert seen == now
            if done:
                assert now == after, f"it had returned; step {step}"
                break
            changed = now[0] != before[0]
            found.add(changed)
            if not changed:
                assert now == before, f"nothing of it; step {step}"
            else:
                assert (now[2][:1] == ["old0"]) == back
                assert now[4] == ("of the old" if back else "of the new")
                assert now[3]["readers"] == (10 if back else 20)
        else:
            raise AssertionError("it never came to its end")
        assert False in found, "it was stopped before it was decided"
