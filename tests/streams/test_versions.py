"""`App(version=…)`: another version is another app, but for the topics that it reads and writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.programs import last

FED = [("a", "1", 0), ("a", "2", 1), ("b", "3", 2)]


@pytest.fixture(params=["memory:", "on disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    with Log.open("memory:" if request.param == "memory:" else str(tmp_path / "log")) as opened:
        opened.create_topic("in")
        yield opened


def counting(log: Log, *, by: int = 1, **options: Any) -> App:
    app = App("shop", log=log, **options)
    stream = app.stream(app.topic("in", key=str, value=str))
    counts = stream.group_by_key().aggregate(lambda: 0, lambda total, _: total + by, value=int, store="n")
    counts.changes().to(app.topic("out", key=str, value=int))
    return app


def test_a_version_begins_anew_with_names_of_its_own_and_the_one_before_goes_on(log: Log) -> None:
    feed(log, "in", FED)
    assert counting(log).run(until="end").records_in == 3
    second = counting(log, by=10, version=2)
    assert second.name == "shop-v2"
    assert second.run(until="end").records_in == 3
    assert last(log, "out") == {"a": 20, "b": 10}
    assert counting(log, by=10, version=3).run(until="end").records_in == 3
    assert [name for name in log.topics(internal=True) if name.startswith("shop")] == [
        "shop-n-changelog",
        "shop-v2-n-changelog",
        "shop-v3-n-changelog",
    ]
    at_end = {TopicPartition("in", 0): 3}
    assert [log.committed(name) for name in ("shop", "shop-v2", "shop-v3")] == [at_end] * 3
    if log.state_directory is not None:
        assert sorted(path.name for path in Path(log.state_directory).iterdir()) == ["shop", "shop-v2", "shop-v3"]
    # Each goes on from its own state.
    feed(log, "in", [("a", "4", 3)])
    assert counting(log, by=10, version=2).run(until="end").records_in == 1
    assert last(log, "out")["a"] == 30
    assert counting(log, version=1).run(until="end").records_in == 1
    assert last(log, "out")["a"] == 3


def test_a_version_begins_where_reset_says(log: Log) -> None:
    feed(log, "in", FED)
    assert counting(log, version=2, reset="latest").run(until="end").records_in == 0


def test_a_reset_is_of_one_version(log: Log) -> None:
    feed(log, "in", FED)
    counting(log).run(until="end")
    counting(log, version=2).run(until="end")
    plan = counting(log).reset(dry_run=False)
    assert plan.app == "shop"
    assert not [each for each in plan.deleted if "v2" in each]
    assert counting(log, version=2).run(until="end").records_in == 0
    assert counting(log).run(until="end").records_in == 3


@pytest.mark.parametrize("versions", [(1, 2), (1, 2, 3)])
def test_what_a_version_reads_of_its_own_writing_is_not_what_the_one_before_wrote(
    versions: tuple[int, ...], log: Log
) -> None:
    def through(version: int) -> App:
        app = App("shop", log=log, version=version)
        stream = app.stream(app.topic("in", key=str, value=str)).through(app.topic("between", key=str, value=str))
        stream.group_by_key().count(store="n").changes().to(app.topic("out", key=str, value=int))
        return app

    feed(log, "in", FED)
    for version in versions:
        through(version).run(until="end")
        assert last(log, "out") == {"a": 2, "b": 1}
    assert len(contents(log, "between")) == 3 * len(versions)


def test_no_replay_has_the_name_of_a_version(log: Log) -> None:
    feed(log, "in", FED)
    for into in ("v2", "v-2", "2-v"):
        with counting(log).replay(into=into) as job:
            job.run()
    for into in ("b-v2", "-v10"):
        with (
            pytest.raises(ValueError, match=r"not ending in -v and a number, as an App\(version=…\) does"),
            counting(log).replay(into=into),
        ):
            pass
    counting(log, version=2).run(until="end")
    with counting(log, version=2).replay(into="next") as job:
        assert job.name == "shop-v2.next"
        job.run()
        job.promote()
    assert counting(log, version=2).run(until="end").records_in == 0


def test_a_name_that_is_too_long_with_its_version() -> None:
    App("x" * 249)
    with pytest.raises(InvalidError, match="has 252 characters"):
        App("x" * 249, version=2)
