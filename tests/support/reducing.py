"""Clicks, one reducer of each kind over them, and what these make of clicks, said in plain Python."""

from typing import Any

import msgspec
from hypothesis import strategies as some

from tailrace import reducers as r
from tailrace.streams.app import App
from tailrace.streams.program.reducers import Reducer
from tailrace.streams.surface.grouped import Grouped
from tailrace.streams.surface.table import Table
from tailrace.windows.window import Window


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


def itself(value: Any) -> Any:
    return value


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
