"""`tailrace send`."""

import gzip
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tailrace.cli.session import Session
from tailrace.log.client import Delivery, FetchedBatch, Log
from tailrace.log.clients.producer import EmbeddedProducer
from tailrace.log.errors import DiskFullError
from tailrace.log.record import RawRecord
from tailrace.tests.support.command import Command
from tailrace.tests.support.disk import FaultyDisk

LINES = [f'{{"user":"u{number % 7}","n":{number},"at":{1000 + number}}}' for number in range(500)]


@pytest.fixture
def clicks(tailrace: Command) -> Command:
    """The command, with a topic `clicks` of three partitions."""
    tailrace.ok("topics", "create", "clicks", "--partitions", "3")
    return tailrace


def write(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder / name)


def values(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["value"] for row in rows)


def test_a_file_is_sent_line_by_line(clicks: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "clicks.ndjson", "\n".join(LINES).encode())
    summary = clicks.ok("send", "clicks", path, "--key", "user", "--timestamp", "at", "--json").json[0]
    assert summary["acknowledged"] == summary["records"] == len(LINES)
    assert summary["bytes"] == sum(map(len, LINES))
    assert summary["complete"] is True
    rows = clicks.rows("clicks")
    assert values(rows) == sorted(LINES)
    assert {row["key"] for row in rows} == {f"u{number}" for number in range(7)}
    assert {row["timestamp_ms"] for row in rows} == set(range(1000, 1500))
    assert len({(row["key"], row["partition"]) for row in rows}) == 7  # a key stays in one partition


def test_gzip_and_stdin(clicks: Command, tmp_path: Path) -> None:
    data = "\n".join(LINES).encode()
    clicks.ok("send", "clicks", write(tmp_path, "a.ndjson.gz", data))
    clicks.ok("send", "clicks", "-", stdin=data)
    clicks.ok("send", "clicks", stdin=gzip.compress(data))
    assert values(clicks.rows("clicks")) == sorted(LINES * 3)


def test_csv_rows_arrive_as_objects(clicks: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "shop.csv.gz", b'id,name\n1,"a\nb"\n2,\n')
    assert "2 records" in clicks.ok("send", "clicks", path, "--key", "id").out
    assert values(clicks.rows("clicks")) == ['{"id":"1","name":"a\\nb"}', '{"id":"2","name":""}']


def test_raw_lines_arrive_as_they_are(clicks: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "access.log", b"GET /\n\n{half")
    clicks.ok("send", "clicks", path)
    assert values(clicks.rows("clicks")) == ["", "GET /", "{half"]


def test_a_bad_line_is_named_and_what_came_before_is_there(clicks: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "bad.ndjson", "\n".join([*LINES[:10], "oops", *LINES[10:]]).encode())
    found = clicks("send", "clicks", path, "--json")
    assert found.code == 1
    assert f"{path}:11: " in found.err
    assert found.json[0]["acknowledged"] == 10
    assert found.json[0]["complete"] is False
    assert values(clicks.rows("clicks")) == sorted(LINES[:10])


@pytest.mark.parametrize(
    ("data", "line", "key"), [('{"k":"a"}\n{"k":"b"}\n\n{"n":1}\n{"k":"c"}', 4, ["--key", "k"]), ("{}", 1, [])]
)
def test_a_line_without_a_key_is_named_where_every_record_needs_one(
    tailrace: Command, tmp_path: Path, data: str, line: int, key: list[str]
) -> None:
    tailrace.ok("topics", "create", "rates", "--config", "cleanup.policy=compact")
    path = write(tmp_path, "rates.ndjson", data.encode())
    found = tailrace("send", "rates", path, *key, "--json")
    assert found.code == 1
    assert f"{path}:{line}: it has no key, and rates is compacted" in found.err
    assert found.json[0]["acknowledged"] == len(tailrace.rows("rates")) == max(line - 2, 0)


def test_a_value_that_is_too_large_is_named_by_its_record(clicks: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "big.txt", b"a\nb\n" + b"x" * 2_000_000 + b"\nc\n")
    found = clicks("send", "clicks", path, "--json")
    assert found.code == 1
    assert "record 3 of" in found.err
    assert "max.message.bytes" in found.err
    assert found.json[0]["acknowledged"] == 2


def test_a_missing_topic_is_not_created(clicks: Command, tmp_path: Path) -> None:
    found = clicks("send", "click", write(tmp_path, "a.ndjson", b"{}"))
    assert found.code == 3
    assert "'clicks'" in found.err
    assert "tailrace topics create click" in found.err
    assert clicks.ok("topics", "list", "--json").json == [[{"name": "clicks", "partitions": 3, "records": 0}]]


