"""`tailrace replay`."""

import sys
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.tests.support.command import Command

SHOP = """
from tailrace import App
app = App("shop")
numbers = app.stream(app.topic("in", key=str, value=int))
totals = numbers.group_by_key().reduce(lambda a, b: a + FACTOR * b, store="totals")
totals.to(app.topic("out", key=str, value=int))
"""


def program(tmp_path: Path, factor: int) -> None:
    (tmp_path / "shop_replay.py").write_text(f"FACTOR = {factor}\n{SHOP}", encoding="utf-8")
    sys.modules.pop("shop_replay", None)


@pytest.fixture
def shop(tailrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a directory with a program that has run over records of the seconds 0 to 5, and was changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    tailrace.ok("topics", "create", "in")
    with Log.open(tailrace.log) as opened, opened.producer() as producer:
        for number in range(6):
            producer.send("in", number.to_bytes(8, "big"), key=b"ab"[number % 2 :][:1], timestamp_ms=number * 1_000)
    program(tmp_path, 1)
    tailrace.ok("run", "shop_replay", "--until", "end")
    program(tmp_path, 2)
    return tailrace


def test_it_replays_compares_and_discards(shop: Command) -> None:
    found = shop.ok("replay", "shop_replay", "--into", "v2", "--json").json[0]
    assert (found["replay"], found["records_in"], found["share"], found["event_time_ms"]) == ("shop.v2", 6, 1.0, 5_000)
    assert found["outputs"] == {"out": "out.v2"}
    again = shop.ok("replay", "shop_replay", "--into", "v2").out
    assert again.startswith("shop.v2: 0 records in, 0 out")
    assert "100% of the input is done, up to 1970-01-01T00:00:05.000Z\n  out -> out.v2\n" in again
    diff = shop.ok("replay", "shop_replay", "--into", "v2", "--diff", "out", "--json").json[0]
    assert (diff["same"], diff["changed"]) == (0, 2)
    assert {"kind": "changed", "key": "a", "before": 6, "after": 12} in diff["samples"]
    shown = shop.ok("replay", "shop_replay", "--into", "v2", "--diff", "out", "--tolerance", "0.5").out
    assert shown.splitlines()[0] == "out: 2 same, 0 changed, 0 missing, 0 new"
    assert shop.ok("replay", "shop_replay", "--into", "v2", "--discard").out == "replay shop.v2 is discarded\n"
    assert "out.v2" not in shop.ok("topics", "list").out


def test_it_is_promoted_and_undone(shop: Command) -> None:
    words = ["replay", "shop_replay", "--into", "v2"]
    assert shop(*words, "--promote").code == 1
    shop.ok(*words)
    assert shop.ok(*words, "--promote").out == "replay shop.v2 is promoted\n"
    assert shop.ok("tail", "out", "--json", "--value-type", "int").json[-1]["value"] in {12, 17}
    assert "out.before-v2" in shop.ok("topics", "list").out
    assert shop.ok("run", "shop_replay", "--until", "end").out.startswith("shop: 0 records in")
    assert shop(*words, "--discard").code == 1
    assert shop.ok(*words, "--undo", "--json").json == [{"undone": "shop.v2"}]
    assert shop.ok("tail", "out", "--json", "--value-type", "int").json[-1]["value"] in {6, 9}


def test_it_is_promoted_with_some_left_and_for_good(shop: Command) -> None:
    words = ["replay", "shop_replay", "--into", "v2"]
    shop.ok(*words)
    with Log.open(shop.log) as opened, opened.producer() as producer:
        producer.send("in", bytes(8), key=b"a", timestamp_ms=7_000)
    refused = shop(*words, "--promote")
    assert (refused.code, "1 records of its input are left" in refused.err) == (1, True)
    shop.ok(*words, "--promote", "--behind", "1")
    assert shop(*words, "--behind", "1").code == 2
    assert shop.ok(*words, "--diff", "out", "--json").json[0]["changed"] == 2
    assert shop.ok(*words, "--drop-old", "--json").json == [{"old_dropped": "shop.v2"}]
    assert "out.before-v2" not in shop.ok("topics", "list").out
    assert shop(*words, "--undo").code == 1
    assert shop.ok("run", "shop_replay", "--until", "end").out.startswith("shop: 1 records in")
    assert shop.ok("reset", "shop_replay", "--execute").code == 0
    assert shop.ok("run", "shop_replay", "--until", "end").out.startswith("shop: 7 records in")


def test_since_and_until(shop: Command) -> None:
    words = ["--since", "1970-01-01T00:00:01", "--until", "1970-01-01T00:00:03Z"]
    assert shop.ok("replay", "shop_replay", "--into", "part", *words, "--json").json[0]["records_in"] == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--since", "yesterday"], 2, "--since wants a time such as"),
        (["--diff", "in"], 1, "does not write 'in'"),
        (["--diff", "out"], 3, "there is no topic 'out.v2' yet"),
        (["--diff", "out", "--discard"], 2, "give one of them"),
        (["--to-time", "1970-01-01"], 2, "give --into NAME for a replay, or --to-time"),
    ],
)
def test_what_cannot_be_is_refused(shop: Command, words: list[str], code: int, told: str) -> None:
    found = shop("replay", "shop_replay", "--into", "v2", *words)
    assert (found.code, told in found.err) == (code, True), found


def test_a_table_as_it_was(shop: Command) -> None:
    words = ["replay", "shop_replay", "--to-time", "1970-01-01T00:00:03", "--store", "totals"]
    with Log.open(shop.log):  # it needs no lock
        assert shop.ok(*words, "--json").json in ([], [{"key": "b", "value": 4}])
        assert shop("replay", "shop_replay", "--to-time", "1970-01-01", "--store", "total").code == 1
        later = ["replay", "shop_replay", "--to-time", "1970-01-02", "--store", "totals"]
        assert shop.ok(*later, "--json").json == [{"key": "a", "value": 6}, {"key": "b", "value": 9}]
        assert shop.ok(*later).out.split() == ["key", "value", "a", "6", "b", "9"]
