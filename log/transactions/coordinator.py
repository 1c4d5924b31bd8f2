"""The transactions of one log: who holds a transactional id, what is open, and how it ends, crash or not.

1. Order of a commit: all its data is on disk, and what its offsets say was read; then the decision (`PrepareCommit`),
   then the markers; then the caller has its answer. `CompleteCommit` follows without a sync. An abort is the same
   without the first step.
2. What is decided is carried out: by whoever asks next for the id, by the timer, or at the next opening.
3. One producer at a time holds an id. Taking it over aborts what the older one has open, and fences it.
4. No batch of a transaction is appended but under the lock of its id: none can come after the decision.
5. At opening nothing stays open: its producers lived in the process that is gone.

The record that says which partitions a transaction has (`Ongoing`) may be lost in a crash: what is open is read from
the partitions themselves, and told from what was decided by its epoch (`transactions`, 4).
Locks: that of an id comes after a producer's and before everything else of the broker (see `broker`). Not here: the
moves (`transactions`), bytes (`transaction_records`), files and waking (`broker`).
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from tailrace.log.client import CommittedOffset
from tailrace.log.clock import Clock
from tailrace.log.errors import FencedError, InvalidError, OverdueError, TailraceError
from tailrace.log.partition.partition import Appended
from tailrace.log.partition.producers import OpenTransaction
from tailrace.log.record import TopicPartition
from tailrace.log.timers import Timers
from tailrace.log.topic import CONSUMER_OFFSETS
from tailrace.log.topics.served import Topic
from tailrace.log.transactions.records import decode_key, decode_value, encode_key, encode_value
from tailrace.log.transactions.states import Transaction, TransactionState, first_use

logger = logging.getLogger(__name__)

OFFSETS: Final = TopicPartition(CONSUMER_OFFSETS, 0)
NAMED: Final = 5  # partitions in a warning
RETRY_S: Final = 10.0  # Kafka's transaction.abort.timed.out.transaction.cleanup.interval.ms
EXPIRATION_MS: Final = 604_800_000  # Kafka's transactional.id.expiration.ms: 7 days without use


class Identity(NamedTuple):
    """What a producer shows with everything it asks for. Another one after each transaction."""

    transactional_id: str
    producer_id: int
    producer_epoch: int


class Places(Protocol):
    """Where a coordinator writes."""

    def append(self, topic: Topic, number: int, batch: bytearray) -> Appended:
        """Appends a user's batch."""
        ...

    def append_state(self, key: bytes, value: bytes | None, *, sync: bool) -> None:
        """Appends a record to `__transaction_state`; with `sync` it is on disk when this returns."""
        ...

    def append_marker(self, tp: TopicPartition, producer_id: int, producer_epoch: int, *, committed: bool) -> None:
        """Ends a producer's transaction in a partition; one that is gone is passed over."""
        ...

    def append_offsets(
        self,
        producer_id: int,
        producer_epoch: int,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        member: tuple[str, int] | None,
    ) -> None:
        """Appends a group's offsets to `__consumer_offsets`, in the producer's transaction, if `member` is one yet."""
        ...

    def sync_partitions(self, partitions: Iterable[TopicPartition], read: Mapping[TopicPartition, int]) -> None:
        """Returns when all that was appended to these is on disk, and what stands before the offsets in `read`."""
        ...


