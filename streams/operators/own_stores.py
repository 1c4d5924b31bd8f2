"""The stores of a program in one task: as the commit sees them, and as a processor reads and writes them.

1. What is put has the time of the record at hand, in a scheduled call that of the call.
2. Every processor that shares a store sees what any of them put, at once.
3. What has expired is not there, exactly: by stream time, a history by the origin of the record at hand. A put that
   comes too late for its window or its history is refused: it returns False, and is counted as "late".

Not here: how stores are declared (store), processors themselves (processor).
"""

from collections.abc import Iterator
from typing import Any, Protocol, TypeGuard

from tailrace.log.record import Instant, instant_ms
from tailrace.state.expiring import ExpiringStore
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.session import SessionStore
from tailrace.state.store import Codec, Keyspace
from tailrace.state.versioned import VersionedStore
from tailrace.state.window import WindowStore
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.program.store import DeclaredStore, Store
from tailrace.streams.values.derived import EXACT
from tailrace.windows.session import SessionWindow
from tailrace.windows.sliding import SlidingWindow
from tailrace.windows.window import AlignedWindow, Window
from tailrace.windows.windowed import Windowed

Kept = (
    KeyValueStore[Any, Any]
    | ExpiringStore[Any, Any]
    | VersionedStore[Any, Any]
    | WindowStore[Any, Any]
    | SessionStore[Any, Any]
)


def _is_windowed(key: object) -> TypeGuard[Windowed[Any]]:
    return isinstance(key, Windowed)


class Owner(Protocol):
    """The processor that a store was given to."""

    time_ms: int | None


class OwnStore:
    """A store of the program in one task, as the commit sees it: see `StateNode`."""

    def __init__(self, context: TaskContext, declared: DeclaredStore[Any, Any], store: Kept) -> None:
        self.name = declared.name
        self.context = context
        self.declared = declared
        self.store = store

    @property
    def dirty(self) -> int:
        """How many entries wait for the next commit."""
        return self.store.dirty

    def resume(self, stream_time_ms: int) -> None:
        """What had expired stays away."""
        self._expire_windows(stream_time_ms)

    def close_windows(self, _stream_time_ms: int) -> int:
        """Nothing is sent."""
        return FAR

    def flush(self, stream_time_ms: int) -> None:
        """Makes what was put into bytes, and lets go of what has expired; nothing is sent on."""
        store = self.store
        if isinstance(store, ExpiringStore):
            store.expire(stream_time_ms)
        self._expire_windows(stream_time_ms)
        store.flush()
        if isinstance(store, VersionedStore):
            store.expire(stream_time_ms - (self.declared.history_ms or 0))

    def open_windows(self, _stream_time_ms: int) -> int:
        """None that has a result to come."""
        return 0

    def _expire_windows(self, stream_time_ms: int) -> None:
        window = self.declared.window
        if isinstance(self.store, WindowStore | SessionStore) and window is not None:
            before_ms = stream_time_ms - window.retention_ms + 1
            if before_ms > 0:
                self.store.expire(before_ms)


def kept_store(
    declared: DeclaredStore[Any, Any], keyspace: Keyspace, keys: Codec[Any], values: Codec[Any], context: TaskContext
) -> Kept:
    """The store that a declaration asks for, in one task."""
    name, window, history_ms, ttl_ms = declared.name, declared.window, declared.history_ms, declared.ttl_ms
    if history_ms is not None:
        return VersionedStore(name, keyspace, keys, values, history_ms=history_ms, now=lambda: context.origin_ms)
    if ttl_ms is not None:
        return ExpiringStore(name, keyspace, keys, values, ttl_ms=ttl_ms, now=lambda: context.stream_time_ms)
    if isinstance(window, AlignedWindow):
        return WindowStore(name, keyspace, keys, values)
    if window is not None:
        difference_ms = window.difference_ms if isinstance(window, SlidingWindow) else None
        return SessionStore(name, keyspace, keys, values, difference_ms=difference_ms)
    return KeyValueStore(name, keyspace, keys, values)


def processor_store(own: OwnStore, owner: Owner) -> "TaskPart":
    """A store of the program as one processor has it."""
    store, window = own.store, own.declared.window
    if isinstance(store, VersionedStore):
        return ProcessorHistory(own, owner, store)
    if isinstance(store, WindowStore) and isinstance(window, AlignedWindow):
        return ProcessorWindows(own, owner, store, window)
    if isinstance(store, SessionStore) and window is not None:
        return ProcessorSpans(own, owner, store, window)
    return ProcessorStore(own, owner, store)


