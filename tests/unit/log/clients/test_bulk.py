"""Bulk sending: whatever columns there are, every row is where one `send` after the other would have put it."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.partitioner import partition_of
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk

NOW_MS = 1_700_000_000_000
PARTITIONS = {"one": 1, "three": 3}
Row = tuple[bytes | None, bytes | None, int, tuple[tuple[str, bytes | None], ...]]


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    with Log.open("/log", disk=FaultyDisk(), clock=ManualClock(NOW_MS), background=False) as opened:
        for topic, partitions in PARTITIONS.items():
            opened.create_topic(topic, partitions=partitions)
        yield opened


def rows_of(log: Log, topic: str, begun: dict[TopicPartition, int]) -> dict[int, list[Row]]:
    """What came since, by partition."""
    found: dict[int, list[Row]] = {partition.partition: [] for partition in begun}
    with log.consumer() as consumer:
        consumer.assign(list(begun))
        for partition, offset in begun.items():
            consumer.seek(partition, offset)
        while records := consumer.poll():
            for record in records:
                row = record.key, record.value, record.timestamp_ms, tuple(record.headers)
                found[record.partition].append(row)
    return found


@st.composite
def bulks(draw: st.DrawFn) -> tuple[list[bytes | None], dict[str, Any]]:
    values = draw(st.lists(st.none() | st.binary(max_size=30), min_size=1, max_size=40))
    rows = len(values)
    columns: dict[str, Any] = {}
    if draw(st.booleans()):
        columns["keys"] = draw(st.lists(st.none() | st.binary(max_size=3), min_size=rows, max_size=rows))
    if draw(st.booleans()):
        columns["timestamps_ms"] = draw(st.lists(st.integers(0, NOW_MS + 60_000), min_size=rows, max_size=rows))
    if draw(st.booleans()):
        columns["headers"] = draw(st.lists(st.sampled_from([(), (("h", b"1"),)]), min_size=rows, max_size=rows))
    return values, columns


@given(
    topic=st.sampled_from(sorted(PARTITIONS)),
    sent=st.lists(bulks(), min_size=1, max_size=4),
    batch_bytes=st.integers(80, 400),
    fixed=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_row_is_in_its_partition_in_order(
    log: Log, topic: str, sent: list[tuple[list[bytes | None], dict[str, Any]]], batch_bytes: int, *, fixed: bool
) -> None:
    begun, last = log.offsets(topic), PARTITIONS[topic] - 1
    rows: list[Row] = []
    with log.producer(batch_bytes=batch_bytes) as producer:
        for values, columns in sent:
            delivery = producer.send_many(topic, values, **columns, partition=last if fixed else None)
            absent = [None] * len(values)
            keys, times = columns.get("keys", absent), columns.get("timestamps_ms", [NOW_MS] * len(values))
            rows += zip(keys, values, times, columns.get("headers", [()] * len(values)), strict=True)
        producer.flush()
        found = rows_of(log, topic, begun)
        at = delivery.result()  # pyright: ignore[reportPossiblyUnboundVariable]  # something was sent
    assert sorted(chain.from_iterable(found.values()), key=repr) == sorted(rows, key=repr)
    assert found[at.partition][at.offset - begun[TopicPartition(topic, at.partition)]] == rows[-1]
    for partition, here in found.items():
        keyed = [row for row in rows if row[0] is not None]
        if fixed or PARTITIONS[topic] == 1:
            assert here == (rows if partition == last else [])
        else:
            of_here = [row for row in keyed if partition_of(row[0] or b"", PARTITIONS[topic]) == partition]
            assert [row for row in here if row[0] is not None] == of_here


@pytest.mark.parametrize("wrong", [{"keys": "text"}, {"timestamps_ms": 1.5}, {"values": "text"}])
def test_of_rows_for_one_partition_those_before_a_wrong_one_are_sent(log: Log, wrong: dict[str, Any]) -> None:
    begun = log.offsets("one")
    columns: dict[str, Any] = {"values": [b"v"] * 5, "keys": [b"k"] * 5, "timestamps_ms": [NOW_MS] * 5}
    for name, value in wrong.items():
        columns[name][3] = value
    with log.producer() as producer:
        with pytest.raises(TypeError, match="for topic 'one'"):
            producer.send_many("one", **columns)
        producer.send("one", b"last")
        producer.flush()
        found = rows_of(log, "one", begun)[0]
    assert [value for _, value, _, _ in found] == [b"v", b"v", b"v", b"last"]
