"""What a run finds of the runs before it: stores on disk, changelogs, offsets; and what it refuses."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.clients.producer import EmbeddedProducer
from tailrace.log.clients.transactional import TransactionalProducer
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import TopologyError
from tailrace.state.rocksdb import RocksBackend
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.tests.support.engine import feed
from tailrace.tests.support.programs import Click, arrivals, chunks, click_app, last, plain_count, results, send

CLICKS = arrivals(6_000, disorder_ms=5_000, step_ms=100)


def read_back(app: App) -> dict[str, int]:
    """Has the app note how many offsets of its changelogs each store reads at the start."""
    read: dict[str, int] = {}

    def progress(store: str) -> Callable[[int, int], None]:
        def note(_done: int, total: int) -> None:
            read[store] = total

        return note

    app.on_restore = progress
    return read


def open_with_clicks(path: Path) -> Log:
    log = Log.open(str(path / "log"))
    log.create_topic("clicks", partitions=4)
    return log


@pytest.mark.parametrize("own_folder", [False, True])
def test_a_state_directory_is_used_again(tmp_path: Path, own_folder: bool) -> None:
    options: dict[str, Any] = {"state_dir": str(tmp_path / "mine")} if own_folder else {}
    with open_with_clicks(tmp_path) as log:
        for part in chunks(CLICKS, 3):
            send(log, part)
            app = click_app(log, **options)
            read = read_back(app)
            app.run(until="end")
            # At most the marker of the last commit.
            assert set(read.values()) <= {0, 1}
            assert len(read) == 4
        assert last(log) == plain_count(CLICKS)
    assert (tmp_path / ("mine" if own_folder else "log/state") / "counter").is_dir()


def changelog_size(log: Log) -> int:
    """How many offsets of it are there to be read."""
    ends, starts = (log.offsets("counter-clicks-changelog", at) for at in ("latest", "earliest"))
    return sum(ends.values()) - sum(starts.values())


def test_a_compacted_changelog_gives_the_same_state(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        read: dict[str, int] = {}
        for number, part in enumerate(chunks(CLICKS, 12)):
            send(log, part)
            shutil.rmtree(tmp_path / "log" / "state", ignore_errors=True)
            app = click_app(log)
            read = read_back(app)
            app.run(until="end")
            if number == 0:
                log.alter_topic("counter-clicks-changelog", {"segment.bytes": 1_000})
            log.compact("counter-clicks-changelog")
        assert last(log) == plain_count(CLICKS)
        assert sum(read.values()) > 0
        assert _records(log) < changelog_size(log)


def _records(log: Log) -> int:
    with log.consumer() as consumer:
        consumer.assign(list(log.offsets("counter-clicks-changelog")))
        return sum(len(each.records) for some in iter(consumer.poll_batches, []) for each in some)


def test_a_state_directory_that_is_gone_is_read_back_from_the_changelog(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        click_app(log, emit="close").run(until="end")
        for part in chunks(CLICKS, 3):
            send(log, part)
            app = click_app(log, emit="close")
            read, written = read_back(app), changelog_size(log)
            app.run(until="end")
            assert sum(read.values()) == written
            shutil.rmtree(tmp_path / "log/state")
        send(log, [Click("end", str(user), CLICKS[-1].ts + 3_600_000) for user in range(40)])
        click_app(log, emit="close").run(until="end")
        assert Counter(results(log)) == Counter(plain_count(CLICKS).items())


def test_state_that_is_behind_its_changelog_reads_what_is_missing(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        first, second, third = chunks(CLICKS, 3)
        send(log, first)
        click_app(log).run(until="end")
        shutil.copytree(tmp_path / "log/state", tmp_path / "older")
        send(log, second)
        before = log.offsets("counter-clicks-changelog")
        click_app(log).run(until="end")
        ends, starts = (log.offsets("counter-clicks-changelog", at) for at in ("latest", "earliest"))
        # From the marker of the commit that the older state stands for.
        missing = sum(end - max(before[each] - 1, starts[each]) for each, end in ends.items())
        shutil.rmtree(tmp_path / "log/state")
        shutil.copytree(tmp_path / "older", tmp_path / "log/state")
        send(log, third)
        app = click_app(log)
        read = read_back(app)
        app.run(until="end")
        assert sum(read.values()) == missing > 0
        assert last(log) == plain_count(CLICKS)


class CrashError(Exception):
    """The process ends here."""


def crashing(method: Callable[..., Any], at: int, *, before: bool) -> Callable[..., Any]:
    """The method, raising at its nth call, before or after it did its work."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and before:
            raise CrashError
        done = method(*arguments, **options)
        if calls == at:
            raise CrashError
        return done

    return call


