"""The command's entry, which imports nothing heavy: Ctrl-C ends it without a traceback from its first line on.

What comes before that is `tailrace/__init__.py` (see tailrace/starting.py) and the start of Python itself, where Ctrl-C
is Python's: a traceback, or none, and the code that the signal gives.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and say its exit code.

    0 done, 1 failed, 2 usage, 3 not found, 4 corrupt, 5 locked or fenced, 130 interrupted.

    Args:
        arguments: what follows the command's name; those of the process unless given.
    """
    from tailrace.cli.commands import execute  # noqa: PLC0415 - most of the start's time: Ctrl-C must be quiet by now

    return execute(arguments)
