"""Aggregates in sliding windows: what a record does to the windows of its key.

1. A window takes a record unless it is closed for it (end + grace < origin); a record that none takes is late.
2. A window that a record opens among earlier ones begins with a copy of what is there: no two windows share a mutable
   value.
3. Each window is sent once a record (W12 of the semantics: Kafka Streams sends one twice).

A result's time is the largest time of the records in the window.
"""

from bisect import bisect_left
from typing import Any

from tailrace.state.session import SessionStore, Span
from tailrace.state.store import Codec
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.fold import Ways, snapshot
from tailrace.streams.operators.spans import SpanAggregate
from tailrace.windows.sliding import Opened, SlidingWindow
from tailrace.windows.windowed import Windowed


class SlidingAggregate(SpanAggregate):
    """An aggregate in sliding windows in one task."""

    def __init__(
        self,
        context: TaskContext,
        store: SessionStore[Any, Any],
        window: SlidingWindow,
        ways: Ways,
        codec: Codec[Any],
    ) -> None:
        # Retention counts from a window's start, expiry from its end.
        expiry_ms = max(ways.retention_ms, window.retention_ms) - window.difference_ms
        super().__init__(context, store, window, ways, expiry_ms=expiry_ms)
        self._sliding = window
        self._codec = codec

    def take(self, key: Any, cached: Any, spans: list[Span[Any]], value: Any, timestamp_ms: int) -> bool:
        """Adds a record to the windows of its key; returns False where all that would take it are closed."""
        difference_ms = self._sliding.difference_ms
        near = spans[bisect_left(spans, timestamp_ms - 2 * difference_ms, key=_start) :]
        plan = self._sliding.plan(near, timestamp_ms)
        open_from_ms = self._context.origin_ms - self._open_ms
        updated = [near[i] for i in plan.updated if near[i].end_ms >= open_from_ms]
        opened = [new for new in plan.opened if new.start_ms + difference_ms >= open_from_ms]
        if not updated and not any(new.takes_record for new in opened):
            return False
        # Before the updates: what is copied is what was there before the record.
        begun = [self._begin(new, near, value, timestamp_ms) for new in opened]
        for span in updated:
            self._update(key, span, value, timestamp_ms)
        for start_ms, result, time_ms in begun:
            end_ms = start_ms + difference_ms
            if result is not None:
                self.store.add(cached, start_ms, end_ms, result, time_ms)
                self._watch(end_ms)
            if self._eager:
                self._emit(Windowed(key, start_ms, end_ms), result, time_ms)
        return True

    def _begin(self, new: Opened, near: list[Span[Any]], value: Any, timestamp_ms: int) -> tuple[int, Any, int]:
        """Start, value and time of a window that a record opens."""
        source = None if new.source is None else near[new.source]
        result = None if source is None else snapshot(source.value, self._codec)
        time_ms = timestamp_ms if source is None else source.timestamp_ms
        if new.takes_record:
            result, time_ms = self._fold(result, value), max(time_ms, timestamp_ms)
        return new.start_ms, result, time_ms

    def _update(self, key: Any, span: Span[Any], value: Any, timestamp_ms: int) -> None:
        old = self._emit.before(span.value) if self._eager else None
        result = span.value = self._fold(span.value, value)
        span.timestamp_ms = max(span.timestamp_ms, timestamp_ms)
        if result is None:
            self.store.remove(span, span.timestamp_ms)
        elif not span.dirty:
            self.store.touch(span)
        if self._eager:
            self._emit(Windowed(key, span.start_ms, span.end_ms), result, span.timestamp_ms, old)


def _start(span: Span[Any]) -> int:
    return span.start_ms
