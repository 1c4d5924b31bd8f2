"""What a store holds, as a note beside its changelog: what goes on under a store's name, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailrace import App, Log, Stream, hopping, minutes, seconds, session, sliding, tumbling
from tailrace.errors import InvalidError, TopologyError
from tailrace.reducers import count, last
from tailrace.reducers import sum as total
from tailrace.streams.program.kept_as import from_note
from tailrace.tests.support.engine import feed
from tailrace.tests.support.processors import Calls

Make = Callable[[App, Stream[str, str]], object]


class Click(msgspec.Struct):
    """What a value was made of first."""

    page: str
    times: int


class View(msgspec.Struct):
    """The same under another name."""

    page: str
    times: int


class Sums(msgspec.Struct):
    """Something else."""

    low: float


def clicks(of: Any) -> Make:
    def zero() -> Any:
        return of("p", 1) if of is not Sums else Sums(1.0)

    def make(app: App, stream: Stream[str, str]) -> object:
        del app
        return stream.group_by_key().aggregate(zero, lambda one, _value: one, store="s", value=of)

    return make


def counted(window: Any = None) -> Make:
    def make(app: App, stream: Stream[str, str]) -> object:
        del app
        grouped = stream.group_by_key()
        return grouped.count(store="s") if window is None else grouped.windowed_by(window).count(store="s")

    return make


def kept_table(app: App, stream: Stream[str, str]) -> object:
    del app
    return stream.to_table(store="s")


def run(log: Log, make: Make) -> None:
    log.create_topic("in", exist_ok=True)
    feed(log, "in", [("k", "v", 100_000)])
    app = App("app", log=log)
    make(app, app.stream(app.topic("in", key=str, value=str)))
    app.run(until="end")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            counted(),
            counted(tumbling(seconds(10))),
            r"tumbling\(10s\) store .* by a key-value store of str to int",
        ),
        (counted(tumbling(seconds(10))), counted(tumbling(seconds(20))), r"tumbling\(20s\) .* a tumbling\(10s\)"),
        (counted(hopping(seconds(10), seconds(5))), counted(sliding(seconds(10))), r"sliding\(10s\) .* hopping\("),
        (counted(session(seconds(10))), counted(sliding(seconds(10))), r"sliding\(10s\) .* a session store"),
        (counted(), kept_table, r"key-value store of str to str, .* key-value store of str to int"),
        (clicks(Click), clicks(Sums), r"to json\(Sums\), .* to json\(Click\)"),
    ],
)
def test_a_store_of_another_kind_under_the_same_name_is_refused(
    tmp_path: Path, before: Make, after: Make, told: str
) -> None:
    with Log.open(str(tmp_path)) as log:
        run(log, before)
        content = log.offsets("app-s-changelog")
        for state_is_there in (True, False):
            with pytest.raises(
                TopologyError, match=rf"store 's' \(at .*test_kept_as.py:\d+\) is a .*{told}.*another name"
            ):
                run(log, after)
            assert log.offsets("app-s-changelog") == content, "nothing was spoiled"
            if state_is_there:
                shutil.rmtree(tmp_path / "state")
        run(log, before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (counted(tumbling(seconds(10))), counted(tumbling(seconds(10), grace=minutes(1)))),
        (counted(hopping(seconds(10), seconds(5), grace=seconds(1))), counted(hopping(seconds(10), seconds(5)))),
        (counted(session(seconds(10))), counted(session(seconds(30), grace=seconds(1)))),
        (clicks(Click), clicks(View)),
    ],
)
def test_what_may_change_goes_on(before: Make, after: Make) -> None:
    with Log.open("memory:") as log:
        run(log, before)
        run(log, after)
        run(log, after)


class Totals(msgspec.Struct):
    """Of reducers."""

    n: int
    length: int


def test_another_set_of_reducers_is_refused_at_the_start() -> None:
    def summed(_app: App, stream: Stream[str, str]) -> object:
        return stream.group_by_key().agg(Totals, n=count(), length=total(len), store="s")

    def lasting(_app: App, stream: Stream[str, str]) -> object:
        return stream.group_by_key().agg(Totals, n=count(), length=last(len), store="s")

    with Log.open("memory:") as log:
        run(log, summed)
        with pytest.raises(TopologyError, match=r"to agg\(length=last n=count\), .* to agg\(length=sum n=count\)"):
            run(log, lasting)


def test_a_changelog_without_a_note_takes_what_the_program_says() -> None:
    with Log.open("memory:") as log:
        run(log, counted())
        log.note_topic("app-s-changelog", "")
        run(log, counted())
        assert str(from_note(log.describe_topic("app-s-changelog").note)) == "key-value store of str to int"
        log.note_topic("app-s-changelog", "{}")
        run(log, counted())


def test_an_empty_changelog_holds_nothing_to_misread() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")

        def start(make: Make) -> None:
            app = App("app", log=log)
            make(app, app.stream(app.topic("in", key=str, value=str)))
            app.run(until="end")

        start(counted())
        start(kept_table)
        run(log, kept_table)


def declared(app: App, stream: Stream[str, str]) -> object:
    seen = app.store("s", key=str, value=str, kind="memory")
    return stream.process(lambda: Calls(lambda ctx, record: ctx.store("s").put(record.key, "x")), stores=[seen])


def test_a_declared_store_is_compared_too() -> None:
    with Log.open("memory:") as log:
        run(log, declared)
        run(log, kept_table)
        with pytest.raises(TopologyError, match=r"a key-value store of str to int, .* of str to str"):
            run(log, counted())


def test_a_note_is_there_after_a_restart_and_goes_with_its_topic(tmp_path: Path) -> None:
    with Log.open(str(tmp_path)) as log:
        log.create_topic("t")
        log.note_topic("t", "first")
        log.note_topic("t", "of mine")
        log.alter_topic("t", {"retention.ms": 5})
    with Log.open(str(tmp_path)) as log:
        log.create_partitions("t", 2)
        assert log.describe_topic("t").note == "of mine"
        assert log.describe_topic("t").config["retention.ms"] == "5"
        log.delete_topic("t")
        log.create_topic("t")
        assert log.describe_topic("t").note == ""
        with pytest.raises(InvalidError, match="5000 bytes: shorten it to 4096"):
            log.note_topic("t", "x" * 5_000)
