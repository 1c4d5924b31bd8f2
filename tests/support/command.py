"""The command, called in this process: its code, its words, and its JSON."""

import io
import json
import sys
from typing import Any, NamedTuple

import pytest

from tailrace.cli.main import main


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """Each line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """`tailrace --log <log> …`, with stdout and stderr caught."""

    def __init__(self, log: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = log
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> Result:
        """Run a command; whatever its code."""
        if stdin is not None:
            self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        self._capsys.readouterr()
        code = main(["--log", self.log, *arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def ok(self, *arguments: str, stdin: bytes | None = None) -> Result:
        """Run a command that must succeed."""
        result = self(*arguments, stdin=stdin)
        assert result.code == 0, result
        return result

    def rows(self, topic: str, *options: str) -> list[dict[str, Any]]:
        """All records of a topic, as `tail --json` prints them."""
        found: list[dict[str, Any]] = self.ok("tail", topic, "--from", "earliest", "--json", *options).json
        return found

    def values(self, topic: str) -> list[Any]:
        """The values of a topic of JSON."""
        return [row["value"] for row in self.rows(topic, "--value-type", "json")]
