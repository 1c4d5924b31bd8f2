"""Tables that hold updates back, as data: `suppress` until windows close or event time has passed, and `throttle`.

What holds updates back is built in `holding`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

from tailrace.log.errors import TopologyError
from tailrace.state.keyvalue import KeyValueStore
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.table import TableFilter, TableMap
from tailrace.streams.operators.table_join import TableJoin
from tailrace.streams.program.graph import Graph
from tailrace.streams.program.kept_as import Form, KeptAs
from tailrace.streams.program.topology import Input, KeptStore, Node, OldValues, Operator
from tailrace.streams.values.derived import Slot
from tailrace.windows.duration import format_ms, to_ms
from tailrace.windows.session import SessionWindow
from tailrace.windows.unlimited import UnlimitedWindow
from tailrace.windows.window import AlignedWindow, Window
from tailrace.windows.windowed import Windowed

WhenFull = Literal["emit", "fail"]


@dataclass(frozen=True)
class Suppress:
    """Until when `Table.suppress` holds updates back; made by `until_window_closes` and `until_stream_time`."""

    after_ms: int | None
    """How long after the first update that is held; None: until its window closes."""

    def __str__(self) -> str:
        return "until_window_closes()" if self.after_ms is None else f"until_stream_time({format_ms(self.after_ms)})"


def until_window_closes() -> Suppress:
    """One result for each window, when it has closed: for `Table.suppress` of a windowed aggregate."""
    return Suppress(None)


def until_stream_time(after: timedelta) -> Suppress:
    """The latest update of a key, once stream time is `after` past the first one that is held back.

    It is event time that counts: while nothing comes in nothing is sent. By the wall clock there is `Table.throttle`.

    Raises:
        TypeError: no timedelta.
        ValueError: `after` is negative, or no whole number of milliseconds.
    """
    after_ms = to_ms(after, "until_stream_time")
    if after_ms < 0:
        raise ValueError(f"until_stream_time({format_ms(after_ms)}) is negative")
    return Suppress(after_ms)


@dataclass(frozen=True, kw_only=True)
class Holding(Operator):
    """A table that sends its updates later, or fewer of them. It keeps what waits, and none of its rows."""

    rows: ClassVar[str]
    """Of which kind its due times are; a store of one kind is not taken for another's."""
    store_name: str
    key: Slot
    value: Slot

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """The updates that wait."""
        return (KeptStore(self.store_name, KeyValueStore.layout),)

    @property
    def caches(self) -> bool:
        """What waits is sent when its time has come, whatever is committed."""
        return False

    def kept_as(self, store: str) -> KeptAs:
        """Updates that wait, by key."""
        del store
        key, value = self.key.codec, self.value.codec
        return KeptAs(f"held {self.rows}", Form(key.name, key.fields), Form(value.name, value.fields))

    @property
    def old(self) -> OldValues:
        """The value that the first update replaces is what those behind it know."""
        return "passed"

    @property
    def newest_only(self) -> bool:
        """What waits is the newest change."""
        return True

    def check(self, inputs: int) -> None:
        """What is held must have codecs."""
        del inputs
        _ = self.key.codec, self.value.codec

    def facts(self) -> dict[str, Any]:
        """The codecs of its store."""
        return {"key": self.key.codec.name, "value": self.value.codec.name}


@dataclass(frozen=True, kw_only=True)
class SuppressTable(Holding):
    """What is common to both forms of suppress: how much may be held, in keys and in bytes of keys and values."""

    until: Suppress
    max_records: int | None
    max_bytes: int | None
    when_full: WhenFull

    def facts(self) -> dict[str, Any]:
        """When it sends, and how much it holds."""
        limits = {"max_records": self.max_records, "max_bytes": self.max_bytes}
        told: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
        if told:
            told["when_full"] = self.when_full
        return {**super().facts(), "until": str(self.until), **told}


@dataclass(frozen=True, kw_only=True)
class SuppressUntilClose(SuppressTable):
    """Sends each window's result once, when it has closed; windows that are empty by then send nothing."""

    rows = "until close"
    window: Window | None
    """Of the aggregate that the table is made of; None where there is none."""

    def closes_at(self) -> Callable[[Windowed[Any]], int]:
        """Windowed key to the stream time at which it is sent.

        Of a session that is end + gap + grace (S02 of the semantics), 1 ms before it is closed for every record.
        """
        window: Any = self.window
        if isinstance(window, AlignedWindow):
            at_start = window.closes_at
            return lambda key: at_start(key.start_ms)
        if isinstance(window, SessionWindow):
            open_ms = window.closes_at(0) - 1
            return lambda key: key.end_ms + open_ms
        at_end: Callable[[int], int] = window.closes_at
        return lambda key: at_end(key.end_ms)

    def check(self, inputs: int) -> None:
        """There must be a window, and one that closes."""
        super().check(inputs)
        if self.window is None:
            raise TopologyError(
                f"suppress(until_window_closes(), store={self.store_name!r}) at {self.place} is given a table without "
                "windows, or with windows that stream time does not close: make it of an aggregate after windowed_by() "
                'without clock="key", before any repartition, or use until_stream_time(…)'
            )
        if isinstance(self.window, UnlimitedWindow):
            raise TopologyError(
                f"suppress(until_window_closes(), store={self.store_name!r}) at {self.place} would never send "
                f"anything: {self.window} never closes; use until_stream_time(…)"
            )


@dataclass(frozen=True, kw_only=True)
class SuppressUntilTime(SuppressTable):
    """Sends a key's latest update when stream time is some way past the first one that it holds."""

    rows = "until stream time"
    sees_every_update = True

    @property
    def delay_ms(self) -> int:
        """As long as it holds them back."""
        return self.until.after_ms or 0


@dataclass(frozen=True, kw_only=True)
class ThrottleTable(Holding):
    """Sends a key's first update at once, and then no more than the latest one in each interval of the wall clock."""

    rows = "throttled"
    every_ms: int

    sees_every_update = True

    @property
    def delay_ms(self) -> int:
        """While records come in as they are made: as long as it holds them back. Over a backlog there is no bound."""
        return self.every_ms

    def facts(self) -> dict[str, Any]:
        """The interval."""
        return {**super().facts(), "every_ms": self.every_ms}


def passes_windows(operator: Operator) -> bool:
    """Whether a table has the windowed keys of the tables that it is made of."""
    return isinstance(operator, TableFilter | TableMap | TableJoin | Holding)


def window_of(graph: Graph, origin: Input) -> Window | None:
    """The window of the aggregate that a table is made of; of several the one that closes last."""
    node: Node = graph.nodes[origin.node]
    operator = node.operator
    if isinstance(operator, Aggregate):
        return operator.window if operator.clock == "task" else None
    if not passes_windows(operator):
        return None
    found = [window_of(graph, parent) for parent in node.parents]
    return max((each for each in found if each is not None), key=lambda window: window.delay_ms, default=None)
