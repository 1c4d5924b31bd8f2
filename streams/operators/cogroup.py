"""Several streams folded into one aggregate: its data, and how a value brings along what adds it.

A node of this kind has a link for each of its parents. Behind them all is one aggregate, as of a single stream, and
what reaches it are pairs: the function of the value's own stream, and the value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.fold import Fold
from tailrace.streams.program.topology import Forward


@dataclass(frozen=True, kw_only=True)
class Cogroup(Aggregate):
    """Folds the values of each key from several streams into one; `add` is unused."""

    adds: tuple[Callable[[Any, Any], Any], ...]
    """Of each parent: (value so far, new value) to the next; None deletes."""


def cogroup_fold(zero: Callable[[], Any]) -> Fold:
    """Begins with zero() and adds each value by the function that it brings along."""

    def fold(so_far: Any, sided: Any) -> Any:
        add, value = sided
        return add(zero() if so_far is None else so_far, value)

    return fold


def side_of(aggregate: Forward, add: Callable[[Any, Any], Any]) -> Forward:
    """The link of one stream."""

    def side_link(key: Any, value: Any, timestamp_ms: int) -> None:
        aggregate(key, None if value is None else (add, value), timestamp_ms)

    return side_link


def late_of_sides(late: Forward) -> Forward:
    """What takes late pairs, for what takes late values."""

    def late_link(key: Any, sided: Any, timestamp_ms: int) -> None:
        late(key, sided[1], timestamp_ms)

    return late_link
