"""What a table's change replaces is what was sent before it, whatever made the table: a filter shows it.

The model is made from the changes themselves: a filter sends a value that passes, a delete where the last one sent
passed, and else nothing.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.surface.grouped import Grouped
from tailrace.streams.surface.table import Table
from tailrace.tests.support.engine import contents, decoded, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling


def grow(values: list[str], value: str) -> list[str] | None:
    """Changes its argument in place; now and then deletes."""
    values.append(value)
    return None if len(values) > 4 else values


def joined(left: list[str], right: list[str]) -> list[str]:
    return left + right


MADE: dict[str, Callable[[Grouped[str, str]], Table[Any, list[str]]]] = {
    "plain": lambda grouped: grouped.aggregate(list[str], grow, store="s"),
    "tumbling": lambda g: g.windowed_by(tumbling(ms(20), grace=ms(30))).aggregate(list[str], grow, store="s"),
    "hopping": lambda g: g.windowed_by(hopping(ms(20), ms(10), grace=ms(30))).aggregate(list[str], grow, store="s"),
    "sliding": lambda g: g.windowed_by(sliding(ms(10), grace=ms(30))).aggregate(list[str], grow, store="s"),
    "session": lambda g: g.windowed_by(session(ms(5), grace=ms(30))).aggregate(
        list[str], grow, store="s", merge=joined
    ),
    "close": lambda g: g.windowed_by(tumbling(ms(20), grace=ms(30))).aggregate(
        list[str], grow, store="s", emit="close"
    ),
}
Row = tuple[str, list[str] | None, int]


def even(values: list[str]) -> bool:
    return len(values) % 2 == 0


def filtered(rows: list[Row]) -> list[Row]:
    last: dict[str, list[str] | None] = {}
    out: list[Row] = []
    for key, value, timestamp_ms in rows:
        before, last[key] = last.get(key), value
        if value is not None and even(value):
            out.append((key, value, timestamp_ms))
        elif before is not None and even(before):
            out.append((key, None, timestamp_ms))
    return out


def name_of(key: Any) -> str:
    return key if isinstance(key, str) else f"{key.key}@{key.start_ms}-{key.end_ms}"


def run(log: Log, make: Callable[[Grouped[str, str]], Table[Any, Any]], *, cache: bool) -> list[list[Row]]:
    """Runs over what is new; returns the table's changes and the filter's, all of them since the first run."""
    app = App("old", log=log, cache_bytes=1 << 20 if cache else 0, commit_interval=ms(1))
    table = make(app.stream(app.topic("in", key=str, value=str)).group_by_key())
    passed = table.map(lambda values: [*values], value=list).filter(even)
    outs = [app.topic(name, key=str, codec="json") for name in ("all", "passed")]
    for each, out in zip((table, passed), outs, strict=True):
        each.to_stream().map_kv(lambda key, value: (name_of(key), value)).to(out)
    app.run(until="end")
    return [decoded(contents(log, out.name), out) for out in outs]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("made", MADE)
def test_a_filter_sends_what_the_model_does(made: str, cache: bool) -> None:
    chance = random.Random(7)
    everything: list[Row] = []
    passed: list[Row] = []
    with Log.open("memory:") as log:
        log.create_topic("in")
        for start_ms in range(0, 160, 8):
            count = chance.randrange(1, 6)
            feed(log, "in", [(chance.choice("abc"), "x", start_ms + chance.randrange(40)) for _ in range(count)])
            everything, passed = run(log, MADE[made], cache=cache)
    assert passed == filtered(everything)
    assert passed, "the case shows nothing"
    if made != "close":
        assert any(value is None for _, value, _ in passed)
