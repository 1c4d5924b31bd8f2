"""Programs of tables: joined by keys and foreign keys, grouped anew, held back by event time or by the clock.

What counts is the last row of each.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tailrace.streams.app import App
from tailrace.streams.operators.suppress import until_stream_time
from tailrace.streams.surface.table import Table
from tailrace.tests.simulation.program import (
    LEFT,
    RESULTS,
    RIGHT,
    Emit,
    Given,
    Program,
    Results,
    clicks_of,
    comes_to,
    group,
    is_there,
    number,
    pair,
    table_of,
)
from tailrace.tests.support.programs import Click
from tailrace.windows.duration import seconds


def _write(app: App, table: Table[str, str]) -> None:
    table.to(app.topic(RESULTS, key=str, value=str))


def _outer(app: App, _: Emit) -> None:
    left, right = (table_of(app, topic).filter(is_there) for topic in (LEFT, RIGHT))
    _write(app, left.outer_join(right, pair, store="joined"))


def _refers_to(click: Click) -> str:
    """A product, by what changes with each record."""
    return "pqrstu"[number(click) % 6] + click.product[-1]


def _foreign(app: App, _: Emit) -> None:
    left, right = (table_of(app, topic).filter(is_there) for topic in (LEFT, RIGHT))
    _write(app, left.left_join(right, pair, on=_refers_to, store="joined"))


def _grouped(app: App, _: Emit) -> None:
    grouped = table_of(app, LEFT).group_by(lambda _, click: (_refers_to(click), click), key=str, value=Click)
    _write(app, grouped.count(store="counted").map(lambda count: str(count) if count else None, value=str))


def _held(app: App, _: Emit) -> None:
    held = table_of(app, LEFT).suppress(until_stream_time(seconds(7)), store="held")
    _write(app, held.map(lambda click: click.user, value=str))


def _throttled(app: App, _: Emit) -> None:
    held = table_of(app, LEFT).throttle(seconds(5), store="held")
    _write(app, held.map(lambda click: click.user, value=str))


def _throttled_counts(app: App, _: Emit) -> None:
    counts = clicks_of(app).group_by(group).count(store="counted").throttle(seconds(20), store="held")
    _write(app, counts.map(str, value=str))


# ------------------------------------------------------------ what they come to


def _last(clicks: Sequence[Click], *, filtered: bool) -> dict[str, Click]:
    rows = {click.product: click for click in clicks}
    return {key: click for key, click in rows.items() if not filtered or is_there(click)}


def _joined(given: Given) -> Results:
    left, right = (_last(clicks, filtered=True) for clicks in given)
    return Counter((key, pair(left.get(key), right.get(key))) for key in left.keys() | right.keys())


def _referred(given: Given) -> Results:
    left, right = (_last(clicks, filtered=True) for clicks in given)
    return Counter((key, pair(click, right.get(_refers_to(click)))) for key, click in left.items())


def _group_sizes(given: Given) -> Results:
    sizes = Counter(_refers_to(click) for click in _last(given.left, filtered=False).values())
    return Counter((key, str(size)) for key, size in sizes.items())


def _rows(given: Given) -> Results:
    return Counter((key, click.user) for key, click in _last(given.left, filtered=False).items())


def _sizes(given: Given) -> Results:
    return Counter((key, str(size)) for key, size in Counter(map(group, given.left)).items())


_both: Final[dict[str, Any]] = {"emits": ("update",), "inputs": (LEFT, RIGHT)}

# Not at least once, where the last row of a key is all that counts: what is taken back twice, or added without the
# other being taken back, stays wrong; of a row that came and went within what is run again a cache says nothing, so
# the result of the first run stays; and a member that was expelled may still send rows older than what is there.
_exactly: Final[dict[str, Any]] = {"guarantees": ("exactly_once",)}

PROGRAMS: Final = [
    Program("joined tables", _outer, comes_to(_joined), **_both, **_exactly),
    Program("foreign keys", _foreign, comes_to(_referred), **_both, **_exactly),
    Program("grouped table", _grouped, comes_to(_group_sizes), emits=("update",), **_exactly),
    Program("held table", _held, comes_to(_rows), emits=("update",), **_exactly),
    Program("throttled table", _throttled, comes_to(_rows), emits=("update",), **_exactly),
    Program("throttled counts", _throttled_counts, comes_to(_sizes, adds_up=True), emits=("update",)),
]
