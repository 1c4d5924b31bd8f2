"""The command as a whole: help, usage, exit codes, and the real process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.cli.main import main


@pytest.mark.parametrize("arguments", [[], ["topics"]])
def test_without_a_command_it_prints_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: tailrace" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["topics", "lst"],
        ["tail"],
        ["tail", "t", "-n", "many"],
        ["--nonsense"],
        ["topics", "create", "t", "--partitions", "0"],
    ],
)
def test_usage_ends_with_2_and_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["tail", "--help"], ["topics", "create", "-h"]])
def test_help_is_no_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: tailrace" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--log", "nowhere", "tail", "t"], ["tail", "t", "--log", "nowhere"], ["topics", "list", "--log=nowhere"]],
)
def test_a_log_that_is_not_there_is_not_found(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 3
    assert capsys.readouterr().err.startswith("error: there is no log at nowhere; ")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILRACE_LOG", "elsewhere")
    assert main(["topics", "list"]) == 3
    assert "no log at elsewhere" in capsys.readouterr().err
    monkeypatch.delenv("TAILRACE_LOG")
    assert main(["topics", "list"]) == 3
    assert "no log at ./tailrace-data" in capsys.readouterr().err


def test_the_process_ends_with_the_code(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tailrace", "tail", "t"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 3
    assert found.stderr.startswith("error: there is no log at ./tailrace-data")
    assert found.stdout == ""
