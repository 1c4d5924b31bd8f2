"""Turns what a user's function raised into one error that says which node, which line and which record.

The chain carries no bookkeeping for this: the traceback has all of it. A frame that runs a function given to a node
tells the node; the first frame outside the package tells the user's line.
"""

import traceback
from collections.abc import Mapping
from types import CodeType

from tailrace.log.errors import TaskError
from tailrace.streams.context import TaskContext
from tailrace.streams.place import Place, is_ours

# What the links of a chain call a function of the user: tells the node of one that has no frame of its own (str.upper).
# A processor has no such function: the object that runs it is known by itself.
_LOCALS = ("f", "add", "zero", "merge", "choose", "extract", "factory", "self")


def identity(function: object) -> int:
    """What a function is known by: its code where it has some, so that it is found in a traceback; else itself."""
    return id(_code_of(function) or function)


def raised_in(function: object, error: Exception) -> bool:
    """Whether error came out of a function written in Python."""
    code = _code_of(function)
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


def task_error(error: Exception, nodes: Mapping[int, tuple[str, Place]], context: TaskContext) -> TaskError:
    """The error to end the app with.

    nodes gives the name and place of the node for the `identity` of each function that the user handed in.
    """
    node: tuple[str, Place] | None = None
    line: str | None = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        here = f"{frame.f_code.co_filename}:{number}"
        if is_ours(frame.f_globals.get("__name__", "")):
            called = (frame.f_locals.get(name) for name in _LOCALS)
            found = next((nodes[identity(f)] for f in called if f is not None and identity(f) in nodes), node)
            # A processor calls what stands behind it: the last node is the one that failed.
            node, line = found, line if found == node else None
        elif id(frame.f_code) in nodes:
            node, line = nodes[id(frame.f_code)], here
        else:
            line = line or here
    name, place = node or ("an operator", None)
    line = line or str(place)
    declared = f", of the node made at {place}" if place and str(place) != line else ""
    return TaskError(
        f"{type(error).__name__} in {name} ({line}{declared}) at {context.where()}: {error}; "
        "nothing after the last commit was kept, mend the function and start again"
    )


def _code_of(function: object) -> CodeType | None:
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
