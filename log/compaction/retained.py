"""What a cleaning leaves of transactions: which batches were aborted, which markers are still of use. One cleaning's.

1. Records of an aborted transaction go. What is cleaned ends at or below the last stable offset, so all in it is
   decided, though a marker may stand above.
2. A marker stays while a batch of its transaction is there, even one without records: else that would seem to be open.
   When none is, it gets a delete horizon, and goes when that has passed: a reader that has begun with the records needs
   the marker. The walk that finds this out is from the newest batch back.
3. The last batch of a producer stays, empty if need be, as it has the producer's sequence and epoch; for one that is
   known by a marker alone, that marker.

Not here: keys and tombstones (`compaction`). Kafka's CleanedTransactionMetadata and LogCleaner.
"""

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from tailrace.log.codec import BatchHeader
from tailrace.log.partition.producers import AbortedTransaction, ProducerEnd

_FIRST: Final = attrgetter("first_offset")


class Retained:
    """See the module's docstring."""

    def __init__(self, aborted: Iterable[AbortedTransaction], ends: Iterable[ProducerEnd]) -> None:
        """The aborted transactions in what is cleaned, and where the producers stand."""
        self._aborted: dict[int, list[AbortedTransaction]] = {}
        for each in sorted(aborted, key=_FIRST):
            self._aborted.setdefault(each.producer_id, []).append(each)
        self._ends = {each.producer_id: each for each in ends}
        self._markers: dict[int, int] = {}  # per producer: its marker that was met last
        self._without_data: dict[int, int] = {}  # a marker's offset, and what the caller gave with it

    def is_aborted(self, header: BatchHeader) -> bool:
        """Whether a batch belongs to an aborted transaction."""
        ranges = self._aborted.get(header.producer_id) if header.transactional and not header.control else None
        if ranges is None:
            return False
        at = bisect_right(ranges, header.base_offset, key=_FIRST) - 1
        return at >= 0 and header.base_offset <= ranges[at].last_offset

    def saw(self, header: BatchHeader, place: int) -> None:
        """Takes notice of a transactional batch; from the newest one back. `place` is the caller's own."""
        if header.control:
            self._markers[header.producer_id] = header.base_offset
            if header.record_count and header.delete_horizon_ms is None and not self.is_last(header):
                self._without_data[header.base_offset] = place
        else:
            marker = self._markers.get(header.producer_id)
            if marker is not None:
                self._without_data.pop(marker, None)

    def places(self) -> set[int]:
        """The places of the markers without a delete horizon whose transactions are gone."""
        return set(self._without_data.values())

    def is_without_data(self, header: BatchHeader) -> bool:
        """Whether a marker's transaction is gone, and the marker says nothing of that yet."""
        return header.base_offset in self._without_data

    def is_last(self, header: BatchHeader) -> bool:
        """Whether what is known of a producer stands in this batch."""
        end = self._ends.get(header.producer_id)
        if end is None or header.producer_id < 0:
            return False
        if end.last_offset < 0:
            return header.control and header.producer_epoch == end.epoch
        return not header.control and header.last_offset == end.last_offset
