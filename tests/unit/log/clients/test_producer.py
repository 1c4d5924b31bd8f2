"""The producer: order, batches, answers, refusals, bounded memory."""

import errno
import threading
from collections.abc import Iterator
from typing import Any, get_args
from unittest.mock import patch

import pytest

from tailrace.log.broker import Broker
from tailrace.log.client import Compression, Consumer, Log
from tailrace.log.clients import outgoing
from tailrace.log.clock import ManualClock
from tailrace.log.errors import DiskFullError, InvalidError, RetriableError, TailraceError, TopicNotFoundError
from tailrace.log.partitioner import partition_of
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk

NOW_MS = 1_700_000_000_000
T = TopicPartition("t", 0)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def log(disk: FaultyDisk, clock: ManualClock) -> Iterator[Log]:
    with Log.open("/log", disk=disk, clock=clock, background=False) as opened:
        opened.create_topic("t")
        opened.create_topic("wide", partitions=3)
        yield opened


def values(log: Log, *partitions: TopicPartition) -> list[bytes | None]:
    with log.consumer() as consumer:
        consumer.assign(partitions or [T])
        return [record.value for record in all_of(consumer)]


def all_of(consumer: Consumer) -> list[Any]:
    out: list[Any] = []
    while records := consumer.poll():
        out += records
    return out


@pytest.mark.parametrize("compression", get_args(Compression))
@pytest.mark.parametrize("acks", ["all", 1, 0])
def test_records_stay_in_order_under_every_codec(log: Log, compression: Compression, acks: Any) -> None:
    with log.producer(acks=acks, compression=compression, batch_bytes=500) as producer:
        for number in range(100):
            producer.send("t", b"%d" % number)
        producer.send_many("t", [b"%d" % number for number in range(100, 300)])
        producer.send("t", b"300")
    assert values(log) == [b"%d" % number for number in range(301)]


def test_an_answer_says_where_and_when(log: Log, clock: ManualClock) -> None:
    log.create_topic("stamped", config={"message.timestamp.type": "LogAppendTime"})
    with log.producer() as producer:
        first, second = producer.send("t", b"1"), producer.send("t", b"2", timestamp_ms=5)
        assert not first.done()
        assert (second.result().offset, second.result().timestamp_ms) == (1, 5)
        assert first.done()
        assert (first.result().offset, first.result().timestamp_ms) == (0, NOW_MS)
        stamped = producer.send("stamped", b"1", timestamp_ms=5)
        clock.advance(10)
        assert stamped.result().timestamp_ms == NOW_MS + 10
    with log.producer(acks=0) as producer:
        unanswered = producer.send("t", b"3")
        assert unanswered.done()
        assert unanswered.result().offset == -1


def test_keys_choose_partitions_and_null_keys_fill_batches(log: Log) -> None:
    keys = [b"%d" % number for number in range(50)]
    with log.producer(batch_bytes=300) as producer:
        single = [producer.send("wide", b"v", key=key).result().partition for key in keys]
        assert single == [partition_of(key, 3) for key in keys]
        producer.send_many("wide", [b"v"] * 50, keys=keys)
        producer.flush()
        plain = [producer.send("wide", b"x" * 90) for _ in range(12)]
        producer.flush()
        assert [each.result().partition for each in plain] == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]
        assert producer.send("wide", b"v", key=b"1", partition=2).result().partition == 2


