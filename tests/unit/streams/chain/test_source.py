"""How an input takes batches apart."""

from collections.abc import Iterator

from tailrace.log.client import FetchedBatch
from tailrace.log.codec import decode, encode
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.source import Decoding, SourceInput

PARTITION = TopicPartition("t", 0)


class Counted(list[RawRecord]):
    """Records, and how many of them were walked."""

    walked = 0

    def __iter__(self) -> Iterator[RawRecord]:
        for record in super().__iter__():
            self.walked += 1
            yield record


def never(*_: object) -> None:
    raise AssertionError


def test_a_large_batch_is_decoded_a_part_at_a_time() -> None:
    taken: list[int] = []
    source = SourceInput(
        PARTITION, Decoding(bytes, int, None), lambda _key, value, _time_ms: taken.append(value), never, 0
    )
    records = Counted(decode(memoryview(encode([(b"k", b"%d" % number, number, ()) for number in range(2_500)]))))
    context = TaskContext(0, caching=False)
    source.add(FetchedBatch(PARTITION, 0, 2_510, 3, 2_499, records), None)
    assert 0 < records.walked < 2_500
    assert (source.head_ms, source.leader_epoch) == (0, 3)
    while source.head_ms is not None:
        assert source.head_ms == source.position == len(taken)
        source.run(context, 300)
        assert records.walked < len(taken) + 2_000
    assert taken == list(range(2_500))
    assert source.position == 2_510, "behind what compaction left out, and not before the last of them"
    assert source.empty
