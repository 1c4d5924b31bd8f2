"""Aggregates in tumbling, hopping and unlimited windows: what a record does to the store, and what is sent on.

1. A null key or null value changes nothing; it is counted as "null_key" or "null_value".
2. A result's time is the largest time of the records in it; after a delete the next record begins anew.
3. A record is late for a window exactly when the window's closing time <= the record's origin; it is late altogether
   when that holds for every window that covers it: counted as "late" and sent to `.late`, never to a store.
4. With the cache on, updates of one window between two commits are merged into the last; with it off each is sent on.
   The store, and the set of final results, are the same.
5. With emit="close" each window's result is sent once, by window start and then key, when stream time reaches its
   closing time; a window is kept until then, however far time jumps.

Session and sliding windows depend on a key's other records: see session.py and sliding.py.
"""

from collections.abc import Sequence
from typing import Any

from tailrace.log.record import RawRecord
from tailrace.state.store import Entry
from tailrace.state.window import WindowStore
from tailrace.streams.chain.clocks import NEVER
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.fold import Ways, count_fold
from tailrace.streams.program.topology import Forward, Together
from tailrace.windows.tumbling import TumblingWindow
from tailrace.windows.window import AlignedWindow
from tailrace.windows.windowed import Windowed


class AlignedAggregate:
    """An aggregate in tumbling, hopping or unlimited windows in one task."""

    def __init__(
        self,
        context: TaskContext,
        store: WindowStore[Any, Any],
        window: AlignedWindow,
        ways: Ways,
    ) -> None:
        self.name = store.name
        self.store = store
        self._context = context
        self._window = window
        self._fold = ways.fold
        self._late = ways.late
        self._emit = ways.emit
        self._on_close = ways.on_close
        self._retention_ms = ways.retention_ms
        self._closed_ms = NEVER  # windows whose closing time is <= this were sent

    @property
    def dirty(self) -> int:
        """How many updates wait for the next commit."""
        return self.store.dirty

    def resume(self, stream_time_ms: int) -> None:
        """Goes on where a run before this one had come to: what was closed then is not sent again."""
        self._closed_ms = stream_time_ms
        if self._on_close:
            self._context.next_close_ms = min(self._context.next_close_ms, self._next_close())

    def close_windows(self, stream_time_ms: int) -> int:
        """With emit="close", sends the windows that closed; returns when the next one does."""
        if not self._on_close:
            return FAR
        if stream_time_ms > self._closed_ms:
            window, emit = self._window, self._emit
            closed_before, self._closed_ms = self._closed_ms, stream_time_ms
            closes_at, end = window.closes_at, window.end
            for start_ms in list(self.store.starts(0, stream_time_ms)):
                if closes_at(start_ms) > stream_time_ms:
                    break
                if closes_at(start_ms) <= closed_before:
                    continue
                for _, key, entry in self.store.windows_before(start_ms + 1, from_ms=start_ms):
                    emit(Windowed(key, start_ms, end(start_ms)), entry.value, entry.timestamp_ms)
            self._expire(stream_time_ms)
        return self._next_close()

    def flush(self, stream_time_ms: int) -> None:
        """Sends on what changed since the last commit, where the cache held it back; drops what is past retention."""
        # Expiry first: a window that opened and closed between two commits is then written nowhere.
        self._expire(stream_time_ms)
        emit, end = self._emit, self._window.end
        if not self._context.caching or self._on_close:
            self.store.flush()
        elif emit.old:
            for ((start_ms, key), value, timestamp_ms), old in self.store.flush_with_old():
                emit(Windowed(key, start_ms, end(start_ms)), value, timestamp_ms, old)
        else:
            for (start_ms, key), value, timestamp_ms in self.store.flush():
                emit(Windowed(key, start_ms, end(start_ms)), value, timestamp_ms)

    def open_windows(self, stream_time_ms: int) -> int:
        """How many results are in windows that are not closed at stream_time_ms."""
        closes_at = self._window.closes_at
        return sum(closes_at(start_ms) > stream_time_ms for start_ms, _, _ in self.store.windows_before(FAR))

    def process(self) -> Forward:
        """The function that takes the node's records."""
        window = self._window
        # The loop of one window a record keeps no old values; with the cache on they come from the store's flush.
        old_is_known = self._context.caching or not self._emit.old
        take = self._tumbling(window) if isinstance(window, TumblingWindow) and old_is_known else self._aligned()
        store = self.store
        if store.hashable:
            return take
        context, encode = self._context, store.cache_key

        def by_encoded_key(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None:
                context.drop("null_key")
            else:
                take(encode(key), value, timestamp_ms)

        return by_encoded_key

    def _expire(self, stream_time_ms: int) -> None:
        before_ms = stream_time_ms - self._retention_ms + 1
        if before_ms > 0:
            # On the grid of the windows' starts, so that a range is deleted once a window and not once a commit.
            starts = self._window.starts(before_ms - 1)
            self.store.expire(starts[-1] + 1 if starts else 0)

    def _next_close(self) -> int:
        closes_at = self._window.closes_at
        closings = (closes_at(start_ms) for start_ms in self.store.starts(0, FAR))
        return next((closing for closing in closings if closing > self._closed_ms), FAR)

    def _too_late(self, cached: Any, value: Any, timestamp_ms: int) -> None:
        context = self._context
        if cached is None:
            context.drop("null_key")
            return
        context.drop("late")
        self._late(self.store.user_key(cached), value, timestamp_ms)

    def _tumbling(self, tumbling: TumblingWindow) -> Forward:
        """One window a record: the loop that the click count lives in, so the last window's dict is kept at hand."""
        context, store, fold = self._context, self.store, self._fold
        counting = fold is count_fold
        size_ms, open_ms = tumbling.size_ms, tumbling.size_ms + tumbling.grace_ms
        touch, update, too_late = store.touch, self._updated, self._too_late
        eager = not context.caching and not self._on_close
        current_ms = NEVER
        window: dict[Any, Entry[Any]] = {}

        def load(key: Any, start_ms: int) -> Entry[Any]:
            nonlocal window
            entry = store.load(start_ms, key)
            window = store.windows[start_ms]
            return entry

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            nonlocal current_ms, window
            if value is None:
                context.drop("null_key" if key is None else "null_value")
                return
            start_ms = timestamp_ms - timestamp_ms % size_ms
            if start_ms + open_ms <= context.origin_ms:
                too_late(key, value, timestamp_ms)
                return
            if start_ms != current_ms:
                current_ms = start_ms
                window = self._open(start_ms)
            entry = window.get(key)
            if entry is None:
                if key is None:
                    context.drop("null_key")
                    return
                entry = load(key, start_ms)
            so_far = entry.value
            if so_far is None:
                entry.value = fold(None, value)
                entry.timestamp_ms = timestamp_ms
            else:
                entry.value = so_far + 1 if counting else fold(so_far, value)
                if timestamp_ms > entry.timestamp_ms:
                    entry.timestamp_ms = timestamp_ms
            if not entry.dirty:
                touch(start_ms, key, entry)
            if eager:
                update(start_ms, key, entry)

        return process

    def together(self) -> Together | None:
        """What counts records together, where they have one window each and nothing is sent for each of them.

        A call of a link, and all that is set for it, is a quarter of what a count costs.
        """
        tumbling, context, store, touch = self._window, self._context, self.store, self.store.touch
        told_old = self._emit.old and not context.caching
        if not isinstance(tumbling, TumblingWindow) or self._fold is not count_fold or not store.hashable:
            return None
        if told_old or context.goes_on or not (context.caching or self._on_close):
            return None
        size_ms, open_ms, calls = tumbling.size_ms, tumbling.size_ms + tumbling.grace_ms, context.stream_calls
        current_ms = NEVER
        window: dict[Any, Entry[Any]] = {}

        def count(keys: Sequence[Any], values: Sequence[Any], times: Sequence[int], _: Sequence[RawRecord]) -> int:
            nonlocal current_ms, window
            taken, origin_ms, next_ms = 0, context.origin_ms, min(context.next_close_ms, calls.next_ms)
            for key, value, timestamp_ms in zip(keys, values, times, strict=True):
                if key is None or value is None:
                    break
                start_ms = timestamp_ms - timestamp_ms % size_ms
                if timestamp_ms > origin_ms:
                    if timestamp_ms >= next_ms:
                        break
                    origin_ms = timestamp_ms
                elif start_ms + open_ms <= origin_ms:
                    break
                if start_ms != current_ms:
                    current_ms = start_ms
                    window = self._open(start_ms)
                    next_ms = min(context.next_close_ms, next_ms)
                entry = window.get(key)
                if entry is None:
                    entry = store.load(start_ms, key)
                    window = store.windows[start_ms]
                if entry.value is None:
                    entry.value = 1
                    entry.timestamp_ms = timestamp_ms
                else:
                    entry.value += 1
                    if timestamp_ms > entry.timestamp_ms:
                        entry.timestamp_ms = timestamp_ms
                if not entry.dirty:
                    touch(start_ms, key, entry)
                taken += 1
            if origin_ms > context.origin_ms:
                context.origin_ms = context.stream_time_ms = origin_ms
            return taken

        return count

    def _aligned(self) -> Forward:
        """Several windows a record."""
        context, fold, window = self._context, self._fold, self._window
        load, touch, update, too_late = self.store.load, self.store.touch, self._updated, self._too_late
        eager, before = not context.caching and not self._on_close, self._emit.before
        starts, closes_at = window.starts, window.closes_at

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None or value is None:
                context.drop("null_key" if key is None else "null_value")
                return
            covering = starts(timestamp_ms)
            origin_ms = context.origin_ms
            late = bool(covering)
            for start_ms in covering:
                if closes_at(start_ms) <= origin_ms:
                    continue
                late = False
                self._open(start_ms)
                entry = load(start_ms, key)
                so_far = entry.value
                old = before(so_far) if eager else None
                entry.value = fold(so_far, value)
                if so_far is None or timestamp_ms > entry.timestamp_ms:
                    entry.timestamp_ms = timestamp_ms
                if not entry.dirty:
                    touch(start_ms, key, entry)
                if eager:
                    update(start_ms, key, entry, old)
            if late:
                too_late(key, value, timestamp_ms)

        return process

    def _open(self, start_ms: int) -> dict[Any, Entry[Any]]:
        if self._on_close:
            self._context.next_close_ms = min(self._context.next_close_ms, self._window.closes_at(start_ms))
        return self.store.open(start_ms)

    def _updated(self, start_ms: int, cached: Any, entry: Entry[Any], old: bytes | None = None) -> None:
        key = self.store.user_key(cached)
        self._emit(Windowed(key, start_ms, self._window.end(start_ms)), entry.value, entry.timestamp_ms, old)
