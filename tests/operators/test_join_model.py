"""Joins of two streams against plain loops over lists: random records, windows, commits, restarts, partitions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.operators.join import JoinKind
from tailrace.streams.surface.stream import Stream
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents
from tailrace.windows.duration import milliseconds as ms


class In(NamedTuple):
    """A record of one side, L or R."""

    side: str
    key: str | None
    value: str | None
    time: int


class Program(NamedTuple):
    join: JoinKind
    before: int
    after: int
    grace: int


Row = tuple[str | None, str, int]


class Found(NamedTuple):
    """Results and late records, in order."""

    results: list[Row]
    late: list[Row]
    dropped: int


@dataclass
class Kept:
    side: str
    key: str
    value: str
    time: int
    alone: bool = True
    sent: bool = False


def model(program: Program, records: Iterable[In]) -> Found:
    """What comes of records in their order; nothing is ever forgotten."""
    join, before, after, grace = program
    opens = {"L": max(after, 0) + grace, "R": max(before, 0) + grace}
    sending = {"join": "", "left_join": "L", "outer_join": "LR"}[join]
    now, dropped, kept, out, late = -1, 0, list[Kept](), list[Row](), list[Row]()
    for side, key, value, time in records:
        now = max(now, time)
        for old in sorted(kept, key=lambda old: (old.time, old.side == "L", old.key)):
            if old.side in sending and old.alone and not old.sent and old.time + opens[old.side] < now:
                old.sent = True
                out.append((old.key, shown(old.side, old.value, None), old.time))
        if key is None or value is None:
            if value is not None and side in sending:
                out.append((key, shown(side, value, None), time))
            else:
                dropped += 1
            continue
        near = [
            old
            for old in sorted(kept, key=lambda old: old.time)
            if old.side != side
            and old.key == key
            and (-before <= old.time - time <= after if side == "L" else -before <= time - old.time <= after)
        ]
        partners = [old for old in near if not old.sent]
        if time + opens[side] < now or (near and not partners):
            late.append((key, value, time))
            continue
        for old in partners:
            old.alone = False
            out.append((key, shown(side, value, old.value), max(time, old.time)))
        kept.append(Kept(side, key, value, time, alone=not partners))
    return Found(out, late, dropped + len(late))


def self_model(program: Program, records: Iterable[In]) -> Found:
    """The same where every record stands on both sides."""
    _, before, after, grace = program
    now, kept, out, late = -1, list[tuple[str, str, int]](), list[Row](), list[Row]()
    for _, key, value, time in records:
        assert key is not None
        assert value is not None
        now = max(now, time)
        if time + max(before, after) + grace < now:
            late.append((key, value, time))
            continue
        mine = sorted(((k, v, t) for k, v, t in kept if k == key), key=lambda old: old[2])
        out += [(key, pair(value, v), max(t, time)) for _, v, t in mine if -before <= t - time <= after]
        kept.append((key, value, time))
        mine = sorted(((k, v, t) for k, v, t in kept if k == key), key=lambda old: old[2])
        out += [(key, pair(v, value), max(t, time)) for _, v, t in mine if -before <= time - t <= after]
    return Found(out, late, len(late))


def pair(left: str | None, right: str | None) -> str:
    return f"{left}+{right}"


def shown(side: str, value: str, other: str | None) -> str:
    return pair(value, other) if side == "L" else pair(other, value)


def declare(app: App, program: Program, left: Stream[str, str], right: Stream[str, str]) -> None:
    before, after, grace = (ms(each) for each in program[1:])
    if program.join == "join":
        joined = left.join(right, pair, store="j", before=before, after=after, grace=grace)
    elif program.join == "left_join":
        joined = left.left_join(right, pair, store="j", before=before, after=after, grace=grace)
    else:
        joined = left.outer_join(right, pair, store="j", before=before, after=after, grace=grace)
    joined.to(app.topic("out", key=str, value=str))
    joined.late.to(app.topic("late", key=str, value=str))


def sides_of_one_topic(app: App, *, rekeyed: bool) -> tuple[Stream[str, str], Stream[str, str]]:
    """Both sides out of one topic, so that their order is that of its offsets."""
    split = app.stream(app.topic("in", key=str, value=str)).split({side: in_side(side) for side in "LR"})
    left, right = (split[side].map(without_side, value=str) for side in "LR")
    if rekeyed:
        return left.map_kv(as_it_is, key=str, value=str), right.map_kv(as_it_is, key=str, value=str)
    return left, right


def in_side(side: str) -> Callable[[str], bool]:
    return lambda value: value[0] == side


def without_side(value: str) -> Any:
    return value[1:] or None


def as_it_is(key: str, value: str) -> tuple[str, str]:
    return key, value


def send(log: Log, records: Iterable[In], *, batch: int = 3) -> None:
    with log.producer(linger_ms=0) as producer:
        for number, (side, key, value, time) in enumerate(records):
            producer.send(
                "in",
                (side + (value or "")).encode(),
                key=None if key is None else key.encode(),
                timestamp_ms=time,
                partition=0,
            )
            if number % batch == 0:
                producer.flush()


def rows(log: Log, topic: str) -> list[Row]:
    return [
        (None if row.key is None else row.key.decode(), (row.value or b"").decode(), row.timestamp_ms)
        for row in contents(log, topic)
    ]


@st.composite
def some_programs(draw: st.DrawFn) -> Program:
    """Joins of every kind; a bound may be negative."""
    join: JoinKind = draw(st.sampled_from(["join", "left_join", "outer_join"]))
    before = draw(st.integers(-3, 8))
    return Program(join, before, draw(st.integers(0, 12)) - before, draw(st.integers(0, 6)))


programs = some_programs()


@st.composite
def arrivals(draw: st.DrawFn) -> list[In]:
    """Records whose times go on, some of them late; every value tells its record."""
    time, records = 0, list[In]()
    for number in range(draw(st.integers(1, 24))):
        time += draw(st.sampled_from([0, 0, 1, 2, 5, 30]))
        key = draw(st.sampled_from(["a", "a", "a", "b", "c", None] if number % 5 == 0 else ["a", "a", "b"]))
        value = draw(st.sampled_from([f"{number}"] * 9 + [None])) if number % 5 == 0 else f"{number}"
        at = max(time - draw(st.sampled_from([0, 0, 0, 1, 3, 7, 12])), 0)
        records.append(In(draw(st.sampled_from("LR")), key, value, at))
    return records


def drive(app: App, records: Iterable[In], commits: set[int], *, cache: bool) -> Found:
    with TopologyDriver(app, cache=cache) as driver:
        for number, (side, key, value, time) in enumerate(records):
            driver.pipe(side, value, key=key, timestamp_ms=time)
            if number in commits:
                driver.commit()
        found = [[(each.key, each.value, each.timestamp_ms) for each in driver.read(name)] for name in ("out", "late")]
        return Found(found[0], found[1], sum(driver.dropped.values()))


@settings(max_examples=100, deadline=None)
@given(programs, arrivals(), st.sets(st.integers(0, 24)), st.booleans())
def test_record_by_record(program: Program, records: list[In], commits: set[int], cache: bool) -> None:
    app = App("app")
    left, right = (app.stream(app.topic(side, key=str, value=str)) for side in "LR")
    declare(app, program, left, right)
    assert drive(app, records, commits, cache=cache) == model(program, records)


@settings(max_examples=50, deadline=None)
@given(programs, arrivals(), st.sets(st.integers(0, 24)), st.booleans())
def test_a_stream_with_itself(program: Program, given: list[In], commits: set[int], cache: bool) -> None:
    program = program._replace(before=abs(program.before), after=abs(program.after))
    records = [In("L", each.key, each.value, each.time) for each in given if each.key and each.value]
    app = App("app")
    left = app.stream(app.topic("L", key=str, value=str))
    declare(app, program, left, left)
    assert drive(app, records, commits, cache=cache) == self_model(program, records)


@pytest.mark.parametrize("rekeyed", [False, True])
@settings(max_examples=50, deadline=None)
@given(program=programs, records=arrivals(), data=st.data())
def test_any_batches_and_restarts(program: Program, records: list[In], data: st.DataObject, rekeyed: bool) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records)), max_size=4)) | {0, len(records)})
    batch, cache = data.draw(st.integers(1, 10)), data.draw(st.booleans())
    dropped = 0
    with Log.open("memory:") as log:
        log.create_topic("in")
        for begin, end in pairwise(cuts):
            send(log, records[begin:end], batch=batch)
            app = App("app", log=log, cache_bytes=1 << 20 if cache else 0)
            declare(app, program, *sides_of_one_topic(app, rekeyed=rekeyed))
            dropped += sum(app.run(until="end").dropped.values())
        found = Found(rows(log, "out"), rows(log, "late"), dropped)
    wanted = model(program, records)
    if rekeyed:
        # Time goes on behind the records of a batch: what has no partner comes later, and is the same.
        found, wanted = (Found(sorted(each.results, key=str), *each[1:]) for each in (found, wanted))
    assert found == wanted


@settings(max_examples=30, deadline=None)
@given(
    programs,
    st.lists(st.tuples(st.sampled_from("LR"), st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=40),
    st.data(),
)
def test_disorder_within_the_grace_loses_nothing(
    program: Program, made: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Both sides behind a repartition, from three partitions each: every pair, and whoever has none, once."""
    program = program._replace(grace=10)
    late_by_up_to_five = sorted(made, key=lambda each: each[1] + each[2])
    records = [
        In(side, "abc"[number % 3], f"{number}", time) for number, (side, time, _) in enumerate(late_by_up_to_five)
    ]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(records)), max_size=3)) | {0, len(records)})
    with Log.open("memory:") as log:
        for topic in "LR":
            log.create_topic(topic, partitions=3)
        for begin, end in pairwise(cuts):
            part = records[begin:end] + [In(side, None, "-", 1_000) for side in "LR" if end == len(records)] * 3
            with log.producer(linger_ms=0) as producer:
                for number, (side, key, value, time) in enumerate(part):
                    text = f"{key or 'z'}{value}".encode()
                    producer.send(side, text, timestamp_ms=time, partition=number // 2 % 3)
            app = App("app", log=log)
            left, right = (app.stream(app.topic(side, key=str, value=str)).key_by(lambda v: v[0]) for side in "LR")
            declare(app, program, left, right)
            assert app.run(until="end").dropped == {}
        found = [row for row in rows(log, "out") if row[2] < 1_000]
    keyed = [each._replace(value=f"{each.key}{each.value}") for each in records]
    wanted = model(program, [*keyed, In("L", "z", "-", 1_000)])
    everything = model(program._replace(grace=1_000), [*keyed, In("L", "z", "-", 5_000)])
    assert sorted(wanted.results) == sorted(everything.results)
    assert sorted(found) == sorted(row for row in everything.results if row[2] < 1_000)


@settings(max_examples=50, deadline=None)
@given(
    some_programs(),
    some_programs(),
    st.lists(st.tuples(st.sampled_from("LRS"), st.sampled_from("aab"), st.integers(0, 9)), max_size=30),
    st.sets(st.integers(0, 30)),
    st.booleans(),
)
def test_a_join_of_a_join(
    first: Program, second: Program, made: list[tuple[str, str, int]], commits: set[int], cache: bool
) -> None:
    """What the first one sends without a partner, long after its time, finds its partners in the second."""
    time, records = 0, list[In]()
    for number, (side, key, step) in enumerate(made):
        time += step
        records.append(In(side, key, f"{side}{number}", time))
    records.append(In("S", "z", "-", 10_000))
    app = App("app")
    left, right, third = (app.stream(app.topic(side, key=str, value=str)) for side in "LRS")
    if first.join == "join":
        joined = left.join(right, pair, store="i", before=ms(first.before), after=ms(first.after), grace=ms(0))
    else:
        joined = left.left_join(right, pair, store="i", before=ms(first.before), after=ms(first.after), grace=ms(0))
    declare(app, second, joined, third)
    found = drive(app, records, commits | {len(records) - 1}, cache=cache)
    # In order of time nothing is late, and nothing is sent too soon: what comes of it can be said of the whole.
    inner = [each for each in records if each.side in "LR"] + [In("R", "z", "-", 10_000)]
    sent = model(first._replace(grace=0, join="join" if first.join == "join" else "left_join"), inner).results
    both = [In("L", key, value, time) for key, value, time in sent]
    both += [In("R", each.key, each.value, each.time) for each in records if each.side == "S"]
    wanted = model(second, sorted(both, key=lambda each: each.time)).results
    assert sorted(found.results, key=str) == sorted(wanted, key=str)
    assert found.late == []
