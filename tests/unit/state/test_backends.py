"""Memory and RocksDB: one set of tests for both, then what only files can do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rocksdict
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.errors import CorruptError, InvalidError
from tailrace.state import checkpoint as checkpoints
from tailrace.state import rocksdb
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.state.store import Keyspace, WriteSet, after
from tailrace.tests.support.places import Place
from tailrace.tests.unit.state.conftest import MakePlace

kinds = pytest.mark.parametrize("kind", ["memory", "rocksdb"])


@pytest.fixture
def rocks(tmp_path: Path) -> Iterator[RocksBackend]:
    backend = RocksBackend(str(tmp_path / "state"), RocksMemory(), lambda: 0.0)
    yield backend
    backend.close()


def row(number: int) -> bytes:
    return b"\x01" + number.to_bytes(4, "big")


def filled(place: Place, count: int, checkpoint: Checkpoint | None = None) -> Keyspace:
    writes = WriteSet()
    for number in range(count):
        writes.of("s").put(row(number), b"v%d" % number)
    writes.of("s").checkpoint = checkpoint
    place.backend.write(writes)
    return place.backend.keyspace("s")


@kinds
def test_reads(kind: str, make_place: MakePlace) -> None:
    keyspace = filled(make_place(kind), 3_000, Checkpoint("id", 7, 1))
    assert keyspace.get(row(5)) == b"v5"
    assert keyspace.get(row(3_000)) is None
    assert keyspace.get_many([row(9), b"\x01", row(2)]) == [b"v9", None, b"v2"]
    assert keyspace.get_many([]) == []
    assert [key for key, _ in keyspace.range(b"", None)] == [row(n) for n in range(3_000)]
    assert [key for key, _ in keyspace.range(row(10), row(2_000))] == [row(n) for n in range(10, 2_000)]
    assert [key for key, _ in keyspace.range(row(10), row(2_000), reverse=True)] == [
        row(n) for n in range(1_999, 9, -1)
    ]
    assert list(keyspace.range(row(9), row(9))) == []
    assert keyspace.first(row(4) + b"\x00", None) == (row(5), b"v5")
    assert keyspace.first(b"", row(4), reverse=True) == (row(3), b"v3")
    assert keyspace.first(b"", None, reverse=True) == (row(2_999), b"v2999")
    assert keyspace.first(row(4) + b"\x00", row(5)) is None
    assert keyspace.first(row(4) + b"\x00", row(5), reverse=True) is None


@kinds
def test_a_commit_replaces_deletes_and_carries_its_checkpoint(kind: str, make_place: MakePlace) -> None:
    place = make_place(kind)
    keyspace = filled(place, 10, Checkpoint("id", 7, 1))
    writes = WriteSet()
    own = writes.of("s")
    own.put(row(2), b"dropped by the range that follows")
    own.delete_range(row(1), row(4))
    own.put(row(3), b"new")
    own.put(row(8), b"a")
    own.delete(row(8))
    own.delete(row(99))
    own.checkpoint = Checkpoint("id", 8, -1)
    place.backend.write(writes)
    assert [key for key, _ in keyspace.range(b"", None)] == [row(n) for n in (0, 3, 4, 5, 6, 7, 9)]
    assert keyspace.get(row(3)) == b"new"
    assert keyspace.checkpoint() == Checkpoint("id", 8, -1)
    place.backend.write(WriteSet())
    backend = place.reopen()
    assert backend.keyspace("s").checkpoint() == Checkpoint("id", 8, -1)
    assert len(list(backend.keyspace("s").range(b"", None))) == 7


@kinds
def test_keyspaces_are_apart_and_clearing_empties_one(kind: str, make_place: MakePlace) -> None:
    place = make_place(kind)
    keyspace = filled(place, 10, Checkpoint("id", 7, 1))
    writes = WriteSet()
    writes.of("other").put(row(1), b"other")
    writes.of("other").checkpoint = Checkpoint("id2", 1, 1)
    place.backend.write(writes)
    assert place.backend.keyspace("s") is keyspace
    keyspace.clear()
    assert list(keyspace.range(b"", None)) == []
    assert keyspace.checkpoint() is None
    filled(place, 1)
    other = place.reopen().keyspace("other")
    assert list(other.range(b"", None)) == [(row(1), b"other")]
    assert other.checkpoint() == Checkpoint("id2", 1, 1)
    assert list(place.backend.keyspace("s").range(b"", None)) == [(row(0), b"v0")]


@kinds
def test_writing_while_a_range_is_read(kind: str, make_place: MakePlace) -> None:
    place = make_place(kind)
    rows = filled(place, 100).range(b"", None)
    assert next(rows)[0] == row(0)
    writes = WriteSet()
    writes.of("s").delete_range(row(0), row(1_000))
    writes.of("s").put(row(2_000), b"new")
    place.backend.write(writes)
    assert all(key <= row(2_000) for key, _ in rows)


keys = st.integers(0, 12).map(row)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.binary(max_size=3)),
        st.tuples(st.just("delete"), keys, st.just(b"")),
        st.tuples(st.just("range"), keys, keys),
        st.tuples(st.just("write"), keys, keys),
        st.tuples(st.just("reopen"), keys, keys),
    ),
    max_size=40,
)


@kinds
@settings(max_examples=40, deadline=None)
@given(operations)
def test_against_a_dict(kind: str, make_place: MakePlace, operations: list[tuple[str, bytes, bytes]]) -> None:
    place = make_place(kind)
    model: dict[bytes, bytes] = {}
    pending = dict(model)
    writes = WriteSet()
    for name, one, two in operations:
        if name == "put":
            writes.of("s").put(one, two)
            pending[one] = two
        elif name == "delete":
            writes.of("s").delete(one)
            pending.pop(one, None)
        elif name == "range":
            writes.of("s").delete_range(one, two)
            pending = {key: value for key, value in pending.items() if not one <= key < two}
        else:
            place.backend.write(writes)
            writes, model = WriteSet(), dict(pending)
            if name == "reopen":
                place.reopen()
        keyspace = place.backend.keyspace("s")
        assert list(keyspace.range(b"", None)) == sorted(model.items())
        found = [(key, value) for key, value in sorted(model.items(), reverse=True) if one <= key < two]
        assert list(keyspace.range(one, two, reverse=True)) == found
        assert keyspace.first(one, None) == next((item for item in sorted(model.items()) if item[0] >= one), None)
    place.backend.destroy()


@kinds
def test_many_rows_are_ingested_with_their_checkpoint(
    kind: str, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rocksdb, "INGEST_ROWS", 4)
    place = make_place(kind)
    filled(place, 10, Checkpoint("id", 7, 1))
    for number, count in enumerate((5, 3, 4, 0)):
        rows: dict[bytes, bytes | None] = {row(n): b"%d" % number for n in range(count, 0, -1)}
        rows[row(9)] = None
        place.backend.ingest("s", rows, Checkpoint("id", 8 + number, 1))
    for again in (False, True):
        keyspace = (place.reopen() if again else place.backend).keyspace("s")
        assert [keyspace.get(row(n)) for n in range(7)] == [b"v0", b"2", b"2", b"2", b"2", b"0", b"v6"]
        assert keyspace.first(b"", None, reverse=True) == (row(8), b"v8")
        assert keyspace.checkpoint() == Checkpoint("id", 11, 1)


def test_after() -> None:
    assert after(b"a") == b"b"
    assert after(b"a\xff\xff") == b"b"
    assert after(b"\xff") is None


def test_checkpoints_of_another_version_are_none() -> None:
    checkpoint = Checkpoint("Zm9v", 1 << 40, -1, 1_700_000_000_000)
    data = checkpoints.encode(checkpoint)
    assert checkpoints.decode(data) == checkpoint
    assert checkpoints.decode(b"\x03" + data[1:]) is None
    assert checkpoints.decode(b"\x02") is None
    assert checkpoints.decode(b"\x01") is None


def test_a_checkpoint_of_version_1_has_no_time() -> None:
    assert checkpoints.decode(b"\x01\xff\xff\xff\xff" + (7).to_bytes(8, "big") + b"Zm9v") == Checkpoint("Zm9v", 7, -1)


def test_a_directory_is_opened_once(rocks: RocksBackend) -> None:
    with pytest.raises(InvalidError, match="open already"):
        RocksBackend(rocks.path, RocksMemory(), lambda: 0.0)


def test_closing_lets_go_of_the_lock(rocks: RocksBackend) -> None:
    keyspace = rocks.keyspace("s")
    writes = WriteSet()
    writes.of("s").put(row(1), b"")
    rocks.write(writes)
    rows = keyspace.range(b"", None)
    next(rows)
    rocks.close()
    rocks.close()
    RocksBackend(rocks.path, RocksMemory(), lambda: 0.0).close()
    with pytest.raises(InvalidError, match="store s was used after"):
        keyspace.get(row(1))
    with pytest.raises(InvalidError, match="used after it had been closed"):
        rocks.keyspace("new")


def test_destroying_leaves_no_file(rocks: RocksBackend) -> None:
    rocks.keyspace("s")
    rocks.destroy()
    assert not Path(rocks.path).exists() or not list(Path(rocks.path).iterdir())
    RocksBackend(rocks.path, RocksMemory(), lambda: 0.0).destroy()


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CorruptError, match=r"holds 'notes.txt'.*another state_dir") as caught:
        RocksBackend(str(tmp_path), RocksMemory(), lambda: 0.0)
    assert caught.value.file == str(tmp_path)
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("raw", [True, False])
def test_another_programs_database_is_refused(raw: bool, tmp_path: Path) -> None:
    options = rocksdict.Options(raw_mode=raw)
    options.create_if_missing(True)
    database = rocksdict.Rdict(str(tmp_path), options)
    database[b"a"] = b"b"
    database.close()
    for _ in range(2):
        with pytest.raises(CorruptError, match="not state that this version wrote"):
            RocksBackend(str(tmp_path), RocksMemory(), lambda: 0.0)


def test_state_of_a_newer_format_is_refused(rocks: RocksBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocksdb, "FORMAT", 2)
    rocks.keyspace("s")
    rocks.close()
    monkeypatch.undo()
    with pytest.raises(CorruptError, match="a store 's' of format 2, and this version knows format 1"):
        RocksBackend(rocks.path, RocksMemory(), lambda: 0.0)


def test_a_damaged_database_says_that_it_may_be_deleted(rocks: RocksBackend) -> None:
    rocks.keyspace("s")
    rocks.close()
    Path(rocks.path, "CURRENT").write_text("MANIFEST")
    with pytest.raises(CorruptError, match="delete it: state is rebuilt from the changelogs"):
        RocksBackend(rocks.path, RocksMemory(), lambda: 0.0)


def test_a_damaged_block_is_an_error_and_not_an_end(rocks: RocksBackend) -> None:
    writes = WriteSet()
    for number in range(5_000):
        writes.of("s").put(row(number), os.urandom(20))
    rocks.write(writes)
    rocks.close()
    table = next(Path(rocks.path).glob("*.sst"))
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 0xFF
    table.write_bytes(data)
    backend = RocksBackend(rocks.path, RocksMemory(), lambda: 0.0)
    for reverse in (False, True):
        with pytest.raises(CorruptError, match="checksum mismatch"):
            list(backend.keyspace("s").range(b"", None, reverse=reverse))
    backend.destroy()


def test_words_of_the_database_are_one_line(rocks: RocksBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cites what it found, line ends and all."""

    def damaged(*_: object, **__: object) -> None:
        raise Exception("Corruption: expected\n  000007.sst,\r\n found 'x'\n")  # noqa: TRY002  # RocksDB has no other

    rocks.keyspace("s")
    monkeypatch.setattr("tailrace.state.rocksdb.Rdict", damaged)
    with pytest.raises(CorruptError) as raised:
        RocksBackend(rocks.path + "-other", RocksMemory(), lambda: 0.0)
    assert "cannot be read (Corruption: expected 000007.sst, found 'x'); delete it" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.found == "Corruption: expected 000007.sst, found 'x'"


