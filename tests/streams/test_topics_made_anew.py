"""Topics that are deleted, and perhaps made anew, or grow, under a running app or while it is stopped: told by name."""

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest

from tailrace import Context, Processor, Record, Store
from tailrace.log.broker import Broker
from tailrace.log.client import CommittedOffset, Log
from tailrace.log.errors import InvalidError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.runner import Runner
from tailrace.streams.running.summary import Summary
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.programs import last


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        opened.create_topic("in")
        yield opened


def counting(log: Log, meanwhile: Callable[[], None] = lambda: None) -> App:
    """Counts, and does something else when "now" comes along."""

    def look(value: str) -> None:
        if value == "now":
            meanwhile()

    app = App("app", log=log)
    stream = app.stream(app.topic("in", key=str, value=str)).peek(look)
    stream.group_by_key().count(store="n").changes().to(app.topic("out", key=str, value=int))
    return app


def some(*values: str) -> list[tuple[str, str, int]]:
    return [("k", value, at) for at, value in enumerate(values)]


@pytest.mark.parametrize("records", [0, 2, 9])
def test_an_input_made_anew_under_a_running_app_is_not_read_on(records: int, log: Log) -> None:
    def make_anew() -> None:
        log.delete_topic("in")
        log.create_topic("in")
        feed(log, "in", some(*["other"] * records))

    feed(log, "in", some("a", "b"))
    assert counting(log).run(until="end").records_in == 2
    feed(log, "in", some("c", "now"))
    with pytest.raises(
        InvalidError, match=r"'in' was deleted and made anew while app 'app' ran \(it is read at .*:\d+"
    ):
        counting(log, make_anew).run(until="end")
    assert last(log, "out") == {"k": 2}
    assert log.committed_offsets("app") == {}
    # The store counts what the topic before had; whoever wants that says where to begin.
    with pytest.raises(TopologyError, match=r"offsets of group 'app' are gone with topic 'in', which was .* made anew"):
        counting(log).run(until="end")


def test_an_input_that_is_gone_is_named(log: Log) -> None:
    feed(log, "in", some("a", "now", "b"))
    with pytest.raises(InvalidError, match=r"'in' was deleted while app 'app' ran"):
        counting(log, lambda: log.delete_topic("in")).run(until="end")
    assert contents(log, "out") == []


def test_a_changelog_deleted_under_a_running_app(log: Log) -> None:
    feed(log, "in", some("a", "now", "b"))
    with pytest.raises(InvalidError, match=r"'app-n-changelog' was deleted while .* \(it backs store 'n', at .*:\d+\)"):
        counting(log, lambda: log.delete_topic("app-n-changelog")).run(until="end")
    assert contents(log, "out") == []


@pytest.mark.parametrize("again", [False, True])
def test_an_output_topic_deleted_under_a_running_app(log: Log, *, again: bool) -> None:
    def delete() -> None:
        log.delete_topic("out")
        if again:
            log.create_topic("out")

    feed(log, "in", some("a"))
    counting(log).run(until="end")
    feed(log, "in", some("b", "now", "c"))
    with pytest.raises(
        InvalidError,
        match=rf"'out' was deleted {'and made anew ' if again else ''}while app 'app' ran \(it is written at "
        rf"{re.escape(__file__)}:\d+\).*start the app again",
    ):
        counting(log, delete).run(until="end")
    assert counting(log).run(until="end").records_in == 3
    assert last(log, "out") == {"k": 4}


def test_a_topic_of_dead_letters_deleted_under_a_running_app(log: Log) -> None:
    def delete() -> None:
        log.delete_topic("app-dead-letters")
        raise ValueError("no")

    feed(log, "in", some("a", "now", "b"))
    app = counting(log, delete)
    app.options = replace(app.options, on_error="dead_letter")
    with pytest.raises(
        InvalidError, match=r"'app-dead-letters' was deleted while app 'app' ran \(dead letters go to it"
    ):
        app.run(until="end")
    assert counting(log).run(until="end").records_in == 3


