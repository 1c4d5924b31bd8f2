"""What a program of the simulation is: how it is built, and who judges what it came to.

1. Inputs are keyed by product, and never further out of order, over all partitions together, than the grace. So nothing
   is late, whoever reads what when.
2. What a program comes to is said by plain Python, from the records that are in the log in the end. Results are text;
   those of the records that come last and close every window are left out.
3. With guarantee="at_least_once" and after something went wrong, results may be there more than once, and what adds up
   may come to more: nothing may be missing, and nothing be there that no record has brought about. Where records were
   lost that might have been read before they were on disk, results of theirs stand, and are not judged at all.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from tailrace.streams.app import App
from tailrace.streams.program.options import Guarantee
from tailrace.streams.surface.stream import Stream
from tailrace.streams.surface.table import Table
from tailrace.tests.support.programs import Click
from tailrace.windows.duration import seconds
from tailrace.windows.windowed import Windowed

LEFT: Final = "left"
RIGHT: Final = "right"
RESULTS: Final = "results"
LATE: Final = "too-late"
LAST: Final = "last"
END: Final = "!"
"""How the products of the records begin, and end, that close every window."""
GRACE: Final = seconds(5)

Emit = Literal["update", "close"]
Results = Counter[tuple[str, str]]
"""Keys and values, and how often each is there."""


class Given(NamedTuple):
    """The records that were there to be read, in the order of each product."""

    left: Sequence[Click]
    right: Sequence[Click]


class Found(NamedTuple):
    """What came of them: keys and values, in the order of each key; "" stands for a delete."""

    rows: Sequence[tuple[str, str]]
    emit: Emit
    repeats: bool
    """Whether invariant 3 of the module's docstring holds, and no more."""


Judge = Callable[[Given, Found], str | None]
"""Tells what is wrong with what was found; None: nothing."""


@dataclass(frozen=True)
class Program:
    """One of them."""

    name: str
    build: Callable[[App, Emit], None]
    judge: Judge
    emits: tuple[Emit, ...] = ("update", "close")
    inputs: tuple[str, ...] = (LEFT,)
    read_whole: tuple[str, ...] = ()
    """Of the inputs, those that each member reads for itself: no offset of theirs is committed."""
    guarantees: tuple[Guarantee, ...] = ("exactly_once", "at_least_once")
    idle: bool = False
    """Whether time goes on without a record: then that of the records follows the clock, and nothing closes at the end
    but by waiting."""


def comes_to(wanted: Callable[[Given], Results], *, adds_up: bool = False) -> Judge:
    """The judge of a program with these final results; adds_up: values are numbers that a repeat makes larger."""

    def judge(given: Given, found: Found) -> str | None:
        expected, got = wanted(given), _final(found)
        if found.repeats:
            # Of all rows, as a member that was expelled may have sent an older one last.
            got = _capped(Counter(row for row in found.rows if row[1]), expected) if adds_up else Counter(got.keys())
        too_much, lacking = got - expected, expected - got
        return f"{dict(too_much)} too much, {dict(lacking)} lacking" if too_much or lacking else None

    return judge


def _final(found: Found) -> Results:
    """Every result, or where results are updated the last of each key that is still there."""
    if found.emit == "close":
        return Counter(found.rows)
    return Counter((key, value) for key, value in dict(found.rows).items() if value)


def _capped(got: Results, expected: Results) -> Results:
    """The largest number of each key, and no more than was expected."""
    most, caps = dict[str, int](), dict(expected.keys())
    for key, value in got:
        most[key] = max(most.get(key, 0), int(value))
    return Counter((key, str(min(number, int(caps.get(key, number))))) for key, number in most.items())


# ------------------------------------------------------------ pieces of programs


def clicks_of(app: App, topic: str = LEFT) -> Stream[str, Click]:
    """An input as a stream."""
    return app.stream(app.topic(topic, key=str, value=Click, timestamp=lambda click: click.ts))


def table_of(app: App, topic: str, **options: Any) -> Table[str, Click]:
    """An input as a table."""
    source = app.topic(topic, key=str, value=Click, timestamp=lambda click: click.ts)
    return app.table(source, store=f"rows-{topic}", **options)


def write(app: App, results: Stream[str, str]) -> None:
    """Results that are text go out as they are."""
    results.to(app.topic(RESULTS, key=str, value=str))


def write_windows(app: App, table: Table[Windowed[str], int]) -> None:
    """Numbers by window go out as text, keyed "key@start-end"."""
    write(app, table.changes().map_kv(_windowed_row, key=str, value=str))


def _windowed_row(window: Windowed[str], number: int) -> tuple[str, str]:
    return f"{window.key}@{window.start_ms}-{window.end_ms}", str(number)


def write_late(app: App, late: Stream[Any, Any]) -> None:
    """What is late is told."""
    late.map_kv(lambda _key, _value: ("late", "late"), key=str, value=str).to(app.topic(LATE, key=str, value=str))


def pair(left: Click | None, right: Click | None) -> str:
    """Two records, each by what no other one has."""
    return f"{left.user if left else '-'} {right.user if right else '-'}"


def group(click: Click) -> str:
    """Of products, a few."""
    return click.product[-1]


def number(click: Click) -> int:
    """One that no other record of its partition has."""
    return int(click.user.split(".")[0])


def is_there(click: Click) -> bool:
    """Which rows of tables are not filtered out: a row comes and goes."""
    return number(click) % 4 > 0
