"""Joins of two streams at work: what is kept of each side, which records become pairs, what is sent without a partner.

1. Every pair is made once, when the later of its records comes: by the partner's time, then in order of arrival. Its
   time is the larger one.
2. A record is late when its window has closed for its origin: counted as "late", sent to `.late`, and nothing else.
3. Where records without a partner have a result, each has it once, when stream time closes its window, by time, the
   right side's first, then by encoded key. From then on it takes no partner; a record that would only have had such
   ones is late. One that has found a partner goes on finding more, until it expires.
4. The cache holds no results back, so it changes nothing.
5. Where a function raises the pair is dropped, and the record's other pairs are not.

Not here: which times belong together (windows/join), how records are laid out (state/held, state/held_store).
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import Any

from tailrace.log.errors import EncodeError
from tailrace.log.record import RawRecord
from tailrace.state.held import VALUE_AT, HeldValues, held_values, is_matched
from tailrace.state.held_rows import FIRST, LAST, first_from
from tailrace.state.held_store import HeldStore
from tailrace.streams.chain.chain import Chain, Sides
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.join import StreamJoin
from tailrace.streams.program.topology import Forward, Node, Together
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
        store: HeldStore[Any],
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
        self.store.flush()

    def open_windows(self, stream_time_ms: int) -> int:
        """How many records wait for a partner, to be sent without one."""
        if not self.marks:
            return 0
        waiting = self.store.fetch_all(max(stream_time_ms - self.open_ms, 0), FAR)
        return sum(len(held_values(kept)) for _, _, kept in waiting if not is_matched(kept))

    def close(self, stream_time_ms: int) -> list[tuple[int, Any, HeldValues]]:
        """Time, key and values of the records that closed up to stream_time_ms and have no partner, in order."""
        from_ms, before_ms = self._closed_before_ms, stream_time_ms - self.open_ms
        if before_ms <= from_ms:
            return []
        self._closed_before_ms = before_ms
        return self.store.closing(before_ms, from_ms=from_ms)

    def next_close(self) -> int:
        """A time at which no record closes before."""
        first_ms = self.store.first_alone(self._closed_before_ms)
        return FAR if first_ms is None else first_ms + self.open_ms + 1

    def closed_before(self, origin_ms: int) -> int:
        """Records of an earlier time take no first partner any more from a record of that origin."""
        return max(origin_ms - self.open_ms, self._closed_before_ms)

    def keep(self) -> Callable[[Any, int, bytes, bool], None]:
        """What keeps a record: (cache key, time in ms, bytes of the value, whether it has a partner)."""
        context, put, open_ms = self._context, self.store.put, self.open_ms
        if not self.marks:
            return put

        def keep(cached: Any, timestamp_ms: int, data: bytes, matched: bool) -> None:  # noqa: FBT001 - the hot path
            put(cached, timestamp_ms, data, matched)
            if not matched and timestamp_ms + open_ms < context.next_close_ms:
                context.next_close_ms = timestamp_ms + open_ms + 1

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
    left_probe = _probe(context, left, right, window.before_ms, window.after_ms, f, forward)
    right_probe = _probe(context, right, left, window.after_ms, window.before_ms, flipped, forward)
    links = (
        _one(
            context,
            left,
            left_probe,
            _unkeyed(context, [alone] * left.marks, forward),
            late,
        ),
        _one(
            context,
            right,
            right_probe,
            _unkeyed(context, [alone_right] * right.marks, forward),
            late,
        ),
    )
    if not sending and not context.goes_on:
        chain.together[links[0]] = _together(context, left, left_probe)
        chain.together[links[1]] = _together(context, right, right_probe)
    return Sides(links)


def _side(chain: Chain, node: Node, operator: StreamJoin, name: str, alone: Callable[[Any], Any] | None) -> JoinSide:
    window, is_left = operator.window, name == operator.left_store
    slot = operator.left if is_left else operator.right
    codec = guarded(slot.codec, f"a value of store {name!r}, made at {operator.place},", slot.advice)
    chain.known_as(node, codec.encode)
    open_ms = window.left_open_ms if is_left else window.right_open_ms
    retention_ms = window.retention_ms
    if operator.of_itself:
        open_ms, retention_ms = window.either_open_ms, window.either_retention_ms
    store = HeldStore[Any](
        name, chain.keyspace(name), operator.key.codec, marks=alone is not None, retention_ms=retention_ms
    )
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


def _together(context: TaskContext, side: JoinSide, probe: Probe) -> Together:
    """What takes many records of one side as its link does one, where nothing is sent without a partner.

    What `SourceInput` does for each record, and the calls, is a tenth of a join.
    """
    store, open_ms, keep, encode_value = side.store, side.open_ms, side.keep(), side.codec.encode
    calls, cache_key = context.stream_calls, None if store.hashable else store.cache_key

    def join_together(
        keys: Sequence[Any], values: Sequence[Any], times: Sequence[int], records: Sequence[RawRecord]
    ) -> int:
        taken, origin_ms = 0, context.origin_ms
        for key, value, timestamp_ms, record in zip(keys, values, times, records, strict=True):
            if key is None or value is None:
                break
            try:
                data = encode_value(value)
            except EncodeError:
                break  # it will come again, and is reported there
            if timestamp_ms > origin_ms:
                if timestamp_ms >= context.next_close_ms or timestamp_ms >= calls.next_ms:
                    break
                context.origin_ms = context.stream_time_ms = origin_ms = timestamp_ms
            elif timestamp_ms + open_ms < origin_ms:
                break
            context.record = record
            cached = key if cache_key is None else cache_key(key)
            keep(cached, timestamp_ms, data, probe(key, cached, value, data, timestamp_ms) is True)
            taken += 1
        return taken

    return join_together


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
    kept_rows, look, mark, own_decode = store.rows, store.look, store.mark, side.codec.decode

    def probe(key: Any, cached: Any, value: Any, data: bytes, timestamp_ms: int) -> bool | None:
        rows = kept_rows.get(cached)
        if rows is None:
            rows = look(cached)
        from_ms = timestamp_ms - before_ms
        if len(rows) == FIRST or rows[LAST] < from_ms:
            return False
        closed_before_ms = closed_before(context.origin_ms) if marks else 0
        found, refused = False, False
        to_ms = timestamp_ms + after_ms
        first = end = len(rows) if rows[LAST] <= to_ms else first_from(rows, to_ms + 1)
        while first > FIRST and rows[first + LAST] >= from_ms:
            first -= 2
        for place in range(first, end, 2):
            start_ms, kept = rows[place], rows[place + 1]
            if marks and not is_matched(kept):
                if start_ms < closed_before_ms:
                    refused = True
                    continue
                mark(rows, place)
            time_ms = start_ms if start_ms > timestamp_ms else timestamp_ms
            for partner in (kept[VALUE_AT:],) if kept.__class__ is bytes else kept.values:
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


def _with_side(side: JoinSide, rows: Sequence[tuple[int, Any, HeldValues]]) -> Iterator[_Row]:
    for timestamp_ms, key, kept in rows:
        yield timestamp_ms, key, kept, side


def _time(row: _Row) -> int:
    return row[0]
