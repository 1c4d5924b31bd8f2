"""Kafka's small text files: exact bytes, round trips, refusals, and one step or none at a crash."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import checkpoint
from tailrace.log.checkpoint import EpochEntry
from tailrace.log.disk import MemoryDisk
from tailrace.log.errors import CorruptError, InvalidError
from tailrace.log.record import TopicPartition
from tailrace.tests.support.disk import FaultyDisk, PowerLossError


def disk_with(name: str, data: bytes) -> MemoryDisk:
    disk = MemoryDisk()
    disk.mkdir("/log")
    disk.open(f"/log/{name}", write=True).append(data)
    return disk


def content(disk: MemoryDisk, name: str) -> bytes:
    return checkpoint.read_file(disk, f"/log/{name}") or b""


def test_the_bytes_are_kafkas() -> None:
    disk = disk_with("x", b"")
    checkpoint.write_epochs(disk, "/log", [EpochEntry(0, 0), EpochEntry(2, 11)])
    assert content(disk, "leader-epoch-checkpoint") == b"0\n2\n0 0\n2 11\n"
    path = f"/log/{checkpoint.RECOVERY_POINTS}"
    checkpoint.write_offsets(disk, path, {TopicPartition("b", 0): 7, TopicPartition("a", 1): 0})
    assert content(disk, checkpoint.RECOVERY_POINTS) == b"0\n2\na 1 0\nb 0 7\n"
    checkpoint.write_topic_id(disk, "/log", "2P63MtzYTASmr9ZbB4Mf_Q")
    assert content(disk, "partition.metadata") == b"version: 0\ntopic_id: 2P63MtzYTASmr9ZbB4Mf_Q"
    checkpoint.write_properties(disk, "/log/meta.properties", {"version": "1", "cluster.id": "x=y"})
    assert content(disk, "meta.properties") == b"cluster.id=x=y\nversion=1\n"
    assert checkpoint.read_properties(disk, "/log/meta.properties") == {"version": "1", "cluster.id": "x=y"}
    assert [name for name in disk.list("/log") if name.endswith(checkpoint.TEMPORARY)] == []


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True), st.integers(0, 1000)),
        st.integers(0, 2**62),
        max_size=10,
    )
)
def test_offsets_come_back(rows: dict[tuple[str, int], int]) -> None:
    disk = disk_with("x", b"")
    offsets = {TopicPartition(*tp): offset for tp, offset in rows.items()}
    checkpoint.write_offsets(disk, "/log/offsets", offsets)
    assert checkpoint.read_offsets(disk, "/log/offsets") == offsets


def test_a_missing_file_is_an_empty_one() -> None:
    disk = disk_with("x", b"")
    assert checkpoint.read_epochs(disk, "/log") == []
    assert checkpoint.read_offsets(disk, "/log/nothing") == {}
    assert checkpoint.read_topic_id(disk, "/log") is None
    assert checkpoint.read_properties(disk, "/log/nothing") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected a version in line 1, found 'an empty file'"),
        (b"junk\n", "expected a version in line 1"),
        (b"0\n", "a number of rows"),
        (b"0\n2\n0 0\n", "expected 2 rows, found '1 rows'"),
        (b"0\n1\n0 x\n", "columns with numbers"),
        (b"0\n1\n0\n", "columns with numbers"),
        (b"0\n2\n1 5\n0 9\n", "epoch and offset above 1 5"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data: bytes, words: str) -> None:
    disk = disk_with("leader-epoch-checkpoint", data)
    with pytest.raises(CorruptError, match="/log/leader-epoch-checkpoint cannot be read") as caught:
        checkpoint.read_epochs(disk, "/log")
    assert words in str(caught.value)


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(InvalidError, match="has version 1, and this tailrace knows 0"):
        checkpoint.read_epochs(disk_with("leader-epoch-checkpoint", b"1\n0\n"), "/log")
    with pytest.raises(InvalidError, match="has version 3"):
        checkpoint.read_topic_id(disk_with("partition.metadata", b"version: 3\ntopic_id: x"), "/log")


@pytest.mark.parametrize(
    "text", ["", "short", "!!!!!!!!!!!!!!!!!!!!!!", "2P63MtzYTASmr9ZbB4Mf_é", "2P63MtzYTASmr9ZbB4Mf_Q2P63"]
)
def test_a_topic_id_that_is_none(text: str) -> None:
    with pytest.raises(CorruptError, match="22 characters of base64"):
        checkpoint.read_topic_id(disk_with("partition.metadata", f"version: 0\ntopic_id: {text}".encode()), "/log")


def test_a_crash_leaves_the_old_or_the_new() -> None:
    for seed in range(5):
        stop_after = 1
        while True:
            disk = FaultyDisk(seed * 100 + stop_after)
            disk.mkdir("/log")
            disk.sync_dir("/")
            checkpoint.write_epochs(disk, "/log", [EpochEntry(0, 0)])
            disk.power_loss_after(stop_after)
            done = True
            try:
                checkpoint.write_epochs(disk, "/log", [EpochEntry(1, 5)])
            except PowerLossError:
                done = False
            disk.crash()
            assert checkpoint.read_epochs(disk, "/log") in ([[(1, 5)]] if done else [[(0, 0)], [(1, 5)]])
            if done:
                break
            stop_after += 1
        assert stop_after > 4
