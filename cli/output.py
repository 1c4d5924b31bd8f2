"""What commands print: lines, tables, JSON, progress; and bytes as a person or a program can read them.

1. Results on stdout, everything else on stderr; in JSON mode stdout holds JSON alone, one value per line.
2. Progress is drawn on a terminal only; what is drawn there is gone when the work is done.
3. A table is never cut where stdout is not a terminal.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

# Wide enough for any row: where no terminal limits the width, nothing may be cut or wrapped.
_UNLIMITED = 100_000


@dataclass(frozen=True)
class Output:
    """Where a command's words go."""

    json: bool = False

    def value(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")

    def line(self, text: str) -> None:
        """Print a line of a result."""
        sys.stdout.write(text + "\n")

    def flush(self) -> None:
        """Hand on what was printed, where someone waits for it: a terminal or a pipe that is read live."""
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a line beside the results, for a person."""
        if not self.json:
            sys.stderr.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print rows under their headings; numbers to the right."""
        made = make_table(columns, rows)
        console = Console() if sys.stdout.isatty() else Console(width=_UNLIMITED)
        console.print(made, no_wrap=not sys.stdout.isatty())

    def progress(self, what: str, total: int | None) -> "Bar":
        """Draw a bar on a terminal: share of `total`, rate, time left. Nothing elsewhere."""
        return Bar(what, total, shown=sys.stderr.isatty() and not self.json)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """Make a plain table; a column whose first cell is a number stands to the right."""
    cells = [list(row) for row in rows]
    made = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for number, name in enumerate(columns):
        numeric = bool(cells) and isinstance(cells[0][number], int | float)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        made.add_row(*[f"{cell:,}" if isinstance(cell, int | float) else escape(str(cell)) for cell in row])
    return made


def escape(text: str) -> str:
    """Keep rich from reading square brackets in data as markup."""
    return text.replace("[", "\\[")


class Bar:
    """A progress bar with a rate in records; a no-op where nobody looks."""

    def __init__(self, what: str, total: int | None, *, shown: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True) if shown else None
        self._task = self._progress.add_task(escape(what), total=total, said="") if self._progress else None

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def update(self, completed: int, said: str) -> None:
        """Say how far the work is, in units of the total, and what to show beside the bar."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=completed, said=said)


def readable(data: bytes | None) -> str:
    """Show bytes to a person: text where it is printable UTF-8; a small 8-byte number as one; else hexadecimal."""
    if data is None:
        return "null"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if text.isprintable():
        return text
    # Counts are written as 8-byte integers, so this is far more often a number than eight control characters.
    if len(data) == 8 and data[0] in {0x00, 0xFF}:
        return str(int.from_bytes(data, "big", signed=True))
    if all(character.isprintable() or character in "\t\r\n" for character in text):
        return text
    return "0x" + data.hex()


def instant(timestamp_ms: int) -> str:
    """Show a time as ISO 8601 in UTC with milliseconds; one that no calendar holds as its number."""
    try:
        return (
            datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)


def rate(count: int, seconds: float) -> str:
    """Show a rate in records a second."""
    return f"{count / seconds:,.0f} records/s" if seconds > 0 else "- records/s"


def size(count: float) -> str:
    """Show a number of bytes in the unit that keeps it short."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
