"""One side of a join: how long it keeps a record, and what it says of those without a partner."""

from tailrace.state.held import held_values
from tailrace.state.held_store import HeldStore
from tailrace.state.memory import MemoryBackend
from tailrace.state.store import WriteSet
from tailrace.streams.chain.context import FAR, TaskContext
from tailrace.streams.operators.joining import JoinSide
from tailrace.streams.values.codec import codec_of


def side(context: TaskContext, backend: MemoryBackend, *, marks: bool) -> JoinSide:
    store = HeldStore("s", backend.keyspace("s"), codec_of(str), marks=marks, retention_ms=9)
    alone = str if marks else None
    return JoinSide(context, store, codec_of(str), alone, open_ms=5, retention_ms=9)


def commit(each: JoinSide, backend: MemoryBackend, stream_time_ms: int) -> None:
    each.flush(stream_time_ms)
    writes = WriteSet()
    each.store.take_writes(writes)
    backend.write(writes)
    each.store.evict(0)


def times(each: JoinSide) -> list[int]:
    return [start_ms for start_ms, _, _ in each.store.fetch_all(0, FAR)]


def test_a_record_is_kept_for_its_retention_and_no_longer() -> None:
    backend = MemoryBackend()
    each = side(TaskContext(0, caching=True), backend, marks=False)
    each.keep()("k", 10, b"v", False)
    commit(each, backend, 18)
    assert times(each) == [10]
    commit(each, backend, 19)
    assert times(each) == []
    assert list(backend.keyspace("s").range(b"\x01", None)) == []


def test_what_has_no_partner_is_kept_until_it_was_sent() -> None:
    backend, context = MemoryBackend(), TaskContext(0, caching=True)
    each = side(context, backend, marks=True)
    keep = each.keep()
    keep("b", 10, b"1", False)
    keep("a", 10, b"2", False)
    keep("a", 10, b"3", False)
    keep("c", 11, b"4", True)
    assert context.next_close_ms == 16
    assert each.open_windows(15) == 3
    commit(each, backend, 1_000)
    assert times(each) == [10, 10, 11]
    assert list(each.close(15)) == []
    assert [(time, key, list(held_values(held))) for time, key, held in each.close(16)] == [
        (10, "a", [b"2", b"3"]),
        (10, "b", [b"1"]),
    ]
    assert list(each.close(1_000)) == []
    assert each.next_close() == FAR or each.next_close() > 1_000
    commit(each, backend, 1_000)
    assert times(each) == []


def test_a_restart_sends_nothing_again() -> None:
    backend = MemoryBackend()
    each = side(TaskContext(0, caching=True), backend, marks=True)
    keep = each.keep()
    keep("k", 10, b"1", False)
    keep("k", 11, b"2", False)
    list(each.close(16))
    commit(each, backend, 16)
    context = TaskContext(0, caching=True)
    again = side(context, backend, marks=True)
    again.resume(16)
    assert context.next_close_ms == 17
    assert [time for time, _, _ in again.close(17)] == [11]
