"""What an app does with a record for which a function raises: dropped where that happened, and nothing else changes.

The model of most programs here is the same program behind a filter that lets no such record through.
"""

import random
from collections.abc import Callable
from typing import Any, Literal

import pytest
from msgspec import Struct

from tailrace import App, Context, Record, Stream, reducers, tumbling
from tailrace.errors import CorruptError, EncodeError, FencedError, RetriableError, TaskError
from tailrace.testing import TopologyDriver
from tailrace.tests.support.processors import Calls
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding

Policy = Literal["fail", "skip", "dead_letter"]
Text = Stream[str, str]


class Seen(Struct):
    all: list[str]
    length: int
    n: int


def good(value: str) -> str:
    if value.startswith("bad"):
        raise LookupError(f"no {value}")
    return value


def is_good(value: str) -> bool:
    return bool(good(value))


def good_key(value: str) -> str:
    return good(value)[:1]


def good_kv(key: str, value: str) -> tuple[str, str]:
    return key, good(value)


def good_many(value: str) -> Any:
    yield value.lower()
    yield good(value)


def length(value: str) -> int:
    return len(good(value))


def grow(values: list[str], value: str) -> list[str]:
    """Changes its argument in place, and only then sees that it should not have."""
    values.append(value)
    good(value)
    return values


def joined(left: list[str], right: list[str]) -> list[str]:
    left += right
    return left


def either(so_far: str, value: str) -> str:
    return so_far + good(value)


def no_text(value: str) -> Any:
    """A value that its topic and its store do not take."""
    return 5 if value.startswith("bad") else value


def no_count(n: int, value: str) -> Any:
    """A result that its store does not take."""
    return "many" if value.startswith("bad") else n + 1


