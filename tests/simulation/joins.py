"""Programs that join a stream with another one, or with a table: as it is, as it was, or whole with each member."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import chain, product
from typing import Any, Final, Literal

from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.tests.simulation.program import (
    GRACE,
    LEFT,
    RIGHT,
    Emit,
    Found,
    Given,
    Program,
    Results,
    clicks_of,
    comes_to,
    group,
    is_there,
    pair,
    table_of,
    write,
    write_late,
)
from tailrace.tests.support.programs import Click
from tailrace.windows.duration import seconds

WITHIN_MS: Final = 2_000

Kind = Literal["join", "left_join", "outer_join"]


def _pairs(kind: Kind, *, rekeyed: bool = False) -> Callable[[App, Emit], None]:
    def build(app: App, _: Emit) -> None:
        left, right = clicks_of(app), clicks_of(app, RIGHT)
        if rekeyed:
            left, right = left.key_by(group), right.key_by(group)
        joined: Stream[str, str] = getattr(left, kind)(right, pair, store="pairs", within=seconds(2), grace=GRACE)
        write(app, joined)
        write_late(app, joined.late)

    return build


def _look_ups(*, rekeyed: bool) -> Callable[[App, Emit], None]:
    def build(app: App, _: Emit) -> None:
        clicks = clicks_of(app).key_by(lambda click: click.product) if rekeyed else clicks_of(app)
        write(app, clicks.left_join(table_of(app, RIGHT).filter(is_there), pair))

    return build


def _as_of(*, rekeyed: bool) -> Callable[[App, Emit], None]:
    def build(app: App, _: Emit) -> None:
        clicks = clicks_of(app).key_by(lambda click: click.product) if rekeyed else clicks_of(app)
        rows = table_of(app, RIGHT, history=seconds(60))
        write(app, clicks.left_join(rows, pair, grace=GRACE, store="waits"))

    return build


def _look_ups_anywhere(*, repartitioned: bool) -> Callable[[App, Emit], None]:
    def build(app: App, _: Emit) -> None:
        clicks = clicks_of(app)
        if repartitioned:
            clicks = clicks.repartition(name="again", partitions=2)
        source = app.topic(RIGHT, key=str, value=Click, timestamp=lambda click: click.ts)
        rows = app.global_table(source, store=f"rows-{RIGHT}")
        write(app, clicks.left_join(rows, pair, on=lambda product, _: _other(product)))

    return build


def _other(name: str) -> str:
    """A product that is in another partition, more often than not."""
    return name[:-1] + {"a": "b", "b": "c", "c": "a"}.get(name[-1], name[-1])


# ------------------------------------------------------------ what they come to


def _by_key(clicks: Sequence[Click], key: Callable[[Click], str]) -> dict[str, list[Click]]:
    found = defaultdict[str, list[Click]](list)
    for click in clicks:
        found[key(click)].append(click)
    return found


def _product(click: Click) -> str:
    return click.product


def _paired(kind: Kind, key: Callable[[Click], str] = _product) -> Callable[[Given], Results]:
    def wanted(given: Given) -> Results:
        lefts, rights, found = _by_key(given.left, key), _by_key(given.right, key), Results()
        for of in lefts.keys() | rights.keys():
            near = [both for both in product(lefts[of], rights[of]) if abs(both[0].ts - both[1].ts) <= WITHIN_MS]
            met = {each.user for each in chain.from_iterable(near)}
            alone = [(each, None) for each in lefts[of] if kind != "join" and each.user not in met]
            alone_right = [(None, each) for each in rights[of] if kind == "outer_join" and each.user not in met]
            found.update((of, pair(*each)) for each in chain(near, alone, alone_right))
        return found

    return wanted


def _as_they_were(given: Given) -> Results:
    """Each with the row of its time: of several of one time the one that came last."""
    found, rights = Results(), _by_key(given.right, _product)
    for rows in rights.values():
        rows.sort(key=lambda row: row.ts)
    for click in given.left:
        rows = rights[click.product]
        at = bisect_right(rows, click.ts, key=lambda row: row.ts)
        found[click.product, pair(click, rows[at - 1] if at else None)] += 1
    return found


def _looked_up(given: Given, found: Found) -> str | None:
    return _follow(given, found, str, is_there)


def _looked_up_anywhere(given: Given, found: Found) -> str | None:
    return _follow(given, found, _other, lambda _: True)


def _follow(given: Given, found: Found, asks: Callable[[str], str], there: Callable[[Click], bool]) -> str | None:
    """Each record once, in its order, with rows that were there, none older than the one before it was given.

    Which of them is a matter of arrival.
    """
    lefts, rights, by_key = _by_key(given.left, _product), _by_key(given.right, _product), defaultdict[str, Any](list)
    for key, value in found.rows:
        by_key[key].append(value.split())
    for key in lefts.keys() | by_key.keys():
        expected, got = [click.user for click in lefts[key]], [user for user, _ in by_key[key]]
        if Counter(set(got) if found.repeats else got) != Counter(expected):
            return f"{key}: {got} in place of {expected}"
        versions = ["-", *(click.user if there(click) else "-" for click in rights[asks(key)])]
        if found.repeats:
            unknown = {row for _, row in by_key[key]} - set(versions)
            if unknown:
                return f"{key} was never {unknown}"
        elif got != expected or not _in_order([row for _, row in by_key[key]], versions):
            return f"{key}: {by_key[key]} follow neither {expected} nor {versions}"
    return None


def _in_order(rows: Sequence[str], versions: Sequence[str]) -> bool:
    at = 0
    for row in rows:
        if row not in versions[at:]:
            return False
        at = versions.index(row, at)
    return True


_both: Final[dict[str, Any]] = {"emits": ("close",), "inputs": (LEFT, RIGHT)}

PROGRAMS: Final = [
    Program("join", _pairs("join"), comes_to(_paired("join")), **_both),
    Program("outer join", _pairs("outer_join"), comes_to(_paired("outer_join")), **_both),
    Program("re-keyed left join", _pairs("left_join", rekeyed=True), comes_to(_paired("left_join", group)), **_both),
    Program("re-keyed outer join", _pairs("outer_join", rekeyed=True), comes_to(_paired("outer_join", group)), **_both),
    Program("look-ups", _look_ups(rekeyed=False), _looked_up, **_both),
    Program("re-keyed look-ups", _look_ups(rekeyed=True), _looked_up, **_both),
    Program("look-ups of the past", _as_of(rekeyed=False), comes_to(_as_they_were), **_both),
    Program("re-keyed look-ups of the past", _as_of(rekeyed=True), comes_to(_as_they_were), **_both),
    Program(
        "global look-ups",
        _look_ups_anywhere(repartitioned=False),
        _looked_up_anywhere,
        read_whole=(RIGHT,),
        **_both,
    ),
    Program(
        "repartitioned global look-ups",
        _look_ups_anywhere(repartitioned=True),
        _looked_up_anywhere,
        read_whole=(RIGHT,),
        **_both,
    ),
]