@dataclass(slots=True)
class _Entry:
    """One transactional id. `lock` guards all of it, and the order of its records."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    transaction: Transaction | None = None
    marked: set[TopicPartition] = field(default_factory=set[TopicPartition])  # have the marker of what is decided
    read: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])  # as its offsets say
    ended: tuple[Identity, bool] | None = None  # what its holder asked for: it may ask again until it has the answer
    deadline: float | None = None  # by the monotonic clock: when it is aborted, or what is decided is tried again
    warn_at: float | None = None  # half-way to the deadline: its readers wait, and somebody should know
    fenced: str = ""  # how the last holder lost it
    overdue: Identity | None = None  # who lost it by a time-out, while nobody else has it


class TransactionCoordinator:
    """See the head of this file. Any thread may call."""

    def __init__(self, clock: Clock, timers: Timers, places: Places, new_producer_id: Callable[[], int]) -> None:
        self._clock = clock
        self._timers = timers
        self._places = places
        self._new_producer_id = new_producer_id
        self._lock = threading.Lock()  # the table and the timer; nothing is waited for under it
        self._entries: dict[str, _Entry] = {}
        self._strays: dict[TopicPartition, list[OpenTransaction]] = {}
        self._armed_at: float | None = None

    # -- opening -------------------------------------------------------------------------------------------------------

    def load(self, key: bytes | None, value: bytes | None) -> None:
        """Takes in the next record of `__transaction_state`, at opening."""
        transactional_id = decode_key(key) if key else None
        if transactional_id is None:
            return
        if value is None:
            self._entries.pop(transactional_id, None)
        else:
            self._entry(transactional_id).transaction = decode_value(transactional_id, value)

    def recover(self, found: Mapping[TopicPartition, Sequence[OpenTransaction]]) -> None:
        """Ends all that a crash, or a process that did not close, has left open; `found` is what partitions have.

        What finds no room on the disk is tried again later; until then its readers wait.
        """
        owners = {each.transaction.producer_id: each for each in self._entries.values() if each.transaction is not None}
        held: dict[int, dict[TopicPartition, int]] = {}
        for tp, transactions in found.items():
            for each in transactions:
                if each.producer_id in owners:
                    held.setdefault(each.producer_id, {})[tp] = each.producer_epoch
                else:
                    self._strays.setdefault(tp, []).append(each)
        for producer_id, entry in owners.items():
            self._recover_entry(entry, held.get(producer_id, {}))
        self._end_strays()
        self._forget_unused()

    def _recover_entry(self, entry: _Entry, held: Mapping[TopicPartition, int]) -> None:
        transaction = entry.transaction
        assert transaction is not None
        if transaction.decided:
            ours = {tp for tp, epoch in held.items() if transaction.owns(epoch)}
            entry.marked = set(transaction.partitions) - ours  # those have it already
            self._try_to_settle(entry, "its process ended")
        later = [tp for tp, epoch in held.items() if not transaction.owns(epoch)]
        if entry.transaction is None or entry.transaction.decided:
            return  # tried again later, after the strays that it held up
        if later:
            entry.transaction = entry.transaction.add(later, self._clock.now_ms())
        self._try_to_settle(entry, "its process ended")

    def _end_strays(self) -> None:
        """Aborts what no record speaks of: the id was used for the first time, and a crash took that."""
        try:
            for tp, transactions in self._strays.items():
                for each in transactions:
                    logger.warning("%s: aborting a transaction of producer %d, whom no record knows", tp, each[0])
                    self._places.append_marker(tp, each.producer_id, each.producer_epoch + 1, committed=False)
            self._places.sync_partitions(self._strays, {})
            self._strays = {}
        except (OSError, TailraceError) as error:
            logger.warning("open transactions in %s are aborted later: %s", ", ".join(map(str, self._strays)), error)
            self._arm(self._clock.monotonic() + RETRY_S)

    def _forget_unused(self) -> None:
        """Ids that nobody has used for a week: names that are made anew at each start would add up."""
        now_ms = self._clock.now_ms()
        for transactional_id, entry in list(self._entries.items()):
            found = entry.transaction
            if found is not None and found.state is not TransactionState.ONGOING and not found.decided:
                if now_ms - found.updated_ms < EXPIRATION_MS:
                    continue
                try:
                    self._places.append_state(encode_key(transactional_id), None, sync=False)
                except (OSError, TailraceError):
                    return  # some other time
                del self._entries[transactional_id]

    # -- a producer's steps --------------------------------------------------------------------------------------------

    def take(self, transactional_id: str, timeout_ms: int, holder: str) -> Identity:
        """Gives an id to a producer: what its last holder has open is aborted, and that one is fenced.

        `holder` is how the new one is called when the older one is told.
        """
        entry = self._entry(transactional_id)
        with entry.lock:
            now_ms = self._clock.now_ms()
            if entry.transaction is None:
                made = first_use(transactional_id, self._new_producer_id(), timeout_ms, now_ms)
            else:
                self._settle(entry, f"taken over by {holder}")
                made = entry.transaction.take(timeout_ms, now_ms, self._new_producer_id)
            self._store(entry, made, sync=True)
            entry.fenced, entry.ended, entry.overdue = f"taken over by {holder}", None, None
            return _identity(made)

    def check(self, who: Identity) -> None:
        """Whether a producer holds its id still.

        Raises:
            FencedError: no; with who took it, or why it was lost.
            OverdueError: it was lost by a time-out, and nobody has taken it.
        """
        with self._entry(who.transactional_id).lock:
            self._held(who)

    def _held(self, who: Identity) -> tuple[_Entry, Transaction]:
        entry = self._entry(who.transactional_id)
        found = entry.transaction
        if entry.ended is not None and entry.ended[0] == who:
            word = "commit" if entry.ended[1] else "abort"
            raise InvalidError(
                f"the transaction of {who.transactional_id!r} is decided, if not all of it is written: {word} once more"
            )
        if found is None or (found.producer_id, found.producer_epoch) != who[1:]:
            if entry.overdue == who:
                raise OverdueError(
                    f"the transaction of {who.transactional_id!r} was {entry.fenced}: this producer (id "
                    f"{who.producer_id}, epoch {who.producer_epoch}) can only be closed; make another with "
                    "log.producer(transactional_id=…) and do it again"
                )
            raise FencedError(
                f"the transactional id {who.transactional_id!r} was {entry.fenced or 'taken away'}: this producer "
                f"(id {who.producer_id}, epoch {who.producer_epoch}) can only be closed"
            )
        return entry, found

    def add(self, who: Identity, partitions: Sequence[TopicPartition]) -> None:
        """The transaction is going to write to these, too; the first ones begin it.

        Raises:
            FencedError, InvalidError: the id is another's; its last transaction is not ended.
        """
        with self._entry(who.transactional_id).lock:
            entry, found = self._held(who)
            if found.state is TransactionState.ONGOING and found.partitions.issuperset(partitions):
                return
            made = found.add(partitions, self._clock.now_ms())
            self._store(entry, made, sync=False)
            entry.ended = None
            if found.state is not TransactionState.ONGOING:
                now, timeout_s = self._clock.monotonic(), made.timeout_ms / 1000
                entry.deadline, entry.warn_at = now + timeout_s, now + timeout_s / 2
                self._arm(entry.warn_at)

    def append(self, who: Identity, topic: Topic, number: int, batch: bytearray) -> Appended:
        """Appends a batch of the transaction."""
        with self._entry(who.transactional_id).lock:
            self.add(who, (topic.places[number],))
            return self._places.append(topic, number, batch)

    def append_offsets(
        self,
        who: Identity,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        member: tuple[str, int] | None = None,
    ) -> None:
        """Appends a group's offsets in the transaction: they count when it is committed.

        Raises:
            ExpelledError: `member` (id and generation) is no member of the group, or of an older generation.
            FencedError: the producer's place is taken.
        """
        entry = self._entry(who.transactional_id)
        with entry.lock:
            self.add(who, (OFFSETS,))
            self._places.append_offsets(who.producer_id, who.producer_epoch, group, offsets, member)
            entry.read.update({tp: each.offset for tp, each in offsets.items()})

    def end(self, who: Identity, *, commit: bool) -> Identity:
        """Ends the transaction; returns what the producer goes on with. Everything is on disk then.

        Where this raises before the decision, the transaction is as it was; after it (`decided`), ask again: it goes
        on where it stopped.

        Raises:
            FencedError: the id is another's.
            OverdueError: the transaction was aborted after its time-out.
            InvalidError: there is nothing to end, or it was decided otherwise.
            RetriableError: no room on the disk.
        """
        entry = self._entry(who.transactional_id)
        with entry.lock:
            if entry.ended != (who, commit):
                _, found = self._held(who)
                if not commit and found.state is not TransactionState.ONGOING:
                    return who  # its first write has failed
                decided = found.decide(self._clock.now_ms(), commit=commit)
                if commit:
                    self._places.sync_partitions(found.partitions, entry.read)
                self._store(entry, decided, sync=True)
                entry.ended = (who, commit)
            self._finish(entry)
            assert entry.transaction is not None
            if entry.transaction.used_up:
                fresh = entry.transaction.take(
                    entry.transaction.timeout_ms, self._clock.now_ms(), self._new_producer_id
                )
                self._store(entry, fresh, sync=True)
            return _identity(entry.transaction)

    def decided(self, who: Identity) -> bool | None:
        """What this producer's last `end` has decided, though it may have raised: True for commit; None: nothing."""
        ended = self._entry(who.transactional_id).ended
        return ended[1] if ended is not None and ended[0] == who else None

    # -- ending --------------------------------------------------------------------------------------------------------

    def _settle(self, entry: _Entry, why: str, *, overdue: bool = False) -> None:
        """Aborts what is open, and carries out what is decided."""
        found = entry.transaction
        assert found is not None
        if found.state is TransactionState.ONGOING:
            logger.warning(
                "the transaction of %r in %d partitions, open for %.1f s, is aborted: %s",
                found.transactional_id,
                len(found.partitions),
                (self._clock.now_ms() - found.started_ms) / 1000,
                why,
            )
            self._store(entry, found.decide(self._clock.now_ms(), commit=False), sync=True)
            entry.fenced, entry.ended, entry.overdue = why, None, _identity(found) if overdue else None
        self._finish(entry)

    def _finish(self, entry: _Entry) -> None:
        """Writes the markers of what is decided, those that are not there yet, and says that it is complete."""
        found = entry.transaction
        assert found is not None
        if not found.decided:
            return
        entry.deadline, entry.warn_at = self._clock.monotonic() + RETRY_S, None  # should the disk refuse
        try:
            for tp in sorted(found.partitions - entry.marked):
                self._places.append_marker(tp, found.producer_id, found.producer_epoch, committed=found.committed)
                entry.marked.add(tp)
            self._places.sync_partitions(found.partitions, {})
            self._store(entry, found.complete(self._clock.now_ms()), sync=False)
        except BaseException:
            self._arm(entry.deadline)
            raise
        entry.marked, entry.deadline, entry.read = set(), None, {}

    def _store(self, entry: _Entry, made: Transaction, *, sync: bool) -> None:
        """Memory follows the disk: what could not be written has not happened."""
        self._places.append_state(encode_key(made.transactional_id), encode_value(made), sync=sync)
        entry.transaction = made

    # -- time ----------------------------------------------------------------------------------------------------------

    def end_overdue(self) -> list[str]:
        """Aborts what is open longer than its time-out, and tries again what the disk refused; returns whose."""
        now = self._clock.monotonic()
        with self._lock:
            self._armed_at = None
            entries = list(self._entries.items())
            due = [each for each in entries if each[1].deadline is not None and each[1].deadline <= now]
        for _, entry in entries:
            if entry.warn_at is not None and entry.warn_at <= now:
                self._warn(entry)
        ended: list[str] = []
        for transactional_id, entry in due:
            with entry.lock:  # a commit may have been quicker
                if entry.deadline is not None and entry.deadline <= now and entry.transaction is not None:
                    why = f"aborted after its time-out of {entry.transaction.timeout_ms} ms"
                    if self._try_to_settle(entry, why, overdue=True):
                        ended.append(transactional_id)
        if self._strays:
            self._end_strays()
        with self._lock:
            times = [at for each in self._entries.values() for at in (each.deadline, each.warn_at) if at is not None]
        if times:
            self._arm(min(times))
        return ended

    def _warn(self, entry: _Entry) -> None:
        found, entry.warn_at = entry.transaction, None
        if found is not None and found.state is TransactionState.ONGOING:
            logger.warning(
                "the transaction of %r is open for %.1f s, and readers of %s wait for it: it is aborted after %.0f s",
                found.transactional_id,
                (self._clock.now_ms() - found.started_ms) / 1000,
                ", ".join(str(each) for each in sorted(found.partitions)[:NAMED]),
                found.timeout_ms / 1000,
            )

    def _try_to_settle(self, entry: _Entry, why: str, *, overdue: bool = False) -> bool:
        try:
            self._settle(entry, why, overdue=overdue)
        except (OSError, TailraceError) as error:
            assert entry.transaction is not None
            logger.warning(
                "the transaction of %r could not be ended, and its readers wait; it is tried again in %.0f s: %s",
                entry.transaction.transactional_id,
                RETRY_S,
                error,
            )
            entry.deadline = self._clock.monotonic() + RETRY_S
            self._arm(entry.deadline)
            return False
        entry.deadline = None
        return True

    def _arm(self, at: float) -> None:
        """Looks for what is overdue at a time; one call on its way is enough, where it is not too late."""
        with self._lock:
            if self._armed_at is not None and self._armed_at <= at:
                return
            self._armed_at = at
        self._timers.after(max(0.0, at - self._clock.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self.end_overdue()

    # -- looking -------------------------------------------------------------------------------------------------------

    def _entry(self, transactional_id: str) -> _Entry:
        found = self._entries.get(transactional_id)
        if found is None:
            with self._lock:
                found = self._entries.setdefault(transactional_id, _Entry())
        return found

    def transactions(self) -> list[Transaction]:
        """All ids, by name."""
        with self._lock:
            entries = list(self._entries.values())
        return sorted(
            (each.transaction for each in entries if each.transaction is not None),
            key=lambda each: each.transactional_id,
        )


def _identity(transaction: Transaction) -> Identity:
    return Identity(transaction.transactional_id, transaction.producer_id, transaction.producer_epoch)
