"""The command as a whole: help, usage, exit codes, and the real process."""

import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tailrace import starting
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


def test_a_folder_that_is_no_log_is_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letters").mkdir()
    for inside in (None, "a.txt"):
        if inside:
            (tmp_path / "letters" / inside).write_text("Dear", encoding="utf-8")
        for command in (["topics", "list"], ["tail", "t"], ["send", "t", os.devnull], ["topics", "delete", "t"]):
            assert main(["--log", f"{tmp_path}/letters", *command]) == 3
            assert capsys.readouterr().err.startswith(f"error: there is no log at {tmp_path}/letters; ")


def test_only_commands_that_begin_something_begin_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["send", "t", os.devnull], ["topics", "delete", "t"]):
        assert main(["--log", f"file://{tmp_path}/none", *command]) == 3
    assert list(tmp_path.iterdir()) == []
    assert main(["--log", f"file://{tmp_path}/none", "topics", "create", "t"]) == 0
    assert main(["--log", f"file://{tmp_path}/none", "topics", "list"]) == 0
    assert "no log" in capsys.readouterr().err


@pytest.mark.parametrize("found", ["7.1", None])
def test_it_says_its_version(
    found: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(_: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(metadata, "version", installed)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tailrace {found or 'from a checkout that is not installed'}\n"


SCRIPT = "import sys\nfrom tailrace.cli.main import main\nsys.exit(main())\n"  # as installers write it


@pytest.mark.parametrize("how", ["module", "script"])
@pytest.mark.parametrize("reached", ["tailrace.log.errors", "aiokafka.record", "tailrace.cli.errors", "typer"])
def test_ctrl_c_while_it_starts_is_quiet(how: str, reached: str, tmp_path: Path) -> None:
    """The signal comes when a certain module has been imported, which Python tells with -X importtime."""
    (tmp_path / "tailrace").write_text(SCRIPT, encoding="utf-8")
    start = ["-m", "tailrace"] if how == "module" else [str(tmp_path / "tailrace")]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *start, "topics", "list"],
        cwd=tmp_path.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f" {reached}"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=20) == 130
    assert "Traceback" not in rest
    assert "error" not in [line.split(":")[0] for line in rest.splitlines()]


def test_only_the_command_takes_ctrl_c_while_it_starts() -> None:
    assert starting.is_command("/usr/local/bin/tailrace", [])
    assert starting.is_command("-m", ["python", "-X", "dev", "-m", "tailrace", "run"])
    assert not starting.is_command("-m", ["python", "-m", "pytest", "tailrace"])
    assert not starting.is_command("-m", ["python", "-mtimeit"])
    assert not starting.is_command("shop.py", ["python", "shop.py", "-m", "tailrace"])
    assert not starting.is_command("", [])
