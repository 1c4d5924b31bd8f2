from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pytest

from tailrace.streams.values.derived import UNKNOWN
from tailrace.streams.values.fitting import fits
from tailrace.windows.windowed import Windowed


class Total(msgspec.Struct):
    n: int


class Larger(Total):
    m: int = 0


@dataclass
class Point:
    x: int


class Row(TypedDict):
    n: int


class Sized(Protocol):
    size: int


class Color(StrEnum):
    RED = "red"


class Shape(Enum):
    ROUND = 1


Name = NewType("Name", str)
T = TypeVar("T")

FITTING: list[tuple[Any, Any]] = [
    (str, str),
    (Color, str),
    (Name, str),
    (Annotated[Name, "a"], str),
    (Literal["a", "b"], str),
    (bool, int),
    (int, float),
    (int | None, int),
    (int | str, str),
    (Total | Point, Point),
    (Larger, Total),
    (Total, Larger),
    (Total | None, Total),
    (Sequence[int], list[int]),
    (Iterable[str], str),
    (Sized, Total),
    (Row, dict[str, int]),
    (dict, Row),
    (Total, Row),
    (Total, dict),
    (set[int], list[int]),
    (tuple[int, int], list),
    (Windowed[str], Windowed[str]),
    (datetime, datetime),
    (str, datetime),
    (None, int),
    *((every, other) for every in (Any, object, T, UNKNOWN, None) for other in (str, Total, list[int])),
    *((other, every) for every in (Any, object, T, UNKNOWN, None) for other in (str, Total, list[int])),
]
UNLIKE: list[tuple[Any, Any]] = [
    (int, str),
    (str, bytes),
    (bytes, str),
    (float, int),
    (str, float),
    (Shape, str),
    (Shape, int),
    (datetime, int),
    (Literal[1], str),
    (int | bytes, str),
    (Total, str),
    (Total, int),
    (Total, Point),
    (Point, Total),
    (Row, Total),
    (dict[str, int], Total),
    (list[Total], Total),
    (int | None, Total),
    (Annotated[int, "a"], Total),
    (int, list[int]),
    (str, dict[str, int]),
    (bool, list[int]),
    (str, Windowed[str]),
    (Windowed[str], str),
]


@pytest.mark.parametrize(("of", "wanted"), FITTING)
def test_what_may_fit(of: Any, wanted: Any) -> None:
    assert fits(of, wanted)


@pytest.mark.parametrize(("of", "wanted"), UNLIKE)
def test_what_cannot(of: Any, wanted: Any) -> None:
    assert not fits(of, wanted)