def processing(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
    value = good(record.value)
    ctx.forward(record.key, value)


def forwarding(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
    ctx.forward(record.key, record.value)
    ctx.forward(record.key, record.value, headers=[("own", None)])


def agg(stream: Text) -> Any:
    of: Any = {"all": reducers.collect(str), "length": reducers.sum(length), "n": reducers.count()}
    return stream.group_by_key().agg(Seen, store="s", **of).changes().map(str)


def windowed(window: Any, emit: Any = "update", **merge: Any) -> Callable[[Text], Any]:
    def make(stream: Text) -> Any:
        grouped = stream.group_by(lambda value: value[-1]).windowed_by(window)
        table = grouped.aggregate(list[str], grow, store="s", emit=emit, **merge)
        return table.changes().map_kv(lambda w, values: (f"{w.key}@{w.start_ms}", str(values)), key=str, value=str)

    return make


PROGRAMS: dict[str, Callable[[Text], Any]] = {
    "map": lambda stream: stream.map(good),
    "filter": lambda stream: stream.filter(is_good),
    "map_kv": lambda stream: stream.map_kv(good_kv),
    "key_by": lambda stream: stream.key_by(good_key),
    "group_by": lambda stream: stream.group_by(good_key).count(store="s").changes().map(str),
    "peek": lambda stream: stream.peek(good),
    "split": lambda stream: stream.split({"some": is_good})["some"],
    "encode": lambda stream: stream.map(no_text),
    "reduce": lambda stream: stream.group_by_key().reduce(either, store="s").changes(),
    "aggregate": lambda stream: stream.group_by_key().aggregate(list[str], grow, store="s").changes().map(str),
    "agg": agg,
    "tumbling": windowed(tumbling(ms(20), grace=ms(9))),
    "close": windowed(tumbling(ms(20), grace=ms(9)), "close"),
    "hopping": windowed(hopping(ms(20), ms(10), grace=ms(9))),
    "sliding": windowed(sliding(ms(9), grace=ms(9))),
    "session": windowed(session(ms(6), grace=ms(9)), merge=joined),
    "stored value": lambda stream: stream.group_by_key().aggregate(int, no_count, store="s").changes().map(str),
    "table": lambda stream: stream.to_table(store="t").map(good, store="s").to_stream(),
    "table filter": lambda stream: stream.map(good).to_table(store="t").filter(bool, store="s").changes(),
    "table of wrong": lambda stream: stream.map(no_text, value=str).to_table(store="s").changes(),
    "process": lambda stream: stream.process(lambda: Calls(processing)),
    "behind a processor": lambda stream: stream.process(lambda: Calls(forwarding)).map(good, value=str),
}


def app_of(make: Callable[[Text], Any], *, policy: Policy, filtered: bool = False, **options: Any) -> App:
    app = App("app", on_error=policy, **options)
    stream = app.stream(app.topic("in", key=str, value=str))
    if filtered:
        stream = stream.filter(lambda value: not value.startswith("bad"))
    made: Any = make(stream)
    made.to(app.topic("out", key=str, value=str))
    return app


def rows(driver: TopologyDriver) -> list[tuple[Any, Any, int]]:
    return [(record.key, record.value, record.timestamp_ms) for record in driver.read("out")]


def some(seed: int) -> list[tuple[str, str, int]]:
    rng = random.Random(seed)
    fed: list[tuple[str, str, int]] = []
    for i in range(120):
        value = rng.choice(["a", "bb", "cccc", "bada", "badbb", "dddd"])
        fed.append((rng.choice("kl"), value, i * 2 + rng.randrange(-6, 7) + 10))
    return fed


def run(app: App, fed: list[tuple[str, str, int]], *, cache: bool) -> tuple[list[Any], int]:
    """All that comes out, and how many errors were counted."""
    with TopologyDriver(app, cache=cache) as driver:
        out: list[Any] = []
        for at, (key, value, timestamp_ms) in enumerate(fed):
            driver.pipe("in", value, key=key, timestamp_ms=timestamp_ms)
            if at % 10 == 9:
                driver.commit()
        driver.commit()
        out += rows(driver)
        if kept_in(app):
            out += driver.store("s").all()
        return out, driver.dropped.get("error", 0)


def kept_in(app: App) -> bool:
    """Whether there is a store of plain keys."""
    return any(
        each.name == "s" and each.retention_ms is None for n in app.describe().nodes for each in n.operator.stores
    )


@pytest.mark.parametrize(
    ("kind", "cache"),
    # The cache of the table before it may merge a good value and a bad one into the bad one.
    [(kind, cache) for kind in PROGRAMS for cache in (False, True) if not (cache and kind == "table")],
)
def test_what_is_skipped_changes_nothing_else(kind: str, cache: bool) -> None:
    # A reducer is not asked about the first value of a key.
    fed = [("k", "a", 1), ("l", "b", 2), *some(7)]
    found, errors = run(app_of(PROGRAMS[kind], policy="skip"), fed, cache=cache)
    expected, none = run(app_of(PROGRAMS[kind], policy="skip", filtered=True), fed, cache=cache)
    assert found == expected
    assert (errors > 0, none) == (True, 0)


# ---------------------------------------------------------------- what goes on


@pytest.mark.parametrize("cache", [False, True])
def test_other_branches_and_other_values_go_their_way(cache: bool) -> None:
    def make(stream: Text) -> Text:
        stream.map(good).for_each(raised.append)
        stream.group_by_key().count(store="s")
        parts = stream.flat_map(lambda value: value.split())
        parts.map(good).to_table(store="t")
        return parts.map(good)

    raised: list[str] = []
    with TopologyDriver(app_of(make, policy="skip"), cache=cache) as driver:
        driver.pipe("in", "a bad1 b bad2 c", key="k", timestamp_ms=1)
        driver.pipe("in", "bad3", key="k", timestamp_ms=2)
        assert [value for _, value, _ in rows(driver)] == ["a", "b", "c"]
        assert (driver.store("s").get("k"), driver.store("t").get("k")) == (2, "c")
        assert raised == ["a bad1 b bad2 c"]
        # Twice each bad part, in two branches, and the whole of the last in the first branch.
        assert driver.dropped == {"error": 2 * 3 + 1}


def test_what_was_done_before_stays() -> None:
    """As in Kafka Streams: the record is counted, and what raised is behind the count."""

    def make(stream: Text) -> Text:
        counts = stream.group_by_key().count(store="s").changes()
        return counts.map(lambda n: good("bad") if n == 2 else str(n))

    with TopologyDriver(app_of(make, policy="skip")) as driver:
        for at in range(3):
            driver.pipe("in", "v", key="k", timestamp_ms=at)
        assert rows(driver) == [("k", "1", 0), ("k", "3", 2)]
        assert driver.store("s").get("k") == 3


def test_a_processor_is_not_told_of_errors_behind_it_and_may_put_again() -> None:
    told: list[Exception] = []

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        store: Any = ctx.store("own")
        store.put(record.key, record.value)
        try:
            ctx.forward(record.key, record.value)
        except Exception as error:  # noqa: BLE001 - the point
            told.append(error)
        store.put("wrong", no_text(record.value))

    app = App("app", on_error="skip")
    own = app.store("own", key=str, value=str)
    stream = app.stream(app.topic("in", key=str, value=str)).process(lambda: Calls(process), stores=[own])
    stream.map(good, value=str).to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        for at, value in enumerate(["a", "bad", "b"]):
            driver.pipe("in", value, key="k", timestamp_ms=at)
        driver.commit()
        assert [value for _, value, _ in rows(driver)] == ["a", "b"]
        assert dict(driver.store("own").all()) == {"k": "b", "wrong": "b"}
        assert driver.dropped == {"error": 2}
    assert told == []


@pytest.mark.parametrize("clock", ["stream", "wall"])
def test_scheduled_calls_that_raise_are_dropped_and_called_again(clock: Any) -> None:
    called: list[int] = []

    def call(now_ms: int) -> None:
        called.append(now_ms)
        raise LookupError("no such call")

    def init(ctx: Context[Any, Any]) -> None:
        ctx.schedule(ms(10), call, clock=clock)

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        ctx.forward(record.key, good(record.value))

    app = app_of(lambda stream: stream.process(lambda: Calls(process, init)), policy="dead_letter")
    with TopologyDriver(app) as driver:
        for at, value in ((10, "a"), (20, "bad"), (30, "c")):
            driver.pipe("in", value, key="k", timestamp_ms=at)
            driver.advance_wall_clock(ms(10))
        assert len(called) == 3
        assert [value for _, value, _ in rows(driver)] == ["a", "c"]
        assert driver.dropped == {"error": 4}
        letters = driver.read("app-dead-letters")
    assert sorted(letter.value or b"" for letter in letters) == [b"", b"", b"", b"bad"]
    results = [dict(letter.headers).get("tailrace.result") for letter in letters if letter.value is None]
    assert all(f"a call scheduled on the {clock} clock".encode() in (result or b"") for result in results)
    assert len(results) == 3


# ---------------------------------------------------------------- dead letters


def test_a_dead_letter_is_the_source_record_as_it_came() -> None:
    def make(stream: Text) -> Text:
        stream.group_by(lambda value: value[:1]).count(store="s")
        return stream.map(str.strip).group_by(lambda value: value[-1:], name="last").reduce(either, store="r").changes()

    with TopologyDriver(app_of(make, policy="dead_letter"), partitions=3) as driver:
        driver.pipe("in", " abc ", key="k", timestamp_ms=7, headers=[("h", b"1")], partition=2)
        driver.pipe("in", " badc", key="key", timestamp_ms=8, headers=[("h", b"2")], partition=2)
        (letter,) = driver.read("app-dead-letters")
        assert driver.dropped == {"error": 1}
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"key", b" badc", 8)
    headers = dict(letter.headers)
    trace = headers.pop("__streams.errors.stacktrace") or b""
    assert b"in good\n" in trace
    assert headers == {
        "h": b"2",
        "__streams.errors.topic": b"in",
        "__streams.errors.partition": b"2",
        "__streams.errors.offset": b"1",
        "__streams.errors.exception": b"LookupError",
        "__streams.errors.message": b"no badc",
        "tailrace.node": b"reduce-7",
        "tailrace.attempts": b"1",
    }


def test_behind_a_result_the_letter_has_the_record_that_brought_it_about() -> None:
    def make(stream: Text) -> Text:
        counts = stream.group_by(lambda value: value[:1]).count(store="s").changes()
        return counts.process(lambda: Calls(lambda ctx, record: ctx.forward("k", 5, headers=[("own", b"")])))

    app = app_of(make, policy="dead_letter")
    with TopologyDriver(app) as driver:
        driver.pipe("in", "abc", key="key", timestamp_ms=7, headers=[("h", b"1")])
        (letter,) = driver.read("app-dead-letters")
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["h"], headers["__streams.errors.exception"]) == (
        b"key",
        b"abc",
        b"1",
        b"EncodeError",
    )
    assert "own" not in headers
    assert (headers["tailrace.node"] or b"").startswith(b"sink-")


