"""The type, and so the codec, of a key or value that travels with a stream.

1. A `Slot` belongs to what made the key or value: a topic, or the operator that replaced it. Operators that keep it
   hand the same slot on, so what is learned of it later (the type of the topic that follows) holds all along.
2. A slot is settled by, in this order: the operator's `key=` or `value=`; the function's return annotation; for an
   aggregate, what `zero()` returns; the topic that follows; else the natural codec for values of built-in types.
3. A type that has no codec, and types that have none in common, are refused only where bytes are needed: a value that
   never leaves the chain may be anything.

Not here: the codecs (codec).
"""

import functools
import types
import typing
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from types import FunctionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from tailrace.log.errors import EncodeError, TopologyError
from tailrace.streams.values.codec import (
    NATURAL_KEY,
    NATURAL_VALUE,
    TypeCodec,
    codec_of,
    guarded,
    msgpack,
    type_name,
    windowed_codec,
    windowed_form,
)
from tailrace.streams.values.fitting import fits
from tailrace.streams.values.place import Place
from tailrace.windows.window import Window

Part = Literal["key", "value"]

UNKNOWN: Any = object()
"""Stands for a type that nobody named; None is a type."""


class Slot:
    """The codec of one key or value on its way, settled when bytes are first needed."""

    def __init__(
        self,
        part: Part,
        maker: str,
        *,
        place: Place | None = None,
        of: Any = UNKNOWN,
        codec: TypeCodec | None = None,
        named_by: str | None = None,
    ) -> None:
        """`maker` is what made it ("topic 'clicks'", "map-3"), `of` its type where known, `codec` where it is given.

        `named_by` is where the user can say the type, for errors: the argument `key=` or `value=` unless given.
        """
        self.part: Part = part
        self.maker = maker
        self.place = place
        self.of = of
        self.named_by = named_by or f"{part}="
        self._codec = codec
        self._given = codec is not None
        self._followed: TypeCodec | None = None
        self.needed = False
        """Whether something partitions or stores by it, so that its bytes will be asked for."""

    @property
    def known(self) -> bool:
        """Whether more is known than what may still follow."""
        return self._codec is not None or self.of is not UNKNOWN

    @property
    def where(self) -> str:
        """What made it, and the user's line."""
        return f"{self.maker} at {self.place}" if self.place else self.maker

    @property
    def advice(self) -> str:
        """What to do about one that cannot be written: the end of a sentence that has told which one it is."""
        if self.trusted:
            return f"; it comes from {self.where}"
        return f"; it comes from {self.where}: mend its function, or name its type with {self.named_by} there"

    @property
    def sources(self) -> "tuple[Slot, ...]":
        """The slots that it stands for: itself, or those that were merged."""
        return (self,)

    @property
    def trusted(self) -> bool:
        """Whether its values are what their codec takes, since that codec, or an operator of ours, made them."""
        return self._given

    @property
    def told(self) -> TypeCodec:
        """The codec, with errors that name what made the key or value."""
        if self.trusted:
            return self.codec
        return guarded(
            self.codec, f"the {self.part} that {self.where} makes", f"; name its type with {self.named_by} there"
        )

    def need(self) -> None:
        """Tells that something partitions or stores by it."""
        self.needed = True

    def follow(self, codec: TypeCodec) -> None:
        """Tells of the topic that follows: its codec is taken where nothing better is known; the first one counts."""
        if self._followed is None:
            self._followed = codec

    @property
    def codec(self) -> TypeCodec:
        """The codec. A topic may follow until the app runs, so what rests on nothing better is not kept.

        Raises:
            TopologyError: the type has none.
        """
        if self._codec is not None:
            return self._codec
        found = self._settle()
        if self.of is not UNKNOWN:
            self._codec = found
        return found

    def _settle(self) -> TypeCodec:
        where = self.where
        if self.of is not UNKNOWN and self.of not in (list, dict):
            try:
                # Bare ones do not say what is in them: msgpack brings built-in contents back, JSON not even bytes.
                return msgpack(self.of) if self.of in (tuple, set, frozenset) else codec_of(self.of)
            except TypeError as error:
                raise TopologyError(
                    f"the {self.part} that {where} makes has no codec: {error}; name another type with {self.named_by}"
                ) from error
        if self._followed is not None:
            return self._followed
        natural = NATURAL_KEY if self.part == "key" else NATURAL_VALUE
        return guarded(natural, f"the {self.part} that {where} makes", f"; name its type with {self.named_by} there")


