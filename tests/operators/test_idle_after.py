"""idle_after=: wall time closes windows where the input is silent, and a replay comes to the same."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import App, Window, Windowed, hours, seconds, session, tumbling, unlimited, until_window_closes
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import ExpelledError, RetriableError, TopologyError
from tailrace.streams.running.member import PlanOverError
from tailrace.testing import TopologyDriver
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.tests.support.waiting import until
from tailrace.windows.duration import milliseconds as ms

MINUTE = tumbling(seconds(60))


def program(app: App, window: Window = MINUTE, *, rekeyed: bool = False, suppressed: bool = False) -> None:
    """Counts per key, or per value, closed after 10 s of silence; late records beside it."""
    stream = app.stream(app.topic("in", key=str, value=str))
    grouped = stream.group_by(lambda value: value) if rekeyed else stream.group_by_key()
    windows = grouped.windowed_by(window, idle_after=seconds(10))
    counts = windows.count(store="counts", emit="update" if suppressed else "close")
    if suppressed:
        counts = counts.suppress(until_window_closes(), store="held")
    counts.to(app.topic("out", key=Windowed[str], value=int))
    windows.late.to(app.topic("late", key=str, value=str))


def taken(driver: TopologyDriver) -> list[tuple[str, int, int]]:
    """Key, start and count of what is final since the last time."""
    return [(row.key.key, row.key.start_ms, row.value) for row in driver.read("out")]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("rekeyed", [False, True])
@pytest.mark.parametrize("suppressed", [False, True])
@pytest.mark.parametrize("cache", [False, True])
def test_a_window_closes_when_so_much_time_has_passed(
    partitions: int, rekeyed: bool, suppressed: bool, cache: bool
) -> None:
    app = App("app")
    program(app, rekeyed=rekeyed, suppressed=suppressed)
    with TopologyDriver(app, cache=cache, partitions=partitions, wall_clock_ms=10**12) as driver:
        driver.pipe("in", "a", key="a", timestamp_ms=5_000)
        driver.pipe("in", "a", key="a", timestamp_ms=15_000)
        driver.commit()
        driver.advance_wall_clock(ms(9_999))
        driver.advance_wall_clock(seconds(34))
        driver.commit()
        assert taken(driver) == []  # 15 s + 43.999 s
        driver.advance_wall_clock(seconds(10))
        driver.commit()
        driver.commit()
        assert taken(driver) == [("a", 0, 2)]
        driver.pipe("in", "a", key="a", timestamp_ms=20_000)
        driver.commit()
        assert (taken(driver), driver.dropped) == ([], {"late": 1})
        assert [row.value for row in driver.read("late")] == ["a"]


def test_nothing_is_written_where_nothing_waits() -> None:
    app = App("app")
    program(app)
    with TopologyDriver(app) as driver:
        driver.pipe("in", "a", key="a", timestamp_ms=0)
        for _ in range(20):
            driver.advance_wall_clock(seconds(10))
        driver.commit()
        # 10 s to 60 s; then the window was sent, and no other is open.
        assert [int.from_bytes(row.value or b"") for row in driver.read("app-in-silences")] == list(
            range(10_000, 60_001, 10_000)
        )
        driver.pipe("in", "a", key="a", timestamp_ms=61_000)
        assert driver.dropped == {}


def test_time_stands_still_without_it() -> None:
    app = App("app")
    counts = app.stream(app.topic("in", key=str, value=str)).group_by_key().windowed_by(tumbling(seconds(60)))
    counts.count(store="counts", emit="close").to(app.topic("out", key=Windowed[str], value=int))
    with TopologyDriver(app) as driver:
        driver.pipe("in", "a", key="a", timestamp_ms=0)
        driver.advance_wall_clock(hours(10))
        assert driver.read("out") == []
        assert "silences" not in str(app.describe())


def test_sessions_end_too() -> None:
    app = App("app")
    program(app, session(seconds(5)))
    with TopologyDriver(app) as driver:
        driver.pipe("in", "a", key="a", timestamp_ms=1_000)
        driver.pipe("in", "b", key="a", timestamp_ms=2_000)
        driver.advance_wall_clock(seconds(10))
        assert taken(driver) == [("a", 1_000, 2)]


async def test_a_running_app_wakes_up_for_it() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        app = App("app", log=log)
        counts = app.stream(app.topic("in", key=str, value=str)).group_by_key()
        windows = counts.windowed_by(tumbling(ms(30)), idle_after=ms(20))
        windows.count(store="counts", emit="close").to(app.topic("out", key=Windowed[str], value=int))
        async with app.running():
            feed(log, "in", [("a", "a", 5)])
            await until(lambda: len(contents(log, "out")) == 1)


# ---------------------------------------------------------------- a replay


Step = tuple[int, str, int] | int | str
"""Partition, key and by how much its time is behind the clock; how long nothing comes; "commit", "restart", "abort"."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 1), st.sampled_from("ab"), st.integers(0, 8_000)),
        st.integers(1, 90).map(lambda n: n * 1_000),
        st.sampled_from(["commit", "restart", "abort"]),
    ),
    min_size=1,
    max_size=16,
)
BEGIN_MS = 1_700_000_000_000
Results = tuple[Counter[tuple[str, int, int]], Counter[tuple[str, str, int]]]
"""Key, start and count of what is final; key, value and time of what is late."""


