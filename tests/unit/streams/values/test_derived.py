import functools
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Any

import msgspec
import pytest

from tailrace.log.errors import EncodeError, TopologyError
from tailrace.streams.values.codec import NATURAL_KEY, codec_of, windowed
from tailrace.streams.values.derived import (
    UNKNOWN,
    Slot,
    WindowedSlot,
    key_check,
    made_slot,
    returned,
    returned_items,
    returned_pair,
    zero_slot,
)
from tailrace.streams.values.place import Place
from tailrace.windows.duration import minutes
from tailrace.windows.tumbling import tumbling

HERE = Place("shop.py", 7)


class Total(msgspec.Struct):
    n: int = 0


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


def total(_value: int) -> Total:
    return Total()


def maybe(_value: int) -> Total | None:
    return None


def pairs(_key: str, _value: int) -> tuple[str, Total]:
    return "a", Total()


def several(_value: int) -> Iterator[Total]:
    yield Total()


def anything(_value: int) -> Any:
    return 1


def ident(value: Any):  # type: ignore[no-untyped-def]  # a function without an annotation is the case
    return value


def broken(_value: int) -> int:
    return 1


broken.__annotations__["return"] = "NoSuchName"


class Called:
    def __call__(self, _value: int) -> Total:
        return Total()


RETURNING: list[tuple[Any, Any]] = [
    (total, Total),
    (maybe, Total),
    (Total, Total),
    (str, str),
    (functools.partial(total), Total),
    (Called(), Total),
    (anything, UNKNOWN),
    (broken, UNKNOWN),
    (len, UNKNOWN),
    (ident, UNKNOWN),
]


@pytest.mark.parametrize(("f", "of"), RETURNING)
def test_what_an_annotation_promises(f: Any, of: Any) -> None:
    assert returned(f) is of


def test_items_and_pairs() -> None:
    assert returned_items(several) is Total
    assert returned_items(total) is UNKNOWN
    assert returned_items(pairs) is UNKNOWN
    assert returned_pair(pairs) == (str, Total)
    assert returned_pair(total) == (UNKNOWN, UNKNOWN)


def test_the_argument_comes_before_the_annotation() -> None:
    assert made_slot("value", "map-1", HERE, int, Total).codec is codec_of(int)
    assert made_slot("value", "map-1", HERE, None, Total).codec.name == "json(Total)"


@pytest.mark.parametrize(
    ("zero", "name"),
    [
        (Total, "json(Total)"),
        (lambda: 0, "int"),
        (lambda: 0.0, "float"),
        (lambda: "", "str"),
        (dict, "natural"),
        (list, "natural"),
        (lambda: None, "natural"),
        (set, "msgpack(set)"),
        (tuple, "msgpack(tuple)"),
    ],
)
def test_zero_tells_the_type_of_an_aggregate(zero: Any, name: str) -> None:
    assert zero_slot("aggregate(store='a')", HERE, zero, None, lambda a, v: a).codec.name == name


def test_add_and_value_come_before_zero() -> None:
    def add(_a: Any, _v: int) -> Total:
        return Total()

    assert zero_slot("aggregate", HERE, lambda: 0, None, add).codec.name == "json(Total)"
    assert zero_slot("aggregate", HERE, lambda: 0, float, add).codec.name == "float"


def test_a_topic_that_follows_tells_what_nobody_else_does() -> None:
    slot = Slot("value", "map-1")
    slot.follow(codec_of(Total))
    slot.follow(codec_of(int))
    assert slot.codec.name == "json(Total)"
    known = Slot("value", "map-1", of=str)
    known.follow(codec_of(int))
    assert known.codec is codec_of(str)


def test_a_windowed_topic_tells_the_key_inside_and_learns_the_window() -> None:
    inner, window, topic = Slot("key", "key-by-1"), tumbling(minutes(1)), windowed(str)
    slot = WindowedSlot(inner, window)
    slot.follow(topic)
    assert inner.codec is codec_of(str)
    assert topic.decode(b"a" + bytes(8)).end_ms == 60_000
    assert slot.codec.name == "windowed(str)"


