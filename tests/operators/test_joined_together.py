"""Records of a join that are run together come to what they come to one by one.

An app that goes on after errors takes each by itself: it is what the other one is compared with.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.errors import TaskError
from tailrace.streams import task
from tailrace.streams.app import App
from tailrace.streams.chain.source import SourceInput
from tailrace.streams.program.options import OnError
from tailrace.streams.values.codec import json
from tailrace.tests.support.engine import contents
from tailrace.windows.duration import milliseconds as ms
from tailrace.windows.tumbling import tumbling

Row = tuple[bytes | None, bytes | None]


def at(time_ms: int) -> bytes:
    return str(time_ms).encode()


good = st.tuples(st.sampled_from([b"a", b"b"]), st.integers(0, 60).map(at))
# Without a key or a value, not to be decoded, before 1970, a null of JSON's own.
odd = st.sampled_from([(None, at(30)), (b"a", None), (b"a", b"?"), (b"\xff", at(31)), (b"a", at(-1)), (b"b", b"null")])
one_side = st.lists(st.one_of(good, good, good, good, good, odd), max_size=25)


def pair(left: int, right: int) -> int:
    return 1_000 * left + right


def time_of(value: int | None) -> int:
    return value or 0


def declare(app: App) -> None:
    left, right = (
        app.stream(app.topic(name, key=str, codec=json(int | None), timestamp=time_of)) for name in ("left", "right")
    )
    joined = left.join(right, pair, store="j", before=ms(5), after=ms(8), grace=ms(20), value=int)
    joined.to(app.topic("out", key=str, value=int))
    joined.late.to(app.topic("late", key=str, codec="json"))
    # Behind it is one whose windows close as time goes on.
    counts = joined.group_by_key().windowed_by(tumbling(ms(10), grace=ms(20))).count(store="c", emit="close")
    counts.changes().map_kv(lambda w, n: (f"{w.key}@{w.start_ms}", n)).to(app.topic("counts", key=str, value=int))


def outcome(sides: tuple[list[Row], list[Row]], on_error: OnError) -> tuple[Any, ...]:
    with Log.open("memory:") as log:
        for name, rows in zip(("left", "right"), sides, strict=True):
            log.create_topic(name)
            if rows:
                with log.producer() as producer:
                    producer.send_many(name, [value for _, value in rows], keys=[key for key, _ in rows])
        app = App("app", log=log, on_error=on_error, on_bad_record="skip")
        declare(app)
        summary = app.run(until="end")
        results = [contents(log, name) for name in ("out", "late", "counts")]
        return *results, summary.dropped, summary.open_windows, summary.records_in


@settings(max_examples=100, deadline=None)
@given(sides=st.tuples(one_side, one_side), stretch=st.sampled_from([1, 3, 250]))
def test_the_same_as_one_by_one(sides: tuple[list[Row], list[Row]], stretch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "_STRETCH", stretch)
        assert outcome(sides, "fail") == outcome(sides, "skip")


def test_both_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []
    run_together = SourceInput.run_together

    def counting(self: SourceInput, *given: Any) -> int:
        together.append(run_together(self, *given))
        return together[-1]

    monkeypatch.setattr(SourceInput, "run_together", counting)
    left: list[Row] = [(b"a", at(10)), (b"a", at(20)), (b"a", at(30))]
    right: list[Row] = [(b"a", at(40)), (b"a", at(41)), (b"a", at(0))]
    outcome((left, right), "skip")
    assert not together
    out, late, *_ = outcome((left, right), "fail")
    assert (len(out), len(late)) == (0, 1)
    assert sum(together) == 5, "what is late comes by itself"


@pytest.mark.parametrize("stretch", [1, 250])
def test_the_record_for_which_the_function_raised_is_named(stretch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "_STRETCH", stretch)
    with Log.open("memory:") as log:
        for name, times in (("left", (1, 2, 3)), ("right", (4, 5, 6))):
            log.create_topic(name)
            with log.producer() as producer:
                keys = [b"x" if time == 2 else b"y" if time != 5 else b"x" for time in times]
                producer.send_many(name, [at(time) for time in times], keys=keys, timestamps_ms=times)
        app = App("app", log=log)
        left, right = (app.stream(app.topic(name, key=str, value=int, codec="json")) for name in ("left", "right"))
        left.join(right, fail_at_two, store="j", within=ms(100), value=int).to(app.topic("out", key=str, value=int))
        with pytest.raises(TaskError, match=r"ZeroDivisionError .* at right-0@1"):
            app.run(until="end")


def fail_at_two(left: int, right: int) -> int:
    return right // (left - 2)
