"""Tables that are restored from the topic they are read from: the same rows as with a changelog, and no copy."""

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tailrace.log.client import Log
from tailrace.log.clients.transactional import TransactionalProducer
from tailrace.log.errors import RetriableError, TaskError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.state.changelog import pack_int64
from tailrace.state.memory import MemoryBackend
from tailrace.state.store import ROWS
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.streams.planning.planner import Planner
from tailrace.streams.running import patience
from tailrace.streams.surface.table import Table
from tailrace.streams.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.waiting import until
from tailrace.windows.duration import seconds

USERS = TopicPartition("users", 0)
CHANGELOG = TopicPartition("shop-users-changelog", 0)


class User(Struct):
    name: str
    at: int = 0


def user(name: str, at: int = 1, spaces: str = "") -> str:
    return f'{{"at":{at},{spaces}"name":"{name}"}}'


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        make_topics(opened)
        yield opened


def make_topics(log: Log) -> None:
    log.create_topic("users", config={"cleanup.policy": "compact"})
    log.create_topic("orders")


def shop(log: Log, *, changelog: Any = "source", store: str = "users", name: str = "shop", **options: Any) -> App:
    """Orders with the names of users; "out" has those that found one."""
    app = App(name, log=log, **options)
    users = app.topic("users", key=str, value=User, timestamp=lambda each: each.at)
    table = app.table(users, store=store, changelog=changelog)

    def named(order: str, who: User) -> str:
        if order == "stop":
            raise ValueError("as was asked for")
        return f"{order} for {who.name}"

    app.stream(app.topic("orders", key=str, value=str)).join(table, named).to(app.topic("out", key=str, value=str))
    return app


def found(log: Log) -> list[str]:
    return [(record.value or b"").decode() for record in contents(log, "out")]


def restored(log: Log, app: App, store: str = "users") -> dict[bytes, bytes]:
    """What a start finds in a store that was lost: time and value by key."""
    backend = MemoryBackend()
    planner = Planner(app.describe(), log, app.options, lambda _task: backend, app.clock)
    for unit in planner.prepare():
        planner.load(unit)
    return {key.removeprefix(ROWS): row for key, row in backend.keyspace(store).range(ROWS, None)}


def reading(app: App, into: list[int]) -> App:
    """Has the app note how many offsets a restore reads."""
    app.on_restore = lambda _store: lambda _done, total: into.append(total)
    return app


# ---------------------------------------------------------------- restoring


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_the_table_is_whole_after_a_restart_and_nothing_is_written_twice(guarantee: Any, log: Log) -> None:
    feed(log, "users", [("u1", user("Ann"), 1), ("u2", user("Bob"), 2), ("u2", None, 4)])
    shop(log, guarantee=guarantee).run(until="end")
    feed(log, "orders", [("u1", "tea", 5), ("u2", "milk", 6)])
    shop(log, guarantee=guarantee).run(until="end")  # of a log in memory, so what it finds was restored
    feed(log, "users", [("u1", user("Anna"), 7)])
    shop(log, guarantee=guarantee).run(until="end")
    feed(log, "orders", [("u1", "jam", 8)])
    shop(log, guarantee=guarantee).run(until="end")
    assert found(log) == ["tea for Ann", "jam for Anna"]
    assert log.offsets(CHANGELOG.topic) == {CHANGELOG: 0}
    feed(log, "users", [(f"v{number}", user("Ann"), 9) for number in range(100)])
    shop(log, name="other", changelog="own", guarantee=guarantee).run(until="end")
    assert sum(log.offsets("other-users-changelog").values()) > 100  # what is saved


