"""Turns what a user's function raised into one error that says which node, which line and which record.

The chain carries no bookkeeping for this: the traceback has all of it. A frame that runs a function given to a node
tells the node; the first frame outside the package tells the user's line.
"""

import traceback
from collections.abc import Mapping
from types import CodeType

from tailrace.log.errors import TailraceError, TaskError
from tailrace.streams.context import TaskContext
from tailrace.streams.place import Place, is_ours


def code_of(function: object) -> CodeType | None:
    """The code object that runs when function is called; None for one that is not written in Python."""
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def task_error(error: Exception, nodes: Mapping[CodeType, tuple[str, Place]], context: TaskContext) -> TailraceError:
    """The error to end the app with; one of ours is passed on as it is.

    nodes gives the name and place of the node for the code of each function that the user handed in.
    """
    if isinstance(error, TailraceError):
        return error
    node: tuple[str, Place] | None = None
    line: str | None = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code in nodes:
            node = nodes[frame.f_code]
        if not is_ours(frame.f_globals.get("__name__", "")):
            line = f"{frame.f_code.co_filename}:{number}"
            if frame.f_code in nodes:
                break
    name, place = node or ("an operator", None)
    declared = f", of the node made at {place}" if place and str(place) != line else ""
    return TaskError(
        f"{type(error).__name__} in {name} ({line or 'no line of yours'}{declared}) at {context.where()}: {error}; "
        "nothing after the last commit was kept, mend the function and start again"
    )
