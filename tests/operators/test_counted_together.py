"""Records that are counted together come to what they come to one by one.

An app that goes on after errors takes each by itself: it is what the other one is compared with.
"""

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.streams import task
from tailrace.streams.app import App
from tailrace.streams.chain.source import SourceInput
from tailrace.streams.program.options import OnError
from tailrace.streams.values.codec import json
from tailrace.tests.support.engine import contents
from tailrace.windows.duration import milliseconds
from tailrace.windows.tumbling import tumbling

Row = tuple[bytes | None, bytes | None]
Emit = Literal["update", "close"]


def at(time_ms: int) -> bytes:
    return time_ms.to_bytes(8, "big", signed=True)


good = st.tuples(st.sampled_from([b"a", b"b", b""]), st.integers(0, 120).map(at))
# Without a key or a value, not to be decoded, before 1970, and years ahead.
odd = st.sampled_from(
    [(None, at(30)), (b"a", None), (b"a", b"?"), (b"\xff", at(31)), (b"a", at(-1)), (b"b", at(1 << 50))]
)
rows_of_records = st.lists(st.one_of(good, good, good, odd), max_size=40)


def outcome(rows: list[Row], emit: Emit, on_error: OnError) -> tuple[Any, ...]:
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer() as producer:
            if rows:
                producer.send_many("in", [value for _, value in rows], keys=[key for key, _ in rows])
        app = App("app", log=log, on_error=on_error, on_bad_record="skip")
        stream = app.stream(app.topic("in", key=str, value=int, timestamp=lambda value: value))
        windows = stream.group_by_key().windowed_by(tumbling(milliseconds(10), grace=milliseconds(15)))
        counts = windows.count(store="counts", emit=emit)
        counts.changes().map_kv(lambda w, n: (f"{w.key}@{w.start_ms}", n)).to(app.topic("out", key=str, value=int))
        windows.late.to(app.topic("late", key=str, value=int))
        summary = app.run(until="end")
        return contents(log, "out"), contents(log, "late"), summary.dropped, summary.open_windows, summary.records_in


@pytest.mark.parametrize("emit", ["update", "close"])
@settings(max_examples=60, deadline=None)
@given(rows=rows_of_records, stretch=st.sampled_from([1, 3, 250]))
def test_the_same_as_one_by_one(emit: Emit, rows: list[Row], stretch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "_STRETCH", stretch)
        assert outcome(rows, emit, "fail") == outcome(rows, emit, "skip")


def test_a_plain_count_takes_them_together(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    together = SourceInput.run_together

    def seen(self: SourceInput, *arguments: Any) -> int:
        taken.append(together(self, *arguments))
        return taken[-1]

    monkeypatch.setattr(SourceInput, "run_together", seen)
    outcome([(b"a", at(time_ms)) for time_ms in range(20)], "update", "fail")
    assert sum(taken) == 20
    del taken[:]
    outcome([(b"a", at(time_ms)) for time_ms in (1, 100, 1, 101)], "update", "fail")
    assert 2 <= sum(taken) < 4, "what is late is taken by itself, and so is what follows it in its stretch"


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_null_of_jsons_own_is_no_value(on_error: OnError) -> None:
    with Log.open("memory:") as log:
        log.create_topic("in")
        with log.producer() as producer:
            producer.send_many("in", [b"1", b"null", b"2"], keys=[b"a"] * 3, timestamps_ms=[1, 2, 3])
        app = App("app", log=log, on_error=on_error)
        stream = app.stream(app.topic("in", key=str, codec=json(int | None)))
        counts = stream.group_by_key().windowed_by(tumbling(milliseconds(10))).count(store="counts")
        counts.changes().map_kv(lambda w, n: (w.key, n)).to(app.topic("out", key=str, value=int))
        assert app.run(until="end").dropped == {"null_value": 1}
        assert [row.value for row in contents(log, "out")] == [(2).to_bytes(8, "big")]
