"""No offset is committed past what is on disk: after a crash, who goes on there finds what it had read before."""

import errno
from collections.abc import Callable

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import TailraceError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.engine import contents

IN = TopicPartition("in", 0)


def opened(disk: FaultyDisk, flush: str = "disk") -> Log:
    return Log.open("/log", disk=disk, background=False, flush=flush)  # type: ignore[arg-type]  # one of two words


def read_some(log: Log) -> None:
    """Records that nobody has synced, and a reader of them."""
    log.create_topic("in", exist_ok=True)
    log.create_topic("out", exist_ok=True)
    with log.producer(acks=1) as producer:
        for value in "abc":
            producer.send("in", value.encode())


def by_consumer(log: Log) -> None:
    with log.consumer(group="g") as consumer:
        consumer.assign([IN])
        assert len(consumer.poll()) == 3
        consumer.commit()


def by_hand(log: Log) -> None:
    log.alter_offsets("g", {IN: 3})


def in_a_transaction(log: Log) -> None:
    with log.producer(transactional_id="x") as producer, producer.transaction():
        producer.send("out", b"3")
        producer.send_offsets("g", {IN: 3})


WAYS = [by_consumer, by_hand, in_a_transaction]


@pytest.mark.parametrize("commit", WAYS)
def test_what_was_read_outlives_the_machine_once_it_is_committed(commit: Callable[[Log], None]) -> None:
    for seed in range(10):
        disk = FaultyDisk(seed)
        log = opened(disk)
        read_some(log)
        commit(log)
        disk.crash()
        with opened(disk) as log:
            assert [row.value for row in contents(log, "in")] == [b"a", b"b", b"c"]
            assert log.committed("g") == {IN: 3}


@pytest.mark.parametrize("commit", WAYS)
def test_what_could_not_be_synced_cannot_be_committed(commit: Callable[[Log], None]) -> None:
    disk = FaultyDisk()
    log = opened(disk)
    read_some(log)
    disk.fail("sync", OSError(errno.EIO, "Input/output error"), path="/in-0/")
    for _ in range(2):
        with pytest.raises(TailraceError, match="in-0 could not be synced to disk"):
            commit(log)
    assert log.committed("g") == {}
    assert contents(log, "out") == []
    assert len(contents(log, "in")) == 3, "it can be read all the same"


@pytest.mark.parametrize("commit", [by_hand, in_a_transaction])
def test_what_is_on_disk_costs_no_sync(commit: Callable[[Log], None]) -> None:
    disk = FaultyDisk()
    log = opened(disk)
    read_some(log)
    with log.producer() as producer:
        producer.send("in", b"d")
        producer.flush()
    with log.producer(acks=1) as producer:
        producer.send("in", b"e")
    disk.fail("sync", AssertionError("a sync of what was not read"), path="/in-0/")
    commit(log)
    assert log.committed("g") == {IN: 3}


@pytest.mark.parametrize("commit", WAYS)
def test_nothing_is_synced_where_that_is_left_to_the_system(commit: Callable[[Log], None]) -> None:
    disk = FaultyDisk()
    log = opened(disk, flush="os")
    read_some(log)
    disk.fail("sync", AssertionError("a sync"), path="/in-0/")
    commit(log)
    assert log.committed("g") == {IN: 3}
