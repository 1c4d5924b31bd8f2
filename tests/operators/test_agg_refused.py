"""What `agg` refuses, at the call or at the record, and in which words."""

from typing import Any

import msgspec
import pytest

from tailrace import reducers as r
from tailrace.log.client import Log
from tailrace.log.errors import DecodeError, EncodeError, TaskError, TopologyError
from tailrace.streams.app import App
from tailrace.streams.program.reducers import Reducer
from tailrace.testing import TopologyDriver
from tailrace.tests.support.reducing import Click, agg, cents, grouped, itself
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.window import Window


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
    with (
        TopologyDriver(app) as driver,
        pytest.raises(TaskError, match=r"ZeroDivisionError in agg-\d+ .*refused.py:"),
    ):
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
        with pytest.raises(TopologyError, match=r"to agg\(it=max\), .* to agg\(it=sum\), which it would misread"):
            app.run(until="end")
        log.note_topic("agg-lines-changelog", "")  # as of an app that wrote no notes: its states tell it themselves
        with pytest.raises(DecodeError, match=r"makes it=max, and its store holds states of other reducers or types"):
            app.run(until="end")


def test_the_topology_says_which_reducers() -> None:
    app = App("agg", log="memory:")
    agg(grouped(app), None, Small, n=r.count(), total=TOTAL)
    assert "value: json(Small), reducers: n=count total=sum" in str(app.describe())
