import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.codec import BatchHeader
from tailrace.log.errors import FencedError, InvalidError
from tailrace.log.partition.markers import Marker, decode_marker, encode_marker
from tailrace.log.partition.producers import (
    EXPIRATION_MS,
    AbortedTransaction,
    Ended,
    OpenTransaction,
    OutOfOrderSequenceError,
    Producers,
    following,
)
from tailrace.log.topic import INT32_MAX
from tailrace.tests.support.partitions import NOW_MS, TP
from tailrace.tests.support.transactions import sent

COMMIT, ABORT = Marker(committed=True, coordinator_epoch=3), Marker(committed=False, coordinator_epoch=3)


def header(
    count: int, sequence: int, *, at: int = 0, producer: int = 7, epoch: int = 0, txn: bool = False
) -> BatchHeader:
    batch = sent(*[b"x"] * count, producer=producer, epoch=epoch, sequence=sequence, transactional=txn)
    return BatchHeader.parse(batch)._replace(base_offset=at)


def marker_at(at: int, marker: Marker, *, producer: int = 7, epoch: int = 0) -> BatchHeader:
    return BatchHeader.parse(encode_marker(producer, epoch, marker, timestamp_ms=NOW_MS))._replace(base_offset=at)


def test_a_batch_sent_again_is_recognised_and_a_gap_refused() -> None:
    producers = Producers(TP)
    producers.added(header(3, 0, at=10), None, now_ms=1)
    known = producers.check(header(3, 0))
    assert known is not None
    assert (known.base_offset, known.last_offset) == (10, 12)
    with pytest.raises(OutOfOrderSequenceError, match=r"sends sequence 5 to clicks-0, where 3 is the next") as caught:
        producers.check(header(1, 5))
    assert (caught.value.expected, caught.value.found) == (3, 5)
    assert producers.check(header(1, 3)) is None
    with pytest.raises(OutOfOrderSequenceError):  # a part of one that is known is no duplicate
        producers.check(header(2, 0))


def test_the_last_five_batches_are_known() -> None:
    producers = Producers(TP)
    for number in range(7):
        producers.added(header(1, number, at=number), None, now_ms=1)
    assert [producers.check(header(1, number)) is not None for number in range(2, 7)] == [True] * 5
    with pytest.raises(OutOfOrderSequenceError):
        producers.check(header(1, 1))


def test_sequences_go_on_at_0_after_the_last() -> None:
    producers = Producers(TP)
    producers.added(header(4, INT32_MAX - 1, at=0), None, now_ms=1)  # its records: max - 1, max, 0, 1
    assert producers.states[0].last_sequence == 1
    assert producers.check(header(4, INT32_MAX - 1)) is not None
    assert producers.check(header(1, 2)) is None
    assert [following(INT32_MAX, 0), following(INT32_MAX, 1), following(5, 2)] == [INT32_MAX, 0, 7]


def test_a_new_epoch_begins_at_0_and_fences_the_older() -> None:
    producers = Producers(TP)
    producers.added(header(3, 0, epoch=1), None, now_ms=1)
    with pytest.raises(OutOfOrderSequenceError, match="where 0 is the next"):
        producers.check(header(1, 3, epoch=2))
    assert producers.check(header(1, 0, epoch=2)) is None
    producers.added(header(1, 0, at=3, epoch=2), None, now_ms=1)
    with pytest.raises(FencedError, match=r"with epoch 1, and another has taken its place with epoch 2"):
        producers.check(header(1, 3, epoch=1))
    with pytest.raises(OutOfOrderSequenceError, match="where 1 is the next"):  # those of the old epoch are forgotten
        producers.check(header(3, 0, epoch=2))
    with pytest.raises(FencedError):
        producers.check_marker(7, 1, 5)


def test_a_producer_that_is_not_known_may_begin_anywhere() -> None:
    assert Producers(TP).check(header(1, 17)) is None


def test_batches_without_sequence_are_neither_counted_nor_recognised() -> None:
    producers = Producers(TP)
    for at in range(3):
        assert producers.check(header(1, -1, at=at, txn=True)) is None
        producers.added(header(1, -1, at=at, txn=True), None, now_ms=1)
    assert producers.states[0].last_sequence == -1


def test_a_transaction_begins_with_its_first_batch_and_ends_with_its_marker() -> None:
    producers = Producers(TP)
    producers.added(header(2, 0, at=5, txn=True), None, now_ms=100)
    producers.added(header(1, 0, at=7, producer=8, txn=True), None, now_ms=200)
    producers.added(header(1, 2, at=8, txn=True), None, now_ms=300)
    assert producers.open_transactions() == [OpenTransaction(7, 0, 5, 100), OpenTransaction(8, 0, 7, 200)]
    assert producers.unstable_from == 5
    assert producers.added(marker_at(9, ABORT), ABORT, now_ms=400) == Ended(7, 5, 9, committed=False)
    assert producers.unstable_from == 7
    assert producers.added(marker_at(10, COMMIT, producer=8), COMMIT, now_ms=400) == Ended(8, 7, 10, committed=True)
    assert producers.unstable_from is None
    assert producers.added(marker_at(11, COMMIT), COMMIT, now_ms=400) is None
    assert producers.next_offset == 12
    assert producers.check(header(1, 3, txn=True)) is None  # sequences go on over the marker
    with pytest.raises(FencedError, match="coordinator of epoch 2"):
        producers.check_marker(7, 0, 2)


def test_batches_outside_of_an_open_transaction_are_refused() -> None:
    producers = Producers(TP)
    producers.added(header(1, 0, txn=True), None, now_ms=1)
    with pytest.raises(InvalidError, match="commit or abort first"):
        producers.check(header(1, 1))
    with pytest.raises(InvalidError, match="no producer id"):
        producers.check(header(1, -1, producer=-1, txn=True))


def test_who_is_silent_for_a_day_is_forgotten_but_for_an_open_transaction() -> None:
    producers = Producers(TP)
    producers.added(header(1, 0), None, now_ms=0)
    producers.added(header(1, 0, at=1, producer=8, txn=True), None, now_ms=0)
    producers.added(header(1, 0, at=2, producer=9), None, now_ms=1)
    producers.expire(EXPIRATION_MS)
    assert [each.producer_id for each in producers.states] == [8, 9]


def test_markers_as_bytes() -> None:
    for marker in (COMMIT, ABORT):
        batch = encode_marker(7, 2, marker, timestamp_ms=NOW_MS)
        parsed = BatchHeader.parse(batch)
        assert (parsed.producer_id, parsed.producer_epoch, parsed.base_sequence) == (7, 2, -1)
        assert parsed.control
        assert parsed.transactional
        assert decode_marker(batch) == marker
    assert AbortedTransaction(1, 2, 3).last_offset == 3


@settings(max_examples=100, deadline=None)
@given(sends=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), max_size=30))
def test_against_a_naive_model(sends: list[tuple[int, int]]) -> None:
    """The model keeps every batch that was taken, and looks at the last five."""
    producers, taken, end = Producers(TP), list[tuple[int, int, int]](), 0
    for sequence, count in sends:
        following_one = taken[-1][0] + taken[-1][1] if taken else sequence
        again = [at for first, size, at in taken[-5:] if (first, size) == (sequence, count)]
        try:
            known = producers.check(header(count, sequence))
        except OutOfOrderSequenceError:
            assert not again
            assert sequence != following_one
            continue
        assert (None if known is None else known.base_offset) == (again[0] if again else None)
        if known is None:
            assert sequence == following_one
            producers.added(header(count, sequence, at=end), None, now_ms=1)
            taken.append((sequence, count, end))
            end += count
