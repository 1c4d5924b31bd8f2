"""The window store: examples, and against two dicts (committed, and as it looks now)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.memory import MemoryBackend, MemoryKeyspace
from tailrace.state.restore import restore
from tailrace.state.store import Backend, Codec
from tailrace.state.window import WindowStore
from tailrace.tests.support.places import ListChangelog
from tailrace.tests.support.state import ListCodec, OpaqueCodec, TextCodec
from tailrace.tests.unit.state.conftest import MakePlace

Store = WindowStore[str, list[int]]
Model = dict[tuple[int, str], list[int]]
END = 1_000_000


def opened(backend: Backend, keys: Codec[str] | None = None) -> Store:
    return WindowStore("s", backend.keyspace("s"), keys or TextCodec(), ListCodec())


def everything(store: Store) -> Model:
    return {(start, key): value for start, key, value in store.fetch_all(-5, END)}


class Counting(MemoryKeyspace):
    """Counts what is read."""

    reads = 0

    def get(self, key: bytes, /) -> bytes | None:
        self.reads += 1
        return super().get(key)


def test_rows_are_time_first_and_changelog_keys_are_kafkas() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    store.put(256, "a", [7], 300)
    assert store.flush() == [((256, "a"), [7], 300)]
    log.commit(store, backend)
    start = b"\0\0\0\0\0\0\1\0"
    assert log.rows == [(b"a" + start + b"\0\0\0\0", b"\7", 300)]
    assert list(backend.keyspace("s").range(b"", None)) == [(b"\1" + start + b"a", b"\0\0\0\0\0\0\1\x2c\7")]


def test_old_values_are_those_of_the_flush_before() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    store.put(256, "a", [7], 300)
    assert store.flush_with_old() == [(((256, "a"), [7], 300), None)]
    log.commit(store, backend)
    store.put(256, "a", [8], 301)
    store.put(512, "a", [9], 600)
    assert store.flush_with_old() == [(((256, "a"), [8], 301), b"\7"), (((512, "a"), [9], 600), None)]


def test_new_windows_read_nothing_and_old_ones_once_for_each_key() -> None:
    keyspace = Counting("s")
    backend, log = MemoryBackend(), ListChangelog()
    backend.keyspaces["s"] = keyspace
    store = opened(backend)
    for start in (60, 120, 0):
        for key in "abc":
            store.put(start, key, [1], start)
        store.flush()
        log.commit(store, backend)
        store.put(start, "later", [1], start)
    store.flush()
    log.commit(store, backend)
    assert keyspace.reads == 0, "every window was made here: what is not cached is nowhere"
    store = opened(backend)
    for _ in range(2):
        for key in "abx":
            store.load(60, key)
    assert keyspace.reads == 3
    store.load(180, "a")
    store.load(30, "a")
    assert keyspace.reads == 3, "the window has no row: one seek said so"


def test_a_full_cache_drops_oldest_windows_first_and_cuts_no_more_than_needed() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    for start in (0, 60, 120):
        for key in "abc":
            store.put(start, key, [1], start)
    store.flush()
    log.commit(store, backend)
    kept = store.windows[0]
    store.put(60, "a", [2], 60)
    store.flush()
    log.commit(store, backend, max_entries=4)
    assert {start: set(window) for start, window in store.windows.items()} == {60: {"a"}, 120: set("abc")}
    assert kept == {}, "who still holds the dict loads anew"
    assert store.get(0, "a") == [1]
    assert len(everything(store)) == 9


def test_expired_windows_are_gone_at_once_and_their_last_changes_still_go_out() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    for start in (0, 60, 120):
        store.put(start, "a", [1], start)
    store.flush()
    log.commit(store, backend)
    store.put(0, "a", [2], 9)
    store.expire(61)
    store.expire(30)
    assert everything(store) == {(120, "a"): [1]}
    assert store.get(0, "a") is None
    assert list(store.fetch("a", 0, END)) == [(120, [1])]
    with pytest.raises(ValueError, match="store s: the window at 60 has expired, as all before 61"):
        store.load(60, "a")
    assert store.flush() == [((0, "a"), [2], 9)]
    assert len(list(backend.keyspace("s").range(b"", None))) == 3
    store.discard()
    assert everything(store) == {(0, "a"): [1], (60, "a"): [1], (120, "a"): [1]}, "an abort brings them back"
    store.expire(61)
    log.commit(store, backend)
    assert len(list(backend.keyspace("s").range(b"", None))) == 1
    assert len(log.rows) == 3
    store.discard()
    assert everything(store) == {(120, "a"): [1]}


def test_windows_before_come_in_order_of_start_and_key() -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    for start, key in [(60, "b"), (0, "c"), (60, "a"), (120, "a")]:
        store.put(start, key, [start], start + 1)
    store.flush()
    log.commit(store, backend)
    store = opened(backend)
    store.put(0, "b", [9], 9)
    found = [(start, key, entry.value, entry.timestamp_ms) for start, key, entry in store.windows_before(120)]
    assert found == [(0, "b", [9], 9), (0, "c", [0], 1), (60, "a", [60], 61), (60, "b", [60], 61)]
    assert [start for start, _, _ in store.windows_before(120, from_ms=1)] == [60, 60]


keys = st.sampled_from(["", "a", "aa", "b"])
starts = st.sampled_from([0, 5, 10, 255, 256, 300])
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put", "append", "delete", "open"]), starts, keys, st.integers(0, 255)),
        st.tuples(st.sampled_from(["flush", "commit", "commit", "discard", "reopen"]), starts, keys, st.integers(0, 4)),
        st.tuples(st.just("expire"), starts, keys, st.integers(0, 4)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("codec", [TextCodec(), OpaqueCodec()])
@settings(max_examples=50, deadline=None)
@given(operations)
def test_against_dicts(
    kind: str, codec: Codec[str], make_place: MakePlace, operations: list[tuple[str, int, str, int]]
) -> None:
    place, log = make_place(kind), ListChangelog()
    store = opened(place.backend, codec)
    committed: Model = {}
    now: Model = {}
    expired = committed_expiry = 0
    for time, (name, start, key, number) in enumerate(operations):
        if name in {"put", "append", "delete", "open"} and start < expired:
            with pytest.raises(ValueError, match="expired"):
                store.load(start, store.cache_key(key))
        elif name == "put":
            store.put(start, key, [number], time)
            now[start, key] = [number]
        elif name == "append":
            entry = store.open(start).get(store.cache_key(key)) or store.load(start, store.cache_key(key))
            entry.value = [number] if entry.value is None else entry.value
            entry.value.append(number)
            if not entry.dirty:
                store.touch(start, store.cache_key(key), entry)
            now[start, key] = [*now.get((start, key), [number]), number]
        elif name == "delete":
            store.put(start, key, None, time)
            now.pop((start, key), None)
        elif name == "open":
            store.open(start)
        elif name == "flush":
            check_flush(store, now)
        elif name == "commit":
            check_flush(store, now)
            log.commit(store, place.backend, max_entries=number)
            assert sum(map(len, store.windows.values())) <= number
            committed, committed_expiry = dict(now), expired
        elif name == "discard":
            store.discard()
            now, expired = dict(committed), committed_expiry
        elif name == "reopen":
            store = opened(place.reopen(), codec)
            now, expired, committed_expiry = dict(committed), 0, 0
        elif name == "expire":
            store.expire(start)
            expired = max(expired, start)
            now = {window: value for window, value in now.items() if window[0] >= expired}
        check_reads(store, now, start, key)
    replica = MemoryBackend()
    restore(replica, "s", store.layout, log, expire_before_ms=committed_expiry)
    kept = {window: value for window, value in committed.items() if window[0] >= committed_expiry}
    restored = everything(opened(replica, codec))
    assert {window: restored.get(window) for window in kept} == kept
    place.backend.destroy()


def check_flush(store: Store, now: Model) -> None:
    changes = store.flush()
    assert all(now.get(key) == value for key, value, _ in changes if key[0] >= store.expired_before_ms)
    assert len({change.key for change in changes}) == len(changes)


def check_reads(store: Store, now: Model, start: int, key: str) -> None:
    rows = sorted((*window, value) for window, value in now.items())
    assert list(store.fetch_all(0, END)) == rows
    assert list(store.fetch_all(5, start, reverse=True)) == [row for row in reversed(rows) if 5 <= row[0] <= start]
    assert list(store.fetch(key, 0, start)) == [(row[0], row[2]) for row in rows if row[1] == key and row[0] <= start]
    assert store.get(start, key) == now.get((start, key))
