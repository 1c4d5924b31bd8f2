"""Windows by the clock of each key: late or not, and closed or not, by the largest time that the key itself has had.

1. A key's clock is the largest time of its records that have a key, null values included. It is kept in a store of its
   own, so it survives restarts and the windows. A record is judged with its own time counted in.
2. What a record closes of its key, with emit="close", is sent before the record is added; by end, then start.
3. A window is forgotten when its key's clock has passed its retention. The windows and the clock of a key that falls
   silent stay for good: stream time says nothing of it.
4. Behind a repartition the order of arrival decides how far a key's clock is when a record comes, so there a replay may
   find other records late. With clock="task" it does not.

All windows are laid out by key here, the aligned ones too. Not here: what a record does to sessions and sliding windows
(session, sliding).
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session import SessionStore, Span
from tailrace.streams.chain.clocks import NEVER
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.fold import Ways
from tailrace.streams.operators.spans import SpanAggregate
from tailrace.streams.program.topology import Forward
from tailrace.windows.window import AlignedWindow
from tailrace.windows.windowed import Windowed


class SpansOf:
    """An aligned window, as windows that follow from a key's records are asked."""

    def __init__(self, window: AlignedWindow) -> None:
        self._window = window
        self._size_ms = window.end(0)

    def is_late(self, timestamp_ms: int, origin_ms: int) -> bool:
        """Whether the last window that covers a record is closed for it."""
        starts = self._window.starts(timestamp_ms)
        return bool(starts) and self._window.closes_at(starts[-1]) <= origin_ms

    def closes_at(self, end_ms: int) -> int:
        """The first time at which a window with that end is closed."""
        return self._window.closes_at(end_ms - self._size_ms)


class AlignedSpans(SpanAggregate):
    """An aggregate in tumbling or hopping windows that are laid out by key."""

    def __init__(self, context: TaskContext, store: SessionStore[Any, Any], window: AlignedWindow, ways: Ways) -> None:
        super().__init__(context, store, SpansOf(window), ways, expiry_ms=ways.retention_ms - window.end(0))
        self._aligned = window

    def take(self, key: Any, cached: Any, spans: list[Span[Any]], value: Any, timestamp_ms: int) -> bool:
        """Adds a record to the windows that cover it; at least one of them is open."""
        window, emit = self._aligned, self._emit
        for start_ms in window.starts(timestamp_ms):
            if window.closes_at(start_ms) <= self._context.origin_ms:
                continue
            at = bisect_left(spans, start_ms, key=_start)
            span = spans[at] if at < len(spans) and spans[at].start_ms == start_ms else None
            old = None if span is None or not self._eager else emit.before(span.value)
            result = self._fold(None if span is None else span.value, value)
            time_ms = timestamp_ms if span is None else max(span.timestamp_ms, timestamp_ms)
            if span is None:
                if result is not None:
                    self.store.add(cached, start_ms, window.end(start_ms), result, time_ms)
            elif result is None:
                self.store.remove(span, time_ms)
            else:
                span.value, span.timestamp_ms = result, time_ms
                if not span.dirty:
                    self.store.touch(span)
            if self._eager:
                emit(Windowed(key, start_ms, window.end(start_ms)), result, time_ms, old)
        return True


class ByKey:
    """An aggregate whose windows go by the clocks of their keys; to its task it has windows that never close."""

    def __init__(
        self,
        context: TaskContext,
        clocks: KeyValueStore[Any, int],
        ways: Ways,
        make: Callable[[Ways], SpanAggregate],
    ) -> None:
        self._outer_ms = NEVER
        """The origin of the record at hand, while there is the clock of its key in its place."""
        self._context = context
        self._clocks = clocks
        self._ways = replace(ways, late=self._late)
        self._late_records = ways.late
        aggregate = self._aggregate = make(self._ways)
        self.name = aggregate.name
        self.store: SessionStore[Any, Any] = aggregate.store
        self._passed: list[Span[Any]] = []
        """Windows that nothing can need any more: forgotten with the next commit."""

    @property
    def dirty(self) -> int:
        """How many updates wait for the next commit."""
        return self.store.dirty

    def resume(self, _stream_time_ms: int) -> None:
        """Nothing depends on stream time."""

    def close_windows(self, _stream_time_ms: int) -> int:
        """Stream time closes nothing."""
        return FAR

    def flush(self, _stream_time_ms: int) -> None:
        """Sends on what changed since the last commit, where the cache held it back, and forgets what has passed."""
        self._aggregate.send_changes()
        passed, self._passed = self._passed, []
        for span in passed:
            if not span.gone:
                self.store.forget(span)

    def open_windows(self, _stream_time_ms: int) -> int:
        """How many results are kept: those whose keys have not gone past them."""
        return sum(1 for _ in self.store.fetch_all(0, FAR))

    def process(self) -> Forward:
        """The function that takes the node's records."""
        context, clocks, store, take = self._context, self._clocks, self.store, self._aggregate.process()
        entries, touch = clocks.entries, clocks.touch
        cache_key = None if store.hashable else store.cache_key

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None:
                context.drop("null_key")
                return
            cached = key if cache_key is None else cache_key(key)
            entry = entries.get(cached)
            if entry is None:
                entry = clocks.load(cached)
            before_ms = NEVER if entry.value is None else entry.value
            if timestamp_ms > before_ms:
                entry.value = entry.timestamp_ms = timestamp_ms
                if not entry.dirty:
                    touch(cached, entry)
                self._pass(key, cached, before_ms, timestamp_ms)
            outer_ms = self._outer_ms = context.origin_ms
            context.origin_ms = before_ms if before_ms > timestamp_ms else timestamp_ms
            try:
                take(key, value, timestamp_ms)
            finally:
                context.origin_ms = outer_ms

        return process

    def _pass(self, key: Any, cached: Any, before_ms: int, now_ms: int) -> None:
        """Sends what closes as a key's clock goes on, and notes what nothing can need any more."""
        spans, open_ms, expiry_ms = self.store.load(cached), self._aggregate.open_ms, self._aggregate.expiry_ms
        if not spans or spans[0].end_ms + open_ms >= now_ms:
            return
        if self._ways.on_close:
            closing = [span for span in spans if before_ms <= span.end_ms + open_ms < now_ms]
            for span in sorted(closing, key=_end):
                self._ways.emit(Windowed(key, span.start_ms, span.end_ms), span.value, span.timestamp_ms)
        self._passed += [span for span in spans if before_ms < span.end_ms + expiry_ms <= now_ms]

    def _late(self, key: Any, value: Any, timestamp_ms: int) -> None:
        context = self._context
        key_ms, context.origin_ms = context.origin_ms, self._outer_ms
        try:
            self._late_records(key, value, timestamp_ms)
        finally:
            context.origin_ms = key_ms


def _start(span: Span[Any]) -> int:
    return span.start_ms


def _end(span: Span[Any]) -> tuple[int, int]:
    return span.end_ms, span.start_ms
