"""The key-value store: examples, and against two dicts (committed, and as it looks now)."""

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.session import Span
from tailrace.state.store import Backend, Codec
from tailrace.state.versioned import VersionedStore
from tailrace.tests.support.places import ListChangelog
from tailrace.tests.support.state import IntCodec, ListCodec, OpaqueCodec, TextCodec
from tailrace.tests.unit.state.conftest import MakePlace

Store = KeyValueStore[str, list[int]]


def opened(backend: Backend, keys: Codec[str] | None = None) -> Store:
    return KeyValueStore("s", backend.keyspace("s"), keys or TextCodec(), ListCodec())


def test_an_operator_works_on_the_entries() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = KeyValueStore("s", backend.keyspace("s"), TextCodec(), IntCodec())
    for key, timestamp_ms in [("b", 5), ("a", 3), ("b", 4)]:
        entry = store.entries.get(key) or store.load(key)
        entry.value = 1 if entry.value is None else entry.value + 1
        entry.timestamp_ms = max(entry.timestamp_ms, timestamp_ms)
        if not entry.dirty:
            store.touch(key, entry)
    assert store.dirty == 2
    assert store.flush() == [("b", 2, 5), ("a", 1, 3)], "in order of first touch"
    assert store.dirty == 0
    assert store.flush() == []
    assert backend.keyspace("s").first(b"", None) is None, "nothing before the commit"
    log.commit(store, backend)
    assert log.rows == [(b"b", b"\0\0\0\0\0\0\0\2", 5), (b"a", b"\0\0\0\0\0\0\0\1", 3)]
    assert backend.keyspace("s").get(b"\1b") == b"\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\2", "time, then value"


def test_a_cache_gives_the_collector_of_cycles_nothing_to_walk() -> None:
    store = KeyValueStore("s", MemoryBackend().keyspace("s"), TextCodec(), IntCodec())
    store.put("a", 1, 5)
    assert not gc.is_tracked(store.entries["a"])
    assert not gc.is_tracked(Span(1, 5, stored=True, key="a", start_ms=0, end_ms=10))


def test_old_values_are_those_of_the_flush_before() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    store.put("a", [1], 1)
    assert store.flush_with_old() == [(("a", [1], 1), None)]
    store.put("a", [2], 2)
    assert store.flush_with_old() == [(("a", [2], 2), b"\1")], "no commit between"
    log.commit(store, backend)
    store.entries["a"].value = [3, 4]
    store.touch("a", store.entries["a"])
    store.put("a", None, 3)
    store.put("b", [5], 3)
    assert store.flush_with_old() == [(("a", None, 3), b"\2"), (("b", [5], 3), None)]
    store.put("a", [6], 4)
    assert store.flush_with_old() == [(("a", [6], 4), None)]


def test_deleting_what_was_never_stored_leaves_no_tombstone() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    store.put("a", [1], 1)
    assert store.delete("a", 2) == [1]
    assert store.delete("b", 2) is None
    assert store.flush() == [("a", None, 2)], "forwarded, as an update may have been before"
    log.commit(store, backend)
    assert log.rows == []
    store.put("a", [1], 3)
    store.flush()
    store.put("a", None, 4)
    assert store.flush() == [("a", None, 4)]
    log.commit(store, backend)
    assert log.rows == [(b"a", b"\1", 3), (b"a", None, 4)]
    assert store.get("a") is None


def test_an_aggregate_may_be_changed_in_place_after_the_flush() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    value = [1]
    store.put("a", value, 1)
    store.flush()
    value.append(2)
    log.commit(store, backend)
    assert log.rows == [(b"a", b"\1", 1)]
    assert opened(backend).get("a") == [1]


def test_reading_leaves_the_cache_alone_and_a_full_cache_keeps_what_changed() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    for key in "abcde":
        store.put(key, [1], 1)
    store.flush()
    log.commit(store, backend, max_entries=5)
    assert list(store.entries) == list("abcde")
    store.put("a", [2], 2)
    store.put("f", [2], 2)
    store.flush()
    log.commit(store, backend, max_entries=3)
    assert set(store.entries) == {"e", "a", "f"}, "longest unchanged first; hot keys stay"
    assert store.get("b") == [1]
    assert "b" not in store.entries
    assert [key for key, _ in store.all()] == list("abcdef")