def test_a_bulk_with_all_columns(log: Log) -> None:
    with log.producer() as producer:
        delivery = producer.send_many(
            "wide",
            iter([b"1", None, b"3"]),
            keys=[b"a", None, b"c"],
            timestamps_ms=[1, 2, 3],
            headers=[[], [("h", b"x")], ()],
            partition=1,
        )
        assert (delivery.result().partition, delivery.result().offset, delivery.done()) == (1, 2, True)
    with log.consumer() as consumer:
        consumer.assign([TopicPartition("wide", 1)])
        assert [(r.key, r.value, r.timestamp_ms, r.headers) for r in consumer.poll()] == [
            (b"a", b"1", 1, ()),
            (None, None, 2, (("h", b"x"),)),
            (b"c", b"3", 3, ()),
        ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"value": "text"}, "value for topic 't' is str"),
        ({"value": 5}, "value for topic 't' is int"),
        ({"value": b"", "key": "k"}, "key for topic 't' is str"),
        ({"value": b"", "timestamp_ms": "now"}, "timestamp_ms for topic 't' is str"),
        ({"value": b"", "timestamp_ms": 1.5}, "timestamp_ms for topic 't' is float"),
        ({"value": b"", "headers": [("h", "x")]}, "headers for topic 't'"),
        ({"value": b"", "headers": [b"h"]}, "headers for topic 't'"),
        ({"value": b"", "headers": 5}, "headers for topic 't'"),
        ({"value": b"", "partition": "0"}, "partition for topic 't'"),
    ],
)
def test_a_wrong_type_names_argument_and_topic_and_leaves_no_trace(log: Log, arguments: Any, words: str) -> None:
    with log.producer() as producer:
        producer.send("t", b"before")
        with pytest.raises(TypeError, match=words):
            producer.send("t", **arguments)
        producer.send("t", b"after")
    assert values(log) == [b"before", b"after"]


def test_a_wrong_type_in_a_bulk_is_named_and_what_came_before_was_sent(log: Log) -> None:
    wrong: Any = [b"1", "2", b"3"]
    with log.producer() as producer:
        with pytest.raises(TypeError, match="value for topic 't' is str"):
            producer.send_many("t", wrong)
        with pytest.raises(TypeError, match="key for topic 't' is str"):
            producer.send_many("t", [b"2", b"3"], keys=wrong[1:])
        with pytest.raises(TypeError, match="send_many takes many"):
            producer.send_many("t", wrong[0])
        with pytest.raises(ValueError, match="got 2 values and 1 keys"):
            producer.send_many("t", [b"4", b"5"], keys=[b"k"])
        with pytest.raises(ValueError, match="no values"):
            producer.send_many("t", [])
        producer.send("t", b"last")
    assert values(log) == [b"1", b"last"]


def test_refusals_name_size_limit_and_time(log: Log) -> None:
    log.create_topic("small", config={"max.message.bytes": 1000, "message.timestamp.before.max.ms": 1000})
    with log.producer() as producer:
        with pytest.raises(InvalidError, match=r"makes a batch of 207\d bytes, max\.message\.bytes allows 1000"):
            producer.send("small", b"x" * 2000)
        with pytest.raises(InvalidError, match=r"max\.message\.bytes"):
            producer.send_many("small", [b"y", b"x" * 2000])
        producer.send("t", b"x", timestamp_ms=NOW_MS + 3_600_000)
        with pytest.raises(InvalidError, match=r"3600001 ms ahead of now, message\.timestamp\.after"):
            producer.send("t", b"x", timestamp_ms=NOW_MS + 3_600_001)
        with pytest.raises(InvalidError, match="ahead"):
            producer.send_many("t", [b"x"], timestamps_ms=[NOW_MS * 1000])
        with pytest.raises(InvalidError, match=r"1001 ms old, message\.timestamp\.before"):
            producer.send("small", b"x", timestamp_ms=NOW_MS - 1001)
        with pytest.raises(ValueError, match="before 1970"):
            producer.send("t", b"x", timestamp_ms=-1)
        with pytest.raises(InvalidError, match="partitions 0 to 0, not 1"):
            producer.send("t", b"x", partition=1)
        with pytest.raises(TopicNotFoundError):
            producer.send("missing", b"x")
    assert values(log) == [b"x"]
    assert values(log, TopicPartition("small", 0)) == [b"y"]


def test_batches_fit_the_segments_of_their_topic(log: Log) -> None:
    log.create_topic("small", config={"segment.bytes": 500})
    with log.producer(linger_ms=1000, batch_bytes=100_000) as producer:
        deliveries = [producer.send("small", b"v" * 40) for _ in range(100)]
        producer.flush()
    assert [delivery.result().offset for delivery in deliveries] == list(range(100))


def test_a_full_disk_fails_its_batch_and_the_log_goes_on(log: Log, disk: FaultyDisk) -> None:
    with log.producer() as producer:
        assert producer.send("t", b"1").result().offset == 0
        disk.capacity = disk.used() + 10
        lost = [producer.send("t", b"x" * 100) for _ in range(3)]
        for each in lost:
            with pytest.raises(DiskFullError):
                each.result()
        disk.capacity = None
        assert producer.send("t", b"2").result().offset == 1
        producer.flush()
    assert values(log) == [b"1", b"2"]


