"""What a producer holds before it is acknowledged: batches per partition, and what it knows of each topic.

1. `Batch.count` records are in the builder, offsets 0 to count - 1.
2. `Target.earliest_ms` <= timestamp <= `Target.latest_ms` passes the topic's guards whatever time it is now.

Plain data with the rules for one record; order, locks and acknowledgements are the producer's. Also here: the words
for a user's argument of a wrong type, which the compiled builder finds but cannot name.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import count, repeat
from typing import Any, Final

from tailrace.log.codec import COMPRESSIONS, BatchBuilder, builder
from tailrace.log.errors import InvalidError
from tailrace.log.partitioner import Partitioner
from tailrace.log.topic import INT64_MAX
from tailrace.log.topics.served import Topic

Column = Iterable[bytes | None]
"""Keys, or values, of rows."""

NO_HEADERS: Final[list[tuple[str, bytes | None]]] = []
"""For all records without: the builder only reads it."""


class Batch:
    """Records of one partition on their way."""

    __slots__ = (
        "_builder",
        "append",
        "base_offset",
        "bytes",
        "count",
        "deadline",
        "error",
        "finished",
        "partition",
        "seen",
        "target",
        "timestamp_ms",
    )

    def __init__(self, target: "Target", partition: int, deadline: float) -> None:
        self._builder: BatchBuilder | None = builder(
            target.compression, target.batch_limit, transactional=target.transactional
        )
        self.append: Callable[[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]], Any] = (
            self._builder.append
        )
        self.target = target
        self.partition = partition
        self.count = 0
        self.bytes = 0
        self.deadline = deadline
        self.finished = False
        self.seen = False  # whether a caller was shown the error
        self.error: BaseException | None = None
        self.base_offset = -1
        self.timestamp_ms = -1  # the log's, where it replaces the producer's

    def size(self) -> int:
        """Bytes so far, not compressed."""
        assert self._builder is not None
        return self._builder.size()

    def fill(self, times: Iterable[int], keys: Column, values: Column) -> int:
        """Appends rows until one does not fit, or there are no more; returns how many.

        One call for all of them: 0.14 µs a row in the compiled builder, so nothing else may happen for each.
        """
        before, offsets = self.count, count(self.count)
        try:
            all(map(self.append, offsets, times, keys, values, repeat(NO_HEADERS)))
        finally:
            # What ended it took an offset, too: a row that did not fit or is refused, or the end, seen one behind it.
            self.count = next(offsets) - 1
        return self.count - before

    def build(self) -> bytearray:
        """The batch as it goes to the partition; nothing can be appended afterwards."""
        assert self._builder is not None
        return self._builder.build()

    def sign(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Says whose it is and where in the order of its producer's records it stands; before `build`."""
        assert self._builder is not None
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)

    def drop(self) -> None:
        """Frees the bytes: deliveries may live much longer than what was sent."""
        self._builder, self.append = None, never


