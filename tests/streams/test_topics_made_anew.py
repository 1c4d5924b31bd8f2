"""Topics that are deleted, and perhaps made anew, under a running app or while it was stopped: refused by name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError, TopologyError
from tailrace.streams.app import App
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
    with pytest.raises(TopologyError, match="offsets of group 'app' are gone"):
        counting(log).run(until="end")


def test_an_input_that_is_gone_is_named(log: Log) -> None:
    feed(log, "in", some("a", "now", "b"))
    with pytest.raises(InvalidError, match=r"'in' was deleted while app 'app' ran"):
        counting(log, lambda: log.delete_topic("in")).run(until="end")
    assert contents(log, "out") == []


def test_a_changelog_deleted_under_a_running_app(log: Log) -> None:
    feed(log, "in", some("a", "now", "b"))
    with pytest.raises(InvalidError, match=r"'app-n-changelog' was deleted while .* \(it backs store 'n'\)"):
        counting(log, lambda: log.delete_topic("app-n-changelog")).run(until="end")
    assert contents(log, "out") == []


def test_a_changelog_deleted_while_the_app_was_stopped(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("in")
        feed(log, "in", some("a", "b"))
        counting(log).run(until="end")
        log.delete_topic("app-n-changelog")
        feed(log, "in", some("c"))
        for _ in range(2):
            with pytest.raises(TopologyError, match=r"store 'n' \(at .*:\d+\), app-n-changelog, was deleted since"):
                counting(log).run(until="end")
        assert last(log, "out") == {"k": 2}
        # The way out that the message names, but for the state: without its offsets the app begins anew.
        log.delete_group("app")
        assert counting(log).run(until="end").records_in == 3
        assert last(log, "out") == {"k": 3}