class WindowedSlot(Slot):
    """The windowed key of a windowed aggregate, around the slot of the key inside."""

    def __init__(self, inner: Slot, window: Window) -> None:
        super().__init__("key", inner.maker, place=inner.place, named_by=inner.named_by)
        self.inner = inner
        self.window = window

    @property
    def trusted(self) -> bool:
        """See `Slot`."""
        return self.inner.trusted

    def follow(self, codec: TypeCodec) -> None:
        """Tells the key inside of the topic that follows, and that topic of the window."""
        form = windowed_form(codec)
        if form is not None:
            self.inner.follow(form.inner)
            form.window = form.window or self.window

    def _settle(self) -> TypeCodec:
        return windowed_codec(self.inner.codec, self.window)


class MergedSlot(Slot):
    """The key or value of streams that were merged: one type, that of the first one that knows its own."""

    def __init__(self, slots: Sequence[Slot], place: Place | None) -> None:
        self._slots = slots
        self._first = next((slot for slot in slots if slot.known), slots[0])
        super().__init__(self._first.part, self._first.maker, place=place, named_by=self._first.named_by)

    @property
    def where(self) -> str:
        """All that it may have been made by."""
        return " or ".join(dict.fromkeys(slot.where for slot in self._slots))

    @property
    def sources(self) -> tuple[Slot, ...]:
        """See `Slot`."""
        return tuple(dict.fromkeys(source for slot in self._slots for source in slot.sources))

    @property
    def trusted(self) -> bool:
        """See `Slot`: where all have one codec."""
        return all(slot.trusted for slot in self._slots) and len({slot.codec.name for slot in self._slots}) == 1

    @property
    def known(self) -> bool:
        """See `Slot`."""
        return self._first.known

    def need(self) -> None:
        """Each key is checked where it is made."""
        super().need()
        for slot in self._slots:
            slot.need()

    def follow(self, codec: TypeCodec) -> None:
        """Each of them is told."""
        for slot in self._slots:
            slot.follow(codec)

    def _settle(self) -> TypeCodec:
        known = [source for source in self.sources if source.of is not UNKNOWN]
        first = known[0] if known else self
        for other in known[1:]:
            if not fits(other.of, first.of):
                raise TopologyError(
                    f"what comes together at {self.place} has {self.part}s of type {type_name(first.of)}, from "
                    f"{first.where}, and of type {type_name(other.of)}, from {other.where}, and what follows writes "
                    "them with one codec: map them to one type"
                )
        codec = self._first.codec
        for slot in self._slots:
            slot.follow(codec)
        return codec


def merged_slot(slots: Sequence[Slot], place: Place | None = None) -> Slot:
    """The slot of what several streams bring together; `place` is where."""
    first = slots[0]
    if all(slot is first for slot in slots):
        return first
    if isinstance(first, WindowedSlot):
        windowed = [slot for slot in slots if isinstance(slot, WindowedSlot) and slot.window == first.window]
        if len(windowed) == len(slots):
            return WindowedSlot(merged_slot([slot.inner for slot in windowed], place), first.window)
    return MergedSlot(slots, place)


def same_keys(one: Slot, other: Slot, what: str, other_what: str) -> None:
    """Makes two inputs that meet by key write their keys alike, as far as nothing else is known of one of them.

    Raises:
        TopologyError: they do not; `what` and `other_what` say what the two are, and where.
    """
    if not one.known:
        one.follow(other.codec)
    if not other.known:
        other.follow(one.codec)
    if one.codec.name != other.codec.name:
        raise TopologyError(
            f"{what} has keys of {one.codec.name}, from {one.where}, and {other_what} keys of {other.codec.name}, from "
            f"{other.where}: they would never meet; give both keys of one type"
        )


EXACT: dict[type, Callable[[Any], Any]] = {str: str.__str__, bytes: bytes.__bytes__, int: int.__int__}
"""What makes an instance of a subclass one of the class itself."""


