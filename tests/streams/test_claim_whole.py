"""The claim of docs/design.md, "Time", at its size: 400,000 clicks by user, counted by product, each of them once.

Four partitions, up to 5 s out of order, 5 s of grace; as a backlog, in batches of one and of 10,000, by one member and
by two, over restarts, and live, where disorder and the distance of the partitions stay within the grace. And where some
are late in their own partition, in one or four, just these are in `.late`, and in no count. Products
follow Zipf's law, users are uniform, as in the input that others were measured with. The whole grid at full size is run
by `make kills`; here a part of it is, and with fewer clicks where each is a batch of its own.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import cache
from itertools import accumulate

import pytest
from msgspec.json import encode
from msgspec.structs import replace

from tailrace.log.client import Log
from tailrace.log.errors import TaskError
from tailrace.log.partitioner import partition_of
from tailrace.log.record import TopicPartition
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import BEGIN_MS, Click, chunks, click_app, last, plain_count, send
from tailrace.tests.support.waiting import until

PARTITIONS = 4
HOUR_MS = 3_600_000
COUNT = 400_000
TOPIC = "counter-clicks-repartition"


@cache
def made(count: int, disorder_ms: int, span_ms: int = HOUR_MS) -> list[Click]:
    """Clicks in the order in which they come."""
    chance = random.Random(1)
    weights = list(accumulate(1.0 / rank for rank in range(1, 1_001)))
    products = [f"p{number}" for number in chance.choices(range(1_000), cum_weights=weights, k=count)]
    times = (BEGIN_MS + each * span_ms // count for each in range(count))
    return [
        Click(product, f"u{int(chance.random() * 100_000)}", max(BEGIN_MS, at - int(chance.random() * disorder_ms)))
        for product, at in zip(products, times, strict=True)
    ]


@cache
def wanted(count: int, disorder_ms: int, span_ms: int = HOUR_MS) -> Counter[str]:
    return plain_count(made(count, disorder_ms, span_ms))


class Killed:
    """A look at each click that ends its app now and then."""

    def __init__(self, every: int) -> None:
        self._left = self._every = every

    def __call__(self, _click: Click) -> bool:
        self._left -= 1
        if self._left == 0:
            self._every *= 2
            self._left = self._every
            raise ValueError("killed")
        return True


async def run_members(log: Log, members: int, look: Killed | None) -> Counter[str]:
    """Runs so many side by side to the end of the backlog; who is killed starts again. Returns what was dropped."""

    def run() -> Counter[str]:
        while True:
            app = click_app(log, look=look)
            try:
                return Counter(app.run(until="end").dropped)
            except TaskError:  # killed
                continue

    dropped = Counter[str]()
    for each in await asyncio.gather(*(asyncio.to_thread(run) for _ in range(members))):
        dropped.update(each)
    return dropped


async def backlog(count: int, batch: int, members: int, *, killed: bool, partitions: int = PARTITIONS) -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        await asyncio.to_thread(send, log, made(count, 5_000), batch=batch)
        assert not await run_members(log, members, Killed(count // 20) if killed else None)
        assert log.committed("counter").items() >= log.offsets("clicks").items()
        assert any(log.offsets(TOPIC).values()) == (members > 1), "who is alone writes nothing between its tasks"
        assert last(log) == wanted(count, 5_000)
        assert not any(log.offsets("late").values())


def told_apart(clicks: Sequence[Click], partitions: int) -> tuple[list[Click], list[Click]]:
    """Those in time and those that are late, by what each partition had shown before."""
    origins = [0] * partitions
    in_time: list[Click] = []
    late: list[Click] = []
    for click in clicks:
        partition = partition_of(click.user.encode(), partitions)
        origin = origins[partition] = max(origins[partition], click.ts)
        closes = click.ts - click.ts % 60_000 + 60_000 + 5_000
        (late if closes <= origin else in_time).append(click)
    return in_time, late


async def some_late(count: int, batch: int, partitions: int, members: int, *, killed: bool) -> None:
    """One click in fifty comes up to three minutes after its time."""
    chance = random.Random(2)
    clicks = [
        replace(click, ts=max(BEGIN_MS, click.ts - chance.randrange(180_000))) if number % 50 == 0 else click
        for number, click in enumerate(made(count, 5_000))
    ]
    in_time, late = told_apart(clicks, partitions)
    assert len(late) > count // 200
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=partitions)
        await asyncio.to_thread(send, log, clicks, batch=batch)
        dropped = await run_members(log, members, Killed(count // 10) if killed else None)
        assert last(log) == plain_count(in_time)
        found = Counter(((record.key or b"").decode(), record.value) for record in contents(log, "late"))
        assert found == Counter((click.product, encode(click)) for click in late)
        assert killed or dropped == {"late": len(late)}


async def live(count: int, batch: int, members: int, span_ms: int) -> None:
    """Partitions are up to 3 s out of order, and apart by what is sent at once, which is 1.5 s."""
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=PARTITIONS)
        clicks = made(count, 3_000, span_ms)
        apps = [click_app(log, commit_interval=timedelta(milliseconds=20)) for _ in range(members)]
        async with AsyncExitStack() as stack:
            for app in apps:
                await stack.enter_async_context(app.running())
            await until(lambda: all(each.partitions for each in log.describe_group("counter").members))
            for part in chunks(clicks, span_ms // 1_500):
                await asyncio.to_thread(send, log, part, batch=batch)
            await until(lambda: log.committed("counter").items() >= all_ends(log).items(), max(20, count / 1_000))
            summaries = [app.summary() for app in apps]
            assert not any(each.dropped for each in summaries if each is not None)
        assert last(log) == wanted(count, 3_000, span_ms)
        assert not any(log.offsets("late").values())


def all_ends(log: Log) -> dict[TopicPartition, int]:
    return log.offsets("clicks") | {each: end for each, end in log.offsets(TOPIC).items() if end}


@pytest.mark.parametrize("members", [1, 2])
async def test_a_backlog(members: int) -> None:
    await backlog(COUNT, 10_000, members, killed=members == 2)


@pytest.mark.parametrize(("members", "killed"), [(1, True), (2, False), (2, True)])
async def test_a_backlog_in_batches_of_one(members: int, killed: bool) -> None:
    await backlog(10_000, 1, members, killed=killed)


@pytest.mark.parametrize("batch", [1, 10_000])
async def test_live(batch: int) -> None:
    await live(10_000, batch, 2, HOUR_MS // 10)


@pytest.mark.parametrize(
    ("batch", "partitions", "members", "killed"),
    [(1, 4, 2, True), (10_000, 4, 2, False), (10_000, 1, 1, True), (1, 1, 2, False), (1, 4, 1, False)],
)
async def test_what_is_late_is_in_late_and_nothing_else(
    batch: int, partitions: int, members: int, killed: bool
) -> None:
    await some_late(10_000, batch, partitions, members, killed=killed)


@pytest.mark.kills
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("batch", [1, 10_000])
@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_backlog_at_full_size(partitions: int, batch: int, members: int, killed: bool) -> None:
    await backlog(COUNT, batch, members, killed=killed, partitions=partitions)
    if batch > 1:
        await some_late(COUNT, batch, partitions, members, killed=killed)


@pytest.mark.kills
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("batch", [1, 10_000])
async def test_live_at_full_size(batch: int, members: int) -> None:
    await live(COUNT, batch, members, HOUR_MS)
