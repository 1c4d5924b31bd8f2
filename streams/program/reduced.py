"""The reducers of one `agg`, put together: the type that it makes, its fold, and what its store holds.

1. The store, and so the changelog, holds the reducers' states; what is sent on, what `to` writes and what a reader of
   the store sees is the user's type, made of the states each time, and shares nothing with them.
2. A field's annotation is the type of what is kept for it, with its `T` where it is a `list[T]` of items; without one
   that says anything, built-in values alone are taken.
3. What does not fit a field's type is refused: at the call where it can be seen, else at the record, by field.
4. A state says which reducers made it, so a store is never read by others.

State: msgpack of a tuple, first the text "field=reducer …" by field name, then the states in that order.
Not here: what a reducer does (reducers).
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from operator import call
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeGuard, cast, get_args, get_origin

import msgspec

from tailrace.log.errors import DecodeError, EncodeError
from tailrace.log.topic import near_names
from tailrace.streams.program.reducers import Item, Reducer, Steps
from tailrace.streams.values.codec import TypeCodec, encode_error, guarded, msgpack, type_name
from tailrace.streams.values.derived import UNKNOWN, without_none
from tailrace.streams.values.place import Place

_call: Callable[..., Any] = call


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduced:
    """What an aggregate needs to know of its reducers."""

    text: str
    """Which they are: "n=count total=sum"."""
    fold: Callable[[Any, Any], Any]
    """(states so far or None, record's value) to the states."""
    merge: Callable[[Any, Any], Any]
    """The states of two sessions to those of one; only where every reducer merges."""
    remove: Callable[[Any, Any], Any]
    """(states so far, value that goes) to the states; only where every reducer can take back."""
    codec: TypeCodec
    """Of the states; its `show` makes the user's type of them."""
    functions: tuple[Callable[..., Any], ...]
    """The user's."""


@dataclass(frozen=True)
class _Field:
    name: str
    item: Item
    steps: Steps
    own: bool


def reduced(
    into: Any, reducers: Mapping[str, object], *, store: str, place: Place, sessions: bool = False, table: bool = False
) -> Reduced:
    """Puts reducers together to make values of the class `into`, in `sessions`, or of the rows of a grouped `table`.

    Raises:
        TypeError: `into` is no class with fields, a field has no reducer or a reducer no field, a reducer's results
            do not fit its field, in sessions one does not merge, or over a table one cannot take back.
    """
    where = f"agg(store={store!r})"
    annotations = _annotations(into, reducers, where)
    fields: list[_Field] = []
    functions: list[Callable[..., Any]] = []
    for name, given in sorted(reducers.items()):
        reducer = _checked(given, annotations[name], f"{where}: {into.__name__}.{name}")
        if sessions and not reducer.merges:
            raise TypeError(
                f"{where} in sessions: {name}=reducer(…) needs merge=, a function that makes one of two states"
            )
        if table and not reducer.retracts:
            raise TypeError(
                f"{where} over a grouped table: {name}={reducer.name}(…) cannot take a row back once it was added, "
                f"{_instead(reducer)}"
            )
        of = reducer.takes if reducer.takes is not UNKNOWN else _item_type(annotations[name], many=reducer.many)
        what = f"what {reducer.name} takes for {into.__name__}.{name}, in {where} at {place},"
        item = Item(of, what, "; the field's annotation says what it takes" if of is UNKNOWN else "")
        fields.append(_Field(name, item, reducer.bind(item), own=reducer.name == "reducer"))
        functions += reducer.functions
    text = " ".join(f"{name}={cast(Reducer[Any], given).name}" for name, given in sorted(reducers.items()))
    return Reduced(
        text=text,
        fold=_fold(fields),
        merge=_merge(fields),
        remove=_remove(fields),
        codec=_codec(into, fields, text, f"{where} at {place}"),
        functions=tuple(functions),
    )


# ---------------------------------------------------------------- the class and its fields


def _annotations(into: Any, reducers: Mapping[str, object], where: str) -> dict[str, Any]:
    """The annotation of each field, after it was seen that fields and reducers belong together."""
    annotations, required = _fields_of(into, where)
    for name in sorted(reducers):
        if name not in annotations:
            raise TypeError(f"{where}: {into.__name__} has no field {name!r}{near_names(name, annotations)}")
    for name in annotations:
        if name in required and name not in reducers:
            raise TypeError(f"{where} has no reducer for {into.__name__}.{name}, which has no default: give {name}=…")
    if not reducers:
        raise TypeError(f"{where} has no reducers: give one for each field of {into.__name__}, such as n=count()")
    return annotations


def _fields_of(into: Any, where: str) -> tuple[dict[str, Any], set[str]]:
    """The annotation of each field, and the names of those that must be given."""
    if isinstance(into, type):
        cls: type[Any] = into
        if issubclass(cls, msgspec.Struct):
            fields = msgspec.structs.fields(cls)
            return {field.name: field.type for field in fields}, {field.name for field in fields if field.required}
        hints = typing.get_type_hints(cls, include_extras=True)
        if dataclasses.is_dataclass(cls):
            given = [field for field in dataclasses.fields(cls) if field.init]
            missing = dataclasses.MISSING
            required = {f.name for f in given if f.default is missing and f.default_factory is missing}
            return {field.name: hints[field.name] for field in given}, required
        if typing.is_typeddict(cls):
            return typing.get_type_hints(cls), set(getattr(cls, "__required_keys__", ()))
    raise TypeError(f"{where} makes a msgspec.Struct, a dataclass or a TypedDict, and {into!r} is none: name a class")


def _is_reducer(value: object) -> TypeGuard[Reducer[Any]]:
    return isinstance(value, Reducer)


def _checked(given: object, annotation: Any, where: str) -> Reducer[Any]:
    if not _is_reducer(given):
        raise TypeError(f"{where} takes a reducer such as count() or last(f), not {given!r}")
    if given.sample is not UNKNOWN:
        try:
            msgspec.convert(given.sample, _unconstrained(annotation))
        except msgspec.ValidationError as error:
            made = "a list" if given.many else f"a value such as {given.sample!r}"
            raise TypeError(f"{where} is {type_name(annotation)}, and {given.name} makes {made} ({error})") from error
    return given


def _unconstrained(annotation: Any) -> Any:
    """The type without what Annotated says of it, at any depth: a sample need not keep to that."""
    holder = type("holder", (), {"__annotations__": {"it": annotation}})
    return typing.get_type_hints(holder)["it"]


def _instead(reducer: Reducer[Any]) -> str:
    """What to do about a reducer that cannot take back."""
    if reducer.name == "reducer":
        return "as it has no remove=: give a function that takes a value back"
    if reducer.name == "collect":
        return "as its limit throws items away: leave out the limit"
    return "as it throws items away: use distinct(f) or collect(f), which keep them all"


def _item_type(annotation: Any, *, many: bool) -> Any:
    """The type of one item of a field; UNKNOWN where the annotation does not say."""
    hint = without_none(annotation)
    if not many:
        return hint
    while get_origin(hint) is Annotated:
        hint = without_none(get_args(hint)[0])
    arguments = get_args(hint)
    return without_none(arguments[0]) if arguments else UNKNOWN


# ---------------------------------------------------------------- states


def _fold(fields: list[_Field]) -> Callable[[Any, Any], Any]:
    zeros = [field.steps.zero for field in fields]
    adds: list[Any] = [field.steps.add for field in fields]
    if len(fields) == 1:
        (zero,), (add,) = zeros, adds

        def fold_one(states: list[Any] | None, value: Any) -> list[Any]:
            if states is None:
                return [add(zero(), value)]
            states[0] = add(states[0], value)
            return states

        return fold_one

    def fold(states: list[Any] | None, value: Any) -> list[Any]:
        if states is None:
            states = [zero() for zero in zeros]
        # The loop runs in C: one call for each reducer, and none around it.
        return list(map(_call, adds, states, repeat(value)))

    return fold


def _merge(fields: list[_Field]) -> Callable[[Any, Any], Any]:
    merges = [field.steps.merge for field in fields]

    def merge(states: list[Any], later: list[Any]) -> list[Any]:
        return [f(a, b) for f, a, b in zip(merges, states, later, strict=True) if f is not None]

    return merge


def _remove(fields: list[_Field]) -> Callable[[Any, Any], Any]:
    removes = [field.steps.remove for field in fields]

    def remove(states: list[Any], value: Any) -> list[Any]:
        return [f(state, value) for f, state in zip(removes, states, strict=True) if f is not None]

    return remove


def _codec(into: type[Any], fields: list[_Field], text: str, where: str) -> TypeCodec:
    types: tuple[Any, ...] = (cast(Any, Literal)[text], *(field.steps.state for field in fields))
    pack = msgspec.msgpack.Encoder().encode
    unpack = msgspec.msgpack.Decoder[list[Any]](GenericAlias(tuple, types)).decode
    own = [(at, field.item) for at, field in enumerate(fields) if field.own]

    def encode(states: list[Any]) -> bytes:
        for at, item in own:
            # Made by the user's function, so nobody has seen yet whether it will come back.
            if states[at] is not None:
                item.copy(states[at])
        return pack((text, *states))

    def decode(data: bytes) -> list[Any]:
        try:
            states: list[Any] = list(unpack(data))
        except msgspec.MsgspecError as error:
            raise DecodeError(
                f"{where} makes {text}, and its store holds states of other reducers or types ({error}): go back to "
                "those, or give the store another name"
            ) from error
        return states[1:]

    codec = TypeCodec(name=f"agg({text})", encode=encode, decode=decode, show=_show(into, fields, where))
    return guarded(codec, f"the state of {where}")


def _show(into: type[Any], fields: list[_Field], where: str) -> Callable[[Any], Any]:
    results = [(field.name, field.steps.result) for field in fields]
    codec = msgpack(into)
    # Bare, as this is what a record costs where nothing is cached; what is made here is of the class.
    encode, decode = msgspec.msgpack.Encoder().encode, codec.decode

    def show(states: list[Any]) -> Any:
        try:
            of = {name: result(state) for (name, result), state in zip(results, states, strict=True)}
        except ArithmeticError as error:  # of a mean: what it sums up is beyond a float
            raise EncodeError(f"the result of {where} cannot be worked out: {error}") from error
        made = into(**of)
        try:
            return decode(encode(made))
        except Exception as error:
            raise encode_error(f"the result of {where}", codec, made, error) from error

    return show
