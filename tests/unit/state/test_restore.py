"""Restoring: from the checkpoint, or from the beginning where it does not fit, and why."""

import logging
from collections.abc import Iterable
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.record import RawRecord
from tailrace.state import restore as restoring
from tailrace.state.changelog import KeyValueLayout, WindowLayout, pack_int64
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.keyvalue import KeyValueStore
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import Restored, restore
from tailrace.state.store import ROWS, Backend, WriteSet, after
from tailrace.state.window import WindowStore
from tailrace.tests.support.places import ListChangelog
from tailrace.tests.support.state import TextCodec
from tailrace.tests.unit.state.conftest import MakePlace

kinds = pytest.mark.parametrize("kind", ["memory", "rocksdb"])


def changelog(*rows: str) -> ListChangelog:
    """Rows `key=value`, `key` a tombstone."""
    log = ListChangelog()
    for time, row in enumerate(rows):
        key, _, value = row.partition("=")
        log.rows.append((key.encode(), value.encode() or None, time))
    return log


def contents(backend: Backend) -> dict[str, str]:
    return dict(KeyValueStore("s", backend.keyspace("s"), TextCodec(), TextCodec()).all())


@kinds
def test_a_store_is_made_from_its_changelog_and_then_reads_only_what_is_new(kind: str, make_place: MakePlace) -> None:
    place = make_place(kind)
    log = changelog("a=1", "b=1", "a=2", "b", "c=1")
    seen: list[tuple[int, int]] = []
    result = restore(place.backend, "s", KeyValueLayout(), log, progress=lambda done, total: seen.append((done, total)))
    assert result == Restored(5, None)
    assert contents(place.backend) == {"a": "2", "c": "1"}
    assert place.backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 5, 0)
    assert seen == [(0, 5), (5, 5)]
    log.rows += changelog("c", "d=1").rows
    assert restore(place.reopen(), "s", KeyValueLayout(), log) == Restored(2, None)
    assert restore(place.backend, "s", KeyValueLayout(), log) == Restored(0, None)
    assert log.asked == [0, 5]
    assert contents(place.backend) == {"a": "2", "d": "1"}


def test_an_empty_changelog_gives_an_empty_store_with_a_checkpoint() -> None:
    backend = MemoryBackend()
    assert restore(backend, "s", KeyValueLayout(), changelog()) == Restored(0, None)
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 0, -1)


def test_progress_and_checkpoints_go_on_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PIECE_BYTES", 600)
    backend, log = MemoryBackend(), changelog(*(f"k{n}=v" for n in range(10)))
    offsets: list[int | None] = []

    def progress(done: int, total: int) -> None:
        checkpoint = backend.keyspace("s").checkpoint()
        offsets.append(checkpoint.offset if checkpoint else None)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(backend, "s", KeyValueLayout(), log, progress=progress)
    assert offsets == [None, 3, 6]
    assert restore(backend, "s", KeyValueLayout(), log) == Restored(4, None)
    assert len(contents(backend)) == 10


@kinds
@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (Checkpoint("topic-0", 1, 0), "topic id topic-0, and the topic's id is topic-1 now"),
        (Checkpoint("topic-1", 4, 0), "at offset 4, past the end of the changelog at 3"),
        (Checkpoint("topic-1", 3, 5), "at offset 3 of leader epoch 5, which ended at 2"),
        (None, "rows and no checkpoint"),
    ],
)
def test_a_store_that_does_not_fit_is_rebuilt_once_with_a_warning(
    kind: str, checkpoint: Checkpoint | None, reason: str, make_place: MakePlace, caplog: pytest.LogCaptureFixture
) -> None:
    place = make_place(kind)
    writes = WriteSet()
    writes.of("s").put(b"\1stranger", b"\0\0\0\0\0\0\0\0x")
    writes.of("s").checkpoint = checkpoint
    place.backend.write(writes)
    log = changelog("a=1", "b=1", "a=2")
    log.ends[5], log.leader_epoch = 2, 6
    with caplog.at_level(logging.WARNING, "tailrace.state"):
        result = restore(place.backend, "s", KeyValueLayout(), log)
    assert result.records == 3
    assert reason in (result.rebuilt or "")
    assert [record.getMessage() for record in caplog.records] == [
        f"store s is rebuilt from its changelog {log}: {result.rebuilt}"
    ]
    assert contents(place.backend) == {"a": "2", "b": "1"}
    assert restore(place.reopen(), "s", KeyValueLayout(), log) == Restored(0, None)


