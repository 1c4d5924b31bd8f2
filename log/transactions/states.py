"""The life of a transactional id: a table of states and events, and the moves between them. Pure: no disk, no clock.

1. A transaction is decided by one record: once `PrepareCommit` or `PrepareAbort` is on disk, nothing changes the
   decision; what is left to do is to write markers, and that may be done again.
2. `partitions` only grows while a transaction is open, and is what the markers go to once it is decided.
3. (producer id, producer epoch) only rises for an id: whoever holds an older pair is fenced.
4. Every decision takes the next epoch (KIP-890): the markers have it, and so has what the producer writes next. So a
   decided transaction of epoch n owns what its producer wrote under an epoch below n, and nothing else: after a crash
   it cannot be mixed up with the one that followed. Who did not end its transaction itself (time-out, a successor, a
   restart) is not told the new epoch, and is fenced by it.

Kafka's TransactionState and TransactionMetadata, with the two steps of fencing in one. Not here: who is asked and in
which order things reach the disk (`transaction_coordinator`), bytes (`transaction_records`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Literal

from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition

EPOCH_MAX: Final = 2**15 - 2  # the last one of 16 bits is kept for fencing, as in Kafka
TIMEOUT_MS_MAX: Final = 900_000  # Kafka's transaction.max.timeout.ms

Event = Literal["take", "add", "commit", "abort", "marked"]


class TransactionState(IntEnum):
    """Kafka's states, with the numbers that stand in the records: these never change."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def word(self) -> str:
        """Kafka's spelling: `PrepareCommit`."""
        return self.name.title().replace("_", "")


_S = TransactionState
# `take`: a producer begins to use the id. `add`: it is about to write to partitions. `marked`: every marker is on disk.
# Without a line: refused. Nothing can be taken or added while a decision waits for its markers.
TRANSITIONS: Final[dict[tuple[TransactionState, Event], TransactionState]] = {
    (_S.EMPTY, "take"): _S.EMPTY,
    (_S.EMPTY, "add"): _S.ONGOING,
    (_S.ONGOING, "add"): _S.ONGOING,
    (_S.ONGOING, "commit"): _S.PREPARE_COMMIT,
    (_S.ONGOING, "abort"): _S.PREPARE_ABORT,
    (_S.PREPARE_COMMIT, "marked"): _S.COMPLETE_COMMIT,
    (_S.PREPARE_ABORT, "marked"): _S.COMPLETE_ABORT,
    (_S.COMPLETE_COMMIT, "take"): _S.EMPTY,
    (_S.COMPLETE_COMMIT, "add"): _S.ONGOING,
    (_S.COMPLETE_ABORT, "take"): _S.EMPTY,
    (_S.COMPLETE_ABORT, "add"): _S.ONGOING,
}
DECIDED: Final = frozenset({_S.PREPARE_COMMIT, _S.PREPARE_ABORT})


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is known of one transactional id: its producer, and its transaction, the last one or the one that is open.

    `started_ms` is when that one began, -1 before the first; `partitions` is empty once it is complete.
    """

    transactional_id: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    state: TransactionState
    partitions: frozenset[TopicPartition]
    updated_ms: int
    started_ms: int = -1

    @property
    def decided(self) -> bool:
        """Whether it waits for its markers."""
        return self.state in DECIDED

    @property
    def committed(self) -> bool:
        """What its markers say."""
        return self.state in {_S.PREPARE_COMMIT, _S.COMPLETE_COMMIT}

    @property
    def used_up(self) -> bool:
        """Whether its producer id has no epoch left for another transaction: the id must be taken anew."""
        return self.producer_epoch > EPOCH_MAX

    def owns(self, producer_epoch: int) -> bool:
        """Whether what is open in a partition under this epoch belongs to the decision, and not to what came after."""
        return self.decided and producer_epoch < self.producer_epoch

    def _moved(self, event: Event, now_ms: int) -> "Transaction":
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise InvalidError(
                f"the transactional id {self.transactional_id!r} is in state {self.state.word}: {_REFUSED[event]}"
            )
        return replace(self, state=state, updated_ms=now_ms)

    def take(self, timeout_ms: int, now_ms: int, new_producer_id: Callable[[], int]) -> "Transaction":
        """A producer begins to use the id: the next epoch, or another producer id where these are used up."""
        moved = self._moved("take", now_ms)
        producer_id, epoch = self.producer_id, self.producer_epoch + 1
        if epoch > EPOCH_MAX:
            producer_id, epoch = new_producer_id(), 0
        return replace(
            moved,
            producer_id=producer_id,
            producer_epoch=epoch,
            timeout_ms=timeout_ms,
            partitions=frozenset(),
            started_ms=-1,
        )

    def add(self, partitions: Iterable[TopicPartition], now_ms: int) -> "Transaction":
        """The transaction takes in partitions; the first ones begin it."""
        moved = self._moved("add", now_ms)
        if self.state is _S.ONGOING:
            return replace(moved, partitions=self.partitions.union(partitions))
        return replace(moved, partitions=frozenset(partitions), started_ms=now_ms)

    def decide(self, now_ms: int, *, commit: bool) -> "Transaction":
        """It is ended, by its producer or by somebody else; the epoch is that of the markers."""
        return replace(self._moved("commit" if commit else "abort", now_ms), producer_epoch=self.producer_epoch + 1)

    def complete(self, now_ms: int) -> "Transaction":
        """Every marker is on disk."""
        return replace(self._moved("marked", now_ms), partitions=frozenset())


_REFUSED: Final[dict[Event, str]] = {
    "take": "its last transaction must be ended first",
    "add": "its last transaction is decided, commit or abort once more until all of it is written",
    "commit": "there is nothing to commit, send something first",
    "abort": "there is nothing to abort",
    "marked": "nothing was decided",
}


def first_use(transactional_id: str, producer_id: int, timeout_ms: int, now_ms: int) -> Transaction:
    """An id that was never used."""
    return Transaction(transactional_id, producer_id, 0, timeout_ms, _S.EMPTY, frozenset(), now_ms)


def check_transactional(transactional_id: str, timeout_ms: int) -> None:
    """Refuses a user's arguments that could not be kept.

    Raises:
        TypeError, ValueError: a wrong type, an empty or too long id, a time-out that is not 1 to 900,000 ms.
    """
    # The user's arguments, whatever their annotations say.
    if not isinstance(transactional_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"transactional_id is a str, not {type(transactional_id).__name__}")
    if not 1 <= len(transactional_id.encode()) <= 32_767:
        raise ValueError("transactional_id has 1 to 32,767 bytes: give one that stays the same over restarts")
    # The user's, too.
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"transaction_timeout_ms is an int, not {type(timeout_ms).__name__}")
    if not 1 <= timeout_ms <= TIMEOUT_MS_MAX:
        raise ValueError(f"transaction_timeout_ms={timeout_ms}: give 1 to {TIMEOUT_MS_MAX} ms")
