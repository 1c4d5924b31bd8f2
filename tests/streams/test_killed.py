"""An app as a process that is ended: killed at any moment it takes each record once, asked to stop it commits first."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from msgspec import json

from tailrace.log.checking.verify import verify
from tailrace.log.client import Log
from tailrace.log.disk import RealDisk
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import Click, arrivals, click_app, last, plain_count, send
from tailrace.tests.support.source import ROOT

CLICKS = arrivals(20_000, disorder_ms=5_000)


def start(log: Path, slow: float = 0.0, members: int = 1) -> "subprocess.Popen[str]":
    link = ROOT / ".dev" if (ROOT / ".dev").exists() else ROOT.parent
    environment = dict(os.environ, PYTHONPATH=str(link), SLOW=str(slow), MEMBERS=str(members))
    command = [sys.executable, "-m", "tailrace.tests.support.counting", str(log)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    said = process.stdout.readline().strip()
    assert said == line, said + process.stderr.read()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=4)
        send(log, CLICKS)
    return tmp_path / "log"


def taken(log: Log) -> int:
    """How many clicks are."""
    return sum(offset for partition, offset in log.committed("counter").items() if partition.topic == "clicks")


def waiting(log: Log) -> bool:
    """Whether rows wait between tasks."""
    committed = log.committed("counter")
    return any(committed.get(each, 0) < end for each, end in log.offsets("counter-clicks-repartition").items())


def kill(directory: Path, clicks: list[Click], kills: int, seed: int, members: int = 1) -> None:
    """Kills the app again and again, lets it finish, and looks at every click."""
    chance = random.Random(seed)
    for _ in range(kills):
        with start(directory, slow=0.0001, members=members) as process:
            wait_for(process, "running")
            time.sleep(chance.uniform(0, min(20.0 * len(clicks) / kills / 100_000, 1.0)))
            process.kill()
        report = verify(RealDisk(), str(directory))
        assert report.ok, report.damage
    with Log.open(str(directory)) as log:
        assert taken(log) < len(clicks), "it was not killed at work"
    with start(directory, members=members) as process:
        wait_for(process, "running")
        with Log.open(str(directory), read_only=True) as log:
            end = time.monotonic() + 120
            while taken(log) < len(clicks) or waiting(log):
                assert time.monotonic() < end
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert verify(RealDisk(), str(directory)).ok
    with Log.open(str(directory)) as log:
        assert last(log) == plain_count(clicks)
        copies = Counter(int(json.decode(record.value or b"{}")["ts"]) for record in contents(log, "copies"))
    assert copies == Counter(click.ts for click in clicks), "each click was copied once"


@pytest.mark.parametrize("members", [1, 2])
def test_killed_again_and_again_it_takes_each_record_once(members: int, directory: Path) -> None:
    kill(directory, CLICKS, 4, seed=11, members=members)


@pytest.mark.kills
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("members", [1, 2])
def test_killed_fifty_times_over_half_a_million_clicks(members: int, tmp_path: Path) -> None:
    clicks = arrivals(500_000, disorder_ms=5_000)
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=4)
        send(log, clicks)
    kill(tmp_path / "log", clicks, 50, seed=int(os.environ.get("SEED", "1")), members=members)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [True, False])
def test_asked_to_stop_it_commits_and_ends_well(number: int, busy: bool, directory: Path) -> None:
    with start(directory, slow=0.0001 if busy else 0) as process:
        wait_for(process, "running")
        if not busy:
            # Read-only beside it: everything is read, and it waits for more.
            with Log.open(str(directory), read_only=True) as log:
                end = time.monotonic() + 20
                while sum(log.committed("counter").values()) < len(CLICKS):
                    assert time.monotonic() < end
                    time.sleep(0.01)
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert out.startswith(f"stopped by {number} after ")
    done = int(out.split()[-1])
    with Log.open(str(directory)) as log:
        assert sum(log.committed("counter").values()) == done
        assert (done < len(CLICKS)) == busy
        assert click_app(log).run(until="end").records_in == len(CLICKS) - done
        assert last(log) == plain_count(CLICKS), "stopped cleanly, nothing is counted twice"


def test_a_second_interrupt_does_not_wait(directory: Path) -> None:
    with start(directory, slow=60) as process:
        wait_for(process, "running")
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    with Log.open(str(directory)) as log:
        click_app(log).run(until="end")
        assert last(log) == plain_count(CLICKS)
