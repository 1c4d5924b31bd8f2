"""A disk that fails or is full under a running app: a clear error, and the next run goes on where there is room."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tailrace.log.client import Log
from tailrace.log.disk import disk_full
from tailrace.log.errors import DiskFullError
from tailrace.streams import runner
from tailrace.streams.running import patience
from tailrace.tests.support.disk import FaultyDisk
from tailrace.tests.support.programs import arrivals, click_app, last, plain_count, send

CLICKS = arrivals(5_000, disorder_ms=5_000, step_ms=100)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def log(disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setattr(runner, "_SLICE", 100)
    monkeypatch.setattr(runner, "_DIRTY_MAX", 30)
    monkeypatch.setattr(patience, "GIVE_UP_S", 0)
    with Log.open("memory:", disk=disk) as opened:
        opened.create_topic("clicks", partitions=4)
        send(opened, CLICKS)
        yield opened


def check(log: Log) -> None:
    click_app(log).run(until="end")
    assert last(log) == plain_count(CLICKS)


@pytest.mark.parametrize("room", [0, 100, 1_000, 10_000, 20_000, 40_000])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on_when_there_is_room(
    room: int, disk: FaultyDisk, log: Log
) -> None:
    disk.capacity = disk.used() + room
    for _ in range(2):
        with pytest.raises(DiskFullError, match="no room on the disk"):
            click_app(log).run(until="end")
    disk.capacity = None
    check(log)


@pytest.mark.parametrize("room", [1_000, 20_000, 60_000])
def test_a_full_disk_stops_a_replay_which_goes_on_when_there_is_room(room: int, disk: FaultyDisk, log: Log) -> None:
    click_app(log).run(until="end")
    disk.capacity = disk.used() + room
    with click_app(log).replay(into="v2") as job:
        for _ in range(2):
            with pytest.raises(DiskFullError, match="no room on the disk"):
                job.run()
        disk.capacity = None
        job.run()
    assert last(log, "counts.v2") == last(log) == plain_count(CLICKS)


async def test_a_full_disk_under_a_live_app(disk: FaultyDisk, log: Log) -> None:
    async def block() -> None:
        async with click_app(log, commit_interval=timedelta(milliseconds=2)).running():
            await asyncio.sleep(60)

    disk.fail("append", disk_full("it"), path="counts-2")
    with pytest.raises(DiskFullError):
        await block()
    check(log)


@pytest.mark.parametrize("at", range(1, 14, 3))
@pytest.mark.parametrize("part", ["counts-", "counter-clicks-changelog-", "__consumer_offsets-"])
def test_a_write_that_fails_once_ends_the_run_and_the_next_one_goes_on(
    part: str, at: int, disk: FaultyDisk, log: Log
) -> None:
    click_app(log).run(until="end")
    more = arrivals(2_000, disorder_ms=5_000, seed=at, step_ms=100)
    moved = [click.__class__(click.product, click.user, click.ts + 3_600_000) for click in more]
    send(log, moved)
    for _ in range(at - 1):
        disk.fail("append", disk_full(part), path=part)
    ran = 0
    while True:
        try:
            click_app(log).run(until="end")
            break
        except DiskFullError:
            ran += 1
    assert ran >= (at > 1)
    assert last(log) == plain_count([*CLICKS, *moved])
