"""Tables that hold changes back: the cases of the contract, random input against models, limits, and what is refused.

Cases and random input run in pieces, each in a run of its own, so that what waits goes through commit, changelog and
restore; with the cache off and on.
"""

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import App, Grouped, Table, Window, Windowed, session, tumbling, until_stream_time, until_window_closes
from tailrace.errors import TaskError, TopologyError
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.streams import runner
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.tests.support.semantics import Output, case
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.sliding import sliding

Made = Callable[[Grouped[str, str]], Table[Any, Any]]
Out = tuple[str, Any, int]


def concat(text: str, value: str) -> str:
    return text + value


def plus(left: str, right: str) -> str:
    return f"{left}+{right}"


def counted(window: Window, **limits: Any) -> Made:
    return lambda g: g.windowed_by(window).count(store="c").suppress(until_window_closes(), store="s", **limits)


TOPOLOGIES: dict[str, Made] = {
    "S01": counted(tumbling(ms(10), grace=ms(5))),
    "S01c": counted(tumbling(ms(10))),
    "S02": lambda g: (
        g.windowed_by(session(ms(5), grace=ms(10)))
        .aggregate(str, concat, merge=plus, store="c")
        .suppress(until_window_closes(), store="s")
    ),
    "S03": lambda g: g.count(store="c").suppress(until_stream_time(ms(10)), store="s"),
    "S05": lambda g: g.count(store="c").suppress(
        until_stream_time(ms(100)), store="s", max_records=1, when_full="emit"
    ),
    "S06": counted(tumbling(ms(10)), max_records=1, when_full="fail"),
}


def shown(key: Any) -> str:
    if isinstance(key, str):
        return key
    end = ")" if key.end_ms % 10 == 0 else "]"
    return f"{key.key}@[{key.start_ms},{key.end_ms}{end}"


def build(log: Log | str, make: Made, *, cache: bool) -> App:
    app = App("suppress", log=log, cache_bytes=1 << 20 if cache else 0)
    table = make(app.stream(app.topic("in", key=str, value=str)).group_by_key())
    table.to_stream().map_kv(lambda key, value: (shown(key), None if value is None else str(value))).to(
        app.topic("out", key=str, value=str)
    )
    return app


def sent(log: Log) -> list[Out]:
    return decoded(contents(log, "out"), App("reader").topic("out", key=str, value=str))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_step_after_a_restart(name: str, cache: bool) -> None:
    wanted: list[Output] = []
    with Log.open("memory:") as log:
        log.create_topic("in")
        for number, (given, outs) in enumerate(case(name).steps, 1):
            feed(log, "in", [(given.key, given.value, given.timestamp_ms)])
            if (name, number) == ("S06", 2):
                with pytest.raises(TaskError, match="over capacity"):
                    build(log, TOPOLOGIES[name], cache=cache).run(until="end")
                break
            build(log, TOPOLOGIES[name], cache=cache).run(until="end")
            wanted += outs
            assert sent(log) == wanted, f"step {number}"


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name != "S06"])
def test_each_step_through_the_driver(name: str, cache: bool) -> None:
    with TopologyDriver(build("memory:", TOPOLOGIES[name], cache=cache), cache=cache) as driver:
        for number, (given, outs) in enumerate(case(name).steps, 1):
            driver.pipe("in", given.value, key=given.key, timestamp_ms=given.timestamp_ms)
            if cache:
                driver.commit()
            found = [(record.key, record.value, record.timestamp_ms) for record in driver.read("out")]
            assert found == outs, f"step {number}"
        assert sum(driver.dropped.values()) == case(name).dropped


# ---------------------------------------------------------------- random input