class Target:
    """A topic as this producer knows it."""

    def __init__(self, topic: Topic, compression: int, batch_bytes: int, *, transactional: bool = False) -> None:
        config = topic.config
        self.transactional = transactional
        self.topic = topic
        self.name = topic.name
        self.partitioner = Partitioner(topic.partitions)
        self.open: list[Batch | None] = [None] * topic.partitions
        own = config.compression_type
        self.compression = compression if own == "producer" else COMPRESSIONS["none" if own == "uncompressed" else own]
        self.value_limit = config.max_message_bytes
        # A batch that no segment takes would be refused whole.
        self.batch_limit = min(batch_bytes, config.max_message_bytes, config.segment_bytes)
        # With the log's own time the producer's is replaced, and not looked at.
        self.after_max_ms = INT64_MAX if config.log_append_time else config.message_timestamp_after_max_ms
        self.before_max_ms = INT64_MAX if config.log_append_time else config.message_timestamp_before_max_ms
        # Timestamps between these pass without a look at the clock.
        self.latest_ms = INT64_MAX if self.after_max_ms == INT64_MAX else -1
        self.earliest_ms = 0 if self.before_max_ms == INT64_MAX else INT64_MAX

    def fills_in_turn(self, columns: Sequence[list[Any] | None], fixed: int | None) -> bool:
        """Whether rows of keys, times and headers can fill one batch after the other without a look at each."""
        keys, times, headers = columns
        if headers is not None or not (keys is None or fixed is not None or len(self.open) == 1):
            return False
        return times is None or (
            set(map(type, times)) == {int} and min(times) >= self.earliest_ms and max(times) <= self.latest_ms
        )

    def check_time(self, timestamp_ms: int, now_ms: int) -> None:
        """Refuses what the topic's guards refuse, and widens the range that passes unlooked."""
        if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's
            raise TypeError
        if timestamp_ms < 0:
            raise ValueError(
                f"timestamp_ms={timestamp_ms} for topic {self.name!r} is before 1970: give 0 or more, or None for now"
            )
        if self.after_max_ms != INT64_MAX:
            self.latest_ms = now_ms + self.after_max_ms
            if timestamp_ms > self.latest_ms:
                raise InvalidError(
                    f"timestamp_ms={timestamp_ms} for topic {self.name!r} is {timestamp_ms - now_ms} ms ahead of now, "
                    f"message.timestamp.after.max.ms allows {self.after_max_ms}: check that it is in ms, or raise that"
                )
        if now_ms - timestamp_ms > self.before_max_ms:
            raise InvalidError(
                f"timestamp_ms={timestamp_ms} for topic {self.name!r} is {now_ms - timestamp_ms} ms old, "
                f"message.timestamp.before.max.ms allows {self.before_max_ms}: raise the limit to send old records"
            )


def never(*_: Any) -> None:
    """Stands for the batch that is not there yet: nothing fits."""


def iterate(topic: str, name: str, values: Iterable[Any] | None) -> Iterator[Any] | None:
    """An argument of `send_many` as an iterator; one value where many are wanted is refused by name."""
    if values is None:
        return None
    if isinstance(values, (bytes, bytearray, str)):
        raise TypeError(f"{name} for topic {topic!r} is one {type(values).__name__}: send_many takes many, give a list")
    return iter(values)


def check_lengths(topic: str, values: Iterable[Any], **columns: Iterable[Any] | None) -> None:
    """Refuses columns of `send_many` that are not as long as the values, where both lengths are known beforehand."""
    for name, column in columns.items():
        if isinstance(values, Sized) and isinstance(column, Sized) and len(column) != len(values):
            raise ValueError(
                f"send_many to topic {topic!r} got {len(values)} values and {len(column)} {name}: give one for each; "
                "nothing was sent"
            )


def explained(
    topic: str,
    error: Exception,
    values: Iterable[Any],
    keys: Iterable[Any],
    times: Iterable[Any],
    headers: Iterable[Any],
    partition: Any,
) -> Exception:
    """The TypeError for the caller, naming the argument: the builder's own only says what it wanted."""
    for name, column, advice in (("value", values, "encode it first"), ("key", keys, "encode it first")):
        for each in column:
            if each is not None and not isinstance(each, bytes):
                return TypeError(
                    f"the {name} for topic {topic!r} is {type(each).__name__}, not bytes or None: {advice}"
                )
    for each in times:
        if each is not None and (isinstance(each, bool) or not isinstance(each, int)):
            return TypeError(
                f"timestamp_ms for topic {topic!r} is {type(each).__name__}, not int: give milliseconds since 1970"
            )
        if each is not None and each > INT64_MAX:
            return ValueError(
                f"timestamp_ms={each} for topic {topic!r} does not fit 64 bits: give milliseconds since 1970"
            )
    for each in headers:
        if not _are_headers(each):
            return TypeError(f"headers for topic {topic!r} are pairs of str and bytes or None, not {each!r}")
    if partition is not None and not isinstance(partition, int):
        return TypeError(f"partition for topic {topic!r} is an int, not {type(partition).__name__}")
    return error


def _are_headers(headers: Any) -> bool:
    try:
        return all(each.__class__ is tuple and _is_header(*each) for each in headers)
    except TypeError:  # not to be walked, or not pairs
        return False


def _is_header(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, bytes | None)