def choosing(log: Log, meanwhile: Callable[[], None] = lambda: None, **options: Any) -> App:
    """Sends each record to the topic that its value names; "now" does something else, and goes to "out"."""
    app = App("app", log=log, **options)
    topics = {name: app.topic(name, key=str, value=str) for name in ("out", "other", "in")}

    def look(value: str) -> None:
        if value == "now":
            meanwhile()

    app.stream(topics["in"]).peek(look).to(lambda _key, value: topics.get(value, topics["out"]))
    return app


CHOSEN = rf"\(it is chosen by the function of to\(\) at {re.escape(__file__)}:\d+\)"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("again", [False, True])
def test_a_topic_that_a_function_chose_deleted_under_a_running_app(log: Log, *, again: bool, threads: int) -> None:
    def delete() -> None:
        log.delete_topic("out")
        if again:
            log.create_topic("out")

    feed(log, "in", some("out", "other", "now", "out"))
    with pytest.raises(
        InvalidError, match=rf"'out' was deleted {'and made anew ' if again else ''}while app 'app' ran {CHOSEN}"
    ):
        choosing(log, delete, threads=threads).run(until="end")
    # None that it did not choose yet.
    choosing(log, lambda: log.create_topic("another"), threads=threads).run(until="end")
    assert len(contents(log, "out")) == 3


def test_a_topic_that_a_function_chose_deleted_while_the_app_was_stopped_is_told_once(
    kept: Log, caplog: pytest.LogCaptureFixture
) -> None:
    assert choosing(kept).run(until="end").records_out == 2
    kept.delete_topic("out")
    for value in ("other", "c", "d"):
        feed(kept, "in", some(value))
        choosing(kept).run(until="end")
    assert [record.value for record in contents(kept, "out")] == [b"c", b"d"]
    (told,) = caplog.messages
    assert re.search(rf"'out' was deleted since app 'app' ran last {CHOSEN}: .*`tailrace reset`", told)


