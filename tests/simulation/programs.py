"""All programs, made into apps, and the comparison of what is in the log with what is to be there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.tests.simulation import joins, processors, tables, windows
from tailrace.tests.simulation.model import Row, read_committed
from tailrace.tests.simulation.program import END, LAST, LEFT, RESULTS, RIGHT, Emit, Found, Given, Program
from tailrace.tests.support.programs import Click

APP: Final = "program"
PROGRAMS: Final = [*windows.PROGRAMS, *joins.PROGRAMS, *tables.PROGRAMS, *processors.PROGRAMS]


def app_of(program: Program, log: Log, emit: Emit, *, cache_bytes: int, **options: Any) -> App:
    """The app, to be run on a log; `options` are those of `AppOptions`."""
    app = App(APP, log=log, cache_bytes=cache_bytes)
    app.options = replace(app.options, **options)
    program.build(app, emit)
    return app


def rows_of(log: Log, topic: str) -> list[Row]:
    """All that is committed in a topic, partition after partition."""
    return [each for tp in log.offsets(topic) for each in read_committed(log, tp)]


def judge(program: Program, log: Log, emit: Emit, last_ms: int, *, repeats: bool) -> str | None:
    """What is wrong with the results in the log; last_ms: from when on records are those that close every window."""
    given = Given(*(_clicks(log, topic) if topic in program.inputs else [] for topic in (LEFT, RIGHT)))
    found = [((each.key or b"").decode(), (each.value or b"").decode()) for each in rows_of(log, RESULTS)]
    early = [(key, value) for key, value in found if not _is_last(key, last_ms)]
    return program.judge(given, Found(early, emit, repeats))


def _clicks(log: Log, topic: str) -> Sequence[Click]:
    clicks = [msgspec.json.decode(each.value or b"", type=Click) for each in rows_of(log, topic)]
    return [click for click in clicks if not click.product.startswith(LAST)]


def _is_last(key: str, last_ms: int) -> bool:
    name, _, start = key.partition("@")
    return name.endswith(END) or (bool(start) and int(start.split("-")[0]) >= last_ms - 4 * windows.SIZE_MS)
