"""The store whose entries vanish: against a dict of times, through commits, evictions and restores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.expiring import ExpiringStore
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.store import Backend, Codec
from tailrace.tests.support.places import ListChangelog
from tailrace.tests.support.state import IntCodec, OpaqueCodec, TextCodec
from tailrace.tests.unit.state.conftest import MakePlace

TTL = 10
Store = ExpiringStore[str, int]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "commit", "reopen"]), st.sampled_from("abc"), st.integers(0, 4)),
    max_size=40,
)


def opened(backend: Backend, keys: Codec[str], now: list[int]) -> Store:
    return ExpiringStore("s", backend.keyspace("s"), keys, IntCodec(), ttl_ms=TTL, now=lambda: now[0])


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("codec", [TextCodec(), OpaqueCodec()])
@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_against_a_dict_of_times(
    kind: str, codec: Codec[str], make_place: MakePlace, operations: list[tuple[str, str, int]]
) -> None:
    place, log, now = make_place(kind), ListChangelog(), [0]
    store = opened(place.backend, codec, now)
    put: dict[str, tuple[int, int]] = {}
    for number, (name, key, argument) in enumerate(operations):
        now[0] += argument
        there = {each: value for each, (value, at) in put.items() if at + TTL > now[0]}
        if name == "put":
            store.put(key, number, now[0])
            put[key] = number, now[0]
        elif name == "delete":
            assert store.delete(key, now[0]) == there.get(key)
            put.pop(key, None)
        else:
            store.expire(now[0])
            store.flush()
            log.commit(store, place.backend, max_entries=argument)
            if name == "reopen":
                store = opened(place.reopen(), codec, now)
        there = {each: value for each, (value, at) in put.items() if at + TTL > now[0]}
        assert list(store.all()) == sorted(there.items())
        assert store.get(key) == there.get(key)
    store.flush()
    log.commit(store, place.backend)
    replica = MemoryBackend()
    restore(replica, "s", store.layout, log)
    assert list(opened(replica, codec, now).all()) == list(store.all())
    for _ in range(2):
        now[0] += TTL
        store.expire(now[0])
        store.flush()
        log.commit(store, place.backend)
    assert list(place.backend.keyspace("s").range(b"\1", None)) == [], "nothing is left, the index included"
    last: dict[bytes, bytes | None] = {row[0]: row[1] for row in log.rows}
    assert not any(last.values())
    place.backend.destroy()
