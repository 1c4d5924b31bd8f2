"""The session store: against a dict, through commits, aborts, evictions, expiry and restoring."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state import rocksdb
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.rocksdb import FLUSH_SECONDS, RocksBackend, RocksMemory
from tailrace.state.session import SessionStore, Span
from tailrace.state.session_rows import SessionLayout
from tailrace.state.store import Backend, Codec, WriteSet
from tailrace.tests.support.places import ListChangelog, Place
from tailrace.tests.support.state import ListCodec, OpaqueCodec, TextCodec

MakePlace = Callable[[str], Place]
Windows = dict[tuple[str, int, int], str]


def opened(
    backend: Backend, keys: Codec[str] | None = None, difference_ms: int | None = None
) -> SessionStore[str, str]:
    return SessionStore("s", backend.keyspace("s"), keys or TextCodec(), TextCodec(), difference_ms=difference_ms)


def commit(backend: Backend, store: SessionStore[str, str], max_entries: int = 100) -> None:
    store.flush()
    writes = WriteSet()
    store.take_writes(writes)
    backend.write(writes)
    store.evict(max_entries)


def everything(store: SessionStore[str, str]) -> Windows:
    return {(key, start, end): value for start, end, key, value in store.fetch_all(0, 10_000)}


def test_a_moved_window_is_retracted_only_where_it_was_stored() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    span = store.add("A", 0, 0, "a", 0)
    store.move(span, 0, 5)
    span.value, span.timestamp_ms = "ab", 5
    assert store.dirty == 1
    assert store.flush() == [((0, 5, "A"), "ab", 5)], "nobody had seen [0,0]"
    store.move(span, 0, 9)
    span.value, span.timestamp_ms = "abc", 9
    assert store.flush() == [((0, 5, "A"), None, 5), ((0, 9, "A"), "abc", 9)]
    times = b"\0\0\0\0\0\0\0"
    assert store.take_changelog() == [
        (b"A" + times + b"\5" + times + b"\0", b"ab", 5),
        (b"A" + times + b"\5" + times + b"\0", None, 5),
        (b"A" + times + b"\x09" + times + b"\0", b"abc", 9),
    ]
    commit(backend, store)
    assert everything(opened(backend)) == {("A", 0, 9): "abc"}


def test_old_values_are_those_of_the_flush_before() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    span = store.add("A", 0, 5, "ab", 5)
    commit(backend, store)
    store.move(span, 0, 9)
    span.value, span.timestamp_ms = "abc", 9
    assert store.flush_with_old() == [(((0, 5, "A"), None, 5), b"ab"), (((0, 9, "A"), "abc", 9), None)]
    span.value = "abcd"
    store.touch(span)
    assert store.flush_with_old() == [(((0, 9, "A"), "abcd", 9), b"abc")]


def test_removed_before_it_was_stored_leaves_no_trace() -> None:
    store = opened(MemoryBackend())
    store.remove(store.add("A", 0, 0, "a", 0), 0)
    assert store.flush() == []
    assert store.take_changelog() == []


def test_a_window_may_come_back_after_it_was_removed() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    span = store.add("A", 0, 0, "a", 0)
    commit(backend, store)
    store.remove(span, 1)
    store.add("A", 0, 0, "b", 2)
    assert [change.value for change in store.flush()] == [None, "b"]
    commit(backend, store)
    assert everything(opened(backend)) == {("A", 0, 0): "b"}


def test_sliding_windows_have_the_changelog_of_windows() -> None:
    store = opened(MemoryBackend(), difference_ms=10)
    store.add("A", 1, 11, "a", 3)
    store.flush()
    assert store.take_changelog() == [(b"A\0\0\0\0\0\0\0\1\0\0\0\0", b"a", 3)]
    assert SessionLayout(10).split(b"A\0\0\0\0\0\0\0\1\0\0\0\0") == (b"A", 1, 11)


@pytest.mark.parametrize("max_entries", [100, 0])
def test_closing_is_in_order_of_end_start_and_key(max_entries: int) -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for key, start, end in [("B", 4, 9), ("A", 5, 9), ("A", 20, 30), ("C", 0, 3), ("B", 11, 12)]:
        store.add(key, start, end, f"{key}{start}", end)
    commit(backend, store, max_entries)
    assert store.first_end(0) == 3
    found = [(key, span.start_ms, span.end_ms, span.value) for key, span in store.closing(12)]
    assert found == [("C", 0, 3, "C0"), ("B", 4, 9, "B4"), ("A", 5, 9, "A5")]
    assert [key for key, _ in store.closing(13, from_ms=12)] == ["B"]
    assert store.closing(13, from_ms=13) == []
    assert store.first_end(13) == 30


def test_closing_knows_that_a_window_has_grown() -> None:
    store = opened(MemoryBackend())
    span = store.add("A", 0, 0, "a", 0)
    store.move(span, 0, 8)
    assert store.closing(5) == []
    assert store.closing(9, from_ms=5) == [("A", span)]


def test_keys_with_zero_bytes_and_common_beginnings_are_apart() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    keys = ["", "\0", "\0\0", "\0a", "a", "a\0", "a\0b", "ab"]
    for key in keys:
        store.add(key, 1, 2, key, 2)
    commit(backend, store, 0)
    again = opened(backend)
    assert [key for _, _, key, _ in again.fetch_all(0, 10)] == keys
    assert [[span.value for span in again.load(key)] for key in keys] == [[key] for key in keys]


def test_get_and_fetch_see_cache_and_keyspace() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for start in (0, 10, 20):
        store.add("A", start, start + 5, str(start), start)
    assert list(store.fetch("A", 5, 10)) == [(0, 5, "0"), (10, 15, "10")]
    commit(backend, store, 0)
    assert not store.windows
    assert list(store.fetch("A", 6, 100, reverse=True)) == [(20, 25, "20"), (10, 15, "10")]
    assert store.get("A", 10, 15) == "10"
    assert store.get("A", 10, 16) is None
    assert store.get("B", 10, 15) is None


Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "put", "put", "grow", "remove", "flush", "commit", "settle", "evict", "expire", "abort", "reopen"]
        ),
        st.integers(0, 3),
        st.integers(0, 9),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@settings(max_examples=100, deadline=None)
@given(steps=steps, opaque=st.booleans())
def test_against_a_dict(kind: str, make_place: MakePlace, steps: list[Step], opaque: bool) -> None:
    """Windows that begin every 5 ms and may grow to 4 ms: they never overlap. Restored, the store is the same."""
    place = make_place(kind)
    backend = place.backend
    keys = OpaqueCodec() if opaque else TextCodec()
    store = opened(backend, keys)
    model, committed, expired, committed_expired = Windows(), Windows(), 0, 0
    changelog = ListChangelog()
    for count, (action, k, number) in enumerate(steps):
        key = "k\0" * k
        cache_key = store.cache_key(key)
        spans = {span.start_ms // 5: span for span in store.load(cache_key)}
        span = spans.get(number)
        if action == "put" and number * 5 >= expired:
            _put(store, model, key, span, number * 5, str(count))
        elif action == "grow" and span is not None and span.end_ms < span.start_ms + 4:
            model[key, span.start_ms, span.end_ms + 1] = model.pop((key, span.start_ms, span.end_ms))
            store.move(span, span.start_ms, span.end_ms + 1)
        elif action == "remove" and span is not None:
            del model[key, span.start_ms, span.end_ms]
            store.remove(span, count)
        elif action in ("flush", "expire"):
            store.flush()
        elif action in ("commit", "evict", "reopen"):
            store.flush()
            changelog.commit(store, backend, 2 if action == "evict" else 100)
            committed, committed_expired = dict(model), expired
        elif action == "settle":
            backend.flush()
        elif action == "abort":
            store.discard()
            model, expired = dict(committed), committed_expired
        if action == "reopen":
            backend = place.reopen()
            store = opened(backend, keys)
        if action == "expire":
            expired = max(expired, number * 5)
            store.expire(expired)
            model = {window: value for window, value in model.items() if window[2] >= expired}
        assert everything(store) == model
    other = make_place(kind).backend
    restore(other, "s", store.layout, changelog, expire_before_ms=expired)
    assert everything(opened(other, keys)) == {w: v for w, v in committed.items() if w[2] >= expired}
    due = sorted((end, start, key.encode(), value) for (key, start, end), value in model.items() if end < 60)
    closing = store.closing(60, from_ms=expired)
    assert [(span.end_ms, span.start_ms, key.encode(), span.value) for key, span in closing] == due
    backend.destroy()
    other.destroy()


def _put(
    store: SessionStore[str, str], model: Windows, key: str, span: Span[str] | None, start: int, value: str
) -> None:
    cache_key = store.cache_key(key)
    if span is None:
        store.add(cache_key, start, start, value, start)
        model[key, start, start] = value
    else:
        span.value = value
        model[key, span.start_ms, span.end_ms] = value
        if not span.dirty:
            store.touch(span)


def test_a_rows_index_goes_with_it() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for i in range(20):
        store.add(str(i), i, i, "x", i)
    commit(backend, store, 5)
    store.expire(100)
    commit(backend, store)
    assert list(backend.keyspace("s").range(b"", None)) == []
    assert not store.windows


def test_what_has_expired_is_not_loaded_before_the_commit_either() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for end in (5, 20):
        store.add("A", end, end, "x", end)
    commit(backend, store, 0)
    store.expire(10)
    assert list(store.fetch("A", 0, 100)) == [(20, 20, "x")]
    assert [span.end_ms for span in store.load("A")] == [20]
    commit(backend, store)
    assert everything(opened(backend)) == {("A", 20, 20): "x"}


def test_a_user_may_change_a_value_in_place_after_the_flush() -> None:
    backend = MemoryBackend()
    store = SessionStore("s", backend.keyspace("s"), TextCodec(), ListCodec())
    span = store.add("A", 0, 0, [1], 0)
    store.flush()
    assert span.value is not None
    span.value.append(2)
    writes = WriteSet()
    store.take_writes(writes)
    backend.write(writes)
    store.discard()
    assert [span.value for span in store.load("A")] == [[1]]


def test_the_heaps_do_not_grow_by_evicting_and_loading() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for i in range(10):
        store.add(str(i), 0, 1_000_000, "x", 0)
    for _ in range(500):
        commit(backend, store, 0)
        for i in range(10):
            store.load(str(i))
    assert store.watched < 1_100


def rows(backend: Backend) -> int:
    return sum(1 for _ in backend.keyspace("s").range(b"", None))


def test_what_passes_while_all_is_cached_is_written_nowhere(make_place: MakePlace) -> None:
    place = make_place("rocksdb")
    store, changelog = opened(place.backend), ListChangelog()
    changelog.commit(store, place.backend)
    for i in range(20):
        store.add(str(i), i, i, "x", i)
        store.flush()
        changelog.commit(store, place.backend)
    assert rows(place.backend) == 0
    store.expire(18)
    store.flush()
    changelog.commit(store, place.backend)
    backend = place.reopen()
    assert everything(opened(backend)) == {("18", 18, 18): "x", ("19", 19, 19): "x"}
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 20, 0)
    backend.destroy()


def test_what_was_kept_back_is_written_before_it_may_leave_the_cache(make_place: MakePlace) -> None:
    place = make_place("rocksdb")
    store, changelog = opened(place.backend), ListChangelog()
    for i in range(20):
        store.add(str(i), i, i, "x", i)
        store.flush()
        changelog.commit(store, place.backend, 15)
        assert len(everything(store)) == i + 1
    assert rows(place.backend) >= 2 * 5, "each with its index"
    assert len(store.windows) <= 16
    place.backend.destroy()


def test_a_store_gone_back_to_its_last_commit_has_what_was_kept_back(make_place: MakePlace) -> None:
    place = make_place("rocksdb")
    store, changelog = opened(place.backend), ListChangelog()
    changelog.commit(store, place.backend)
    span = store.add("A", 0, 5, "a", 5)
    store.flush()
    changelog.commit(store, place.backend)
    store.move(span, 0, 9)
    store.flush()
    store.expire(100)
    store.discard()
    assert everything(store) == {("A", 0, 5): "a"}
    place.reopen()
    assert everything(opened(place.backend)) == {("A", 0, 5): "a"}
    place.backend.destroy()


def test_once_all_that_was_on_disk_has_expired_nothing_is_looked_up_there(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend()
    store = opened(backend)
    store.add("A", 5, 5, "x", 5)
    commit(backend, store)
    store = opened(backend)
    store.expire(6)
    commit(backend, store)
    monkeypatch.setattr(backend.keyspace("s"), "range", None)
    assert store.load("B") == []


def test_what_is_kept_back_is_flushed_when_it_is_due(tmp_path: Path) -> None:
    now = [0.0]
    backend = RocksBackend(str(tmp_path / "state"), RocksMemory(), lambda: now[0])
    store, changelog = opened(backend), ListChangelog()
    changelog.commit(store, backend)
    store.add("A", 5, 5, "x", 5)
    store.flush()
    changelog.commit(store, backend)
    assert rows(backend) == 0
    now[0] += FLUSH_SECONDS
    changelog.commit(store, backend)
    assert rows(backend) == 2
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 1, 0)
    backend.destroy()


def test_much_that_is_kept_back_comes_as_a_file_and_what_was_deleted_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = RocksBackend(str(tmp_path / "state"), RocksMemory(), lambda: 0.0)
    store, changelog = opened(backend), ListChangelog()
    span = store.add("zz", 0, 1, "x", 1)
    store.flush()
    changelog.commit(store, backend)
    assert rows(backend) == 2, "the first commit does not know how much the cache may hold"
    store.remove(span, 2)
    for i in range(4):
        store.add(str(i), i, i, "x", i)
    store.flush()
    changelog.commit(store, backend)
    monkeypatch.setattr(rocksdb, "INGEST_ROWS", 8)
    backend.close()
    backend = RocksBackend(str(tmp_path / "state"), RocksMemory(), lambda: 0.0)
    assert everything(opened(backend)) == {(str(i), i, i): "x" for i in range(4)}
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 6, 0)
    backend.destroy()
