"""`tailrace reset`."""

import sys
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.tests.support.command import Command

SHOP = """
from tailrace import App
app = App("shop")
app.stream(app.topic("in", key=str, value=int)).group_by_key().count(store="n").to(app.topic("out", key=str, value=int))
"""
IN = TopicPartition("in", 0)


@pytest.fixture
def shop(tailrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a directory with a program that has read its input, records of the seconds 0 to 4."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop_reset.py").write_text(SHOP, encoding="utf-8")
    sys.modules.pop("shop_reset", None)
    tailrace.ok("topics", "create", "in")
    with Log.open(tailrace.log) as opened, opened.producer() as producer:
        for number in range(5):
            producer.send("in", (7).to_bytes(8, "big"), key=b"k", timestamp_ms=number * 1_000)
    tailrace.ok("run", "shop_reset", "--until", "end")
    return tailrace


def committed(command: Command) -> int:
    with Log.open(command.log, read_only=True) as log:
        return log.committed("shop")[IN]


def test_it_shows_first_and_does_it_with_execute(shop: Command) -> None:
    shown = shop.ok("reset", "shop_reset:app")
    assert "  in-0  5 -> 0\n" in shown.out
    assert "shop-n-changelog" in shown.out
    assert "add --execute" in shown.err
    assert committed(shop) == 5
    done = shop.ok("reset", "shop_reset:app", "--execute", "--json").json[0]
    assert done["executed"]
    assert done["offsets"] == [{"topic": "in", "partition": 0, "from": 5, "to": 0}]
    assert done["stays"] == ["in", "out"]
    assert committed(shop) == 0
    shop.ok("run", "shop_reset", "--until", "end")
    assert shop.ok("tail", "out", "--json", "--value-type", "int").json[-1]["value"] == 5


@pytest.mark.parametrize(
    ("to", "offset"),
    [
        ("latest", 5),
        ("3", 3),
        ("1970-01-01T00:00:02", 2),
        ("1970-01-01T01:00:02+01:00", 2),
        ("7d", 5),
        ("90000000m", 0),
    ],
)
def test_to(shop: Command, to: str, offset: int) -> None:
    found = shop.ok("reset", "shop_reset", "--to", to, "--json").json[0]
    assert found["offsets"] == [{"topic": "in", "partition": 0, "from": 5, "to": offset}]


def test_a_file(shop: Command, tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("in,0,4\n\n", encoding="utf-8")
    shop.ok("reset", "shop_reset", "--file", "places.csv", "--execute")
    assert committed(shop) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--to", "yesterday"], 2, "--to wants earliest, latest, an offset, a time such as"),
        (["--to", "6"], 1, "there is no offset 6 in in-0: it has 0 to 5"),
        (["--file", "nowhere.csv"], 3, "there is no file nowhere.csv"),
        (["--file", "bad.csv"], 2, "bad.csv:2 is not topic,partition,offset"),
        (["--file", "twice.csv"], 2, "twice.csv:2 names in-0 a second time"),
        (["--file", "empty.csv"], 2, "empty.csv has no line"),
    ],
)
def test_what_cannot_be_is_refused(shop: Command, tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    (tmp_path / "bad.csv").write_text("in,0,1\nin;0;1\n", encoding="utf-8")
    (tmp_path / "twice.csv").write_text("in,0,1\nin,0,2\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    found = shop("reset", "shop_reset", *arguments, "--execute")
    assert (found.code, told in found.err) == (code, True), found
    assert committed(shop) == 5


def test_a_log_that_is_not_there_and_one_that_is_held(shop: Command) -> None:
    assert shop("--log", "nowhere", "reset", "shop_reset").code == 3
    with Log.open(shop.log):
        assert shop.ok("reset", "shop_reset").out.startswith("reset of app 'shop': a plan")
        assert shop("reset", "shop_reset", "--execute").code == 5
