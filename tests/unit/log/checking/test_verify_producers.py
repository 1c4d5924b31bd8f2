"""What `verify` says of producers and transactions, and how `dump` shows them."""

from collections.abc import Callable

import pytest

from tailrace.log import codec
from tailrace.log.checking.dump import dump
from tailrace.log.checking.verify import verify
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import InvalidError
from tailrace.log.partition.markers import Marker, encode_marker
from tailrace.log.partition.producer_snapshot import decode_snapshot, encode_snapshot, path_at
from tailrace.log.partition.producers import ProducerState
from tailrace.log.partition.txn_index import AbortedEntry, pack
from tailrace.tests.support.partitions import FOLDER, NOW_MS, opened
from tailrace.tests.support.transactions import ended, sent

LOG, TXN = (f"{FOLDER}/{0:020d}{suffix}" for suffix in (".log", ".txnindex"))


def a_log(disk: MemoryDisk, *, close: bool = True) -> None:
    """Producer 7 aborts offsets 0 to 1 and commits 3; 8 has a transaction open from 5 on."""
    partition = opened(disk)
    partition.append(sent(b"a", b"b", sequence=0))
    ended(partition, committed=False, coordinator=4)
    partition.append(sent(b"c", sequence=2))
    ended(partition, committed=True, coordinator=4)
    partition.append(sent(b"d", producer=8, epoch=2, sequence=0))
    if close:
        partition.close()
    else:
        partition.sync()


def put(disk: MemoryDisk, path: str, data: bytes) -> None:
    file = disk.open(path, write=True)
    file.truncate(0)
    file.append(data)


def damaged(disk: MemoryDisk) -> list[tuple[str, int]]:
    return [(each.file, each.position) for each in verify(disk, FOLDER).damage]


def test_all_is_well_and_counted() -> None:
    disk = MemoryDisk()
    a_log(disk)
    report = verify(disk, FOLDER)
    assert report.damage == []
    assert report.as_json()["transactions"] == {"committed": 1, "aborted": 1, "open": 1}
    (note,) = report.notes
    assert note.startswith(f"{FOLDER} has an open transaction: producer 8, epoch 2, from offset 5 on; committed")


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (sent(b"c", sequence=2), "a batch that is not at offset 3 already"),
        (sent(b"e", sequence=4), "sequence 3 of producer 7, epoch 0"),
        (sent(b"e", producer=8, epoch=1, sequence=0), "no older epoch of producer 8"),
        (
            sent(b"e", producer=8, epoch=2, sequence=1, transactional=False),
            "a batch of the open transaction of producer 8",
        ),
        (encode_marker(8, 1, Marker(committed=True, coordinator_epoch=4), timestamp_ms=NOW_MS), "no older epoch"),
        (encode_marker(7, 0, Marker(committed=True, coordinator_epoch=3), timestamp_ms=NOW_MS), "no older epoch"),
    ],
)
def test_batches_that_a_log_would_have_refused(batch: bytearray, expected: str) -> None:
    disk = MemoryDisk()
    a_log(disk, close=False)
    codec.set_base(batch, 6, 0)
    at = disk.open(LOG, write=True).append(batch)
    (found,) = verify(disk, LOG).damage
    assert (found.file, found.position) == (LOG, at)
    assert found.expected.startswith(expected)


def test_sequences_are_not_judged_where_batches_are_missing() -> None:
    disk = MemoryDisk()
    a_log(disk, close=False)
    batch = sent(b"e", sequence=9)
    codec.set_base(batch, 8, 0)
    disk.open(LOG, write=True).append(batch)
    (damage,) = verify(disk, FOLDER).damage
    assert damage.expected.startswith("offset 6, "), "that they are missing is told, and nothing of sequences"


def test_the_index_of_aborted_transactions() -> None:
    disk = MemoryDisk()
    a_log(disk)
    right = AbortedEntry(7, 0, 2, 3)
    for entries, position in (
        ([], -1),
        ([right, AbortedEntry(7, 3, 4, 5)], 34),  # which was committed
        ([AbortedEntry(8, 0, 2, 3)], 0),
        ([AbortedEntry(7, 1, 2, 3)], 0),
        ([AbortedEntry(7, 0, 2, 4)], 0),  # 3 may be of a transaction that is aborted later
    ):
        put(disk, TXN, pack(entries))
        assert damaged(disk) == [(TXN, position)]
    put(disk, TXN, pack([right]) + b"torn")
    assert damaged(disk) == []
    assert f"{TXN} has 4 bytes behind its last whole entry, at byte 34" in verify(disk, FOLDER).notes
    disk.remove(path_at(FOLDER, 6))
    put(disk, TXN, b"")  # without a snapshot opening makes it anew
    assert damaged(disk) == []


def altered(**changes: int) -> Callable[[ProducerState], None]:
    def alter(state: ProducerState) -> None:
        for name, value in changes.items():
            setattr(state, name, value)

    return alter


def without_batches(state: ProducerState) -> None:
    state.batches.clear()


@pytest.mark.parametrize(
    ("producer", "alter", "wrong"),
    [
        (8, altered(epoch=1), True),
        (8, altered(epoch=3), False),
        (8, altered(first_offset=-1), True),
        (8, altered(first_offset=6), True),
        (7, altered(first_offset=3), True),
        (7, altered(coordinator_epoch=0), False),
        (7, without_batches, True),
        (8, altered(producer_id=9), True),
        (7, altered(producer_id=9), False),  # forgotten, and another whose batches are gone
    ],
)
def test_a_snapshot_that_says_something_else(
    producer: int, alter: Callable[[ProducerState], None], wrong: bool
) -> None:
    disk = MemoryDisk()
    a_log(disk)
    path = path_at(FOLDER, 6)
    file = disk.open(path)
    states = decode_snapshot(file.read(0, file.size))
    alter(next(each for each in states if each.producer_id == producer))
    put(disk, path, encode_snapshot(states))
    assert set(damaged(disk)) == ({(path, -1)} if wrong else set())


def test_a_torn_snapshot_is_a_note() -> None:
    disk = MemoryDisk()
    a_log(disk)
    path = path_at(FOLDER, 6)
    put(disk, path, b"torn")
    report = verify(disk, FOLDER)
    assert report.damage == []
    assert report.notes[0] == (
        f"{path} is torn (4 bytes, where 10 are the least): the next opening reads more of the log instead"
    )
    with pytest.raises(InvalidError, match="is torn, and no snapshot"):
        list(dump(disk, path))


def test_dump_shows_markers_snapshots_and_aborted_ranges() -> None:
    disk = MemoryDisk()
    a_log(disk)
    assert [each.get("marker") for each in dump(disk, FOLDER)] == [
        None,
        {"type": "abort", "coordinator_epoch": 4},
        None,
        {"type": "commit", "coordinator_epoch": 4},
        None,
    ]
    assert list(dump(disk, TXN)) == [
        {"file": TXN, "producer_id": 7, "first_offset": 0, "last_offset": 2, "last_stable_offset": 3}
    ]
    path = path_at(FOLDER, 6)
    assert list(dump(disk, path)) == [
        {
            "file": path,
            "producer_id": 7,
            "producer_epoch": 0,
            "coordinator_epoch": 4,
            "last_sequence": 2,
            "last_offset": 3,
            "first_offset": -1,
            "timestamp_ms": NOW_MS,
        },
        {
            "file": path,
            "producer_id": 8,
            "producer_epoch": 2,
            "coordinator_epoch": -1,
            "last_sequence": 0,
            "last_offset": 5,
            "first_offset": 5,
            "timestamp_ms": NOW_MS,
        },
    ]