def key_check(slot: Slot, place: Place) -> tuple[type | None, Callable[[Any], Any]]:
    """What a new key must be: the class that needs no look, None where nothing does; and what makes sure of others.

    The second returns the key as a plain str, bytes or int (an enum's member comes back from a store as that) and None
    as it is; it raises EncodeError, which names the operator and what is missing.
    """
    codec = slot.codec if slot.needed else None
    plain = codec.plain if codec is not None else None
    natural = codec is not None and codec.natural is not None
    allowed = [each for each in EXACT if natural or each is plain]

    def check(key: Any) -> Any:
        if key is None or key.__class__ in allowed:
            return key
        for base in allowed:
            if isinstance(key, base) and key.__class__ is not bool:
                return EXACT[base](key)
        wanted = " or ".join(each.__name__ for each in allowed)
        raise EncodeError(
            f"{slot.maker} at {place} made the key {key!r} of type {type(key).__name__}, and keys there are {wanted}: "
            f"name their type with {slot.named_by}"
        )

    return plain, check


# ---------------------------------------------------------------- types of what functions return


def without_none(hint: Any) -> Any:
    """The hint without its None; UNKNOWN where it says nothing."""
    if get_origin(hint) in {Union, types.UnionType}:
        members = [member for member in get_args(hint) if member is not type(None)]
        hint = members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 - made from a list
    if hint in {Any, object, None, type(None)} or isinstance(hint, TypeVar):
        return UNKNOWN
    return hint


def returned(f: Callable[..., Any]) -> Any:
    """The type that a function's annotation promises, without None; UNKNOWN where there is none that helps."""
    while isinstance(f, functools.partial):
        f = f.func
    if isinstance(f, type):
        return f
    if not hasattr(f, "__annotations__"):
        f = type(f).__call__
    try:
        return without_none(typing.get_type_hints(f).get("return", UNKNOWN))
    except Exception:  # noqa: BLE001 - an annotation that cannot be read says nothing, and is no reason to stop
        return UNKNOWN


def returned_items(f: Callable[..., Any]) -> Any:
    """The type of what the function's result yields (`list[T]`, `Iterator[T]`); UNKNOWN where not annotated."""
    hint = returned(f)
    arguments = get_args(hint)
    origin = get_origin(hint)
    if not arguments or not isinstance(origin, type) or not issubclass(origin, Iterable):
        return UNKNOWN
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        return UNKNOWN
    return UNKNOWN if issubclass(origin, dict) else without_none(arguments[0])


def returned_pair(f: Callable[..., Any]) -> tuple[Any, Any]:
    """The types of key and value of a function that returns `tuple[K, V]`; UNKNOWN where not annotated."""
    return _pair(returned(f))


def returned_pairs(f: Callable[..., Any]) -> tuple[Any, Any]:
    """The same of a function whose result yields such pairs."""
    return _pair(returned_items(f))


def _pair(hint: Any) -> tuple[Any, Any]:
    arguments = get_args(hint)
    if get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is not Ellipsis:
        return without_none(arguments[0]), without_none(arguments[1])
    return UNKNOWN, UNKNOWN


def made_slot(part: Part, maker: str, place: Place, of: Any, hint: Any) -> Slot:
    """The slot of what an operator makes: `of` is the user's `key=` or `value=`, None where not given."""
    return Slot(part, maker, place=place, of=hint if of is None else of)


def zero_slot(maker: str, place: Place, zero: Callable[[], Any], of: Any, add: Callable[[Any, Any], Any]) -> Slot:
    """The slot of an aggregate: from `value=`, the annotation of `add`, or what `zero()` returns.

    `zero` is called once, also where the type is known: it runs for every new key, and what is wrong with it shows now.

    Raises:
        TopologyError: `zero` raised, or returned what no result can begin with.
    """
    known, where = of if of is not None else returned(add), f"{maker} at {place}"
    try:
        first: Any = zero()
    except Exception as error:
        raise TopologyError(
            f"zero() of {where} raised {type(error).__name__}: {error}; it is called without arguments and returns the "
            "value that every key begins with"
        ) from error
    kind: object = first  # looked at under another name, so that `first` stays what nobody knows
    if isinstance(kind, Coroutine):
        first.close()
    wrong = isinstance(kind, (Awaitable, Generator, AsyncGenerator, type, FunctionType))
    cls = cast("type[object]", type(first))
    if wrong or (first is not None and of is not None and not fits(cls, of)):
        wanted = "it must return the value that every key begins with" if wrong else f"value= says {type_name(of)}"
        raise TopologyError(f"zero() of {where} returned {first!r} of type {cls.__name__}, and {wanted}")
    if known is UNKNOWN:
        known = UNKNOWN if first is None else cls
    return Slot("value", maker, place=place, of=known)
