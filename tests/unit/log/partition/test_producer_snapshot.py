from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.partition.producer_snapshot import decode_snapshot, encode_snapshot, offset_of, path_at
from tailrace.log.partition.producers import KnownBatch, ProducerState
from tailrace.log.partition.txn_index import AbortedEntry, pack, unpack
from tailrace.log.topic import INT32_MAX

SEQUENCES = st.integers(0, INT32_MAX)


def test_kafkas_own_empty_one() -> None:
    """From ../shared/data/kafka_segments."""
    data = bytes.fromhex("000148674bc700000000")
    assert decode_snapshot(data) == []
    assert encode_snapshot([]) == data


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**60), st.integers(0, 2**15 - 1), SEQUENCES, st.integers(0, 500)), max_size=5)
)
def test_there_and_back(producers: list[tuple[int, int, int, int]]) -> None:
    states: list[ProducerState] = []
    for producer, epoch, sequence, delta in producers:
        state = ProducerState(producer, epoch, 3, 99, -1 if delta % 2 else 7, 99)
        state.batches.append(KnownBatch(sequence, (sequence + delta) & INT32_MAX, 1000, 1000 + delta, 99))
        states.append(state)
    assert decode_snapshot(encode_snapshot(states)) == states


def test_a_producer_without_batches_and_one_without_sequence() -> None:
    plain, unsequenced = ProducerState(1, 2, 3, 4, -1, 4), ProducerState(2, 2, 3, 4, 5, 4)
    unsequenced.batches.append(KnownBatch(-1, -1, 5, 6, 4))
    assert decode_snapshot(encode_snapshot([plain, unsequenced])) == [plain, unsequenced]


def test_names() -> None:
    path = path_at("/log/t-0", 42)
    assert path == "/log/t-0/00000000000000000042.snapshot"
    assert offset_of("00000000000000000042.snapshot") == 42
    assert [offset_of(name) for name in ("42.snapshot", "00000000000000000042.log", "x.snapshot")] == [None] * 3


def test_entries_of_aborted_transactions() -> None:
    entries = [AbortedEntry(7, 0, 2, 1), AbortedEntry(8, 1, 9, 10)]
    data = pack(entries)
    assert len(data) == 68
    assert unpack(data) == entries
    assert unpack(data[:-1]) == entries[:1]
    assert unpack(data[:34] + b"\0\1" + data[36:]) == entries[:1]
    assert unpack(data[34:] + data[:34]) == entries[1:]
    assert unpack(bytes(34) + data) == []  # a page that was never written
