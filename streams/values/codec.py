"""Values to bytes and back, chosen by type.

1. decode(encode(x)) == x for every x of the codec's type.
2. Null is no codec's business: whoever calls keeps None as None.
3. Encoders and decoders are made once. `decode` is the bare compiled method wherever there is one, so what goes wrong
   in a codec is any exception; `encode_error` and `decode_error` put it into one sentence.
4. A `hashable` codec's keys are equal exactly when their bytes are: a dict may use the key itself.
5. What would be written and could not be read back is refused: other classes than the declared one, inf and nan in
   JSON (where None is allowed too, they become None).

Formats: str UTF-8; int 8 bytes big-endian signed (Kafka's LongSerializer); float 8 bytes big-endian IEEE 754 (Kafka's
DoubleSerializer); everything else JSON or msgpack as msgspec writes them. A windowed key's bytes are the window's
business (`tailrace.windows.window`). A key whose type nobody named: one byte that says which of s(tr), b(ytes), i(nt),
then the natural bytes.
Not here: which type a stream has that an operator made (derived).
"""

import dataclasses
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeGuard, cast, get_args, get_origin

import msgspec

from tailrace.log.errors import DecodeError, EncodeError
from tailrace.streams.values.wording import AWAIT, shown, words
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed

Codec = Any
"""What `codec=` takes: "json", "msgpack", or an object with `encode(value) -> bytes` and `decode(bytes) -> value`."""

_LONG = struct.Struct(">q")
_DOUBLE = struct.Struct(">d")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TypeCodec:
    """Two functions and what is known of them; made by `codec_of` and its siblings."""

    name: str
    """How `describe()` and errors call it: "str", "json(Click)"."""
    encode: Callable[[Any], bytes]
    """Never called with None."""
    decode: Callable[[bytes], Any]
    """Raises whatever the decoder raises."""
    hashable: bool = False
    natural: Callable[[Any], bytes] | None = None
    """The bytes that choose a partition and go into topics, where they are not those of `encode`."""
    plain: type | None = None
    """The class that every value has exactly, where `encode` and a dict are to be trusted only then."""
    fields: tuple[str, ...] = ()
    """Of a class that it writes by field: the names of these as they are written."""
    bare: Callable[[Any], bytes] | None = None
    """`encode` as it was before `guarded` put words to its errors; None where nobody did."""
    show: Callable[[Any], Any] | None = None
    """What programs see of a value in a store, where it is not the value itself: always a copy."""

    @property
    def partition_bytes(self) -> Callable[[Any], bytes]:
        """Key to the bytes that choose its partition: those that a topic would have."""
        return self.natural or self.encode


