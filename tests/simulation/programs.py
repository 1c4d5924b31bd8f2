"""Programs whose final results do not depend on what happens to those who run them, and how these are compared.

1. Inputs are keyed by product, and never further out of order, over all partitions together, than the grace. So nothing
   is late, whoever reads what when.
2. `wanted` is what the program comes to in one run without a fault over the same records; where plain Python can count
   it, that run is checked, too.
3. Results of the records that come last and close every window are left out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Literal

import msgspec

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.streams.program.options import Hops
from tailrace.streams.surface.stream import Stream
from tailrace.streams.surface.table import Table
from tailrace.tests.simulation.model import Row, Violation, read_committed
from tailrace.tests.support.programs import Click, row
from tailrace.windows.duration import seconds
from tailrace.windows.session import session
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

APP: Final = "program"
LEFT: Final = "left"
RIGHT: Final = "right"
RESULTS: Final = "results"
LATE: Final = "too-late"
LAST: Final = "last"
END: Final = "!"
"""How the products of the records begin, and end, that close every window."""
GRACE: Final = seconds(5)
SIZE_MS: Final = 10_000

Emit = Literal["update", "close"]


@dataclass(frozen=True)
class Program:
    """One of them."""

    name: str
    build: Callable[[App, Emit], None]
    emits: tuple[Emit, ...] = ("update", "close")
    inputs: tuple[str, ...] = (LEFT,)
    rows: Callable[[list[Click]], Counter[tuple[str, int]]] | None = None
    """What plain Python comes to, by the rows of `results`."""


def app_of(program: Program, log: Log, emit: Emit, *, hops: Hops, cache_bytes: int) -> App:
    """The app, to be run on a log."""
    app = App(APP, log=log, cache_bytes=cache_bytes)
    app.options = replace(app.options, hops=hops)
    program.build(app, emit)
    return app


# ------------------------------------------------------------ the programs


def _clicks(app: App, topic: str = LEFT) -> Stream[str, Click]:
    return app.stream(app.topic(topic, key=str, value=Click, timestamp=lambda click: click.ts))


def _late(app: App, late: Stream[Any, Any]) -> None:
    late.map_kv(lambda _key, _value: ("late", "late"), key=str, value=str).to(app.topic(LATE, key=str, value=str))


def _counts(app: App, counted: Table[Windowed[str], int]) -> None:
    counted.changes().map_kv(row).to(app.topic(RESULTS, key=str, value=int))


def _windows(app: App, emit: Emit) -> None:
    windowed = _clicks(app).group_by_key().windowed_by(tumbling(seconds(10), grace=GRACE))
    _counts(app, windowed.count(store="counted", emit=emit))
    _late(app, windowed.late)


def _rekeyed(app: App, emit: Emit) -> None:
    grouped = _clicks(app).group_by(lambda click: click.product[-1])
    windowed = grouped.windowed_by(tumbling(seconds(10), grace=GRACE))
    _counts(app, windowed.count(store="counted", emit=emit))
    _late(app, windowed.late)


def _session_row(window: Windowed[str], count: int | None) -> tuple[str, int]:
    return f"{window.key}@{window.start_ms}-{window.end_ms}", count or 0


def _sessions(app: App, emit: Emit) -> None:
    windowed = _clicks(app).group_by_key().windowed_by(session(seconds(3), grace=GRACE))
    counted = windowed.count(store="counted", emit=emit)
    counted.changes().map_kv(_session_row).to(app.topic(RESULTS, key=str, value=int))
    _late(app, windowed.late)


def _two_hops(app: App, emit: Emit) -> None:
    grouped = _clicks(app).group_by(lambda click: click.product[-1])
    windowed = grouped.windowed_by(tumbling(seconds(10), grace=GRACE))
    first = windowed.count(store="first", emit="close")
    of_all = first.changes().map_kv(lambda window, count: (f"all {window.key < 'b'}", count), key=str, value=int)
    second = of_all.group_by_key().windowed_by(tumbling(seconds(40)))
    _counts(app, second.reduce(lambda so_far, count: so_far + count, store="second", emit=emit))
    _late(app, windowed.late)
    _late(app, second.late)


def _pair(left: Click | None, right: Click | None) -> str:
    return f"{left.user if left else '-'} {right.user if right else '-'}"


def _join(app: App, _: Emit) -> None:
    joined = _clicks(app).join(_clicks(app, RIGHT), _pair, store="pairs", within=seconds(2), grace=GRACE)
    joined.to(app.topic(RESULTS, key=str, value=str))
    _late(app, joined.late)


def _outer_join(app: App, _: Emit) -> None:
    joined = _clicks(app).outer_join(_clicks(app, RIGHT), _pair, store="pairs", within=seconds(2), grace=GRACE)
    joined.to(app.topic(RESULTS, key=str, value=str))
    _late(app, joined.late)


def _rekeyed_join(app: App, _: Emit) -> None:
    left, right = (_clicks(app, topic).key_by(lambda click: click.product[-1]) for topic in (LEFT, RIGHT))
    joined = left.left_join(right, _pair, store="pairs", within=seconds(2), grace=GRACE)
    joined.to(app.topic(RESULTS, key=str, value=str))
    _late(app, joined.late)


def _plain(size_ms: int, key: Callable[[Click], str]) -> Callable[[list[Click]], Counter[tuple[str, int]]]:
    def count(clicks: list[Click]) -> Counter[tuple[str, int]]:
        counts = Counter(f"{key(click)}@{click.ts - click.ts % size_ms}" for click in clicks)
        return Counter(counts.items())

    return count


PROGRAMS: Final = [
    Program("windows", _windows, rows=_plain(SIZE_MS, lambda click: click.product)),
    Program("re-keyed windows", _rekeyed, rows=_plain(SIZE_MS, lambda click: click.product[-1])),
    Program("sessions", _sessions, emits=("close",)),
    Program("two hops", _two_hops, rows=_plain(4 * SIZE_MS, lambda click: f"all {click.product[-1] < 'b'}")),
    Program("join", _join, emits=("close",), inputs=(LEFT, RIGHT)),
    Program("outer join", _outer_join, emits=("close",), inputs=(LEFT, RIGHT)),
    Program("re-keyed left join", _rekeyed_join, emits=("close",), inputs=(LEFT, RIGHT)),
]


# ------------------------------------------------------------ what they come to


def rows_of(log: Log, topic: str) -> list[Row]:
    """All that is committed in a topic, partition after partition."""
    return [each for tp in log.offsets(topic) for each in read_committed(log, tp)]


def final(rows: Iterable[Row], emit: Emit, last_ms: int) -> Counter[tuple[str, bytes]]:
    """The final results among rows: every one, or where results are updated the last of each key."""
    found = [((each.key or b"").decode(), each.value or b"") for each in rows]
    early = [(key, value) for key, value in found if not _is_last(key, last_ms)]
    return Counter(early) if emit == "close" else Counter(dict(early).items())


def _is_last(key: str, last_ms: int) -> bool:
    name, _, start = key.partition("@")
    return name.startswith((LAST, END)) or (bool(start) and int(start.split("-")[0]) >= last_ms - 4 * SIZE_MS)


def wanted(
    program: Program, emit: Emit, inputs: Mapping[TopicPartition, list[Row]], partitions: int, last_ms: int
) -> Counter[tuple[str, bytes]]:
    """What a run without a fault comes to."""
    with Log.open("memory:", background=False) as log:
        for topic in (LEFT, RIGHT):
            log.create_topic(topic, partitions=partitions)
        with log.producer(linger_ms=0) as producer:
            for (topic, partition), rows in inputs.items():
                for each in rows:
                    producer.send(topic, each.value, key=each.key, timestamp_ms=each.timestamp_ms, partition=partition)
        summary = app_of(program, log, emit, hops="memory", cache_bytes=1 << 20).run(until="end")
        if summary.dropped:
            raise Violation(f"a run without a fault drops {summary.dropped}: the inputs are not as they should be")
        found = final(rows_of(log, RESULTS), emit, last_ms)
    if program.rows is not None:
        clicks = [msgspec.json.decode(each.value or b"", type=Click) for each in chain.from_iterable(inputs.values())]
        plain = program.rows([click for click in clicks if not click.product.startswith(LAST)])
        counted = Counter({(key, int.from_bytes(value, "big")): times for (key, value), times in found.items()})
        if counted != plain:
            raise Violation(f"a run without a fault comes to {counted - plain} and lacks {plain - counted}")
    return found