def test_a_changelog_deleted_while_the_app_was_stopped(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("in")
        feed(log, "in", some("a", "b"))
        counting(log).run(until="end")
        log.delete_topic("app-n-changelog")
        feed(log, "in", some("c"))
        for _ in range(2):
            with pytest.raises(
                TopologyError, match=r"'app-n-changelog' was deleted since .* \(it backs store 'n', at .*:\d+"
            ):
                counting(log).run(until="end")
        assert last(log, "out") == {"k": 2}
        # The way out that the message names, but for the state: without its offsets the app begins anew.
        log.delete_group("app")
        assert counting(log).run(until="end").records_in == 3
        assert last(log, "out") == {"k": 3}


# ---------------------------------------------------------------- partitions that are added

GROWN = r"'in' got partitions, 2 after 1, while app 'app' ran \(it is read at .*:\d+\).*start the app again"


async def test_an_idle_app_whose_input_grows_ends_and_a_start_reads_it_all(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_TOPICS_S", 0)

    async def block() -> None:
        async with copying(log, "in").running():
            log.create_partitions("in", 2)
            await asyncio.Event().wait()

    with pytest.raises(InvalidError, match=GROWN):
        await asyncio.wait_for(block(), 60)
    feed(log, "in", some("a"), partition=1)
    assert copying(log, "in").run(until="end").records_in == 1


def test_nothing_is_committed_of_an_input_that_has_grown(log: Log) -> None:
    feed(log, "in", some("a", "now", "b"))
    with pytest.raises(InvalidError, match=GROWN):
        counting(log, lambda: log.create_partitions("in", 2)).run()
    assert contents(log, "out") == []
    with pytest.raises(TopologyError, match=r"'app-n-changelog' has 1 partitions, .* needs 2, as topic 'in' has 2"):
        counting(log).run(until="end")


def grow(log: Log, name: str) -> None:
    if log.describe_topic(name).partitions == 2:  # grown before
        return
    log.create_partitions(name, 2)
    feed(log, name, some("new"), partition=1)


def test_a_run_to_the_end_ends_where_its_inputs_did_and_leaves_new_partitions_to_the_next(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    app = App("app", log=log)
    stream = app.stream(app.topic("in", key=str, value=str))
    stream.peek(lambda value: grow(log, "in") if value == "now" else None).to(app.topic("out", key=str, value=str))
    feed(log, "in", some("a", "now", "b"))
    assert app.run(until="end").records_in == 3
    (told,) = caplog.messages
    assert re.search(r"'in' got partitions, 2 after 1, while app 'app' ran to the end .*\(it is read at .*:\d+", told)
    assert app.run(until="end").records_in == 1
    assert len(contents(log, "out")) == 4
    assert len(caplog.messages) == 1


def test_partitions_that_are_added_between_the_start_and_the_look_at_the_ends_are_left_too(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner.run

    def later(runner: Runner, *, until_end: bool) -> Summary:
        grow(log, "in")
        return run(runner, until_end=until_end)

    monkeypatch.setattr(Runner, "run", later)
    feed(log, "in", some("a", "b"))
    assert copying(log, "in").run(until="end").records_in == 2


def test_a_topic_that_the_app_writes_itself_may_not_grow_even_then(log: Log) -> None:
    app = App("app", log=log)
    between = app.topic("between", key=str, value=str)
    stream = app.stream(app.topic("in", key=str, value=str)).through(between)
    stream.peek(lambda value: grow(log, "between") if value == "now" else None).to(app.topic("out", key=str, value=str))
    feed(log, "in", some("a", "now", "b"))
    with pytest.raises(InvalidError, match=r"'between' got partitions, 2 after 1, while app 'app' ran"):
        app.run(until="end")
    assert app.run(until="end").records_in > 0


def test_a_run_to_the_end_with_state_ends_and_the_next_says_how_to_go_on(log: Log) -> None:
    feed(log, "in", some("a", "now", "b"))
    assert counting(log, lambda: grow(log, "in")).run(until="end").records_in == 3
    assert last(log, "out") == {"k": 3}
    with pytest.raises(TopologyError, match=r"'app-n-changelog' has 1 partitions, .* needs 2, as topic 'in' has 2"):
        counting(log).run(until="end")
    assert last(log, "out") == {"k": 3}


def grouped(log: Log) -> App:
    """By another key, in as many partitions as it began with."""
    app = App("app", log=log)
    stream = app.stream(app.topic("in", key=str, value=str))
    stream.group_by(str, partitions=1).count(store="n").changes().to(app.topic("out", key=str, value=int))
    return app


def test_a_grouping_with_partitions_of_its_own_goes_on_where_its_input_has_grown(log: Log) -> None:
    feed(log, "in", some("a", "b"))
    assert grouped(log).run(until="end").records_in == 2
    log.create_partitions("in", 3)
    feed(log, "in", some("a"), partition=2)
    assert grouped(log).run(until="end").records_in == 1
    assert last(log, "out") == {"a": 2, "b": 1}


def test_an_offset_that_something_else_has_committed_is_refused(log: Log) -> None:
    feed(log, "in", some("a", "b"))
    partition = TopicPartition("in", 0)
    log.commit_offsets("app", {partition: CommittedOffset(1, -1, "mine")})
    with pytest.raises(TopologyError, match=r"in-0: .* 'app' was .* 'mine' holds no clocks .*log.alter_offsets\('app'"):
        counting(log).run(until="end")
    log.alter_offsets("app", {partition: 1})
    assert counting(log).run(until="end").records_in == 1


# ---------------------------------------------------------------- while the app is stopped


def copying(log: Log, *names: str, reset: Literal["earliest", "latest"] = "earliest") -> App:
    app = App("app", log=log, reset=reset)
    topics = [app.topic(name, key=str, value=str) for name in names]
    app.stream(topics).to(app.topic("out", key=str, value=str))
    return app


def make_anew(log: Log, name: str, *values: str) -> None:
    log.delete_topic(name)
    log.create_topic(name)
    feed(log, name, some(*values))


@pytest.fixture(params=["memory:", "on disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """A log with the topics "in" and "more", of two records each."""
    with Log.open("memory:" if request.param == "memory:" else str(tmp_path / "log")) as opened:
        for name in ("in", "more"):
            opened.create_topic(name)
            feed(opened, name, some("a", "b"))
        yield opened


@pytest.mark.parametrize(("reset", "where", "count"), [("earliest", "beginning", 3), ("latest", "end", 0)])
def test_an_input_made_anew_while_the_app_was_stopped_is_told_and_read_as_reset_says(
    kept: Log, reset: Literal["earliest", "latest"], where: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    copying(kept, "in", "more").run(until="end")
    make_anew(kept, "more", "c", "d", "e")
    assert copying(kept, "in", "more", reset=reset).run(until="end").records_in == count
    (told,) = caplog.messages
    assert re.search(
        rf"'more' was deleted and made anew since app 'app' ran last \(it is read at {re.escape(__file__)}:\d+\).* its "
        rf"{where} \(reset='{reset}'\).*`tailrace reset`",
        told,
    )
    # Once.
    assert copying(kept, "in", "more", reset=reset).run(until="end").records_in == 0
    assert len(caplog.messages) == 1


def test_an_only_input_that_was_made_anew_is_told_too(kept: Log, caplog: pytest.LogCaptureFixture) -> None:
    copying(kept, "in").run(until="end")
    make_anew(kept, "in", "c")
    assert copying(kept, "in").run(until="end").records_in == 1
    assert ["'in' was deleted and made anew" in each for each in caplog.messages] == [True]


def test_who_has_said_where_to_go_on_in_the_new_one_is_told_nothing(
    kept: Log, caplog: pytest.LogCaptureFixture
) -> None:
    copying(kept, "in", "more").run(until="end")
    make_anew(kept, "more", "c", "d", "e")
    kept.alter_offsets("app", {TopicPartition("more", 0): 1})
    assert copying(kept, "in", "more").run(until="end").records_in == 2
    assert caplog.messages == []


def test_an_input_that_is_new_to_the_program_is_not_one_made_anew(kept: Log, caplog: pytest.LogCaptureFixture) -> None:
    copying(kept, "in").run(until="end")
    make_anew(kept, "more", "c")
    assert copying(kept, "in", "more").run(until="end").records_in == 1
    assert caplog.messages == []


def test_state_of_before_the_ids_were_kept_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("in")
        feed(log, "in", some("a", "b"))
        counting(log).run(until="end")
        file = tmp_path / "log" / "state" / "app" / "topics.properties"
        assert [line.split("=")[0] for line in file.read_text().splitlines()] == ["app-n-changelog", "in", "out"]
        file.unlink()
        feed(log, "in", some("c"))
        assert counting(log).run(until="end").records_in == 1
        assert last(log, "out") == {"k": 3}
        assert file.exists()
    assert caplog.messages == []


@pytest.mark.parametrize("again", [False, True])
def test_an_output_that_was_deleted_while_the_app_was_stopped_is_told_once(
    kept: Log, caplog: pytest.LogCaptureFixture, *, again: bool
) -> None:
    counting(kept).run(until="end")
    kept.delete_topic("out")
    if again:
        kept.create_topic("out")
    feed(kept, "in", some("c"))
    for _ in range(2):
        counting(kept).run(until="end")
    assert last(kept, "out") == {"k": 3}
    (told,) = caplog.messages
    assert re.search(
        rf"'out' was deleted since app 'app' ran last \(it is written at {re.escape(__file__)}:\d+\): .*"
        r"`tailrace reset`",
        told,
    )


def test_offsets_that_were_set_by_hand_are_told_once_where_stores_stay_as_they_are(
    kept: Log, caplog: pytest.LogCaptureFixture
) -> None:
    counting(kept).run(until="end")
    kept.alter_offsets("app", {TopicPartition("in", 0): 1})
    for _ in range(2):
        counting(kept).run(until="end")
    assert last(kept, "out") == {"k": 3}
    (told,) = caplog.messages
    assert re.search(
        r"of app 'app' in in-0 \(1\) were set since .* stores \(n\) .* counts twice .*`tailrace reset`", told
    )


def test_offsets_that_were_set_by_hand_are_fine_without_stores(kept: Log, caplog: pytest.LogCaptureFixture) -> None:
    copying(kept, "in").run(until="end")
    kept.alter_offsets("app", {TopicPartition("in", 0): 1})
    assert copying(kept, "in").run(until="end").records_in == 1
    assert caplog.messages == []


def close_all(log: Log) -> None:
    log.close()


def close_the_clients(log: Log) -> None:
    """As far as `close` has come when another thread sees that the clients are closed."""
    with patch.object(Broker, "close"):
        log.close()


@pytest.mark.parametrize("close", [close_all, close_the_clients])
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_a_log_that_is_closed_under_a_running_app_is_named(
    guarantee: Literal["exactly_once", "at_least_once"], close: Callable[[Log], None]
) -> None:
    log = Log.open("memory:")
    log.create_topic("in")
    feed(log, "in", some("a", "now", "b"))
    told = (
        r"the log was closed while app 'app' ran, so its next run goes on from its last commit: end the app first, "
        r"with app\.stop\(\) .* \(the log memory: is closed: open it again with Log\.open\)"
    )
    app = counting(log, lambda: close(log))
    app.options = replace(app.options, guarantee=guarantee)
    with pytest.raises(InvalidError, match=told):
        app.run(until="end")


def test_the_changelog_of_a_store_in_memory_deleted_while_the_app_was_stopped(kept: Log) -> None:
    class Count(Processor[str, str, str, int]):
        def init(self, ctx: Context[str, int]) -> None:
            self.values: Store[str, int] = ctx.store("n")

        def process(self, record: Record[str, str]) -> None:
            self.values.put(record.value, 1)

    def app() -> App:
        made = App("app", log=kept)
        store = made.store("n", key=str, value=int, kind="memory")
        made.stream(made.topic("in", key=str, value=str)).process(Count, stores=[store])
        return made

    assert app().run(until="end").records_in == 2
    kept.delete_topic("app-n-changelog")
    with pytest.raises(
        TopologyError, match=r"'app-n-changelog' was deleted since app 'app' ran last .*`tailrace reset`"
    ):
        app().run(until="end")
    # The way out that the message names.
    app().reset(dry_run=False)
    for count in (2, 0):
        assert app().run(until="end").records_in == count


def test_a_changelog_deleted_under_a_running_app_is_made_anew_by_a_reset(kept: Log) -> None:
    feed(kept, "in", some("now", "c"))
    with pytest.raises(InvalidError, match=r"'app-n-changelog' was deleted while .*begin anew, with `tailrace reset`"):
        counting(kept, lambda: kept.delete_topic("app-n-changelog")).run(until="end")
    with pytest.raises(TopologyError, match="'app-n-changelog' was deleted since"):  # to start again is no way
        counting(kept).run(until="end")
    counting(kept).reset(dry_run=False)
    assert counting(kept).run(until="end").records_in == 4
    assert last(kept, "out") == {"k": 4}
    assert counting(kept).run(until="end").records_in == 0


def test_a_changelog_cut_while_the_app_was_stopped_is_refused_until_a_reset(kept: Log) -> None:
    counting(kept).run(until="end")
    kept.alter_topic("app-n-changelog", {"cleanup.policy": "compact,delete"})
    shutil.rmtree(Path(kept.state_directory or "nowhere") / "app" / "0_0", ignore_errors=True)
    kept.delete_records({TopicPartition("app-n-changelog", 0): -1})
    with pytest.raises(TopologyError, match=r"app-n-changelog-0, begins at offset \d+: .* `tailrace reset`"):
        counting(kept).run(until="end")
    counting(kept).reset(dry_run=False)
    assert counting(kept).run(until="end").records_in == 2
    assert last(kept, "out") == {"k": 2}
