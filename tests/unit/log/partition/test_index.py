"""Sparse indexes against a list of everything."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log import codec
from tailrace.log.codec import BatchHeader
from tailrace.log.partition.index import Indexer, OffsetIndex, TimeIndex
from tailrace.tests.support.partitions import at_times

BATCHES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=3), max_size=40)


def filled(times: list[list[int]], interval: int, base: int = 1000) -> tuple[Indexer, list[tuple[int, BatchHeader]]]:
    """The indexes of a segment with these batches, and all batches with their positions."""
    indexer = Indexer(base, interval)
    placed: list[tuple[int, BatchHeader]] = []
    position, offset = 0, base
    for each in times:
        batch = at_times(*each)
        codec.set_base(batch, offset, 0)
        header = BatchHeader.parse(batch)
        indexer.add(header, position)
        placed.append((position, header))
        position, offset = position + header.size, header.next_offset
    indexer.seal()
    return indexer, placed


@settings(max_examples=80, deadline=None)
@given(times=BATCHES, interval=st.integers(0, 400), wanted=st.integers(0, 60))
def test_scanning_from_the_entry_finds_the_batch(times: list[list[int]], interval: int, wanted: int) -> None:
    indexer, placed = filled(times, interval)
    position = indexer.offsets.position_before(1000 + wanted)
    assert position in {0, *(at for at, _ in placed)}
    passed_over = [header for at, header in placed if at < position]
    assert all(header.last_offset < 1000 + wanted for header in passed_over)
    assert all(after.position - before.position > interval for before, after in pairwise(indexer.offsets))


@settings(max_examples=80, deadline=None)
@given(times=BATCHES, interval=st.integers(0, 400), wanted=st.integers(0, 31))
def test_everything_before_the_time_entry_is_older(times: list[list[int]], interval: int, wanted: int) -> None:
    indexer, placed = filled(times, interval)
    offset = indexer.times.offset_before(wanted)
    position = indexer.offsets.position_before(offset)
    assert all(header.max_timestamp_ms < wanted for at, header in placed if at < position)
    newest = max((each for batch in times for each in batch), default=-1)
    assert indexer.times.last.timestamp_ms == indexer.max_timestamp_ms == newest


@settings(max_examples=80, deadline=None)
@given(times=BATCHES, interval=st.integers(0, 400), tail=st.binary(max_size=40))
def test_a_torn_or_preallocated_end_is_left_out(times: list[list[int]], interval: int, tail: bytes) -> None:
    indexer, _ = filled(times, interval)
    offsets, moments = bytes(indexer.offsets.data), bytes(indexer.times.data)
    zeros = bytes(len(tail))
    assert OffsetIndex(1000, offsets + zeros).data == offsets
    assert bytes(TimeIndex(1000, moments + zeros).data)[: len(moments)] == moments
    for data in (offsets + tail, offsets[: len(tail)]):
        read = OffsetIndex(1000, data)
        assert [each.offset for each in read] == sorted({each.offset for each in read})
    assert TimeIndex(1000, moments + tail).data[: len(moments)] == moments


def test_full_leaves_room_for_the_last_time() -> None:
    indexer, _ = filled([[each] for each in range(4)], 0)
    assert len(indexer.offsets) == 3
    assert indexer.full(3 * 8)
    assert not indexer.full(60)
    assert indexer.full(59)
