"""Tables that are grouped by something else, as data: the regrouping, what travels from it, and the aggregate.

What travels is a `Replaced`: the value that a group gains and the one that it loses, either of which may be missing. A
row that stays in its group loses and gains in one; one that moves loses in the old group first, then gains in the new.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.program.topology import OldValues, Operator, Output
from tailrace.streams.values.codec import TypeCodec
from tailrace.streams.values.derived import Slot
from tailrace.streams.values.place import function_name


class Replaced(NamedTuple):
    """What a row brings to a group: the value that comes, and the one that it takes back; None for none."""

    new: Any
    old: Any


class ReplacedSlot(Slot):
    """A `Replaced` on its way, around the slot of the values in it."""

    def __init__(self, inner: Slot) -> None:
        super().__init__("value", inner.maker, place=inner.place, named_by=inner.named_by)
        self.inner = inner

    @property
    def trusted(self) -> bool:
        """Its values are looked at where they are made."""
        return True

    def _settle(self) -> TypeCodec:
        return replaced_codec(self.inner.told)


def replaced_codec(inner: TypeCodec) -> TypeCodec:
    """The codec of a `Replaced`: msgpack of the two values' bytes, the new one first."""
    pack = msgspec.msgpack.Encoder().encode
    unpack = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None]).decode
    encode_value, decode_value = inner.encode, inner.decode

    def encode(replaced: Replaced) -> bytes:
        return pack([None if value is None else encode_value(value) for value in replaced])

    def decode(data: bytes) -> Replaced:
        return Replaced(*(None if value is None else decode_value(value) for value in unpack(data)))

    return TypeCodec(name=f"replaced({inner.name})", encode=encode, decode=decode)


@dataclass(frozen=True, kw_only=True)
class TableGroup(Operator):
    """Gives each row of a table to the group that f(key, value) names, as (key, value); None for no group.

    For a change both the row as it was and the row as it is are given to f, so it must always say the same of a row.
    """

    f: Callable[[Any, Any], Any]
    key: Slot
    value: Slot
    """Of what f makes."""

    goes_on = True

    @property
    def newest_only(self) -> bool:
        """A row is in one group at a time."""
        return True

    @property
    def old(self) -> OldValues:
        """What a row takes back is made of it."""
        return "wanted"

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"function": function_name(self.f)}


@dataclass(frozen=True, kw_only=True)
class TableAggregate(Aggregate):
    """Folds the rows of each group into one value: what comes is added, what goes is removed."""

    remove: Callable[[Any, Any], Any] | None
    """Of "reduce" and "aggregate": (value so far, value that goes) to the next; None deletes."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The changes: no row of a table is late."""
        return ("main",)
