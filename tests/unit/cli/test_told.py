"""Warnings of the engine on the command line."""

import logging
from pathlib import Path

import pytest

from tailrace.cli.told import DIFFERENT_MAX, told
from tailrace.tests.support.command import Command

logger = logging.getLogger("tailrace.log.something")


def test_each_warning_is_one_line_and_the_same_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with told():
        for _ in range(4):
            logger.warning("%s: cut\nat byte %d", "a-0", 7)
        logger.info("nothing")
        for number in range(DIFFERENT_MAX + 2):
            logger.error("%d records were lost", number)
        logging.getLogger("users.own").info("nothing")
    assert capsys.readouterr().err.splitlines() == [
        "warning: a-0: cut at byte 7",
        *[f"warning: {number} records were lost" for number in range(DIFFERENT_MAX)],
        "warning: 3 more like: a-0: cut at byte 7",
        "warning: 2 more like: 0 records were lost",
    ]
    logger.warning("after the command")
    assert "warning:" not in capsys.readouterr().err


def test_a_command_tells_what_the_log_warns_of(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "t")
    tailrace.ok("send", "t", stdin=b"{}\n{}\n")
    (segment,) = Path(tailrace.log).glob("t-0/*.log")
    with segment.open("ab") as file:
        file.write(b"torn")
    (Path(tailrace.log) / "recovery-point-offset-checkpoint").unlink()
    found = tailrace.ok("topics", "create", "u", "--json")
    assert found.err.startswith("warning: ")
    assert found.err.count("\n") == 1
    assert "a torn tail of 4 bytes was cut" in found.err
    assert len(found.json) == 1
