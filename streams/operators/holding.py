"""Tables that hold updates back, at work: suppress until windows close or event time has passed, and throttle.

1. Of each key at most one update waits, the latest, with the time that it had. It replaces what those behind the table
   know: the value that the first update since the last one sent has replaced.
2. What is due at one moment is sent by due time, then by encoded key.
3. Until windows close: one result for each window. A window that is empty when it closes sends nothing; a session that
   grows or goes in the last millisecond of its grace, when its result is out, is deleted, and sent as it is then.
4. Until stream time: sent after the record that moves time far enough, so with that record's own update.
5. Throttled: the first update of a key at once, then in each interval of the wall clock the latest, if there is one.
6. What is over the limits is sent early, oldest first, or ends the app: never dropped.
7. What was sent is gone from the store before it goes its way.

Every key that waits has an entry in memory; values may be on disk. Not here: the bytes of what waits (state/waiting).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from tailrace.log.clock import Clock
from tailrace.log.errors import TaskError
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.store import Entry
from tailrace.state.waiting import Waiting, decode_waiting, encode_waiting
from tailrace.streams.chain.chain import Chain
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.chain.schedule import NONE_DUE, Schedule
from tailrace.streams.operators.suppress import (
    Holding,
    SuppressTable,
    SuppressUntilClose,
    SuppressUntilTime,
    ThrottleTable,
)
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import TypeCodec, guarded


def build_holding(chain: Chain, node: Node, operator: Holding) -> Forward:
    """The link of a table that holds updates back."""
    running: HoldingNode
    if isinstance(operator, SuppressUntilClose):
        running = UntilClose(chain, node, operator)
    elif isinstance(operator, SuppressUntilTime):
        running = UntilTime(chain, node, operator)
    else:
        assert isinstance(operator, ThrottleTable)
        running = Throttled(chain, node, operator, chain.clock)
    chain.state_nodes[running.name] = running
    return running.process()


class HoldingNode(ABC):
    """What holds updates back in one task; the subclasses say until when."""

    def __init__(self, chain: Chain, node: Node, operator: Holding) -> None:
        name, slot = operator.store_name, operator.value
        codec = guarded(slot.codec, f"a value of store {name!r}, made at {operator.place},", slot.advice)
        self.name = name
        self.store = KeyValueStore[Any, Waiting](name, chain.keyspace(name), operator.key.codec, _waiting_codec(codec))
        self._context: TaskContext = chain.context
        self._encode = chain.known_as(node, codec.encode)
        self._decode = codec.decode
        self._encode_key = operator.key.codec.encode
        self._forward = chain.output(node.id)
        self._asked_for_old = chain.asked_for_old(node)
        self._due: list[tuple[int, bytes, Any]] = []
        """(due time, encoded key, cache key) of every key in the store; others, which were sent meanwhile, are left."""

    @property
    def dirty(self) -> int:
        """How many keys changed since the last commit."""
        return self.store.dirty

    def resume(self, stream_time_ms: int) -> None:
        """Goes on where a run before this one had come to."""
        del stream_time_ms
        cache_key, encode_key = self.store.cache_key, self._encode_key
        for key, held in self.store.all():
            encoded = encode_key(key)
            self._due.append((held.due_ms, encoded, cache_key(key)))
            self._took_up(encoded, held)
        heapify(self._due)

    def close_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return FAR

    def open_windows(self, _stream_time_ms: int) -> int:
        """Those that it waits for are the aggregate's."""
        return 0

    def flush(self, _stream_time_ms: int) -> None:
        """Hands what waits over to the commit."""
        self.store.flush()

    @abstractmethod
    def process(self) -> Forward:
        """The function that takes the table's updates."""

    def _took_up(self, encoded: bytes, held: Waiting) -> None:
        """Counts what a run before this one has left; here: nothing is counted."""
        del encoded, held

    # ------------------------------------------------------------ one key

    def _entry(self, key: Any) -> tuple[Any, Entry[Waiting]]:
        store = self.store
        cached = store.cache_key(key)
        entry = store.entries.get(cached)
        return cached, store.load(cached) if entry is None else entry

    def _touch(self, cached: Any, entry: Entry[Waiting]) -> None:
        if not entry.dirty:
            self.store.touch(cached, entry)

    def _old(self) -> bytes | None:
        """The value that the update at hand replaces, where somebody asks for it."""
        old = self._context.old if self._asked_for_old else None
        return None if old is None else self._encode(old)

    def _next(self) -> tuple[int, bytes, Any, Entry[Waiting]] | None:
        """What is due first."""
        due, store = self._due, self.store
        while due:
            due_ms, encoded, cached = due[0]
            entry = store.entries.get(cached)
            entry = store.load(cached) if entry is None else entry
            if entry.value is not None and entry.value.due_ms == due_ms:
                return due_ms, encoded, cached, entry
            heappop(due)
        return None

    def _send(self, key: Any, data: bytes | None, old: bytes | None, timestamp_ms: int) -> None:
        """It goes out by itself: no headers, and late nowhere (see fold.Emitter)."""
        context, decode = self._context, self._decode
        kept = context.record, context.origin_ms, context.cause, context.old
        context.record, context.origin_ms, context.cause = None, timestamp_ms, None
        context.old = None if old is None else decode(old)
        value = None if data is None else decode(data)
        try:
            self._forward(key, value, timestamp_ms)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            context.failed(error, (key, value, timestamp_ms))
        finally:
            context.record, context.origin_ms, context.cause, context.old = kept


