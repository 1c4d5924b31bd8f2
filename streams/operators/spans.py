"""What aggregates in sessions and in sliding windows share: windows that follow from a key's records.

1. A null key or null value changes nothing; it is counted as "null_key" or "null_value".
2. A late record goes to `.late`, counted as "late", and never to a store. Late is judged by the record's origin alone.
3. With the cache on, updates of one key and window between two commits are merged into the last, and a window that
   nobody has seen is not retracted; with it off each update is sent on. The store, and the final results, are the same.
4. With emit="close" each window is sent once, by end, start and then key, when stream time reaches its closing time; a
   window is kept until then, however far time jumps, and takes nothing after it closed for the record at hand.

Not here: which windows a record changes (session, sliding), and what the store writes (state/session.py).
"""

from abc import ABC, abstractmethod
from typing import Any, Protocol

from tailrace.state.session import SessionStore, Span
from tailrace.streams.chain.clocks import NEVER
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.fold import Ways
from tailrace.streams.program.topology import Forward
from tailrace.windows.windowed import Windowed


class SpanWindow(Protocol):
    """What is asked of a session or sliding window here."""

    def is_late(self, timestamp_ms: int, origin_ms: int) -> bool:
        """Whether no window can take the record."""
        ...

    def closes_at(self, end_ms: int) -> int:
        """The first stream time at which a window with that end is closed."""
        ...


class SpanAggregate(ABC):
    """An aggregate in windows that follow from a key's records, in one task; `take` says what a record does.

    A window is forgotten when stream time reaches its end + `expiry_ms`.
    """

    def __init__(
        self,
        context: TaskContext,
        store: SessionStore[Any, Any],
        window: SpanWindow,
        ways: Ways,
        *,
        expiry_ms: int,
    ) -> None:
        self.name = store.name
        self.store = store
        self._context = context
        self._window = window
        self._fold = ways.fold
        self._late = ways.late
        self._emit = ways.emit
        self._on_close = ways.on_close
        self._eager = not context.caching and not ways.on_close
        self._expiry_ms = expiry_ms
        # A window is closed when its end + this < the clock.
        self._open_ms = window.closes_at(0) - 1
        self._closed_before_ms = 0  # windows that end before it were sent

    @property
    def open_ms(self) -> int:
        """A window is closed when its end + this < the clock."""
        return self._open_ms

    @property
    def expiry_ms(self) -> int:
        """A window is forgotten when the clock reaches its end + this."""
        return self._expiry_ms

    @property
    def dirty(self) -> int:
        """How many updates wait for the next commit."""
        return self.store.dirty

    def resume(self, stream_time_ms: int) -> None:
        """Goes on where a run before this one had come to: what was closed then is not sent again."""
        self._closed_before_ms = max(stream_time_ms - self._open_ms, 0)
        if self._on_close:
            self._context.next_close_ms = min(self._context.next_close_ms, self._next_close())

    def close_windows(self, stream_time_ms: int) -> int:
        """With emit="close", sends the windows that closed; returns a time at which none closes before."""
        if not self._on_close:
            return FAR
        before_ms = stream_time_ms - self._open_ms
        if before_ms > self._closed_before_ms:
            from_ms, self._closed_before_ms = self._closed_before_ms, before_ms
            emit = self._emit
            for key, span in self.store.closing(before_ms, from_ms=from_ms):
                emit(Windowed(key, span.start_ms, span.end_ms), span.value, span.timestamp_ms)
        return self._next_close()

    def flush(self, stream_time_ms: int) -> None:
        """Sends on what changed since the last commit, where the cache held it back; drops what is past retention."""
        if self._on_close:
            # A window that opened, closed and expired between two commits is then written nowhere.
            self._expire(min(stream_time_ms - self._expiry_ms + 1, self._closed_before_ms))
            self.store.flush_untold()
            return
        self.send_changes()
        self._expire(stream_time_ms - self._expiry_ms + 1)

    def send_changes(self) -> None:
        """Sends on what changed since the last commit, where the cache held it back."""
        emit = self._emit
        if not self._context.caching or self._on_close:
            self.store.flush_untold()
        elif emit.old:
            for ((start_ms, end_ms, key), value, timestamp_ms), old in self.store.flush_with_old():
                emit(Windowed(key, start_ms, end_ms), value, timestamp_ms, old)
        else:
            removed, touched = self.store.flush_untold()
            user_key = self.store.user_key
            for span, start_ms, end_ms, timestamp_ms in removed:
                emit(Windowed(user_key(span.key), start_ms, end_ms), None, timestamp_ms)
            for span in touched:
                if not span.gone:
                    emit(Windowed(user_key(span.key), span.start_ms, span.end_ms), span.value, span.timestamp_ms)

    def open_windows(self, stream_time_ms: int) -> int:
        """How many results are in windows that are not closed at stream_time_ms."""
        first_ms = max(stream_time_ms, NEVER) - self._open_ms
        return sum(1 for _ in self.store.fetch_all(first_ms, FAR))

    def process(self) -> Forward:
        """The function that takes the node's records."""
        context, store, is_late, late, take = self._context, self.store, self._window.is_late, self._late, self.take
        windows, load = store.windows, store.load
        cache_key = None if store.hashable else store.cache_key

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None or value is None:
                context.drop("null_key" if key is None else "null_value")
                return
            if not is_late(timestamp_ms, context.origin_ms):
                cached = key if cache_key is None else cache_key(key)
                spans = windows.get(cached)
                if spans is None:
                    spans = load(cached)
                if take(key, cached, spans, value, timestamp_ms):
                    return
            context.drop("late")
            late(key, value, timestamp_ms)

        return process

    @abstractmethod
    def take(self, key: Any, cached: Any, spans: list[Span[Any]], value: Any, timestamp_ms: int) -> bool:
        """Adds a record to the windows of its key; returns False where all that would take it are closed."""

    def _watch(self, end_ms: int) -> None:
        """Makes sure that the task asks for closed windows when one with that end closes."""
        closes_at_ms = end_ms + self._open_ms + 1
        if self._on_close and closes_at_ms < self._context.next_close_ms:
            self._context.next_close_ms = closes_at_ms

    def _next_close(self) -> int:
        end_ms = self.store.first_end(self._closed_before_ms)
        return FAR if end_ms is None else end_ms + self._open_ms + 1

    def _expire(self, before_ms: int) -> None:
        if before_ms > 0:
            self.store.expire(before_ms)
