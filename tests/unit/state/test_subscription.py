"""The store of a foreign-key join against a plain dict, across commits, restores and dropped changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.store import Backend
from tailrace.state.subscription import SubscriptionStore
from tailrace.tests.support.places import ListChangelog
from tailrace.tests.unit.state.conftest import MakePlace

keys = st.sampled_from([b"", b"a", b"ab", b"b", b"\xff"])
puts = st.tuples(st.just("put"), keys, keys, st.one_of(st.none(), st.binary(max_size=2)))
steps = st.one_of(puts, st.tuples(st.sampled_from(["commit", "discard", "restore"])))
Model = dict[tuple[bytes, bytes], tuple[bytes, int]]


def opened(backend: Backend) -> SubscriptionStore:
    return SubscriptionStore("s", backend.keyspace("s"))


def of(model: Model, refers_to: bytes) -> list[tuple[bytes, bytes, int]]:
    return sorted((key, *kept) for (to, key), kept in model.items() if to == refers_to)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=40))
def test_it_is_a_dict_by_what_is_referred_to(history: list[tuple[str, bytes, bytes, bytes | None]]) -> None:
    backend, log = MemoryBackend(), ListChangelog()
    store = opened(backend)
    model: Model = {}
    committed: Model = {}
    for at, step in enumerate(history):
        if step[0] == "put":
            _, to, key, value = step
            store.put(to, key, value, at)
            model = {each: kept for each, kept in model.items() if each != (to, key)}
            model |= {} if value is None else {(to, key): (value, at)}
        elif step[0] == "discard":
            store.discard()
            model = dict(committed)
        else:
            store.flush()
            assert store.dirty == 0
            log.commit(store, backend)
            committed = dict(model)
            if step[0] == "restore":
                backend = MemoryBackend()
                restore(backend, "s", SubscriptionStore.layout, log, expire_before_ms=0)
                store = opened(backend)
        for to in (b"", b"a", b"ab", b"b", b"\xff"):
            assert list(store.of(to)) == of(model, to)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_it_is_the_same_on_every_backend(make_place: MakePlace, kind: str) -> None:
    place, log = make_place(kind), ListChangelog()
    backend = place.backend
    store = opened(backend)
    store.put(b"a", b"1", b"x", 5)
    store.put(b"ab", b"2", b"y", 6)
    store.put(b"a", b"3", b"z", 7)
    log.commit(store, backend)
    store.put(b"a", b"1", None, 8)
    store.put(b"a", b"0", b"w", 9)
    assert list(store.of(b"a")) == [(b"0", b"w", 9), (b"3", b"z", 7)]
    assert log.rows[0] == (b"\0\0\0\1a1", b"x", 5)