class TaskPart(Store[Any, Any]):
    """What all of these have in common: the time of what is put, and the key as the codec takes it."""

    def __init__(self, own: OwnStore, owner: Owner) -> None:
        super().__init__(own.name)
        self._owner = owner
        self._context = own.context
        self._default = own.declared.default
        self._plain: type | None = own.declared.key_codec.plain
        # For an app that goes on after an error: what could not be kept is found where it is put.
        self._encode = own.store.value_codec.encode if own.context.goes_on else None

    def _time_ms(self, done: str) -> int:
        time_ms = self._owner.time_ms
        if time_ms is None:
            raise RuntimeError(f"store {self.name!r} can be {done} in init, process and scheduled functions alone")
        return time_ms

    def _or_default(self, value: Any) -> Any:
        return self._default() if value is None and self._default is not None else value

    def _look_at(self, value: Any) -> None:
        if self._encode is not None and value is not None:
            self._encode(value)

    def _checked(self, key: Any) -> Any:
        """The key as its codec takes it: a dict would take 1, True and 1.0 for one key."""
        plain = self._plain
        if key is None:
            raise TypeError(f"store {self.name!r} has no key None")
        if plain is None or key.__class__ is plain:
            return key
        if isinstance(key, plain) and key.__class__ is not bool:
            return EXACT[plain](key)
        raise TypeError(f"store {self.name!r} has keys of type {plain.__name__}, not {type(key).__name__}: {key!r}")

    def _late(self) -> bool:
        self._context.drop("late")
        return False


