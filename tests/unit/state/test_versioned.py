"""The versioned store: examples, and against a list of everything that was ever said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.store import Backend, Codec
from tailrace.state.versioned import VersionedStore
from tailrace.tests.support.places import ListChangelog
from tailrace.tests.support.state import IntCodec, OpaqueCodec, TextCodec
from tailrace.tests.unit.state.conftest import MakePlace

Store = VersionedStore[str, int]
HISTORY = 10


class Model:
    """Everything that was said and not refused."""

    def __init__(self) -> None:
        self.said: dict[str, dict[int, int | None]] = {}
        self.now = -1

    def put(self, key: str, value: int | None, time: int) -> bool:
        if time < self.now - HISTORY:
            return False
        self.said.setdefault(key, {})[time] = value
        return True

    def as_of(self, key: str, when: int) -> tuple[int, int, int | None] | None:
        times = sorted(self.said.get(key, {}))
        before = [time for time in times if time <= when]
        if not before:
            return None
        after = [time for time in times if time > when]
        value = self.said[key][before[-1]]
        if value is None or (after and when < self.now - HISTORY):
            return None
        return value, before[-1], after[0] if after else None

    def all(self) -> list[tuple[str, int]]:
        newest = ((key, said[max(said)]) for key, said in sorted(self.said.items()))
        return [(key, value) for key, value in newest if value is not None]


def opened(backend: Backend, model: Model, keys: Codec[str] | None = None) -> Store:
    return VersionedStore(
        "s", backend.keyspace("s"), keys or TextCodec(), IntCodec(), history_ms=HISTORY, now=lambda: model.now
    )


KEYS = st.sampled_from(["", "a", "a\0", "ab", "b"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(-14, 3)),
        st.tuples(st.just("delete"), KEYS, st.integers(-14, 3)),
        st.tuples(st.sampled_from(["flush", "commit", "commit", "reopen"]), KEYS, st.integers(0, 4)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("codec", [TextCodec(), OpaqueCodec()])
@settings(max_examples=50, deadline=None)
@given(OPERATIONS)
def test_against_all_that_was_said(
    kind: str, codec: Codec[str], make_place: MakePlace, operations: list[tuple[str, str, int]]
) -> None:
    place, log, model = make_place(kind), ListChangelog(), Model()
    store = opened(place.backend, model, codec)
    for number, (name, key, argument) in enumerate(operations):
        if name in {"put", "delete"}:
            time = max(2 * number + argument, 0)
            model.now = max(model.now, time)
            value = number if name == "put" else None
            assert store.put(key, value, time) == model.put(key, value, time)
        else:
            store.flush()
            store.expire(model.now - HISTORY)
            if name != "flush":
                log.commit(store, place.backend, max_entries=argument)
            if name == "reopen":
                store = opened(place.reopen(), model, codec)
        check(store, model, key)
    store.flush()
    log.commit(store, place.backend)
    replica = MemoryBackend()
    restore(replica, "s", store.layout, log)
    check(opened(replica, model, codec), model, "a")
    place.backend.destroy()


def check(store: Store, model: Model, key: str) -> None:
    for when in range(max(model.now - 15, 0), model.now + 2):
        assert store.as_of(key, when) == model.as_of(key, when), when
    rows = model.all()
    assert list(store.all()) == rows
    assert list(store.range("a", "ab", reverse=True)) == [row for row in reversed(rows) if "a" <= row[0] <= "ab"]
    assert list(store.prefix("a")) == [row for row in rows if row[0].startswith("a")]


def test_what_no_reading_can_find_leaves_the_store_and_the_changelog() -> None:
    backend, log, model = MemoryBackend(), ListChangelog(), Model()
    store = opened(backend, model)
    for time, value in [(1, 1), (5, 5), (9, None), (40, 40)]:
        model.now = time
        store.put("a", value, time)
        store.put("b", time, time)
        store.flush()
        store.expire(time - HISTORY)
        log.commit(store, backend)
    store.put("a", None, 60)
    for now in (60, 80, 100):
        store.flush()
        store.expire(now - HISTORY)
        log.commit(store, backend)
    rows = [key for key, _ in backend.keyspace("s").range(b"\1", None)]
    assert len(rows) == 1, "the newest value of b; its place in the index is gone too"
    last: dict[bytes, bytes | None] = {key: value for key, value, _ in log.rows}
    assert [value for value in last.values() if value is not None] == [b"\1" + IntCodec().encode(40)]


def test_the_bytes_of_a_version() -> None:
    backend, log, model = MemoryBackend(), ListChangelog(), Model()
    store = opened(backend, model)
    store.put("a\0", 7, 3)
    store.flush()
    log.commit(store, backend)
    assert log.rows == [(b"a\0" + b"\0\0\0\0\0\0\0\3", b"\1\0\0\0\0\0\0\0\7", 3)]
    assert [key for key, _ in backend.keyspace("s").range(b"\1", None)] == [
        b"\1a\0\xff\0\0" + b"\x7f\xff\xff\xff\xff\xff\xff\xfc",
        b"\2" + b"\0\0\0\0\0\0\0\3" + b"a\0",
    ]
