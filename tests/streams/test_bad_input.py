"""Bad input and what it gets: each a clear error or the policy, the place named, nothing lost."""

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from tailrace.log.client import Log
from tailrace.log.errors import DecodeError, EncodeError, InvalidError, TaskError, TopologyError
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.tests.support.engine import Fed, contents, feed
from tailrace.tests.support.programs import last
from tailrace.windows.duration import minutes
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling

GOOD_A: Fed = ("a", '{"n": 1}', 10)
GOOD_B: Fed = ("b", '{"n": 2}', 20)
MALFORMED: Fed = ("c", '{"n": "two"}', 15)


class Item(Struct):
    n: int


class Timed(Struct):
    at: Any


def time_of(timed: Timed) -> Any:
    return datetime.fromisoformat(timed.at) if isinstance(timed.at, str) else timed.at


@pytest.fixture
def log() -> Iterator[Log]:
    with Log.open("memory:") as opened:
        opened.create_topic("in")
        yield opened


def items(log: Log, **options: Any) -> tuple[App, Stream[str, Item]]:
    app = App("app", log=log, **options)
    return app, app.stream(app.topic("in", key=str, value=Item))


def to_out(app: App, stream: Stream[Any, Any], value: Any = Item) -> None:
    stream.to(app.topic("out", key=str, value=value))


