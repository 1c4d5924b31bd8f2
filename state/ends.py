"""Windows in the order in which they end, for closing and expiring: by slices of time, as most go a slice at once.

1. Every window stands under an end that is not above its own: one that has grown since is put back when it is met.
2. What ends before `_front_until_ms` is in `_front`, sorted, the last first; what ends later lies in the slice of its
   end, in no order. So a window costs an append, and a sort only in the slice in which time stands.
3. Windows that are gone are left out when they are met; `prune` drops them before.

Measured, against one heap of all: 1.1 to 0.4 µs a window.
"""

from bisect import insort
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

_SLICE_MS = 1024


class Ending(Protocol):
    """What has an end."""

    @property
    def end_ms(self) -> int:
        """Its last millisecond, which may grow."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it is no more."""
        ...


S = TypeVar("S", bound=Ending)


class Ends(Generic[S]):
    """See the module's docstring."""

    def __init__(self) -> None:
        self._front: list[tuple[int, S]] = []
        self._front_until_ms = 0
        self._slices: dict[int, list[S]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        """How many there are, those that are gone included."""
        return len(self._front) + sum(map(len, self._slices.values()))

    def add(self, span: S) -> None:
        """Adds one."""
        end_ms = span.end_ms
        if end_ms < self._front_until_ms:
            insort(self._front, (end_ms, span), key=_later_first)
            return
        number = end_ms // _SLICE_MS
        found = self._slices.get(number)
        if found is None:
            self._slices[number] = [span]
            heappush(self._order, number)
        else:
            found.append(span)

    def first(self) -> int | None:
        """A time that none ends before, mostly the first end; None where there are none."""
        while True:
            front = self._front
            while front:
                end_ms, span = front[-1]
                if not span.gone:
                    return end_ms
                front.pop()
            if not self._order:
                return None
            self._next_front()

    def take_before(self, before_ms: int) -> Iterator[S]:
        """Takes out those that end before `before_ms`, in no order. To be run to the end, nothing added meanwhile."""
        while True:
            front = self._front
            while front and front[-1][0] < before_ms:
                _, span = front.pop()
                if span.end_ms < before_ms:
                    if not span.gone:
                        yield span
                else:
                    self.add(span)
            if front or not self._order or self._order[0] * _SLICE_MS >= before_ms:
                return
            if (self._order[0] + 1) * _SLICE_MS > before_ms:
                self._next_front()
                continue
            for span in self._slices.pop(heappop(self._order)):
                if span.end_ms < before_ms:
                    if not span.gone:
                        yield span
                else:
                    self.add(span)

    def prune(self) -> None:
        """Lets go of those that are gone."""
        self._front = [(end_ms, span) for end_ms, span in self._front if not span.gone]
        slices = {number: [span for span in spans if not span.gone] for number, spans in self._slices.items()}
        self._slices = {number: spans for number, spans in slices.items() if spans}
        self._order = sorted(self._slices)

    def _next_front(self) -> None:
        """Sorts the earliest slice into the front, which is empty."""
        number = heappop(self._order)
        until_ms = self._front_until_ms = (number + 1) * _SLICE_MS
        front: list[tuple[int, S]] = []
        for span in self._slices.pop(number):
            if span.gone:
                continue
            if span.end_ms < until_ms:
                front.append((span.end_ms, span))
            else:
                self.add(span)
        front.sort(key=_later_first)
        self._front = front


def _later_first(item: tuple[int, object]) -> int:
    return -item[0]