def test_on_disk_only_what_came_since_is_read_again(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        make_topics(log)
        read: list[int] = []
        for number in range(3):
            feed(log, "users", [(f"u{number}-{each}", user("Ann"), 1) for each in range(50)])
            reading(shop(log), read).run(until="end")
            assert set(read) == {0}
        shutil.rmtree(tmp_path / "log/state")
        feed(log, "orders", [("u0-7", "tea", 5)])
        reading(shop(log), read).run(until="end")
        assert max(read) == 150
        assert found(log) == ["tea for Ann"]


def test_it_is_restored_to_the_committed_offset_and_not_past_it(log: Log) -> None:
    feed(log, "users", [("u1", user("Ann"), 1)])
    shop(log).run(until="end")
    with log.producer() as producer:  # a batch of which the app may have committed a part
        values = [user("Anna", 2), user("Bob", 4)]
        producer.send_many("users", [each.encode() for each in values], keys=[b"u1", b"u2"]).result()
    feed(log, "orders", [("u1", "stop", 3)])
    with pytest.raises(TaskError):
        shop(log).run(until="end")
    assert log.committed("shop")[USERS] == 1
    assert restored(log, shop(log)) == {b"u1": pack_int64(1) + b'{"name":"Ann","at":1}'}
    log.alter_offsets("shop", {USERS: 2, TopicPartition("orders", 0): 1})
    assert restored(log, shop(log)) == {b"u1": pack_int64(2) + b'{"name":"Anna","at":2}'}


def test_rows_are_the_bytes_that_were_taken_in(log: Log) -> None:
    feed(log, "users", [("u1", user("Ann", 5, spaces="   "), 1), ("u2", user("Bob", 6), 2), ("u3", user("Cy"), 2)])
    feed(log, "users", [("u2", "not JSON", 3), ("u3", "null", 3), ("u4", user("Di", -4), 3), ("u1", None, 3)])
    feed(log, "users", [("u1", user("Eve", 8, spaces=" "), 9), ("u2", user("Fay", 99_999), 9)])
    options: dict[str, Any] = {"on_bad_record": "skip", "max_future": seconds(60)}
    for changelog in ("source", "own"):
        app = shop(log, changelog=changelog, name=changelog, **options)
        assert app.run(until="end").dropped == {"bad_record": 4}
    of_the_source, of_its_own = (
        restored(log, shop(log, changelog=changelog, name=changelog, **options)) for changelog in ("source", "own")
    )
    assert of_the_source == of_its_own
    assert of_the_source == {
        b"u1": pack_int64(8) + b'{"name":"Eve","at":8}',
        b"u2": pack_int64(6) + b'{"name":"Bob","at":6}',
        b"u3": pack_int64(1) + b'{"name":"Cy","at":1}',
    }


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 9), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=40, deadline=None)
@given(CHANGES, st.booleans())
def test_any_changes_any_restarts_any_compaction_find_the_last_value(
    changes: list[tuple[str, int | None, bool]], cache: bool
) -> None:
    last: dict[str, int | None] = {}
    expected: list[str] = []
    with Log.open("memory:", background=False) as log:
        make_topics(log)
        log.alter_topic("users", {"segment.bytes": 100, "min.cleanable.dirty.ratio": 0.0})
        for number, (key, value, restart) in enumerate(changes):
            last[key] = value
            at = 2 * number
            feed(log, "users", [(key, None if value is None else user(str(value), at), at)])
            feed(log, "orders", [(key, "tea", at + 1)])
            expected += [] if value is None else [f"tea for {value}"]
            if restart:
                shop(log, cache_bytes=1 << 20 if cache else 0).run(until="end")
                log.compact("users")
        shop(log).run(until="end")
        log.compact("users")
        assert found(log) == expected
        assert {key.decode() for key in restored(log, shop(log))} == {key for key in last if last[key] is not None}


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("step", ["send_many", "commit_offsets", "commit"])
def test_an_abort_at_each_step_of_many_commits(
    step: str, disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_SLICE", 10)
    monkeypatch.setattr(runner, "_DIRTY_MAX", 1)
    monkeypatch.setattr(patience, "FIRST_S", 0.0)
    method, calls = getattr(TransactionalProducer, step), 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 7 == 3:
            raise RetriableError("not yet")
        done = method(*arguments, **options)
        if calls % 7 == 5:
            raise RetriableError("not yet")
        return done

    with Log.open(str(tmp_path / "log") if disk else "memory:") as log:
        make_topics(log)
        changes = [(f"u{number * number % 7}", number) for number in range(200)]
        feed(log, "users", [(key, None if at % 5 == 3 else user(str(at), 2 * at), 2 * at) for key, at in changes])
        feed(log, "orders", [(f"u{at % 7}", "tea", 2 * at + 1) for _, at in changes])
        table: dict[str, int | None] = {}
        expected: list[str] = []
        for key, at in changes:
            table[key] = None if at % 5 == 3 else at
            expected += [f"tea for {name}"] if (name := table.get(f"u{at % 7}")) is not None else []
        monkeypatch.setattr(TransactionalProducer, step, failing)
        shop(log).run(until="end")
        assert calls > 12
        assert found(log) == expected


def test_a_row_that_was_changed_and_compacted_since_is_missing_until_that_is_read() -> None:
    with Log.open("memory:", background=False) as log:
        make_topics(log)
        log.alter_topic("users", {"segment.bytes": 100, "min.cleanable.dirty.ratio": 0.0})
        feed(log, "users", [("u1", user("Ann"), 1), ("u2", user("Bob"), 1)])
        shop(log).run(until="end")
        feed(log, "orders", [("u1", "tea", 2), ("u2", "tea", 2), ("u1", "jam", 4)])
        feed(log, "users", [("u1", user("Anna", 3), 3), *((f"v{each}", user("Cy", 5), 5) for each in range(9))])
        log.compact("users")
        assert set(restored(log, shop(log))) == {b"u2"}
        shop(log).run(until="end")
        assert found(log) == ["tea for Bob", "jam for Anna"]


def test_what_was_deleted_from_the_topic_is_gone_after_a_restore_and_not_from_a_store(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        make_topics(log)
        feed(log, "users", [("u1", user("Ann"), 1), ("u2", user("Bob"), 2)])
        shop(log).run(until="end")
        log.alter_topic("users", {"cleanup.policy": "compact,delete"})
        log.delete_records({USERS: 1})
        log.alter_topic("users", {"cleanup.policy": "compact"})
        feed(log, "orders", [("u1", "tea", 3)])
        shop(log).run(until="end")
        assert found(log) == ["tea for Ann"]
        shutil.rmtree(tmp_path / "log/state")
        feed(log, "orders", [("u1", "jam", 4), ("u2", "jam", 4)])
        shop(log).run(until="end")
        assert found(log) == ["tea for Ann", "jam for Bob"]


def test_a_topic_that_was_made_anew_is_another_table(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    feed(log, "users", [("u1", user("Ann"), 1)])
    shop(log).run(until="end")
    log.delete_topic("users")
    log.create_topic("users", config={"cleanup.policy": "compact"})
    feed(log, "users", [("u2", user("Bob"), 1)])
    feed(log, "orders", [("u1", "tea", 5), ("u2", "milk", 6)])
    with caplog.at_level(logging.WARNING):
        shop(log).run(until="end")
    assert found(log) == ["milk for Bob"]
    assert "'users' was deleted and made anew since app 'shop' ran last" in caplog.text
    assert 'all its stores but the table with changelog="source" keep what they hold' in caplog.text


def test_as_it_was(log: Log) -> None:
    feed(log, "users", [("u1", user("Ann", 10), 1), ("u2", user("Bob", 20), 1), ("u1", user("Anna", 30), 1)])
    shop(log).run(until="end")
    feed(log, "users", [("u3", user("Cy", 40), 1)])  # not read yet
    assert [dict(shop(log).past("users", when).all()) for when in (9, 10, 29, 99)] == [
        {},
        {"u1": User("Ann", 10)},
        {"u1": User("Ann", 10), "u2": User("Bob", 20)},
        {"u1": User("Anna", 30), "u2": User("Bob", 20)},
    ]


async def test_tasks_that_move_take_their_rows_along(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("users", partitions=4, config={"cleanup.policy": "compact"})
        log.create_topic("orders", partitions=4)
        expected: list[str] = []

        def some(number: int) -> None:
            for partition in range(4):
                at = 10 * number
                feed(log, "users", [(f"u{partition}", user(f"{number}", at), at)], partition)
                feed(log, "orders", [(f"u{partition}", "tea", at + 1), (f"v{partition}", "tea", at + 2)], partition)
                feed(log, "users", [(f"v{partition}", user(f"{number}", at + 3), at + 3)], partition)
            expected.extend([f"tea for {number}"] * 4 + [f"tea for {number - 1}"] * 4 * (number > 0))

        async def fed(number: int) -> None:
            await asyncio.to_thread(some, number)
            await until(lambda: log.committed("shop").items() >= (log.offsets("users") | log.offsets("orders")).items())

        async with shop(log).running():
            await fed(0)
            async with shop(log).running():
                await until(lambda: [len(each.partitions) for each in log.describe_group("shop").members] == [4, 4])
                await fed(1)
            await fed(2)
        async with shop(log).running():
            await fed(3)
        assert sorted(found(log)) == sorted(expected)
        assert not any(log.offsets(CHANGELOG.topic).values())


# ---------------------------------------------------------------- where reading begins


def test_a_reset_deletes_nothing_of_the_topic(log: Log) -> None:
    feed(log, "users", [("u1", user("Ann"), 1)])
    feed(log, "orders", [("u1", "tea", 5)])
    shop(log).run(until="end")
    assert "users" not in shop(log).reset(dry_run=False).deleted
    shop(log).run(until="end")
    assert found(log) == ["tea for Ann"] * 2


@pytest.mark.parametrize("how", ["reset to", "reset=", "by hand"])
def test_wherever_reading_begins_the_table_has_what_was_before(how: str, log: Log) -> None:
    feed(log, "users", [("u1", user("Ann"), 1), ("u2", user("Bob"), 2)])
    if how == "reset=":
        shop(log, reset="latest").run(until="end")
    else:
        shop(log).run(until="end")
        log.alter_offsets("shop", {USERS: 1}) if how == "by hand" else shop(log).reset(to={USERS: 1}, dry_run=False)
    begun = 2 if how == "reset=" else 1
    assert len(restored(log, shop(log))) == begun
    feed(log, "orders", [("u1", "tea", 5), ("u2", "milk", 6)])
    shop(log).run(until="end")
    assert found(log) == ["tea for Ann", "milk for Bob"]


# ---------------------------------------------------------------- from one to the other


def test_a_store_keeps_the_changelog_that_it_was_begun_with(log: Log) -> None:
    feed(log, "users", [("u1", user("Ann"), 1)])
    shop(log, changelog="own").run(until="end")
    with pytest.raises(
        TopologyError, match=r"store 'users' .*restored from topic 'users', and its changelog .*another"
    ):
        shop(log).run(until="end")
    feed(log, "orders", [("u1", "tea", 5)])
    shop(log, store="names").run(until="end")
    assert found(log) == ["tea for Ann"]


def test_a_store_that_was_begun_without_one_is_not_taken_for_an_empty_one(log: Log) -> None:
    feed(log, "users", [("u1", user("Ann"), 1)])
    shop(log).run(until="end")
    with pytest.raises(
        TopologyError, match=r"'users' \(at .*\) was begun without a changelog.*keep changelog=\"source\""
    ):
        shop(log, changelog="own").run(until="end")
    shop(log).reset(dry_run=False)
    shop(log, changelog="own").run(until="end")
    assert log.offsets(CHANGELOG.topic)[CHANGELOG] > 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_topic_that_does_not_keep_the_last_value(policy: str, log: Log) -> None:
    log.alter_topic("users", {"cleanup.policy": policy})
    with pytest.raises(TopologyError, match=rf"table at .*{__name__[-9:]}\.py:\d+ says .* cleanup.policy={policy}"):
        shop(log).run(until="end")
    assert not {CHANGELOG.topic, "out"} & {*log.topics(internal=True)}


Texts = Table[str, str]


def both(app: App) -> tuple[Texts, Texts]:
    users = app.table(app.topic("users", key=str, value=str), store="users", changelog="source")
    return users, app.table(app.topic("others", key=str, value=str), store="others")


TAKES_BACK: list[Callable[[Texts, Texts], Texts]] = [
    lambda users, _: users.filter(bool),
    lambda users, _: users.map(str).group_by(lambda key, value: (value, key)).count(store="n").map(str),
    lambda users, others: others.join(users, str.__add__),
    lambda users, others: users.join(others, str.__add__, on=str, store="joined"),
]


@pytest.mark.parametrize("program", TAKES_BACK)
def test_nothing_behind_it_may_take_back_what_a_change_replaces(
    program: Callable[[Texts, Texts], Texts],
) -> None:
    app = App("shop", log="memory:")
    program(*both(app)).to(app.topic("out", key=str, value=str))
    with pytest.raises(
        TopologyError, match=r"table at .*\.py:\d+ says changelog=\"source\", and .* at .*\.py:\d+ takes"
    ):
        app.describe()


def test_what_only_looks_up_or_passes_on_may_stand_behind_it() -> None:
    app = App("shop", log="memory:")
    users, others = both(app)
    others.join(users, str.__add__, on=str, store="joined").to(app.topic("out", key=str, value=str))
    users.filter(bool, store="kept").to_stream().to(app.topic("all", key=str, value=str))
    with TopologyDriver(app) as driver:
        driver.pipe("users", "Ann", key="u1")
        driver.pipe("others", "u1", key="o1")
        assert [record.value for record in driver.read("out")] == ["u1Ann"]
        assert dict(driver.store("users").all()) == {"u1": "Ann"}
    assert "users" in str(app.describe())


def test_a_topic_that_the_app_writes() -> None:
    app = App("shop", log="memory:")
    users = app.topic("users", key=str, value=str)
    app.stream(app.topic("in", key=str, value=str)).to(users)
    app.table(users, store="users", changelog="source")
    with pytest.raises(
        TopologyError, match=r"table at .*\.py:\d+ .*the app itself writes its topic 'users', at .*:\d+"
    ):
        app.describe()


def test_arguments() -> None:
    app = App("shop", log="memory:")
    users = app.topic("users", key=str, value=str)
    with pytest.raises(ValueError, match='history=…, changelog="source"\\) cannot be'):
        app.table(users, store="users", history=seconds(1), changelog="source")
    with pytest.raises(ValueError, match=r"app.table\(changelog='none'\) is none of 'own', 'source'"):
        app.table(users, store="users", changelog="none")  # type: ignore[arg-type]  # the user's mistake
    with pytest.raises(ValueError, match=r"keys of bytes, str or int, and topic 'places' has json\(User\)"):
        app.table(app.topic("places", key=User, value=str), store="users", changelog="source")
