"""Where in the user's program a thing was declared, and which functions may be handed to an operator.

1. A place is the first frame whose *module* is not ours, judged by `__name__` and never by path: in a checkout the
   package folder holds tests and examples, and these count as the user's.
2. A function that is refused is refused at the call, by TypeError.

Not here: what a place is used for (topology names places in its errors, operators in those of user functions).
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from tailrace.streams.values.wording import AWAIT

_USERS = ("tailrace.tests", "tailrace.examples")


class Place(NamedTuple):
    """A line of the user's program; prints as file:line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def is_ours(module: str) -> bool:
    """Whether a module (by its `__name__`) is the package's, and not a user's."""
    if module != "tailrace" and not module.startswith("tailrace."):
        return False
    return not any(module == users or module.startswith(users + ".") for users in _USERS)


def user_place() -> Place:
    """The place of the nearest caller outside the package."""
    frame = inspect.currentframe()  # not inspect.stack(), which reads source files: 1,000 times dearer
    while frame is not None and frame.f_back is not None and is_ours(str(frame.f_globals.get("__name__", ""))):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno) if frame is not None else Place("<unknown>", 0)


def function_name(f: Callable[..., Any]) -> str:
    """How a user's function is called in `describe()`: its own name, "lambda", or its class's name."""
    while isinstance(f, functools.partial):
        f = f.func
    name = getattr(f, "__name__", None) or type(f).__name__
    return "lambda" if name == "<lambda>" else str(name)


def is_async(f: Callable[..., Any]) -> bool:
    """Whether what it returns must be awaited, as far as can be seen before it is called."""
    while isinstance(f, functools.partial):
        f = f.func
    if isinstance(f, type):
        return False
    for candidate in (f, getattr(f, "__call__", None)):  # noqa: B004 - an object with an async __call__ is meant too
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            return True
    return False


def check_function(f: object, where: str) -> None:
    """Refuses what a plain function's place cannot take.

    Args:
        f: what the user gave.
        where: the call it was given to, as the user would name it: "map", "count(store='a')".

    Raises:
        TypeError: f is not callable, or is async; the message says where an async function belongs.
    """
    if not callable(f):
        raise TypeError(f"{where} takes a function, not {f!r}")
    if is_async(f):
        raise TypeError(f"{where} takes a plain function, and {function_name(f)} is async: {AWAIT}")
