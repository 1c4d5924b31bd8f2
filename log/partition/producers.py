"""What one partition knows of the producers that write to it: epochs, sequences, open transactions. Pure.

1. A producer is a producer id. Its epoch never falls: a batch or marker with an older one is refused.
2. A batch's sequence follows the last one's of its producer and epoch; the last five batches are known, so that one
   that is sent again is recognised, and answered as it was the first time. A new epoch begins at sequence 0. A producer
   that is not known here (new, or forgotten) may begin anywhere. A batch without sequence (-1: the coordinator's own,
   for offsets in a transaction) is neither counted nor recognised.
3. A transaction of a producer in this partition begins with its first transactional batch and ends with a marker of the
   same producer; one at a time. `unstable_from` is where the oldest that is open begins.
4. A producer without a transaction is forgotten a day after it was last heard of: by the clock, not by the records'
   times, as a backlog of last year is written today.
5. Everything below `next_offset` is counted in. The same batches give the same states, however they were taken in.

Not here: the files (`producer_snapshot`, `aborted`), when a marker is on disk (`partition`). Kafka's
ProducerStateManager and ProducerAppendInfo.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tailrace.log.codec import BatchHeader
from tailrace.log.errors import FencedError, InvalidError
from tailrace.log.partition.markers import Marker
from tailrace.log.record import TopicPartition
from tailrace.log.topic import INT32_MAX

BATCHES_KEPT: Final = 5  # Kafka's ProducerStateEntry.NUM_BATCHES_TO_RETAIN, and the most a producer has in flight
EXPIRATION_MS: Final = 86_400_000  # Kafka's producer.id.expiration.ms
NONE: Final = -1


class OutOfOrderSequenceError(InvalidError):
    """A batch does not follow the last one of its producer: something between them is missing.

    Attributes: `expected` and `found`, sequences.
    """

    def __init__(self, message: str, *, expected: int, found: int) -> None:
        """`message` is the whole sentence."""
        super().__init__(message)
        self.expected = expected
        self.found = found


class KnownBatch(NamedTuple):
    """A batch that was appended; sequences are -1 where it had none."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp_ms: int  # the largest of its records


class OpenTransaction(NamedTuple):
    """A transaction without its marker. `started_ms`: by the clock; after a restart, when it was last heard of."""

    producer_id: int
    producer_epoch: int
    first_offset: int
    started_ms: int


class AbortedTransaction(NamedTuple):
    """The producer's records from `first_offset` to `last_offset`, its marker, were aborted."""

    producer_id: int
    first_offset: int
    last_offset: int


class ProducerEnd(NamedTuple):
    """Where what is known of a producer stands: the last offset of its last batch, -1 where that is a marker."""

    producer_id: int
    epoch: int
    last_offset: int


class Ended(NamedTuple):
    """A transaction whose marker was just counted in; `last_offset` is the marker's."""

    producer_id: int
    first_offset: int
    last_offset: int
    committed: bool


@dataclass(slots=True)
class ProducerState:
    """One producer; `seen_ms` is when it was last heard of, `first_offset` where its open transaction begins."""

    producer_id: int
    epoch: int
    coordinator_epoch: int = NONE
    seen_ms: int = 0
    first_offset: int = NONE
    started_ms: int = 0
    batches: deque[KnownBatch] = field(default_factory=lambda: deque[KnownBatch](maxlen=BATCHES_KEPT))

    @property
    def last_sequence(self) -> int:
        """Of its last batch under this epoch, -1 where there is none."""
        return self.batches[-1].last_sequence if self.batches else NONE


