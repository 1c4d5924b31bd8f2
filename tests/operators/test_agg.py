"""`agg` against plain Python: each kind of window, cache off and on, restarted after each step; what it refuses."""

import dataclasses
import operator
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tailrace import reducers as r
from tailrace.log.client import Log
from tailrace.log.errors import DecodeError, EncodeError, TaskError
from tailrace.streams.app import App
from tailrace.streams.grouped import Grouped
from tailrace.streams.place import Place
from tailrace.streams.reduced import Reduced, reduced
from tailrace.streams.reducers import Item, Reducer
from tailrace.streams.table import Table
from tailrace.testing import TopologyDriver
from tailrace.tests.support.engine import contents
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed


class Click(msgspec.Struct):
    user: str
    cents: int | None
    at: int = 0


class Line(msgspec.Struct):
    """One field for each reducer."""

    n: int
    cents: int
    mean: float | None
    low: int | None
    high: int | None
    first: Click | None
    last: Click | None
    some: list[int]
    all: tuple[Click, ...]
    users: list[str]
    top: list[Click]
    longest: str = ""
    note: str = "none"


def longer(so_far: str, click: Click) -> str:
    return max(so_far, click.user * (click.cents or 0), key=len)


def cents(click: Click) -> int | None:
    return click.cents


REDUCERS: dict[str, Reducer[Any]] = {
    "n": r.count(),
    "cents": r.sum(cents),
    "mean": r.mean(lambda click: click.cents),
    "low": r.min(cents),
    "high": r.max(cents),
    "first": r.first(lambda click: click),
    "last": r.last(lambda click: click),
    "some": r.collect(cents, limit=2),
    "all": r.collect(lambda click: click),
    "users": r.distinct(lambda click: click.user),
    "top": r.top_k(2, by=cents),
    "longest": r.reducer(str, longer, merge=lambda a, b: max(a, b, key=len)),
}


def model(clicks: list[Click]) -> Line:
    """What REDUCERS make of clicks in the order of their arrival, said in plain Python."""
    paid = [click.cents for click in clicks if click.cents is not None]
    dearest = sorted((c for c in clicks if c.cents is not None), key=lambda c: -(c.cents or 0))
    return Line(
        n=len(clicks),
        cents=sum(paid),
        mean=sum(paid) / len(paid) if paid else None,
        low=min(paid, default=None),
        high=max(paid, default=None),
        first=clicks[0] if clicks else None,
        last=clicks[-1] if clicks else None,
        some=paid[:2],
        all=tuple(clicks),
        users=list(dict.fromkeys(click.user for click in clicks)),
        top=dearest[:2],
        longest=max(["", *(c.user * (c.cents or 0) for c in clicks)], key=len),
    )


# ---------------------------------------------------------------- windows, as plain lists

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

CLICKS = some.lists(
    some.builds(Click, some.sampled_from("abc"), some.none() | some.integers(0, 5), some.integers(0, 40)), max_size=12
)


def grouped(app: App) -> Grouped[str, Click]:
    return app.stream(app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.at)).group_by_key()


def agg(grouping: Grouped[str, Click], window: Window | None, into: Any = Line, **given: Any) -> Table[Any, Any]:
    reducers: dict[str, Any] = given or dict(REDUCERS)
    if window is None:
        return grouping.agg(into, store="lines", **reducers)
    return grouping.windowed_by(window).agg(into, store="lines", **reducers)


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


# ---------------------------------------------------------------- each reducer by itself


def put_together(into: Any = Line, **reducers: Reducer[Any]) -> Reduced:
    return reduced(into, reducers or REDUCERS, store="lines", place=Place("here", 1), sessions=False)


def folded(made: Reduced, clicks: list[Click]) -> Any:
    states = None
    for click in clicks:
        states = made.fold(states, click)
    return states


def shown(made: Reduced, states: Any) -> Any:
    assert made.codec.show is not None
    return made.codec.show(states)


@settings(max_examples=60, deadline=None)
@given(before=CLICKS.filter(bool), after=CLICKS.filter(bool))
def test_states_that_merge_are_one_that_took_all(before: list[Click], after: list[Click]) -> None:
    made = put_together()
    merged = made.merge(folded(made, before), folded(made, after))
    assert shown(made, merged) == model(before + after)
    assert made.codec.decode(made.codec.encode(merged)) == merged


@settings(max_examples=60, deadline=None)
@given(clicks=CLICKS, data=some.data())
def test_what_is_taken_back_was_never_there(clicks: list[Click], data: some.DataObject) -> None:
    gone = data.draw(some.sets(some.sampled_from(range(len(clicks))))) if clicks else set[int]()
    left = [click for i, click in enumerate(clicks) if i not in gone]
    able = {name: each for name, each in REDUCERS.items() if each.retracts}
    assert sorted(able) == ["all", "cents", "mean", "n", "users"]
    for name, each in able.items():
        of: Any = {"all": Click, "users": str}.get(name, int)
        steps = each.bind(Item(of, name, ""))
        assert steps.remove is not None
        state = steps.zero()
        for click in clicks:
            state = steps.add(state, click)
        for i in gone:
            state = steps.remove(state, clicks[i])
        wanted = getattr(model(left), name)
        found = steps.result(state)
        if name in {"all", "users"}:  # which of several equal ones went is not to be seen, only how many are left
            key = msgspec.json.encode
            assert sorted(map(key, found)) == sorted(map(key, wanted))
        else:
            assert found == wanted


