"""A replay, its promotion and the way back, as processes that are killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tailrace.log.checking.verify import verify
from tailrace.log.client import Log
from tailrace.log.disk import RealDisk
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import Click, arrivals, last, send
from tailrace.tests.support.replaying import RIGHT, program
from tailrace.tests.support.source import ROOT

CLICKS = arrivals(8_000, disorder_ms=5_000)
READERS = "readers"


def start(log: Path, step: str, slow: float = 0.0) -> "subprocess.Popen[str]":
    link = ROOT / ".dev" if (ROOT / ".dev").exists() else ROOT.parent
    environment = dict(os.environ, PYTHONPATH=str(link), SLOW=str(slow))
    command = [sys.executable, "-m", "tailrace.tests.support.replaying", str(log), step]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(log: Path, step: str, after_s: float, slow: float = 0.0) -> bool:
    """Whether it was killed before it had done its step."""
    with start(log, step, slow) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline().strip()
        assert said == "ready", said + process.stderr.read()
        time.sleep(after_s)
        process.kill()
        out, errors = process.communicate(timeout=60)
        assert process.returncode in {0, -signal.SIGKILL}, errors
    report = verify(RealDisk(), str(log))
    assert report.ok, report.damage
    return "done" not in out


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return counted(tmp_path / "log", CLICKS)


def counted(directory: Path, clicks: list[Click]) -> Path:
    """A log with clicks that the wrong program has counted, and a group that has read its counts."""
    with Log.open(str(directory)) as log:
        log.create_topic("clicks", partitions=3)
        send(log, clicks)
        program(log, 0).run(until="end")
        assert set(read(log)) == {0}
    return directory


def read(log: Log) -> list[int]:
    """Whose results the group reads further."""
    with log.consumer(group=READERS) as reader:
        reader.subscribe(["counts"])
        found = [record for some in iter(lambda: reader.poll(0), []) for record in some]
        reader.commit()
    return [whose(int.from_bytes(each.value or b"", "big")) for each in found]


def whose(result: int) -> int:
    """Where the program began that this is a result of."""
    return RIGHT if result >= RIGHT else 0


def replay_to_its_end(directory: Path, clicks: list[Click], kills: int, chance: random.Random) -> int:
    """Kills the replay again and again, has it come to its end, and looks at every click; returns how many found it."""
    at_work, done = 0, 0
    for _ in range(kills):
        at_work += killed(directory, "run", chance.uniform(0, 0.3), slow=0.0002)
        with Log.open(str(directory), read_only=True) as log:
            now = clicks_taken(log)
        assert now >= done, "it goes on where it was"
        done = now
    # Opened for writing: a transaction that was decided, and killed before its markers, is completed now.
    with Log.open(str(directory)) as log, program(log, RIGHT).replay(into="v2") as job:
        done = clicks_taken(log)
        assert job.run().records_in == len(clicks) - done
    with Log.open(str(directory)) as log:
        wanted = Counter(click.product for click in clicks)
        assert last(log, "counts.v2") == {product: RIGHT + count for product, count in wanted.items()}
        assert last(log, "counts") == wanted, "nothing of the live one"
        copies = Counter((each.key, each.value) for each in contents(log, "copies.v2"))
        assert copies == Counter((each.key, each.value) for each in contents(log, "clicks"))
    return at_work


def clicks_taken(log: Log) -> int:
    """How many clicks the replay has committed."""
    offsets = log.committed("shop.v2") if "shop.v2" in log.groups() else {}
    return sum(at for each, at in offsets.items() if each.topic == "clicks")


def switch_back_and_forth(directory: Path, steps: int, chance: random.Random) -> set[tuple[str, bool, bool]]:
    """Kills promotions and their undoing; whoever looks afterwards sees the one or the other, whole."""
    seen: set[tuple[str, bool, bool]] = set()
    for _ in range(steps):
        with Log.open(str(directory), read_only=True) as log:
            step = "undo" if log.switches() else "promote"
        was_killed = killed(directory, step, chance.uniform(0, 0.03))
        with Log.open(str(directory)) as log:
            new = log.switches() == ["shop.v2"]
            seen.add((step, was_killed, new == (step == "promote")))
            assert was_killed or new == (step == "promote"), "it had returned"
            begin = RIGHT if new else 0
            assert log.group_behind("shop") == ("shop.v2" if new else "shop")
            assert set(map(whose, last(log, "counts").values())) == {begin}
            assert ("counts.before-v2" in log.topics()) == new
            # Each side works on what is its own; the group reads that, and nothing of the other side.
            assert set(read(log)) <= {begin}
            send(log, [Click("p0", "u0", CLICKS[-1].ts + 60_000 + int(time.monotonic() * 1_000))])
            expected = sum(log.offsets("clicks").values()) - sum(
                at for each, at in log.committed("shop").items() if each.topic == "clicks"
            )
            assert program(log, begin).run(until="end").records_in == expected > 0
            assert set(read(log)) == {begin}
    return seen


def test_a_replay_that_is_killed_goes_on_where_it_was(directory: Path) -> None:
    replay_to_its_end(directory, CLICKS, 2, random.Random(5))


def test_promotions_that_are_killed_are_done_or_not(directory: Path) -> None:
    with Log.open(str(directory)) as log, program(log, RIGHT).replay(into="v2") as job:
        job.run()
    switch_back_and_forth(directory, 3, random.Random(7))


@pytest.mark.kills
@pytest.mark.timeout(1_800)
def test_killed_many_times(tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("SEED", "1")))
    clicks = arrivals(100_000, disorder_ms=5_000)
    directory = counted(tmp_path / "log", clicks)
    assert replay_to_its_end(directory, clicks, 25, chance) > 20
    seen = switch_back_and_forth(directory, 80, chance)
    assert {(step, True, done) for step in ("promote", "undo") for done in (False, True)} <= seen