class ProcessorStore(TaskPart):
    """A store as one processor reads and writes it: key-value, with a time to live or not."""

    def __init__(self, own: OwnStore, owner: Owner, store: Any) -> None:
        super().__init__(own, owner)
        self._store = store

    def get(self, key: Any) -> Any:
        """The value of a key; where there is none, what `default=` makes, which is not put; else None."""
        return self._or_default(self._store.get(key if key.__class__ is self._plain else self._checked(key)))

    def put(self, key: Any, value: Any) -> bool:
        """Sets the value of a key as of the record's time, in a scheduled call as of that time; None deletes."""
        time_ms = self._time_ms("put")
        self._look_at(value)
        self._store.put(key if key.__class__ is self._plain else self._checked(key), value, time_ms)
        return True

    def delete(self, key: Any) -> Any:
        """See `Store.delete`."""
        return self._store.delete(
            key if key.__class__ is self._plain else self._checked(key), self._time_ms("deleted from")
        )

    def range(self, low: Any = None, high: Any = None, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """See `Store.range`."""
        low, high = (None if bound is None else self._checked(bound) for bound in (low, high))
        found: Iterator[tuple[Any, Any]] = self._store.range(low, high, reverse=reverse)
        return found

    def prefix(self, prefix: Any) -> Iterator[tuple[Any, Any]]:
        """See `Store.prefix`."""
        found: Iterator[tuple[Any, Any]] = self._store.prefix(self._checked(prefix))
        return found

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """See `Store.all`."""
        found: Iterator[tuple[Any, Any]] = self._store.all(reverse=reverse)
        return found


class ProcessorHistory(ProcessorStore):
    """The same with a history: what is put holds from the record's time until the next put's, by time."""

    def put(self, key: Any, value: Any) -> bool:
        """Says what a key is from the record's time on, None for deleted; False: that is older than the history."""
        time_ms = self._time_ms("put")
        self._look_at(value)
        return self._store.put(self._checked(key), value, time_ms) or self._late()

    def as_of(self, key: Any, when: Instant) -> tuple[Any, int, int | None] | None:
        """See `Store.as_of`."""
        found: tuple[Any, int, int | None] | None = self._store.as_of(self._checked(key), instant_ms(when))
        return found


class ProcessorWindows(TaskPart):
    """The same of tumbling, hopping or unlimited windows: under `Windowed` keys, or the key inside at one's time."""

    def __init__(self, own: OwnStore, owner: Owner, store: WindowStore[Any, Any], window: AlignedWindow) -> None:
        super().__init__(own, owner)
        self._windows = store
        self._window = window

    def get(self, key: Any) -> Any:
        """The value in a window; of a key that is not windowed, in the one window of the record's time."""
        inner, start_ms = self._place(key, "read")
        value = self._windows.get(start_ms, inner) if self._there(start_ms) else None
        return self._or_default(value)

    def put(self, key: Any, value: Any) -> bool:
        """Sets the value in a window, as `get` finds it; None deletes. False: the window has expired."""
        time_ms = self._time_ms("put")
        self._look_at(value)
        inner, start_ms = self._place(key, "put")
        if start_ms + self._window.retention_ms <= self._context.origin_ms:
            return self._late()
        self._windows.put(start_ms, inner, value, time_ms)
        return True

    def delete(self, key: Any) -> Any:
        """Removes the value of a window; returns it."""
        inner, start_ms = self._place(key, "deleted from")
        value = self._windows.get(start_ms, inner) if self._there(start_ms) else None
        if value is not None:
            self._windows.put(start_ms, inner, None, self._time_ms("deleted from"))
        return value

    def fetch(self, key: Any, start: Instant, end: Instant) -> Iterator[tuple[Windowed[Any], Any]]:
        """See `Store.fetch`."""
        for start_ms, value in self._windows.fetch(self._checked(key), instant_ms(start), instant_ms(end)):
            if self._there(start_ms):
                yield Windowed(key, start_ms, self._window.end(start_ms)), value

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """Every window by start and then key."""
        for start_ms, key, value in self._windows.fetch_all(0, FAR, reverse=reverse):
            if self._there(start_ms):
                yield Windowed(key, start_ms, self._window.end(start_ms)), value

    def _there(self, start_ms: int) -> bool:
        return start_ms + self._window.retention_ms > self._context.stream_time_ms

    def _place(self, key: Any, done: str) -> tuple[Any, int]:
        window = self._window
        if _is_windowed(key):
            if key.start_ms not in window.starts(key.start_ms) or window.end(key.start_ms) != key.end_ms:
                raise ValueError(f"store {self.name!r} has windows of {window}, and {key!r} is none of them")
            return self._checked(key.key), key.start_ms
        starts = window.starts(self._time_ms(done))
        if len(starts) != 1:
            raise ValueError(
                f"store {self.name!r} has {len(starts)} windows of {window} at {self._owner.time_ms} ms: name one of "
                "them, by Windowed(key, start_ms, end_ms)"
            )
        return self._checked(key), starts[0]


class ProcessorSpans(TaskPart):
    """The same of sessions or sliding windows: under `Windowed` keys, their ends included.

    A key has one window of a start: one that is put with another end takes its place.
    """

    def __init__(self, own: OwnStore, owner: Owner, store: SessionStore[Any, Any], window: Window) -> None:
        super().__init__(own, owner)
        self._spans = store
        self._window = window

    def get(self, key: Any) -> Any:
        """The value in the window of exactly these bounds."""
        inner, start_ms, end_ms = self._bounds(key)
        value = self._spans.get(inner, start_ms, end_ms) if self._there(end_ms) else None
        return self._or_default(value)

    def put(self, key: Any, value: Any) -> bool:
        """Sets the value in a window; None deletes. False: the window has expired."""
        time_ms = self._time_ms("put")
        self._look_at(value)
        inner, start_ms, end_ms = self._bounds(key)
        if end_ms + self._window.retention_ms <= self._context.origin_ms:
            return self._late()
        store, cached = self._spans, self._spans.cache_key(inner)
        found = next((span for span in store.load(cached) if span.start_ms == start_ms), None)
        if found is not None and (value is None or found.end_ms != end_ms):
            if value is None and found.end_ms != end_ms:
                return True
            store.remove(found, time_ms)
            found = None
        if value is None:
            return True
        if found is None:
            store.add(cached, start_ms, end_ms, value, time_ms)
        else:
            found.value, found.timestamp_ms = value, time_ms
            if not found.dirty:
                store.touch(found)
        return True

    def delete(self, key: Any) -> Any:
        """Removes the value of a window; returns it."""
        inner, start_ms, end_ms = self._bounds(key)
        value = self._spans.get(inner, start_ms, end_ms) if self._there(end_ms) else None
        if value is not None:
            self.put(key, None)
        return value

    def fetch(self, key: Any, start: Instant, end: Instant) -> Iterator[tuple[Windowed[Any], Any]]:
        """See `Store.fetch`."""
        from_ms, by_start = instant_ms(start), isinstance(self._window, SlidingWindow)
        for start_ms, end_ms, value in self._spans.fetch(self._checked(key), from_ms, instant_ms(end)):
            if self._there(end_ms) and (start_ms >= from_ms or not by_start):
                yield Windowed(key, start_ms, end_ms), value

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """Every window by key, end, start."""
        rows = list(self._spans.fetch_all(0, FAR))
        for start_ms, end_ms, key, value in reversed(rows) if reverse else rows:
            if self._there(end_ms):
                yield Windowed(key, start_ms, end_ms), value

    def _there(self, end_ms: int) -> bool:
        return end_ms + self._window.retention_ms > self._context.stream_time_ms

    def _bounds(self, key: Any) -> tuple[Any, int, int]:
        if not _is_windowed(key):
            raise TypeError(f"store {self.name!r} has windowed keys, not {key!r}: give Windowed(key, start_ms, end_ms)")
        length_ms, window = key.end_ms - key.start_ms, self._window
        wrong = length_ms < 0 if isinstance(window, SessionWindow) else length_ms != getattr(window, "difference_ms", 0)
        if wrong or key.start_ms < 0:
            raise ValueError(f"store {self.name!r} has windows of {window}, and {key!r} is none of them")
        return self._checked(key.key), key.start_ms, key.end_ms
