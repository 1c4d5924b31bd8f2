"""Functions may change an aggregate in place: no other window, node or result changes with it."""

import json
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents, feed
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.window import Window


def extend(into: list[str], value: list[str]) -> list[str]:
    into.extend(value)
    return into


WANTED: dict[Window, dict[str, str]] = {
    hopping(ms(10), ms(5), grace=ms(9)): {"0": "ab", "5": "abc", "10": "c"},
    sliding(ms(5), grace=ms(9)): {"0": "a", "1": "ab", "5": "abc", "6": "bc", "7": "c"},
    session(ms(5), grace=ms(9)): {"5": "abc"},
}


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("window", WANTED, ids=str)
def test_two_reducers_that_change_what_they_are_given(window: Window, cache_bytes: int) -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        feed(log, "in", [("A", '["a"]', 5), ("A", '["b"]', 6), ("A", '["c"]', 10)])
        app = App("in-place", log=log, cache_bytes=cache_bytes)
        grouped = app.stream(app.topic("in", key=str, value=list[str])).group_by_key()
        outs = [app.topic(name, key=str, codec="json") for name in ("out1", "out2")]
        for store, out in zip("st", outs, strict=True):
            table = grouped.windowed_by(window).reduce(extend, store=store)
            table.changes().map_kv(lambda key, value: (str(key.start_ms), value)).to(out)
        app.run(until="end")
        found: list[dict[str, Any]] = [
            {(record.key or b"").decode(): "".join(json.loads(record.value or b"")) for record in contents(log, name)}
            for name in ("out1", "out2")
        ]
    assert found == [WANTED[window], WANTED[window]]
