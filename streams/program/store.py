"""A store as a program sees it: declared with `App.store`, written inside a processor, read from outside.

1. Bounds are inclusive, and the order of keys is that of their bytes.
2. What a store cannot do, by its kind or where it is used, is refused with `InvalidError`.

Not here: the stores themselves (state), writing to one (operators/processor), reading from outside (query).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, NoReturn, TypeGuard, TypeVar

from tailrace.log.errors import InvalidError
from tailrace.log.record import Instant
from tailrace.state.changelog import Layout
from tailrace.state.expiring import ExpiringStore
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session_rows import SessionLayout
from tailrace.state.versioned import VersionedStore
from tailrace.state.window import WindowStore
from tailrace.streams.program.kept_as import KeptAs, kept_as
from tailrace.streams.values.codec import codec_of
from tailrace.streams.values.place import Place
from tailrace.windows.sliding import SlidingWindow
from tailrace.windows.window import AlignedWindow, Window
from tailrace.windows.windowed import Windowed

K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["rocksdb", "memory"]
"""Where a store is kept: on disk, or in memory and restored from its changelog at every start."""


class Store(ABC, Generic[K, V]):
    """A store of an app: read and written inside a processor, which takes it by `ctx.store(name)`; else read alone.

    The keys of a windowed one are `Windowed`; only `fetch` takes the key inside. Bounds are inclusive. What a store
    cannot do is refused with `InvalidError`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def get(self, key: K) -> V | None:
        """The value of a key, or None."""

    def put(self, key: K, value: V | None) -> bool:
        """Sets the value of a key as of the record's time; None deletes. True: it was taken."""
        del key, value
        self._refuse("put", "only a processor that was given the store writes to it")

    def delete(self, key: K) -> V | None:
        """Removes a key; returns the value that it had."""
        del key
        self._refuse("delete", "only a processor that was given the store writes to it")

    @abstractmethod
    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Every key with its value."""

    def range(self, low: K | None = None, high: K | None = None, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Keys from low to high, both included, in the order of their bytes; None leaves that side open.

        Integers below 0 come after all others in that order: ask for `range(low, -1)` and `range(0, high)` apart.

        Raises:
            ValueError: low is below high, and its bytes are above: nothing would be found.
        """
        del low, high, reverse
        self._refuse("range", "use all(), or fetch(key, start, end)")

    def prefix(self, prefix: Any) -> Iterator[tuple[K, V]]:
        """Keys whose bytes begin with the prefix's: for text and bytes."""
        del prefix
        self._refuse("prefix", "use all(), or fetch(key, start, end)")

    def fetch(self, key: K, start: Instant, end: Instant) -> Iterator[tuple[Windowed[K], V]]:
        """The key's windows that begin from start to end, earliest first; of sessions those that overlap that time."""
        del key, start, end
        self._refuse("fetch", "it has no windows: use get(key), range or all()")

    def as_of(self, key: K, when: Instant) -> tuple[V, int, int | None] | None:
        """What a key was at a time, in a store with a history: value, from when, until when (ms, exclusive).

        None for the end: still. None for all: there was nothing, or it is longer ago than the history.
        """
        del key, when
        self._refuse("as_of", "it has no history: declare it with history=")

    def _refuse(self, method: str, advice: str) -> NoReturn:
        raise InvalidError(f"store {self.name!r} has no {method} here: {advice}")


class DeclaredStore(Store[K, V]):
    """A store as `App.store` declares it: to be handed to processors, which take theirs by `ctx.store`."""

    def __init__(
        self,
        name: str,
        *,
        key: type[K],
        value: type[V],
        kind: Kind,
        default: Callable[[], V] | None,
        place: Place,
        window: Window | None = None,
        history_ms: int | None = None,
        ttl_ms: int | None = None,
    ) -> None:
        super().__init__(name)
        self.key_codec = codec_of(key)
        self.value_codec = codec_of(value)
        self.kind = kind
        self.default = default
        self.place = place
        self.window = window
        self.history_ms = history_ms
        self.ttl_ms = ttl_ms

    @property
    def layout(self) -> Layout:
        """How its changelog's records are laid out as rows."""
        if self.history_ms is not None:
            return VersionedStore.layout
        if self.ttl_ms is not None:
            return ExpiringStore.layout
        if self.window is None:
            return KeyValueStore.layout
        if isinstance(self.window, AlignedWindow):
            return WindowStore.layout
        return SessionLayout(self.window.difference_ms if isinstance(self.window, SlidingWindow) else None)

    def kept_as(self) -> KeptAs:
        """What it holds."""
        rows = "versioned" if self.history_ms is not None else "expiring" if self.ttl_ms is not None else None
        return kept_as(self.key_codec, self.value_codec, self.window, rows=rows)

    def get(self, key: K) -> V | None:
        """Refused, as everything that needs the store itself."""
        del key
        self._refuse("get", _DECLARED)

    def put(self, key: K, value: V | None) -> bool:
        """Refused."""
        del key, value
        self._refuse("put", _DECLARED)

    def delete(self, key: K) -> V | None:
        """Refused."""
        del key
        self._refuse("delete", _DECLARED)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Refused."""
        del reverse
        self._refuse("all", _DECLARED)

    def range(self, low: K | None = None, high: K | None = None, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Refused."""
        del low, high, reverse
        self._refuse("range", _DECLARED)

    def prefix(self, prefix: Any) -> Iterator[tuple[K, V]]:
        """Refused."""
        del prefix
        self._refuse("prefix", _DECLARED)

    def fetch(self, key: K, start: Instant, end: Instant) -> Iterator[tuple[Windowed[K], V]]:
        """Refused."""
        del key, start, end
        self._refuse("fetch", _DECLARED)

    def as_of(self, key: K, when: Instant) -> tuple[V, int, int | None] | None:
        """Refused."""
        del key, when
        self._refuse("as_of", _DECLARED)

    def __repr__(self) -> str:
        return f"Store({self.name!r}, declared at {self.place})"


def is_declared(given: object) -> TypeGuard[DeclaredStore[Any, Any]]:
    """Whether something is what `App.store` returns."""
    return isinstance(given, DeclaredStore)


_DECLARED = "this is its declaration, give it to a processor with stores=[…] and take it there by ctx.store(name)"
