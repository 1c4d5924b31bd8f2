"""`tailrace run`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tailrace import App
from tailrace.cli.main import main
from tailrace.log.broker import Broker
from tailrace.log.client import Log
from tailrace.tests.support.command import Command

SHOP = """
from tailrace import App
app = App("shop", log="the-apps-own")
def double(value: int) -> int:
    return value * 2 if value != 13 else 1 // 0
app.stream(app.topic("in", key=str, value=int)).map(double).to(app.topic("out", key=str, value=int))
"""


@pytest.fixture
def shop(tailrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a directory with a program, on a log with its input."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop_run.py").write_text(SHOP, encoding="utf-8")
    sys.modules.pop("shop_run", None)
    tailrace.ok("topics", "create", "in")
    return tailrace


def send(log: str, *values: int) -> None:
    with Log.open(log) as opened, opened.producer() as producer:
        for value in values:
            producer.send("in", value.to_bytes(8, "big"), key=b"k")


def test_it_runs_to_the_end_and_says_what_it_did(shop: Command) -> None:
    send(shop.log, 1, 2, 3)
    found = shop.ok("run", "shop_run", "--until", "end", "--json").json[0]
    assert (found["app"], found["records_in"], found["records_out"]) == ("shop", 3, 3)
    assert [row["value"] for row in shop.ok("tail", "out", "--json", "--value-type", "int").json] == [2, 4, 6]
    again = shop.ok("run", "shop_run:app", "--until", "end").out
    assert again.startswith("shop: 0 records in, 0 out")


def test_the_apps_own_log_is_taken_unless_another_is_named(
    shop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAILRACE_LOG", raising=False)
    found = subprocess.run(
        [sys.executable, "-m", "tailrace", "run", "shop_run", "--until", "end"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 3  # the app's own log has no topic `in`
    assert "'in'" in found.stderr
    assert (tmp_path / "the-apps-own").is_dir()


def test_an_app_that_names_no_log_takes_the_commands(
    shop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert App("unnamed").options.log == "tailrace-data"
    (tmp_path / "shop_env.py").write_text(SHOP.replace(', log="the-apps-own"', ""), encoding="utf-8")
    monkeypatch.setenv("TAILRACE_LOG", shop.log)
    send(shop.log, 1)
    assert main(["run", "shop_env", "--until", "end"]) == 0
    assert [row["value"] for row in shop.ok("tail", "out", "--json", "--value-type", "int").json] == [2]


def test_an_app_that_names_the_default_log_keeps_it(
    shop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_named.py").write_text(SHOP.replace("the-apps-own", "tailrace-data"), encoding="utf-8")
    monkeypatch.setenv("TAILRACE_LOG", shop.log)
    assert main(["run", "shop_named", "--until", "end"]) == 3  # there is no topic `in`
    assert (tmp_path / "tailrace-data").is_dir()


def test_a_missing_input_names_the_users_line(shop: Command) -> None:
    shop.ok("topics", "delete", "in")
    shop.ok("topics", "create", "inn")
    found = shop("run", "shop_run", "--until", "end")
    assert found.code == 3
    assert "'inn'" in found.err
    assert "shop_run.py:6" in found.err


def test_an_end_that_there_is_not_is_told_in_plain_words(shop: Command) -> None:
    found = shop("run", "shop_run", "--until", "foo")
    assert found.code == 2
    assert found.err == "error: Invalid value for '--until': 'foo' is not one of 'end'.\n"


def test_an_exception_of_the_users_names_its_line(shop: Command) -> None:
    send(shop.log, 1, 13)
    found = shop("run", "shop_run", "--until", "end")
    assert found.code == 1
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert "shop_run.py:5" in found.err
    assert "in-0@1" in found.err
    assert "Traceback" in shop("run", "shop_run", "--until", "end", "--debug").err


def test_a_signal_just_before_it_waits_is_not_lost(shop: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Broker.wait

    def signalled(self: Broker, *arguments: Any, **options: Any) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.undo()
        return wait(self, *arguments, **options)

    monkeypatch.setattr(Broker, "wait", signalled)
    assert shop("run", "shop_run").code == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(shop: Command, tmp_path: Path, number: signal.Signals, code: int) -> None:
    send(shop.log, 1, 2, 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "tailrace", "--log", shop.log, "run", "shop_run", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while "out" not in shop("topics", "list").out or len(shop.rows("out")) < 3:
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert f'"stopped_by":{int(number)}' in out
    assert '"records_in":3' in out
    assert err == ""
