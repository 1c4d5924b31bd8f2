"""What keeps a transaction from being committed though its error was caught, and offsets that are mistaken."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tailrace.log.client import Log, Producer
from tailrace.log.clock import ManualClock
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import ExpelledError, InvalidError, RetriableError, TopicNotFoundError
from tailrace.log.record import TopicPartition

T = TopicPartition("t", 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def log(clock: ManualClock) -> Iterator[Log]:
    with Log.open("/log", disk=MemoryDisk(), clock=clock, background=False) as opened:
        opened.create_topic("t", config={"max.message.bytes": 1_000})
        opened.create_topic("guarded", config={"message.timestamp.after.max.ms": 1})
        yield opened


@pytest.fixture
def producer(log: Log) -> Iterator[Producer]:
    with log.producer(transactional_id="x") as made:
        yield made


def values(log: Log) -> list[bytes | None]:
    with log.consumer() as consumer:
        consumer.assign([T])
        return [record.value for record in consumer.poll()]


# ---------------------------------------------------------------- records that were refused

REFUSED: dict[str, Callable[[Producer], Any]] = {
    "too large": lambda producer: producer.send("t", bytes(2_000)),
    "no such topic": lambda producer: producer.send("nowhere", b""),
    "no such partition": lambda producer: producer.send("t", b"", partition=7),
    "from the future": lambda producer: producer.send("guarded", b"", timestamp_ms=9_000_000),
    "too large, among many": lambda producer: producer.send_many("t", [b"b", bytes(2_000), b"c"]),
    "of a wrong type, among many": lambda producer: producer.send_many("t", [b"b", "c"]),  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # the mistake
    "no such topic for an offset": lambda producer: producer.send_offsets("g", {TopicPartition("nowhere", 0): 0}),
    "an offset past the end": lambda producer: producer.send_offsets("g", {T: 10**9}),
}


def swallow(producer: Producer, refused: Callable[[Producer], Any]) -> list[Exception]:
    """A transaction of which something is refused, and whose author does not mind; returns what was raised."""
    raised: list[Exception] = []
    try:
        with producer.transaction():
            producer.send("t", b"a")
            try:
                refused(producer)
            except (InvalidError, ExpelledError, TypeError) as error:
                raised.append(error)
            producer.send("t", b"d")
    except InvalidError as error:
        raised.append(error)
    return raised


@pytest.mark.parametrize("refused", REFUSED)
def test_a_transaction_of_which_something_was_refused_is_not_committed(
    refused: str, log: Log, producer: Producer
) -> None:
    caught, raised = swallow(producer, REFUSED[refused])
    assert "the transaction of 'x' cannot be committed, as not all" in str(raised)
    assert "abort it, and send" in str(raised)
    assert raised.__cause__ is caught
    assert str(caught) in str(raised)
    # It was aborted, and the next one is as good as any.
    with producer.transaction():
        producer.send("t", b"e")
    assert values(log) == [b"e"]
    assert log.committed("g") == {}


def test_it_is_refused_as_often_as_it_is_asked_for(log: Log, producer: Producer) -> None:
    producer.begin()
    producer.send("t", b"a")
    with pytest.raises(InvalidError, match=r"max\.message\.bytes"):
        producer.send("t", bytes(2_000))
    for _ in range(2):
        with pytest.raises(InvalidError, match=r"max\.message\.bytes"):
            producer.commit()
    producer.abort()
    assert values(log) == []


def test_a_wrong_type_asked_nothing_of_the_log(log: Log, producer: Producer) -> None:
    """As with Kafka's producer: a serializer that raises is the program's own affair."""
    with producer.transaction():
        producer.send("t", b"a")
        with pytest.raises(TypeError):
            producer.send("t", "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake
        producer.send("t", b"b")
    assert values(log) == [b"a", b"b"]


def test_no_room_in_the_buffer_may_pass_when_all_is_sent_again(
    log: Log, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RetriableError("no room")

    producer.begin()
    producer.send("t", b"a")
    with monkeypatch.context() as patched:
        patched.setattr(type(producer), "_open_batch", full)
        with pytest.raises(RetriableError):
            producer.send("guarded", b"b")
    with pytest.raises(RetriableError, match="cannot be committed"):
        producer.commit()
    producer.abort()
    assert values(log) == []


def test_outside_of_a_transaction_nothing_is_remembered(log: Log, producer: Producer) -> None:
    with pytest.raises(InvalidError, match="in no transaction"):
        producer.send("nowhere", b"")
    with producer.transaction():
        producer.send("t", b"a")
    assert values(log) == [b"a"]


# ---------------------------------------------------------------- offsets


def test_offsets_of_an_expelled_member_keep_the_transaction_from_being_committed(log: Log, producer: Producer) -> None:
    with log.consumer(group="g") as consumer:
        consumer.subscribe(["t"])
        consumer.poll()
        member = consumer.member()
    caught, raised = swallow(producer, lambda producer: producer.send_offsets("g", {T: 0}, member=member))
    assert isinstance(caught, ExpelledError)
    assert "cannot be committed" in str(raised)
    assert values(log) == []


def test_offsets_without_a_member_are_taken_as_kafka_does_and_told_once(
    log: Log, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    """Kafka's ClassicGroup.validateOffsetCommit: an empty member id is looked at only outside of transactions."""
    with producer.transaction():
        producer.send_offsets("g", {T: 0})
    assert caplog.messages == []
    with log.consumer(group="g") as consumer:
        consumer.subscribe(["t"])
        consumer.poll()
        for _ in range(2):
            with producer.transaction():
                producer.send("t", b"a")
                producer.send_offsets("g", {T: 0})
    (told,) = caplog.messages
    assert "of group 'g' without member=, while the group has members (consumer-000001)" in told
    assert "member=consumer.member()" in told


def test_offsets_past_the_end_are_refused(log: Log) -> None:
    with log.producer() as plain:
        plain.send("t", b"a")
    with log.consumer(group="g") as consumer:
        consumer.assign([T])
        with pytest.raises(InvalidError, match=r"offset 2 for t-0 in group 'g' is past its end at 1"):
            consumer.commit({T: 2})
        consumer.commit({T: 1})
        # A position that is out of range is seen to by the next poll.
        consumer.seek(T, 5)
        consumer.commit()
    assert log.committed("g") == {T: 5}


def test_offsets_of_a_topic_that_is_gone_are_refused(log: Log) -> None:
    with log.consumer(group="g") as consumer:
        consumer.assign([T])
        with pytest.raises(TopicNotFoundError):
            consumer.commit({TopicPartition("nowhere", 0): 0})


# ---------------------------------------------------------------- ends within a block


@pytest.mark.parametrize(
    ("end", "told"),
    [("commit", "was committed within .* leave the commit out"), ("abort", "was aborted within .* raise")],
)
def test_an_end_within_a_block_is_told_as_what_it_did(log: Log, producer: Producer, end: str, told: str) -> None:
    def block() -> None:
        with producer.transaction():
            producer.send("t", b"a")
            getattr(producer, end)()

    with pytest.raises(InvalidError, match=f"the transaction of 'x' {told}"):
        block()
    assert values(log) == ([b"a"] if end == "commit" else [])
    with producer.transaction():
        producer.send("t", b"b")
    assert values(log)[-1:] == [b"b"]
