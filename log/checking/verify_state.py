"""What `verify` checks of the log's own topics: which topics there are, committed offsets, states of transactions.

1. A record that cannot be read is damage, wherever it stands: opening would refuse the log.
2. Of a whole log that nobody writes, they are compared with the partitions. Damage is what opening refuses, or what
   would have one record taken for another: a partition that is gone with what was on disk, a producer id that will be
   given out again. What opening mends is a note: a folder that no record speaks of, a transaction that is still open.
3. A committed offset past the end of its partition is a note: without syncs (`flush="os"`) a crash may leave one.

A log that Kafka wrote has other records of its topics: they are not looked at. Not here: batches (`verify`), what
partitions say of producers (`verify_producers`).
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tailrace.log.codec import BatchHeader, control_type
from tailrace.log.errors import InvalidError
from tailrace.log.groups.offsets import OffsetTable
from tailrace.log.partition.markers import ABORT, COMMIT
from tailrace.log.partition.producers import OpenTransaction
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.log.topic import CLUSTER_METADATA, CONSUMER_OFFSETS, TRANSACTION_STATE
from tailrace.log.topics.metadata import TopicTable, decode_record
from tailrace.log.transactions.records import decode_key, decode_value
from tailrace.log.transactions.states import Transaction

Found = Callable[[str, int, str, str], None]
_UNREADABLE: Final = (InvalidError, ValueError, IndexError, struct.error)
_NAMED: Final = 5


class Checked(NamedTuple):
    """What was found of a partition by itself."""

    directory: str
    topic_id: str | None
    end: int
    producer_id: int
    """The largest, -1 where there is none."""
    open_transactions: Sequence[OpenTransaction]


class StateCheck:
    """The check of one log; `found` is called with file, byte, expected and found, `note` with a sentence."""

    def __init__(self, *, found: Found, note: Callable[[str], None]) -> None:
        self._found = found
        self._note = note
        self._topics = TopicTable()
        self._ours = False
        self._offsets = OffsetTable()
        self._transactions: dict[str, Transaction] = {}

    @property
    def topics(self) -> int:
        """How many there are."""
        return len(self._topics.records())

    @property
    def offsets(self) -> int:
        """How many were committed, and are to be gone on from."""
        return sum(len(self._offsets.of(group)) for group in self._offsets.groups())

    @property
    def groups(self) -> int:
        """How many have committed offsets."""
        return len(self._offsets.groups())

    @property
    def transactional_ids(self) -> int:
        """How many are known."""
        return len(self._transactions)

    # ------------------------------------------------------------ records

    def took(self, topic: str, path: str, position: int, header: BatchHeader, records: Sequence[RawRecord]) -> None:
        """Takes in a batch with a right CRC; of other topics than the log's own there is nothing to take."""
        take = {
            CLUSTER_METADATA: self._took_metadata,
            CONSUMER_OFFSETS: self._took_offset,
            TRANSACTION_STATE: self._took_transaction,
        }.get(topic)
        if take is None or (header.control and topic != CONSUMER_OFFSETS):
            return
        for record in records:
            try:
                take(header, record)
            except _UNREADABLE as error:
                self._found(path, position, f"a record of {topic} at offset {record.offset}", str(error))

    def _took_metadata(self, header: BatchHeader, record: RawRecord) -> None:
        if header.base_offset == 0 and record.value is not None:
            self._ours = record.value.startswith(b"{")
        if self._ours and record.value is not None:
            self._topics.apply(decode_record(record.value))

    def _took_offset(self, header: BatchHeader, record: RawRecord) -> None:
        if header.control:
            kind = control_type(record)
            if kind in {ABORT, COMMIT}:
                self._offsets.end(header.producer_id, committed=kind == COMMIT)
        else:
            producer_id = header.producer_id if header.transactional else None
            self._offsets.apply_bytes(record.key, record.value, producer_id)

    def _took_transaction(self, _header: BatchHeader, record: RawRecord) -> None:
        transactional_id = decode_key(record.key) if record.key else None
        if transactional_id is None:
            return
        if record.value is None:
            self._transactions.pop(transactional_id, None)
        else:
            self._transactions[transactional_id] = decode_value(transactional_id, record.value)

    # ------------------------------------------------------------ records and partitions

    def compare(self, partitions: Mapping[TopicPartition, Checked], promised: Mapping[TopicPartition, int]) -> None:
        """Compares with all partitions of a log that nobody writes.

        `promised`: the offset below which everything was on disk at the last checkpoint, of those gone, too.
        """
        if not self._ours:
            return
        self._compare_folders(partitions, promised)
        self._compare_offsets(partitions)
        self._compare_transactions(partitions)

    def _compare_folders(
        self, partitions: Mapping[TopicPartition, Checked], promised: Mapping[TopicPartition, int]
    ) -> None:
        ids = {
            TopicPartition(each.name, number): each.topic_id
            for each in self._topics.records()
            for number in range(each.partitions)
        }
        for tp, topic_id in ids.items():
            there = partitions.get(tp)
            if there is not None and there.topic_id in {None, topic_id}:
                continue
            if promised.get(tp, 0) > 0:
                found = "no folder" if there is None else f"a folder of topic id {there.topic_id}"
                expected = f"the partition, with records up to offset {promised[tp] - 1}, of topic id {topic_id}"
                self._found(str(tp), -1, expected, found)
            elif there is None:
                self._note(f"{tp} has no folder: the next opening makes it, as a crash came before that was done")
        for tp, there in partitions.items():
            if tp.topic == CLUSTER_METADATA:
                continue
            if tp not in ids or there.topic_id not in {None, ids[tp]}:
                self._note(f"{there.directory} is of no topic that there is: the next opening removes it")
            if there.producer_id >= self._topics.next_producer_id:
                given_out = f"producer ids below {self._topics.next_producer_id}, which were given out"
                self._found(there.directory, -1, given_out, f"a batch of producer {there.producer_id}")

    def _compare_offsets(self, partitions: Mapping[TopicPartition, Checked]) -> None:
        for group in self._offsets.groups():
            for tp, committed in sorted(self._offsets.of(group).items()):
                there = partitions.get(tp)
                if there is None or tp.topic not in self._topics:
                    self._note(f"group {group!r} has an offset in {tp}, which is gone: the next opening forgets it")
                elif committed.offset > there.end:
                    self._note(
                        f"group {group!r} has committed offset {committed.offset} in {tp}, which ends at {there.end}: "
                        'records that it has read are gone, as a crash takes them with flush="os"'
                    )

    def _compare_transactions(self, partitions: Mapping[TopicPartition, Checked]) -> None:
        open_in: dict[int, list[str]] = {}
        for tp, there in sorted(partitions.items()):
            for each in there.open_transactions:
                open_in.setdefault(each.producer_id, []).append(str(tp))
        for owner in self._transactions.values():
            places = open_in.pop(owner.producer_id, [])
            if places or owner.decided:
                what = f"decided ({owner.state.word})" if owner.decided else "open"
                then = "writes what is missing of it" if owner.decided else "aborts it"
                self._note(
                    f"the transaction of {owner.transactional_id!r} (producer {owner.producer_id}) is {what}, in "
                    f"{_names(places)}: the next opening {then}"
                )
        for producer_id, places in open_in.items():
            self._note(
                f"the transaction of producer {producer_id}, open in {_names(places)}, is of no transactional id that "
                "is known: the next opening aborts it"
            )


def _names(places: Sequence[str]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return (", ".join(places[:_NAMED]) or "no partition any more") + more
