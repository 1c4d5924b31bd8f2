"""Each reducer by itself against plain Python: merged, taken back, ties, types; and the classes that `agg` makes."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypedDict

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as some

from tailrace import reducers as r
from tailrace.streams.app import App
from tailrace.streams.program.reduced import Reduced, reduced
from tailrace.streams.program.reducers import Item, Reducer
from tailrace.streams.values.place import Place
from tailrace.testing import TopologyDriver
from tailrace.tests.support.reducing import CLICKS, REDUCERS, Click, Line, agg, cents, grouped, model


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
