"""Stores of processors: over restarts, shared, and what they refuse."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import App, Context, Log, Processor, Record, Store, Stream
from tailrace.errors import EncodeError, InvalidError, TaskError, TopologyError
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, feed
from tailrace.tests.support.processors import Calls, called, passed_on, pipe, rows, text_app, written


class Seen(Processor[str, str, str, int]):
    """Counts each key in the store "seen", and forwards the count."""

    def init(self, ctx: Context[str, int]) -> None:
        self.ctx = ctx
        self.seen: Store[str, int] = ctx.store("seen")

    def process(self, record: Record[str, str]) -> None:
        count = (self.seen.get(record.key) or 0) + 1
        self.seen.put(record.key, count)
        self.ctx.forward(record.key, count)


def seen_app(kind: Literal["rocksdb", "memory"] = "rocksdb", **options: Any) -> App:
    def make(app: App, stream: Stream[str, str]) -> Stream[str, int]:
        return stream.process(Seen, stores=[app.store("seen", key=str, value=int, kind=kind)])

    return text_app(make, int, **options)


@pytest.mark.parametrize("kind", ["rocksdb", "memory"])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_store_goes_on_after_a_restart(tmp_path: Path, kind: Literal["rocksdb", "memory"], cache_bytes: int) -> None:
    keys = ["a", "b", "a", "a", "b", "c"]
    for number, key in enumerate(keys):
        with Log.open(str(tmp_path)) as log:
            log.create_topic("in", exist_ok=True)
            feed(log, "in", [(key, "v", number)])
            seen_app(kind, log=log, cache_bytes=cache_bytes).run(until="end")
            out = [(key, int.from_bytes(value or b"", "big")) for key, value, _ in written(log)]
            assert out == [(each, keys[: at + 1].count(each)) for at, each in enumerate(keys[: number + 1])]
            changes = [(record.key, record.timestamp_ms) for record in contents(log, "app-seen-changelog")]
            assert changes == [(each.encode(), at) for at, each in enumerate(keys[: number + 1])]
            assert log.describe_topic("app-seen-changelog").config["cleanup.policy"] == "compact"


def test_a_store_in_memory_beside_others_on_disk(tmp_path: Path) -> None:
    class Both(Seen):
        def init(self, ctx: Context[str, int]) -> None:
            super().init(ctx)
            self.last: Store[str, str] = ctx.store("last")

        def process(self, record: Record[str, str]) -> None:
            assert self.last.get(record.key) == {"x": None, "y": "x"}[record.value]
            self.last.put(record.key, record.value)
            super().process(record)

    for value in ("x", "y"):
        app = App("app", log=str(tmp_path))
        stores: list[Store[Any, Any]] = [
            app.store("seen", key=str, value=int),
            app.store("last", key=str, value=str, kind="memory"),
        ]
        app.stream(app.topic("in", key=str, value=str)).process(Both, stores=stores)
        with Log.open(str(tmp_path)) as log:
            log.create_topic("in", exist_ok=True)
            feed(log, "in", [("k", value, 1)])
        app.run(until="end")


STEPS = st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "put", "delete", "none"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=8), max_size=5), st.booleans(), st.sampled_from(["rocksdb", "memory"]))
def test_a_store_is_a_dict_that_survives(
    runs: list[list[tuple[str, str]]], cache: bool, kind: Literal["rocksdb", "memory"]
) -> None:
    """Against a plain dict, over runs of one app; what is stored is changed in place, and then put."""

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        store: Store[str, list[int]] = ctx.store("s")
        act(store.get, store.put, store.delete, record.key, record.value, record.timestamp_ms)
        assert list(store.all()) == sorted(model_at[record.timestamp_ms].items())

    def act(get: Any, put: Any, delete: Any, key: str, what: str, now: int) -> None:
        if what == "add":
            values: list[int] = get(key) or []
            values.append(now)
            put(key, values)
        elif what == "put":
            put(key, [now])
        elif what == "delete":
            delete(key)
        else:
            put(key, None)

    model: dict[str, list[int]] = {}
    model_at: list[dict[str, list[int]]] = []

    def put(key: str, value: list[int] | None) -> None:
        model.pop(key, None)
        if value is not None:
            model[key] = value

    def remove(key: str) -> None:
        model.pop(key, None)

    with Log.open("memory:") as log:
        log.create_topic("in")
        for run in runs:
            for key, what in run:
                now = len(model_at)
                act(model.get, put, remove, key, what, now)
                model_at.append({key: list(value) for key, value in model.items()})
                feed(log, "in", [(key, what, now)])
            app = App("app", log=log, cache_bytes=1 << 20 if cache else 0)
            store = app.store("s", key=str, value=list[int], kind=kind)
            app.stream(app.topic("in", key=str, value=str)).process(lambda: Calls(process), stores=[store])
            app.run(until="end")
        last = {record.key: record.value for record in contents(log, "app-s-changelog")} if runs else {}
        assert {key for key, value in last.items() if value is not None} == {key.encode() for key in model}


def test_a_write_is_no_change_before_the_commit(tmp_path: Path) -> None:
    """What was put before a failure is not there afterwards."""

    def app_that(fails: bool) -> App:
        def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
            store = ctx.store("s")
            assert list(store.all()) == []
            store.put(record.key, record.value)
            if fails:
                raise ValueError("no")

        return text_app(
            lambda app, stream: stream.process(lambda: Calls(process), stores=[app.store("s", key=str, value=str)]),
            log=str(tmp_path),
        )

    with Log.open(str(tmp_path)) as log:
        log.create_topic("in")
        feed(log, "in", [("k", "v", 1)])
    with pytest.raises(TaskError, match="ValueError in process-1"):
        app_that(True).run(until="end")
    assert app_that(False).run(until="end").records_in == 1


@pytest.mark.parametrize("cache", [False, True])
def test_reading_and_writing(cache: bool) -> None:
    read: dict[str, Any] = {}

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        store: Store[str, list[int]] = ctx.store("s")
        if record.key == "write":
            for name in ("b", "a2", "a1", "c"):
                assert store.put(name, [len(name)]) is True
            assert store.delete("missing") is None
            return
        assert store.put("a3", [3])
        assert store.delete("c") == [1]
        store.put("b", None)
        read.update(
            get=store.get("a2"),
            gone=store.get("c"),
            all=list(store.all()),
            reverse=[key for key, _ in store.all(reverse=True)],
            range=[key for key, _ in store.range("a2", "a3")],
            low=[key for key, _ in store.range("a2")],
            high=[key for key, _ in store.range(high="a1", reverse=True)],
            prefix=[key for key, _ in store.prefix("a")],
        )

    app = called(process, stores=lambda app: [app.store("s", key=str, value=list[int])])
    with TopologyDriver(app, cache=cache) as driver:
        pipe(driver, ("write", "", 1))
        driver.commit()
        pipe(driver, ("read", "", 2))
        assert read == {
            "get": [2],
            "gone": None,
            "all": [("a1", [2]), ("a2", [2]), ("a3", [3])],
            "reverse": ["a3", "a2", "a1"],
            "range": ["a2", "a3"],
            "low": ["a2", "a3"],
            "high": ["a1"],
            "prefix": ["a1", "a2", "a3"],
        }
        assert list(driver.store("s").all()) == read["all"]
        driver.commit()
        assert list(driver.store("s").range("a3")) == [("a3", [3])]
        with pytest.raises(InvalidError, match="only a processor"):
            driver.store("s").put("x", [1])


def test_the_default_is_got_and_not_put() -> None:
    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        values: Store[str, list[str]] = ctx.store("s")
        found = values.get(record.key)
        assert found is not None
        if record.value != "look":
            values.put(record.key, [*found, record.value])
        ctx.forward(record.key, ",".join(found))

    app = called(process, stores=lambda app: [app.store("s", key=str, value=list[str], default=list)])
    with TopologyDriver(app) as driver:
        out = pipe(driver, ("k", "look", 1), ("k", "a", 2), ("k", "b", 3), ("k", "look", 4), ("j", "look", 4))
        assert [value for _, value, _ in out] == ["", "", "a", "a,b", ""]
        assert list(driver.store("s").all()) == [("k", ["a", "b"])]


@pytest.mark.parametrize("key", [1, True, b"a", None, 1.0])
def test_a_key_of_another_type_is_refused(key: Any) -> None:
    app = called(lambda ctx, _r: ctx.store("s").put(key, "x"), stores=lambda app: [app.store("s", key=str, value=str)])
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=r"TypeError in process-1.*store 's' has"):
        pipe(driver, ("k", "v", 1))


def test_a_value_of_another_type_is_refused_at_the_commit() -> None:
    app = called(lambda ctx, _r: ctx.store("s").put("k", 1.5), stores=lambda app: [app.store("s", key=str, value=int)])
    with TopologyDriver(app) as driver:
        pipe(driver, ("k", "v", 1))
        with pytest.raises(EncodeError, match=r"a value of store 's', declared at .*test_process_stores.py"):
            driver.commit()


def test_a_store_that_was_not_given() -> None:
    app = called(lambda ctx, _r: ctx.store("sen"), stores=lambda app: [app.store("seen", key=str, value=int)])
    with TopologyDriver(app) as driver, pytest.raises(InvalidError, match=r"no store 'sen'.*'seen'.*stores="):
        pipe(driver, ("k", "v", 1))


def test_a_declaration_cannot_be_read() -> None:
    store = App("app").store("seen", key=str, value=int)
    for use in (store.all, store.range, lambda: store.get("a"), lambda: store.put("a", 1), lambda: store.delete("a")):
        with pytest.raises(InvalidError, match="declaration"):
            use()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kind": "disk"}, ValueError),
        ({"name": 1}, TypeError),
        ({"key": object}, TypeError),
        ({"default": 0}, TypeError),
    ],
)
def test_what_store_refuses(options: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"name": "s", "key": str, "value": int, **options}
    with pytest.raises(error):
        App("app").store(**arguments)


def test_a_store_may_be_filled_in_init() -> None:
    app = called(
        lambda ctx, r: ctx.forward(r.key, ctx.store("s").get("first")),
        lambda ctx: ctx.store("s").put("first", "set"),
        lambda app: [app.store("s", key=str, value=str)],
    )
    with TopologyDriver(app) as driver:
        assert pipe(driver, ("k", "v", 1)) == [("k", "set", 1)]


# ---------------------------------------------------------------- shared stores


def sharing(app: App) -> None:
    """Writes what comes from "words" and looks it up for what comes from "asks"."""
    store = app.store("shared", key=str, value=str)
    words = app.stream(app.topic("words", key=str, value=str))
    asks = app.stream(app.topic("asks", key=str, value=str))
    words.process(lambda: Calls(lambda ctx, r: ctx.store("shared").put(r.key, r.value)), stores=[store])
    answers: Stream[str, str] = asks.process(
        lambda: Calls(lambda ctx, r: ctx.forward(r.key, ctx.store("shared").get(r.key))), stores=[store]
    )
    answers.to(app.topic("out", key=str, value=str))


def test_processors_share_a_store_and_so_a_task() -> None:
    app = App("app")
    sharing(app)
    (part,) = app.describe().subtopologies
    assert part.stores == ("shared",)
    assert json.loads(app.describe().json())["internal_topics"] == ["app-shared-changelog"]
    with TopologyDriver(app, partitions=3) as driver:
        for key in "abcdef":
            driver.pipe("words", key * 2, key=key, timestamp_ms=1)
            driver.pipe("asks", "?", key=key, timestamp_ms=2)
        assert [(key, value) for key, value, _ in rows(driver)] == [(key, key * 2) for key in "abcdef"]


def test_a_shared_store_wants_like_partitions() -> None:
    with Log.open("memory:") as log:
        log.create_topic("words", partitions=2)
        log.create_topic("asks", partitions=3)
        app = App("app", log=log)
        sharing(app)
        with pytest.raises(TopologyError, match=r"shared are not co-partitioned: .*'words' at .*2, .*'asks' at .*3"):
            app.run(until="end")


def test_a_store_joins_what_a_repartition_divides() -> None:
    """Behind a hop, and at its own source: one sub-topology, one task per partition."""
    app = App("app")
    store = app.store("shared", key=str, value=int)
    words = app.stream(app.topic("words", key=str, value=str))
    asks = app.stream(app.topic("asks", key=str, value=str))
    counts = words.group_by(lambda word: word).count(store="n").changes()
    counts.process(lambda: Calls(lambda ctx, r: ctx.store("shared").put(r.key, r.value)), stores=[store])
    answers: Stream[str, int] = asks.process(
        lambda: Calls(lambda ctx, r: ctx.forward(r.key, ctx.store("shared").get(r.key))), stores=[store]
    )
    answers.to(app.topic("out", key=str, value=int))
    assert [part.stores for part in app.describe().subtopologies] == [(), ("n", "shared")]
    with TopologyDriver(app) as driver:
        for word in ("tea", "milk", "tea"):
            driver.pipe("words", word, key="x", timestamp_ms=1)
        driver.pipe("asks", "", key="tea", timestamp_ms=2)
        assert rows(driver) == [("tea", 2, 2)]


def test_a_store_on_both_sides_of_a_repartition_is_refused() -> None:
    app = App("app")
    store = app.store("shared", key=str, value=str)
    stream = app.stream(app.topic("in", key=str, value=str))
    first: Stream[str, str] = stream.process(lambda: Calls(passed_on), stores=[store])
    counts = first.group_by(lambda value: value).count(store="n").changes()
    counts.process(lambda: Calls(passed_on), stores=[store])
    with pytest.raises(
        TopologyError, match=r"'shared' is used at .*:\d+ and, behind the repartition at .*:\d+, at .*:\d"
    ):
        TopologyDriver(app)


def test_names_of_stores_are_used_once() -> None:
    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    first, second = (app.store("s", key=str, value=str) for _ in range(2))
    stream.process(lambda: Calls(passed_on), stores=[first, first])
    app.describe()
    stream.process(lambda: Calls(passed_on), stores=[second])
    with pytest.raises(TopologyError, match=r"store name 's' is used twice, at .*_stores.py:\d+ and at .*:\d+"):
        app.describe()


def test_an_aggregate_has_the_name() -> None:
    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    stream.process(lambda: Calls(passed_on), stores=[app.store("s", key=str, value=str)])
    stream.group_by_key().count(store="s")
    with pytest.raises(TopologyError, match="'s' is used twice"):
        app.describe()


def test_names_of_processors_are_used_once() -> None:
    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    for _ in range(2):
        stream.process(lambda: Calls(passed_on), name="same")
    with pytest.raises(TopologyError, match=r"name='same' is used twice, at .* and at "):
        app.describe()
