"""Aggregates of grouped streams, plain and windowed: their data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session_rows import SessionLayout
from tailrace.state.window import WindowStore
from tailrace.streams.program.kept_as import KeptAs, kept_as
from tailrace.streams.program.reduced import Reduced
from tailrace.streams.program.topology import KeptStore, Operator, Output
from tailrace.streams.values.codec import TypeCodec, codec_of
from tailrace.streams.values.derived import Slot
from tailrace.windows.session import SessionWindow
from tailrace.windows.sliding import SlidingWindow
from tailrace.windows.unlimited import UnlimitedWindow
from tailrace.windows.window import AlignedWindow, Window

Emit = Literal["update", "close"]
"""When a window's result is sent: at every change (the cache may merge changes), or once, when it is closed."""


WindowClock = Literal["task", "key"]
"""Whose time closes windows: the task's stream time, or the largest time of each key's own records."""


@dataclass(frozen=True, kw_only=True)
class Aggregate(Operator):
    """Folds the values of each key into one, in windows where there is a window, and sends the changes of the result.

    Output "late" has the records that came after all of their windows closed, as they came.
    """

    store_name: str
    function: Literal["count", "reduce", "aggregate", "agg"]
    zero: Callable[[], Any] | None
    """Of "aggregate": the value that a key begins with."""
    add: Callable[[Any, Any], Any] | None
    """Of "reduce" and "aggregate": (value so far, new value) to the next; None deletes."""
    merge: Callable[[Any, Any], Any] | None
    """Of "aggregate" in sessions: (earlier session's value, later one's) to one.

    "reduce" merges sessions by `add`, "count" by adding up."""
    window: Window | None
    emit: Emit
    retention_ms: int | None
    """How far behind stream time a window may still be read; at least the window's own; None without a window."""
    key: Slot
    """Of the key as it comes in: not windowed."""
    value: Slot
    """Of the result."""
    reduced: Reduced | None = None
    """Of "agg": its reducers."""
    silence_ms: int | None = None
    """After how long a silence of the input its windows close by the wall clock; None: never."""
    clock: WindowClock = "task"
    """By whose time its windows close."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The changes, and the late records."""
        return ("main", "late")

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """The results, laid out by the kind of window."""
        window = self.window
        if window is None:
            return (KeptStore(self.store_name, KeyValueStore.layout),)
        if self.clock == "key":
            layout = SessionLayout(None if isinstance(window, SessionWindow) else self.length_ms)
            return (KeptStore(self.store_name, layout), KeptStore(self.clocks_name, KeyValueStore.layout))
        if isinstance(window, AlignedWindow):
            return (KeptStore(self.store_name, WindowStore.layout, self.retention_ms),)
        difference_ms = window.difference_ms if isinstance(window, SlidingWindow) else None
        return (KeptStore(self.store_name, SessionLayout(difference_ms), self.retention_ms),)

    @property
    def caches(self) -> bool:
        """Changes may wait; final results are sent when their windows close."""
        return self.emit != "close"

    @property
    def clocks_name(self) -> str:
        """The store of the keys' clocks."""
        return f"{self.store_name}-clocks"

    @property
    def length_ms(self) -> int:
        """Of windows of one length: how far their end is from their start."""
        window = self.window
        return window.end(0) if isinstance(window, AlignedWindow | SlidingWindow) else 0

    def kept_as(self, store: str) -> KeptAs:
        """The results, of its window."""
        if self.clock == "task":
            return kept_as(self.key.codec, self.stored, self.window)
        if store == self.clocks_name:
            return kept_as(self.key.codec, codec_of(int))
        by_task = kept_as(self.key.codec, self.stored, self.window)
        return KeptAs(f"{by_task.rows} by key", by_task.key, by_task.value)

    @property
    def stored(self) -> TypeCodec:
        """The codec of what the store holds: the results, but for "agg"."""
        return self.value.codec if self.reduced is None else self.reduced.codec

    @property
    def grace_ms(self) -> int | None:
        """The window's grace."""
        return int(getattr(self.window, "grace_ms", 0)) if self.window is not None else None

    @property
    def idle_after_ms(self) -> int | None:
        """What the program said."""
        return self.silence_ms

    @property
    def delay_ms(self) -> int:
        """A result of a window carries a time of that window, which closes this much later."""
        return 0 if self.window is None or isinstance(self.window, UnlimitedWindow) else self.window.delay_ms

    def facts(self) -> dict[str, Any]:
        """The codecs of its store, the window and when it sends."""
        types = {"key": self.key.codec.name, "value": self.value.codec.name}
        if self.reduced is not None:
            types["reducers"] = self.reduced.text
        if self.window is None:
            return types
        lateness: dict[str, Any] = {
            "grace_ms": self.grace_ms,
            "delay_ms": self.delay_ms,
            "retention_ms": self.retention_ms,
        }
        if isinstance(self.window, UnlimitedWindow):
            lateness = {}
        clock = {"clock": self.clock} if self.clock != "task" else {}
        idle = {} if self.silence_ms is None else {"idle_after_ms": self.silence_ms}
        return {**types, "window": str(self.window), "emit": self.emit, **lateness, **clock, **idle}

    def check(self, inputs: int) -> None:
        """Its key and its value must have codecs."""
        del inputs
        _ = self.key.codec, self.value.codec
