"""A log from outside: open, create, send, read, commit, close, open again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.errors import InvalidError, LogLockedError, TopicExistsError, TopicNotFoundError
from tailrace.log.record import TopicPartition

CLICKS = TopicPartition("clicks", 0)


@pytest.fixture(params=["memory", "directory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Log]:
    return lambda: Log.open("memory:" if request.param == "memory" else str(tmp_path / "log"))


def test_what_was_sent_is_read(reopen: Callable[[], Log]) -> None:
    with reopen() as log:
        log.create_topic("clicks", partitions=2)
        with log.producer() as producer:
            sent = producer.send(
                "clicks", b"v", key=b"k", timestamp_ms=5, headers=[("h", b"x"), ("n", None)], partition=1
            )
            assert sent.result(timeout=5).offset == 0
            producer.send_many("clicks", [b"1", None, b"3"], partition=1, timestamps_ms=[6, 7, 8]).result(timeout=5)
        with log.consumer() as consumer:
            consumer.assign([TopicPartition("clicks", 0), TopicPartition("clicks", 1)])
            records = consumer.poll(timeout=5)
    assert [(r.partition, r.offset, r.timestamp_ms, r.key, r.value) for r in records] == [
        (1, 0, 5, b"k", b"v"),
        (1, 1, 6, None, b"1"),
        (1, 2, 7, None, None),
        (1, 3, 8, None, b"3"),
    ]
    assert records[0].headers == (("h", b"x"), ("n", None))


def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    place = str(tmp_path / "log")
    with Log.open(place) as log:
        log.create_topic("clicks", config={"retention.ms": 3_600_000})
        log.create_topic("gone")
        log.delete_topic("gone")
        described = log.describe_topic("clicks")
        with log.producer() as producer:
            producer.send_many("clicks", [b"1", b"2"])
        log.commit_offsets("g", {CLICKS: CommittedOffset(1, 0, "text")})
    with Log.open(place) as log:
        assert log.topics() == ["clicks"]
        assert log.topics(internal=True) == ["__consumer_offsets", "clicks"]
        assert log.describe_topic("clicks") == described
        assert described.config["retention.ms"] == "3600000"
        assert log.offsets("clicks") == {CLICKS: 2}
        assert log.committed_offsets("g") == {CLICKS: CommittedOffset(1, 0, "text")}
        with log.consumer(group="g") as consumer:
            consumer.assign([CLICKS])
            assert [record.value for record in consumer.poll()] == [b"2"]
            consumer.commit()
        assert log.committed("g") == {CLICKS: 2}


def test_a_missing_topic_is_an_error_with_near_names(reopen: Callable[[], Log]) -> None:
    with reopen() as log:
        log.create_topic("clicks")
        with log.producer() as producer, pytest.raises(TopicNotFoundError, match="did you mean 'clicks'"):
            producer.send("click", b"")
        with pytest.raises(TopicNotFoundError):
            log.delete_topic("nothing")
        with pytest.raises(TopicExistsError):
            log.create_topic("clicks")
        log.create_topic("clicks", exist_ok=True)
        assert log.topics() == ["clicks"]


def test_a_second_writer_is_told_who_holds_the_log(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")):
        with pytest.raises(
            LogLockedError, match=r"is open for writing in this process .* use that Log object"
        ) as caught:
            Log.open(str(tmp_path / "log"))
        assert caught.value.pid == os.getpid()
        (tmp_path / "log" / ".lock").write_text("1\n")  # as if another held it
        with pytest.raises(
            LogLockedError, match=r"written by process 1: stop it first, or read beside it with read_only"
        ):
            Log.open(str(tmp_path / "log"))


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InvalidError, match="not a log"):
        Log.open(str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("given", [3, None, b"data"])
def test_a_log_is_named_by_text(given: object) -> None:
    with pytest.raises(TypeError, match=r"Log.open takes a str, such as a folder or .*, not (int|NoneType|bytes)"):
        Log.open(given)  # type: ignore[arg-type]  # the user's mistake