def test_an_error_that_nobody_saw_is_raised_by_flush(log: Log, disk: FaultyDisk) -> None:
    with log.producer() as producer:
        disk.capacity = disk.used()
        producer.send_many("t", [b"1", b"2"])
        with pytest.raises(DiskFullError):
            producer.flush()
        producer.flush()
        bulk = producer.send_many("t", [b"1", b"2"])
        with pytest.raises(DiskFullError):
            bulk.result()
        disk.capacity = None
    disk.capacity = disk.used()
    with pytest.raises(DiskFullError), log.producer() as producer:
        producer.send("t", b"3")
    producer = log.producer()
    producer.send("t", b"3")
    producer.__exit__(KeyError, KeyError(), None)  # the block's own error is not hidden by one of the flush
    disk.capacity = None
    assert values(log) == []


@pytest.mark.parametrize("keyed", [True, False])
def test_a_bulk_tells_up_to_where_it_is_acknowledged(log: Log, disk: FaultyDisk, *, keyed: bool) -> None:
    """What comes before the first record of any batch that failed, though later batches may be in the log."""
    with log.producer(batch_bytes=2_000, linger_ms=0) as producer:
        rows = [b"%05d" % number for number in range(5_000)]
        keys = [b"%d" % (number % 7) for number in range(5_000)] if keyed else None
        whole = producer.send_many("wide", rows, keys=keys)
        assert (whole.done(), whole.acknowledged()) == (True, 5_000)
        disk.fail("append", DiskFullError("full"), path="wide-1/")
        broken = producer.send_many("wide", rows, keys=keys)
        assert broken.done()
        with pytest.raises(DiskFullError):
            broken.result()
        known = broken.acknowledged()
        assert 0 <= known < 5_000
    found = values(log, *[TopicPartition("wide", number) for number in range(3)])
    assert all(found.count(row) == 2 for row in rows[:known])
    assert found.count(rows[known]) == 1
    assert len(found) < 10_000 - 100


def test_after_a_failed_sync_nothing_is_acknowledged(log: Log, disk: FaultyDisk) -> None:
    with log.producer() as producer:
        producer.send("t", b"1").result()
        disk.fail("sync", OSError(errno.EIO, "bad sector"), path="t-0")
        for value in (b"2", b"3"):
            with pytest.raises(TailraceError, match="synced"):
                producer.send("t", value).result()
        assert producer.send("wide", b"fine").result().offset == 0


