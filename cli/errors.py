"""What an error says, and which code the command ends with.

1. One line on stderr, `error: …`; nothing else unless `--debug` asks for the traceback.
2. The code tells what happened: 1 failed, 2 usage, 3 not found, 4 corrupt, 5 locked or fenced, 130 interrupted.
3. An exception out of the user's code names the user's file and line.
"""

import sys
import sysconfig
from types import TracebackType

import typer
from typer import TyperException

from tailrace.log.errors import (
    CorruptError,
    FencedError,
    LogLockedError,
    TailraceError,
    TopicNotFoundError,
    TopologyError,
)

FAILED, USAGE, NOT_FOUND, CORRUPT, LOCKED, INTERRUPTED, TERMINATED = 1, 2, 3, 4, 5, 130, 143

# The machinery between our command and the user's first line.
_MACHINERY = (
    "tailrace",
    "typer",
    "importlib",
    "_frozen_importlib",
    "runpy",
    "contextlib",
    "threading",
    "asyncio",
    "anyio",
)


class CommandError(TailraceError):
    """A command could not do what it was asked; says the exit code."""

    exit_code = FAILED


class UsageError(CommandError):
    """The command line is wrong in itself."""

    exit_code = USAGE


class NotFoundError(CommandError):
    """A file, module, attribute or log that was named is not there."""

    exit_code = NOT_FOUND


def exit_code_of(error: BaseException) -> int:
    """Say the exit code for an exception that ended a command."""
    match error:
        case CommandError() | TyperException():
            return error.exit_code
        case TopicNotFoundError() | FileNotFoundError():
            return NOT_FOUND
        case TopologyError() if isinstance(error.__cause__, TopicNotFoundError):
            return NOT_FOUND  # an input of an app, with the user's line
        case CorruptError():
            return CORRUPT
        case LogLockedError() | FencedError():
            return LOCKED
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return FAILED


def message_of(error: BaseException) -> str:
    """Say an exception in one line: ours as it is, the system's with its file, a user's with file and line."""
    if isinstance(error, TyperException):
        text = error.format_message().replace(": Value error, ", ": ")  # the words of the library behind typer's
    elif isinstance(error, typer.Abort):
        text = "the input ended"
    elif isinstance(error, TailraceError):
        text = str(error) or type(error).__name__
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        said = error.msg if isinstance(error, SyntaxError) else str(error)  # its text has the place once more
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        place = user_place(error)
        text = f"{place}: {text}" if place else f"{text}; this is a fault of tailrace: --debug shows where"
    return " ".join(text.split())


def user_place(error: BaseException) -> str | None:
    """Find the user's `file:line` in an exception's traceback: the deepest frame that is neither ours nor a library's.

    Frames are judged by the name of their *module*, because in a checkout the package's folder holds programs too; and
    where only libraries raised (a decoder called from our own code), the deepest frame outside tailrace is taken.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    places = list(_places(error.__traceback__))
    own = [place for place, library in places if not library]
    if own:
        return own[-1]
    return places[-1][0] if places else None


def _places(trace: TracebackType | None) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    library = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    while trace is not None:
        frame = trace.tb_frame
        module = str(frame.f_globals.get("__name__", ""))
        example = module.startswith("tailrace.examples")
        if example or module.split(".", maxsplit=1)[0] not in _MACHINERY:
            file = frame.f_code.co_filename
            found.append((f"{file}:{trace.tb_lineno}", file.startswith((*library, "<"))))
        trace = trace.tb_next
    return found


def report(error: BaseException, *, debug: bool) -> int:
    """Print an exception on stderr and say the exit code."""
    if debug:
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(error, KeyboardInterrupt):
        print(f"error: {message_of(error)}", file=sys.stderr)  # noqa: T201 - the command's own voice
    return exit_code_of(error)
