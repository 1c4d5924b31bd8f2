"""Turns what a user's function raised into one error that says which node, which line and which record.

The chain carries no bookkeeping for this: the traceback has all of it. A frame that runs a function given to a node
tells the node; the first frame outside the package tells the user's line; the frame that reads an input tells the
record, also behind a stateful node or a hop, where the context has none.
"""

import traceback
from types import CodeType

from tailrace.log.errors import EncodeError, TaskError
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.repartition_input import RepartitionInput
from tailrace.streams.chain.schedule import Schedules
from tailrace.streams.chain.source import SourceInput
from tailrace.streams.values.place import Place, is_ours
from tailrace.streams.values.wording import shown, words

# What the links of a chain call a function of the user: tells the node of one that has no frame of its own (str.upper).
# A processor has no such function: the object that runs it is known by itself.
_LOCALS = (
    *("f", "add", "remove", "zero", "merge", "choose", "extract", "factory", "self"),
    # Functions of ours that stand for one node.
    *("encode_key", "encode_value", "fold", "rule"),
)


# What a record brings about by moving time belongs to a window or a schedule, and not to the record.
_OF_TIME = frozenset(f.__code__ for f in (TaskContext.close_windows, Schedules.run))


_OF_RECORDS = frozenset(f.__code__ for f in (SourceInput.run_records, RepartitionInput.run_records))


class Nodes:
    """The nodes of a program by the functions that they were given.

    A function is known by itself, and by its code where it has some, so that it is found in a traceback. Several nodes
    may have one function, or functions of one code; where that leaves a doubt, all of them are named.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[str, str]] = {}

    def add(self, function: object, name: str, place: Place) -> None:
        """Tells that a node was given a function."""
        for key in {id(function), id(_code_of(function) or function)}:
            names, places = self._found.get(key, ("", ""))
            self._found[key] = (_joined(names, name), _joined(places, str(place)))

    def forget(self, function: object) -> None:
        """Takes back one that is going to be no more: another may get its id."""
        self._found.pop(id(function), None)

    def of(self, function: object) -> tuple[str, str] | None:
        """Name and place of the node that has a function, or one of the same code."""
        return self._found.get(id(function)) or self._found.get(id(_code_of(function) or function))

    def of_code(self, code: CodeType) -> tuple[str, str] | None:
        """Name and place of the node whose function has this code."""
        return self._found.get(id(code))


def _joined(known: str, more: str) -> str:
    """One name, or several with "or" between; none twice."""
    parts = [part for part in known.split(" or ") if part]
    return " or ".join(parts if more in parts else [*parts, more])


def raised_in(function: object, error: Exception) -> bool:
    """Whether error came out of a function written in Python."""
    code = _code_of(function)
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


def located(error: EncodeError, context: TaskContext) -> EncodeError:
    """The same error with the record at hand in its words: the codec that raised knew of none."""
    where = at(error, context)
    if where not in str(error):
        error.args = (f"{error}; this was at {where}", *error.args[1:])
    return error


def task_error(error: Exception, nodes: Nodes, context: TaskContext, *, at_start_or_end: bool = False) -> TaskError:
    """The error to end the app with; at the start and the end of a task there is no record that could be dropped."""
    node, line = _found(error, nodes)
    name, place = node or ("an operator", None)
    line = line or str(place)
    declared = f", of the node made at {place}" if place and place != line else ""
    advice = ', or go on past such records with on_error="skip" or "dead_letter"'
    return TaskError(
        f"{type(error).__name__} in {name} ({line}{declared}) at {at(error, context)}: {words(error)}; "
        "nothing after the last commit was kept; mend the function and start again"
        f"{'' if at_start_or_end else advice}"
    )


def line_of(error: Exception) -> str | None:
    """The line of the user's that raised; None where there is none."""
    return _found(error, Nodes())[1]


def node_of(error: Exception, nodes: Nodes) -> str:
    """The name of the node that raised."""
    node, _ = _found(error, nodes)
    return node[0] if node else "an operator"


def came_from_user(error: Exception, nodes: Nodes) -> bool:
    """Whether the user's code raised: not a store, nor the log at work for us, nor we ourselves."""
    users = False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("tailrace.state.") or (module.startswith("tailrace.log.") and not users):
            return False
        users = users or not is_ours(module)
    return users or _found(error, nodes)[0] is not None


def _found(error: Exception, nodes: Nodes) -> tuple[tuple[str, str] | None, str | None]:
    """Name and place of the node, and the user's line."""
    node: tuple[str, str] | None = None
    line: str | None = None
    ours = False
    for frame, number in traceback.walk_tb(error.__traceback__):
        here = f"{frame.f_code.co_filename}:{number}"
        if is_ours(frame.f_globals.get("__name__", "")):
            called = (frame.f_locals.get(name) for name in _LOCALS)
            found = next((known for f in called if f is not None and (known := nodes.of(f))), node)
            # A processor calls what stands behind it: the last node is the one that failed.
            node, line, ours = found, line if found == node else None, True
            continue
        known = nodes.of_code(frame.f_code)
        if known is not None:
            # The link that called it has the function itself, and so knows its node better than the code does.
            node, line = node if ours and node is not None else known, here
        else:
            line = line or here
        ours = False
    return node, line


def _where(error: Exception) -> str | None:
    """The record that was run when the error came, as topic-partition@offset; None where there was none."""
    found: str | None = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code in _OF_RECORDS and "record" in frame.f_locals:  # else several run together: the context knows
            found = f"{frame.f_locals['self'].partition}@{frame.f_locals['record'].offset}"
        elif frame.f_code in _OF_TIME:
            return None
    return found


def at(error: Exception, context: TaskContext) -> str:
    """The record that was run when the error came, or the row that was on its way without one."""
    where = _where(error)
    if where is not None or context.source_record() is not None:
        return where or context.where()
    row = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        here = frame.f_locals
        if isinstance(here.get("self"), Schedules):  # called by the clock: the row before it has no part in it
            row = ""
        # What a link of a chain is called with.
        if is_ours(frame.f_globals.get("__name__", "")) and here.keys() >= {"key", "timestamp_ms"}:
            row = f" (key {shown(here['key'])}, at {here['timestamp_ms']} ms)"
    return context.where() + row


def _code_of(function: object) -> CodeType | None:
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