def here() -> str:
    """File and line of the caller, as errors name it."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{frame.f_back.f_code.co_filename}:{frame.f_back.f_lineno}"


# ---------------------------------------------------------------- records that cannot be read


def test_a_malformed_value_ends_the_app_and_the_records_before_it_stay(log: Log) -> None:
    feed(log, "in", [GOOD_A, MALFORMED, GOOD_B])
    app, stream = items(log)
    to_out(app, stream)
    with pytest.raises(DecodeError, match=r"in-0@1 .*Expected `int`, got `str` - at `\$\.n`") as raised:
        app.run(until="end")
    assert "on_bad_record" in str(raised.value)
    # Mended by another type, it goes on where it was.
    app = App("app", log=log)
    app.stream(app.topic("in", key=str, value=bytes)).to(app.topic("raw", key=str, value=bytes))
    app.run(until="end")
    assert [record.value for record in contents(log, "raw")] == [b'{"n": 1}', b'{"n": "two"}', b'{"n": 2}']


def test_a_malformed_key_is_a_bad_record(log: Log) -> None:
    with log.producer() as producer:
        producer.send("in", b'{"n": 1}', key=b"\xff\xfe", timestamp_ms=1)
    app, stream = items(log)
    to_out(app, stream)
    with pytest.raises(DecodeError, match=r"in-0@0 .*utf-8"):
        app.run(until="end")


def test_bad_records_are_skipped_and_counted(log: Log) -> None:
    feed(log, "in", [MALFORMED, GOOD_A, MALFORMED, MALFORMED, GOOD_B, MALFORMED])
    app, stream = items(log, on_bad_record="skip")
    to_out(app, stream)
    summary = app.run(until="end")
    assert summary.dropped == {"bad_record": 4}
    assert summary.records_in == 6
    assert [record.value for record in contents(log, "out")] == [b'{"n":1}', b'{"n":2}']
    assert app.run(until="end").records_in == 0


def test_bad_records_become_dead_letters_as_they_came(log: Log) -> None:
    with log.producer() as producer:
        producer.send("in", b"\x00\xff", key=b"\xff", timestamp_ms=7, headers=[("h", b"1"), ("none", None)])
        producer.send("in", b'{"n": 1}', key=b"a", timestamp_ms=8)
    app, stream = items(log, on_bad_record="dead_letter")
    to_out(app, stream)
    summary = app.run(until="end")
    assert summary.dropped == {"bad_record": 1}
    assert summary.records_out == 2
    (letter,) = contents(log, "app-dead-letters")
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"\xff", b"\x00\xff", 7)
    assert list(letter.headers[:2]) == [("h", b"1"), ("none", None)]
    headers = dict(letter.headers)
    assert headers["__streams.errors.topic"] == b"in"
    assert headers["__streams.errors.partition"] == b"0"
    assert headers["__streams.errors.offset"] == b"0"
    assert headers["__streams.errors.exception"] == b"DecodeError" or b"Error" in (
        headers["__streams.errors.exception"] or b""
    )
    assert headers["__streams.errors.message"]
    assert b"Traceback" in (headers["__streams.errors.stacktrace"] or b"")
    assert headers["tailrace.node"] == b"source-0"
    assert headers["tailrace.attempts"] == b"1"


def test_errors_takes_them_before_the_policy(log: Log) -> None:
    feed(log, "in", [GOOD_A, MALFORMED, GOOD_B])
    app, stream = items(log)
    to_out(app, stream)
    stream.errors.to(app.topic("bad", key=bytes, value=bytes))
    assert app.run(until="end").dropped == {"bad_record": 1}
    (bad,) = contents(log, "bad")
    assert (bad.key, bad.value, bad.timestamp_ms) == (b"c", b'{"n": "two"}', 15)
    assert len(contents(log, "out")) == 2


def test_errors_of_several_topics_and_behind_a_map(log: Log) -> None:
    log.create_topic("in2")
    feed(log, "in", [MALFORMED])
    feed(log, "in2", [GOOD_A, MALFORMED])
    app = App("app", log=log)
    both = app.stream([app.topic("in", key=str, value=Item), app.topic("in2", key=str, value=Item)])
    mapped = both.map(lambda item: item.n)
    mapped.to(app.topic("out", key=str, value=int))
    mapped.errors.to(app.topic("bad", key=bytes, value=bytes))
    app.run(until="end")
    assert len(contents(log, "bad")) == 2
    assert len(contents(log, "out")) == 1


def test_the_next_good_record_is_found_whatever_the_batches(log: Log) -> None:
    for record in [MALFORMED, MALFORMED, GOOD_A, MALFORMED, GOOD_B, GOOD_B, MALFORMED]:
        feed(log, "in", [record])
    app, stream = items(log, on_bad_record="skip")
    stream.group_by(lambda item: str(item.n)).count(store="n").changes().to(app.topic("out", key=str, value=int))
    assert app.run(until="end").dropped == {"bad_record": 4}
    assert last(log, "out") == {"1": 1, "2": 2}


# ---------------------------------------------------------------- functions that raise


def boom(value: Any) -> Any:
    if value.n == 2:
        raise LookupError("no such thing")
    return value


def boom_key(value: Any) -> str:
    return str(boom(value).n)


def boom_kv(_key: Any, value: Any) -> Any:
    return "k", boom(value)


def boom_fold(_so_far: Any, value: Any) -> Any:
    return boom(value)


def no_pair(_key: Any, _value: Any) -> Any:
    return 5


def newest(_old: Any, new: Any) -> Any:
    return new


def key_of(value: Any) -> str | None:
    return value and f"k{value}"


def boom_many(value: Any) -> Any:
    yield boom(value)


Chain = Callable[[App, Stream[str, Item]], Any]
RAISING: dict[str, Chain] = {
    "filter": lambda app, stream: to_out(app, stream.filter(boom)),
    "map": lambda app, stream: to_out(app, stream.map(boom)),
    "map-kv": lambda app, stream: to_out(app, stream.map_kv(boom_kv)),
    "flat-map": lambda app, stream: to_out(app, stream.flat_map(boom_many)),
    "key-by": lambda app, stream: to_out(app, stream.key_by(boom_key)),
    "reduce": lambda app, stream: stream.group_by(lambda _: "k").reduce(boom_fold, store="s"),
    "aggregate": lambda app, stream: stream.group_by_key().aggregate(int, boom_fold, store="s", value=int),
}


@pytest.mark.parametrize("kind", RAISING)
def test_a_function_that_raises_is_named_with_its_line_and_record(kind: str, log: Log) -> None:
    feed(log, "in", [GOOD_A, GOOD_A, GOOD_B, GOOD_A])
    app, stream = items(log)
    RAISING[kind](app, stream)
    with pytest.raises(TaskError, match="no such thing") as raised:
        app.run(until="end")
    message = str(raised.value)
    assert "in-0@2" in message
    assert f"LookupError in {kind}-" in message
    assert __file__ in message
    assert isinstance(raised.value.__cause__, LookupError)
    assert contents(log, "out") == [] if "out" in log.topics() else True


def test_the_line_that_raised_is_named(log: Log) -> None:
    feed(log, "in", [GOOD_B])
    app, stream = items(log)
    to_out(app, stream.map(boom))
    with pytest.raises(TaskError) as raised:
        app.run(until="end")
    assert f"{__file__}:{boom.__code__.co_firstlineno + 2}" in str(raised.value)


def test_a_built_in_function_that_raises_is_named_by_the_node(log: Log) -> None:
    feed(log, "in", [(None, None, 1)])
    app = App("app", log=log)
    line = here()
    stream = app.stream(app.topic("in", key=str, value=str)).map(str.upper)
    stream.to(app.topic("out", key=str, value=str))
    with pytest.raises(TaskError, match=r"TypeError in map-\d+ .*in-0@0") as raised:
        app.run(until="end")
    assert line.rsplit(":", 1)[0] in str(raised.value)


def test_a_function_behind_a_cache_that_raises_is_named(log: Log) -> None:
    feed(log, "in", [GOOD_A, GOOD_B])
    app, stream = items(log)
    to_out(app, stream.group_by_key().reduce(boom_fold, store="s").changes().map(boom))
    with pytest.raises(TaskError, match=r"LookupError in map-\d+ \(.*test_bad_input.py:\d+.*no such thing"):
        app.run(until="end")


def test_a_timestamp_function_that_raises_makes_a_bad_record(log: Log) -> None:
    feed(log, "in", [GOOD_A, GOOD_B])
    app = App("app", log=log)
    app.stream(app.topic("in", key=str, value=Item, timestamp=lambda item: boom(item) and 5)).to(
        app.topic("out", key=str, value=Item)
    )
    told = r"in-0@1 has no time: LookupError in timestamp=lambda \(.*test_bad_input.py:\d+\): no such.*on_bad_record"
    with pytest.raises(DecodeError, match=told) as raised:
        app.run(until="end")
    assert "on_error" not in str(raised.value)


def test_a_function_that_returns_the_wrong_shape_is_named(log: Log) -> None:
    feed(log, "in", [GOOD_A])
    app, stream = items(log)
    to_out(app, stream.map_kv(no_pair))
    with pytest.raises(TaskError, match=r"map-kv-\d+ .*test_bad_input.py:\d+.*in-0@0"):
        app.run(until="end")


def test_after_a_failure_the_app_goes_on_from_its_last_commit(log: Log) -> None:
    feed(log, "in", [GOOD_A] * 3 + [GOOD_B])
    app, stream = items(log)
    stream.map(boom).group_by_key().count(store="n").changes().to(app.topic("out", key=str, value=int))
    for _ in range(2):
        with pytest.raises(TaskError):
            app.run(until="end")
    app, stream = items(log)
    stream.map(lambda item: item).group_by_key().count(store="n").changes().to(app.topic("out", key=str, value=int))
    app.run(until="end")
    assert last(log, "out") == {"a": 3, "b": 1}


@pytest.mark.parametrize("method", ["filter", "map", "map_kv", "flat_map", "key_by", "group_by", "to"])
def test_async_functions_are_refused_at_the_call(method: str, log: Log) -> None:
    async def waiting(*_: Any) -> Any: ...

    _, stream = items(log)
    with pytest.raises(TypeError, match="async"):
        getattr(stream, method)(waiting)


def test_an_async_timestamp_is_refused(log: Log) -> None:
    async def waiting(_: Any) -> Any: ...

    with pytest.raises(TypeError, match="async"):
        App("app", log=log).topic("in", key=str, value=Item, timestamp=waiting)  # type: ignore[arg-type]  # the point


# ---------------------------------------------------------------- what cannot be written


def test_a_wrong_type_is_refused_with_the_topic_and_the_line(log: Log) -> None:
    feed(log, "in", [GOOD_A])
    app, stream = items(log)
    wrong: Any = stream.map(lambda item: item.n)
    wrong.to(app.topic("out", key=str, value=str))
    with pytest.raises((EncodeError, TopologyError), match=r"'out'.*test_bad_input.py:\d+.*str"):
        app.run(until="end")


def test_a_wrong_key_is_refused_with_the_topic_and_the_line(log: Log) -> None:
    feed(log, "in", [GOOD_A])
    app, stream = items(log)
    wrong: Any = stream.key_by(lambda item: item.n)
    to_out(app, wrong)
    with pytest.raises((EncodeError, TopologyError), match=r"'out'.*test_bad_input.py:\d+.*"):
        app.run(until="end")


@pytest.mark.parametrize("stateful", [False, True])
def test_a_value_too_large_is_refused_by_topic_and_nothing_is_lost(stateful: bool, log: Log) -> None:
    def app_of(size: int) -> App:
        app = App("app", log=log)
        stream: Any = app.stream(app.topic("in", key=str, value=Item)).map(lambda item: "x" * (item.n * size))
        if stateful:
            stream = stream.group_by_key().reduce(newest, store="s").changes()
        stream.to(app.topic("out", key=str, value=str))
        return app

    feed(log, "in", [GOOD_A, GOOD_B, GOOD_A])
    with pytest.raises(InvalidError, match=r"'(out|app-s-changelog)'.*max\.message\.bytes"):
        app_of(600_000).run(until="end")
    app_of(10).run(until="end")
    lengths = {(record.key or b"").decode(): len(record.value or b"") for record in contents(log, "out")}
    assert lengths == {"a": 10, "b": 20}


# ---------------------------------------------------------------- topics


def test_a_missing_input_is_refused_with_near_names_and_the_lines(log: Log) -> None:
    log.create_topic("clicks")
    app = App("app", log=log)
    declared = here()
    topic = app.topic("click", key=str, value=str)
    app.stream(topic).to(app.topic("out", key=str, value=str))
    with pytest.raises(TopologyError, match="did you mean 'clicks'") as raised:
        app.run(until="end")
    file, line = declared.rsplit(":", 1)
    assert f"read at {file}:{int(line) + 2}" in str(raised.value)
    assert f"declared at {file}:{int(line) + 1}" in str(raised.value)
    assert log.topics() == ["clicks", "in"], "it was not created, and nothing else was"


def test_two_stores_of_one_name_are_refused_with_both_lines(log: Log) -> None:
    app, stream = items(log)
    first = here()
    stream.group_by_key().count(store="s")
    stream.group_by(lambda item: str(item.n)).count(store="s")
    with pytest.raises(TopologyError, match="'s'") as raised:
        app.run(until="end")
    file, line = first.rsplit(":", 1)
    for after in (1, 2):
        assert f"{file}:{int(line) + after}" in str(raised.value)


def test_an_empty_topic_is_a_run_of_nothing(log: Log) -> None:
    app, stream = items(log)
    stream.group_by(lambda item: str(item.n)).windowed_by(tumbling(timedelta(minutes=1))).count(
        store="s", emit="close"
    ).to_stream().map(lambda n: n or 0, value=int).map_kv(lambda w, n: (w.key, n)).to(
        app.topic("out", key=str, value=int)
    )
    summary = app.run(until="end")
    assert (summary.records_in, summary.records_out, summary.open_windows) == (0, 0, 0)
    assert summary.dropped == {}


def test_reset_latest_begins_at_the_end(log: Log) -> None:
    feed(log, "in", [GOOD_A])
    app, stream = items(log, reset="latest")
    to_out(app, stream)
    assert app.run(until="end").records_in == 0
    feed(log, "in", [GOOD_B])
    app, stream = items(log, reset="latest")
    to_out(app, stream)
    assert app.run(until="end").records_in == 1


# ---------------------------------------------------------------- nulls

WINDOWS = {
    "tumbling": tumbling(timedelta(milliseconds=10)),
    "hopping": hopping(timedelta(milliseconds=10), timedelta(milliseconds=5)),
    "session": session(timedelta(milliseconds=10)),
    "sliding": sliding(timedelta(milliseconds=10)),
}
NULLS: list[Fed] = [(None, "x", 1), ("a", None, 2), (None, None, 3), ("a", "y", 4)]


@pytest.mark.parametrize("window", [None, *WINDOWS])
def test_aggregates_leave_null_keys_and_values_out_and_count_them(window: str | None, log: Log) -> None:
    feed(log, "in", NULLS)
    app = App("app", log=log)
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    if window is None:
        grouped.count(store="s").to(app.topic("out", key=str, value=int))
    else:
        table = grouped.windowed_by(WINDOWS[window]).count(store="s")
        table.changes().map_kv(lambda w, n: (w.key, n)).to(app.topic("out", key=str, value=int))
    assert app.run(until="end").dropped == {"null_key": 2, "null_value": 1}
    assert last(log, "out") == {"a": 1}


def test_stateless_operators_see_nulls(log: Log) -> None:
    feed(log, "in", NULLS)
    app = App("app", log=log)
    seen: list[Any] = []

    def see(value: Any) -> Any:
        seen.append(value)
        return value

    def see_kv(key: Any, value: Any) -> Any:
        seen.append((key, value))
        return key, value

    def see_all(value: Any) -> Any:
        return [see(value)]

    stream: Any = app.stream(app.topic("in", key=str, value=str))
    stream.filter(see_all).map(see).map_kv(see_kv).flat_map(see_all).to(app.topic("out", key=str, value=str))
    app.run(until="end")
    assert seen[:4] == ["x", "x", (None, "x"), "x"]
    assert seen[4:8] == [None, None, ("a", None), None]
    out = [(record.key, record.value, record.timestamp_ms) for record in contents(log, "out")]
    assert out == [(None, b"x", 1), (b"a", None, 2), (None, None, 3), (b"a", b"y", 4)]


def test_a_hop_drops_null_keys_and_keeps_null_values_for_the_aggregate_to_count(log: Log) -> None:
    feed(log, "in", NULLS)
    app = App("app", log=log)
    stream: Any = app.stream(app.topic("in", key=str, value=str))
    stream.group_by(key_of).count(store="s").to(app.topic("out", key=str, value=int))
    summary = app.run(until="end")
    assert last(log, "out") == {"kx": 1, "ky": 1}
    assert sum(summary.dropped.values()) == 2


def test_an_aggregate_that_returns_none_deletes(log: Log) -> None:
    feed(log, "in", [("a", "1", 1), ("a", "-", 2), ("b", "1", 3), ("a", "2", 4), ("b", "-", 5)])
    app = App("app", log=log, cache_bytes=0)
    grouped = app.stream(app.topic("in", key=str, value=str)).group_by_key()
    table = grouped.reduce(lambda old, new: None if new == "-" else old + new, store="s")
    table.to(app.topic("out", key=str, value=str))
    app.run(until="end")
    out = [(record.key, record.value, record.timestamp_ms) for record in contents(log, "out")]
    assert out == [(b"a", b"1", 1), (b"a", None, 2), (b"b", b"1", 3), (b"a", b"2", 4), (b"b", None, 5)]


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("-1", "before 1970"),
        ("null", "None"),
        ('"2026-01-01"', "2026-01-01"),
        ('"2026-01-01T00:00:00"', "no time zone|aware"),
    ],
)
def test_a_time_that_is_none_is_a_bad_record(at: str, words: str, log: Log) -> None:
    def app_of(policy: Any) -> App:
        app = App("app", log=log, on_bad_record=policy)
        topic = app.topic("in", key=str, value=Timed, timestamp=time_of)
        app.stream(topic).to(app.topic("out", key=str, value=Timed))
        return app

    feed(log, "in", [("a", '{"at": 5}', 1), ("a", f'{{"at": {at}}}', 2), ("a", '{"at": 6}', 3)])
    with pytest.raises(DecodeError, match=rf"in-0@1 .*({words}).*; mend timestamp=time_of of .* {__file__}:\d+, or go"):
        app_of("fail").run(until="end")
    assert app_of("skip").run(until="end").dropped == {"bad_record": 1}
    assert [record.timestamp_ms for record in contents(log, "out")] == [5, 6]


def test_an_aware_datetime_is_exact(log: Log) -> None:
    app = App("app", log=log)
    topic = app.topic("in", key=str, value=Timed, timestamp=time_of)
    app.stream(topic).to(app.topic("out", key=str, value=Timed))
    feed(log, "in", [("a", '{"at": "2026-01-01T00:00:00.123+00:00"}', 1)])
    app.run(until="end")
    (record,) = contents(log, "out")
    assert record.timestamp_ms == int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1000 + 123


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("emit", ["update", "close"])
def test_a_huge_jump_in_event_time_closes_windows_and_costs_nothing(emit: Any, cache_bytes: int, log: Log) -> None:
    century_ms = 100 * 365 * 86_400_000
    config = {"message.timestamp.after.max.ms": 1 << 60}
    log.create_topic("jumps", config=config)
    feed(log, "jumps", [("a", "x", 1), ("a", "x", 2), ("a", "x", century_ms), ("a", "late", 3), ("a", "x", century_ms)])
    app = App("app", log=log, cache_bytes=cache_bytes)
    grouped = app.stream(app.topic("jumps", key=str, value=str)).group_by_key()
    table = grouped.windowed_by(tumbling(timedelta(milliseconds=10))).count(store="s", emit=emit)
    table.changes().map_kv(lambda w, n: (f"{w.key}@{w.start_ms}", n)).to(
        app.topic("out", key=str, value=int, config=config)
    )
    summary = app.run(until="end")
    assert summary.dropped == {"late": 1}
    assert last(log, "out") == {"a@0": 2} | ({} if emit == "close" else {f"a@{century_ms}": 2})
    assert summary.open_windows == 1


@pytest.mark.parametrize("beyond", [1 << 52, 1 << 70])
def test_a_time_past_the_year_9999_is_a_bad_record(log: Log, beyond: int) -> None:
    feed(log, "in", [GOOD_A])
    app = App("app", log=log, on_bad_record="skip")
    topic = app.topic("in", key=str, value=Item, timestamp=lambda _: beyond)
    app.stream(topic).to(app.topic("out", key=str, value=Item))
    assert app.run(until="end").dropped == {"bad_record": 1}


def test_an_event_time_ahead_of_now_does_not_end_the_app(log: Log) -> None:
    feed(log, "in", [GOOD_A])
    app = App("app", log=log)
    ahead_ms = 7_000_000_000_000
    topic = app.topic("in", key=str, value=Item, timestamp=lambda _: ahead_ms)
    app.stream(topic).to(app.topic("out", key=str, value=Item))
    app.run(until="end")
    assert [record.timestamp_ms for record in contents(log, "out")] == [ahead_ms]


def test_an_output_topic_with_a_guard_of_its_own_refuses_times_in_the_future(log: Log) -> None:
    log.create_topic("out")
    feed(log, "in", [GOOD_A])
    app = App("app", log=log)
    topic = app.topic("in", key=str, value=Item, timestamp=lambda _: 7_000_000_000_000)
    app.stream(topic).to(app.topic("out", key=str, value=Item))
    with pytest.raises(InvalidError, match=r"'?out'?.*timestamp|timestamp.*out"):
        app.run(until="end")


def wrong(_count: int, _value: str) -> Any:
    return "x"


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("window", [None, tumbling(minutes(1)), session(minutes(1))])
def test_an_aggregate_of_another_type_is_told_with_its_store_and_line(window: Any, cache_bytes: int) -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("k", "v", 1)])
        app = App("wrong", log=log, cache_bytes=cache_bytes)
        grouped: Any = app.stream(app.topic("in", key=str, value=str)).group_by_key()
        made = grouped.windowed_by(window) if window else grouped
        other: Any = {"merge": max} if window == session(minutes(1)) else {}
        made.aggregate(int, wrong, store="other", **other)
        with pytest.raises(EncodeError, match=r"aggregate\(store='other'\) at .*test_bad_input.py:\d+ returned"):
            app.run(until="end")


def test_the_records_of_errors_say_where_from_and_why() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer() as producer:
            producer.send("in", b"\xff", key=b"k", timestamp_ms=7, headers=[("mine", b"1")])
        app = App("explained", log=log)
        app.stream(app.topic("in", key=str, value=str)).errors.to(app.topic("bad", key=bytes, value=bytes))
        app.run(until="end")
        (record,) = contents(log, "bad")
        headers = dict(record.headers)
        assert (record.key, record.value, record.timestamp_ms) == (b"k", b"\xff", 7)
        assert headers["mine"] == b"1"
        assert headers["__streams.errors.offset"] == b"0"
        assert b"utf-8" in (headers["__streams.errors.message"] or b"")
