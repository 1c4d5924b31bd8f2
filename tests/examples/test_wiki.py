"""Edits of Wikipedia, by three examples and by plain scripts: minutes, sessions, and tables that take back."""

import gzip
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailrace.tests.support.command import Command
from tailrace.tests.support.shared import shared_data

BEGIN = datetime(2015, 9, 12, 0, 49, tzinfo=UTC)
GRACE = timedelta(seconds=5)


def recording(folder: Path) -> Path:
    """Give the shared recording, or 5,000 edits of our own over three hours, one of them seven weeks ahead."""
    path = shared_data("wiki/wikiticker_am.ndjson.gz")
    if path:
        return path
    chance = random.Random(11)
    lines: list[bytes] = []
    for number in range(5_000):
        time = BEGIN + timedelta(seconds=number * 2, days=49 if number == 10 else 0)
        edit = {
            "time": f"{time:%Y-%m-%dT%H:%M:%S}.000Z",
            "channel": f"#{chance.choice(['en', 'de', 'vi'])}.wikipedia",
            "page": f"page {chance.randrange(300)}",
            "user": f"user {int(600 * chance.random() ** 3)}",
            "delta": chance.choice([None, chance.randrange(-50, 50)]),
        }
        lines.append(msgspec.json.encode(edit) + b"\n")
    with gzip.open(folder / "made.ndjson.gz", "wb") as file:
        file.writelines(lines)
    return folder / "made.ndjson.gz"


def of_the_day(path: Path) -> Iterator[tuple[datetime, Any]]:
    for edit in all_edits(path):
        at = datetime.fromisoformat(edit["time"])
        if at.date() == BEGIN.date():
            yield at, edit


def all_edits(path: Path) -> Iterator[Any]:
    with gzip.open(path) as lines:
        yield from map(msgspec.json.decode, lines)


def run(tailrace: Command, path: Path, example: str) -> None:
    tailrace.ok("topics", "create", "wiki-raw")
    tailrace.ok("send", "wiki-raw", str(path))
    summary = tailrace.ok("run", f"tailrace.examples.{example}", "--until", "end", "--json").json[0]
    assert sum(summary["dropped"].values()) == 0


def test_minutes(tailrace: Command, tmp_path: Path) -> None:
    path = recording(tmp_path)
    plain = Counter(
        (edit["channel"][1:].split(".")[0], at.replace(second=0, microsecond=0)) for at, edit in of_the_day(path)
    )
    last = max(at for at, _ in of_the_day(path))
    over = {key: n for key, n in plain.items() if key[1] + timedelta(minutes=1) + GRACE <= last}
    assert 0 < len(plain) - len(over) < len(plain)
    run(tailrace, path, "wiki_edits")
    rows = tailrace.values("edits-per-minute")
    found = [((row["language"], datetime.fromisoformat(row["minute"])), row["edits"]) for row in rows]
    assert sorted(found) == sorted(over.items()), "each minute once"


@pytest.mark.timeout(240)
def test_sessions(tailrace: Command, tmp_path: Path) -> None:
    path, gap = recording(tmp_path), timedelta(minutes=10)
    of_user: dict[str, list[tuple[datetime, Any]]] = defaultdict(list)
    for at, edit in of_the_day(path):
        of_user[edit["user"]].append((at, edit))
    last = max(at for edits in of_user.values() for at, _ in edits)
    plain: list[tuple[Any, ...]] = []
    for user, edits in of_user.items():
        for one in sessions(edits, gap):
            if one[-1][0] + gap + GRACE < last:
                pages = list(dict.fromkeys(edit["page"] for _, edit in one))
                plain.append((user, one[0][0], one[-1][0], len(one), sum(e["delta"] or 0 for _, e in one), pages))
    run(tailrace, path, "editing_sessions")
    rows = tailrace.values("editing-sessions")
    found = [
        (
            row["user"],
            datetime.fromisoformat(row["begin"]),
            datetime.fromisoformat(row["end"]),
            row["edits"],
            row["bytes_added"],
            row["pages"],
        )
        for row in rows
    ]
    assert sorted(found) == sorted(plain), "each session once"
    assert max(row["edits"] for row in rows) > 10


def sessions(edits: list[tuple[datetime, Any]], gap: timedelta) -> list[list[tuple[datetime, Any]]]:
    """Cut what comes in the order of time where it pauses."""
    cut = [[edits[0]]]
    for before, edit in pairwise(edits):
        if edit[0] - before[0] <= gap:
            cut[-1].append(edit)
        else:
            cut.append([edit])
    return cut


def test_pages_that_go_from_one_editor_to_the_next(tailrace: Command, tmp_path: Path) -> None:
    path = recording(tmp_path)
    holder = {(edit["channel"], edit["page"]): edit for edit in all_edits(path)}
    plain: dict[str, list[int]] = {edit["user"]: [0, 0] for edit in all_edits(path)}
    for edit in holder.values():
        plain[edit["user"]][0] += 1
        plain[edit["user"]][1] += edit["delta"] or 0
    assert sum(1 for pages, _ in plain.values() if pages == 0) > 0, "someone lost all that they had"
    run(tailrace, path, "last_editors")
    newest = {
        row["key"]: [row["value"]["pages"], row["value"]["added"]]
        for row in tailrace.rows("pages-held", "--value-type", "json")
    }
    # With the cache, who held a page between two commits alone is not heard of: their count stays what it was.
    assert {user: held for user, held in plain.items() if newest.get(user, [0, 0]) != held} == {}
    assert newest.keys() <= plain.keys()