@pytest.mark.parametrize("emit", ["update", "close"])
def test_behind_a_cache_or_a_closed_window_the_letter_names_the_result(emit: Any) -> None:
    def make(stream: Text) -> Text:
        windows = stream.group_by_key().windowed_by(tumbling(ms(10)))
        counts = windows.count(store="s", emit=emit).changes()
        return counts.map_kv(lambda w, n: (w.key, good("bad") if w.key == "b" else str(n)), key=str, value=str)

    with TopologyDriver(app_of(make, policy="dead_letter"), cache=True) as driver:
        for key in "abc":
            driver.pipe("in", "v", key=key, timestamp_ms=5)
        driver.pipe("in", "v", key="later", timestamp_ms=15)
        driver.commit()
        assert [(key, value) for key, value, _ in rows(driver) if key != "later"] == [("a", "1"), ("c", "1")]
        (letter,) = driver.read("app-dead-letters")
        assert driver.dropped == {"error": 1}
    headers = dict(letter.headers)
    assert (letter.key, letter.value, letter.timestamp_ms) == (None, None, 5)
    assert "__streams.errors.topic" not in headers
    assert b"a result of a window or a cache: key Windowed(key='b'" in (headers["tailrace.result"] or b"")


def test_the_function_that_is_handed_bad_records_follows_the_policy_too() -> None:
    app = App("app", on_error="skip")
    stream = app.stream(app.topic("in", key=str, value=int))
    stream.errors.map(lambda value: good("bad")).to(app.topic("errors", key=bytes, value=str))
    stream.map(str).to(app.topic("out", key=str, value=str))
    raw = App("raw").topic("in", key=str, value=bytes)
    with TopologyDriver(app) as driver:
        driver.pipe(raw, b"short", key="k", timestamp_ms=1)
        driver.pipe("in", 5, key="k", timestamp_ms=2)
        assert rows(driver) == [("k", "5", 2)]
        assert driver.dropped == {"error": 1, "bad_record": 1}


