"""A command on a log of the test's own."""

from pathlib import Path

import pytest

from tailrace.tests.support.command import Command


@pytest.fixture
def tailrace(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, on an empty directory."""
    return Command(str(tmp_path / "log"), capsys, monkeypatch)
