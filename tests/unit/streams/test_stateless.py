from collections.abc import Callable
from typing import Any

import pytest

from tailrace.log.errors import EncodeError
from tailrace.streams.derived import Slot
from tailrace.streams.operators.io import Late, Merge
from tailrace.streams.operators.stateless import Filter, FlatMap, KeyBy, Map, MapKv
from tailrace.streams.operators.table import Changes, ToStream
from tailrace.streams.place import Place
from tailrace.streams.topology import Operator

HERE = Place("shop.py", 7)


def run(operator: Operator, *records: tuple[Any, Any, int]) -> list[tuple[Any, Any, int]]:
    out: list[tuple[Any, Any, int]] = []
    link = operator.build(None, lambda key, value, timestamp_ms: out.append((key, value, timestamp_ms)))
    for record in records:
        link(*record)
    return out


def made(kind: Callable[..., Operator], f: Callable[[Any], Any], **more: Any) -> Operator:
    return kind(name="node-1", place=HERE, f=f, **more)


def made_kv(f: Callable[[Any, Any], tuple[Any, Any]], key: Slot) -> Operator:
    return MapKv(name="node-1", place=HERE, f=f, key=key)


def test_filter_keeps_what_is_true() -> None:
    assert run(made(Filter, lambda v: v > 1), ("a", 1, 5), ("b", 2, 6)) == [("b", 2, 6)]


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
    assert run(made_kv(lambda k, v: (v, k), slot), ("a", "xy", 5)) == [("xy", "a", 5)]
    for operator in (made(KeyBy, lambda _v: 1.0, key=slot), made_kv(lambda _k, v: (1.0, v), slot)):
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