# ---------------------------------------------------------------- what ends the app all the same


@pytest.mark.parametrize(
    "error",
    [
        RetriableError("no room"),
        FencedError("replaced"),
        CorruptError("torn", file="f", position=1),
        MemoryError("too much"),
    ],
)
@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_errors_that_no_policy_takes(error: Exception, policy: Policy) -> None:
    def raising(_: str) -> str:
        raise error

    def make(stream: Text) -> Text:
        return stream.flat_map(lambda value: [value]).map(raising)

    with TopologyDriver(app_of(make, policy=policy)) as driver:
        with pytest.raises((type(error), TaskError)) as raised:
            driver.pipe("in", "v", key="k", timestamp_ms=1)
        assert error in {raised.value, raised.value.__cause__}
        assert driver.dropped == {}


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_processor_cannot_hide_what_ends_the_app(policy: Policy) -> None:
    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        try:
            ctx.forward(record.key, record.value)
        except Exception:  # noqa: BLE001 - the point
            return

    def full(_: str) -> str:
        raise RetriableError("no room")

    app = app_of(lambda stream: stream.process(lambda: Calls(process)).map(full), policy=policy)
    with TopologyDriver(app) as driver, pytest.raises(RetriableError, match="no room"):
        driver.pipe("in", "v", key="k", timestamp_ms=1)


@pytest.mark.parametrize("when", ["init", "factory"])
def test_the_start_of_a_processor_follows_no_policy(when: str) -> None:
    def init(_: Context[Any, Any]) -> None:
        raise LookupError("not here")

    def make() -> Calls:
        if when == "factory":
            raise LookupError("not here")
        return Calls(processing, init)

    with pytest.raises(TaskError, match="not here") as raised:
        TopologyDriver(app_of(lambda stream: stream.process(make), policy="skip"))
    assert "skip" not in str(raised.value)


def test_a_store_that_cannot_be_read_ends_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(lambda stream: stream.map(str).group_by_key().reduce(either, store="s").changes(), policy="skip")
    with TopologyDriver(app) as driver:
        driver.pipe("in", "v", key="k", timestamp_ms=1)

        def broken(*_: Any) -> Any:
            raise OSError("the disk is gone")

        monkeypatch.setattr("tailrace.state.memory.MemoryKeyspace.get", broken)
        driver.commit()
        with pytest.raises(TaskError, match="the disk is gone"):
            driver.pipe("in", "v", key="other", timestamp_ms=2)


class SilentError(Exception):
    """One whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "words"),
    [(SilentError(), "SilentError, whose own text raises RuntimeError"), (StopIteration(), "StopIteration")],
)
def test_an_exception_that_says_nothing_is_named(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def speechless(_: str) -> str:
        raise error

    with TopologyDriver(app_of(lambda stream: stream.map(speechless), policy="dead_letter")) as driver:
        driver.pipe("in", "v", key="k", timestamp_ms=1)
        (letter,) = driver.read("app-dead-letters")
        assert driver.dropped == {"error": 1}
    assert dict(letter.headers)["__streams.errors.message"] == words.encode()
    assert f"at in-0@0: {words}; it is dropped" in caplog.text
    with (
        TopologyDriver(app_of(lambda stream: stream.map(speechless), policy="fail")) as driver,
        pytest.raises(TaskError, match=f"at in-0@0: {words}; nothing after"),
    ):
        driver.pipe("in", "v", key="k", timestamp_ms=1)


class Unseen:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no looking")


@pytest.mark.parametrize("policy", ["skip", "dead_letter", "fail"])
def test_a_value_that_cannot_be_shown_is_dropped_all_the_same(policy: Policy) -> None:
    with TopologyDriver(app_of(lambda stream: stream.map(lambda _: Unseen()), policy=policy)) as driver:
        if policy == "fail":
            with pytest.raises(EncodeError, match=r"the value: a Unseen.*in-0@0"):
                driver.pipe("in", "v", key="k", timestamp_ms=1)
        else:
            driver.pipe("in", "v", key="k", timestamp_ms=1)
            assert driver.dropped == {"error": 1}


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="on_error='ignore'"):
        App("app", on_error="ignore")  # type: ignore[arg-type]  # the point
