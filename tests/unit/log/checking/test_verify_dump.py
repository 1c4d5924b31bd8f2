"""`verify` says everything that is wrong, by file and byte; `dump` shows batches in the contract's shape."""

import json

import pytest

from tailrace.log import checkpoint, codec
from tailrace.log.checking.dump import dump
from tailrace.log.checking.verify import verify
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import CorruptError, InvalidError
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.partitions import FOLDER, NOW_MS, a_batch, opened

BATCH = len(a_batch(b"0"))
LOG, INDEX, TIMES = (f"{FOLDER}/{0:020d}{suffix}" for suffix in (".log", ".index", ".timeindex"))
SECOND = f"{FOLDER}/{20:020d}.log"


def a_log() -> MemoryDisk:
    """Two segments of 20 and 10 batches, closed."""
    disk = MemoryDisk()
    partition = opened(disk, TopicConfig(segment_bytes=20 * BATCH, index_interval_bytes=3 * BATCH))
    for index in range(30):
        partition.append(a_batch(str(index % 10).encode(), timestamp_ms=NOW_MS + index))
    partition.close()
    checkpoint.write_offsets(disk, f"/log/{checkpoint.RECOVERY_POINTS}", {TopicPartition("clicks", 0): 30})
    return disk


def change(disk: MemoryDisk, path: str, position: int, data: bytes) -> None:
    file = disk.open(path, write=True)
    before = file.read(0, file.size)
    file.truncate(0)
    file.append(before[:position] + data + before[position + len(data) :])


def found(disk: MemoryDisk, path: str = "/log") -> list[tuple[str, int]]:
    report = verify(disk, path)
    assert report.ok == (not report.damage)
    json.dumps(report.as_json())
    return [(each.file, each.position) for each in report.damage]


@pytest.mark.parametrize("path", ["/log", FOLDER, LOG])
def test_all_is_well(path: str) -> None:
    told: list[int] = []
    report = verify(a_log(), path, progress=told.append)
    assert report.damage == []
    assert report.notes == []
    count = 20 if path == LOG else 30
    assert (report.partitions, report.batches, report.records, report.bytes) == (1, count, count, count * BATCH)
    assert report.segments == (1 if path == LOG else 2)
    assert report.index_entries >= 8
    assert sum(told) == report.bytes


def test_every_flipped_bit_of_records_is_found_and_the_rest_is_checked() -> None:
    disk = a_log()
    for at in (5, 25):
        path, position = (LOG, at * BATCH) if at < 20 else (SECOND, (at - 20) * BATCH)
        change(disk, path, position + BATCH - 2, b"\xff")
    assert found(disk) == [(LOG, 5 * BATCH), (SECOND, 5 * BATCH)]
    assert str(verify(disk, LOG).damage[0]).startswith(f"{LOG} at byte {5 * BATCH}: expected crc ")


def test_a_broken_chain_of_batches() -> None:
    disk = a_log()
    change(disk, LOG, 7 * BATCH + 16, b"\x07")
    assert (LOG, 7 * BATCH) in found(disk)
    assert "magic 2" in verify(disk, LOG).damage[0].expected


def test_a_leader_epoch_that_its_file_does_not_have_there() -> None:
    """It is outside of the CRC."""
    disk = a_log()
    change(disk, LOG, 19 * BATCH + 15, b"\x07")
    (first, *_) = verify(disk, "/log").damage
    assert (first.file, first.position, first.expected) == (
        LOG,
        19 * BATCH,
        f"leader epoch 0, as {checkpoint.LEADER_EPOCHS} says",
    )
    disk = a_log()
    checkpoint.write_epochs(disk, FOLDER, [checkpoint.EpochEntry(0, 0), checkpoint.EpochEntry(1, 29)])
    assert found(disk) == [(SECOND, 9 * BATCH)]


