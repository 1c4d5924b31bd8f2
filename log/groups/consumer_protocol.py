"""What consumers say to each other inside the group protocol: subscriptions and assignments as bytes.

Kafka's ConsumerProtocolSubscription (written in version 3, read from 0 on; later ones only add behind) and
ConsumerProtocolAssignment (version 0), so that a Kafka client may share a group with us and either may lead it.
Source: `clients/src/main/resources/common/message` of Kafka 4.3.
"""

import struct
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from tailrace.log.errors import InvalidError
from tailrace.log.groups.assignors import Subscription
from tailrace.log.record import TopicPartition

SUBSCRIPTION_VERSION: Final = 3
ASSIGNMENT_VERSION: Final = 0

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")


def encode_subscription(subscription: Subscription) -> bytes:
    """ConsumerProtocolSubscription version 3, without a rack."""
    topics = [_string(each) for each in subscription.topics]
    return b"".join(
        (
            _INT16.pack(SUBSCRIPTION_VERSION),
            _INT32.pack(len(topics)),
            *topics,
            _INT32.pack(len(subscription.userdata)),
            subscription.userdata,
            _partitions(subscription.owned),
            _INT32.pack(subscription.generation),
            _INT16.pack(-1),
        )
    )


def decode_subscription(data: bytes, instance: str | None = None) -> Subscription:
    """A subscription of any version; `instance` stands beside it in the protocol.

    Raises:
        InvalidError: these bytes are none.
    """
    reader = _Reader(data, "a subscription")
    version = reader.int16()
    topics = [reader.string() for _ in range(reader.int32())]
    userdata = reader.data()
    # KafkaJS says version 1 and leaves out what version 1 has added.
    owned = reader.partitions() if version >= 1 and reader.left() else []
    generation = reader.int32() if version >= 2 and reader.left() else -1
    return Subscription(topics, owned, userdata, instance, generation)


def encode_assignment(partitions: Iterable[TopicPartition]) -> bytes:
    """ConsumerProtocolAssignment version 0, without userdata."""
    return _INT16.pack(ASSIGNMENT_VERSION) + _partitions(partitions) + _INT32.pack(-1)


def decode_assignment(data: bytes) -> list[TopicPartition]:
    """The partitions of an assignment; no bytes at all are none, as for a member that the leader passed over.

    Raises:
        InvalidError: these bytes are none.
    """
    if not data:
        return []
    reader = _Reader(data, "an assignment")
    reader.int16()
    return sorted(reader.partitions())


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _partitions(partitions: Iterable[TopicPartition]) -> bytes:
    topics = [(topic, [each.partition for each in some]) for topic, some in groupby(sorted(partitions), lambda x: x[0])]
    out = [_INT32.pack(len(topics))]
    for topic, numbers in topics:
        out += (_string(topic), struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))
    return b"".join(out)


class _Reader:
    """Kafka's primitive types, one after another."""

    def __init__(self, data: bytes, what: str) -> None:
        self._bytes = data
        self._what = what
        self._at = 0

    def left(self) -> int:
        return len(self._bytes) - self._at

    def int16(self) -> int:
        return int.from_bytes(self._take(2), "big", signed=True)

    def int32(self) -> int:
        return int.from_bytes(self._take(4), "big", signed=True)

    def string(self) -> str:
        return self._take(self.int16()).decode()

    def data(self) -> bytes:
        return self._take(max(0, self.int32()))  # -1: null

    def partitions(self) -> list[TopicPartition]:
        found: list[TopicPartition] = []
        for _ in range(self.int32()):
            topic = self.string()
            found += [TopicPartition(topic, self.int32()) for _ in range(self.int32())]
        return found

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        if size < 0 or self._at > len(self._bytes):
            raise InvalidError(
                f"{self._what} of a group's member ends after {len(self._bytes)} bytes, in the middle of a field: "
                "the member speaks another protocol than consumers do"
            )
        return self._bytes[begin : self._at]
