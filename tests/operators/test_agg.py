"""`agg` against plain Python: each kind of window, cache off and on, restarted after each step."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from tailrace import reducers as r
from tailrace.log.client import Log
from tailrace.log.errors import EncodeError
from tailrace.streams.app import App
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents
from tailrace.tests.support.reducing import CLICKS, REDUCERS, Click, Line, agg, grouped, itself, model
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed

Windows = dict[tuple[int, int], list[Click]]


def no_windows(clicks: list[Click]) -> Windows:
    return {(0, 0): clicks} if clicks else {}


def aligned(size: int, every: int) -> Callable[[list[Click]], Windows]:
    def windows(clicks: list[Click]) -> Windows:
        found: Windows = {}
        for click in clicks:
            for start in range(0, click.at + 1, every):
                if click.at < start + size:
                    found.setdefault((start, start + size), []).append(click)
        return found

    return windows


def sessions(gap: int) -> Callable[[list[Click]], Windows]:
    def windows(clicks: list[Click]) -> Windows:
        found: list[tuple[int, int, list[Click]]] = []
        for click in clicks:
            near = [each for each in found if each[0] - gap <= click.at <= each[1] + gap]
            joined = [old for _, _, items in near for old in items]
            start = min([click.at, *(each[0] for each in near)])
            end = max([click.at, *(each[1] for each in near)])
            found = sorted([each for each in found if each not in near] + [(start, end, [*joined, click])])
        return {(start, end): items for start, end, items in found}

    return windows


def slides(size: int) -> Callable[[list[Click]], Windows]:
    def windows(clicks: list[Click]) -> Windows:
        starts = {max(0, c.at - size) for c in clicks} | {c.at + 1 for c in clicks}
        inside = {start: [c for c in clicks if start <= c.at <= start + size] for start in starts}
        return {(start, start + size): items for start, items in inside.items() if items}

    return windows


GRACE = ms(1_000)
KINDS: list[Any] = [
    pytest.param(None, no_windows, id="plain"),
    pytest.param(tumbling(ms(10), grace=GRACE), aligned(10, 10), id="tumbling"),
    pytest.param(hopping(ms(10), ms(4), grace=GRACE), aligned(10, 4), id="hopping"),
    pytest.param(session(ms(5), grace=GRACE), sessions(5), id="session"),
    pytest.param(sliding(ms(6), grace=GRACE), slides(6), id="sliding"),
]


def program(window: Window | None, log: str | Log = "memory:", **options: Any) -> App:
    app = App("agg", log=log, **options)
    out = app.topic("out", key=str if window is None else Windowed[str], value=Line)
    agg(grouped(app), window).to(out)
    return app


def lines(rows: Iterable[tuple[Any, Line]]) -> dict[tuple[int, int], Line]:
    return {(key.start_ms, key.end_ms) if isinstance(key, Windowed) else (0, 0): line for key, line in rows}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("window", "windows"), KINDS)
@settings(max_examples=25, deadline=None)
@given(clicks=CLICKS)
def test_store_and_topic_have_what_plain_python_makes(
    window: Window | None, windows: Callable[[list[Click]], Windows], cache: bool, clicks: list[Click]
) -> None:
    with TopologyDriver(program(window), cache=cache) as driver:
        for click in clicks:
            driver.pipe("clicks", click, key="k")
        wanted = {bounds: model(items) for bounds, items in windows(clicks).items()}
        assert lines(driver.store("lines").all()) == wanted
        driver.commit()
        written: dict[Any, Line | None] = {record.key: record.value for record in driver.read("out")}
        assert lines((key, line) for key, line in written.items() if line is not None) == wanted


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize(("window", "windows"), KINDS)
def test_restarted_after_each_step(
    window: Window | None, windows: Callable[[list[Click]], Windows], cache_bytes: int
) -> None:
    times = [3, 12, 20, 8, 5, 12, 40]
    clicks = [Click("abc"[i % 3], None if i == 3 else i % 4, at) for i, at in enumerate(times)]
    with Log.open("memory:") as log, log.producer(linger_ms=0) as producer:
        log.create_topic("clicks")
        for done, click in enumerate(clicks, 1):
            producer.send("clicks", msgspec.json.encode(click), key=b"k").result()
            app = program(window, log, cache_bytes=cache_bytes)
            app.run(until="end")
            key_of = next(topic for topic in app.graph.topics if topic.name == "out").key_codec.decode
            newest = {record.key: record.value for record in contents(log, "out")}
            found = lines(
                (key_of(key), msgspec.json.decode(data, type=Line))
                for key, data in newest.items()
                if key is not None and data is not None
            )
            assert found == {bounds: model(items) for bounds, items in windows(clicks[:done]).items()}


def test_each_change_is_sent_without_a_cache() -> None:
    clicks = [Click("a", 3), Click("b", None), Click("a", 5)]
    with TopologyDriver(program(None)) as driver:
        for click in clicks:
            driver.pipe("clicks", click, key="k")
        assert [record.value for record in driver.read("out")] == [model(clicks[: i + 1]) for i in range(3)]


@pytest.mark.parametrize("cache", [False, True])
def test_final_results(cache: bool) -> None:
    app = App("agg", log="memory:")
    windows = grouped(app).windowed_by(session(ms(5)))
    windows.agg(Line, store="lines", emit="close", **REDUCERS).to(app.topic("out", key=Windowed[str], value=Line))
    clicks = [Click("a", 3, 0), Click("b", 1, 4), Click("c", 2, 50)]
    with TopologyDriver(app, cache=cache) as driver:
        for click in clicks:
            driver.pipe("clicks", click, key="k")
        driver.commit()
        found = [(record.key, record.value) for record in driver.read("out")]
    assert found == [(Windowed("k", 0, 4), model(clicks[:2]))]


@pytest.mark.parametrize("cache", [False, True])
def test_tables_made_of_the_table_see_the_users_type(cache: bool) -> None:
    app = App("agg", log="memory:")
    lines = agg(grouped(app), None)
    odd = lines.filter(lambda line: line.n % 2 == 1)
    odd.map(lambda line: line.cents, store="cents").to(app.topic("odd", key=str, value=int))
    with TopologyDriver(app, cache=cache) as driver:
        for paid in (1, 2, 3, 4, 5):
            driver.pipe("clicks", Click("a", paid), key="k")
            driver.commit()
        assert [record.value for record in driver.read("odd")] == [1, None, 6, None, 15]


def test_an_older_records_session_is_the_first_one_where_sessions_merge() -> None:
    late, early, between = Click("late", 1, 8), Click("early", 1, 0), Click("between", 1, 4)
    with TopologyDriver(program(session(ms(5), grace=GRACE))) as driver:
        for click in (late, early, between):
            driver.pipe("clicks", click, key="k")
        (line,) = lines(driver.store("lines").all()).values()
    assert line.all == (early, late, between)
    assert (line.first, line.last, line.users) == (early, between, ["early", "late", "between"])
    assert line.top == [early, late]


# ---------------------------------------------------------------- nothing is shared


class Bag(msgspec.Struct):
    items: list[list[str]]
    newest: list[str]
    own: list[list[str]]


def put(bag: list[list[str]], value: list[str]) -> list[list[str]]:
    bag.append(list(value))
    return bag


def spoil(value: Any) -> None:
    for each in value.items if isinstance(value, Bag) else value:
        each.clear() if isinstance(each, list) else None
    value.newest.clear() if isinstance(value, Bag) else value.clear()


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("window", [None, hopping(ms(10), ms(5)), session(ms(5)), sliding(ms(10))])
def test_what_others_change_in_place_changes_nothing(window: Window | None, cache: bool) -> None:
    app = App("agg", log="memory:")
    stream = app.stream(app.topic("in", key=str, value=list[str]))
    grouping: Any = stream.group_by_key()
    given: dict[str, Any] = {"items": r.collect(itself), "newest": r.last(itself)}
    table = agg(grouping, window, Bag, **given, own=r.reducer(list[list[str]], put, merge=operator.add))
    table.to_stream().peek(lambda bag: spoil(bag) if bag else None)
    stream.peek(lambda value: value.clear())
    with TopologyDriver(app, cache=cache) as driver:
        for i, letter in enumerate("abc"):
            driver.pipe("in", [letter], key="k", timestamp_ms=10 + i)
            driver.commit()
        bags = [bag for _, bag in driver.store("lines").all()]
        spoil(bags[0])
        again = [bag for _, bag in driver.store("lines").all()]
    whole = Bag([["a"], ["b"], ["c"]], ["c"], [["a"], ["b"], ["c"]])
    assert whole in again


class Mean(msgspec.Struct):
    mean: float | None = None


@pytest.mark.parametrize("cache", [False, True])
def test_a_mean_of_what_no_float_holds_is_refused_with_its_line(cache: bool) -> None:
    app = App("app", log="memory:")
    source = app.topic("in", key=str, value=int)
    of = app.stream(source).group_by_key().agg(Mean, store="s", mean=r.mean(lambda value: value * 10**300))
    of.changes().for_each(str)

    def fill(driver: TopologyDriver) -> None:
        driver.pipe(source, 10**18, key="k")
        driver.commit()

    told = r"agg\(store='s'\) at .*test_agg.py:\d+ cannot be"
    with TopologyDriver(app, cache=cache) as driver, pytest.raises(EncodeError, match=told):
        fill(driver)