# The calls of a commit, in its order: results and changelogs, offsets, state; in the transaction or on disk each.
STEPS = [
    ("exactly_once", TransactionalProducer, "send_many"),
    ("exactly_once", TransactionalProducer, "commit_offsets"),
    ("exactly_once", TransactionalProducer, "commit"),
    ("exactly_once", RocksBackend, "write"),
    ("at_least_once", EmbeddedProducer, "flush"),
    ("at_least_once", EmbeddedLog, "commit_offsets"),
    ("at_least_once", RocksBackend, "write"),
]


@pytest.mark.parametrize("emit", ["update", "close"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("guarantee", "owner", "method"), STEPS)
def test_a_run_that_breaks_off_within_a_commit_loses_nothing(
    guarantee: Any, owner: type[Any], method: str, before: bool, emit: Any, tmp_path: Path
) -> None:
    wanted = plain_count(CLICKS)
    last_ms = max(click.ts for click in CLICKS)
    closed = {key for key in wanted if int(key.split("@")[1]) + 65_000 <= last_ms}
    with open_with_clicks(tmp_path) as log:
        for number, part in enumerate(chunks(CLICKS, 4)):
            send(log, part)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(runner, "_SLICE", 100)
                patch.setattr(runner, "_DIRTY_MAX", 10)
                patch.setattr(owner, method, crashing(getattr(owner, method), 2 + 3 * number, before=before))
                with pytest.raises(CrashError):
                    click_app(log, emit=emit, guarantee=guarantee).run(until="end")
        click_app(log, emit=emit, guarantee=guarantee).run(until="end")
        found = last(log)
        assert set(found) == (closed if emit == "close" else set(wanted))
        if guarantee == "exactly_once":
            assert all(count == wanted[key] for key, count in found.items())
            assert emit == "update" or len(results(log)) == len(closed), "each final result once"
        else:  # what was run again is counted again, nothing is missing
            assert all(count >= wanted[key] for key, count in found.items())


def test_offsets_that_are_gone_while_there_is_state_are_refused(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        send(log, CLICKS[:100])
        click_app(log).run(until="end")
        log.delete_group("counter")
        for _ in range(2):  # a refusal commits nothing that would let the next one in
            with pytest.raises(TopologyError, match=r"store 'clicks' \(at .*programs\.py:\d+\).*offsets") as refused:
                click_app(log).run(until="end")
            assert "counter-clicks-changelog" in str(refused.value)
        log.alter_offsets("counter", log.offsets("clicks"))
        send(log, CLICKS[100:200])
        click_app(log).run(until="end")
        assert last(log) == plain_count(CLICKS[:200])


def test_an_app_that_never_had_a_record_has_lost_nothing(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        click_app(log).run(until="end")
        log.delete_group("counter")
        send(log, CLICKS[:100])
        click_app(log).run(until="end")
        assert last(log) == plain_count(CLICKS[:100])


def test_another_partition_count_is_refused() -> None:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=4)
        send(log, CLICKS[:100])
        click_app(log).run(until="end")
        log.delete_topic("clicks")
        log.create_topic("clicks", partitions=3)
        with pytest.raises(TopologyError, match=r"counter-clicks-.* has 4 partitions.*programs\.py:\d+ needs 3"):
            click_app(log).run(until="end")


def test_more_partitions_of_an_input_are_refused_with_a_way_to_keep_the_state() -> None:
    def app(log: Log, width: int | None = None) -> App:
        made = App("counter", log=log)
        words = made.stream(made.topic("words", key=str, value=str))
        if width is not None:
            words = words.repartition(partitions=width, name="words")
        words.group_by_key().count(store="n").changes().to(made.topic("counts", key=str, value=int))
        return made

    def say(log: Log) -> None:
        with log.producer() as producer:
            for number in range(20):
                producer.send("words", b"x", key=b"w%d" % number, timestamp_ms=1)

    with Log.open("memory:") as log:
        log.create_topic("words", partitions=2)
        say(log)
        app(log).run(until="end")
        log.create_partitions("words", 3)
        say(log)
        told = (
            r"'counter-n-changelog' has 2 partitions, and count-\d+ at .*test_restarts.py:\d+ needs 3, as topic "
            r"'words' has 3: .*; put repartition\(partitions=2, name=…\) before it, .*, or begin anew, with "
            r"`tailrace reset`"
        )
        with pytest.raises(TopologyError, match=told):
            app(log).run(until="end")
        app(log, 2).run(until="end")
        assert last(log, "counts") == {f"w{number}": 2 for number in range(20)}
        log.create_partitions("counter-n-changelog", 4)
        with pytest.raises(
            TopologyError, match=r"has 4 partitions, .* needs 2, as repartition .* has 2: .*; begin anew"
        ):
            app(log, 2).run(until="end")


def test_another_count_of_a_repartition_is_refused() -> None:
    def app(log: Log, partitions: int) -> App:
        made = App("counter", log=log)
        words = made.topic("words", key=str, value=str)
        made.stream(words).group_by(lambda word: word, partitions=partitions).count(store="n")
        return made

    with Log.open("memory:") as log:
        log.create_topic("words")
        feed(log, "words", [("a", "x", 1)])
        app(log, 2).run(until="end")
        with pytest.raises(TopologyError, match=r"has 2 partitions, and .* needs 3"):
            app(log, 3).run(until="end")


def all_together(_value: str) -> str:
    return "all"


def test_inputs_of_unlike_partition_counts_are_refused_by_state_only() -> None:
    with Log.open("memory:") as log:
        log.create_topic("a", partitions=2)
        log.create_topic("b", partitions=3)
        feed(log, "a", [("k", "1", 1)], partition=1)
        feed(log, "b", [("k", "2", 2)], partition=2)

        def app(name: str) -> tuple[App, Any]:
            made = App(name, log=log)
            topics = [made.topic(each, key=str, value=str) for each in "ab"]
            return made, made.stream(topics)

        stateful, stream = app("stateful")
        stream.group_by_key().count(store="n")
        with pytest.raises(TopologyError, match=r"not co-partitioned.*'a' at .* has 2.*'b' at .* has 3"):
            stateful.run(until="end")
        rekeyed, stream = app("rekeyed")
        stream.group_by(all_together).count(store="n").changes().to(rekeyed.topic("counts", key=str, value=int))
        assert rekeyed.run(until="end").records_in == 2
        assert last(log) == {"all": 2}


def test_a_deleted_input_begins_anew(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        send(log, CLICKS[:1_000])
        click_app(log).run(until="end")
        log.delete_topic("clicks")
        log.create_topic("clicks", partitions=4)
        send(log, CLICKS[1_000:2_000])
        click_app(log).run(until="end")
        assert last(log) == plain_count(CLICKS[:2_000])


def test_two_apps_on_one_log(tmp_path: Path) -> None:
    with open_with_clicks(tmp_path) as log:
        send(log, CLICKS)
        other = App("other", log=log)
        clicks = other.topic("clicks", key=str, value=Click)
        other.stream(clicks).group_by_key().count(store="clicks").changes().to(
            other.topic("by-user", key=str, value=int)
        )
        apps = [click_app(log), other]
        threads = [threading.Thread(target=app.run, kwargs={"until": "end"}) for app in apps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert last(log) == plain_count(CLICKS)
        assert last(log, "by-user") == Counter(click.user for click in CLICKS)