def test_without_any_the_natural_codec_names_the_missing_argument() -> None:
    slot = Slot("value", "map-1", place=HERE)
    assert slot.codec.decode(slot.codec.encode([1, "a"])) == [1, "a"]
    with pytest.raises(
        EncodeError, match=r"the value that map-1 at shop\.py:7 makes .*Total.*; name its type with value="
    ):
        slot.codec.encode(Total())
    key = Slot("key", "map-kv-1", place=HERE)
    with pytest.raises(EncodeError, match=r"the key that map-kv-1 at shop\.py:7 makes .*; name its type with key="):
        key.codec.encode((1, 2))
    assert key.codec.partition_bytes("a") == b"a"


def test_a_type_without_codec_is_refused_where_bytes_are_needed() -> None:
    class Strange:
        pass

    slot = Slot("value", "map-1", place=HERE, of=Strange)
    with pytest.raises(TopologyError, match=r"the value that map-1 at shop\.py:7 makes has no codec.*value="):
        _ = slot.codec


def needed(of: Any = UNKNOWN) -> Slot:
    slot = Slot("key", "key-by-1", of=of)
    slot.need()
    return slot


@pytest.mark.parametrize(
    ("slot", "key", "made"),
    [
        (needed(), "a", "a"),
        (needed(), b"a", b"a"),
        (needed(), 1, 1),
        (needed(), None, None),
        (needed(), Color.RED, "red"),
        (needed(), Size.BIG, 3),
        (needed(str), Color.RED, "red"),
        (needed(int), None, None),
    ],
)
def test_keys_are_made_plain(slot: Slot, key: Any, made: Any) -> None:
    _, check = key_check(slot, HERE)
    assert check(key) == made
    assert type(check(key)) is type(made)


@pytest.mark.parametrize(("slot", "key"), [(needed(), True), (needed(), 1.0), (needed(int), True), (needed(str), 1)])
def test_keys_that_a_dict_would_take_for_others_are_refused(slot: Slot, key: Any) -> None:
    _, check = key_check(slot, HERE)
    with pytest.raises(EncodeError, match=r"key-by-1 at shop\.py:7 made the key .* name their type with key="):
        check(key)


def test_a_key_that_nobody_needs_as_bytes_may_be_anything() -> None:
    assert key_check(Slot("key", "key-by-1"), HERE)[0] is None
    assert key_check(needed(tuple[int, int]), HERE)[0] is None
    assert NATURAL_KEY.plain is str


def boom() -> int:
    raise LookupError("no such thing")


async def later() -> int:
    return 0


def iter_of(n: int) -> Iterator[int]:
    yield n


def awaiting() -> Any:
    return later()


@pytest.mark.parametrize("of", [None, int])
def test_a_zero_that_raises_is_told_when_the_program_is_made(of: Any) -> None:
    with pytest.raises(
        TopologyError, match=r"zero\(\) of aggregate\(store='s'\) at shop\.py:7 raised LookupError: no such thing"
    ) as raised:
        zero_slot("aggregate(store='s')", HERE, boom, of, lambda a, _b: a)
    assert isinstance(raised.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("zero", "of", "words"),
    [
        (awaiting, None, "<coroutine .*> of type coroutine, and it must return the value that every key begins with"),
        (lambda: iter_of(1), list, "of type generator"),
        (lambda: dict, None, "<class 'dict'> of type type"),
        (lambda: boom, int, "of type function"),
        (lambda: "x", int, "'x' of type str, and value= says int"),
        (lambda: 0, Total, "0 of type int, and value= says Total"),
    ],
)
def test_a_zero_that_returns_the_wrong_thing(zero: Any, of: Any, words: str) -> None:
    with pytest.raises(TopologyError, match=rf"zero\(\) of aggregate at shop\.py:7 returned .*{words}"):
        zero_slot("aggregate", HERE, zero, of, lambda a, _b: a)


def test_a_zero_of_another_class_that_fits() -> None:
    for zero, of in ((lambda: 0, float), (lambda: None, int), (lambda: Color.RED, str), (dict, dict[str, int])):
        assert zero_slot("aggregate", HERE, zero, of, lambda a, _b: a).of is of
