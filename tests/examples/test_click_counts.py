"""The main job, as a user would run it: topics, send, run, tail."""

from collections import Counter
from datetime import datetime
from pathlib import Path

from tailrace.cli.clicks import Counts, clicks
from tailrace.tests.support.command import Command


def test_counts_equal_a_plain_count(tailrace: Command, tmp_path: Path) -> None:
    plain: Counts = Counter()
    with (tmp_path / "clicks.ndjson").open("wb") as file:
        for chunk in clicks(20_000, 3, plain):
            file.writelines(value + b"\n" for value in chunk.values)
    tailrace.ok("topics", "create", "clicks", "--partitions", "4")
    tailrace.ok("send", "clicks", str(tmp_path / "clicks.ndjson"), "--key", "user_id")
    summary = tailrace.ok("run", "tailrace.examples.click_counts", "--until", "end", "--json").json[0]
    assert summary["records_in"] == 20_000
    assert sum(summary["dropped"].values()) == 0
    rows = tailrace.ok("tail", "click-counts-output", "--from", "earliest", "--json", "--value-type", "json").json
    newest = {
        (row["value"]["product_id"], round(datetime.fromisoformat(row["value"]["minute"]).timestamp() * 1000)): row[
            "value"
        ]["clicks"]
        for row in rows
    }
    assert newest == dict(plain)
    assert all(row["key"] == row["value"]["product_id"] for row in rows)
