"""The seam between typed stores and the place their bytes are kept, and the values that cross it.

A task has one `Backend`; each of its stores has one `Keyspace` in it. Typed stores (`keyvalue`, `window`, `session`)
keep a write-back cache of `Entry` objects in front of their keyspace; a commit takes what they changed as one
`WriteSet`.

1. A keyspace changes only through `Backend.write` (and `Keyspace.clear`, on rebuilding): never before the commit it
   belongs to.
2. Keys beginning with `RESERVED` belong to the backend; a store's rows begin with `ROWS` or a higher byte.
3. What a keyspace holds is bytes made when the entry was flushed: a user's function may change an aggregate in place
   later.
4. Within one `Writes`, range deletes come first, then the rows in order, then the checkpoint.
5. A store may keep back rows of a commit that it has in its cache, and its checkpoint with them: they are in the
   changelog, so losing them costs what losing a memtable costs. It says so in its `Writes`, and the backend asks for
   them before it flushes.

Not here: layouts of rows (each typed store), the changelog's bytes (changelog), when to commit (streams).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from tailrace.state.checkpoint import Checkpoint

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

RESERVED = b"\x00"
ROWS = b"\x01"

Row = tuple[bytes, bytes | None]
"""A key of a keyspace and its value; None deletes."""

ChangelogRow = tuple[bytes, bytes | None, int]
"""Key, value (None: tombstone) and timestamp in ms of one changelog record."""


class ChangelogColumns:
    """Changelog records by column: what a store gives that has very many, and no tuple for each."""

    __slots__ = ("keys", "timestamps_ms", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []
        self.timestamps_ms: list[int] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[ChangelogRow]:
        return zip(self.keys, self.values, self.timestamps_ms, strict=True)


class Codec(Protocol[T]):
    """Turns a key or a value into bytes and back.

    `hashable` says that equal keys have equal bytes and the other way round, so the user's object may be a key of a
    dict; else caches use the encoded bytes (1, True and 1.0 are one key of a dict and three keys of a topic).
    """

    @property
    def hashable(self) -> bool:
        """Whether the user's objects may be keys of a dict."""
        ...

    def encode(self, value: T, /) -> bytes:
        """The bytes of `value`; raises EncodeError."""
        ...

    def decode(self, data: bytes, /) -> T:
        """The value in `data`; raises DecodeError."""
        ...


class Entry(msgspec.Struct, Generic[V], eq=False, gc=False):
    """One key's value in a cache, changed in place by operators.

    `value` None means absent or deleted. `timestamp_ms` is the entry's time, -1 where there never was a value. Whoever
    changes an entry calls the store's `touch` once unless `dirty` is set. `stored` is False only where the store and
    the changelog are known not to have the key, so that deleting it needs no tombstone.

    The collector of cycles does not know of it: caches hold very many, none is part of a cycle, and to look at 500,000
    of them stopped the process for 0.4 s.
    """

    value: V | None
    timestamp_ms: int
    stored: bool
    dirty: bool = False


_tuple: Any = tuple
new_tuple: Callable[..., Any] = _tuple.__new__
"""Makes a NamedTuple of its class and a tuple of its fields, where very many are made.

Measured: 0.09 µs, and 0.48 by the class, whose `__new__` is a function of Python.
"""


class Change(NamedTuple, Generic[K, V]):
    """What a flush found changed: the newest value of a key (None: deleted) and its time in ms."""

    key: K
    value: V | None
    timestamp_ms: int


class Behind(Protocol):
    """What a store has kept back (invariant 5)."""

    @property
    def behind(self) -> int:
        """How many rows."""
        ...

    def settle(self) -> "Writes":
        """Hands all of it over, checkpoint included. To be called between two commits, by who writes them."""
        ...


class Writes:
    """What one commit changes in one keyspace (order: invariant 4)."""

    __slots__ = ("behind", "checkpoint", "ranges", "rows")

    def __init__(self) -> None:
        self.behind: Behind | None = None
        """Has what the store keeps back of this commit and those before it; None: nothing."""
        self.ranges: list[tuple[bytes, bytes]] = []
        self.rows: list[Row] = []
        self.checkpoint: Checkpoint | None = None

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""
        self.rows.append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove `key`, whether it is there or not."""
        self.rows.append((key, None))

    def put_all(self, rows: dict[bytes, bytes | None]) -> None:
        """Set and remove (None) many keys."""
        self.rows += rows.items()

    def delete_range(self, low: bytes, high: bytes) -> None:
        """Remove every key from `low` up to and without `high`, those put earlier in this set included."""
        if low < high:
            self.rows = [row for row in self.rows if not low <= row[0] < high]
            self.ranges.append((low, high))

    def extend(self, later: "Writes") -> None:
        """Add what happened after this set."""
        for low, high in later.ranges:
            self.delete_range(low, high)
        self.rows += later.rows
        self.behind = later.behind
        self.checkpoint = later.checkpoint or self.checkpoint


class WriteSet:
    """What one commit changes in a task's stores: `Writes` by keyspace name."""

    __slots__ = ("keyspaces",)

    def __init__(self) -> None:
        self.keyspaces: dict[str, Writes] = {}

    def of(self, keyspace: str) -> Writes:
        """The changes of one keyspace, to add to."""
        writes = self.keyspaces.get(keyspace)
        if writes is None:
            writes = self.keyspaces[keyspace] = Writes()
        return writes

    def __bool__(self) -> bool:
        return any(w.rows or w.ranges or w.checkpoint or w.behind for w in self.keyspaces.values())


