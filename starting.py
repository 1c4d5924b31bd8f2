"""Ctrl-C while the command `tailrace` is still importing: it ends with 130, and without a traceback.

The package's `__init__` imports this before all else, as imports are most of the command's start, and no `try` of the
command's own can be around them. A program that imports tailrace is not touched: only where this process *is* the
command, by its name or as `python -m tailrace`, the signal is taken, until the command begins its work.
"""

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def is_command(name: str, original: list[str]) -> bool:
    """Whether a process is the command, by `sys.argv[0]` and `sys.orig_argv`; the former is `-m` while it starts."""
    if name == "-m":
        return "-m" in original and original[original.index("-m") + 1 :][:1] == ["tailrace"]
    return name.replace("\\", "/").rpartition("/")[2].removesuffix(".exe") == "tailrace"


def _end(_number: int, _frame: FrameType | None) -> None:
    # Nothing is open yet. An exception would have to pass through whatever import is at work, compiled ones too.
    os._exit(_INTERRUPTED)


def over() -> None:
    """Give Ctrl-C back to Python."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command(sys.argv[0] if sys.argv else "", sys.orig_argv) and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _end)
