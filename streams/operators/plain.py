"""Aggregates by key, without windows: what a record does to the store, and what is sent on.

1. A null key or null value changes nothing; it is counted as "null_key" or "null_value".
2. A result's time is the largest time of the records in it; after a delete the next record begins anew.
3. With the cache on, updates of one key between two commits are merged into the last; with it off each is sent on.
"""

from abc import ABC, abstractmethod
from typing import Any

from tailrace.state.changelog import unpack_int64
from tailrace.state.keyvalue import KeyValueStore
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.fold import Emitter, Fold, shown, shown_of
from tailrace.streams.program.topology import Forward


class RowsNode(ABC):
    """A node that keeps the rows of a table, in one task: what joins of tables look up."""

    @property
    @abstractmethod
    def emit(self) -> Emitter:
        """What sends its results on."""

    @abstractmethod
    def sent(self, key: Any) -> tuple[Any, int]:
        """The row of a key as it was sent last: value (None: there is none) and time in ms, -1 where there is none."""


class KeyValueNode(RowsNode):
    """What nodes with a key-value store have in common: nothing in them depends on time."""

    def __init__(self, context: TaskContext, store: KeyValueStore[Any, Any], emit: Emitter) -> None:
        self.name = store.name
        self.store = store
        self._context = context
        self._emit = emit

    @property
    def emit(self) -> Emitter:
        """See `RowsNode`."""
        return self._emit

    def sent(self, key: Any) -> tuple[Any, int]:
        """See `RowsNode`."""
        store = self.store
        cached = store.cache_key(key)
        entry = store.entries.get(cached)
        if entry is None:
            entry = store.load(cached)
        if entry.dirty and self._context.caching:
            row = store.flushed(cached)
            return (None, -1) if row is None else (shown_of(row[8:], store.value_codec), unpack_int64(row)[0])
        if entry.value is None:
            return None, -1
        return shown(entry.value, store.value_codec), entry.timestamp_ms

    @property
    def dirty(self) -> int:
        """How many updates wait for the next commit."""
        return self.store.dirty

    def resume(self, _stream_time_ms: int) -> None:
        """Nothing depends on time."""

    def close_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return FAR

    def open_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return 0

    def flush(self, _stream_time_ms: int) -> None:
        """Sends on what changed since the last commit, where the cache held it back."""
        emit = self._emit
        if not self._context.caching:
            self.store.flush()
        elif emit.old:
            for (key, value, timestamp_ms), old in self.store.flush_with_old():
                emit(key, value, timestamp_ms, old)
        else:
            for key, value, timestamp_ms in self.store.flush():
                emit(key, value, timestamp_ms)


class Beside:
    """A second store of a node, by key: nothing of it is sent on."""

    def __init__(self, store: KeyValueStore[Any, Any]) -> None:
        self.name = store.name
        self.store = store

    @property
    def dirty(self) -> int:
        """How many changes wait for the next commit."""
        return self.store.dirty

    def resume(self, _stream_time_ms: int) -> None:
        """Nothing depends on stream time."""

    def close_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return FAR

    def flush(self, _stream_time_ms: int) -> None:
        """Hands what changed over to the commit."""
        self.store.flush()

    def open_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return 0


class PlainAggregate(KeyValueNode):
    """An aggregate without windows in one task."""

    def __init__(self, context: TaskContext, store: KeyValueStore[Any, Any], fold: Fold, emit: Emitter) -> None:
        super().__init__(context, store, emit)
        self._fold = fold

    def process(self) -> Forward:
        """The function that takes the node's records."""
        context, store, fold, emit = self._context, self.store, self._fold, self._emit
        entries, load, touch = store.entries, store.load, store.touch
        cache_key = None if store.hashable else store.cache_key
        caching = context.caching

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            if key is None or value is None:
                context.drop("null_key" if key is None else "null_value")
                return
            cached = key if cache_key is None else cache_key(key)
            entry = entries.get(cached)
            if entry is None:
                entry = load(cached)
            so_far = entry.value
            old = None if caching else emit.before(so_far)
            entry.value = fold(so_far, value)
            if so_far is None or timestamp_ms > entry.timestamp_ms:
                entry.timestamp_ms = timestamp_ms
            if not entry.dirty:
                touch(cached, entry)
            if not caching:
                emit(key, entry.value, entry.timestamp_ms, old)

        return process