def test_sends_wait_while_the_buffer_is_full(log: Log, monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    producer: Any = log.producer(buffer_bytes=1000, batch_bytes=600)
    asked: list[Any] = []

    def when_synced(_topic: Any, _number: int, done: Any) -> None:
        asked.append(done)

    def wait(timeout: float) -> None:
        clock.advance(int(timeout * 1000))

    monkeypatch.setattr(producer._broker, "when_synced", when_synced)
    monkeypatch.setattr(producer._changed, "wait", wait)
    producer.send_many("t", [b"x" * 400])
    with pytest.raises(RetriableError, match="no room for a record to topic 't' within 60 s"):
        producer.send_many("t", [b"x" * 400])
    assert len(asked) == 1
    asked.pop()(None)
    producer.send("t", b"x" * 400)
    with pytest.raises(RetriableError, match="not acknowledged within 5 s"):
        producer.flush(timeout=5)
    for done in asked:
        done(None)
    producer.close()
    assert len(values(log)) == 2


def test_an_interrupted_bulk_leaves_a_whole_batch(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    producer: Any = log.producer()
    real = outgoing.Batch.__init__

    def interrupted(batch: Any, *arguments: Any) -> None:
        real(batch, *arguments)
        append, left = batch.append, iter(range(5))

        def stop(*record: Any) -> Any:
            out = append(*record)
            if next(left, None) is None:
                raise KeyboardInterrupt
            return out

        batch.append = stop

    monkeypatch.setattr(outgoing.Batch, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        producer.send_many("t", [b"%d" % number for number in range(10)])
    monkeypatch.undo()
    producer.send("t", b"last")
    producer.close()
    assert values(log) == [*[b"%d" % number for number in range(6)], b"last"]


def test_a_deleted_topic_fails_what_is_on_its_way_and_a_new_one_of_its_name_is_another(log: Log) -> None:
    with log.producer() as producer:
        lost = producer.send("t", b"1")
        log.delete_topic("t")
        with pytest.raises(TopicNotFoundError):
            lost.result()
        with pytest.raises(TopicNotFoundError):
            producer.send("t", b"2")
        log.create_topic("t", partitions=2)
        assert producer.send("t", b"3", partition=1).result().offset == 0


def test_after_close_there_is_a_clear_error(log: Log) -> None:
    producer = log.producer()
    producer.send("t", b"1")
    producer.close()
    producer.close()
    with pytest.raises(InvalidError, match="producer is closed"):
        producer.send("t", b"2")
    assert values(log) == [b"1"]


@pytest.mark.parametrize("transactional_id", [None, "t"])
def test_clients_that_their_log_closes_name_the_log(transactional_id: str | None) -> None:
    """From the first one that is closed on: another thread may see that before the log itself is closed."""
    log = Log.open("memory:")
    log.create_topic("t")
    consumer, producer = log.consumer(), log.producer(transactional_id=transactional_id)
    with patch.object(Broker, "close"):
        log.close()
    for use in (lambda: producer.send("t", b""), lambda: consumer.poll(0), log.producer, log.consumer):
        with pytest.raises(InvalidError, match="the log memory: is closed: open it again"):
            use()
    log.close()


def test_threads_share_a_producer(log: Log) -> None:
    with log.producer(batch_bytes=200) as producer:

        def send(name: int) -> None:
            for number in range(200):
                producer.send("t", b"%d %d" % (name, number))

        threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [tuple(map(int, (value or b"").split())) for value in values(log)]
    for name in range(4):
        assert [number for who, number in found if who == name] == list(range(200))


@pytest.mark.parametrize(
    "arguments", [{"acks": 2}, {"acks": True}, {"compression": "br"}, {"linger_ms": -1}, {"batch_bytes": 0}]
)
def test_wrong_settings_are_refused_at_the_call(log: Log, arguments: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        log.producer(**arguments)


def test_what_lingers_is_written_by_itself() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t")
        producer = log.producer(linger_ms=1)
        producer.send("t", b"1")
        assert log.wait_for_data({T: 0}, timeout=10)
        producer.close()


@pytest.mark.parametrize("name", ["keys", "timestamps_ms", "headers"])
@pytest.mark.parametrize("given", [1, 3])
def test_as_many_keys_times_and_headers_as_values(log: Log, name: str, given: int) -> None:
    one: dict[str, Any] = {"keys": b"k", "timestamps_ms": NOW_MS, "headers": ()}
    known: dict[str, Any] = {name: [one[name]] * given}
    unknown: dict[str, Any] = {name: iter([one[name]] * given)}
    with log.producer() as producer:
        with pytest.raises(ValueError, match=f"2 values and {given} {name}: .* nothing was sent"):
            producer.send_many("t", [b"1", b"2"], **known)
        assert values(log) == []
        wrong = "1 keys and more values: .* the first 0 were" if given == 1 else "2 values and more keys: .* the 2 were"
        with pytest.raises(ValueError, match=f"{wrong.replace('keys', name)} sent"):
            producer.send_many("t", iter([b"1", b"2"]), **unknown)


def test_what_nobody_asks_for_is_told_once_per_partition_and_cause(
    log: Log, disk: FaultyDisk, caplog: pytest.LogCaptureFixture
) -> None:
    producer = log.producer(acks=0, linger_ms=0)
    disk.capacity = disk.used()
    for _ in range(100):
        producer.send("t", b"lost")
        producer.send("wide", b"lost", partition=1)
    disk.capacity = None
    producer.send("t", b"written")
    assert len(caplog.records) == 2
    producer.close()
    assert [each.getMessage() for each in caplog.records[2:]] == [
        "in all, 100 records for t-0 were not written (DiskFullError)",
        "in all, 100 records for wide-1 were not written (DiskFullError)",
    ]
    assert values(log) == [b"written"]
