"""A producer that keeps what it sends: what an app under test has written, in the order of writing."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import repeat
from typing import Any

from tailrace.log.client import CommittedOffset, Delivery, Producer
from tailrace.log.record import Headers, Offsets, Record, TopicPartition

Raw = Record[bytes | None, bytes | None]


class KeepingProducer(Producer):
    """A producer that keeps what it sends, in order, beside sending it."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._kept: dict[str, list[Raw]] = {}
        self._counts: Counter[TopicPartition] = Counter()

    def take(self, topic: str) -> list[Raw]:
        """What was sent to a topic since it was taken last."""
        return self._kept.pop(topic, [])

    def take_counts(self) -> Counter[TopicPartition]:
        """How many records were sent to each partition since this was asked last."""
        counts, self._counts = self._counts, Counter()
        return counts

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Delivery:
        """See `Producer.send`; acknowledged when it returns."""
        delivery = self._producer.send(
            topic, value, key=key, timestamp_ms=timestamp_ms, headers=headers, partition=partition
        )
        at = delivery.result()
        self._counts[TopicPartition(topic, at.partition)] += 1
        record = Record(topic, at.partition, at.offset, at.timestamp_ms, key, value, tuple(headers))
        self._kept.setdefault(topic, []).append(record)
        return delivery

    def send_many(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        timestamps_ms: Iterable[int] | None = None,
        headers: Iterable[Headers] | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """See `Producer.send_many`: one by one, so that the order across partitions is kept."""
        delivery: Delivery | None = None
        absent: Iterable[Any] = repeat(None)
        columns = (keys or absent, timestamps_ms or absent, headers or repeat(()))
        for value, key, timestamp_ms, each in zip(values, *columns, strict=False):
            delivery = self.send(topic, value, key=key, timestamp_ms=timestamp_ms, headers=each, partition=partition)
        if delivery is None:
            raise ValueError(f"nothing to send to {topic!r}")
        return delivery

    def flush(self, timeout: float | None = None) -> None:
        """Nothing waits here."""
        self._producer.flush(timeout)

    def transaction(self) -> AbstractContextManager[None]:
        """See `Producer.transaction`."""
        return self._producer.transaction()

    def begin(self) -> None:
        """See `Producer.begin`."""
        self._producer.begin()

    def commit(self) -> None:
        """See `Producer.commit`."""
        self._producer.commit()

    def abort(self) -> None:
        """See `Producer.abort`; what was kept stays, whoever aborts knows."""
        self._producer.abort()

    def send_offsets(self, group: str, offsets: Offsets, *, member: tuple[str, int] | None = None) -> None:
        """See `Producer.send_offsets`."""
        self._producer.send_offsets(group, offsets, member=member)

    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        *,
        member: tuple[str, int] | None = None,
    ) -> None:
        """See `Producer.commit_offsets`."""
        self._producer.commit_offsets(group, offsets, member=member)

    def close(self) -> None:
        """Closes the producer behind it."""
        self._producer.close()
