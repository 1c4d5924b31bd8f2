"""What a processor is and what it is given: the classes that programs subclass and name.

Not here: how one is run (operators/processor), when scheduled functions are called (schedule).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar

from tailrace.log.record import Headers, Record

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
VR = TypeVar("VR")


class Context(ABC, Generic[K2, VR]):
    """What a processor reaches its task by; it is handed to `Processor.init` and stays valid until `close`."""

    record: Record[Any, Any] | None
    """The record at hand; None inside a scheduled call, in `init` and in `close`."""

    @property
    @abstractmethod
    def stream_time_ms(self) -> int:
        """The task's stream time: the largest timestamp so far; behind a repartition the slowest writer's. -1: none."""

    @abstractmethod
    def forward(self, key: K2, value: VR, *, timestamp_ms: int | None = None, headers: Headers | None = None) -> None:
        """Sends a record on. When it returns, everything behind it in this process has taken it.

        What goes wrong behind it comes out here and ends the app, also where the processor catches it: what stands
        behind has taken a part of the record, and cannot give it back.

        Args:
            key: that of `process_values` must be the record's.
            value: shared with whatever comes behind: not to be changed in place afterwards.
            timestamp_ms: the record's unless given; in a scheduled call stream time or the wall clock's.
            headers: the record's unless given; none in a scheduled call.

        Raises:
            ValueError: `process_values` and another key, or a timestamp before 1970.
            RuntimeError: called in `init`, in `close` or from outside.
        """

    @abstractmethod
    def store(self, name: str) -> Any:
        """A store that the processor was given with `stores=`.

        What is put is the program's object: it is made into bytes at the next commit, so a change in place until then
        is kept. A value that was got and changed in place, and not put, may or may not show until it is put.

        Raises:
            InvalidError: it was given none of that name.
        """

    @abstractmethod
    def schedule(
        self, every: timedelta, f: Callable[[int], None], *, clock: Literal["stream", "wall"]
    ) -> Callable[[], None]:
        """Has `f` called again and again, with the time in ms; returns a function that ends it.

        With "stream" it is called after the first record, and then after the first one at which stream time has passed
        another multiple of `every`, counted from 0. With "wall" it is called when `every` has passed on the wall clock,
        as well as the work at hand allows. Either way what was missed is not called for again. Schedules are not kept:
        `init` makes them anew at every start, and stream time goes on where it was.

        Raises:
            ValueError: `every` is not above 0, no whole number of milliseconds, or `clock` is neither.
            TypeError: `f` is no plain function.
        """


class Processor(ABC, Generic[K, V, K2, VR]):
    """Code that sees record after record, keeps stores, and sends on what it likes: to be subclassed.

    K and V are the types of what comes in, K2 and VR of what it forwards. There is one object per task, made by the
    factory that `Stream.process` was given; all of its methods are called in one thread, and none may be `async`.
    """

    def init(self, ctx: Context[K2, VR]) -> None:
        """Called once, when the stores are restored and before the first record: keep `ctx`, make schedules."""
        del ctx

    @abstractmethod
    def process(self, record: Record[K, V]) -> None:
        """Called for every record. One that is the result of a table has the topic "" and the offset -1."""

    def close(self) -> None:
        """Called once, when the task ends, also by an error; after the last commit, so nothing can be sent."""
