"""A stream that looks up a versioned table some time later: until then rows may come that were true at its time.

1. A record waits until stream time has passed its own by the grace; those that are due together are joined by time,
   then encoded key, then order of arrival. One that comes later than that (by its origin) is joined at once.
2. What waits is bytes, and comes back with its headers and its origin: it is late behind the join where it would have
   been late without it.
3. The cache holds nothing back, so it changes nothing.

Not here: the join itself (lookup), the table (versioned).
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import msgspec

from tailrace.log.errors import TopologyError
from tailrace.state.held import HeldCodec, HeldValues, held, held_values, held_with
from tailrace.state.session import SessionStore, Span
from tailrace.state.session_rows import SessionLayout
from tailrace.streams.chain.chain import Chain, Sides, nowhere
from tailrace.streams.chain.context import FAR, TaskContext, WithHeaders
from tailrace.streams.operators.lookup import StreamTableJoin, join_link
from tailrace.streams.program.kept_as import KeptAs, kept_as
from tailrace.streams.program.topology import Forward, KeptStore, Node
from tailrace.streams.values.codec import TypeCodec, guarded
from tailrace.streams.values.derived import Slot
from tailrace.windows.duration import format_ms


class _Waiting(msgspec.Struct, array_like=True):
    """A record that waits, beside its key and time."""

    value: bytes
    origin_ms: int
    headers: list[tuple[str, bytes | None]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Waiting).decode


@dataclass(frozen=True, kw_only=True)
class WaitingJoin(StreamTableJoin):
    """A join with a versioned table of records that wait for wait_ms, in a store of their own."""

    store_name: str
    wait_ms: int
    value: Slot
    """Of the stream."""
    history_ms: int | None
    """Of the table; None: it has none."""

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """What waits, until it is due."""
        return (KeptStore(self.store_name, SessionLayout(0), self.wait_ms),)

    @property
    def caches(self) -> bool:
        """What waits is joined when it is due."""
        return False

    def kept_as(self, store: str) -> KeptAs:
        """Keys and values of the stream."""
        del store
        return kept_as(self.key.codec, self.value.codec, rows="waiting")

    @property
    def grace_ms(self) -> int:
        """How late a record may come and still wait."""
        return self.wait_ms

    @property
    def delay_ms(self) -> int:
        """As long as a record waits."""
        return self.wait_ms

    def check(self, inputs: int) -> None:
        """The table must know what was true when a record has waited."""
        super().check(inputs)
        grace = f"grace={format_ms(self.wait_ms)} at {self.place}"
        if self.history_ms is None:
            raise TopologyError(
                f"{grace} needs a versioned table, and that of {self.table_place} has no history: give "
                "app.table(…, history=…), of at least the grace"
            )
        if self.wait_ms > self.history_ms:
            raise TopologyError(
                f"{grace} is longer than the history of the table of {self.table_place}, {format_ms(self.history_ms)}: "
                "what was true when a record comes would be forgotten while it waits; give the table a longer history"
            )

    def facts(self) -> dict[str, Any]:
        """How long a record waits, and the function's name."""
        return super().facts() | {"grace": format_ms(self.wait_ms)}


def build_waiting(chain: Chain, node: Node, operator: WaitingJoin) -> Sides:
    """The links of a join whose records wait."""
    context, name, slot = chain.context, operator.store_name, operator.value
    value = guarded(slot.codec, f"a value of store {name!r}, made at {operator.place},", slot.advice)
    chain.known_as(node, value.encode)
    store = SessionStore[Any, HeldValues](name, chain.keyspace(name), operator.key.codec, HeldCodec(), difference_ms=0)
    join = join_link(chain, node, operator)
    waiting = chain.state_nodes[name] = WaitingRecords(context, store, value, join, operator.wait_ms)
    return Sides((waiting.process(), nowhere))


class WaitingRecords:
    """What waits in one task."""

    def __init__(
        self,
        context: TaskContext,
        store: SessionStore[Any, HeldValues],
        codec: TypeCodec,
        join: Forward,
        wait_ms: int,
    ) -> None:
        self.name = store.name
        self.store = store
        self._context = context
        self._codec = codec
        self._join = join
        self._wait_ms = wait_ms

    @property
    def dirty(self) -> int:
        """How many records wait for the next commit."""
        return self.store.dirty

    def resume(self, stream_time_ms: int) -> None:
        """Goes on where a run before this one had come to: what was due then was sent, if by another member."""
        self.store.expire(stream_time_ms - self._wait_ms + 1)
        self._context.next_close_ms = min(self._context.next_close_ms, self._next())

    def close_windows(self, stream_time_ms: int) -> int:
        """Joins what is due; returns a time at which nothing is due before."""
        before_ms = stream_time_ms - self._wait_ms + 1
        if before_ms > self.store.expired_before_ms:
            for key, span in self.store.closing(before_ms):
                for data in held_values(span.value) if span.value is not None else ():
                    self._send(key, _decode(data), span.start_ms)
            self.store.expire(before_ms)
        return self._next()

    def flush(self, _stream_time_ms: int) -> None:
        """Hands what waits over to the commit."""
        self.store.flush_untold()

    def open_windows(self, _stream_time_ms: int) -> int:
        """None: what waits is no result."""
        return 0

    def process(self) -> Forward:
        """The function that takes the stream's records."""
        context, store, join, wait_ms = self._context, self.store, self._join, self._wait_ms
        encode, cache_key = self._codec.encode, store.cache_key

        def waiting_link(key: Any, value: Any, timestamp_ms: int) -> None:
            due_ms = timestamp_ms + wait_ms
            if key is None or value is None or due_ms <= context.origin_ms:
                join(key, value, timestamp_ms)
                return
            data = _encode(_Waiting(encode(value), context.origin_ms, list(context.headers())))
            cached = cache_key(key)
            spans = store.load(cached)
            at = bisect_left(spans, timestamp_ms, key=_start)
            before = spans[at].value if at < len(spans) and spans[at].start_ms == timestamp_ms else None
            if before is None:
                store.add(cached, timestamp_ms, timestamp_ms, held(data, matched=False), timestamp_ms)
            else:
                spans[at].value = held_with(before, data, matched=False)
                if not spans[at].dirty:
                    store.touch(spans[at])
            if due_ms < context.next_close_ms:
                context.next_close_ms = due_ms

        return waiting_link

    def _next(self) -> int:
        first_ms = self.store.first_end(0)
        return FAR if first_ms is None else first_ms + self._wait_ms

    def _send(self, key: Any, waited: _Waiting, timestamp_ms: int) -> None:
        context = self._context
        record, origin_ms, value = context.record, context.origin_ms, self._codec.decode(waited.value)
        context.record = WithHeaders(None, tuple(waited.headers)) if waited.headers else None
        context.origin_ms = waited.origin_ms
        try:
            self._join(key, value, timestamp_ms)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            context.failed(error, (key, value, timestamp_ms))
        finally:
            context.record, context.origin_ms = record, origin_ms


def _start(span: Span[HeldValues]) -> int:
    return span.start_ms