def test_what_cannot_be_read_ends_with_its_code(clicks: Command, tmp_path: Path) -> None:
    assert clicks("send", "clicks", str(tmp_path / "nowhere.csv")).code == 3
    assert clicks("send", "clicks", str(tmp_path)).code == 1
    assert clicks("send", "clicks", write(tmp_path, "a.csv", b"a,b\n1,2\n"), "--key", "c").code == 2
    assert clicks("send", "clicks", write(tmp_path, "a.txt", b"a\n"), "--key", "c").code == 2
    assert clicks("send", "clicks", "-", "--format", "xml").code == 2


def test_ctrl_c_finishes_the_batch_at_hand(clicks: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while a batch is sent: it is sent whole, flushed and counted, and nothing more is read."""
    send_many = EmbeddedProducer.send_many

    def interrupted(self: EmbeddedProducer, *arguments: Any, **options: Any) -> Delivery:
        os.kill(os.getpid(), signal.SIGINT)
        return send_many(self, *arguments, **options)

    monkeypatch.setattr(EmbeddedProducer, "send_many", interrupted)
    found = clicks("send", "clicks", "--json", stdin="\n".join(LINES).encode())
    assert found.code == 130
    assert found.err == ""
    sent = found.json[0]["acknowledged"]
    assert 0 < sent < len(LINES)  # one block of stdin
    assert values(clicks.rows("clicks")) == sorted(LINES[:sent])


def test_a_live_pipe_is_acknowledged_before_it_ends(clicks: Command) -> None:
    """Ctrl-C while it waits for input: what came is in the topic, and the process ends with 130."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tailrace", "--log", clicks.log, "send", "clicks", "--json"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b'{"n":1}\n{"n":2}\n{"n":')
    process.stdin.flush()
    while len(clicks.rows("clicks")) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert b'"acknowledged":2' in out
    assert values(clicks.rows("clicks")) == ['{"n":1}', '{"n":2}']


@pytest.mark.parametrize("partitions", [1, 3])
def test_on_a_full_disk_it_stops_and_tells_how_far_it_came(
    tailrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """Going on from the line that it names, every line is in the topic; those told as later ones twice."""
    disk = disk_of_the_command(monkeypatch)
    with Log.open("memory:", disk=disk) as log:
        log.create_topic("t", partitions=partitions)
    lines = [b'{"n":%d,"k":"%d"}' % (number, number % 10) for number in range(60_000)]
    path = write(tmp_path, "lines.ndjson", b"\n\n".join(lines))
    disk.capacity = disk.used() + 1_000_000
    found = tailrace("send", "t", path, "--key", "k", "--json")
    assert found.code == 1
    assert found.err.count("\n") == 1
    (told,) = found.json
    known, later = told["acknowledged"], told["later_records"]
    assert 0 < known < len(lines)
    assert told["next_line"] == 2 * known  # a blank line stands after each
    assert told["bytes"] == sum(map(len, lines[:known]))
    assert f"lines 1 to {2 * known - 1:,} of {path} are acknowledged" in found.err
    assert (f"and {later:,} records of later lines are in t too" in found.err) == (later > 0)
    assert later == 0 if partitions == 1 else later < 20_000
    disk.capacity = None
    rest = b"\n\n".join(lines).split(b"\n")[told["next_line"] - 1 :]
    assert tailrace("send", "t", "--key", "k", stdin=b"\n".join(rest)).code == 0
    with Log.open("memory:", disk=disk) as log, log.consumer() as consumer:
        consumer.assign(sorted(log.offsets("t")))
        stored = Counter(record.value for batch in iter(consumer.poll_batches, []) for record in batch_records(batch))
    assert set(stored) == set(lines)
    assert stored.total() == len(lines) + later


def disk_of_the_command(monkeypatch: pytest.MonkeyPatch) -> FaultyDisk:
    disk = FaultyDisk()

    def open_log(*_: object, **__: object) -> Log:
        return Log.open("memory:", disk=disk)

    monkeypatch.setattr(Session, "open_log", open_log)
    return disk


def batch_records(batches: list[FetchedBatch]) -> list[RawRecord]:
    return [record for batch in batches for record in batch.records]


def test_a_bad_line_on_a_full_disk_does_not_hide_how_far_it_came(
    tailrace: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disk_of_the_command(monkeypatch)
    with Log.open("memory:", disk=disk) as log:
        log.create_topic("t")
    disk.fail("append", DiskFullError("no room"), path="/t-0/00000000000000000000.log")
    found = tailrace("send", "t", "--json", stdin=b"{}\n{}\noops")
    assert found.code == 1
    assert (found.json[0]["acknowledged"], found.json[0]["next_line"]) == (0, 1)
    assert "nothing of stdin is acknowledged: go on from line 1" in found.err
