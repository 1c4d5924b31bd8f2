"""Arguments of a wrong type: one sentence that names them, and no traceback of ours as the message."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError

NO_INTS: list[Any] = [None, True, "2", 1.5, float("nan"), [], {}]
NO_NUMBERS: list[Any] = [None, True, "2", float("nan"), [], {}]
NO_WORDS: list[Any] = [None, True, 1, [], {}]
T = ("t", 0)

Call = Callable[[Log, Any], Any]
CALLS: dict[str, tuple[list[Any], Call]] = {
    "linger_ms": (NO_NUMBERS, lambda log, bad: log.producer(linger_ms=bad)),
    "batch_bytes": (NO_INTS, lambda log, bad: log.producer(batch_bytes=bad)),
    "buffer_bytes": (NO_INTS, lambda log, bad: log.producer(buffer_bytes=bad)),
    "compression": (NO_WORDS, lambda log, bad: log.producer(compression=bad)),
    "acks": ([None, True, "2", []], lambda log, bad: log.producer(acks=bad)),
    "transactional_id": (NO_WORDS[1:], lambda log, bad: log.producer(transactional_id=bad)),
    "group": (NO_WORDS[1:], lambda log, bad: log.consumer(group=bad)),
    "isolation": (NO_WORDS, lambda log, bad: log.consumer(isolation=bad)),
    "reset": (NO_WORDS, lambda log, bad: log.consumer(reset=bad)),
    "fetch_min_bytes": (NO_INTS, lambda log, bad: log.consumer(fetch_min_bytes=bad)),
    "fetch_max_wait_ms": (NO_NUMBERS, lambda log, bad: log.consumer(fetch_max_wait_ms=bad)),
    "group_instance_id": (NO_WORDS[1:], lambda log, bad: log.consumer(group="g", group_instance_id=bad)),
    "assignor": (NO_WORDS, lambda log, bad: log.consumer(group="g", assignor=bad)),
    "max_poll_interval_ms": (NO_INTS, lambda log, bad: log.consumer(group="g", max_poll_interval_ms=bad)),
    "topics": ([None, 1, b"t"], lambda log, bad: log.consumer(group="g").subscribe(bad)),
    "partitions": ([None, 1, "t", b"t"], lambda log, bad: log.consumer().assign(bad)),
    "timeout": ([None, True, "1", []], lambda log, bad: log.consumer().poll(timeout=bad)),
    "max_records": (NO_INTS, lambda log, bad: log.consumer().poll(max_records=bad)),
    "offsets": ([1, "t", [T]], lambda log, bad: log.consumer(group="g").commit(bad)),
    "the offset for t-0": (NO_INTS, lambda log, bad: log.consumer(group="g").commit({T: bad})),
    "the offset for t-0 ": (NO_INTS, lambda log, bad: log.alter_offsets("g", {T: bad})),
    "the offset for t-0  ": (NO_INTS, lambda log, bad: begun(log).send_offsets("g", {T: bad})),
    "group ": (NO_WORDS, lambda log, bad: begun(log).send_offsets(bad, {T: 0})),
    "member": ([True, "x", ("x",), (1, "x")], lambda log, bad: begun(log).send_offsets("g", {T: 0}, member=bad)),
    "flush": (NO_WORDS, lambda _log, bad: Log.open("memory:", flush=bad)),
}


def begun(log: Log) -> Any:
    producer = log.producer(transactional_id="x")
    producer.begin()
    return producer


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:", background=False) as opened:
        opened.create_topic("t")
        yield opened


@pytest.mark.parametrize("argument", CALLS)
def test_the_argument_is_named(argument: str, log: Log) -> None:
    bads, call = CALLS[argument]
    for bad in bads:
        with pytest.raises((TypeError, ValueError)) as raised:
            call(log, bad)
        assert argument.strip() in str(raised.value), bad
        assert not isinstance(raised.value, UnicodeError)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("linger_ms", -1), ("linger_ms", float("inf")), ("batch_bytes", 0), ("buffer_bytes", 10**30)],
)
def test_a_number_that_cannot_be(argument: str, value: float, log: Log) -> None:
    options: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=f"{argument}="):
        log.producer(**options)


def test_a_log_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        InvalidError, match=r"log .*file/below cannot be opened, as .*file.* cannot be used .*: give another"
    ):
        Log.open(str(tmp_path / "file" / "below"))
