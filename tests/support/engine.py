"""Runs an app over a log in memory, for tests: feed records, run to the end, read what came out."""

from collections.abc import Iterable, Sequence
from typing import Any

from tailrace.log.client import Log
from tailrace.log.record import Record
from tailrace.streams.program.topic import Topic

Fed = tuple[str | None, str | None, int]
"""key, value, timestamp in ms."""


def feed(log: Log, topic: str, records: Iterable[Fed], partition: int = 0) -> None:
    """Sends records to one partition, in order."""
    with log.producer(linger_ms=0) as producer:
        for key, value, timestamp_ms in records:
            producer.send(
                topic,
                None if value is None else value.encode(),
                key=None if key is None else key.encode(),
                timestamp_ms=timestamp_ms,
                partition=partition,
            )


def contents(log: Log, topic: str) -> list[Record[bytes | None, bytes | None]]:
    """Everything in a topic, partition after partition."""
    ends = log.offsets(topic, "latest")
    with log.consumer() as consumer:
        found: list[Record[bytes | None, bytes | None]] = []
        for partition, end in sorted(ends.items()):
            consumer.assign([partition])
            consumer.seek_to_beginning()
            while consumer.position(partition) < end:
                found += consumer.poll(timeout=1.0)
        return found


def decoded(
    records: Sequence[Record[bytes | None, bytes | None]], topic: Topic[Any, Any]
) -> list[tuple[Any, Any, int]]:
    """(key, value, timestamp_ms) of records, by the topic's codecs."""
    return [
        (
            None if record.key is None else topic.key_codec.decode(record.key),
            None if record.value is None else topic.value_codec.decode(record.value),
            record.timestamp_ms,
        )
        for record in records
    ]
