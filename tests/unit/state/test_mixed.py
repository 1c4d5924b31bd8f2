"""Stores of one task in two places: each write goes to its own, and only what is elsewhere survives."""

from tailrace.state.checkpoint import Checkpoint
from tailrace.state.memory import MemoryBackend
from tailrace.state.mixed import MixedBackend
from tailrace.state.store import WriteSet


def test_each_store_is_where_it_belongs() -> None:
    disk = MemoryBackend()
    backend = MixedBackend(disk, {"fast"})
    writes = WriteSet()
    for name in ("fast", "kept"):
        writes.of(name).put(b"\x01k", name.encode())
        writes.of(name).checkpoint = Checkpoint("id", 3, 0)
    backend.write(writes)
    backend.ingest("fast", {b"\x01i": b"1"}, Checkpoint("id", 4, 0))
    backend.ingest("kept", {b"\x01i": b"2"}, Checkpoint("id", 5, 0))
    assert set(disk.keyspaces) == {"kept"}
    assert backend.keyspace("fast").get(b"\x01k") == b"fast"
    assert disk.keyspace("kept").get_many([b"\x01k", b"\x01i"]) == [b"kept", b"2"]
    checkpoints = [backend.keyspace(name).checkpoint() for name in ("fast", "kept")]
    assert checkpoints == [Checkpoint("id", 4, 0), Checkpoint("id", 5, 0)]
    backend.flush()
    backend.flush_if_due()
    backend.close()

    again = MixedBackend(disk, {"fast"})
    assert again.keyspace("fast").checkpoint() is None
    assert again.keyspace("kept").get(b"\x01k") == b"kept"
    again.destroy()
    assert disk.keyspaces == {}
