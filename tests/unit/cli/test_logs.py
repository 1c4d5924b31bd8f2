"""`tailrace log verify` and `tailrace log dump`."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import SystemClock
from tailrace.log.disk import RealDisk
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.streams.app import App
from tailrace.tests.support.command import Command
from tailrace.tests.support.transactions import ended, sent


@pytest.fixture
def clicks(tailrace: Command) -> Command:
    """The command, on a topic of one partition with two batches."""
    with Log.open(tailrace.log) as log:
        log.create_topic("clicks")
        with log.producer(compression="gzip") as producer:
            producer.send("clicks", b"v0", key=b"k", timestamp_ms=1, headers=[("h", b"x")]).result()
            producer.send("clicks", b"\xff", timestamp_ms=2)
    return tailrace


def segment(command: Command) -> Path:
    return next((Path(command.log) / "clicks-0").glob("*.log"))


def test_dump_prints_each_batch_with_its_records(clicks: Command) -> None:
    first, second = clicks.ok("log", "dump", str(segment(clicks)), "--json").json
    assert (first["file"], first["base_offset"], first["count"]) == (str(segment(clicks)), 0, 1)
    assert (first["crc_ok"], first["compression"]) == (True, "gzip")
    assert first["records"] == [{"offset": 0, "timestamp_ms": 1, "key": "k", "value": "v0", "headers": [["h", "x"]]}]
    assert second["records"][0]["value"] == {"base64": "/w=="}
    assert "records" not in clicks.ok("log", "dump", str(segment(clicks).parent), "--json", "--no-records").json[0]
    assert [row for row in clicks.ok("log", "dump", "--json").json if row["file"] == str(segment(clicks))] == [
        first,
        second,
    ]
    assert "  0  1970-01-01T00:00:00.001Z  k  v0  h=x\n" in clicks.ok("log", "dump", str(segment(clicks))).out


def test_transactions_are_shown(tailrace: Command) -> None:
    with Log.open(tailrace.log) as log:
        log.create_topic("clicks")
    folder = Path(tailrace.log) / "clicks-0"
    partition = Partition.open(RealDisk(), SystemClock(), str(folder), TopicPartition("clicks", 0), TopicConfig())
    partition.append(sent(b"a", sequence=0))
    ended(partition, committed=False)
    partition.append(sent(b"b", producer=8, sequence=0))
    partition.close()
    assert "control, abort, producer 7/0" in tailrace.ok("log", "dump", str(folder)).out
    shown = tailrace.ok("log", "dump", str(folder / "00000000000000000003.snapshot")).out.splitlines()
    assert [line.split("  ")[1] for line in shown] == ["producer_id=7", "producer_id=8"]
    assert "last_offset=1" in tailrace.ok("log", "dump", str(folder / "00000000000000000000.txnindex")).out
    out = tailrace.ok("log", "verify", str(folder)).out
    assert "with 0 transactions that were committed in a partition, 1 aborted, 1 open\n" in out
    assert "has an open transaction: producer 8" in out


def test_verify_says_what_it_checked(clicks: Command) -> None:
    report = clicks.ok("log", "verify", "--json").json[0]
    assert (report["ok"], report["path"]) == (True, clicks.log)
    assert report["records"] >= 2
    assert clicks.ok("log", "verify", str(segment(clicks))).out.endswith("nothing is damaged\n")


def test_verify_beside_a_writer(clicks: Command) -> None:
    with Log.open(clicks.log):
        assert "in use by process" in clicks.ok("log", "verify").out


def test_a_flipped_bit_is_corrupt(clicks: Command) -> None:
    path = segment(clicks)
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    found = clicks("log", "verify", "--json")
    assert found.code == 4
    assert found.json[0]["damage"][0]["file"] == str(path)
    assert found.err.count("\n") == 1
    assert clicks("log", "verify").out.startswith(f"damaged: {path} at byte 0: expected crc ")
    found = clicks("log", "dump", str(path), "--json")
    assert found.code == 4
    assert [(row["crc_ok"], len(row["records"])) for row in found.json] == [(False, 0), (True, 1)]


def test_what_is_no_log_is_told(clicks: Command, tmp_path: Path) -> None:
    assert clicks("log", "verify", str(tmp_path / "nowhere")).code == 3
    assert clicks("log", "dump", str(tmp_path / "nowhere")).code == 3
    (tmp_path / "empty").mkdir()
    assert clicks("log", "verify", str(tmp_path / "empty")).code == 1
    (tmp_path / "other" / "looks-like-one-1").mkdir(parents=True)
    assert clicks("log", "verify", str(tmp_path / "other")).code == 3


def test_after_a_kill_what_was_acknowledged_is_there(clicks: Command) -> None:
    """Lines go in one by one, until the process is killed while it waits for more of them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tailrace", "--log", clicks.log, "send", "clicks"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(b'{"n":%d}\n' % number for number in range(1_000)))
    process.stdin.flush()
    while len(clicks.rows("clicks")) < 1_002:
        assert process.poll() is None
    process.stdin.write(b'{"n":-1}\n' * 10)
    process.stdin.flush()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    clicks.ok("log", "verify")
    clicks.ok("topics", "create", "other")  # a writer opens it again: recovery
    clicks.ok("log", "verify")
    numbers = [json.loads(row["value"])["n"] for row in clicks.rows("clicks")[2:]]
    assert numbers[:1_000] == list(range(1_000))


def test_a_cluster_id_that_was_changed_is_told_by_the_state_of_apps(clicks: Command) -> None:
    with Log.open(clicks.log) as log:
        app = App("counter", log=log)
        counts = app.stream(app.topic("clicks", key=str, value=bytes)).group_by_key().count(store="n")
        counts.to(app.topic("counts", key=str, value=int))
        app.run(until="end")
        cluster_id = log.cluster_id
    assert "nothing is damaged" in clicks.ok("log", "verify").out
    assert clicks.ok("log", "verify", "--json").json[0]["notes"] == []
    file = Path(clicks.log) / "meta.properties"
    other = cluster_id.swapcase()
    file.write_text(file.read_text().replace(cluster_id, other))
    (note,) = clicks.ok("log", "verify", "--json").json[0]["notes"]
    assert re.search(rf"state/counter is of an app on the log {cluster_id}, and this is the log {other}, as .*", note)
    file.write_text(file.read_text().replace(other, "it"))
    assert "expected a line cluster.id=, with 22 characters of base64" in clicks("log", "verify").out
