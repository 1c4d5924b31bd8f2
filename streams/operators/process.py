"""A processor in the graph, as data, and what its class says of the types that it forwards."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, ForwardRef, get_args, get_origin

from tailrace.streams.program.processor import Processor
from tailrace.streams.program.store import DeclaredStore
from tailrace.streams.program.topology import Operator
from tailrace.streams.values.derived import UNKNOWN, Slot, returned, without_none
from tailrace.streams.values.place import check_function, function_name, is_async
from tailrace.streams.values.wording import AWAIT


@dataclass(frozen=True, kw_only=True)
class Process(Operator):
    """Hands every record to a processor, one object per task, and passes on what that forwards.

    Stores are shared with the other processors that name them: all of these run in the same tasks.
    """

    factory: Callable[[], Processor[Any, Any, Any, Any]]
    own_stores: tuple[DeclaredStore[Any, Any], ...]
    keeps_key: bool
    """Whether what is forwarded must have the record's key."""
    key: Slot
    """Of what is forwarded."""

    effect: ClassVar[bool] = True
    sees_every_update: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[DeclaredStore[Any, Any], ...]:
        """The stores that it was given."""
        return self.own_stores

    @property
    def tolerated_ms(self) -> int:
        """It may send what is older than what came, and its stores may refuse it."""
        return 0

    def facts(self) -> dict[str, Any]:
        """The processor's name and its stores'."""
        stores = ", ".join(store.name for store in self.own_stores)
        return {"processor": function_name(self.factory)} | ({"uses": stores} if stores else {})


def forwarded_types(factory: Callable[[], Any]) -> tuple[Any, Any]:
    """The types of key and value that a factory's processors forward, as their class says; UNKNOWN where it does not.

    The factory is the class, or is annotated with what it returns. A type in quotation marks is not looked up.
    """
    key, value = (UNKNOWN if isinstance(each, ForwardRef) else each for each in _arguments(returned(factory)))
    return without_none(key), without_none(value)


def _arguments(made: Any) -> tuple[Any, Any]:
    origin: Any = get_origin(made) or made
    arguments = get_args(made)
    if origin is Processor:
        return (arguments[2], arguments[3]) if len(arguments) == 4 else (UNKNOWN, UNKNOWN)
    if not _is_processor(origin):
        return UNKNOWN, UNKNOWN
    given: dict[Any, Any] = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
    bases: tuple[Any, ...] = origin.__dict__.get("__orig_bases__", origin.__bases__)
    base: Any = next(base for base in bases if _is_processor(get_origin(base) or base))
    parameters: tuple[Any, ...] = getattr(base, "__parameters__", ()) if get_origin(base) else ()
    return _arguments(base[tuple(given.get(each, Any) for each in parameters)] if parameters else base)


def is_processor(made: object) -> bool:
    """Whether something is a processor."""
    return isinstance(made, Processor)


def _is_processor(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Processor)


def check_methods(processor: object, where: str) -> None:
    """Refuses a processor, or a class of them, whose methods cannot be called as plain functions.

    Raises:
        TypeError: one of them is async, or a generator, which would do nothing when called.
    """
    for method in ("init", "process", "close"):
        f = getattr(processor, method, None)
        if f is None:
            continue
        if is_async(f):
            raise TypeError(
                f"{where}: {method} is async, and a processor is called without await: make it a plain method; {AWAIT}"
            )
        check_function(f, f"{where}: {method}")
        if inspect.isgeneratorfunction(f):
            raise TypeError(f"{where}: {method} is a generator, and nothing takes what it yields: use ctx.forward")