def _waiting_codec(codec: TypeCodec) -> TypeCodec:
    """The codec of the store: programs that read it see the value that waits."""
    decode = codec.decode

    def show(held: Waiting) -> Any:
        return None if held.data is None else decode(held.data)

    return TypeCodec(name=f"waiting({codec.name})", encode=encode_waiting, decode=decode_waiting, show=show)


class SuppressNode(HoldingNode):
    """What both forms of suppress have in common: how much they may hold."""

    def __init__(self, chain: Chain, node: Node, operator: SuppressTable) -> None:
        super().__init__(chain, node, operator)
        self._operator = operator
        self._records_max = FAR if operator.max_records is None else operator.max_records
        self._bytes_max = FAR if operator.max_bytes is None else operator.max_bytes
        self._records = 0
        self._bytes = 0

    def _took_up(self, encoded: bytes, held: Waiting) -> None:
        self._records += 1
        self._bytes += len(encoded) + held.size

    def _hold(self, cached: Any, entry: Entry[Waiting], data: bytes | None, timestamp_ms: int, due_ms: int) -> None:
        """Puts an update in the place of the one that waits, and sends or refuses what is too much."""
        held = entry.value
        if held is None:
            key = self.store.user_key(cached)
            encoded = self._encode_key(key)
            held = entry.value = Waiting(due_ms, data, self._old())
            heappush(self._due, (due_ms, encoded, cached))
            self._took_up(encoded, held)
        else:
            self._bytes += len(data or b"") - len(held.data or b"")
            held.data = data
        entry.timestamp_ms = timestamp_ms
        self._touch(cached, entry)

    def _release(self, cached: Any, entry: Entry[Waiting], encoded: bytes) -> None:
        """Sends what waits of a key."""
        held = self._remove(cached, entry, encoded)
        self._send(self.store.user_key(cached), held.data, held.old, entry.timestamp_ms)

    def _remove(self, cached: Any, entry: Entry[Waiting], encoded: bytes) -> Waiting:
        held = entry.value
        assert held is not None
        entry.value = None
        self._touch(cached, entry)
        self._records -= 1
        self._bytes -= len(encoded) + held.size
        return held

    def _release_due(self, now_ms: int) -> int:
        """Sends all that is due at now_ms; returns when more is."""
        while (first := self._next()) is not None:
            due_ms, encoded, cached, entry = first
            if due_ms > now_ms:
                return due_ms
            heappop(self._due)
            self._release(cached, entry, encoded)
        return FAR

    def _keep_within_limits(self) -> None:
        while self._records > self._records_max or self._bytes > self._bytes_max:
            if self._operator.when_full == "fail":
                raise self._full()
            first = self._next()
            assert first is not None
            heappop(self._due)
            self._release(first[2], first[3], first[1])

    def _full(self) -> TaskError:
        operator = self._operator
        many = self._records > self._records_max
        what = f"{self._records} keys" if many else f"{self._bytes} bytes"
        limit = f"max_records={operator.max_records}" if many else f"max_bytes={operator.max_bytes}"
        emit = "" if operator.until.after_ms is None else ', or send the oldest early with when_full="emit"'
        return TaskError(
            f"the buffer of {operator.name} (store {self.name!r}, {operator.place}) is over capacity at "
            f"{self._context.where()}: {what}, and {limit}; nothing after the last commit was kept; allow more{emit}, "
            "and start again"
        )