def made(log: Log, how: dict[str, Any]) -> App:
    app = App("app", log=log, cache_bytes=how.get("cache", 0))
    app.options = replace(app.options, hops=how.get("hops", "memory"))
    program(app, how["window"], rekeyed=how.get("rekeyed", False), suppressed=how.get("suppressed", False))
    return app


def results(log: Log, app: App, since: dict[str, int]) -> Results:
    """What came out from the offsets on that `ends` gave."""
    out, late = (next(topic for topic in app.graph.topics if topic.name == name) for name in ("out", "late"))
    rows = {
        name: [r for r in contents(log, name) if r.offset >= since.get(f"{name}-{r.partition}", 0)]
        for name in ("out", "late")
    }
    finals = [(key.key, key.start_ms, value) for key, value, _ in decoded(rows["out"], out)]
    return Counter(finals), Counter(decoded(rows["late"], late))


def ends(log: Log) -> dict[str, int]:
    return {str(each): end for name in ("out", "late") for each, end in log.offsets(name).items()}


def live(log: Log, clock: ManualClock, steps: list[Step], how: dict[str, Any]) -> None:
    """Runs it as things come."""
    run = Driven(made(log, how), log, clock)
    for step in steps:
        if step == "restart":
            run.commit()
            run.end()
            run = Driven(made(log, how), log, clock)
        elif step == "abort":
            run.again(RetriableError("an abort"))
        elif step == "commit":
            run.commit()
        elif isinstance(step, int):
            clock.advance(step // 3)
            run.run()
            clock.advance(step - step // 3)
        elif isinstance(step, tuple):
            partition, key, behind_ms = step
            feed(log, "in", [(key, key, clock.now_ms() - behind_ms)], partition)
        run.run()
    for _ in range(3):  # what goes through the log is read after the commit
        run.commit()
        run.run()
    run.end()


@settings(max_examples=50, deadline=None)
@given(
    STEPS,
    st.sampled_from([tumbling(seconds(20)), tumbling(seconds(20), grace=seconds(8)), session(seconds(9))]),
    st.booleans(),
    st.integers(0, 1),
)
def test_a_replay_comes_to_what_the_live_run_came_to(
    steps: list[Step], window: Window, suppressed: bool, cache: int
) -> None:
    how = {"window": window, "suppressed": suppressed, "cache": cache << 20}
    check_replay(steps, how, how | {"cache": (1 - cache) << 20})


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(["memory", "log"]), st.sampled_from(["memory", "log"]))
def test_and_so_behind_a_repartition(steps: list[Step], hops: str, hops_again: str) -> None:
    # Live, the grace must cover the disorder and how far partitions are apart: both up to 8 s.
    how = {"window": tumbling(seconds(20), grace=seconds(16)), "rekeyed": True, "hops": hops}
    first = check_replay(steps, how, how | {"hops": hops_again})
    assert first[1] == Counter()


def check_replay(steps: list[Step], how: dict[str, Any], again: dict[str, Any]) -> Results:
    clock = ManualClock(BEGIN_MS)
    with Log.open("memory:", clock=clock, background=False) as log:
        log.create_topic("in", partitions=2)
        live(log, clock, steps, how)
        before = results(log, made(log, how), {})
        since = ends(log)
        made(log, again).reset(dry_run=False)
        clock.advance(3_600_000)
        made(log, again).run(until="end")
        assert results(log, made(log, again), since) == before
    return before


@settings(max_examples=25, deadline=None)
@given(STEPS, st.booleans(), st.integers(0, 16))
def test_and_so_where_members_share_the_partitions(steps: list[Step], rekeyed: bool, leaves: int) -> None:
    """Two run from the beginning; one of them goes."""
    how = {"window": tumbling(seconds(20), grace=seconds(16)), "rekeyed": rekeyed}
    clock = ManualClock(BEGIN_MS)
    with Log.open("memory:", clock=clock, background=False) as log:
        log.create_topic("in", partitions=2)
        runs = [Driven(made(log, how), log, clock, number=number) for number in range(2)]
        for at, step in enumerate(steps):
            if isinstance(step, int):
                clock.advance(step)
            elif isinstance(step, tuple):
                feed(log, "in", [(step[1], step[1], clock.now_ms() - step[2])], step[0])
            if at == leaves:
                rounds(runs)
                runs.pop().end()
            rounds(runs)
        rounds(runs)
        for run in runs:
            run.end()
        before, since = results(log, made(log, how), {}), ends(log)
        made(log, how).reset(dry_run=False)
        made(log, how).run(until="end")
        assert results(log, made(log, how), since) == before


def rounds(runs: list[Driven]) -> None:
    """Until each has heard what the others have committed."""
    for _ in range(5):
        for run in runs:
            try:
                run.run()
                run.commit()
            except (RetriableError, ExpelledError, PlanOverError):
                run.again(RetriableError("other tasks, or another form of them"))


def test_a_replay_beside_the_app_takes_its_silences_along_and_is_discarded_with_them() -> None:
    clock = ManualClock(BEGIN_MS)
    steps: list[Step] = [(0, "a", 0), 90_000, (0, "a", 60_000), (1, "b", 0), 90_000]
    with Log.open("memory:", clock=clock) as log:
        log.create_topic("in", partitions=2)
        live(log, clock, steps, {"window": MINUTE})
        app = made(log, {"window": MINUTE})
        with app.replay(into="v2") as job:
            for _ in range(2):
                job.run()
                out, late = (job.diff(job.topic(name)) for name in ("out", "late"))
                assert (out.same, out.changed, out.missing, out.new) == (2, 0, 0, 0)
                assert (late.same, late.changed, late.missing, late.new) == (1, 0, 0, 0)
            job.discard()
        assert [name for name in log.topics(internal=True) if "v2" in name] == []
        assert "app-in-silences" in log.topics(internal=True)


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_is_refused_at_the_call() -> None:
    app = App("app")
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    with pytest.raises(ValueError, match=r"idle_after=0s\) is not positive"):
        grouped.windowed_by(tumbling(seconds(1)), idle_after=seconds(0))
    with pytest.raises(TypeError, match="not a timedelta"):
        grouped.windowed_by(tumbling(seconds(1)), idle_after=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match='leave idle_after= out, or take clock="task"'):
        grouped.windowed_by(tumbling(seconds(1)), clock="key", idle_after=seconds(1))
    with pytest.raises(ValueError, match=r"stream time closes none.*; leave idle_after= out$"):
        grouped.windowed_by(unlimited(), idle_after=seconds(1))


def test_the_topic_of_silences_is_the_apps_own() -> None:
    app = App("app")
    program(app)
    app.stream(app.topic("other", key=str, value=str)).to(app.topic("app-in-silences", key=str, value=str))
    with pytest.raises(TopologyError, match=r"app-in-silences.*is the app's own for the input at .*test_idle_after"):
        app.describe()
