"""The web server's log, counted by the example and by a plain script."""

import gzip
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tailrace.tests.support.command import Command
from tailrace.tests.support.shared import shared_data


def plain_count(path: Path) -> Counter[tuple[str, datetime]]:
    """Count as anyone would without a framework."""
    found: Counter[tuple[str, datetime]] = Counter()
    with gzip.open(path, "rt") as lines:
        for line in lines:
            at = datetime.strptime(line.split("[")[1].split("]")[0], "%d/%b/%Y:%H:%M:%S %z").replace(second=0)
            found[line.split('"')[1].split()[1], at] += 1
    return found


def generated(folder: Path) -> Path:
    """Make 2,000 lines, each up to 59 s late."""
    chance = random.Random(7)
    begin = datetime(2015, 5, 17, 10, tzinfo=UTC)
    lines: list[str] = []
    for number in range(2_000):
        at = begin + timedelta(seconds=number * 3 - chance.randrange(60))
        request = f"GET /page{chance.randrange(20)} HTTP/1.1"
        lines.append(f'1.2.3.4 - - [{at:%d/%b/%Y:%H:%M:%S %z}] "{request}" 200 17 "-" "agent"\n')
    with gzip.open(folder / "made.log.gz", "wt") as file:
        file.writelines(lines)
    return folder / "made.log.gz"


def count_with_tailrace(tailrace: Command, path: Path) -> tuple[dict[tuple[str, datetime], int], dict[str, int]]:
    tailrace.ok("topics", "create", "access-log")
    tailrace.ok("send", "access-log", str(path), "--format", "raw")
    summary = tailrace.ok("run", "tailrace.examples.apache_log", "--until", "end", "--json").json[0]
    rows = tailrace.ok("tail", "requests-per-minute", "--from", "earliest", "--json", "--value-type", "json").json
    newest = {
        (row["value"]["path"], datetime.fromisoformat(row["value"]["minute"])): row["value"]["requests"] for row in rows
    }
    return newest, summary["dropped"]


def test_counts_equal_a_plain_count(tailrace: Command, tmp_path: Path) -> None:
    path = shared_data("web/apache_combined.log.gz") or generated(tmp_path)
    counts, dropped = count_with_tailrace(tailrace, path)
    assert counts == dict(plain_count(path))
    assert sum(dropped.values()) == 0


def test_a_line_that_is_no_request_is_counted_as_dropped(tailrace: Command, tmp_path: Path) -> None:
    path = generated(tmp_path)
    broken = tmp_path / "broken.log"
    broken.write_bytes(gzip.decompress(path.read_bytes()) + b"no request at all\n\xff\n")
    counts, dropped = count_with_tailrace(tailrace, broken)
    assert counts == dict(plain_count(path))
    assert {reason: count for reason, count in dropped.items() if count} == {"bad_record": 2}
