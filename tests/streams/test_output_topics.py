"""Output topics that are not as a program thinks: compacted, where it writes null keys, or with other settings."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from tailrace.log.client import Log
from tailrace.log.errors import EncodeError
from tailrace.log.partitioner import partition_of
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.tests.support.engine import Fed, contents, feed
from tailrace.windows.duration import milliseconds, seconds
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

GOOD: Fed = ("a", '{"n": 1}', 10)


class Item(Struct):
    n: int


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        opened.create_topic("in")
        yield opened


def items(log: Log, **options: Any) -> tuple[App, Stream[str, Item]]:
    app = App("app", log=log, **options)
    return app, app.stream(app.topic("in", key=str, value=Item))


@pytest.mark.parametrize("chosen", [True, False])
def test_a_null_key_for_a_compacted_topic_is_refused_with_the_line_and_the_record(chosen: bool, log: Log) -> None:
    feed(log, "in", [GOOD, (None, GOOD[1], 2)])
    app, stream = items(log)
    out = app.topic("out", key=str, value=Item, compact=True)
    stream.to((lambda _key, _value: out) if chosen else out)
    told = r"topic 'out', written at .*test_output_topics.py:\d+, has a null key, and a compacted .*in-0@1"
    for _ in range(2):
        with pytest.raises(EncodeError, match=told):
            app.run(until="end")


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_a_null_key_for_a_compacted_topic_follows_the_policy(policy: Any, log: Log) -> None:
    feed(log, "in", [(None, GOOD[1], 1), GOOD])
    # Compacted in the log, and the program does not say so.
    log.create_topic("out", config={"cleanup.policy": "compact"})
    app, stream = items(log, on_error=policy)
    stream.to(app.topic("out", key=str, value=Item))
    assert app.run(until="end").dropped == {"error": 1}
    assert [record.key for record in contents(log, "out")] == [b"a"]
    if policy == "dead_letter":
        (letter,) = contents(log, "app-dead-letters")
        assert letter.key is None


def test_settings_that_an_existing_topic_has_otherwise_are_told_once(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    feed(log, "in", [GOOD])
    log.create_topic("out", partitions=2, config={"cleanup.policy": "delete", "retention.ms": 5_000})
    app, stream = items(log)
    out = app.topic("out", key=str, value=Item, partitions=3, compact=True, config={"retention.ms": 5_000})
    stream.to(out)
    stream.filter(bool).to(out)
    made = app.topic("made", key=str, value=Item, partitions=3, config={"cleanup.policy": ["delete", "compact"]})
    stream.to(made)
    app.run(until="end")
    (told,) = [each for each in caplog.messages if each.startswith("topic ")]
    assert "'out', declared with cleanup.policy=compact, partitions=3 at " + __file__ in told
    assert "has cleanup.policy=delete, partitions=2 in the log" in told
    caplog.clear()
    app.run(until="end")
    assert [each for each in caplog.messages if "'made'" in each] == []


# ---------------------------------------------------------------- output topics that get partitions


def by_partition(log: Log, topic: str) -> dict[int, list[bytes | None]]:
    found: dict[int, list[bytes | None]] = {}
    for record in contents(log, topic):
        found.setdefault(record.partition, []).append(record.key)
    return found


@pytest.mark.parametrize("windowed", [False, True])
def test_an_output_that_gets_partitions_is_written_by_its_new_count(windowed: bool, log: Log) -> None:
    keys = [f"k{number}" for number in range(20)]
    app = App("app", log=log, commit_interval=milliseconds(1))

    def look(value: str) -> None:
        if value == "now" and log.describe_topic("out").partitions == 1:
            log.create_partitions("out", 4)

    stream = app.stream(app.topic("in", key=str, value=str)).peek(look)
    if windowed:
        counts = stream.group_by_key().windowed_by(tumbling(seconds(1))).count(store="n")
        counts.changes().to(app.topic("out", key=Windowed[str], value=int))
    else:
        stream.to(app.topic("out", key=str, value=str))
    for value in ("before", "now", "after", "after"):
        feed(log, "in", [(key, value, 0) for key in keys])
        app.run(until="end")
    found = by_partition(log, "out")
    assert sorted(found) == [0, 1, 2, 3]
    # A windowed key goes with the key inside; its bytes end with the window's times.
    inner = {number: {(each or b"")[: -8 * windowed or None] for each in these} for number, these in found.items()}
    for number in (1, 2, 3):
        assert inner[number] == {each.encode() for each in keys if partition_of(each.encode(), 4) == number}
