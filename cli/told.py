"""What the engine warns of while a command runs: one line each on stderr, and not the same thing again and again.

1. Only `tailrace.*` loggers are spoken for, and only while a command runs; a program that configures logging itself
   has its own handlers beside this.
2. A text is printed once, and so are the first `DIFFERENT_MAX` texts of one kind; the rest is counted, and told at the
   end.
"""

import logging
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

DIFFERENT_MAX = 5


class _Lines(logging.Handler):
    """Prints `warning: …`; kinds are told apart by the text before its arguments are put in."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: dict[str, set[str]] = {}
        self._more: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Print or count a warning."""
        text = " ".join(record.getMessage().split())
        printed = self._printed.setdefault(str(record.msg), set())
        if text in printed or len(printed) >= DIFFERENT_MAX:
            self._more[str(record.msg)] += 1
            return
        printed.add(text)
        self._print(text)

    def finish(self) -> None:
        """Tell what was counted."""
        for kind, count in self._more.items():
            self._print(f"{count:,} more like: {min(self._printed[kind])}")

    def _print(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)  # noqa: T201 - the command's own voice


@contextmanager
def told() -> Generator[None]:
    """Print the warnings of a block."""
    logger = logging.getLogger("tailrace")
    lines = _Lines()
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        lines.finish()
