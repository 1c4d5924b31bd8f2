"""The records of `__transaction_state`: what a coordinator knows of each transactional id, as Kafka keeps it.

1. A record holds the whole state of its id, so the last one per id counts, and the topic can be compacted by key; a
   null value forgets the id.
2. Values are written in version 0; 0 and 1 (flexible) are read. A later version is refused: to pass it over could
   leave a transaction undecided for ever.

Format: Kafka's TransactionLogKey version 0 and TransactionLogValue; `transaction-coordinator/src/main/resources/common
/message` of Kafka 4.3.
"""

import struct
from collections.abc import Iterable
from typing import Final

from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.log.transactions.states import Transaction, TransactionState

KEY_VERSION: Final = 0
VALUE_VERSION: Final = 0

_HEAD: Final = struct.Struct(">hqhib")  # version, producer id, producer epoch, time-out, state
_HEAD_1: Final = struct.Struct(">qhib")
_TAIL: Final = struct.Struct(">qq")  # last update, start
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")


def encode_key(transactional_id: str) -> bytes:
    """TransactionLogKey version 0."""
    return _INT16.pack(KEY_VERSION) + _string(transactional_id)


def encode_value(transaction: Transaction) -> bytes:
    """TransactionLogValue version 0."""
    out = bytearray(
        _HEAD.pack(
            VALUE_VERSION,
            transaction.producer_id,
            transaction.producer_epoch,
            transaction.timeout_ms,
            transaction.state,
        )
    )
    if transaction.state is TransactionState.EMPTY:
        out += _INT32.pack(-1)
    else:
        out += _encode_partitions(transaction.partitions)
    out += _TAIL.pack(transaction.updated_ms, transaction.started_ms)
    return bytes(out)


def _encode_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        topics.setdefault(topic, []).append(number)
    out = bytearray(_INT32.pack(len(topics)))
    for topic, numbers in topics.items():
        out += _string(topic)
        out += struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)
    return bytes(out)


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def decode_key(data: bytes) -> str | None:
    """The transactional id; None for a key of another kind."""
    reader = _Reader(data)
    return reader.string() if reader.take(_INT16)[0] == KEY_VERSION else None


def decode_value(transactional_id: str, data: bytes) -> Transaction:
    """The state of an id.

    Raises:
        InvalidError: a version or state that is not known, or bytes that end too early.
    """
    reader = _Reader(data)
    version: int = reader.take(_INT16)[0]
    if version not in {0, 1}:
        raise InvalidError(
            f"the state of transactional id {transactional_id!r} has version {version}, and 0 and 1 are known: use a "
            "later tailrace"
        )
    producer_id, epoch, timeout_ms, state = reader.take(_HEAD_1)
    if state not in set(TransactionState):
        raise InvalidError(f"the transactional id {transactional_id!r} is in state {state}, which is not known")
    partitions = reader.partitions() if version == 0 else reader.compact_partitions()
    updated_ms, started_ms = reader.take(_TAIL)
    # Version 1 goes on with tagged fields: producer ids and epochs of KIP-890, which nothing here needs.
    return Transaction(
        transactional_id, producer_id, epoch, timeout_ms, TransactionState(state), partitions, updated_ms, started_ms
    )


class _Reader:
    """Takes one field after the other; what goes past the end is refused."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        if self._at + form.size > len(self._data):
            raise self._short()
        found = form.unpack_from(self._data, self._at)
        self._at += form.size
        return found

    def _short(self) -> InvalidError:
        return InvalidError(f"a record of a transaction ends after {len(self._data)} bytes, in the middle of a field")

    def _bytes(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise self._short()
        found = self._data[self._at : end]
        self._at = end
        return found

    def string(self) -> str:
        return self._bytes(self.take(_INT16)[0]).decode()

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._bytes(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def partitions(self) -> frozenset[TopicPartition]:
        found: set[TopicPartition] = set()
        for _ in range(self.take(_INT32)[0]):  # -1: none
            topic = self.string()
            found.update(TopicPartition(topic, self.take(_INT32)[0]) for _ in range(self.take(_INT32)[0]))
        return frozenset(found)

    def compact_partitions(self) -> frozenset[TopicPartition]:
        found: set[TopicPartition] = set()
        for _ in range(self._varint() - 1):  # lengths are one more; 0: none
            topic = self._bytes(self._varint() - 1).decode()
            found.update(TopicPartition(topic, self.take(_INT32)[0]) for _ in range(self._varint() - 1))
            self._tags()
        return frozenset(found)

    def _tags(self) -> None:
        for _ in range(self._varint()):
            self._varint()
            self._bytes(self._varint())
