"""What the shell completes: commands, and the names that are in the log."""

import pytest

from tailrace.cli.main import main
from tailrace.log.client import Log
from tailrace.tests.support.command import Command


@pytest.fixture
def named(tailrace: Command) -> str:
    """A log with topics and groups."""
    with Log.open(tailrace.log) as log:
        for name in ("clicks", "clients", "users"):
            log.create_topic(name)
        log.create_topic("shop-counts-changelog", internal=True)
        log.alter_offsets("shop", {("users", 0): 0})
    return tailrace.log


def completed(typed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("_TAILRACE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"tailrace {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(f"tailrace {typed}".split()) - (not typed.endswith(" "))))
    capsys.readouterr()
    assert main([]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.split()


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("tail cl", ["clicks", "clients"]),
        ("send u", ["users"]),
        ("topics describe ", ["clicks", "clients", "users"]),
        ("topics alter us", ["users"]),
        ("topics delete x", []),
        ("groups describe s", ["shop"]),
        ("groups reset ", ["shop"]),
        ("groups reset shop --topic cli", ["clicks", "clients"]),
        ("groups delete ", ["shop"]),
        ("groups l", ["list"]),
    ],
)
def test_names_are_completed(
    named: str, typed: str, names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_LOG", named)
    assert completed(typed, capsys, monkeypatch) == names


def test_the_log_that_is_named_on_the_line_counts(
    named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_LOG", "nowhere")
    assert completed(f"--log {named} tail cl", capsys, monkeypatch) == ["clicks", "clients"]
    assert completed(f"tail --log {named} cl", capsys, monkeypatch) == ["clicks", "clients"]
    assert completed("tail cl", capsys, monkeypatch) == []