class Producers:
    """The producers of one partition, guarded by its lock."""

    def __init__(self, tp: TopicPartition, states: Iterable[ProducerState] = (), *, next_offset: int = 0) -> None:
        """`states` as they were before `next_offset`."""
        self.tp = tp
        self.next_offset = next_offset
        self._states = {each.producer_id: each for each in states}
        # In the order in which they began, which is that of their offsets.
        self._open: dict[int, ProducerState] = {}
        for state in sorted(self._states.values(), key=lambda each: each.first_offset):
            if state.first_offset != NONE:
                self._open[state.producer_id] = state

    def __len__(self) -> int:
        return len(self._states)

    @property
    def states(self) -> list[ProducerState]:
        """All of them, by producer id."""
        return [self._states[each] for each in sorted(self._states)]

    @property
    def unstable_from(self) -> int | None:
        """Where the oldest open transaction begins."""
        for state in self._open.values():
            return state.first_offset
        return None

    def open_transactions(self) -> list[OpenTransaction]:
        """Those without a marker, oldest first."""
        return [
            OpenTransaction(each.producer_id, each.epoch, each.first_offset, each.started_ms)
            for each in self._open.values()
        ]

    def ends(self) -> list[ProducerEnd]:
        """Where each producer's last batch stands."""
        return [
            ProducerEnd(each.producer_id, each.epoch, each.batches[-1].last_offset if each.batches else NONE)
            for each in self._states.values()
        ]

    # ---- what may be appended

    def check(self, header: BatchHeader) -> KnownBatch | None:
        """Looks at a batch that is to be appended; returns what it was answered with where it is here already.

        Raises:
            FencedError: a newer epoch of this producer has written here.
            OutOfOrderSequenceError: its sequence is not the next.
            InvalidError: it is not transactional, and its producer has a transaction open here; or it is, without id.
        """
        if header.producer_id < 0:
            if header.transactional:
                raise InvalidError(f"a transactional batch for {self.tp} has no producer id: give it one")
            return None
        state = self._states.get(header.producer_id)
        if state is None:
            return None
        self._check_epoch(state, header.producer_epoch)
        if header.base_sequence >= 0:
            if state.epoch == header.producer_epoch:
                last = following(header.base_sequence, header.last_offset_delta)
                for known in state.batches:
                    if known.base_sequence == header.base_sequence and known.last_sequence == last:
                        return known
            self._check_sequence(state, header)
        if state.first_offset != NONE and not header.transactional:
            raise InvalidError(
                f"producer {header.producer_id} has a transaction open in {self.tp}, and sends a batch outside of it: "
                f"commit or abort first"
            )
        return None

    def check_marker(self, producer_id: int, producer_epoch: int, coordinator_epoch: int) -> None:
        """Looks at a marker that is to be appended.

        Raises:
            FencedError: a newer epoch of the producer has written here, or a newer coordinator.
        """
        state = self._states.get(producer_id)
        if state is not None:
            self._check_epoch(state, producer_epoch)
            if state.coordinator_epoch > coordinator_epoch:
                raise FencedError(
                    f"a transaction coordinator of epoch {coordinator_epoch} ends a transaction of producer "
                    f"{producer_id} in {self.tp}, where one of epoch {state.coordinator_epoch} has been: stop it"
                )

    def _check_epoch(self, state: ProducerState, epoch: int) -> None:
        if epoch < state.epoch:
            raise FencedError(
                f"producer {state.producer_id} writes to {self.tp} with epoch {epoch}, and another has taken its place "
                f"with epoch {state.epoch}: close it"
            )

    def _check_sequence(self, state: ProducerState, header: BatchHeader) -> None:
        last = state.last_sequence if state.epoch == header.producer_epoch else NONE
        expected = 0 if last == NONE else following(last, 1)
        if header.base_sequence != expected:
            raise OutOfOrderSequenceError(
                f"producer {header.producer_id} (epoch {header.producer_epoch}) sends sequence {header.base_sequence} "
                f"to {self.tp}, where {expected} is the next: a batch before it was lost; abort, or make a new "
                f"producer and send again from there",
                expected=expected,
                found=header.base_sequence,
            )

    # ---- what was appended

    def added(self, header: BatchHeader, marker: Marker | None, *, now_ms: int) -> Ended | None:
        """Counts in a batch that stands in the log, whatever its sequence; returns the transaction that it ends.

        `marker` is what it says where it is one. `now_ms` is by the clock.
        """
        self.next_offset = header.next_offset
        if header.producer_id < 0:
            return None
        if header.control:
            return None if marker is None else self._ended(header, marker, now_ms)
        state = self._state(header, now_ms)
        first, last = header.base_sequence, NONE
        if first >= 0:
            last = following(first, header.last_offset_delta)
        state.batches.append(KnownBatch(first, last, header.base_offset, header.last_offset, header.max_timestamp_ms))
        if header.transactional and state.first_offset == NONE:
            state.first_offset, state.started_ms = header.base_offset, now_ms
            self._open[state.producer_id] = state
        return None

    def _state(self, header: BatchHeader, now_ms: int) -> ProducerState:
        state = self._states.get(header.producer_id)
        if state is None:
            state = self._states[header.producer_id] = ProducerState(header.producer_id, header.producer_epoch)
        elif state.epoch != header.producer_epoch:
            state.epoch = header.producer_epoch
            state.batches.clear()
        state.seen_ms = now_ms
        return state

    def _ended(self, header: BatchHeader, marker: Marker, now_ms: int) -> Ended | None:
        state = self._state(header, now_ms)
        state.coordinator_epoch = max(state.coordinator_epoch, marker.coordinator_epoch)
        if self._open.pop(state.producer_id, None) is None:
            return None
        first_offset, state.first_offset = state.first_offset, NONE
        return Ended(state.producer_id, first_offset, header.base_offset, marker.committed)

    def expire(self, now_ms: int) -> None:
        """Forgets who was not heard of for a day and has no transaction open."""
        for state in list(self._states.values()):
            if state.first_offset == NONE and now_ms - state.seen_ms >= EXPIRATION_MS:
                del self._states[state.producer_id]


def following(sequence: int, count: int) -> int:
    """The sequence `count` after another: after 2^31 - 1 comes 0."""
    return (sequence + count) & INT32_MAX
