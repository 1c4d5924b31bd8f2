"""`tailrace demo`."""

import os
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tailrace.cli import demo as demo_module
from tailrace.cli.clicks import DISORDER_MS, MINUTE_MS, START_MS, Counts, clicks
from tailrace.examples.click_counts import Click
from tailrace.log.client import Log
from tailrace.tests.support.command import Command


def test_it_counts_and_checks_itself(tailrace: Command) -> None:
    found = tailrace.ok("demo", "--events", "5000", "--json").json[0]
    assert found["counted"] == found["events"] == 5000
    assert (found["dropped"], found["wrong"]) == (0, 0)
    assert next(iter(found["busiest"])) == "p0"
    assert len(tailrace.rows("clicks")) == 5000
    said = tailrace.ok("demo", "--events", "2000", "--seed", "2").out  # again, in the same place
    assert "every count equals a plain count" in said
    assert f"tailrace --log {tailrace.log} tail click-counts-output" in said
    assert len(tailrace.rows("clicks")) == 2000


def test_it_runs_in_memory(tailrace: Command) -> None:
    tailrace.log = "memory:"
    assert tailrace.ok("demo", "--events", "1000", "--json").json[0]["counted"] == 1000


def test_it_clears_away_what_cannot_be_opened(tailrace: Command) -> None:
    """As a disk leaves it that became full, or a demo that was killed while it cleared."""
    tailrace.ok("demo", "--events", "10")
    for file in Path(tailrace.log).glob("clicks-*/*.log"):
        file.write_bytes(b"\xff" * 100)
    (Path(tailrace.log) / "meta.properties").unlink()
    assert tailrace.ok("demo", "--events", "20", "--json").json[0]["counted"] == 20


def test_one_that_is_in_use_is_left_alone(tailrace: Command) -> None:
    tailrace.ok("demo", "--events", "10")
    with Log.open(tailrace.log):
        found = tailrace("demo", "--events", "10")
    assert found.code == 5
    assert f"process {os.getpid()} works on {tailrace.log}" in found.err
    assert len(tailrace.rows("clicks")) == 10


def test_other_peoples_folders_are_left_alone(tailrace: Command) -> None:
    Path(tailrace.log).mkdir()
    (Path(tailrace.log) / "letter.txt").write_text("Dear", encoding="utf-8")
    assert tailrace("demo", "--events", "10").code == 1
    assert [each.name for each in Path(tailrace.log).iterdir()] == ["letter.txt"]


def test_it_overwrites_nothing_but_its_own(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "precious")
    found = tailrace("demo", "--events", "10")
    assert found.code == 1
    assert "was not made by the demo" in found.err
    assert "precious" in tailrace.ok("topics", "list").out


def test_it_leaves_a_log_in_use_alone(tailrace: Command) -> None:
    tailrace.ok("demo", "--events", "10")
    with Log.open(tailrace.log):
        assert tailrace("demo", "--events", "10").code == 5
    assert len(tailrace.rows("clicks")) == 10


def test_a_wrong_count_is_an_error(tailrace: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def miscounted(count: int, seed: int, counts: Counts) -> object:
        yield from clicks(count, seed, counts)
        counts["p0", START_MS] += 1

    monkeypatch.setattr(demo_module, "clicks", miscounted)
    found = tailrace("demo", "--events", "100")
    assert found.code == 1
    assert "1 of " in found.err


def test_clicks_are_the_same_for_a_seed_and_in_bounds(tmp_path: Path) -> None:
    counts: Counts = Counter()
    first = list(clicks(30_000, 1, counts))
    assert first == list(clicks(30_000, 1, Counter()))
    assert first != list(clicks(30_000, 2, Counter()))
    decoded = [msgspec.json.decode(value, type=Click) for chunk in first for value in chunk.values]
    assert len(decoded) == counts.total() == 30_000
    assert Counter((click.product_id, click.ts - click.ts % MINUTE_MS) for click in decoded) == counts
    newest = START_MS
    for click in decoded:
        assert click.ts >= newest - DISORDER_MS
        newest = max(newest, click.ts)
    assert newest < START_MS + 3_600_000