def test_a_missing_file_is_told_with_what_to_do(rocks: RocksBackend) -> None:
    rocks.keyspace("s")
    rocks.close()
    next(Path(rocks.path).glob("MANIFEST-*")).unlink()
    with pytest.raises(CorruptError, match=r"MANIFEST-.* delete it: state is rebuilt from the changelogs"):
        RocksBackend(rocks.path, RocksMemory(), lambda: 0.0)


def test_flushed_when_old_or_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    backend = RocksBackend(str(tmp_path), RocksMemory(), lambda: now[0])
    writes = WriteSet()
    writes.of("s").put(row(1), b"")
    backend.write(writes)
    keyspace = backend.keyspace("s")
    now[0] += 29
    backend.flush_if_due()
    assert not keyspace.due()
    now[0] += 1
    assert keyspace.due()
    backend.flush_if_due()
    now[0] += 60
    assert not keyspace.due()
    monkeypatch.setattr(rocksdb, "FLUSH_ROWS", 2)
    backend.write(writes)
    assert not keyspace.due()
    backend.write(writes)
    assert not keyspace.due(), "the second write started the flush"
    backend.close()


KILLED = """
import os, signal, sys, time
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.state.store import WriteSet
backend = RocksBackend(sys.argv[1], RocksMemory(), time.monotonic)
for commit in range(1, 40):
    writes = WriteSet()
    for number in range(1500):
        writes.of("s").put(b"\\x01" + number.to_bytes(4, "big"), b"%d" % commit)
    writes.of("s").checkpoint = Checkpoint("id", commit, 0)
    backend.write(writes)
    if commit == 20:
        backend.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_a_store_that_is_at_most_behind(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    root = Path(rocksdb.__file__).parents[1]
    link = root / ".dev" if (root / ".dev").exists() else root.parent
    environment = {**os.environ, "PYTHONPATH": str(link)}
    killed = subprocess.run([sys.executable, "-c", KILLED, path], env=environment, check=False)
    assert killed.returncode == -9
    backend = RocksBackend(path, RocksMemory(), lambda: 0.0)
    keyspace = backend.keyspace("s")
    checkpoint = keyspace.checkpoint()
    assert checkpoint is not None
    assert checkpoint.offset >= 20
    values = [int(value) for _, value in keyspace.range(b"", None)]
    assert len(values) == 1500
    assert min(values) >= checkpoint.offset
    backend.close()
