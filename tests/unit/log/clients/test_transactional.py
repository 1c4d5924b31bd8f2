"""Transactions through the clients: what is seen, when, and by whom; what is refused."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace.log.client import CommittedOffset, Consumer, Log, Producer
from tailrace.log.clock import ManualClock
from tailrace.log.errors import FencedError, InvalidError, RetriableError, TailraceError, TopicNotFoundError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
S0, S1 = TopicPartition("s", 0), TopicPartition("s", 1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def log(clock: ManualClock, disk: FaultyDisk) -> Iterator[Log]:
    with Log.open("/log", disk=disk, clock=clock, background=False) as log:
        log.create_topic("t", partitions=2)
        yield log


def values(log: Log, partition: TopicPartition = T0, *, isolation: Any = "read_committed") -> list[bytes | None]:
    with log.consumer(isolation=isolation) as consumer:
        consumer.assign([partition])
        found: list[bytes | None] = []
        while records := consumer.poll():
            found += [record.value for record in records]
        return found


def put(producer: Producer, *sent: bytes, partition: int = 0) -> None:
    for each in sent:
        producer.send("t", each, partition=partition)


def fill(log: Log) -> None:
    """Makes a topic to have read from."""
    log.create_topic("s", partitions=2)
    with log.producer() as producer:
        for partition in (0, 1):
            producer.send_many("s", [b"read"] * 10, partition=partition)


# -- what is seen ------------------------------------------------------------------------------------------------------


def test_a_transaction_is_seen_whole_after_its_commit(log: Log) -> None:
    with log.producer(transactional_id="x") as producer:
        with producer.transaction():
            put(producer, b"a", b"b")
            put(producer, b"c", partition=1)
            producer.flush()
            assert values(log) == values(log, T1) == []
            assert values(log, isolation="read_uncommitted") == [b"a", b"b"]
        assert (values(log), values(log, T1)) == ([b"a", b"b"], [b"c"])


def test_an_aborted_transaction_is_never_seen_and_positions_pass_it(log: Log) -> None:
    with log.producer(transactional_id="x") as producer:
        producer.begin()
        put(producer, b"a")
        producer.flush()
        producer.abort()
        with producer.transaction():
            put(producer, b"b")
    assert values(log) == [b"b"]
    assert values(log, isolation="read_uncommitted") == [b"a", b"b"]
    with log.consumer() as consumer:
        consumer.assign([T0])
        while consumer.poll():
            pass
        assert consumer.position(T0) == log.offsets("t")[T0] == 4  # two records, two markers


def test_a_plain_record_behind_an_open_transaction_waits_for_it(log: Log) -> None:
    with log.producer(transactional_id="x") as producer, log.producer() as plain:
        producer.begin()
        put(producer, b"a")
        producer.flush()
        put(plain, b"plain")
        plain.flush()
        assert values(log) == []
        assert values(log, isolation="read_uncommitted") == [b"a", b"plain"]
        assert log.offsets("t")[T0] == 0
        assert log.offsets("t", isolation="read_uncommitted")[T0] == 2
        producer.abort()
        assert values(log) == [b"plain"]


def test_an_exception_aborts_and_goes_on_to_the_caller(log: Log) -> None:
    with log.producer(transactional_id="x") as producer:
        with pytest.raises(KeyError, match="mine"), producer.transaction():  # noqa: PT012  # the block is what is tried
            put(producer, b"a")
            raise KeyError("mine")
        with producer.transaction():
            put(producer, b"b")
    assert values(log) == [b"b"]


def test_what_lingers_when_a_transaction_is_aborted_is_not_written(log: Log) -> None:
    with log.producer(transactional_id="x") as producer:
        producer.begin()
        delivery = producer.send("t", b"a", partition=0)
        producer.abort()
        with pytest.raises(RetriableError, match="aborted before it was written"):
            delivery.result()
        producer.flush()  # nothing is left to be told
    assert values(log, isolation="read_uncommitted") == []


def test_a_transaction_without_records_writes_nothing(log: Log) -> None:
    with log.producer(transactional_id="x") as producer:
        with producer.transaction():
            pass
        producer.begin()
        producer.abort()
    assert log.offsets("t", isolation="read_uncommitted") == {T0: 0, T1: 0}


def test_deliveries_have_their_answer_before_the_commit(log: Log) -> None:
    with log.producer(transactional_id="x", linger_ms=0) as producer:
        producer.begin()
        assert producer.send("t", b"a", partition=1).result().offset == 0
        assert producer.send_many("t", [b"b", b"c"], partition=1).result().offset == 2
        producer.commit()
    assert values(log, T1) == [b"a", b"b", b"c"]


def test_many_batches_and_transactions_keep_their_order(log: Log) -> None:
    sent: list[bytes] = []
    with log.producer(transactional_id="x", batch_bytes=200) as producer:
        for number in range(30):
            producer.begin()
            some = [b"%d-%d" % (number, each) * 5 for each in range(12)]
            producer.send_many("t", some, partition=0)
            if number % 3:
                producer.commit()
                sent += some
            else:
                producer.abort()
    assert values(log) == sent
    with log.consumer() as consumer:  # the same in whole batches, from the middle of an aborted one on
        consumer.assign([T0])
        consumer.seek(T0, 3)
        found = [record.value for batch in drain(consumer) for record in batch.records]
    assert found == sent


def drain(consumer: Consumer) -> list[Any]:
    found: list[Any] = []
    while batches := consumer.poll_batches():
        found += batches
    return found


# -- offsets -----------------------------------------------------------------------------------------------------------


def test_offsets_count_with_the_commit(log: Log) -> None:
    fill(log)
    with log.producer(transactional_id="x") as producer:
        with producer.transaction():
            producer.send_offsets("g", {S0: 3})
            assert log.committed("g") == {}
        assert log.committed("g") == {S0: 3}
        producer.begin()
        producer.commit_offsets("g", {S0: CommittedOffset(5, 0, "mine"), S1: CommittedOffset(1)})
        producer.abort()
        assert log.committed("g") == {S0: 3}
        with producer.transaction():
            producer.commit_offsets("g", {S0: CommittedOffset(6, 0, "mine")})
        assert log.committed_offsets("g") == {S0: CommittedOffset(6, 0, "mine")}


def test_offsets_survive_a_restart_as_they_counted(log: Log, disk: FaultyDisk, clock: ManualClock) -> None:
    fill(log)
    with log.producer(transactional_id="x") as producer:
        with producer.transaction():
            producer.send_offsets("g", {S0: 3})
        producer.begin()
        producer.send_offsets("g", {S0: 4})
        producer.abort()
    log.close()
    with Log.open("/log", disk=disk, clock=clock, background=False) as again:
        assert again.committed("g") == {S0: 3}


def test_a_reader_does_not_begin_from_offsets_that_are_being_committed(log: Log) -> None:
    with log.producer() as plain:
        put(plain, b"0", b"1", b"2")
    with log.producer(transactional_id="x") as producer, log.consumer(group="g") as consumer:
        producer.begin()
        producer.send_offsets("g", {T0: 2})
        consumer.assign([T0])
        assert consumer.poll() == []
        with pytest.raises(RetriableError, match="t-0 are in a transaction that is open"):
            consumer.position(T0)
        producer.commit()
        assert [record.value for record in consumer.poll()] == [b"2"]


def test_offsets_of_an_expelled_member_are_refused(log: Log) -> None:
    fill(log)
    with log.producer(transactional_id="x") as producer, log.consumer(group="g") as consumer:
        consumer.subscribe(["t"])
        consumer.poll()
        member = consumer.member()
        with producer.transaction():
            producer.send_offsets("g", {S0: 1}, member=member)
        consumer.close()
        producer.begin()
        with pytest.raises(FencedError, match="no member of group"):
            producer.send_offsets("g", {S0: 2}, member=member)
        producer.abort()
        with producer.transaction():  # the producer itself was not fenced
            producer.send_offsets("g", {S1: 2})
    assert log.committed("g") == {S0: 1, S1: 2}


def test_offsets_of_a_topic_that_is_not_there_are_refused(log: Log) -> None:
    fill(log)
    with log.producer(transactional_id="x") as producer:
        producer.begin()
        with pytest.raises(TopicNotFoundError):
            producer.send_offsets("g", {TopicPartition("nowhere", 0): 1})
        producer.abort()
        producer.begin()
        with pytest.raises(InvalidError, match="negative"):
            producer.send_offsets("g", {S0: -1})
        producer.abort()
        with producer.transaction():
            producer.send_offsets("g", {S0: 1})
    assert log.committed("g") == {S0: 1}


def test_offsets_that_could_not_be_written_keep_the_transaction_from_being_committed(
    log: Log, disk: FaultyDisk
) -> None:
    fill(log)
    with log.producer(transactional_id="x") as producer:
        with producer.transaction():
            producer.send_offsets("g", {S0: 1})
        producer.begin()
        put(producer, b"a")
        disk.fail("append", OSError(5, "broken"), path="__consumer_offsets")
        with pytest.raises(OSError, match="broken"):
            producer.send_offsets("g", {S0: 2})
        with pytest.raises(OSError, match="broken"):
            producer.commit()
        producer.abort()
    assert (values(log), log.committed("g")) == ([], {S0: 1})


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_producer_without_an_id_has_no_transactions(log: Log) -> None:
    with log.producer() as producer:
        for call in (producer.begin, producer.commit, producer.abort, producer.transaction):
            with pytest.raises(InvalidError, match="transactional_id"):
                call()
        with pytest.raises(InvalidError, match="transactional_id"):
            producer.send_offsets("g", {T0: 1})


def test_steps_out_of_order_are_refused(log: Log) -> None:
    with log.producer(transactional_id="x") as producer:
        for call in (producer.commit, producer.abort):
            with pytest.raises(InvalidError, match="'x' is in no transaction"):
                call()
        with pytest.raises(InvalidError, match="'x' is in no transaction"):
            producer.send("t", b"a")
        with pytest.raises(InvalidError, match="'x' is in no transaction"):
            producer.send_offsets("g", {T0: 1})
        producer.begin()
        put(producer, b"a")
        with pytest.raises(InvalidError, match="'x' is in a transaction"):
            producer.begin()
        producer.commit()
        with pytest.raises(InvalidError, match="'x' is in no transaction"):
            producer.send("t", b"b")
    with pytest.raises(InvalidError, match="closed"):
        producer.begin()
    assert values(log) == [b"a"]


def test_options_that_do_not_go_together_are_refused(log: Log) -> None:
    anything: Any
    for anything in ({"acks": 1}, {"acks": 0}, {"transaction_timeout_ms": 0}):
        with pytest.raises(ValueError, match=r"acks|transaction_timeout_ms"):
            log.producer(transactional_id="x", **anything)


def test_a_record_that_cannot_be_written_keeps_the_transaction_from_being_committed(log: Log, disk: FaultyDisk) -> None:
    with log.producer(transactional_id="x") as producer:
        producer.begin()
        put(producer, b"a", partition=1)
        producer.flush()
        disk.fail("append", OSError(5, "broken"), path="t-0")
        put(producer, b"b")
        with pytest.raises(OSError, match="broken"):
            producer.commit()
        producer.abort()
        with producer.transaction():
            put(producer, b"c")
    assert (values(log), values(log, T1)) == ([b"c"], [])


# -- two producers, and time -------------------------------------------------------------------------------------------


def test_a_second_owner_aborts_and_fences_the_first(log: Log) -> None:
    with log.producer(transactional_id="x") as first:
        first.begin()
        put(first, b"a")
        first.flush()
        with log.producer(transactional_id="x") as second:
            assert values(log, isolation="read_uncommitted") == [b"a"]
            for call in (first.commit, first.abort, first.begin, lambda: first.send_offsets("g", {T0: 1})):
                with pytest.raises(FencedError, match="'x' was taken over by another producer, of thread MainThread"):
                    call()
            with second.transaction():
                put(second, b"b")
    assert values(log) == [b"b"]


def test_a_fenced_producer_is_told_when_it_sends(log: Log) -> None:
    first = log.producer(transactional_id="x", linger_ms=0)
    first.begin()
    log.producer(transactional_id="x")
    with pytest.raises(FencedError, match="taken over"):
        first.send("t", b"a").result()
    with pytest.raises(FencedError, match="taken over"):
        first.send("t", b"b")
    first.close()


def test_a_transaction_that_takes_too_long_is_aborted(log: Log, clock: ManualClock) -> None:
    embedded: Any = log
    with log.producer(transactional_id="x", transaction_timeout_ms=5_000) as producer:
        producer.begin()
        clock.advance(60_000)  # nothing is written yet: it holds up nobody
        put(producer, b"a")
        producer.flush()
        clock.advance(4_999)
        assert embedded.end_overdue_transactions() == []
        clock.advance(1)
        assert embedded.end_overdue_transactions() == ["x"]
        with pytest.raises(FencedError, match="'x' was aborted after its time-out of 5000 ms"):
            producer.commit()
    assert values(log) == []
    assert log.offsets("t")[T0] == 2


def test_a_transaction_that_is_long_open_is_named_in_the_log(
    log: Log, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    embedded: Any = log
    with log.producer(transactional_id="x", transaction_timeout_ms=5_000) as producer, producer.transaction():
        put(producer, b"a")
        producer.flush()
        for _ in range(3):
            clock.advance(1_250)
            embedded.end_overdue_transactions()
        assert [each.message for each in caplog.records] == [
            "the transaction of 'x' is open for 2.5 s, and readers of t-0 wait for it: it is aborted after 5 s"
        ]


def test_a_commit_in_time_is_not_aborted_later(log: Log, clock: ManualClock) -> None:
    embedded: Any = log
    with log.producer(transactional_id="x", transaction_timeout_ms=5_000) as producer:
        with producer.transaction():
            put(producer, b"a")
        clock.advance(5_000)
        assert embedded.end_overdue_transactions() == []
        with producer.transaction():
            put(producer, b"b")
    assert values(log) == [b"a", b"b"]


def test_closing_a_producer_aborts_what_is_open(log: Log) -> None:
    producer = log.producer(transactional_id="x")
    producer.begin()
    put(producer, b"a")
    producer.flush()
    producer.close()
    assert values(log) == []
    assert log.offsets("t")[T0] == 2


def test_transactions_of_several_producers_cross(log: Log) -> None:
    with log.producer(transactional_id="x") as x, log.producer(transactional_id="y") as y:
        x.begin()
        y.begin()
        put(x, b"x1")
        x.flush()
        put(y, b"y1")
        y.flush()
        put(x, b"x2")
        y.abort()
        assert values(log) == []
        x.commit()
    assert values(log) == [b"x1", b"x2"]


def test_a_topic_deleted_under_a_transaction_does_not_hold_it_up(log: Log) -> None:
    log.create_topic("u")
    with log.producer(transactional_id="x") as producer, producer.transaction():
        put(producer, b"a")
        producer.send("u", b"b")
        producer.flush()
        log.delete_topic("u")
    assert values(log) == [b"a"]


# -- a disk that refuses -----------------------------------------------------------------------------------------------


def test_markers_that_find_no_room_are_written_by_the_next_commit(log: Log, disk: FaultyDisk) -> None:
    with log.producer(transactional_id="x") as producer:
        producer.begin()
        put(producer, b"a")
        put(producer, b"b", partition=1)
        producer.flush()
        disk.capacity = disk.used() + 150  # room for the decision, and no marker
        with pytest.raises(RetriableError):
            producer.commit()
        with pytest.raises(InvalidError, match="'x' is committed, if not all of it is written"):
            producer.abort()
        disk.capacity = None
        producer.commit()
    assert (values(log), values(log, T1)) == ([b"a"], [b"b"])


def test_a_decision_that_finds_no_room_leaves_the_transaction_open(log: Log, disk: FaultyDisk) -> None:
    with log.producer(transactional_id="x") as producer:
        producer.begin()
        put(producer, b"a")
        producer.flush()
        disk.capacity = disk.used()
        with pytest.raises(RetriableError):
            producer.commit()
        disk.capacity = None
        producer.abort()
    assert values(log) == []


def test_a_decision_that_is_in_doubt_ends_all_writing(disk: FaultyDisk, clock: ManualClock) -> None:
    log = Log.open("/log", disk=disk, clock=clock, background=False)
    log.create_topic("t", partitions=2)
    producer = log.producer(transactional_id="x")
    producer.begin()
    put(producer, b"a")
    producer.flush()
    disk.fail("sync", OSError(5, "broken"), path="__transaction_state")
    for call in (producer.commit, producer.commit, producer.abort, log.close):
        with pytest.raises(TailraceError, match="could not be synced"):
            call()
    disk.crash()
    with Log.open("/log", disk=disk, clock=clock, background=False) as again:
        assert values(again) in ([], [b"a"])
        assert again.offsets("t")[T0] == 2


def test_a_disk_that_fills_up_anywhere_leaves_whole_transactions(disk: FaultyDisk, clock: ManualClock) -> None:
    with Log.open("/log", disk=disk, clock=clock, background=False) as log:
        log.create_topic("t", partitions=2)
        producer = log.producer(transactional_id="x")
        producer.begin()  # topics of the log's own are made
        producer.send_offsets("g", {T0: 0})
        producer.commit()
        committed: list[bytes] = []
        for room in range(0, 1_600, 40):
            number = b"%d" % room
            producer.begin()
            disk.capacity = disk.used() + room
            try:
                put(producer, number)
                put(producer, number, partition=1)
                producer.flush()
                producer.commit_offsets("g", {T0: CommittedOffset(0, metadata=str(room))})
                producer.commit()
                committed.append(number)
            except RetriableError:
                disk.capacity = None
                try:
                    producer.abort()
                except InvalidError:  # decided already
                    producer.commit()
                    committed.append(number)
            disk.capacity = None
            assert values(log) == values(log, T1) == committed
            assert log.committed_offsets("g")[T0].metadata == (committed[-1].decode() if committed else "")
        assert 10 < len(committed) < 35


# -- beside the writer -------------------------------------------------------------------------------------------------


def test_a_reader_beside_the_writer_sees_what_is_committed(log: Log, disk: FaultyDisk, clock: ManualClock) -> None:
    with (
        Log.open("/log", disk=disk, clock=clock, background=False, read_only=True) as reader,
        log.producer(transactional_id="x") as producer,
    ):
        for number in range(6):
            producer.begin()
            put(producer, b"%d" % number)
            producer.flush()
            producer.send_offsets("g", {T0: number})
            found = [(each.transactional_id, each.partition) for each in reader.open_transactions("t")]
            assert found == [("x", T0)]
            before = values(reader)
            if number % 2:
                producer.commit()
                assert values(reader) == [*before, b"%d" % number]
                assert reader.committed("g") == {T0: number}
            else:
                producer.abort()
                assert values(reader) == before
        assert reader.open_transactions("t") == []


# -- threads -----------------------------------------------------------------------------------------------------------


def test_a_waiting_reader_is_woken_by_the_commit() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        with log.producer(transactional_id="x") as producer, log.consumer() as consumer:
            consumer.assign([T0])
            producer.begin()
            put(producer, b"a")
            producer.flush()
            found: list[bytes | None] = []
            reader = threading.Thread(target=lambda: found.extend(each.value for each in consumer.poll(30.0)))
            reader.start()
            producer.commit()
            reader.join(30.0)
            assert found == [b"a"]


def test_producers_of_several_threads_commit_side_by_side(tmp_path: Any) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("t", partitions=2)

        def work(name: str) -> None:
            with log.producer(transactional_id=name) as producer:
                for number in range(20):
                    with producer.transaction():
                        put(producer, b"%s-%d" % (name.encode(), number))
                        put(producer, b"%s-%d" % (name.encode(), number), partition=1)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        wanted = sorted(b"%s-%d" % (name, number) for name in (b"a", b"b", b"c") for number in range(20))
        assert sorted(each or b"" for each in values(log)) == wanted
        assert sorted(each or b"" for each in values(log, T1)) == wanted


def test_the_time_out_comes_by_itself() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        with log.producer(transactional_id="x", transaction_timeout_ms=20) as producer, log.consumer() as consumer:
            producer.begin()
            put(producer, b"a")
            producer.flush()
            with log.producer() as plain:
                put(plain, b"plain")
            consumer.assign([T0])
            assert [record.value for record in consumer.poll(30.0)] == [b"plain"]
            with pytest.raises(FencedError, match="time-out of 20 ms"):
                producer.commit()