class UntilClose(SuppressNode):
    """Suppress until windows close. Times are of the aggregate that the windows are of.

    What reaches this node lags behind the task by what the aggregate may lag behind, and by the window's own delay; but
    windows are closed here when they are for the aggregate.
    """

    def __init__(self, chain: Chain, node: Node, operator: SuppressUntilClose) -> None:
        super().__init__(chain, node, operator)
        assert operator.window is not None
        self._closes_at = operator.closes_at()
        self._lead_ms = operator.window.delay_ms
        self._now_ms = -1

    def resume(self, stream_time_ms: int) -> None:
        """Goes on where a run before this one had come to: what was closed then was sent."""
        super().resume(stream_time_ms)
        self._now_ms = max(stream_time_ms + self._lead_ms, self._now_ms)
        first = self._next()
        if first is not None:
            self._context.next_close_ms = min(self._context.next_close_ms, first[0])

    def close_windows(self, stream_time_ms: int) -> int:
        """Sends the results of the windows that closed; returns when more do."""
        self._now_ms = max(stream_time_ms + self._lead_ms, self._now_ms)
        next_ms = self._release_due(self._now_ms)
        return FAR if next_ms == FAR else next_ms - self._lead_ms

    def process(self) -> Forward:
        """See `HoldingNode`."""
        context, closes_at, encode_value = self._context, self._closes_at, self._encode

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            closes_ms = closes_at(key)
            cached, entry = self._entry(key)
            closed = closes_ms <= self._now_ms
            if value is None:
                if entry.value is not None:
                    self._remove(cached, entry, self._encode_key(key))
                elif closed:
                    self._send(key, None, self._old(), timestamp_ms)
                return
            data = encode_value(value)
            if closed:
                # After its result: one that is for those behind it to replace.
                if entry.value is not None:
                    self._remove(cached, entry, self._encode_key(key))
                self._send(key, data, self._old(), timestamp_ms)
                return
            self._hold(cached, entry, data, timestamp_ms, closes_ms)
            if closes_ms < context.next_close_ms:
                context.next_close_ms = closes_ms
            self._keep_within_limits()

        return process


class UntilTime(SuppressNode):
    """Suppress until stream time has passed."""

    def __init__(self, chain: Chain, node: Node, operator: SuppressUntilTime) -> None:
        super().__init__(chain, node, operator)
        self._after_ms = operator.until.after_ms or 0
        self._schedule = Schedule(self._call, 1, NONE_DUE)

    def resume(self, stream_time_ms: int) -> None:
        """See `HoldingNode`."""
        super().resume(stream_time_ms)
        first = self._next()
        if first is not None:
            self._schedule.due_ms = first[0]
        self._context.stream_calls.add(self._schedule)

    def _call(self, now_ms: int) -> None:
        self._schedule.due_ms = self._release_due(now_ms)

    def process(self) -> Forward:
        """See `HoldingNode`."""
        context, after_ms, encode_value = self._context, self._after_ms, self._encode
        calls, schedule = context.stream_calls, self._schedule

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            data = None if value is None else encode_value(value)
            cached, entry = self._entry(key)
            self._hold(cached, entry, data, timestamp_ms, timestamp_ms + after_ms)
            held = entry.value
            assert held is not None
            if held.due_ms <= context.stream_time_ms:
                self._release(cached, entry, self._encode_key(key))
                return
            calls.bring_forward(schedule, held.due_ms)
            self._keep_within_limits()

        return process


class Throttled(HoldingNode):
    """Throttle: in the store is every key that sent something less than an interval ago."""

    def __init__(self, chain: Chain, node: Node, operator: ThrottleTable, clock: Clock) -> None:
        super().__init__(chain, node, operator)
        self._every_ms = operator.every_ms
        self._now_ms: Callable[[], int] = clock.now_ms
        self._schedule = Schedule(self._call, operator.every_ms, NONE_DUE)

    def resume(self, stream_time_ms: int) -> None:
        """See `HoldingNode`. Nothing waits longer than an interval from now, however the wall clock was set."""
        super().resume(stream_time_ms)
        first = self._next()
        if first is not None:
            self._schedule.due_ms = min(first[0], self._now_ms() + self._every_ms)
        self._context.wall_calls.add(self._schedule)

    def _call(self, now_ms: int) -> None:
        limit_ms = now_ms + self._every_ms
        while (first := self._next()) is not None:
            due_ms, _, cached, entry = first
            if now_ms < due_ms <= limit_ms:
                self._schedule.due_ms = due_ms
                return
            heappop(self._due)
            held = entry.value
            assert held is not None
            if held.waits:
                self._sent(cached, entry, limit_ms)
                self._send(self.store.user_key(cached), held.data, held.old, entry.timestamp_ms)
            else:
                entry.value = None
                self._touch(cached, entry)
        self._schedule.due_ms = NONE_DUE

    def _sent(self, cached: Any, entry: Entry[Waiting], due_ms: int) -> None:
        """Notes that something goes out, and that no more does before due_ms."""
        entry.value = Waiting(due_ms, None, None, waits=False)
        self._touch(cached, entry)
        heappush(self._due, (due_ms, self._encode_key(self.store.user_key(cached)), cached))
        self._context.wall_calls.bring_forward(self._schedule, due_ms)

    def process(self) -> Forward:
        """See `HoldingNode`."""
        encode_value = self._encode

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            data = None if value is None else encode_value(value)
            cached, entry = self._entry(key)
            held, now_ms = entry.value, self._now_ms()
            entry.timestamp_ms = timestamp_ms
            if held is not None and now_ms < held.due_ms <= now_ms + self._every_ms:
                if not held.waits:
                    held.waits, held.old = True, self._old()
                held.data = data
                self._touch(cached, entry)
                return
            old = held.old if held is not None and held.waits else self._old()
            self._sent(cached, entry, now_ms + self._every_ms)
            self._send(key, data, old, timestamp_ms)

        return process
