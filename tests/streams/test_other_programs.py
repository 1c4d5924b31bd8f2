"""What would not share its work with the running apps of its name is refused first, and told what differs."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tailrace import App, Log
from tailrace.errors import InvalidError


def copying(log: Log, **options: str) -> App:
    app = App("app", log=log, **options)  # type: ignore[arg-type]  # options of str alone
    app.stream(app.topic("in", key=str, value=str)).to(app.topic("copies", key=str, value=str))
    return app


def counting(log: Log) -> App:
    app = App("app", log=log)
    stream = app.stream(app.topic("in", key=str, value=str))
    stream.group_by_key().count(store="n").changes().to(app.topic("counts", key=str, value=int))
    return app


def merging(log: Log) -> App:
    app = App("app", log=log)
    topics = [app.topic(name, key=str, value=str) for name in ("in", "more")]
    app.stream(topics).to(app.topic("merged", key=str, value=str))
    return app


def shuffling(log: Log) -> App:
    app = App("app", log=log)
    app.stream(app.topic("in", key=str, value=str)).repartition(name="again").to(app.topic("r", key=str, value=str))
    return app


OTHERS: dict[str, tuple[Callable[[Log], App], str]] = {
    "guarantee": (
        lambda log: copying(log, guarantee="at_least_once"),
        "has guarantee='exactly_once', and this one 'at_least_once'",
    ),
    "stores": (counting, "keeps nothing, and this one 'n'"),
    "topics": (merging, "reads 'in', and this one 'in', 'more'"),
    "tasks": (shuffling, "has the same topics and stores in other tasks"),
}


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        for name in ("in", "more"):
            opened.create_topic(name)
        yield opened


@pytest.mark.parametrize("other", OTHERS)
async def test_another_program_is_refused_before_it_makes_anything(other: str, log: Log) -> None:
    make, told = OTHERS[other]
    file = re.escape(__file__)
    async with copying(log).running():
        before = log.topics(internal=True)
        with pytest.raises(
            InvalidError,
            match=rf"'app' runs on this log already, as another program, which begins at {file}:\d+ and "
            rf"{re.escape(told)}.*; this one begins at {file}:\d+: stop that one first, or give one another name",
        ) as raised:
            make(log).run(until="end")
        assert "units-" not in str(raised.value)
        assert log.topics(internal=True) == before
        assert len(log.describe_group("app").members) == 1
    make(log).run(until="end")


async def test_the_same_program_with_another_output_is_a_member(log: Log) -> None:
    app = App("app", log=log)
    app.stream(app.topic("in", key=str, value=str)).to(app.topic("elsewhere", key=str, value=str))
    async with copying(log).running(), app.running():
        assert len(log.describe_group("app").members) == 2


async def test_partitions_that_were_added_in_between_are_told(log: Log) -> None:
    with suppress(InvalidError):  # it ends itself, once it has seen them
        async with copying(log).running():
            log.create_partitions("in", 3)
            with pytest.raises(
                InvalidError, match=r"other tasks, stores, guarantee or partition counts \(partitions may"
            ):
                copying(log).run(until="end")


def test_consumers_in_the_group_of_an_app_are_named(log: Log) -> None:
    with log.consumer(group="app") as consumer:
        consumer.subscribe(["in"])
        consumer.poll()
        with pytest.raises(InvalidError, match=r"group of app 'app' has members that are no app \(consumer-000001\)"):
            copying(log).run(until="end")
        assert "copies" not in log.topics()
    copying(log).run(until="end")
