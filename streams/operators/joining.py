"""Joins of two streams at work: what is kept of each side, which records become pairs, what is sent without a partner.

1. Every pair is made once, when the later of its records comes: by the partner's time, then in order of arrival. Its
   time is the larger one.
2. A record is late when its window has closed for its origin: counted as "late", sent to `.late`, and nothing else.
3. Where records without a partner have a result, each has it once, when stream time closes its window, by time, the
   right side's first, then by encoded key. From then on it takes no partner; a record that would only have had such
   ones is late. One that has found a partner goes on finding more, until it expires.
4. The cache holds no results back, so it changes nothing.
5. Where a function raises the pair is dropped, and the record's other pairs are not.

Not here: which times belong together (windows/join), how records are laid out (state/held, state/session).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import Any

from tailrace.state.held import VALUE_AT, HeldCodec, HeldValues, held, held_matched, held_values, held_with, is_matched
from tailrace.state.session import SessionStore, Span
from tailrace.streams.chain.chain import Chain, Sides
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.join import StreamJoin
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import TypeCodec, guarded

Pair = Callable[[Any, Any], Any]
"""(the value of the record at hand, its partner's) to the result."""

Probe = Callable[[Any, Any, Any, bytes, int], bool | None]
"""(key, its cache key, value, its bytes, time in ms): sends the pairs of a record; returns whether there were any, and
None where there were only partners that had been sent without one."""

_IMMUTABLE = (int, str, float, bytes, bool)


class JoinSide:
    """What one side of a join keeps, in one task; `alone` makes the result of a value without a partner, if any."""

    def __init__(
        self,
        context: TaskContext,
        store: SessionStore[Any, HeldValues],
        codec: TypeCodec,
        alone: Callable[[Any], Any] | None,
        *,
        open_ms: int,
        retention_ms: int,
    ) -> None:
        self.name = store.name
        self.store = store
        self.codec = codec
        self.alone = alone
        self.open_ms = open_ms
        self.closing: Closing | None = None
        """Sends the results without a partner, of this side and perhaps of the other."""
        self._context = context
        self._retention_ms = retention_ms
        self._closed_before_ms = 0
        """Records of an earlier time were sent, where they had no partner."""

    @property
    def dirty(self) -> int:
        """How many records wait for the next commit."""
        return self.store.dirty

    @property
    def marks(self) -> bool:
        """Whether it is noted which records have found a partner."""
        return self.alone is not None

    def resume(self, stream_time_ms: int) -> None:
        """Goes on where a run before this one had come to: what was closed then is not sent again."""
        self._closed_before_ms = max(stream_time_ms - self.open_ms, 0)
        if self.marks:
            self._context.next_close_ms = min(self._context.next_close_ms, self.next_close())

    def close_windows(self, stream_time_ms: int) -> int:
        """Sends results without a partner; returns a time at which none closes before."""
        return FAR if self.closing is None else self.closing.close(stream_time_ms)

    def flush(self, stream_time_ms: int) -> None:
        """Hands the records over to the commit, and drops what no partner can come for any more."""
        before_ms = stream_time_ms - self._retention_ms + 1
        if self.marks:
            before_ms = min(before_ms, self._closed_before_ms)
        # Expiry first: what came and went between two commits is then written nowhere.
        if before_ms > 0:
            self.store.expire(before_ms)
        self.store.flush_untold()

    def open_windows(self, stream_time_ms: int) -> int:
        """How many records wait for a partner, to be sent without one."""
        if not self.marks:
            return 0
        waiting = self.store.fetch_all(max(stream_time_ms - self.open_ms, 0), FAR)
        return sum(len(held_values(kept)) for _, _, _, kept in waiting if not is_matched(kept))

    def close(self, stream_time_ms: int) -> Iterator[tuple[int, Any, HeldValues]]:
        """Time, key and values of the records that closed up to stream_time_ms and have no partner, in order."""
        from_ms, before_ms = self._closed_before_ms, stream_time_ms - self.open_ms
        if before_ms <= from_ms:
            return
        self._closed_before_ms = before_ms
        for key, span in self.store.closing(before_ms, from_ms=from_ms):
            if span.value is not None and not is_matched(span.value):
                yield span.start_ms, key, span.value

    def next_close(self) -> int:
        """A time at which no record closes before."""
        first_ms = self.store.first_end(self._closed_before_ms)
        return FAR if first_ms is None else first_ms + self.open_ms + 1

    def closed_before(self, origin_ms: int) -> int:
        """Records of an earlier time take no first partner any more from a record of that origin."""
        return max(origin_ms - self.open_ms, self._closed_before_ms)

    def keep(self) -> Callable[[Any, int, bytes, bool], None]:
        """What keeps a record: (cache key, time in ms, bytes of the value, whether it has a partner)."""
        store, context, marks, open_ms = self.store, self._context, self.marks, self.open_ms
        windows, look, add, touch = store.windows, store.look, store.add, store.touch

        def keep(cached: Any, timestamp_ms: int, data: bytes, matched: bool) -> None:  # noqa: FBT001 - the hot path
            spans: Sequence[Span[HeldValues]] | None = windows.get(cached)
            if spans is None:
                spans = look(cached)
            span = None if not spans or spans[-1].start_ms < timestamp_ms else _at(spans, timestamp_ms)
            if span is None:
                add(cached, timestamp_ms, timestamp_ms, held(data, matched=matched), timestamp_ms)
            else:
                assert span.value is not None
                span.value = held_with(span.value, data, matched=matched)
                if not span.dirty:
                    touch(span)
            if marks and not matched:
                closes_at_ms = timestamp_ms + open_ms + 1
                if closes_at_ms < context.next_close_ms:
                    context.next_close_ms = closes_at_ms

        return keep


class Closing:
    """Sends what the sides of a join have without a partner, when it closes."""

    def __init__(self, context: TaskContext, sides: Sequence[JoinSide], forward: Forward) -> None:
        self._context = context
        self._sides = sides
        """In the order of what they send of one time."""
        self._forward = forward

    def close(self, stream_time_ms: int) -> int:
        """Sends what closed up to stream_time_ms; returns a time at which nothing closes before."""
        rows = [_with_side(side, side.close(stream_time_ms)) for side in self._sides]
        # Among those of one time, merge takes the earlier side's first.
        for timestamp_ms, key, kept, side in merge(*rows, key=_time):
            for data in held_values(kept):
                self._send(key, data, timestamp_ms, side)
        return min(side.next_close() for side in self._sides)

    def _send(self, key: Any, data: bytes, timestamp_ms: int, side: JoinSide) -> None:
        """It goes out by itself, long after its record: no headers, and late nowhere (see fold.Emitter)."""
        context, alone, value = self._context, side.alone, side.codec.decode(data)
        assert alone is not None
        origin_ms, context.origin_ms = context.origin_ms, timestamp_ms
        try:
            self._forward(key, alone(value), timestamp_ms)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            context.failed(error, (key, value, timestamp_ms))
        finally:
            context.origin_ms = origin_ms


def build_join(chain: Chain, node: Node, operator: StreamJoin) -> Forward | Sides:
    """The links of a join: one for each side, or one alone where a stream is joined to itself."""
    context, forward, late = chain.context, chain.output(node.id), chain.output(node.id, "late")
    window, f = operator.window, operator.f
    flipped, alone, alone_right = _flipped(f), _alone(f), _alone_right(f)
    if operator.of_itself:
        only = _side(chain, node, operator, operator.left_store, None)
        left_probe = _probe(context, only, only, window.before_ms, window.after_ms, f, forward)
        right_probe = _probe(context, only, only, window.after_ms, window.before_ms, flipped, forward)
        results = [alone] * operator.left_unmatched + [alone_right] * operator.right_unmatched
        return _both(context, only, left_probe, right_probe, _unkeyed(context, results, forward), late)
    left = _side(chain, node, operator, operator.left_store, alone if operator.left_unmatched else None)
    right = _side(chain, node, operator, operator.right_store, alone_right if operator.right_unmatched else None)
    sending = [side for side in (right, left) if side.marks]
    if sending:
        left.closing = Closing(context, sending, forward)
    links = (
        _one(
            context,
            left,
            _probe(context, left, right, window.before_ms, window.after_ms, f, forward),
            _unkeyed(context, [alone] * left.marks, forward),
            late,
        ),
        _one(
            context,
            right,
            _probe(context, right, left, window.after_ms, window.before_ms, flipped, forward),
            _unkeyed(context, [alone_right] * right.marks, forward),
            late,
        ),
    )
    return Sides(links)


def _side(chain: Chain, node: Node, operator: StreamJoin, name: str, alone: Callable[[Any], Any] | None) -> JoinSide:
    window, is_left = operator.window, name == operator.left_store
    slot = operator.left if is_left else operator.right
    codec = guarded(slot.codec, f"a value of store {name!r}, made at {operator.place},", slot.advice)
    chain.known_as(node, codec.encode)
    store = SessionStore[Any, HeldValues](name, chain.keyspace(name), operator.key.codec, HeldCodec(), difference_ms=0)
    open_ms = window.left_open_ms if is_left else window.right_open_ms
    retention_ms = window.retention_ms
    if operator.of_itself:
        open_ms, retention_ms = window.either_open_ms, window.either_retention_ms
    side = JoinSide(chain.context, store, codec, alone, open_ms=open_ms, retention_ms=retention_ms)
    chain.state_nodes[name] = side
    return side


def _one(context: TaskContext, side: JoinSide, probe: Probe, unkeyed: Forward, late: Forward) -> Forward:
    """The link of one side."""
    store, open_ms, keep, encode_value = side.store, side.open_ms, side.keep(), side.codec.encode
    cache_key = None if store.hashable else store.cache_key

    def join_link(key: Any, value: Any, timestamp_ms: int) -> None:
        if key is None or value is None:
            unkeyed(key, value, timestamp_ms)
            return
        if timestamp_ms + open_ms >= context.origin_ms:
            data = encode_value(value)
            cached = key if cache_key is None else cache_key(key)
            found = probe(key, cached, value, data, timestamp_ms)
            if found is not None:
                keep(cached, timestamp_ms, data, found)
                return
        context.drop("late")
        late(key, value, timestamp_ms)

    return join_link


def _both(
    context: TaskContext, side: JoinSide, left_probe: Probe, right_probe: Probe, unkeyed: Forward, late: Forward
) -> Forward:
    """The link of a stream that is joined to itself: first the record's pairs as the left one, then as the right one.

    In between it is kept, so that it finds itself.
    """
    store, open_ms, keep = side.store, side.open_ms, side.keep()
    encode_value, decode_value = side.codec.encode, side.codec.decode
    cache_key = None if store.hashable else store.cache_key

    def self_join_link(key: Any, value: Any, timestamp_ms: int) -> None:
        if key is None or value is None:
            unkeyed(key, value, timestamp_ms)
            return
        if timestamp_ms + open_ms < context.origin_ms:
            context.drop("late")
            late(key, value, timestamp_ms)
            return
        data = encode_value(value)
        cached = key if cache_key is None else cache_key(key)
        left_probe(key, cached, value, data, timestamp_ms)
        keep(cached, timestamp_ms, data, True)
        right_probe(key, cached, decode_value(data), data, timestamp_ms)

    return self_join_link


def _probe(
    context: TaskContext,
    side: JoinSide,
    there: JoinSide,
    before_ms: int,
    after_ms: int,
    f: Pair,
    forward: Forward,
) -> Probe:
    """What looks for the partners of a side's record in what the other keeps, from before_ms to after_ms around it."""
    store, marks, decode, closed_before = there.store, there.marks, there.codec.decode, there.closed_before
    windows, look, touch, own_decode = store.windows, store.look, store.touch, side.codec.decode

    def probe(key: Any, cached: Any, value: Any, data: bytes, timestamp_ms: int) -> bool | None:
        spans: Sequence[Span[HeldValues]] | None = windows.get(cached)
        if spans is None:
            spans = look(cached)
        if not spans or spans[-1].start_ms < timestamp_ms - before_ms:
            return False
        closed_before_ms = closed_before(context.origin_ms) if marks else 0
        found, refused = False, False
        from_ms, to_ms = timestamp_ms - before_ms, timestamp_ms + after_ms
        if spans[0].start_ms < from_ms or spans[-1].start_ms > to_ms:
            spans = _between(spans, from_ms, to_ms)
        for span in spans:
            start_ms, kept = span.start_ms, span.value
            assert kept is not None
            if marks and not is_matched(kept):
                if start_ms < closed_before_ms:
                    refused = True
                    continue
                span.value = kept = held_matched(kept)
                if not span.dirty:
                    touch(span)
            time_ms = start_ms if start_ms > timestamp_ms else timestamp_ms
            for partner in (kept[VALUE_AT:],) if isinstance(kept, bytes) else kept.values:
                if found and not isinstance(value, _IMMUTABLE):
                    # Once more: what stands behind may have changed the one before.
                    value = own_decode(data)
                found = True
                try:
                    forward(key, f(value, decode(partner)), time_ms)
                except Exception as error:  # noqa: BLE001 - raised again where the policy says so
                    context.failed(error, (key, value, time_ms))
        return None if refused and not found else found

    return probe


def _between(spans: Sequence[Span[HeldValues]], from_ms: int, to_ms: int) -> Sequence[Span[HeldValues]]:
    """Those of a key's records whose times are from_ms to to_ms."""
    return spans[bisect_left(spans, from_ms, key=_start) : bisect_left(spans, to_ms + 1, key=_start)]


def _at(spans: Sequence[Span[HeldValues]], time_ms: int) -> Span[HeldValues] | None:
    """Those of a key's records that have just that time."""
    at = bisect_left(spans, time_ms, key=_start)
    return spans[at] if spans[at].start_ms == time_ms else None


def _start(span: Span[HeldValues]) -> int:
    return span.start_ms


def _unkeyed(context: TaskContext, results: Sequence[Callable[[Any], Any]], forward: Forward) -> Forward:
    """What takes records without a key or a value: those without a key have no partner, and are sent if that counts."""

    def unkeyed_link(key: Any, value: Any, timestamp_ms: int) -> None:
        if value is None or not results:
            context.drop("null_key" if key is None else "null_value")
            return
        for alone in results:
            try:
                forward(key, alone(value), timestamp_ms)
            except Exception as error:  # noqa: BLE001 - raised again where the policy says so
                context.failed(error, (key, value, timestamp_ms))

    return unkeyed_link


def _flipped(f: Pair) -> Pair:
    return lambda value, partner: f(partner, value)


def _alone(f: Pair) -> Callable[[Any], Any]:
    return lambda value: f(value, None)


def _alone_right(f: Pair) -> Callable[[Any], Any]:
    return lambda value: f(None, value)


_Row = tuple[int, Any, HeldValues, JoinSide]


def _with_side(side: JoinSide, rows: Iterator[tuple[int, Any, HeldValues]]) -> Iterator[_Row]:
    for timestamp_ms, key, kept in rows:
        yield timestamp_ms, key, kept, side


def _time(row: _Row) -> int:
    return row[0]
