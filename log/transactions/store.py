"""Where the transaction coordinator reads and writes: `__transaction_state`, the markers, all partitions' disks.

1. A marker in `__consumer_offsets` makes the offsets of its transaction count, or forgets them, in the order of the
   topic.
2. A partition that is gone, as its topic was deleted, is passed over: its records are gone with it.

Not here: when what is written (`transaction_coordinator`).
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from tailrace.log.client import CommittedOffset
from tailrace.log.codec import encode
from tailrace.log.errors import TopicNotFoundError
from tailrace.log.groups.coordinator import Coordinator
from tailrace.log.partition.partition import Appended, Partition
from tailrace.log.partition.producers import OpenTransaction
from tailrace.log.record import TopicPartition
from tailrace.log.topic import CONSUMER_OFFSETS, TRANSACTION_STATE
from tailrace.log.topics.catalog import Catalog
from tailrace.log.topics.served import Topic

STATE_CONFIG: Final = {"cleanup.policy": "compact", "segment.bytes": "104857600"}  # Kafka's for this topic
STATE: Final = TopicPartition(TRANSACTION_STATE, 0)
OFFSETS: Final = TopicPartition(CONSUMER_OFFSETS, 0)


class Writer(Protocol):
    """What appends and syncs, and wakes who waits: the broker."""

    catalog: Catalog
    coordinator: Coordinator

    def append(self, topic: Topic, number: int, batch: bytearray) -> Appended:
        """Appends a batch."""
        ...

    def append_marker(
        self,
        topic: Topic,
        number: int,
        producer_id: int,
        producer_epoch: int,
        *,
        committed: bool,
        coordinator_epoch: int,
    ) -> Appended:
        """Appends a marker."""
        ...

    def sync_all(self, logs: Iterable[Partition]) -> None:
        """Returns when all that was appended to these is on disk."""
        ...

    def read_ahead(self, offsets: Mapping[TopicPartition, int]) -> list[Partition]:
        """The partitions among these that are not on disk up to there."""
        ...

    def offsets_topic(self) -> Topic:
        """`__consumer_offsets`, made where it is missing."""
        ...


class TransactionStore:
    """See the head of this file. `commits` is the lock of the order of `__consumer_offsets`."""

    def __init__(self, writer: Writer, commits: threading.RLock, now_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._commits = commits
        self._now_ms = now_ms

    def append(self, topic: Topic, number: int, batch: bytearray) -> Appended:
        """Appends a user's batch."""
        return self._writer.append(topic, number, batch)

    def _state_topic(self) -> Topic:
        catalog = self._writer.catalog
        found = catalog.find(TRANSACTION_STATE)
        return found or catalog.create_topic(TRANSACTION_STATE, 1, STATE_CONFIG, exist_ok=True, internal=True)

    def append_state(self, key: bytes, value: bytes | None, *, sync: bool) -> None:
        """Appends a record to `__transaction_state`; with `sync` it is on disk when this returns."""
        topic = self._state_topic()
        self._writer.append(topic, 0, encode([(key, value, self._now_ms(), ())]))
        if sync:
            self._writer.sync_all(topic.logs)

    def append_marker(self, tp: TopicPartition, producer_id: int, producer_epoch: int, *, committed: bool) -> None:
        """Ends a producer's transaction in a partition."""
        topic = self._writer.catalog.place(tp.topic)
        if topic is None or tp.partition >= topic.partitions:
            return
        # Kafka's: the epoch of the coordinator is that of the partition which has its state.
        epoch = self._state_topic().logs[0].leader_epoch

        def write() -> None:
            self._writer.append_marker(
                topic, tp.partition, producer_id, producer_epoch, committed=committed, coordinator_epoch=epoch
            )

        try:
            if tp != OFFSETS:
                write()
                return
            with self._commits:
                write()
                self._writer.coordinator.end_transaction(producer_id, committed=committed)
        except TopicNotFoundError:
            pass  # deleted just now

    def append_offsets(
        self,
        producer_id: int,
        producer_epoch: int,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        member: tuple[str, int] | None,
    ) -> None:
        """Appends offsets in a transaction: they count from its marker on.

        The member is looked at under the lock under which whoever takes its partitions over reads the committed
        offsets: so the one finds these pending, or the other finds itself expelled.
        """
        rows = self._writer.coordinator.encoded(group, offsets)
        now_ms = self._now_ms()
        batch = encode(
            [(key, value, now_ms, ()) for key, value in rows],
            transactional=True,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
        )
        topic = self._writer.offsets_topic()
        with self._commits:
            if member is not None:
                self._writer.coordinator.check_member(group, *member)
            self._writer.append(topic, 0, batch)
            self._writer.coordinator.pend(producer_id, group, offsets)

    def sync_partitions(self, partitions: Iterable[TopicPartition], read: Mapping[TopicPartition, int]) -> None:
        """Returns when all that was appended to these is on disk, and what stands before the offsets in `read`."""
        catalog = self._writer.catalog
        found = [(catalog.place(tp.topic), tp.partition) for tp in partitions]
        written = [topic.logs[number] for topic, number in found if topic is not None and number < topic.partitions]
        self._writer.sync_all([*written, *self._writer.read_ahead(read)])

    def open_transactions(self) -> dict[TopicPartition, list[OpenTransaction]]:
        """What stands open in every partition that has any."""
        found = {
            tp: log.open_transactions()
            for topic in self._writer.catalog.topics()
            for tp, log in zip(topic.tps, topic.logs, strict=True)
        }
        return {tp: each for tp, each in found.items() if each}
