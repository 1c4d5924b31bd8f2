"""Foreign-key joins of tables, as data: the three nodes of one, and what travels between them.

`Subscribe`, with the left table, sends each row to the partition of the key that it refers to; `ForeignLookup`, with
the right table, keeps it there and sends what it makes of both rows back to the partition of the left row's key; there
`ForeignResult` keeps the result. The left value travels along: so the way back ends in a task of its own, and nothing
runs in a circle.

Answers come from several tasks, which through the log run at their own pace, so one from a key that a row has left may
come after that of the next. Kafka Streams tells them apart by a hash of the left value (KIP-213), which only the left
table's own task can compare. Here an answer says from which key it is: the result remembers whose answers stand, until
each key that was left has said so. What is shown meanwhile may be the older one; in the end it is the right one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from tailrace.log.errors import TopologyError
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.subscription import SubscriptionStore
from tailrace.streams.operators.table import TableNode
from tailrace.streams.program.kept_as import KeptAs, kept_as
from tailrace.streams.program.topology import KeptStore, OldValues, Operator
from tailrace.streams.values.codec import TypeCodec, type_name
from tailrace.streams.values.derived import UNKNOWN, Slot
from tailrace.streams.values.fitting import fits
from tailrace.streams.values.place import function_name


class Subscription(NamedTuple):
    """A left row on its way to what it refers to; without a value it refers there no longer."""

    key: Any
    value: Any


class Answer(NamedTuple):
    """What became of a left row at a key that it refers to, on its way back; without a value there is nothing."""

    to: bytes | None
    """That key, encoded; None: it refers to nothing."""
    value: Any


class Standing(msgspec.Struct, array_like=True, frozen=True):
    """An answer that has not been taken back."""

    to: bytes | None
    value: bytes | None
    """None for the last one: its value is the result, and stands in the result's store."""
    time_ms: int


STANDING = TypeCodec(
    name="answers",
    encode=msgspec.msgpack.Encoder().encode,
    decode=msgspec.msgpack.Decoder(list[Standing]).decode,
)


class SubscriptionSlot(Slot):
    """A `Subscription` on its way, around the slots of the left table."""

    def __init__(self, key: Slot, value: Slot) -> None:
        super().__init__("value", value.maker, place=value.place, named_by=value.named_by)
        self.key = key
        self.value = value

    @property
    def trusted(self) -> bool:
        """Whoever receives it makes bytes of its value."""
        return True

    def _settle(self) -> TypeCodec:
        return subscription_codec(self.key.told, self.value.told)


def subscription_codec(key: TypeCodec, value: TypeCodec) -> TypeCodec:
    """The codec of a `Subscription`: msgpack of the key's bytes and the value's."""
    pack = msgspec.msgpack.Encoder().encode
    unpack = msgspec.msgpack.Decoder(tuple[bytes, bytes | None]).decode

    def encode(sent: Subscription) -> bytes:
        return pack((key.encode(sent.key), None if sent.value is None else value.encode(sent.value)))

    def decode(data: bytes) -> Subscription:
        key_bytes, value_bytes = unpack(data)
        return Subscription(key.decode(key_bytes), None if value_bytes is None else value.decode(value_bytes))

    return TypeCodec(name=f"subscription({key.name}, {value.name})", encode=encode, decode=decode)


class AnswerSlot(Slot):
    """An `Answer` on its way, around the slot of the result."""

    def __init__(self, value: Slot) -> None:
        super().__init__("value", value.maker, place=value.place, named_by=value.named_by)
        self.value = value

    @property
    def trusted(self) -> bool:
        """Who sends it has looked at its value."""
        return True

    def _settle(self) -> TypeCodec:
        return answer_codec(self.value.told)


def answer_codec(value: TypeCodec) -> TypeCodec:
    """The codec of an `Answer`: msgpack of the key's bytes and the value's."""
    pack = msgspec.msgpack.Encoder().encode
    unpack = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None]).decode

    def encode(sent: Answer) -> bytes:
        return pack((sent.to, None if sent.value is None else value.encode(sent.value)))

    def decode(data: bytes) -> Answer:
        to, value_bytes = unpack(data)
        return Answer(to, None if value_bytes is None else value.decode(value_bytes))

    return TypeCodec(name=f"answer({value.name})", encode=encode, decode=decode)


@dataclass(frozen=True, kw_only=True)
class Subscribe(Operator):
    """Sends the rows of the left table to the key that f(value) names; None refers to nothing.

    In an inner join such a row has no result, and counts as dropped ("null_key"). For a change f is also asked for the
    value that is replaced, so it must always say the same of a value.
    """

    f: Callable[[Any], Any]
    of: Any
    """What f's annotation promises; UNKNOWN where nothing."""
    inner: bool
    right_key: Slot

    goes_on = True

    @property
    def newest_only(self) -> bool:
        """The rows of the left table."""
        return True

    @property
    def old(self) -> OldValues:
        """Where a row referred to is made of it."""
        return "wanted"

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"on": function_name(self.f)}

    def check(self, inputs: int) -> None:
        """What it finds must be a key of the right table."""
        del inputs
        right = self.right_key
        _ = right.codec
        if self.of is not UNKNOWN and right.of is not UNKNOWN and not fits(self.of, right.of):
            raise TopologyError(
                f"on= of the join at {self.place} finds keys of type {type_name(self.of)}, and those of the other "
                f"table, from {right.where}, are of type {type_name(right.of)}: have it return one of these"
            )


@dataclass(frozen=True, kw_only=True)
class ForeignLookup(Operator):
    """f(left value, right value) for each row of the left table, brought about by changes of either.

    Its first parent brings subscriptions, the second one is the right table.
    """

    store_name: str
    f: Callable[[Any, Any], Any]
    inner: bool
    left_key: Slot
    left_value: Slot
    right_key: Slot
    made: Slot
    """What f makes."""

    goes_on = True

    @property
    def newest_only(self) -> bool:
        """The rows of the right table."""
        return True

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """The left rows, by what they refer to."""
        return (KeptStore(self.store_name, SubscriptionStore.layout),)

    @property
    def caches(self) -> bool:
        """Results are sent at once."""
        return False

    def kept_as(self, store: str) -> KeptAs:
        """Left values, by two keys."""
        del store
        right, left = self.right_key.codec, self.left_key.codec
        key = TypeCodec(name=f"{right.name} and {left.name}", encode=left.encode, decode=left.decode)
        return kept_as(key, self.left_value.codec)

    def facts(self) -> dict[str, Any]:
        """Which join, and the function's name."""
        return {"join": "inner" if self.inner else "left", "function": function_name(self.f)}

    def check(self, inputs: int) -> None:
        """What is kept must have codecs."""
        del inputs
        _ = self.left_key.codec, self.left_value.codec, self.right_key.codec


@dataclass(frozen=True, kw_only=True)
class ForeignResult(TableNode):
    """The results, kept by the left row's key; one that neither was nor is there brings nothing about."""

    @property
    def answers_name(self) -> str:
        """The store of what stands behind each result."""
        return f"{self.store_name}-answers"

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """Beside the results: from which keys they are."""
        return (*super().stores, KeptStore(self.answers_name, KeyValueStore.layout))

    def kept_as(self, store: str) -> KeptAs:
        """The results are rows of a table."""
        return kept_as(self.key.codec, STANDING) if store == self.answers_name else super().kept_as(store)
