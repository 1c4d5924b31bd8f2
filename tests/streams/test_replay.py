"""A replay comes to what the live run came to, beside it, exactly once, and refuses what it cannot do whole."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace.errors import InvalidError, TaskError, TopologyError
from tailrace.log.client import CommittedOffset, Log
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.streams.running import reader
from tailrace.tests.support.programs import BEGIN_MS, arrivals, chunks, click_app, last, plain_count, results, send
from tailrace.tests.support.waiting import wait_until

CLICKS = arrivals(3_000, disorder_ms=4_000)
P0, P1 = TopicPartition("clicks", 0), TopicPartition("clicks", 1)
MINUTE_MS = 60_000


@pytest.fixture
def log(tmp_path: Path) -> Any:
    """All clicks, counted."""
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=2)
        send(log, CLICKS)
        click_app(log).run(until="end")
        yield log


@pytest.mark.parametrize("emit", ["update", "close"])
def test_the_same_program_comes_to_the_same_beside_the_live_one(tmp_path: Path, emit: Any) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=2)
        send(log, CLICKS)
        app = click_app(log, emit=emit)
        app.run(until="end")
        before = {name: log.offsets(name) for name in log.topics(internal=True) if not name.startswith("__")}
        with click_app(log, emit=emit).replay(into="v2") as job:
            summary = job.run()
            assert summary.records_in == len(CLICKS)
            assert job.outputs == {"counts": "counts.v2", "late": "late.v2"}
            found = job.diff(job.topic("counts"))
        assert last(log, "counts.v2") == last(log, "counts")
        assert (found.same, found.changed, found.missing, found.new) == (len(last(log)), 0, 0, 0)
        assert {name: log.offsets(name) for name in before} == before, "nothing of the live one is written"
        for group in ("counter", "counter.v2"):
            assert {each: log.committed(group)[each] for each in (P0, P1)} == log.offsets("clicks")
        assert log.describe_topic("counts.v2").partitions == log.describe_topic("counts").partitions


def test_it_goes_on_with_what_has_come_since(log: Log) -> None:
    more = arrivals(500, disorder_ms=1_000, seed=4)
    for each in more:
        each.ts += MINUTE_MS * 10
    with click_app(log).replay(into="v2") as job:
        job.run()
        send(log, more)
        assert job.progress().total - job.progress().records == job.left() == len(more)
        assert job.run().records_in == len(more)
        assert job.left() == 0
    assert last(log, "counts.v2") == plain_count([*CLICKS, *more])


def test_since_and_until(log: Log) -> None:
    clicks = sorted(CLICKS, key=lambda each: each.ts)
    log.create_topic("sorted")
    send(log, clicks, topic="sorted")
    since, until = BEGIN_MS + 20_000, BEGIN_MS + 70_000

    def app() -> App:
        made = App("sorted-counter", log=log)
        from_topic = made.topic("sorted", key=str, value=dict[str, Any])
        counted = made.stream(from_topic).group_by_key().count(store="users")
        counted.to(made.topic("users", key=str, value=int))
        return made

    app().run(until="end")
    wanted: dict[str, int] = {}
    for each in clicks:
        if since <= each.ts < until:
            wanted[each.user] = wanted.get(each.user, 0) + 1
    with app().replay(since=since, until=until, into="part") as job:
        assert job.run().records_in == sum(wanted.values())
        assert last(log, "users.part") == wanted
        assert job.run().records_in == 0, "the end is fixed"


def test_a_replay_that_failed_goes_on_where_it_was_exactly_once(log: Log) -> None:
    class Stop:
        after = 10**9

    def app() -> App:
        made = App("failing", log=log, commit_interval=timedelta(milliseconds=1))
        seen = 0

        def look(value: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen > Stop.after:
                raise ValueError("the power is gone")
            return value

        clicks = made.stream(made.topic("clicks", key=str, value=dict[str, Any]))
        clicks.map(look, value=dict[str, Any]).group_by_key().count(store="n").to(made.topic("n", key=str, value=int))
        return made

    app().run(until="end")
    Stop.after = 1_200
    for _ in range(2):  # each comes further than the one before, as commits come in between
        with app().replay(into="v2") as job, pytest.raises(TaskError):
            job.run()
    done = log.committed("failing.v2")
    assert 0 < sum(done.values()) < len(CLICKS)
    Stop.after = 10**9
    with app().replay(into="v2") as job:
        assert job.run().records_in == len(CLICKS) - sum(done.values())
        found = job.diff(job.topic("n"))
    assert (found.changed, found.missing, found.new) == (0, 0, 0)
    assert last(log, "n.v2") == last(log, "n")


def test_other_words_under_one_name_are_refused_until_it_is_discarded(log: Log) -> None:
    with click_app(log).replay(into="v2") as job:
        job.run()
    with (
        click_app(log).replay(into="v2", since=BEGIN_MS) as job,
        pytest.raises(InvalidError, match=r"'counter.v2' was begun with the input from the beginning.*discard\(\)"),
    ):
        job.run()
    other = App("counter", log=log)
    clicks = other.topic("clicks", key=str, value=dict[str, Any])
    other.stream(clicks).group_by_key().count(store="users").to(other.topic("counts", key=str, value=int))
    with other.replay(into="v2") as job:
        with pytest.raises(InvalidError, match="program"):
            job.run()
        committed = log.committed("counter")
        state = Path(log.state_directory or "")
        assert (state / "counter.v2").is_dir()
        job.discard()
        assert not any("v2" in name for name in [*log.topics(internal=True), *log.groups()])
        assert log.committed("counter") == committed
        assert [each.name for each in state.iterdir()] == ["counter"], "no folder is left, not even an empty one"
        job.discard()  # nothing is left
        assert job.run().records_in == len(CLICKS)
        job.discard()
        assert job.run().records_in == len(CLICKS), "with the same state as the one before"


def test_a_state_directory_of_another_log_is_not_discarded(log: Log, tmp_path: Path) -> None:
    def app(of: Log) -> App:
        made = App("counter", log=of, state_dir=str(tmp_path / "state"))
        clicks = made.topic("clicks", key=str, value=dict[str, Any])
        made.stream(clicks).group_by_key().count(store="users").to(made.topic("users", key=str, value=int))
        return made

    with app(log).replay(into="v2") as job:
        job.run()
    topics, files = log.topics(internal=True), sorted((tmp_path / "state").rglob("*"))
    with Log.open(str(tmp_path / "other")) as other:
        other.create_topic("clicks")
        with (
            app(other).replay(into="v2") as job,
            pytest.raises(InvalidError, match=r"belongs to app 'counter\.v2' on the"),
        ):
            job.discard()
    assert sorted((tmp_path / "state").rglob("*")) == files
    assert log.topics(internal=True) == topics


def test_what_has_a_replays_name_and_is_none_is_not_discarded(log: Log) -> None:
    other = App("counter.v2", log=log)
    clicks = other.topic("clicks", key=str, value=dict[str, Any])
    other.stream(clicks).group_by_key().count(store="users").to(other.topic("users", key=str, value=int))
    other.run(until="end")
    topics, committed = log.topics(internal=True), log.committed("counter.v2")
    with (
        click_app(log).replay(into="v2") as job,
        pytest.raises(
            InvalidError, match=r"'counter\.v2' is the name of a group.*none of a replay.*nothing was deleted"
        ),
    ):
        job.discard()
    assert log.topics(internal=True) == topics
    assert log.committed("counter.v2") == committed
    assert other.run(until="end").records_in == 0


def test_names_that_are_taken_are_left_alone(log: Log) -> None:
    log.create_topic("counts.v2")
    with (
        click_app(log).replay(into="v2") as job,
        pytest.raises(InvalidError, match=r"would write to 'counts\.v2', which is there already"),
    ):
        job.run()
    assert log.committed("counter.v2") == {}
    assert "counter.v2-replay" not in log.topics(internal=True)


def test_a_group_of_the_name_is_left_alone(log: Log) -> None:
    log.commit_offsets("counter.v2", {P0: CommittedOffset(7)})
    with click_app(log).replay(into="v2") as job, pytest.raises(InvalidError, match="a group of that name already"):
        job.run()
    assert log.committed("counter.v2") == {P0: 7}


def test_input_that_is_deleted_while_it_runs_is_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_FETCH_BYTES", 4_000)
    ran = 0

    def look(_click: Any) -> bool:
        nonlocal ran
        ran += 1
        if ran == 50:
            log.delete_records({P0: log.offsets("clicks")[P0] - 5})
        return True

    with click_app(log, look=look).replay(into="v2") as job:
        with pytest.raises(
            InvalidError, match=r"reads clicks-0 from offset \d+, and [\d,]+ records there \(.*\) were deleted by"
        ):
            job.run()
        with pytest.raises(InvalidError, match="were deleted by retention"):
            job.run()


def test_two_of_one_name(log: Log) -> None:
    with (
        click_app(log).replay(into="v2"),
        pytest.raises(InvalidError, match=r"there is a replay 'counter\.v2' at work"),
        click_app(log).replay(into="v2"),
    ):
        pass
    with click_app(log).replay(into="v2") as job, click_app(log).replay(into="v3") as other:
        assert job.run().records_in == other.run().records_in


def test_input_that_was_deleted_is_named(log: Log) -> None:
    log.delete_records({P0: 100})
    with log.consumer() as consumer:
        consumer.assign([P0])
        first_ms = consumer.poll(1, max_records=1)[0].timestamp_ms
    told = rf"reads clicks-0 from offset 0, and 100 records there \(0 to 99\) were deleted.*since={first_ms} replays"
    with click_app(log).replay(into="v2") as job, pytest.raises(InvalidError, match=told):
        job.run()
    with click_app(log).replay(into="v2", since=first_ms - 1) as job, pytest.raises(InvalidError, match="100 records"):
        job.run()
    with click_app(log).replay(into="v2", since=first_ms) as job:
        assert job.run().records_in > 0


def test_input_that_was_deleted_while_it_was_stopped(log: Log) -> None:
    with click_app(log).replay(into="v2") as job:
        job.run()
        send(log, CLICKS[:300])
        end = log.offsets("clicks")[P0]
        log.delete_records({P0: end})
        told = rf"reads clicks-0 from offset \d+, and \d+ records there \(\d+ to {end - 1}\) were deleted"
        with pytest.raises(InvalidError, match=told):
            job.run()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"since": 5, "until": 5}, "ends before it begins"),
        ({"since": 6, "until": 5}, "ends before it begins"),
        ({"until": "now"}, '"end", an aware datetime'),
        ({"into": ""}, "cannot be part of a name"),
        ({"into": "a.b"}, "cannot be part of a name"),
        ({"share": 0}, "share=0"),
    ],
)
def test_words_that_cannot_be(log: Log, words: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"into": "v2", **words}
    with pytest.raises(ValueError, match=told), click_app(log).replay(**given):
        pass


def test_a_missing_input_is_named_with_its_line() -> None:
    with (
        Log.open("memory:") as log,
        click_app(log).replay(into="v2") as job,
        pytest.raises(TopologyError, match=r"no topic 'clicks'.*read at .*programs\.py:\d+"),
    ):
        job.run()


def test_what_it_reads_of_its_own_is_its_own() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in", partitions=2)
        with log.producer() as producer:
            producer.send_many("in", [b"1", b"2"], keys=[b"a", b"b"])

        def app() -> App:
            made = App("twice", log=log)
            between = made.topic("between", key=str, value=str)
            outs = {name: made.topic(f"out-{name}", key=str, value=str) for name in "ab"}
            through = made.stream(made.topic("in", key=str, value=str)).through(between)
            through.to(lambda key, _value: outs[key])
            return made

        app().run(until="end")
        with app().replay(into="v2") as job:
            assert job.outputs == {"between": "between.v2"}
            job.run()
        for name in ("between", "out-a", "out-b"):
            assert results(log, f"{name}.v2") == results(log, name) != []
        with app().replay(into="v2") as job:
            job.discard()
        assert [name for name in log.topics() if "v2" in name] == []


async def test_the_live_app_runs_beside_it(log: Log) -> None:
    async with click_app(log).running():
        more = chunks(CLICKS, 3)[0]
        thread = threading.Thread(target=send, args=(log, more))
        thread.start()
        with click_app(log).replay(into="v2", share=0.9) as job:
            job.run()
            thread.join()
            job.run()
        wait_until(lambda: log.describe_group("counter").lag[P0] == log.describe_group("counter").lag[P1] == 0)
    assert last(log, "counts.v2") == last(log)


def test_progress(log: Log) -> None:
    with click_app(log).replay(into="v2") as job:
        before = job.progress()
        assert (before.records, before.total, before.share, before.seconds_left) == (0, len(CLICKS), 0.0, None)
        assert before.event_time_ms is None
        job.run()
        after = job.progress()
        assert (after.records, after.share) == (len(CLICKS), 1.0)
        highest = [max(each.ts for each in CLICKS if each.user in users) for users in _users(log)]
        assert after.event_time_ms == min(highest)


def _users(log: Log) -> list[set[str]]:
    with log.consumer() as consumer:
        found: list[set[str]] = []
        for partition, end in sorted(log.offsets("clicks").items()):
            consumer.assign([partition])
            users: set[str] = set()
            while consumer.position(partition) < end:
                users |= {(record.key or b"").decode() for record in consumer.poll(1)}
            found.append(users)
    return found
