"""A reset app comes to what one that never ran before would come to, and a reset that is broken off is finished."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace.errors import InvalidError, LogLockedError, TopologyError
from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.streams.reprocessing.reset import internal_topics
from tailrace.tests.support.programs import BEGIN_MS, arrivals, chunks, click_app, last, plain_count, results, send

CLICKS = arrivals(2_000, disorder_ms=4_000)
P0, P1 = TopicPartition("clicks", 0), TopicPartition("clicks", 1)
INTERNAL = {"counter-clicks-changelog", "counter-(click.product)-repartition"}


@pytest.fixture
def log(tmp_path: Path) -> Any:
    """Two thirds of the clicks, counted, and the last third not read yet."""
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=2)
        first, second, third = chunks(CLICKS, 3)
        send(log, [*first, *second])
        click_app(log).run(until="end")
        send(log, third)
        yield log


def test_from_the_beginning_it_comes_to_the_same(log: Log, tmp_path: Path) -> None:
    app = click_app(log)
    ends = log.offsets("counts")
    plan = app.reset()
    before = log.committed("counter")
    assert not plan.done
    assert plan.offsets == {P0: 0, P1: 0}
    assert [name for name in plan.deleted if "/" not in name] == internal_topics(log, "counter")
    assert {Path(name).name for name in plan.deleted if "/" in name} == {"1_0", "1_1"}
    assert plan.stays == ["clicks", "counts", "late"]
    assert log.committed("counter") == before, "a plan changes nothing"
    assert (tmp_path / "log/state/counter/1_0").is_dir()

    done = app.reset(dry_run=False)
    assert (done.done, done.offsets, done.deleted) == (True, plan.offsets, plan.deleted)
    assert log.committed("counter") == {P0: 0, P1: 0}
    assert not any(Path(name).exists() for name in plan.deleted)
    assert internal_topics(log, "counter") == []
    assert log.offsets("counts") == ends, "outputs stay"
    summary = app.run(until="end")
    assert summary.records_in == len(CLICKS)
    assert last(log) == plain_count(CLICKS)


@pytest.mark.parametrize(
    ("to", "reads"),
    [
        ("latest", 0),
        (BEGIN_MS + 30_000, None),
        (datetime.fromtimestamp((BEGIN_MS + 30_000) / 1000, UTC), None),
        (timedelta(seconds=20), None),
        ({P0: 5, P1: 7}, -12),
        ({("clicks", 0): 5}, None),
        (BEGIN_MS * 2, 0),
    ],
)
def test_to(log: Log, to: Any, reads: int | None) -> None:
    app = click_app(log)
    app.clock = ManualClock(BEGIN_MS + 50_000)
    plan = app.reset(to=to, dry_run=False)
    if isinstance(to, timedelta | datetime) or to == BEGIN_MS + 30_000:
        assert plan.offsets == log.offsets("clicks", BEGIN_MS + 30_000)
    elif to == "latest":
        assert plan.offsets == log.offsets("clicks")
    elif isinstance(to, dict):
        assert plan.offsets == to
    left = sum(end - log.committed("counter")[each] for each, end in log.offsets("clicks").items())
    if reads is not None:
        assert left == (reads if reads >= 0 else len(CLICKS) + reads)
    assert app.run(until="end").records_in == left


def test_a_partition_without_an_offset_stays_where_it_is(log: Log) -> None:
    before = log.committed("counter")[P1]
    plan = click_app(log).reset(to={P0: 3}, dry_run=False)
    assert plan.offsets == {P0: 3}
    assert {each: log.committed("counter")[each] for each in (P0, P1)} == {P0: 3, P1: before}


@pytest.mark.parametrize(
    ("to", "error", "told"),
    [
        ({P0: 10**9}, InvalidError, r"there is no offset 1000000000 in clicks-0: it has 0 to \d+"),
        ({P0: -1}, InvalidError, "there is no offset -1 in clicks-0"),
        ({TopicPartition("clicks", 9): 0}, InvalidError, "does not read clicks-9.*it reads clicks-0, clicks-1"),
        ({TopicPartition("counts", 0): 0}, InvalidError, "does not read counts-0"),
        ({}, ValueError, "names no partition"),
        ({P0: "3"}, TypeError, "the offset for clicks-0 is an int, not '3'"),
        ("begin", ValueError, "earliest"),
        (datetime(2026, 11, 21), ValueError, "no time zone"),
        (timedelta(seconds=-1), ValueError, "below 0"),
        (None, TypeError, "instant"),
    ],
)
def test_a_place_that_is_not_there_is_refused(log: Log, to: Any, error: type[Exception], told: str) -> None:
    before = log.committed("counter")
    with pytest.raises(error, match=told):
        click_app(log).reset(to=to, dry_run=False)
    assert log.committed("counter") == before


def test_offsets_that_were_deleted_do_not_exist(log: Log) -> None:
    log.delete_records({P0: 10})
    with pytest.raises(InvalidError, match="there is no offset 9 in clicks-0: it has 10 to"):
        click_app(log).reset(to={P0: 9})
    assert click_app(log).reset(to="earliest").offsets == {P0: 10, P1: 0}


async def test_an_app_that_runs_is_left_alone(log: Log) -> None:
    async with click_app(log).running():
        plan = click_app(log).reset()
        member = log.describe_group("counter").members[0].member
        assert plan.members == [member]
        assert member in str(plan)
        with pytest.raises(InvalidError, match=f"app 'counter' runs now, as {member}: stop it first"):
            click_app(log).reset(dry_run=False)
    assert internal_topics(log, "counter") != []
    assert click_app(log).reset(dry_run=False).done


def test_a_plan_needs_no_lock_and_a_reset_does(log: Log, tmp_path: Path) -> None:
    beside = click_app(str(tmp_path / "log"))
    assert beside.reset().offsets == {P0: 0, P1: 0}
    with pytest.raises(LogLockedError):
        beside.reset(dry_run=False)


def test_what_the_app_reads_of_its_own_goes_on_at_its_end() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer() as producer:
            producer.send_many("in", [b"1", b"2"], keys=[b"a", b"b"])
        app = App("twice", log=log)
        between = app.topic("between", key=str, value=str)
        app.stream(app.topic("in", key=str, value=str)).through(between).to(app.topic("out", key=str, value=str))
        app.run(until="end")
        plan = app.reset(dry_run=False)
        assert plan.offsets == {TopicPartition("in", 0): 0, **log.offsets("between")}
        app.run(until="end")
        assert len(results(log, "out")) == 4, "each again once, not what was there before, too"


def test_the_topics_of_an_app_with_a_longer_name_stay(log: Log) -> None:
    log.create_topic("counter-eu-clicks-changelog", internal=True)
    log.commit_offsets("counter-eu", {P0: CommittedOffset(0)})
    log.create_topic("counter-mine-changelog")
    click_app(log).reset(dry_run=False)
    assert {"counter-eu-clicks-changelog", "counter-mine-changelog"} <= set(log.topics(internal=True))
    log.create_topic("counter-old-changelog", internal=True)
    assert click_app(log).reset().deleted == ["counter-old-changelog"], "of a store that the app has no more"


def test_a_missing_input_is_named_with_its_line() -> None:
    with (
        Log.open("memory:") as log,
        pytest.raises(TopologyError, match=r"no topic 'clicks'.*read at .*programs\.py:\d+"),
    ):
        click_app(log).reset()


class _BrokenError(Exception):
    pass


@pytest.mark.parametrize("number", range(5))
def test_one_that_is_broken_off_anywhere_is_seen_and_finished(
    log: Log, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call to the log or the disk is the last one: the next start refuses, or the reset never began."""
    calls = 0

    def counted(f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            if calls == number:
                raise _BrokenError
            calls += 1
            return f(*arguments, **named)

        return call

    before = log.committed("counter")
    with monkeypatch.context() as patch:
        for owner, name in (
            (log, "commit_offsets"),
            (log, "delete_topic"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        if number < 4:
            with pytest.raises(_BrokenError):
                click_app(log).reset(dry_run=False)
        else:
            assert click_app(log).reset(dry_run=False).done
    if number == 0:
        assert log.committed("counter") == before
        assert click_app(log).run(until="end").records_in == len(chunks(CLICKS, 3)[2])
        return
    if number < 4:
        for _ in range(2):
            with pytest.raises(TopologyError, match="a reset of app 'counter' was broken off"):
                click_app(log).run(until="end")
        assert click_app(log).reset(dry_run=False).done
    click_app(log).run(until="end")
    assert last(log) == plain_count(CLICKS)


def test_a_plan_for_a_person(log: Log) -> None:
    text = str(click_app(log).reset(to={P0: 3}))
    assert text.splitlines()[:3] == [
        "reset of app 'counter': a plan, nothing was changed",
        "moves:",
        f"  clicks-0  {log.committed('counter')[P0]} -> 3",
    ]
    assert "to be deleted:" in text
    assert "  counter-clicks-changelog" in text
    assert "stays as it is:\n  clicks\n  counts\n  late" in text
    assert "runs now" not in text
