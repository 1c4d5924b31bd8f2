"""A store as it was, against what a plain count of the records of that time and before gives."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tailrace.errors import InvalidError, TopologyError
from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.tests.support.programs import BEGIN_MS, Click, arrivals, chunks, plain_count, send
from tailrace.windows.duration import minutes
from tailrace.windows.session import session
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

CLICKS = sorted(arrivals(600, disorder_ms=0), key=lambda click: click.ts)
PARTS = chunks(CLICKS, 3)
THEN = PARTS[1][-1].ts


def users(log: Log) -> App:
    app = App("counter", log=log)
    clicks = app.stream(app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts))
    clicks.group_by(lambda click: click.product).count(store="products")
    clicks.group_by_key().windowed_by(tumbling(minutes(1))).count(store="minutes")
    clicks.group_by_key().windowed_by(session(minutes(1))).count(store="sessions")
    return app


@pytest.fixture
def log() -> Any:
    with Log.open("memory:") as log:
        log.create_topic("clicks", partitions=2)
        for part in PARTS:  # a changelog has one entry for each key and commit
            send(log, part)
            users(log).run(until="end")
        yield log


def test_a_table_as_it_was(log: Log) -> None:
    before = {name: log.offsets(name) for name in log.topics(internal=True)}
    for when in (BEGIN_MS - 1, *(part[-1].ts for part in PARTS)):
        of_then = [click for click in CLICKS if click.ts <= when]
        found = users(log).past("products", when)
        assert dict(found.all()) == {
            product: sum(click.product == product for click in of_then) for product in {c.product for c in of_then}
        }
        windows = {f"{key.key}@{key.start_ms}": n for key, n in users(log).past("minutes", when).all()}
        assert windows == plain_count([Click(click.user, click.user, click.ts) for click in of_then])
        sessions: dict[Windowed[str], int] = dict(users(log).past("sessions", when).all())
        assert sum(sessions.values()) == len(of_then)
    assert {name: log.offsets(name) for name in log.topics(internal=True)} == before


def test_keys_of_which_only_younger_values_are_left_are_counted(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    changelog = "counter-products-changelog"
    log.alter_topic(changelog, {"segment.bytes": 100})
    send(log, [Click("another", f"u{number}", CLICKS[-1].ts) for number in range(10)])
    users(log).run(until="end")
    log.compact(changelog)
    with caplog.at_level(logging.WARNING):
        found = dict(users(log).past("products", THEN).all())
    then = {click.product for click in CLICKS if click.ts <= THEN}
    lost = then - found.keys()
    assert lost
    told = next(record.getMessage() for record in caplog.records if "only younger values" in record.getMessage())
    count = int(told.split(": of ")[1].split()[0])
    assert count >= len(lost)


REFUSED: list[tuple[Callable[[App], Any], type[Exception], str]] = [
    (lambda app: app.past("product", THEN), InvalidError, "no store 'product'; did you mean 'products'"),
    (lambda app: app.past("products", "then"), TypeError, "instant"),  # type: ignore[arg-type]  # the user's mistake
]


@pytest.mark.parametrize(("look", "error", "told"), REFUSED)
def test_what_is_not_there(log: Log, look: Callable[[App], Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        look(users(log))


def test_an_app_that_has_not_run() -> None:
    with (
        Log.open("memory:") as log,
        pytest.raises(TopologyError, match=r"store 'products' \(at .*test_past\.py:\d+\) has no changelog"),
    ):
        users(log).past("products", THEN)
