from collections.abc import Callable
from typing import Any

import pytest

from tailrace.log.errors import EncodeError
from tailrace.streams.operators.effects import ForEach, Peek, Print
from tailrace.streams.operators.stateless import (
    Filter,
    FilterKv,
    FilterNot,
    FlatMap,
    FlatMapKv,
    KeyBy,
    KeyByKv,
    Map,
    MapKv,
)
from tailrace.streams.operators.table import Changes, ToStream
from tailrace.streams.program.io import Late, Merge, Split
from tailrace.streams.program.topology import Operator
from tailrace.streams.values.derived import Slot
from tailrace.streams.values.place import Place

HERE = Place("shop.py", 7)


def run(operator: Operator, *records: tuple[Any, Any, int]) -> list[tuple[Any, Any, int]]:
    out: list[tuple[Any, Any, int]] = []
    link = operator.build(None, lambda key, value, timestamp_ms: out.append((key, value, timestamp_ms)))
    for record in records:
        link(*record)
    return out


def made(kind: Callable[..., Operator], f: Callable[[Any], Any], **more: Any) -> Operator:
    return kind(name="node-1", place=HERE, f=f, **more)


def made_kv(kind: Callable[..., Operator], f: Callable[[Any, Any], Any], **more: Any) -> Operator:
    return kind(name="node-1", place=HERE, f=f, **more)


def test_filter_keeps_what_is_true() -> None:
    assert run(made(Filter, lambda v: v > 1), ("a", 1, 5), ("b", 2, 6)) == [("b", 2, 6)]


def test_the_other_filters() -> None:
    records = [("a", 1, 5), ("b", 2, 6)]
    assert run(made(FilterNot, lambda v: v > 1), *records) == records[:1]
    assert run(made_kv(FilterKv, lambda k, v: (k, v) == ("b", 2)), *records) == records[1:]


def test_map_keeps_key_and_time() -> None:
    assert run(made(Map, lambda v: v * 2), ("a", 1, 5)) == [("a", 2, 5)]


def test_nulls_reach_the_function() -> None:
    assert run(made(Map, lambda v: v is None), (None, None, 5)) == [(None, True, 5)]


def test_flat_map_in_order() -> None:
    assert run(made(FlatMap, range), ("a", 2, 5), ("b", 0, 6)) == [("a", 0, 5), ("a", 1, 5)]


@pytest.mark.parametrize("needed", [False, True])
def test_new_keys(needed: bool) -> None:
    slot = Slot("key", "node-1")
    slot.needed = needed
    assert run(made(KeyBy, lambda v: v[0], key=slot), ("a", "xy", 5)) == [("x", "xy", 5)]
    assert run(made_kv(MapKv, lambda k, v: (v, k), key=slot), ("a", "xy", 5)) == [("xy", "a", 5)]
    assert run(made_kv(KeyByKv, lambda k, v: k + v, key=slot), ("a", "xy", 5)) == [("axy", "xy", 5)]
    pairs = made_kv(FlatMapKv, lambda k, v: [(each, k) for each in v], key=slot)
    assert run(pairs, ("a", "xy", 5)) == [("x", "a", 5), ("y", "a", 5)]
    for operator in (
        made(KeyBy, lambda _v: 1.0, key=slot),
        made_kv(KeyByKv, lambda _k, _v: 1.0, key=slot),
        made_kv(MapKv, lambda _k, v: (1.0, v), key=slot),
        made_kv(FlatMapKv, lambda _k, v: [(1.0, v)], key=slot),
    ):
        if needed:
            with pytest.raises(EncodeError, match=r"made the key 1\.0"):
                run(operator, ("a", "xy", 5))
        else:
            assert run(operator, ("a", "xy", 5)) == [(1.0, "xy", 5)]


def test_changes_leaves_the_deletes_out_and_to_stream_does_not() -> None:
    records: list[tuple[Any, Any, int]] = [("a", 1, 5), ("a", None, 6)]
    assert run(Changes(name="changes-1", place=HERE), *records) == records[:1]
    for operator in (ToStream, Late, Merge):
        assert run(operator(name="node-1", place=HERE), *records) == records


def test_peek_and_for_each() -> None:
    seen: list[Any] = []
    record = ("a", 1, 5)
    assert run(made(Peek, seen.append, keyed=False), record) == [record]
    assert run(made_kv(Peek, lambda k, v: seen.append((k, v)), keyed=True), record) == [record]
    assert run(made(ForEach, seen.append, keyed=False), record) == []
    assert run(made_kv(ForEach, lambda k, v: seen.append((k, v)), keyed=True), record) == []
    assert seen == [1, ("a", 1), 1, ("a", 1)]


class Tall:
    def __repr__(self) -> str:
        return "two\nlines"


def test_print_is_one_line_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    records: list[tuple[Any, Any, int]] = [("a", "x\n", 5), (None, Tall(), 6)]
    assert run(Print(name="print-1", place=HERE, label="orders"), *records) == records
    assert capsys.readouterr().out == "[orders]: 'a', 'x\\n'\n[orders]: None, two\\nlines\n"
    run(Print(name="print-1", place=HERE, label=""), ("a", 1, 5))
    assert capsys.readouterr().out == "'a', 1\n"


def test_split_takes_the_first_branch() -> None:
    out: list[tuple[str, Any]] = []
    operator = Split(
        name="split-1", place=HERE, branches={"big": lambda v: v > 9, "even": lambda v: v % 2 == 0}, default=None
    )
    link = operator.route(lambda name: lambda _key, value, _timestamp_ms: out.append((name, value)))
    for value in (12, 4, 3, 11):
        link("k", value, 0)
    assert out == [("big", 12), ("even", 4), ("big", 11)]
    assert operator.outputs == ("big", "even")