def test_what_can_be_taken_back_and_merged_is_said() -> None:
    own: Reducer[Any] = r.reducer(int, lambda a, _click: a, remove=lambda a, _click: a)
    assert own.retracts
    assert not own.merges
    assert not r.collect(cents, limit=2).retracts
    assert [each.name for each in REDUCERS.values() if not each.merges] == []


class Bests(msgspec.Struct):
    low: Any
    high: Any
    top: list[Click]


def test_the_first_of_equal_ones_wins() -> None:
    made = put_together(Bests, low=r.min(_rank), high=r.max(_rank), top=r.top_k(2, by=lambda _click: 1))
    clicks = [Click("first", 1), Click("second", 1), Click("third", 1)]
    line = shown(made, folded(made, clicks))
    assert (line.low, line.high) == ([1], [1])
    assert line.top == clicks[:2]


def _rank(click: Click) -> list[int]:
    return [click.cents or 0]


class Sums(msgspec.Struct):
    total: float
    flags: int
    time: timedelta | None
    kinds: list[Any]
    floats: set[float]


def one_of(*kinds: object) -> Callable[[Click], object]:
    return lambda click: kinds[click.cents or 0]


def test_items_become_the_fields_type() -> None:
    made = put_together(
        Sums,
        total=r.sum(lambda click: click.cents),
        flags=r.sum(lambda click: click.cents == 1),
        time=r.sum(lambda click: timedelta(seconds=click.cents)),
        kinds=r.distinct(one_of(1, 1.0, True)),
        floats=r.distinct(one_of(1, 1.0, 2)),
    )
    line = shown(made, folded(made, [Click("a", i) for i in (0, 1, 2, 1)]))
    assert line == Sums(4.0, 2, timedelta(seconds=4), [1, 1.0, True], {1.0, 2.0})
    assert [type(kind) for kind in line.kinds] == [int, float, bool]
    assert type(line.total) is float


# ---------------------------------------------------------------- other classes


@dataclasses.dataclass
class Data:
    n: int
    users: set[str] = dataclasses.field(default_factory=set[str])
    total: int = 7


class Typed(TypedDict):
    n: int
    users: list[str]


class Renamed(msgspec.Struct, rename="camel", tag=True, array_like=True):
    how_many: Annotated[int, msgspec.Meta(ge=1)]
    when: datetime


def made_of(into: Any, **reducers: Reducer[Any]) -> Any:
    app = App("agg", log="memory:")
    agg(grouped(app), None, into, **reducers).to(app.topic("out", key=str, value=into))
    with TopologyDriver(app) as driver:
        driver.pipe("clicks", Click("b", 1), key="k")
        driver.pipe("clicks", Click("a", 1), key="k")
        found = driver.store("lines").get("k")
        assert driver.read("out")[-1].value == found
        return found


def test_dataclasses_typed_dicts_and_structs_of_every_form() -> None:
    users: Reducer[Any] = r.distinct(lambda click: click.user)
    assert made_of(Data, n=r.count(), users=users) == Data(2, {"a", "b"})
    assert made_of(Typed, n=r.count(), users=users) == {"n": 2, "users": ["b", "a"]}
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert made_of(Renamed, how_many=r.count(), when=r.last(lambda _click: now)) == Renamed(2, now)


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


# ---------------------------------------------------------------- what is refused


class Small(msgspec.Struct):
    n: int
    total: int
    note: str = ""


TOTAL: Reducer[Any] = r.sum(cents)
MEAN: Reducer[Any] = r.mean(len)
REFUSED: list[Any] = [
    (Small, {"n": r.count(), "totl": TOTAL}, r"agg\(store='lines'\): Small has no field 'totl'; did you mean 'total'"),
    (Small, {"n": r.count()}, r"no reducer for Small.total, which has no default: give total="),
    (Small, {"n": r.count, "total": TOTAL}, r"Small.n takes a reducer such as count\(\) or last\(f\), not <function"),
    (
        Small,
        {"n": r.count(), "total": TOTAL, "note": r.count()},
        r"Small.note is str, and count makes a value such as 1",
    ),
    (Small, {"n": MEAN, "total": TOTAL}, r"Small.n is int, and mean makes a value such as 0.5"),
    (Small, {"n": r.distinct(cents), "total": TOTAL}, r"Small.n is int, and distinct makes a list"),
    (dict, {"n": r.count()}, r"makes a msgspec.Struct, a dataclass or a TypedDict, and <class 'dict'> is none"),
    (3, {"n": r.count()}, r"and 3 is none: name a class"),
]


