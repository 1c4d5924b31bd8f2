"""A record and its coordinates as values: what a consumer hands out and a producer gets back.

1. A record never changes once it is in the log; `Record` is frozen.
2. Every time is in milliseconds since the epoch, UTC.

Not here: bytes (`codec`), and the batch, which is the unit of everything inside (`client.FetchedBatch`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

K = TypeVar("K")
V = TypeVar("V")

Headers = Sequence[tuple[str, bytes | None]]
Instant = datetime | int
At = Literal["earliest", "latest"] | Instant


class TopicPartition(NamedTuple):
    """One partition of a topic: hashable, ordered, equal to the tuple `(topic, partition)`."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Kafka's way to write it, and the name of its folder: `clicks-0`."""
        return f"{self.topic}-{self.partition}"


def as_partition(given: tuple[str, int]) -> TopicPartition:
    """What a user named a partition by: a `TopicPartition`, or a plain pair.

    Raises:
        TypeError: anything else.
    """
    # The user's argument, whatever its annotation says.
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:  # pyright: ignore[reportUnnecessaryIsInstance, reportUnnecessaryComparison]
        raise TypeError(f'a partition is named by TopicPartition("clicks", 0) or such a pair, not by {given!r}')
    topic, number = given
    if isinstance(number, bool) or not isinstance(number, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's too
        raise TypeError(f"a partition's number is an int, not {type(number).__name__}")
    return TopicPartition(topic, number)


Offsets = Mapping[TopicPartition, int] | Mapping[tuple[str, int], int]


class Record(msgspec.Struct, Generic[K, V], frozen=True):
    """One record as it was read. `headers` are pairs of name and bytes, in the writer's order."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: K
    value: V
    headers: Headers = ()


class RawRecord(Protocol):
    """A record inside a batch, as the compiled codec makes it (aiokafka's DefaultRecord)."""

    @property
    def offset(self) -> int:
        """Its offset in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch; -1 where the writer gave none."""
        ...

    @property
    def key(self) -> bytes | None:
        """The key's bytes."""
        ...

    @property
    def value(self) -> bytes | None:
        """The value's bytes; None deletes."""
        ...

    @property
    def headers(self) -> Headers:
        """Pairs of name and bytes, in order."""
        ...


class RecordMetadata(msgspec.Struct, frozen=True):
    """Where a record landed. `offset` is -1 with `acks=0`, which waits for no answer."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def instant_ms(when: Instant) -> int:
    """An instant as milliseconds since the epoch.

    Raises:
        ValueError: a datetime without time zone, which means another instant on every machine.
        TypeError: neither datetime nor int.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(f"the datetime {when!r} has no time zone: give an aware one, datetime(…, tzinfo=UTC)")
        return round(when.timestamp() * 1000)
    if isinstance(when, bool) or not isinstance(when, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
        raise TypeError(f"an instant is an aware datetime or milliseconds as int, not {type(when).__name__}")
    return when