@pytest.mark.parametrize("at", [0, 3, 9])
def test_a_base_offset_that_was_raised_in_the_active_segment(at: int) -> None:
    """It is outside of the CRC: of the last batch nothing else tells, whatever the topic's cleanup.policy."""
    disk = a_log()
    change(disk, SECOND, at * BATCH, (20 + at + 5).to_bytes(8, "big"))
    (first, *_) = verify(disk, "/log").damage
    if at == 9:
        told = f"{SECOND} at byte {at * BATCH}: expected offset 29, as that is where the log ended, found 34"
        assert str(first) == told
    assert (first.file, first.position // BATCH) == (SECOND, at)
    assert found(disk, SECOND)[0] == (SECOND, at * BATCH)


def test_offsets_that_are_missing_in_the_active_segment_of_a_follower() -> None:
    """It copies what was compacted already; of its last batch that is as good as a base offset that was changed."""
    disk = a_log()
    for at in range(4, 10):
        change(disk, SECOND, at * BATCH, (20 + at + 5).to_bytes(8, "big"))
    assert (SECOND, 4 * BATCH) not in found(disk)
    disk = a_log()
    change(disk, SECOND, 9 * BATCH, (34).to_bytes(8, "big"))
    disk.remove(SECOND.replace(".log", ".timeindex"))
    checkpoint.write_properties(disk, f"/log/{checkpoint.META_PROPERTIES}", {"version": "1", "cluster.id": "A" * 22})
    report = verify(disk, "/log")
    assert report.ok
    (note,) = report.notes
    assert note.startswith(f"{SECOND} has offset 34 at byte {9 * BATCH}, where 29 would follow: it was copied")


@pytest.mark.parametrize(("ours", "damaged"), [({}, False), ({"tailrace.format": "1"}, True)])
def test_ids_are_any_text_in_a_log_of_kafkas(ours: dict[str, str], damaged: bool) -> None:
    """`kafka-storage format --cluster-id production` is taken."""
    disk, file = a_log(), f"/log/{checkpoint.META_PROPERTIES}"
    checkpoint.write_properties(disk, file, {"version": "1", "cluster.id": "production", **ours})
    assert ((file, -1) in found(disk)) == damaged


def test_a_time_index_that_names_an_offset_between_batches() -> None:
    """As of a compacted topic whose last batch has got another base offset."""
    disk = MemoryDisk()
    partition = opened(disk, TopicConfig(segment_bytes=1 << 20))
    for index in range(3):
        partition.append(a_batch(b"0", timestamp_ms=NOW_MS + index))
    partition.close()
    disk.rename(LOG, beside := f"{FOLDER}/beside")
    data = disk.open(beside).read(0, 3 * BATCH)
    disk.remove(beside)
    disk.open(LOG, write=True).append(data[: 2 * BATCH] + (7).to_bytes(8, "big") + data[2 * BATCH + 8 :])
    segment = disk.open(f"{FOLDER}/{8:020d}.log", write=True)  # so that the first one is closed
    segment.append(data[:8].replace(bytes(8), (8).to_bytes(8, "big")) + data[8:BATCH])
    times = {each for each in found(disk) if each[0] == TIMES}
    assert len(times) == 1


def test_a_closed_segment_that_was_cut() -> None:
    disk = a_log()
    disk.open(LOG, write=True).truncate(19 * BATCH + 10)
    assert (LOG, 19 * BATCH) in found(disk)


def test_a_torn_tail_is_a_note() -> None:
    disk = a_log()
    disk.open(SECOND, write=True).append(b"torn")
    report = verify(disk, "/log")
    assert report.ok
    assert report.notes == [
        f"{SECOND} has a torn tail of 4 bytes at byte {10 * BATCH}, after offset 29: the next opening cuts it"
    ]


@pytest.mark.parametrize(("path", "size", "whole"), [(INDEX, 5, 0), (INDEX, 11, 8), (TIMES, 13, 12)])
def test_an_index_cut_short_is_noted_and_rebuilt_at_opening(path: str, size: int, whole: int) -> None:
    disk = a_log()

    disk.open(path, write=True).truncate(size)
    report = verify(disk, "/log")
    assert report.ok
    assert report.notes == [
        f"{path} ends within an entry, at byte {whole}: what is missing is rebuilt from the data at opening"
    ]
    partition = opened(disk, TopicConfig(segment_bytes=20 * BATCH, index_interval_bytes=3 * BATCH))
    assert partition.read(7, 1)[:8] == (7).to_bytes(8, "big")
    assert partition.offset_for_time(NOW_MS + 13) == (13, NOW_MS + 13)
    partition.close()


def test_records_missing_at_the_end() -> None:
    disk = a_log()
    disk.open(SECOND, write=True).truncate(9 * BATCH)
    for path in ("/log", FOLDER, SECOND):
        report = verify(disk, path)
        assert (SECOND, -1) in [(each.file, each.position) for each in report.damage]
    assert all((each.file, each.position) != (SECOND, -1) for each in verify(disk, LOG).damage)


@pytest.mark.parametrize("path", ["/log", FOLDER, SECOND])
def test_a_tail_that_was_cut_below_the_recovery_point_is_damage(path: str) -> None:
    """Opening refuses it: what a checkpoint promised cannot have been torn by a crash."""
    disk = a_log()
    disk.open(SECOND, write=True).truncate(9 * BATCH + 20)
    report = verify(disk, path)
    assert not report.ok
    assert report.notes == []
    assert SECOND in {each.file for each in report.damage}


def test_a_log_of_a_newer_format_is_not_judged() -> None:
    disk = a_log()
    disk.open("/log/meta.properties", write=True).append(b"version=1\ntailrace.format=2\n")
    for path in ("/log", FOLDER, SECOND):
        with pytest.raises(InvalidError, match="format version 2, and this tailrace reads up to 1"):
            verify(disk, path)


def test_properties_that_cannot_be_read_are_damage() -> None:
    disk = a_log()
    disk.open("/log/meta.properties", write=True).append(b"hello")
    assert found(disk) == [("/log/meta.properties", -1)]


@pytest.mark.parametrize(
    ("path", "entry", "data"),
    [
        (INDEX, 1, (9).to_bytes(4, "big") + (7 * BATCH + 1).to_bytes(4, "big")),
        (INDEX, 1, (6).to_bytes(4, "big") + (8 * BATCH).to_bytes(4, "big")),
        (INDEX, 1, (1).to_bytes(4, "big") + (8 * BATCH).to_bytes(4, "big")),
        (TIMES, 1, (NOW_MS + 9).to_bytes(8, "big") + (8).to_bytes(4, "big")),
        (TIMES, 1, (NOW_MS).to_bytes(8, "big") + (8).to_bytes(4, "big")),
        (TIMES, 4, (NOW_MS + 50).to_bytes(8, "big") + (50).to_bytes(4, "big")),
    ],
)
def test_index_entries_that_are_wrong(path: str, entry: int, data: bytes) -> None:
    disk = a_log()
    change(disk, path, entry * len(data), data)
    assert (path, entry * len(data)) in found(disk)


def test_small_files_that_cannot_be_read() -> None:
    disk = a_log()
    change(disk, f"{FOLDER}/leader-epoch-checkpoint", 0, b"?")
    disk.open(f"{FOLDER}/partition.metadata", write=True).append(b"version: 0\ntopic_id: no")
    disk.open(f"/log/{checkpoint.LOG_STARTS}", write=True).append(b"0\n5\n")
    assert found(disk) == [
        (f"/log/{checkpoint.LOG_STARTS}", -1),
        (f"{FOLDER}/leader-epoch-checkpoint", -1),
        (f"{FOLDER}/partition.metadata", -1),
    ]


@pytest.mark.parametrize("path", ["/", "/nothing", "/log/other", "/log/other/file.txt"])
def test_not_a_log(path: str) -> None:
    disk = a_log()
    disk.mkdir("/log/other")
    disk.open("/log/other/file.txt", write=True).append(b"hello")
    with pytest.raises(InvalidError, match="is neither a log's folder"):
        verify(disk, path)
    with pytest.raises(InvalidError, match="is neither a log's folder"):
        list(dump(disk, path))


def test_the_shape_of_a_dump() -> None:
    disk = MemoryDisk()
    partition = opened(disk)
    rows: list[tuple[bytes | None, bytes | None, int, codec.RecordHeaders]] = [
        (b"k", b"text", NOW_MS, [("h", b"x"), ("n", None)]),
        (None, b"\xff\x00", NOW_MS + 1, []),
    ]
    batch = codec.encode(rows, producer_id=7, producer_epoch=1, base_sequence=3, transactional=True)
    partition.append(batch)
    (shown,) = dump(disk, FOLDER)
    assert list(shown.items()) == [
        ("file", LOG),
        ("base_offset", 0),
        ("last_offset", 1),
        ("count", 2),
        ("crc_ok", True),
        ("magic", 2),
        ("compression", "none"),
        ("transactional", True),
        ("control", False),
        ("producer_id", 7),
        ("producer_epoch", 1),
        ("base_sequence", 3),
        ("leader_epoch", 0),
        ("timestamp_type", "CreateTime"),
        ("max_timestamp_ms", NOW_MS + 1),
        ("size_bytes", len(batch)),
        (
            "records",
            [
                {
                    "offset": 0,
                    "timestamp_ms": NOW_MS,
                    "key": "k",
                    "value": "text",
                    "headers": [["h", "x"], ["n", None]],
                },
                {"offset": 1, "timestamp_ms": NOW_MS + 1, "key": None, "value": {"base64": "/wA="}, "headers": []},
            ],
        ),
    ]
    json.dumps(shown)
    (without,) = dump(disk, LOG, records=False)
    assert "records" not in without


def test_a_dump_shows_damage_and_ends_at_it() -> None:
    disk = a_log()
    change(disk, LOG, 6 * BATCH - 1, b"\xff")
    assert [each["crc_ok"] for each in dump(disk, LOG)] == [True] * 5 + [False] + [True] * 14
    assert next(each for each in dump(disk, LOG) if not each["crc_ok"])["records"] == []
    change(disk, LOG, 7 * BATCH + 8, b"\x7f")
    with pytest.raises(CorruptError, match=f"damaged at byte {7 * BATCH}"):
        list(dump(disk, "/log"))
