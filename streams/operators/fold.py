"""What aggregates have in common: how a value is folded in, and how a result is sent on.

1. A fold gets None for a key that has no aggregate, and gives None to delete it.
2. What is sent on never shares a mutable value with the store: functions may change an aggregate in place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tailrace.state.store import Codec
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.program.topology import Forward
from tailrace.streams.values.codec import TypeCodec

Fold = Callable[[Any, Any], Any]
"""(aggregate so far or None, value) -> new aggregate; None deletes."""

_IMMUTABLE = (int, str, float, bytes, bool, type(None))


def count_fold(total: int | None, _value: object) -> int:
    """One more."""
    return 1 if total is None else total + 1


def reduce_fold(f: Callable[[Any, Any], Any], codec: Codec[Any]) -> Fold:
    """The first value is taken; f joins each further one to it.

    Where the result is the record's own value it is copied: the record may go into other windows and to other nodes.
    """

    def fold(so_far: Any, value: Any) -> Any:
        result = value if so_far is None else f(so_far, value)
        return snapshot(value, codec) if result is value else result

    return fold


def aggregate_fold(zero: Callable[[], Any], add: Callable[[Any, Any], Any]) -> Fold:
    """Begins with zero() and adds each value."""
    return lambda so_far, value: add(zero() if so_far is None else so_far, value)


def snapshot(value: Any, codec: Codec[Any]) -> Any:
    """The value, or a copy where somebody could change it in place."""
    return value if isinstance(value, _IMMUTABLE) else codec.decode(codec.encode(value))


def shown(value: Any, codec: Codec[Any]) -> Any:
    """What programs see of a value in a store: a snapshot of it, or what an `agg` makes of its states."""
    show = codec.show if isinstance(codec, TypeCodec) else None
    return snapshot(value, codec) if show is None or value is None else show(value)


def shown_of(data: bytes, codec: Codec[Any]) -> Any:
    """The same of a value's bytes."""
    value = codec.decode(data)
    show = codec.show if isinstance(codec, TypeCodec) else None
    return value if show is None else show(value)


def careful_fold(fold: Fold, codec: TypeCodec) -> Fold:
    """The fold for an app that goes on after a function has raised: what raises has changed nothing.

    A function may change an aggregate in place before it raises, so it is given a copy; and a result that the store
    could not hold is found here, where there is a record to drop, and not in the commit. It costs what making bytes of
    an aggregate and an aggregate of bytes costs.
    """
    encode = codec.encode

    def careful(so_far: Any, value: Any) -> Any:
        result = fold(snapshot(so_far, codec), value)
        if result is not None:
            encode(result)
        return result

    return careful


class Emitter:
    """Sends a stateful node's results on; they have no headers and are late nowhere downstream.

    A result may lag behind the records that brought it about by the size and grace of its window; that is not lateness,
    so its origin is its own time.
    """

    __slots__ = ("_codec", "_context", "_forward")

    old: ClassVar[bool] = False
    """Whether it wants to be given old values."""

    def __init__(self, context: TaskContext, forward: Forward, codec: Codec[Any]) -> None:
        self._context = context
        self._forward = forward
        self._codec = codec

    def before(self, value: Any) -> bytes | None:
        """What has to be kept of a value that is about to change, where somebody downstream asks for old values."""
        del value
        return None

    def __call__(self, key: Any, value: Any, timestamp_ms: int, old: bytes | None = None) -> None:
        """Sends one result on; `old` is the one that it replaces."""
        del old
        context = self._context
        record, origin_ms, cause = context.record, context.origin_ms, context.cause
        context.record, context.origin_ms, context.cause = None, timestamp_ms, record or cause
        try:
            self._forward(key, shown(value, self._codec), timestamp_ms)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            context.failed(error, (key, value, timestamp_ms))
        finally:
            context.record, context.origin_ms, context.cause = record, origin_ms, cause


class ChangeEmitter(Emitter):
    """Sends results on together with those that they replace: for tables some node of which asks for old values.

    Old values are kept as bytes, since functions may change an aggregate in place, and decoded when they are sent.
    """

    __slots__ = ()

    old: ClassVar[bool] = True

    def before(self, value: Any) -> bytes | None:
        """See `Emitter`."""
        return None if value is None else self._codec.encode(value)

    def __call__(self, key: Any, value: Any, timestamp_ms: int, old: bytes | None = None) -> None:
        """See `Emitter`."""
        context = self._context
        outer, context.old = context.old, None if old is None else shown_of(old, self._codec)
        try:
            super().__call__(key, value, timestamp_ms)
        finally:
            context.old = outer


class InFlight(ChangeEmitter):
    """Sends results on and tells, while one is on its way, which it is: for joins that it may reach on two ways."""

    __slots__ = ("_replaced", "flying", "version")

    def __init__(self, context: TaskContext, forward: Forward, codec: Codec[Any]) -> None:
        super().__init__(context, forward, codec)
        self.version = 0
        """Grows with each result."""
        self.flying: Any = None
        """The key of the result that is on its way; None is no key."""
        self._replaced: bytes | None = None

    def replaced(self) -> Any:
        """The value that the result on its way replaces: one that nobody else has."""
        return None if self._replaced is None else shown_of(self._replaced, self._codec)

    def __call__(self, key: Any, value: Any, timestamp_ms: int, old: bytes | None = None) -> None:
        """See `Emitter`."""
        self.version += 1
        self.flying, self._replaced = key, old
        try:
            super().__call__(key, value, timestamp_ms, old)
        finally:
            self.flying = self._replaced = None


def emitter(
    context: TaskContext, forward: Forward, codec: Codec[Any], *, old: bool, in_flight: bool = False
) -> Emitter:
    """What sends results on; `old` says whether somebody downstream asks for old values, `in_flight` for more."""
    if in_flight:
        return InFlight(context, forward, codec)
    return (ChangeEmitter if old else Emitter)(context, forward, codec)


@dataclass(frozen=True, slots=True)
class Ways:
    """What a windowed aggregate does with values and results, whatever its windows are."""

    fold: Fold
    emit: Emitter
    late: Forward
    """Takes the records that came after all of their windows closed."""
    on_close: bool
    """Whether results are sent once, when their window closes."""
    retention_ms: int
    """How far behind stream time a window may still be read; at least the window's own."""