def test_a_checkpoint_before_the_log_start_goes_on_at_the_start() -> None:
    backend, log = MemoryBackend(), changelog("a=1", "b=1")
    restore(backend, "s", KeyValueLayout(), log)
    log.rows += changelog("c=1", "d=1").rows
    log.start_offset = 3
    assert restore(backend, "s", KeyValueLayout(), log) == Restored(1, None)
    assert contents(backend) == {"a": "1", "b": "1", "d": "1"}


def test_expired_windows_are_left_out() -> None:
    first, log = MemoryBackend(), ListChangelog()
    store = WindowStore("s", first.keyspace("s"), TextCodec(), TextCodec())
    for start in (0, 10, 20):
        store.put(start, "a", str(start), start)
    store.flush()
    log.commit(store, first)
    backend = MemoryBackend()
    assert restore(backend, "s", WindowLayout(), log, expire_before_ms=10).records == 3
    restored = WindowStore("s", backend.keyspace("s"), TextCodec(), TextCodec())
    assert list(restored.fetch_all(0, 100)) == [(10, "a", "10"), (20, "a", "20")]


def test_records_without_a_key_are_no_entries() -> None:
    log = changelog("a=1")
    log.rows.append((None, b"x", 1))  # type: ignore[arg-type]  # what another program may have written
    backend = MemoryBackend()
    assert restore(backend, "s", KeyValueLayout(), log).records == 2
    assert contents(backend) == {"a": "1"}


def pieces_of(monkeypatch: pytest.MonkeyPatch, *rows: str) -> list[int]:
    """How many rows were written together, with pieces of four; batches have three."""
    monkeypatch.setattr(restoring, "PIECE_ROWS", 4)
    backend, written = MemoryBackend(), list[int]()
    ingest = backend.ingest

    def seen(keyspace: str, rows: dict[bytes, bytes | None], checkpoint: Checkpoint) -> None:
        written.append(len(rows))
        ingest(keyspace, rows, checkpoint)

    monkeypatch.setattr(backend, "ingest", seen)
    restore(backend, "s", KeyValueLayout(), changelog(*rows))
    return written


def test_pieces_are_small_where_keys_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pieces_of(monkeypatch, *(f"k{n}=v" for n in range(10))) == [6, 4]


def test_a_piece_goes_on_while_its_keys_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pieces_of(monkeypatch, *(f"k{n % 3}=v" for n in range(20)), *(f"n{n}=v" for n in range(6))) == [9]


def test_values_that_grow_end_a_piece_though_keys_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PIECE_BYTES", 5_000)
    assert pieces_of(monkeypatch, *(f"k{n % 2}={'v' * 900}" for n in range(12))) == [2, 2]


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([None, *(b"k%d" % n for n in range(9))]), st.none() | st.binary(max_size=2)),
        max_size=80,
    ),
    batch_rows=st.integers(1, 7),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 30)),
)
@settings(max_examples=100, deadline=None)
def test_the_last_record_of_a_key_counts_wherever_a_piece_ends_and_whatever_waits(
    rows: list[tuple[bytes | None, bytes | None]], batch_rows: int, sizes: tuple[int, int]
) -> None:
    log, backend = ListChangelog(batch_rows=batch_rows), MemoryBackend()
    log.rows = [(key, value, time) for time, (key, value) in enumerate(rows)]  # type: ignore[misc]  # null keys, as above
    last = {key: (time, value) for time, (key, value) in enumerate(rows) if key is not None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "PIECE_ROWS", sizes[0])
        patch.setattr(restoring, "WAITING_RECORDS", sizes[1])
        assert restore(backend, "s", KeyValueLayout(), log).records == len(rows)
    assert dict(backend.keyspace("s").range(ROWS, after(ROWS))) == {
        ROWS + key: pack_int64(time) + value for key, (time, value) in last.items() if value is not None
    }


class SkippingLayout(KeyValueLayout):
    """As that of a table that is read from its own topic: a record that cannot be read leaves the row as it was."""

    last_decides: ClassVar[bool] = False

    def rows(self, records: Iterable[RawRecord], into: dict[bytes, bytes | None], expire_before_ms: int, /) -> int:
        kept = [record for record in records if record.value != b"bad"]
        super().rows(kept, into, expire_before_ms)
        return len(kept)


