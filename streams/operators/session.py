"""Aggregates in sessions: what a record does to the sessions of its key.

1. A record is judged by itself: late when timestamp + gap + grace < origin. One that is not late joins every session
   within the gap, and the bounds of the sessions do not depend on the order of the records that were taken.
2. Where sessions merge, the new one begins with a fresh zero; each session found is merged into it, earliest first, and
   then the record is added. Its old keys go out as None before the new one, unless the key stays the same.
3. Where sessions are `final`, with emit="close" or a suppress until they close behind them, one that is closed for the
   record (end + gap + grace < origin) stays as it is: the record does not join it, though it lies within the gap. That
   happens only to records later than the grace.

The result's time is the session's end.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from tailrace.state.session import SessionStore, Span
from tailrace.state.store import Codec
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.fold import Ways, snapshot
from tailrace.streams.operators.spans import SpanAggregate
from tailrace.windows.session import SessionWindow
from tailrace.windows.windowed import Windowed

Join = Callable[[Sequence[Any]], Any]
"""The aggregates of at least one session, earliest first, as one."""


def count_join(counts: Sequence[int]) -> int:
    """Their sum."""
    return sum(counts)


def reduce_join(f: Callable[[Any, Any], Any]) -> Join:
    """`f` joins them as it joins values; where it deletes, the next one stands alone."""
    return lambda values: reduce(lambda so_far, value: value if so_far is None else f(so_far, value), values)


def aggregate_join(zero: Callable[[], Any], merge: Callable[[Any, Any], Any]) -> Join:
    """Begins with a fresh zero and merges each one into it."""
    return lambda values: reduce(merge, values, zero())


def careful_join(join: Join, codec: Codec[Any]) -> Join:
    """The same on copies: where a function raises half-way, the sessions are as they were."""
    return lambda values: join([snapshot(value, codec) for value in values])


class SessionAggregate(SpanAggregate):
    """An aggregate in sessions in one task."""

    def __init__(
        self,
        context: TaskContext,
        store: SessionStore[Any, Any],
        window: SessionWindow,
        ways: Ways,
        join: Join,
        *,
        final: bool,
    ) -> None:
        super().__init__(context, store, window, ways, expiry_ms=max(ways.retention_ms, window.retention_ms))
        self._join = join
        self._final = final
        self._merge = window.merge

    def take(self, key: Any, cached: Any, spans: list[Span[Any]], value: Any, timestamp_ms: int) -> bool:
        """Adds a record to the sessions of its key; always taken, as it is not late by itself."""
        not_before_ms = self._context.origin_ms - self._open_ms if self._final else 0
        indices, start_ms, end_ms = self._merge(spans, timestamp_ms, not_before_ms=not_before_ms)
        found = [spans[i] for i in indices]
        replaced: bytes | None = None
        olds = [self._emit.before(span.value) for span in found] if self._eager else []
        result = self._fold(self._join([span.value for span in found]) if found else None, value)
        if self._eager:
            for span, old in zip(found, olds, strict=True):
                if span.start_ms != start_ms or span.end_ms != end_ms:
                    self._emit(Windowed(key, span.start_ms, span.end_ms), None, span.timestamp_ms, old)
                else:
                    replaced = old
        # The first session found becomes the merged one, so that one that grows stays the same object.
        kept = 0 if result is None else 1
        for span in found[kept:]:
            self.store.remove(span, end_ms if result is None else span.timestamp_ms)
        if result is not None:
            self._keep(cached, found, start_ms, end_ms, result)
        if self._eager:
            self._emit(Windowed(key, start_ms, end_ms), result, end_ms, replaced)
        return True

    def _keep(self, cached: Any, found: list[Span[Any]], start_ms: int, end_ms: int, result: Any) -> None:
        store = self.store
        self._watch(end_ms)
        if not found:
            store.add(cached, start_ms, end_ms, result, end_ms)
            return
        span = found[0]
        if span.start_ms != start_ms or span.end_ms != end_ms:
            store.move(span, start_ms, end_ms)
        elif not span.dirty:
            store.touch(span)
        span.value, span.timestamp_ms = result, end_ms