def test_ranges_are_inclusive_and_in_the_order_of_encoded_keys() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    for key in ["b", "ba", "a", "c", "é"]:
        store.put(key, [1], 1)
    store.flush()
    log.commit(store, backend)
    store.delete("a", 2)
    store.put("bb", [2], 2)
    assert [key for key, _ in store.range("a", "b")] == ["b"]
    assert [key for key, _ in store.range("b", "bb")] == ["b", "ba", "bb"]
    assert [key for key, _ in store.range(high="ba", reverse=True)] == ["ba", "b"]
    assert [key for key, _ in store.prefix("b")] == ["b", "ba", "bb"]
    assert [key for key, _ in store.prefix("b", reverse=True)] == ["bb", "ba", "b"]
    assert [key for key, _ in store.all(reverse=True)] == ["é", "c", "bb", "ba", "b"]


keys = st.sampled_from(["", "a", "aa", "ab", "b", "c"])
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put", "append", "delete", "get"]), keys, st.integers(0, 255)),
        st.tuples(st.sampled_from(["flush", "commit", "commit", "discard", "reopen"]), keys, st.integers(0, 4)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("codec", [TextCodec(), OpaqueCodec()])
@settings(max_examples=50, deadline=None)
@given(operations)
def test_against_dicts(
    kind: str, codec: Codec[str], make_place: MakePlace, operations: list[tuple[str, str, int]]
) -> None:
    place, log = make_place(kind), ListChangelog()
    store = opened(place.backend, codec)
    committed: dict[str, tuple[list[int], int]] = {}
    now = dict(committed)
    for time, (name, key, number) in enumerate(operations):
        if name == "put":
            store.put(key, [number], time)
            now[key] = [number], time
        elif name == "append":
            entry = store.load(store.cache_key(key))
            entry.value = [number] if entry.value is None else entry.value
            entry.value.append(number)
            entry.timestamp_ms = time
            if not entry.dirty:
                store.touch(store.cache_key(key), entry)
            now[key] = [*(now[key][0] if key in now else [number]), number], time
        elif name == "delete":
            assert store.delete(key, time) == (now.pop(key, ([], 0))[0] or None)
        elif name == "flush":
            check_flush(store, now)
        elif name == "commit":
            check_flush(store, now)
            log.commit(store, place.backend, max_entries=number)
            assert len(store.entries) <= number
            committed = dict(now)
        elif name == "discard":
            store.discard()
            now = dict(committed)
        elif name == "reopen":
            store = opened(place.reopen(), codec)
            now = dict(committed)
        check_reads(store, now, key)
    replica = MemoryBackend()
    restore(replica, "s", store.layout, log)
    check_reads(opened(replica, codec), committed, "a")
    place.backend.destroy()


def check_flush(store: Store, now: dict[str, tuple[list[int], int]]) -> None:
    changes = store.flush()
    assert all(now.get(key, (None,))[0] == value for key, value, _ in changes)
    assert len({change.key for change in changes}) == len(changes)


def check_reads(store: Store, now: dict[str, tuple[list[int], int]], key: str) -> None:
    rows: list[Any] = sorted((k, value) for k, (value, _) in now.items())
    assert list(store.all()) == rows
    assert list(store.range("a", key, reverse=True)) == [row for row in reversed(rows) if "a" <= row[0] <= key]
    assert list(store.prefix(key)) == [row for row in rows if row[0].startswith(key)]
    assert store.get(key) == now.get(key, (None,))[0]


class LongCodec:
    """As Kafka's: 8 bytes, big-endian, two's complement."""

    hashable = True

    def encode(self, value: int) -> bytes:
        return value.to_bytes(8, "big", signed=True)

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, "big", signed=True)


@pytest.mark.parametrize("versioned", [False, True])
def test_bounds_whose_bytes_are_the_other_way_round_are_refused(versioned: bool) -> None:
    keyspace = MemoryBackend().keyspace("s")
    store: Any
    if versioned:
        store = VersionedStore("s", keyspace, LongCodec(), IntCodec(), history_ms=10, now=lambda: 0)
    else:
        store = KeyValueStore("s", keyspace, LongCodec(), IntCodec())
    for key in range(-3, 4):
        if versioned:
            store.put(key, key, 0)
        else:
            entry = store.load(key)
            entry.value = key
            store.touch(key, entry)
    for reverse in (False, True):
        with pytest.raises(ValueError, match=r"range\(-2, 2\) has none between.*below 0 and from 0 on apart"):
            store.range(-2, 2, reverse=reverse)
    assert [key for key, _ in store.range(-2, -1)] == [-2, -1]
    assert [key for key, _ in store.range(0, 2)] == [0, 1, 2]
    assert [key for key, _ in store.range(2, -2)] == [2, 3, -3, -2], "these are in the order of their bytes"
    assert list(store.range(2, 1)) == []
