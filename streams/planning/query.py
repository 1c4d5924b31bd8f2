"""The stores of an app, to read: what every task has of one store, as one.

1. Reading changes nothing, caches included; a value that somebody could change in place is a copy.
2. What is seen is the newest state, committed or not. Results that expired are gone at the next commit.
3. Several partitions come merged, in the order that each of them has: key-value stores by encoded key, windows by start
   and then encoded key, session and sliding windows by encoded key, end, start.

Not here: writing to a store, which only the nodes of its app do.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Any, Generic, TypeVar

from tailrace.log.errors import InvalidError
from tailrace.log.record import Instant, instant_ms
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session import SessionStore
from tailrace.state.store import Codec
from tailrace.state.versioned import VersionedStore
from tailrace.state.window import WindowStore
from tailrace.streams.chain.context import FAR, Stored
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.operators.fold import shown
from tailrace.streams.program.store import Store
from tailrace.streams.program.topology import Topology
from tailrace.windows.session import SessionWindow
from tailrace.windows.window import AlignedWindow, Window
from tailrace.windows.windowed import Windowed

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class KeyValueView(Store[K, V]):
    """A key-value store."""

    def __init__(self, name: str, parts: Sequence[KeyValueStore[K, V] | VersionedStore[K, V]]) -> None:
        super().__init__(name)
        self._parts = parts
        self._keys, self._values = parts[0].key_codec, parts[0].value_codec

    def get(self, key: K) -> V | None:
        """See `Store.get`."""
        return _copy(_found(part.get(key) for part in self._parts), self._values)

    def range(self, low: K | None = None, high: K | None = None, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """See `Store.range`."""
        return self._merged([part.range(low, high, reverse=reverse) for part in self._parts], reverse=reverse)

    def prefix(self, prefix: Any) -> Iterator[tuple[K, V]]:
        """See `Store.prefix`."""
        return self._merged([part.prefix(prefix) for part in self._parts])

    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """See `Store.all`."""
        return self.range(reverse=reverse)

    def _merged(self, parts: Iterable[Iterator[tuple[K, V]]], *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        encode = self._keys.encode
        for key, value in merge(*parts, key=lambda row: encode(row[0]), reverse=reverse):
            yield key, shown(value, self._values)


class VersionedView(KeyValueView[K, V]):
    """A store with a history."""

    def __init__(self, name: str, parts: Sequence[VersionedStore[K, V]]) -> None:
        super().__init__(name, parts)
        self._versions = parts

    def as_of(self, key: K, when: Instant) -> tuple[V, int, int | None] | None:
        """See `Store.as_of`."""
        found = _found(part.as_of(key, instant_ms(when)) for part in self._versions)
        return None if found is None else (shown(found[0], self._values), *found[1:])


class WindowView(Store[Any, V], Generic[K, V]):
    """A store of tumbling, hopping or unlimited windows."""

    def __init__(self, name: str, parts: Sequence[WindowStore[K, V]], window: AlignedWindow) -> None:
        super().__init__(name)
        self._parts = parts
        self._end = window.end
        self._keys, self._values = parts[0].key_codec, parts[0].value_codec

    def get(self, key: Windowed[K]) -> V | None:
        """See `Store.get`."""
        inner, start_ms, end_ms = _parts_of(key, self.name)
        if self._end(start_ms) != end_ms:
            return None
        return _copy(_found(part.get(start_ms, inner) for part in self._parts), self._values)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Windowed[K], V]]:
        """See `Store.all`."""
        encode = self._keys.encode
        rows = [part.fetch_all(0, FAR, reverse=reverse) for part in self._parts]
        for start_ms, key, value in merge(*rows, key=lambda row: (row[0], encode(row[1])), reverse=reverse):
            yield Windowed(key, start_ms, self._end(start_ms)), shown(value, self._values)

    def fetch(self, key: K, start: Instant, end: Instant) -> Iterator[tuple[Windowed[K], V]]:
        """See `Store.fetch`."""
        from_ms, to_ms = instant_ms(start), instant_ms(end)
        for part in self._parts:
            for start_ms, value in part.fetch(key, from_ms, to_ms):
                yield Windowed(key, start_ms, self._end(start_ms)), shown(value, self._values)


class SpanView(Store[Any, V], Generic[K, V]):
    """A store of sessions or sliding windows."""

    def __init__(self, name: str, parts: Sequence[SessionStore[K, V]], *, by_start: bool) -> None:
        super().__init__(name)
        self._parts = parts
        self._by_start = by_start
        self._keys, self._values = parts[0].key_codec, parts[0].value_codec

    def get(self, key: Windowed[K]) -> V | None:
        """See `Store.get`."""
        inner, start_ms, end_ms = _parts_of(key, self.name)
        return _copy(_found(part.get(inner, start_ms, end_ms) for part in self._parts), self._values)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Windowed[K], V]]:
        """See `Store.all`."""
        encode = self._keys.encode
        parts = [part.fetch_all(0, FAR) for part in self._parts]
        rows = merge(*parts, key=lambda row: (encode(row[2]), row[1], row[0]))
        for start_ms, end_ms, key, value in reversed(list(rows)) if reverse else rows:
            yield Windowed(key, start_ms, end_ms), shown(value, self._values)

    def fetch(self, key: K, start: Instant, end: Instant) -> Iterator[tuple[Windowed[K], V]]:
        """See `Store.fetch`."""
        from_ms, to_ms = instant_ms(start), instant_ms(end)
        for part in self._parts:
            for start_ms, end_ms, value in part.fetch(key, from_ms, to_ms):
                if start_ms >= from_ms or not self._by_start:
                    yield Windowed(key, start_ms, end_ms), shown(value, self._values)


def view_of(name: str, parts: Sequence[Stored], window: Window | None) -> Store[Any, Any]:
    """The store that consists of parts, one for each task; window is that of its keys, where it has one.

    Raises:
        InvalidError: a kind of store that cannot be read from outside.
    """
    plain: list[KeyValueStore[Any, Any]] = [part for part in parts if isinstance(part, KeyValueStore)]
    aligned: list[WindowStore[Any, Any]] = [part for part in parts if isinstance(part, WindowStore)]
    spans: list[SessionStore[Any, Any]] = [part for part in parts if isinstance(part, SessionStore)]
    versioned: list[VersionedStore[Any, Any]] = [part for part in parts if isinstance(part, VersionedStore)]
    if versioned:
        return VersionedView[Any, Any](name, versioned)
    if plain:
        return KeyValueView[Any, Any](name, plain)
    if aligned and isinstance(window, AlignedWindow):
        return WindowView[Any, Any](name, aligned, window)
    if spans and window is not None:
        return SpanView[Any, Any](name, spans, by_start=not isinstance(window, SessionWindow))
    raise InvalidError(f"store {name!r} cannot be read from outside: write its changes to a topic, and read that")


def windows_of(topology: Topology) -> dict[str, Window | None]:
    """The windows of the keys of an app's stores, by store; those without are missing or None."""
    operators = (node.operator for node in topology.nodes)
    windows: dict[str, Window | None] = {
        each.store_name: each.window for each in operators if isinstance(each, Aggregate)
    }
    return windows | {store.name: store.window for sub in topology.subtopologies for store in sub.shared_stores}


def _parts_of(key: Windowed[K], store: str) -> tuple[K, int, int]:
    if not isinstance(key, Windowed):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
        raise TypeError(f"store {store!r} has windowed keys, and get was given {key!r}: get(Windowed(key, start, end))")
    return key.key, key.start_ms, key.end_ms


def _copy(value: V | None, codec: Codec[V]) -> V | None:
    copied: V | None = shown(value, codec)
    return copied


def _found(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)