@pytest.mark.parametrize("piece_rows", [2, 4, 100])
def test_where_the_last_record_does_not_decide_alone_all_are_read(
    piece_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "PIECE_ROWS", piece_rows)
    backend = MemoryBackend()
    log = changelog("a=1", "b=1", "a=2", "a=bad", "b=2", "b=bad", *["a=bad"] * 9)
    restore(backend, "s", SkippingLayout(), log)
    assert contents(backend) == {"a": "2", "b": "2"}


def test_so_many_records_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "WAITING_RECORDS", 10)
    # Two batches are looked at, two more are over the limit; then it is known that keys repeat.
    assert pieces_of(monkeypatch, *(f"k{n % 4}=v" for n in range(20))) == [4, 4]


def test_pieces_are_as_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "WAITING_RECORDS", 10)
    different, repeated = [f"d{n}=v" for n in range(12)], [f"k{n % 2}=v" for n in range(18)]
    # The second six differ, so the next six records are a piece though they repeat; then twelve are.
    assert pieces_of(monkeypatch, *different, *repeated) == [6, 6, 2, 2]
    # A piece of repeated keys is left to see where they do not repeat any more: the next one is looked at.
    assert pieces_of(monkeypatch, *repeated, *different) == [2, 8, 6]


DAY_MS = 86_400_000


def stale(*, offset: int = 1, written_ms: int = DAY_MS) -> MemoryBackend:
    """A store that has a=1, and stands at an offset."""
    backend, writes = MemoryBackend(), WriteSet()
    writes.of("s").put(b"\1a", b"\0\0\0\0\0\0\0\x001")
    writes.of("s").checkpoint = Checkpoint("topic-1", offset, 0, written_ms)
    backend.write(writes)
    return backend


@pytest.mark.parametrize(
    ("age_ms", "rebuilt"),
    [(0, False), (21 * 3_600_000, False), (DAY_MS, True), (-DAY_MS, True), (-1000, False), (50 * DAY_MS, True)],
)
def test_a_store_that_was_away_as_long_as_deletions_are_kept_is_read_from_the_beginning(
    age_ms: int, rebuilt: bool
) -> None:
    """The deletion of "a" is gone from the changelog, and "a" with it."""
    backend, log = stale(), changelog("b=0", "b=1")
    result = restore(backend, "s", KeyValueLayout(), log, now_ms=DAY_MS + age_ms, deletions_kept_ms=DAY_MS)
    assert (result.rebuilt is not None) is rebuilt
    assert contents(backend) == ({"b": "1"} if rebuilt else {"a": "1", "b": "1"})
    assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 2, 0, DAY_MS + age_ms)


@pytest.mark.parametrize(("markers", "rebuilt"), [({1}, False), ({1, 2}, False), ({2}, True), (set[int](), True)])
def test_one_that_nobody_has_gone_on_with_is_as_good_as_ever(markers: set[int], rebuilt: bool) -> None:
    """Markers alone were written since: that of its own last commit, and those of transactions that had nothing."""
    backend, log = stale(), changelog("a=1", *["a=2"] * max(markers, default=1))
    log.markers = markers
    result = restore(backend, "s", KeyValueLayout(), log, now_ms=9 * DAY_MS, deletions_kept_ms=DAY_MS)
    assert (result.rebuilt is not None) is rebuilt


def test_what_has_expired_and_was_deleted_is_not_asked_for() -> None:
    log = changelog("x=1", "x=2", "x=3")
    log.start_offset, log.markers = 2, {2}
    restore(stale(), "s", KeyValueLayout(), log, now_ms=9 * DAY_MS, deletions_kept_ms=DAY_MS)
    assert log.asked == [2, 2]


def test_a_restore_that_is_broken_off_is_as_old_as_what_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PIECE_BYTES", 600)
    rows = [f"k{n}=v" for n in range(10)]

    def progress(done: int, _total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    for backend, begun_ms in ((stale(), DAY_MS), (MemoryBackend(), DAY_MS + 7)):
        log = changelog(*rows)
        with pytest.raises(KeyboardInterrupt):
            restore(backend, "s", KeyValueLayout(), log, now_ms=DAY_MS + 7, deletions_kept_ms=DAY_MS, progress=progress)
        checkpoint = backend.keyspace("s").checkpoint()
        assert checkpoint is not None
        assert checkpoint.written_ms == begun_ms
        log.rows += changelog("more=1").rows
        restore(backend, "s", KeyValueLayout(), log, now_ms=DAY_MS + 9, deletions_kept_ms=DAY_MS)
        assert backend.keyspace("s").checkpoint() == Checkpoint("topic-1", 11, 0, DAY_MS + 9)