@pytest.mark.parametrize(("into", "reducers", "words"), REFUSED)
@pytest.mark.parametrize("window", [None, tumbling(ms(10))])
def test_refused_at_the_call(window: Window | None, into: Any, reducers: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        agg(grouped(App("agg", log="memory:")), window, into, **reducers)


def test_refused_without_any_reducer() -> None:
    class Defaults(msgspec.Struct):
        n: int = 0

    with pytest.raises(TypeError, match="has no reducers: give one for each field of Defaults"):
        grouped(App("agg", log="memory:")).agg(Defaults, store="lines")


def test_a_session_needs_merge() -> None:
    own: Reducer[Any] = r.reducer(int, lambda so_far, click: so_far + click.cents)
    given: dict[str, Any] = {"n": r.count(), "total": own}
    agg(grouped(App("agg", log="memory:")), sliding(ms(5)), Small, **given)
    with pytest.raises(TypeError, match=r"agg\(store='lines'\) in sessions: total=reducer\(…\) needs merge="):
        agg(grouped(App("agg", log="memory:")), session(ms(5)), Small, **given)


async def later(_value: Any) -> Any:
    """What a reducer cannot wait for."""


WRONG: list[Any] = [
    (r.sum, [later], {}, TypeError, "sum takes a plain function, and later is async"),
    (r.mean, [3], {}, TypeError, "mean takes a function, not 3"),
    (r.top_k, [2], {"by": later}, TypeError, "top_k takes a plain function"),
    (r.top_k, [0], {"by": cents}, ValueError, r"top_k\(0\) keeps nothing: give at least 1"),
    (r.top_k, [1.5], {"by": cents}, TypeError, r"top_k\(1.5\) is no whole number"),
    (r.collect, [cents], {"limit": 0}, ValueError, r"collect\(limit=0\) keeps nothing"),
    (r.reducer, [int, later], {}, TypeError, r"reducer\(add=…\) takes a plain function"),
    (r.reducer, [int, max], {"merge": 3}, TypeError, r"reducer\(merge=…\) takes a function, not 3"),
]


@pytest.mark.parametrize(("make", "args", "options", "error", "words"), WRONG)
def test_reducers_refuse_wrong_arguments(
    make: Any, args: list[Any], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(*args, **options)


class Loose(msgspec.Struct):
    it: Any


class Tight(msgspec.Struct):
    it: int


def user(click: Click) -> str:
    return click.user


def itself(value: Any) -> Any:
    return value


def nothing(_value: Any) -> None:
    """No item."""


def replaced(_so_far: Any, click: Click) -> Any:
    return click.user


def huge(_click: Click) -> int:
    return 1 << 70


AT_THE_RECORD: list[Any] = [
    (Loose, r.last(itself), r"what last takes for Loose.it, in agg\(store='lines'\) at .*annotation says"),
    (Tight, r.last(user), r"what last takes for Tight.it.* Expected `int`, got `str`"),
    (Tight, r.max(itself), r"what max takes for Tight.it.* Expected `int`, got `object`"),
    (Tight, r.last(nothing), r"the result of agg\(store='lines'\) at .* Expected `int`, got `None`"),
    (Tight, r.reducer(int, replaced), r"(reducer takes for Tight.it|the result of agg).* Expected `int`, got `str`"),
    (Tight, r.sum(huge), r"the (state|result) of agg\(store='lines'\) at .*cannot be encoded"),
]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("into", "it", "words"), AT_THE_RECORD)
def test_refused_at_the_record(into: Any, it: Reducer[Any], words: str, cache: bool) -> None:
    app = App("agg", log="memory:")
    agg(grouped(app), None, into, it=it).to(app.topic("out", key=str, value=into))
    with TopologyDriver(app, cache=cache) as driver, pytest.raises(EncodeError, match=words):
        _pipe_and_commit(driver)


def _pipe_and_commit(driver: TopologyDriver) -> None:
    driver.pipe("clicks", Click("a", 1), key="k")
    driver.commit()


def share(click: Click) -> int:
    return 1 // (click.cents or 0)


def test_a_function_that_raises_is_named_with_its_node() -> None:
    app = App("agg", log="memory:")
    agg(grouped(app), None, Tight, it=r.sum(share)).to(app.topic("out", key=str, value=Tight))
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=r"ZeroDivisionError in agg-\d+ .*test_agg.py:"):
        driver.pipe("clicks", Click("a", 0), key="k")


def test_a_store_is_not_read_by_other_reducers() -> None:
    with Log.open("memory:") as log, log.producer(linger_ms=0) as producer:
        log.create_topic("clicks")
        for it in (r.sum(cents), r.max(cents)):
            producer.send("clicks", msgspec.json.encode(Click("a", 1)), key=b"k").result()
            app = App("agg", log=log)
            agg(grouped(app), None, Tight, it=it).to(app.topic("out", key=str, value=Tight))
            if it.name == "sum":
                app.run(until="end")
        with pytest.raises(DecodeError, match=r"makes it=max, and its store holds states of other reducers or types"):
            app.run(until="end")


def test_the_topology_says_which_reducers() -> None:
    app = App("agg", log="memory:")
    agg(grouped(app), None, Small, n=r.count(), total=TOTAL)
    assert "value: json(Small), reducers: n=count total=sum" in str(app.describe())
