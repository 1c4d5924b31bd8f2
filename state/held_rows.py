"""The records of one key in the cache of a join's store: a list of its cache key, then time and what is held by turns.

Why one flat list: such records live for minutes. With an object for each, its row and its entry in a dictionary it was
444 bytes, and is 233, key and value included; and ints and bytes are nothing that the collector walks.

1. Times rise, and none comes twice: records of one time are held together (held).
2. The list of a key that the store has let go of is empty, but for the key.
"""

from collections.abc import Iterator
from typing import Any

from tailrace.state.held import HeldValues, is_matched

Rows = list[Any]
"""The cache key; then, for each time at which there are records, the time in ms and its `HeldValues`."""

FIRST, LAST = 1, -2
"""Where the first time stands, and the last, where there are any."""


_SEARCHED = 24  # a shorter list is walked


def first_from(rows: Rows, time_ms: int) -> int:
    """Where the first time stands that is not before time_ms; past the end where all are."""
    if len(rows) < _SEARCHED:
        for place in range(FIRST, len(rows), 2):
            if rows[place] >= time_ms:
                return place
        return len(rows)
    low, high = 0, len(rows) // 2
    while low < high:
        middle = (low + high) // 2
        if rows[2 * middle + FIRST] < time_ms:
            low = middle + 1
        else:
            high = middle
    return 2 * low + FIRST


def at(rows: Rows, time_ms: int) -> int | None:
    """Where just that time stands."""
    found = first_from(rows, time_ms)
    return found if found < len(rows) and rows[found] == time_ms else None


def by_time(rows: Rows) -> Iterator[tuple[int, HeldValues]]:
    """Times and what is held."""
    rest = iter(rows)
    next(rest)
    return zip(rest, rest, strict=True)


class Alone:
    """A time of a key at which there are records without a partner: an item for `Ends`."""

    __slots__ = ("end_ms", "rows")

    def __init__(self, time_ms: int, rows: Rows) -> None:
        self.end_ms = time_ms
        self.rows = rows

    @property
    def gone(self) -> bool:
        """Whether they have found one, or are cached no more."""
        found = at(self.rows, self.end_ms)
        return found is None or is_matched(self.rows[found + 1])


class Changed:
    """Times of keys that have changed, by column."""

    __slots__ = ("latest_ms", "rows", "times")

    def __init__(self) -> None:
        self.rows: list[Rows] = []
        self.times: list[int] = []
        self.latest_ms = -1
        """The last of the times, once it is known."""

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[Rows, int]]:
        return zip(self.rows, self.times, strict=True)

    def extend(self, more: "Changed") -> None:
        """Takes those of another."""
        self.rows += more.rows
        self.times += more.times


class New(Changed):
    """Times that are new, with the key as it came and what is held, which are at hand then."""

    __slots__ = ("held", "keys")

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Any] = []
        self.held: list[bytes] = []