class Encoding(Protocol):
    """What a user's codec object must have."""

    def encode(self, value: Any, /) -> bytes:
        """Return the value's bytes."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """Return the value."""
        ...


def _raw(value: bytes) -> bytes:
    if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's value
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return value


def _long(data: bytes) -> int:
    return cast(int, _LONG.unpack(data)[0])


def _double(data: bytes) -> float:
    return cast(float, _DOUBLE.unpack(data)[0])


_BASIC: dict[Any, TypeCodec] = {
    bytes: TypeCodec(name="bytes", encode=_raw, decode=bytes, hashable=True, plain=bytes),
    str: TypeCodec(name="str", encode=str.encode, decode=bytes.decode, hashable=True, plain=str),
    int: TypeCodec(name="int", encode=_LONG.pack, decode=_long, hashable=True, plain=int),
    float: TypeCodec(name="float", encode=_DOUBLE.pack, decode=_double),
}


_NUMBERS_AND_TEXT = frozenset(_BASIC[each].name for each in (str, int, float))


def type_name(of: Any) -> str:
    """A type as the user wrote it, without its module."""
    if of is None or of is type(None):
        return "None"
    if isinstance(of, type) and not get_args(of):
        return of.__name__
    return str(of).replace("typing.", "")


def _checked(encode: Callable[[Any], bytes], of: Any) -> Callable[[Any], bytes]:
    """Where the type is a class: refuses other values, which msgspec would write and nobody could read back."""
    cls: Any = get_origin(of) or of
    is_class = isinstance(cls, type) and (hasattr(cls, "__struct_fields__") or hasattr(cls, "__dataclass_fields__"))
    if not is_class:
        return encode

    def checked(value: Any) -> bytes:
        if value.__class__ is not cls and not isinstance(value, cls):
            raise TypeError(f"expected {cls.__name__}, got {type(value).__name__}")
        return encode(value)

    return checked


def _finite(encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> Callable[[Any], bytes]:
    """Refuses what could not be read back: JSON has no inf and no nan, and msgspec writes null for them."""

    def finite(value: Any) -> bytes:
        data = encode(value)
        if b"null" in data:
            try:
                decode(data)
            except msgspec.MsgspecError as error:
                raise ValueError(f"JSON has no inf and no nan, msgpack has ({error})") from error
        return data

    return finite


def _decodable(of: Any) -> Any:
    """The type as msgspec wants it; raises TypeError for a class of which msgspec knows nothing."""
    if of is None or of is type(None) or of is Any:
        return Any
    if isinstance(msgspec.inspect.type_info(of), msgspec.inspect.CustomType):
        raise TypeError(
            f"{type_name(of)} is no type that msgspec knows: make it a msgspec.Struct or a dataclass, or give an "
            "object with encode and decode"
        )
    return of


def _fields(of: Any) -> tuple[str, ...]:
    """The fields of a class as they are written, sorted; none for anything else."""
    info = msgspec.inspect.type_info(_decodable(of))
    return tuple(sorted(field.encode_name for field in getattr(info, "fields", ())))


def json(of: Any) -> Codec:
    """The JSON form of a type, through msgspec: for unions and containers, `codec=json(A | B)`.

    Raises:
        TypeError: msgspec cannot decode the type.
    """
    decoder = msgspec.json.Decoder[Any](_decodable(of))
    encode = _checked(msgspec.json.Encoder().encode, of)
    if "FloatType" in repr(msgspec.inspect.type_info(_decodable(of))):
        encode = _finite(encode, decoder.decode)
    return TypeCodec(name=f"json({type_name(of)})", encode=encode, decode=decoder.decode, fields=_fields(of))


def msgpack(of: Any) -> Codec:
    """The msgpack form of a type, through msgspec: smaller and faster than JSON, and not readable by eye.

    Raises:
        TypeError: msgspec cannot decode the type.
    """
    decoder = msgspec.msgpack.Decoder[Any](_decodable(of))
    encode = _checked(msgspec.msgpack.Encoder().encode, of)
    return TypeCodec(name=f"msgpack({type_name(of)})", encode=encode, decode=decoder.decode, fields=_fields(of))


def of_object(given: Any) -> TypeCodec:
    """A user's object with `encode` and `decode` as a codec; with `hashable = True` its keys are used as dict keys.

    Raises:
        TypeError: it has not both.
    """
    if isinstance(given, TypeCodec):
        return given
    encode, decode = getattr(given, "encode", None), getattr(given, "decode", None)
    if not callable(encode) or not callable(decode):
        raise TypeError(
            f'codec={given!r} is neither "json", "msgpack" nor an object with encode(value) and decode(bytes)'
        )
    codec = cast(Encoding, given)
    hashable = bool(getattr(given, "hashable", False))
    return TypeCodec(name=type(given).__name__, encode=codec.encode, decode=codec.decode, hashable=hashable)


def codec_of(of: Any, codec: Codec = None) -> TypeCodec:
    """The codec of a type.

    Args:
        of: a type as an annotation would name it.
        codec: "json", "msgpack" or an object; None lets the type choose (the module's docstring says how).

    Raises:
        TypeError: msgspec cannot decode the type, or `codec` is no codec.
    """
    if codec is not None and codec not in ("json", "msgpack"):
        return of_object(codec)
    form: Callable[[Any], Any] = msgpack if codec == "msgpack" else json
    if codec is None:
        basic = _BASIC.get(of) if isinstance(of, type) else None
        if basic is not None:
            return basic
        if (get_origin(of) or of) is Windowed:
            return windowed((*get_args(of), Any)[0])
    return cast(TypeCodec, form(of))


def windowed(of: Any, window: Window | None = None) -> TypeCodec:
    """The codec of windowed keys in a topic, in Kafka's form: the key's bytes, then the window's times.

    Args:
        of: the type of the key inside, or its codec.
        window: the window that made the keys. Kafka's form leaves out the size, so reading needs it; a topic that is
            written from a windowed table learns it there.
    """
    inner = of if isinstance(of, TypeCodec) else codec_of(of)
    return windowed_codec(inner, window)


def _is_windowed(value: object) -> TypeGuard[Windowed[Any]]:
    return isinstance(value, Windowed)


class WindowedForm:
    """The two functions of a windowed key's codec, for a window that may become known later."""

    def __init__(self, inner: TypeCodec, window: Window | None) -> None:
        self.inner = inner
        self.window = window

    def known(self) -> Window:
        """The window; raises `TypeError` while it is not known."""
        if self.window is None:
            raise TypeError(
                "the window of these keys is not known: declare the topic with key_codec=windowed(type, window)"
            )
        return self.window

    def encode(self, value: Any) -> bytes:
        """Kafka's bytes of a `Windowed`; the key inside as its codec has it, so that it can be read back."""
        return self._bytes(value, self.inner.encode)

    def natural(self, value: Any) -> bytes:
        """The same with the bytes that the key inside has in a topic that declares its type."""
        return self._bytes(value, self.inner.partition_bytes)

    def _bytes(self, value: Any, key_bytes: Callable[[Any], bytes]) -> bytes:
        if not _is_windowed(value):
            raise TypeError(f"expected Windowed, got {type(value).__name__}")
        return self.known().key_bytes(key_bytes(value.key), value.start_ms, value.end_ms)

    def decode(self, data: bytes) -> Any:
        """The `Windowed` of Kafka's bytes."""
        key, start_ms, end_ms = self.known().split_key(data)
        return Windowed(self.inner.decode(key), start_ms, end_ms)


def windowed_codec(inner: TypeCodec, window: Window | None) -> TypeCodec:
    """The codec of windowed keys around the codec of the key inside."""
    form = WindowedForm(inner, window)
    natural = form.natural if inner.natural is not None else None
    return TypeCodec(name=f"windowed({inner.name})", encode=form.encode, decode=form.decode, natural=natural)


def windowed_form(codec: TypeCodec) -> WindowedForm | None:
    """What a codec made by `windowed` holds; None for any other."""
    form = getattr(codec.encode, "__self__", None)
    return form if isinstance(form, WindowedForm) else None


# ---------------------------------------------------------------- without a type

_MARKS: dict[type, bytes] = {str: b"s", bytes: b"b", int: b"i"}
_BY_MARK: dict[bytes, Callable[[bytes], Any]] = {b"s": bytes.decode, b"b": bytes, b"i": _long}


def natural_key_bytes(key: Any) -> bytes:
    """The bytes that a str, bytes or int key has in a topic that declares its type.

    Raises:
        TypeError: a key of another type, bool included, which would be one key with 1.
    """
    cls = key.__class__
    if cls is str:
        return cast(bytes, key.encode())
    if cls is bytes:
        return cast(bytes, key)
    if cls is int:
        return _LONG.pack(key)
    raise TypeError(f"a key of type {cls.__name__} has no natural bytes")


def _marked_key(key: Any) -> bytes:
    data = natural_key_bytes(key)
    return _MARKS[key.__class__] + data


def _unmarked_key(data: bytes) -> Any:
    decode = _BY_MARK.get(data[:1])
    if decode is None:
        raise ValueError(f"the first byte of a key says its type (s, b or i), and {data[:1]!r} does not")
    return decode(data[1:])


NATURAL_KEY = TypeCodec(
    name="natural", encode=_marked_key, decode=_unmarked_key, hashable=True, natural=natural_key_bytes, plain=str
)
"""Keys of a type that nobody named: str, bytes or int, with a mark so that they can be read back."""

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_ENCODE: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def _check_builtin(value: Any) -> None:
    cls = value.__class__
    if cls in _SCALARS:
        return
    if cls is list:
        for item in cast(list[Any], value):
            _check_builtin(item)
    elif cls is dict:
        for key, item in cast(dict[Any, Any], value).items():
            if key.__class__ not in _SCALARS:
                raise TypeError(f"a dict with keys of type {type(key).__name__} would not come back as it is")
            _check_builtin(item)
    elif cls is not datetime or value.tzinfo is None:
        naive = "a datetime without time zone" if cls is datetime else f"a value of type {cls.__name__}"
        raise TypeError(f"{naive} would not come back as it is")


def _natural_value(value: Any) -> bytes:
    _check_builtin(value)
    return _ENCODE(value)


NATURAL_VALUE = TypeCodec(name="natural", encode=_natural_value, decode=msgspec.msgpack.Decoder[Any]().decode)
"""Values of a type that nobody named: msgpack of None, bool, int, float, str, bytes, aware datetime, list and dict."""


# ---------------------------------------------------------------- errors


def encode_error(what: str, codec: TypeCodec, value: object, error: Exception) -> EncodeError:
    """The error for a value that could not be encoded; `what` names it: "the key of topic 'clicks'"."""
    # Nobody named a type: there is no codec whose name would tell anything.
    how = "" if codec.name == NATURAL_VALUE.name else f" as {codec.name}"
    return EncodeError(f"{what} cannot be encoded{how}: {_reason(codec, value, error)} (the value: {shown(value)})")


def _reason(codec: TypeCodec, value: object, error: Exception) -> str:
    if isinstance(value, int) and isinstance(error, (struct.error, OverflowError)):
        return "an int has 64 bits, and this one needs more"
    if isinstance(value, Coroutine):
        value.close()  # else Python warns of it too
        return f"a function returned a coroutine, and nothing awaits it here: {AWAIT}"
    if codec.name in _NUMBERS_AND_TEXT and isinstance(error, (TypeError, struct.error)):
        return f"expected {codec.name}, got {type_name(type(value))}"  # theirs speak of descriptors and arguments
    return words(error)


def decode_error(what: str, codec: TypeCodec, error: Exception) -> DecodeError:
    """The error for bytes that could not be decoded; `what` names them: "the value of clicks-0@17"."""
    return DecodeError(f"{what} cannot be decoded as {codec.name}: {words(error)}")


def guarded(codec: TypeCodec, what: str, advice: str = "") -> TypeCodec:
    """The same codec, with errors as `EncodeError` that name `what`; `advice` says what to do.

    Of one that is guarded already the new words take the place of the old ones.
    """

    def telling(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def told(value: Any) -> bytes:
            try:
                return encode(value)
            except EncodeError:
                raise
            except Exception as error:
                raised = encode_error(what, codec, value, error)
                raise EncodeError(f"{raised}{advice}") from error

        return told

    bare, natural = codec.bare or codec.encode, codec.natural
    return dataclasses.replace(
        codec, encode=telling(bare), natural=None if natural is None else telling(natural), bare=bare
    )
