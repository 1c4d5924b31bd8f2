"""Quakes in the order of their corrections, counted by the example and by a plain script: the same counts, and the very
same ones late."""

import gzip
import random
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from tailrace.tests.support.command import Command
from tailrace.tests.support.shared import shared_data

HOUR_MS = 3_600_000
SIZE_MS, GRACE_MS = 6 * HOUR_MS, 24 * HOUR_MS


def in_order_of_arrival(folder: Path) -> list[Any]:
    """Give the shared quakes, or 2,000 of our own over a week, corrected up to three days later."""
    quakes: list[Any] = []
    path = shared_data("iot/usgs_earthquakes.ndjson.gz")
    if path:
        quakes = [msgspec.json.decode(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    else:
        chance = random.Random(3)
        for number in range(2_000):
            time = 1_517_360_000_000 + chance.randrange(7 * 24 * HOUR_MS)
            updated = time + round(72 * HOUR_MS * chance.random() ** 3)
            told = {
                "net": chance.choice(["ci", "nc"]),
                "time": time,
                "updated": updated,
                "mag": chance.choice([None, 2]),
            }
            quakes.append({"id": f"q{number}", "properties": told})
    quakes.sort(key=lambda quake: (quake["properties"]["updated"], quake["id"]))
    (folder / "quakes.ndjson").write_bytes(b"".join(msgspec.json.encode(quake) + b"\n" for quake in quakes))
    return quakes


def by_hand(quakes: list[Any]) -> tuple[dict[tuple[str, int], tuple[int, Any]], set[str]]:
    """Count each closed window, and name the late ones."""
    found: dict[tuple[str, int], list[Any]] = defaultdict(list)
    late: set[str] = set()
    now = 0
    for quake in quakes:
        told = quake["properties"]
        now = max(now, told["time"])
        begin = told["time"] // SIZE_MS * SIZE_MS
        if begin + SIZE_MS + GRACE_MS <= now:
            late.add(quake["id"])
        else:
            found[told["net"], begin].append(told["mag"])
    closed = {key: mags for key, mags in found.items() if key[1] + SIZE_MS + GRACE_MS <= now}
    return {
        key: (len(mags), max((m for m in mags if m is not None), default=None)) for key, mags in closed.items()
    }, late


def test_counts_and_late_ones_equal_a_plain_script(tailrace: Command, tmp_path: Path) -> None:
    quakes = in_order_of_arrival(tmp_path)
    counts, late = by_hand(quakes)
    assert len(counts) > 20, "windows close"
    assert len(late) > 100, "and many quakes come later than that"
    tailrace.ok("topics", "create", "earthquakes")
    tailrace.ok("send", "earthquakes", str(tmp_path / "quakes.ndjson"))
    summary = tailrace.ok("run", "tailrace.examples.earthquakes", "--until", "end", "--json").json[0]
    assert summary["records_in"] == len(quakes)
    assert {reason: n for reason, n in summary["dropped"].items() if n} == {"late": len(late)}
    reports = tailrace.values("earthquakes-counted")
    found = [
        (
            (each["net"], round(datetime.fromisoformat(each["since"]).timestamp() * 1000)),
            each["quakes"],
            each["strongest"],
        )
        for each in reports
    ]
    assert sorted(found) == sorted((key, *result) for key, result in counts.items()), "each window once"
    assert sorted(row["id"] for row in tailrace.values("earthquakes-too-late")) == sorted(late)
