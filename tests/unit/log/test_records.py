"""Records of a batch, decoded when they are used."""

import pytest

from tailrace.log import codec
from tailrace.log.codec import BatchHeader
from tailrace.log.records import BatchRecords


def records(count: int, position: int, *, control: bool = False, compression: int = codec.NONE) -> BatchRecords:
    batch = codec.encode([(None, b"%d" % number, number, ()) for number in range(count)], compression)
    codec.set_base(batch, 100, 0)
    if control:
        codec.set_control(batch)
    return BatchRecords(BatchHeader.parse(batch), memoryview(batch), position)


@pytest.mark.parametrize(("position", "first"), [(0, 100), (100, 100), (103, 103), (105, 105)])
def test_they_are_a_sequence_from_the_position_on(position: int, first: int) -> None:
    some = records(5, position)
    offsets = list(range(first, 105))
    assert len(some) == len(offsets)
    for _ in range(2):
        assert [record.offset for record in some] == offsets
    assert [record.offset for record in some[1:3]] == offsets[1:3]
    assert [record.offset for record in some] == offsets
    if offsets:
        assert (some[0].offset, some[-1].offset) == (first, 104)
        assert list(some) == some[:]  # the same objects, once there are any
    assert [record.offset for record in some.start_at(104)] == [104]


def test_markers_are_not_records() -> None:
    assert (len(records(1, 0, control=True)), list(records(1, 0, control=True))) == (0, [])


def test_compaction_leaves_gaps() -> None:
    full = codec.builder()
    for delta in (0, 3, 4):
        full.append(delta, 0, None, b"", [])
    batch = full.build()
    codec.set_base(batch, 100, 0)
    some = BatchRecords(BatchHeader.parse(batch), memoryview(batch), 101)
    assert ([record.offset for record in some], len(some)) == ([103, 104], 2)


@pytest.mark.parametrize("compression", codec.COMPRESSIONS.values())
def test_every_codec_is_walked_from_the_start_and_from_within(compression: int) -> None:
    for position in (100, 102):
        some = records(5, position, compression=compression)
        for _ in range(2):
            assert [record.value for record in some] == [b"%d" % number for number in range(position - 100, 5)]


def test_a_walk_that_has_begun_goes_on() -> None:
    walk = iter(records(3, 0))
    first = next(walk)
    assert [first.offset, *(record.offset for record in walk)] == [100, 101, 102]
