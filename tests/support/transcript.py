"""Transcripts: commands to a state machine and what it did, in one text file that is read like a protocol.

A line that begins with `> ` is a command; the lines below it are what happened. `#` begins a remark. The file is right
when running its commands gives the same file again; `REWRITE=1 python -m pytest …` writes what happened instead.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tailrace.tests.support.source import ROOT

TRANSCRIPTS = ROOT / "tests" / "transcripts"


def check(name: str, run: Callable[[str], list[str]]) -> None:
    """Run the commands of a transcript; a command with no effect to show gives no lines."""
    path: Path = TRANSCRIPTS / name
    written = path.read_text("utf-8")
    happened = "\n".join(_replay(written, run)).rstrip("\n") + "\n"
    if os.environ.get("REWRITE"):
        path.write_text(happened, "utf-8")
        return
    assert written.splitlines() == happened.splitlines(), f"{path}: REWRITE=1 writes down what happens now"


def _replay(written: str, run: Callable[[str], list[str]]) -> Iterator[str]:
    for line in written.splitlines():
        if line.startswith("> "):
            yield line
            yield from run(line.removeprefix("> "))
        elif not line or line.startswith("#"):
            yield line