class Keyspace(Protocol):
    """The rows of one store, in the order of their bytes. Reading sees what was written, at once."""

    @property
    def name(self) -> str:
        """The store's name, unique within the backend."""
        ...

    def get(self, key: bytes, /) -> bytes | None:
        """The value of `key`, or None."""
        ...

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        """The values of `keys` in their order, None where there is none."""
        ...

    def range(self, low: bytes, high: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows with low <= key < high (None: to the end), in order of their bytes.

        Writing meanwhile is allowed: rows further on may be seen old or new.
        """
        ...

    def first(self, low: bytes, high: bytes | None, *, reverse: bool = False) -> tuple[bytes, bytes] | None:
        """The first row of the range (the last with `reverse`), by one seek."""
        ...

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint written last; None where there is none, or one of another version."""
        ...

    def clear(self) -> None:
        """Remove every row and the checkpoint, at once and for good."""
        ...


class Backend(Protocol):
    """Where a task's stores keep their bytes. One thread uses it at a time."""

    def keyspace(self, name: str) -> Keyspace:
        """Open the keyspace, made if it is missing. The same name gives the same object."""
        ...

    def write(self, writes: WriteSet) -> None:
        """Apply a commit whose changelog records are on disk: the backend may flush at any moment from here on.

        After a crash each keyspace is as it was at some earlier checkpoint, perhaps with newer rows.
        """
        ...

    def ingest(self, keyspace: str, rows: dict[bytes, bytes | None], checkpoint: Checkpoint) -> None:
        """Write many rows of one keyspace, in any order, with their checkpoint: for restoring."""
        ...

    def flush(self) -> None:
        """Return when everything written survives a crash of the process and of the machine."""
        ...

    def flush_if_due(self) -> None:
        """Start to flush, in the background, keyspaces with many or old unflushed writes; `write` does it by itself."""
        ...

    def close(self) -> None:
        """Flush, and let go of the directory. Closing twice is harmless."""
        ...

    def destroy(self) -> None:
        """Close without flushing, and remove every byte."""
        ...


def with_old(
    changes: Sequence[Change[K, V]],
    rows: Sequence[bytes],
    keyspace: "Keyspace",
    pending: dict[bytes, bytes | None],
) -> "list[tuple[Change[K, V], bytes | None]]":
    """The changes beside the encoded values that they replace: what the keyspace holds of each one's row.

    A keyspace holds what was flushed before the last commit, so neither the cache nor whoever changes an entry has to
    remember anything; `pending` is what was flushed since, empty where a commit follows every flush.
    """
    found = keyspace.get_many(rows)
    if pending:
        found = [pending.get(row, old) for row, old in zip(rows, found, strict=True)]
    return [(change, None if old is None else old[8:]) for change, old in zip(changes, found, strict=True)]


def merged(
    stored: Iterator[tuple[bytes, bytes]],
    cached: Sequence[tuple[bytes, Entry[V]]],
    decode: "RowDecoder[V]",
    *,
    reverse: bool = False,
) -> Iterator[tuple[bytes, Entry[V]]]:
    """Rows of a keyspace and entries of a cache as one sequence by row key; both come in that order already.

    A cached entry hides the row of the same key; deleted entries are left out.
    """
    position, end = 0, len(cached)
    for key, row in stored:
        while position < end and (cached[position][0] > key if reverse else cached[position][0] < key):
            if cached[position][1].value is not None:
                yield cached[position]
            position += 1
        if position < end and cached[position][0] == key:
            if cached[position][1].value is not None:
                yield cached[position]
            position += 1
        else:
            yield key, decode(row)
    for item in cached[position:]:
        if item[1].value is not None:
            yield item


class RowDecoder(Protocol[V]):
    """Makes a clean entry from the value of a row."""

    def __call__(self, row: bytes, /) -> Entry[V]:
        """The entry in `row`."""
        ...


def after(prefix: bytes) -> bytes | None:
    """The smallest key greater than every key that begins with `prefix`; None if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else None


def check_range(low: Any, high: Any, begin: bytes, end: bytes | None) -> None:
    """Refuses bounds that are in order and whose bytes are not: nothing would be found, as if nothing were there.

    Raises:
        ValueError: as integers below 0 come after the others, or as JSON's 9 comes after its 10.
    """
    if low is None or high is None or end is None or begin <= end:
        return
    try:
        in_order = bool(low <= high)
    except TypeError:  # of a class without an order: only the bytes have one
        in_order = False
    if in_order:
        raise ValueError(
            f"range({low!r}, {high!r}) has none between, as keys stand in the order of their bytes, and those of "
            f"{low!r} come after those of {high!r}: for integers ask below 0 and from 0 on apart"
        )