Rows = list[tuple[str, int]]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Keys and times out of order by up to 6, with jumps."""
    now, made = 0, Rows()
    for step in draw(st.lists(st.one_of(st.integers(0, 4), st.just(40)), min_size=1, max_size=30)):
        now += step
        made.append((draw(st.sampled_from("abc")), max(now - draw(st.integers(0, 6)), 0)))
    return made


def run_in_pieces(log: Log, records: Rows, cuts: set[int], make: Made, *, cache: bool, batch: int) -> None:
    log.create_topic("in")
    ends = sorted({cut for cut in cuts if cut < len(records)} | {len(records)})
    with patch.object(runner, "_SLICE", batch):
        for begin, end in zip([0, *ends], ends, strict=False):
            feed(log, "in", [(key, "x", time_ms) for key, time_ms in records[begin:end]])
            build(log, make, cache=cache).run(until="end")


settled = settings(max_examples=50, deadline=None)
pieces = st.sets(st.integers(1, 30), max_size=4)


@settled
@given(
    records=rows(),
    cuts=pieces,
    cache=st.booleans(),
    batch=st.sampled_from([1, 3, 1000]),
    window=st.sampled_from(
        [tumbling(ms(10)), tumbling(ms(10), grace=ms(5)), hopping(ms(10), ms(5), grace=ms(3)), sliding(ms(7))]
    ),
)
def test_one_result_for_each_window_that_closed(
    records: Rows, cuts: set[int], cache: bool, batch: int, window: Window
) -> None:
    """What emit="close" sends, suppress sends, at every moment; and behind a filter only what it lets through."""

    def suppressed(grouped: Grouped[str, str]) -> Table[Any, Any]:
        table = grouped.windowed_by(window).count(store="c")
        return table.filter(lambda n: n != 2).suppress(until_window_closes(), store="s")

    def closed(grouped: Grouped[str, str]) -> Table[Any, Any]:
        return grouped.windowed_by(window).count(store="c", emit="close").filter(lambda n: n != 2)

    with Log.open("memory:") as log, Log.open("memory:") as other:
        run_in_pieces(log, records, cuts, suppressed, cache=cache, batch=batch)
        run_in_pieces(other, records, set(), closed, cache=False, batch=1000)
        found = sent(log)
        assert sorted(found) == sorted(out for out in sent(other) if out[1] is not None)
        assert len({key for key, _, _ in found}) == len(found)


@settled
@given(
    records=rows(),
    cuts=pieces,
    cache=st.booleans(),
    partitions=st.integers(1, 3),
    batch=st.sampled_from([1, 3, 1000]),
)
def test_behind_a_repartition_the_results_are_those_of_emit_close(
    records: Rows, cuts: set[int], cache: bool, partitions: int, batch: int
) -> None:
    """However the partitions are read: what is late is the same, so every window has the same result, once."""
    window = tumbling(ms(10), grace=ms(50))

    def program(log: Log, made: Made) -> App:
        app = App("suppress", log=log, cache_bytes=1 << 20 if cache else 0)
        grouped = app.stream(app.topic("in", key=str, value=str)).group_by(lambda value: value)
        table = made(grouped)
        table.to_stream().map_kv(lambda key, value: (shown(key), str(value))).to(app.topic("out", key=str, value=str))
        return app

    results: list[list[Out]] = []
    makes: list[Made] = [counted(window), lambda g: g.windowed_by(window).count(store="c", emit="close")]
    for make in makes:
        with Log.open("memory:") as log, patch.object(runner, "_SLICE", batch):
            log.create_topic("in", partitions=partitions)
            ends = sorted({cut for cut in cuts if cut < len(records)} | {len(records)})
            for begin, end in zip([0, *ends], ends, strict=False):
                for key, time_ms in records[begin:end]:
                    feed(log, "in", [(key, "pq"[time_ms % 2], time_ms)], partition=ord(key) % partitions)
                program(log, make).run(until="end")
            for partition in range(partitions):
                feed(log, "in", [(None, "z", 10_000)], partition=partition)
            program(log, make).run(until="end")
            results.append(sorted(sent(log)))
    assert results[0] == results[1]
    assert len({key for key, _, _ in results[0]}) == len(results[0])


@settled
@given(records=rows(), cuts=pieces, cache=st.booleans(), grace=st.integers(0, 4))
def test_sessions_come_as_they_are_in_the_end(records: Rows, cuts: set[int], cache: bool, grace: int) -> None:
    window = session(ms(5), grace=ms(grace))
    with Log.open("memory:") as log:
        run_in_pieces(
            log,
            [*records, ("z", 1_000), ("z", 2_000)],
            cuts,
            lambda g: g.windowed_by(window).count(store="c").suppress(until_window_closes(), store="s"),
            cache=cache,
            batch=1000,
        )
        found = {key: (value, time_ms) for key, value, time_ms in sent(log)}
    assert {key: row for key, row in found.items() if row[0] is not None and key[0] != "z"} == sessions(records, grace)


def sessions(records: Rows, grace: int) -> dict[str, tuple[str, int]]:
    """Of the records that are not late: those of a key at most 5 apart, unless a session had closed for the record."""
    origin, found = 0, defaultdict[str, list[list[int]]](list)
    for key, time_ms in records:
        origin = max(origin, time_ms)
        if time_ms + 5 + grace < origin:
            continue
        near = [s for s in found[key] if s[0] - 5 <= time_ms <= s[1] + 5 and s[1] + 5 + grace >= origin]
        for each in near:
            found[key].remove(each)
        bounds = [time_ms, *(bound for s in near for bound in s[:2])]
        found[key].append([min(bounds), max(bounds), 1 + sum(s[2] for s in near)])
    return {shown(Windowed(key, start, end)): (str(n), end) for key, all_ in found.items() for start, end, n in all_}


@settled
@given(records=rows(), cuts=pieces, after=st.integers(0, 12), full=st.sampled_from([None, 1, 2]))
def test_a_key_is_sent_when_time_has_passed(records: Rows, cuts: set[int], after: int, full: int | None) -> None:
    def make(grouped: Grouped[str, str]) -> Table[Any, Any]:
        until = until_stream_time(ms(after))
        return grouped.count(store="c").suppress(until, store="s", max_records=full, when_full="emit")

    for cache in (False, True):
        with Log.open("memory:") as log:
            run_in_pieces(log, records, cuts, make, cache=cache, batch=1000)
            assert sent(log) == limited(records, after, full)


def limited(records: Rows, after: int, full: int | None) -> list[Out]:
    now, counts, times = 0, defaultdict[str, int](int), dict[str, int]()
    waiting: dict[str, int] = {}
    out: list[Out] = []

    def send(key: str) -> None:
        del waiting[key]
        out.append((key, str(counts[key]), times[key]))

    for key, time_ms in records:
        now = max(now, time_ms)
        counts[key] += 1
        times[key] = max(times.get(key, 0), time_ms)
        waiting.setdefault(key, times[key] + after)
        if waiting[key] <= now:
            send(key)
        while full is not None and len(waiting) > full:
            send(min(waiting, key=lambda k: (waiting[k], k)))
        for due, each in sorted((due, each) for each, due in waiting.items()):
            if due <= now:
                send(each)
    return out


@settled
@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 7)), min_size=1, max_size=30),
    cache=st.booleans(),
)
def test_throttle_sends_the_latest_of_each_interval(steps: list[tuple[str, int]], cache: bool) -> None:
    app = build("memory:", lambda g: g.count(store="c").throttle(ms(10), store="s"), cache=cache)
    now, last_ms, counts, seen = 0, dict[str, int](), defaultdict[str, int](int), dict[str, int]()
    with TopologyDriver(app, cache=cache) as driver:

        def look(key: str | None) -> None:
            for record in driver.read("out"):
                due = record.key not in last_ms or now - last_ms[record.key] >= 10
                assert due, "no more than one in an interval"
                assert int(record.value) == counts[record.key], "the latest"
                assert seen.get(record.key) != counts[record.key], "once"
                last_ms[record.key], seen[record.key] = now, counts[record.key]
            for each in counts:
                assert seen.get(each) == counts[each] or now - last_ms[each] < 10, f"{each} is overdue, at {key}"

        for key, pause in steps:
            for _ in range(pause):
                now += 1
                driver.advance_wall_clock(ms(1))
                look(None)
            counts[key] += 1
            driver.pipe("in", "x", key=key, timestamp_ms=now)
            look(key)
    assert set(seen) == set(counts)


# ---------------------------------------------------------------- single things


def test_what_is_throttled_waits_for_the_next_run() -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        clock = ManualClock(1_000)

        def run() -> None:
            app = build(log, lambda g: g.count(store="c").throttle(timedelta(hours=1), store="s"), cache=True)
            app.clock = clock
            app.run(until="end")

        feed(log, "in", [("a", "x", 0), ("a", "x", 1), ("b", "x", 2)])
        run()
        assert sent(log) == [("a", "1", 0), ("b", "1", 2)]
        clock.advance(3_600_000)
        feed(log, "in", [("c", "x", 3)])
        run()
        assert sorted(sent(log)[2:]) == [("a", "2", 1), ("c", "1", 3)]
        # Nothing is kept of keys that have been silent for an interval.
        clock.advance(3_600_000)
        feed(log, "in", [("d", "x", 4)])
        run()
        changelog = {record.key: record.value for record in contents(log, "suppress-s-changelog")}
        assert [key for key, value in changelog.items() if value is not None] == [b"d"]


def test_groups_behind_suppress_take_back_what_they_were_given() -> None:
    app = App("old")
    source, out = app.topic("in", key=str, value=int), app.topic("out", key=str, value=int)
    held = app.table(source, store="rows").suppress(until_stream_time(ms(10)), store="s")
    grouped = held.group_by(lambda _key, value: ("all", value))
    grouped.reduce(lambda a, b: a + b, lambda a, b: a - b, store="sum").to(out)
    with TopologyDriver(app) as driver:
        for value, time_ms in [(1, 0), (2, 5), (4, 10), (8, 11), (16, 15), (32, 40), (None, 41), (64, 60)]:
            driver.pipe(source, value, key="k", timestamp_ms=time_ms)
        # Of three values one is sent, and each takes back the one that was sent before it.
        assert [record.value for record in driver.read(out)] == [4, 32, 64]


def test_what_waits_can_be_read_and_what_was_sent_is_gone() -> None:
    make = counted(tumbling(ms(10)))
    with TopologyDriver(build("memory:", make, cache=False)) as driver:
        driver.pipe("in", "x", key="a", timestamp_ms=1)
        assert driver.store("s").get(Windowed("a", 0, 10)) == 1
        driver.pipe("in", "x", key="a", timestamp_ms=30)
        assert list(driver.store("s").all()) == [(Windowed("a", 30, 40), 1)]


def test_bytes_are_counted_too() -> None:
    def make(grouped: Grouped[str, str]) -> Table[Any, Any]:
        table = grouped.reduce(concat, store="c")
        return table.suppress(until_stream_time(ms(100)), store="s", max_bytes=10, when_full="emit")

    with TopologyDriver(build("memory:", make, cache=False)) as driver:
        driver.pipe("in", "123456", key="a", timestamp_ms=0)
        driver.pipe("in", "1", key="b", timestamp_ms=1)
        assert driver.read("out") == []
        driver.pipe("in", "23", key="b", timestamp_ms=2)
        assert [(record.key, record.value) for record in driver.read("out")] == [("a", "123456")]


def test_an_app_that_goes_on_after_errors_ends_when_the_buffer_is_full() -> None:
    app = App("full", on_error="skip")
    source = app.topic("in", key=str, value=str)
    counts = app.stream(source).group_by_key().count(store="c")
    counts.suppress(until_stream_time(ms(100)), store="s", max_records=1).to(app.topic("out", key=str, value=int))
    with TopologyDriver(app) as driver:
        driver.pipe(source, "x", key="a", timestamp_ms=0)
        with pytest.raises(TaskError, match=r"store 's', .*test_suppress.py:\d+\).* at in-0@1: 2 keys, and max_rec"):
            driver.pipe(source, "x", key="b", timestamp_ms=0)


def test_a_sink_that_raises_stops_no_other_result() -> None:
    app = App("raises", on_error="skip")
    source, out = app.topic("in", key=str, value=str), app.topic("out", key=str, value=int)

    def unlucky(key: Windowed[str], value: int) -> int:
        if key.key == "b":
            raise ValueError("not b")
        return value

    counts = app.stream(source).group_by_key().windowed_by(tumbling(ms(10))).count(store="c")
    lucky = counts.suppress(until_window_closes(), store="s").map_kv(unlucky).to_stream()
    lucky.map_kv(lambda key, value: (key.key, value)).to(out)
    with TopologyDriver(app) as driver:
        for key in "abcz":
            driver.pipe(source, "x", key=key, timestamp_ms=20 if key == "z" else 1)
        assert [record.key for record in driver.read(out)] == ["a", "c"]
        assert driver.dropped == {"error": 1}


# ---------------------------------------------------------------- refused


def table() -> tuple[App, Table[str, int]]:
    app = App("refused")
    return app, app.stream(app.topic("in", key=str, value=str)).group_by_key().count(store="c")


def test_until_a_window_closes_needs_one_that_does() -> None:
    app, counts = table()
    counts.suppress(until_window_closes(), store="s").to(app.topic("out", key=str, value=int))
    with pytest.raises(TopologyError, match=r"'s'\) at .*test_suppress.py:\d+ is given a table without windows"):
        app.describe()


REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda t: t.suppress("close", store="s"), TypeError, "takes until_window_closes"),
    (lambda t: t.suppress(until_window_closes(), store=1), TypeError, "not a name"),
    (lambda t: t.suppress(until_window_closes(), store="s", max_records=0), ValueError, "below 1"),
    (lambda t: t.suppress(until_window_closes(), store="s", max_bytes=1.5), TypeError, "not an int"),
    (lambda t: t.suppress(until_window_closes(), store="s", when_full="drop"), ValueError, "neither"),
    (lambda t: t.suppress(until_window_closes(), store="s", when_full="emit"), ValueError, "not final"),
    (lambda _t: until_stream_time(ms(-1)), ValueError, "negative"),
    (lambda _t: until_stream_time(5), TypeError, "timedelta"),  # type: ignore[arg-type]  # what is refused
    (lambda t: t.throttle(ms(0), store="s"), ValueError, "not above 0"),
    (lambda t: t.throttle(5, store="s"), TypeError, "timedelta"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_arguments_are_looked_at_at_the_call(call: Any, error: type[Exception], message: str) -> None:
    _, counts = table()
    with pytest.raises(error, match=message):
        call(counts)
