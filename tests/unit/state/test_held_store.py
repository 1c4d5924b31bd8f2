"""What one side of a join keeps: against a dict, through commits, aborts, evictions, expiry and restoring."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state import rocksdb
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.held import held_values, is_matched
from tailrace.state.held_rows import first_from
from tailrace.state.held_store import HeldStore
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.rocksdb import FLUSH_SECONDS, RocksBackend, RocksMemory
from tailrace.state.store import Backend, Codec, WriteSet
from tailrace.tests.support.places import ListChangelog, Place
from tailrace.tests.support.state import OpaqueCodec, TextCodec

MakePlace = Callable[[str], Place]
Kept = tuple[list[bytes], bool]
Records = dict[tuple[str, int], Kept]
TIME_MAX = 10_000


def opened(
    backend: Backend, keys: Codec[str] | None = None, *, retention_ms: int = 1, marks: bool = True
) -> HeldStore[str]:
    return HeldStore("s", backend.keyspace("s"), keys or TextCodec(), marks=marks, retention_ms=retention_ms)


def commit(backend: Backend, store: HeldStore[str], max_entries: int = 100) -> None:
    store.flush()
    writes = WriteSet()
    store.take_writes(writes)
    backend.write(writes)
    store.evict(max_entries)


def kept(store: HeldStore[str]) -> Records:
    return {
        (key, time): (list(held_values(held)), is_matched(held)) for time, key, held in store.fetch_all(0, TIME_MAX)
    }


def mark(store: HeldStore[str], cache_key: Any, time: int) -> bool:
    """Marks what is held at a time, if anything is."""
    rows = store.look(cache_key)
    place = first_from(rows, time)
    if place >= len(rows) or rows[place] != time:
        return False
    store.mark(rows, place)
    return True


Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "put",
                "put",
                "put",
                "put",
                "match",
                "mark",
                "flush",
                "commit",
                "settle",
                "evict",
                "expire",
                "abort",
                "open",
            ]
        ),
        st.integers(0, 3),
        st.integers(0, 40),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@settings(max_examples=100, deadline=None)
@given(steps=steps, opaque=st.booleans(), retention_ms=st.sampled_from([1, 500, 100_000]))
def test_against_a_dict(kind: str, make_place: MakePlace, steps: list[Step], opaque: bool, retention_ms: int) -> None:
    """Slices of 1, 7 and 1562 ms; restored, the store is the same."""
    place = make_place(kind)
    backend = place.backend
    keys = OpaqueCodec() if opaque else TextCodec()
    store = opened(backend, keys, retention_ms=retention_ms)
    model, committed, expired, committed_expired = Records(), Records(), 0, 0
    changelog = ListChangelog()
    for count, (action, k, time) in enumerate(steps):
        key, value = "k\0" * k, str(count).encode()
        if action in ("put", "match") and time >= expired:
            values, matched = model.get((key, time), ([], False))
            store.put(store.cache_key(key), time, value, action == "match")
            model[key, time] = [*values, value], matched or action == "match"
        elif action == "mark" and time >= expired:
            assert mark(store, store.cache_key(key), time) == ((key, time) in model)
            if (key, time) in model:
                model[key, time] = model[key, time][0], True
        elif action in ("commit", "evict", "open"):
            store.flush()
            changelog.commit(store, backend, 2 if action == "evict" else 100)
            committed, committed_expired = dict(model), expired
        elif action == "settle":
            backend.flush()
        elif action == "abort":
            store.discard()
            model, expired = dict(committed), committed_expired
        elif action == "expire":
            expired = max(expired, time)
            store.expire(expired)
            model = {at: each for at, each in model.items() if at[1] >= expired}
        if action in ("flush", "expire"):
            store.flush()
        if action == "open":
            backend = place.reopen()
            store = opened(backend, keys, retention_ms=retention_ms)
            store.expire(expired)
        assert kept(store) == model
    other = make_place(kind).backend
    restore(other, "s", store.layout, changelog, expire_before_ms=expired)
    assert kept(opened(other, keys)) == {at: each for at, each in committed.items() if at[1] >= expired}
    alone = sorted((time, key.encode(), values) for (key, time), (values, matched) in model.items() if not matched)
    closing = store.closing(60, from_ms=expired)
    assert [(time, key.encode(), list(held_values(held))) for time, key, held in closing] == alone
    assert store.closing(60, from_ms=60) == []
    backend.destroy()
    other.destroy()


@settings(max_examples=50, deadline=None)
@given(steps=steps, retention_ms=st.sampled_from([1, 500]))
def test_nothing_is_left_of_what_has_expired(steps: list[Step], retention_ms: int) -> None:
    backend = MemoryBackend()
    store = opened(backend, retention_ms=retention_ms)
    for action, k, time in steps:
        if action in ("put", "match", "mark"):
            store.put(str(k), time, b"v", action == "match")
        elif action in ("commit", "settle", "evict"):
            commit(backend, store, 2 if action == "evict" else 100)
        elif action == "flush":
            store.look(str(k))
    store.expire(100)
    commit(backend, store)
    commit(backend, store)
    assert list(backend.keyspace("s").range(b"\x01", None)) == []
    assert not store.rows
    store.closing(100)
    assert store.watched == 0
    assert store.behind == 0


@pytest.mark.parametrize("max_entries", [100, 0])
def test_closing_is_in_order_of_time_and_key(max_entries: int) -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for key, time, matched in [("B", 9, False), ("A", 9, False), ("A", 30, False), ("C", 3, True), ("B", 12, False)]:
        store.put(key, time, key.encode(), matched)
    commit(backend, store, max_entries)
    assert (store.first_alone(0) or 0) <= 9
    assert [(time, key) for time, key, _ in store.closing(12)] == [(9, "A"), (9, "B")]
    assert [key for _, key, _ in store.closing(13, from_ms=12)] == ["B"]
    assert store.closing(13, from_ms=13) == []
    assert store.first_alone(13) == 30


def test_records_come_in_any_order_and_many_at_one_time() -> None:
    store = opened(MemoryBackend())
    for time in (*range(100, 50, -1), *range(50), 50, 7, 7):
        store.put("A", time, str(time).encode(), False)
    assert [time for time, _, _ in store.fetch_all(0, TIME_MAX)] == list(range(101))
    rows = store.look("A")
    assert [rows[first_from(rows, time)] for time in range(101)] == list(range(101))
    assert first_from(rows, 101) == len(rows)
    assert kept(store)["A", 7] == ([b"7"] * 3, False)


def test_many_records_of_one_time_are_one_changelog_record() -> None:
    store = opened(MemoryBackend())
    for _ in range(5):
        store.put("A", 7, b"x", False)
    store.flush()
    assert len(store.take_changelog()) == 1
    store.put("A", 7, b"x", False)
    assert store.dirty == 1
    store.flush()
    (key, value, time), *more = store.take_changelog()
    assert (key, time, more) == (b"A" + (7).to_bytes(8, "big") + bytes(4), 7, [])
    assert value is not None
    assert value.count(b"x") == 6


def test_what_comes_and_goes_between_two_commits_is_written_nowhere() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    store.put("A", 7, b"x", False)
    store.put("A", 9, b"y", False)
    store.expire(8)
    store.flush()
    assert [time for _, _, time in store.take_changelog()] == [9]
    commit(backend, store, 0)
    assert kept(opened(backend)) == {("A", 9): ([b"y"], False)}


def test_what_expired_and_is_taken_back_is_not_lost_for_keys_that_were_not_cached() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    for key in "ABC":
        store.put(key, 0, b"x", False)
    commit(backend, store, 0)
    store.expire(1)
    store.put("A", 1, b"y", False)
    store.look("B")
    store.discard()
    assert kept(store) == {(key, 0): ([b"x"], False) for key in "ABC"}


def test_keys_with_zero_bytes_and_common_beginnings_are_apart() -> None:
    backend = MemoryBackend()
    store = opened(backend)
    keys = ["", "\0", "\0\0", "\0a", "a", "a\0", "a\0b", "ab"]
    for key in keys:
        store.put(key, 2, key.encode(), False)
    commit(backend, store, 0)
    again = opened(backend)
    assert [key for _, key, _ in again.fetch_all(0, 10)] == keys
    assert [len(again.look(key)) for key in keys] == [3] * len(keys)


def test_where_nobody_asks_for_those_without_a_partner_they_are_not_looked_for() -> None:
    backend = MemoryBackend()
    store = opened(backend, marks=False)
    store.put("A", 7, b"x", False)
    assert store.first_alone(0) is None
    assert store.closing(100) == []
    commit(backend, store)
    assert store.watched == 1, "what is to expire"


def test_what_is_watched_does_not_grow_by_evicting_and_loading() -> None:
    backend = MemoryBackend()
    store = opened(backend, retention_ms=1_000_000)
    for i in range(10):
        store.put(str(i), 1_000_000, b"x", False)
    for _ in range(500):
        commit(backend, store, 0)
        assert not store.rows
        for i in range(10):
            store.look(str(i))
    assert store.watched < 1_100


def rows(backend: Backend) -> int:
    return sum(1 for _ in backend.keyspace("s").range(b"", None))


def test_what_passes_while_all_is_cached_is_written_nowhere(make_place: MakePlace) -> None:
    place = make_place("rocksdb")
    store, changelog = opened(place.backend), ListChangelog()
    changelog.commit(store, place.backend)
    for i in range(20):
        store.put(str(i), i, b"x", False)
        store.flush()
        changelog.commit(store, place.backend)
    assert rows(place.backend) == 0
    assert store.behind == 20
    store.expire(18)
    store.flush()
    changelog.commit(store, place.backend)
    assert store.behind == 2
    backend = place.reopen()
    assert list(kept(opened(backend))) == [("18", 18), ("19", 19)]
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 20, 0)
    backend.destroy()


def test_what_was_kept_back_is_written_before_it_may_leave_the_cache(make_place: MakePlace) -> None:
    place = make_place("rocksdb")
    store, changelog = opened(place.backend), ListChangelog()
    for i in range(20):
        store.put(str(i), i, b"x", False)
        store.flush()
        changelog.commit(store, place.backend, 15)
        assert len(kept(store)) == i + 1
    assert rows(place.backend) >= 2 * 5, "each with its index"
    assert len(store.rows) <= 16
    place.backend.destroy()


def test_what_was_not_committed_is_not_handed_over(make_place: MakePlace) -> None:
    place = make_place("rocksdb")
    store, changelog = opened(place.backend), ListChangelog()
    changelog.commit(store, place.backend)
    store.put("A", 5, b"a", False)
    store.flush()
    changelog.commit(store, place.backend)
    store.put("A", 5, b"b", True)
    store.put("A", 6, b"c", True)
    store.flush()
    store.put("B", 6, b"d", True)
    store.expire(100)
    place.reopen()
    assert kept(opened(place.backend)) == {("A", 5): ([b"a"], False)}
    place.backend.destroy()


def test_once_all_that_was_on_disk_has_expired_nothing_is_looked_up_there(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend()
    store = opened(backend)
    store.put("A", 5, b"x", False)
    commit(backend, store)
    store = opened(backend)
    store.expire(6)
    commit(backend, store)
    monkeypatch.setattr(backend.keyspace("s"), "range", None)
    assert len(store.look("B")) == 1
    store.expire(7)
    commit(backend, store)


def test_what_is_kept_back_is_flushed_when_it_is_due(tmp_path: Path) -> None:
    now = [0.0]
    backend = RocksBackend(str(tmp_path / "state"), RocksMemory(), lambda: now[0])
    store, changelog = opened(backend), ListChangelog()
    changelog.commit(store, backend)
    store.put("A", 5, b"x", False)
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
    store.put("zz", 1, b"x", False)
    store.flush()
    changelog.commit(store, backend)
    assert rows(backend) == 2, "the first commit does not know how much the cache may hold"
    store.expire(2)
    for i in range(2, 6):
        store.put(str(i), i, b"x", False)
    store.flush()
    changelog.commit(store, backend)
    monkeypatch.setattr(rocksdb, "INGEST_ROWS", 8)
    backend.close()
    backend = RocksBackend(str(tmp_path / "state"), RocksMemory(), lambda: 0.0)
    assert list(kept(opened(backend))) == [(str(i), i) for i in range(2, 6)]
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 5, 0)
    backend.destroy()
