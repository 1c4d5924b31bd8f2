"""The producer that writes in transactions.

1. Records are sent between `begin` and `commit` or `abort`, and nowhere else.
2. Per partition, batches of a transaction carry sequences from 0 on, under an epoch of its own: a batch that was not
   appended leaves no gap.
3. A record, or an offset, that could not be written keeps its transaction from being committed, also where the caller
   has caught the error of `send`: Kafka's abortable errors. A wrong type is none: nothing was asked of the log.
4. What was not decided is aborted by `close`, which says so where that was done by others before: nobody had asked
   for a commit, so nothing went wrong. What was decided is carried out, by whatever is called next.
5. Fenced once, it can only be closed.

A delivery has its answer when the record is in the page cache; all of them are put on disk together, by the commit.
Not here: the protocol (`transaction_coordinator`), batching (`producer`).
"""

import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from tailrace.log.arguments import check_text, offsets_given
from tailrace.log.broker import Broker
from tailrace.log.client import Acks, CommittedOffset, Compression, Delivery
from tailrace.log.clients.outgoing import Batch
from tailrace.log.clients.producer import EmbeddedProducer
from tailrace.log.errors import ExpelledError, FencedError, InvalidError, RetriableError, TailraceError
from tailrace.log.groups.offsets import check_commit
from tailrace.log.partition.partition import Appended
from tailrace.log.partition.producers import following
from tailrace.log.record import Headers, Offsets, TopicPartition, as_partition
from tailrace.log.transactions.coordinator import Identity
from tailrace.log.transactions.states import check_transactional

logger = logging.getLogger(__name__)

T = TypeVar("T")


class TransactionalProducer(EmbeddedProducer):
    """See `client.Producer` and the head of this file."""

    def __init__(
        self,
        broker: Broker,
        *,
        transactional_id: str,
        transaction_timeout_ms: int,
        acks: Acks,
        linger_ms: float,
        batch_bytes: int,
        compression: Compression,
        buffer_bytes: int,
    ) -> None:
        check_transactional(transactional_id, transaction_timeout_ms)
        if acks != "all":
            raise ValueError(f'acks={acks!r} with a transactional_id: a transaction needs acks="all"')
        super().__init__(
            broker,
            acks=1,
            linger_ms=linger_ms,
            batch_bytes=batch_bytes,
            compression=compression,
            buffer_bytes=buffer_bytes,
        )
        self._transactional = True
        self._transactions = broker.transactions
        holder = f"another producer, of thread {threading.current_thread().name} in process {os.getpid()}"
        self._who: Identity = self._transactions.take(transactional_id, transaction_timeout_ms, holder)
        self._begun = False
        self._committed = False  # how the last one ended
        self._wrote = False  # whether the coordinator knows of this transaction
        self._failed: BaseException | None = None  # what keeps this transaction from being committed
        self._caught: BaseException | None = None  # the same, where `send` has raised it
        self._fenced: FencedError | None = None
        self._told: set[str] = set()  # groups of which it was said that no member is named
        self._sequences: dict[TopicPartition, int] = {}
        self._version = -1  # sends look at one number, and end in _refresh

    # -- a transaction -------------------------------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[None]:
        """A transaction as a block; see `Producer.transaction`."""
        return self._block()

    @contextmanager
    def _block(self) -> Generator[None]:
        self.begin()
        try:
            yield
            self._check_not_ended()
            self.commit()
        except BaseException:
            self._abort_undecided()
            raise

    def _check_not_ended(self) -> None:
        """A block ends its transaction itself, or by an error."""
        if self._begun or self._closed or self._fenced is not None:
            return
        did, instead = ("committed", "leave the commit out") if self._committed else ("aborted", "raise to abort")
        raise InvalidError(
            f"the transaction of {self._who.transactional_id!r} was {did} within its block, and stays so: a "
            f"`with producer.transaction():` commits by itself at its end; {instead}"
        )

    def _abort_undecided(self) -> None:
        """After an error, whose place no other may take."""
        with self._changed:
            if self._begun and self._fenced is None and self._decided() is not True:
                try:
                    self.abort()
                except (OSError, TailraceError) as error:
                    logger.warning("the transaction of %r is aborted later: %s", self._who.transactional_id, error)

    def begin(self) -> None:
        """Begins one; see `Producer.begin`."""
        with self._changed:
            self._check_usable()
            if self._begun and self._decided() is not None:  # its end was interrupted
                self._end(commit=self._decided() is True)
            if self._begun:
                raise InvalidError(
                    f"the producer of {self._who.transactional_id!r} is in a transaction: commit or abort it first"
                )
            self._guarded(lambda: self._transactions.check(self._who))
            self._begun = True

    def commit(self) -> None:
        """Commits; see `Producer.commit`."""
        with self._changed:
            self._check_begun()
            if self._decided() is False:
                raise InvalidError(f"the transaction of {self._who.transactional_id!r} is aborted: abort once more")
            if self._decided() is None:
                self._write_all()
                if self._failed is not None:
                    raise self._failed.with_traceback(None)
                if self._caught is not None:
                    raise self._not_complete(self._caught) from self._caught
            self._end(commit=True)

    def _not_complete(self, error: BaseException) -> TailraceError:
        kind = RetriableError if isinstance(error, RetriableError) else InvalidError
        return kind(
            f"the transaction of {self._who.transactional_id!r} cannot be committed, as not all that was sent in it "
            f"was taken: abort it, and send all of it again without this: {type(error).__name__}: {error}"
        )

    def _write_all(self) -> None:
        lingering = {batch.target.topic.places[batch.partition] for batch in self._lingering}
        if lingering:  # one record for all of them
            self._guarded(lambda: self._transactions.add(self._who, sorted(lingering)))
            self._wrote = True
        self._dispatch_all()

    def abort(self) -> None:
        """Aborts; see `Producer.abort`."""
        with self._changed:
            self._check_begun()
            if self._decided() is True:
                raise InvalidError(
                    f"the transaction of {self._who.transactional_id!r} is committed, if not all of it is written: "
                    "commit once more"
                )
            self._drop_lingering()
            self._end(commit=False)

    def _drop_lingering(self) -> None:
        for batch in list(self._lingering):
            del self._lingering[batch]
            batch.target.open[batch.partition] = None
            self._finish(batch, RetriableError("its transaction was aborted before it was written: send it again"))

    def _end(self, *, commit: bool) -> None:
        if self._wrote:
            self._who = self._guarded(lambda: self._transactions.end(self._who, commit=commit))
        self._begun = self._wrote = False
        self._committed = commit
        self._failed = self._caught = None
        self._sequences = {}
        self._version = -1
        for batch in self._unseen:  # of the transaction that is gone
            batch.seen = True
        self._unseen.clear()

    def _decided(self) -> bool | None:
        return self._transactions.decided(self._who) if self._wrote else None

    def send_offsets(self, group: str, offsets: Offsets, *, member: tuple[str, int] | None = None) -> None:
        """Commits offsets in the transaction; see `Producer.send_offsets`."""
        self._check_begun()
        try:
            wanted = self._broker.with_epochs(offsets_given(offsets))
        except TailraceError as error:
            self._refused(error)
            raise
        self.commit_offsets(group, wanted, member=member)

    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        *,
        member: tuple[str, int] | None = None,
    ) -> None:
        """Commits offsets in the transaction; see `Producer.commit_offsets`."""
        check_text("group", group)
        catalog = self._broker.catalog
        asked = {as_partition(tp): each for tp, each in offsets.items()}
        wanted = {catalog.canonical(tp): each for tp, each in asked.items()}
        group = catalog.group(group)
        with self._changed:
            self._check_begun()
            try:
                check_commit(group, wanted)
                self._check_member(group, member)
                self._broker.check_not_past_end(group, asked)
            except TailraceError as error:
                self._refused(error)
                raise
            if wanted:
                self._wrote = True  # where it is refused, too, the transaction is to be ended
                try:
                    self._guarded(lambda: self._transactions.append_offsets(self._who, group, wanted, member))
                except BaseException as error:
                    self._failed = self._failed or error  # a commit without these offsets would be half of one
                    raise

    def _check_member(self, group: str, member: tuple[str, int] | None) -> None:
        """As Kafka, takes offsets from who names no member, whatever members there are; but says so."""
        if member is not None:
            self._broker.coordinator.check_member(group, *_member_given(member))
        elif group not in self._told and (names := self._broker.coordinator.members_of(group)):
            self._told.add(group)
            logger.warning(
                "the producer of %r sends offsets of group %r without member=, while the group has members (%s): one "
                "that was expelled would set back what its successor has committed; give member=consumer.member()",
                self._who.transactional_id,
                group,
                ", ".join(names),
            )

    # -- sending -------------------------------------------------------------------------------------------------------

    def send_many(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        timestamps_ms: Iterable[int] | None = None,
        headers: Iterable[Headers] | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Sends many records; see `Producer.send_many`."""
        try:
            return super().send_many(
                topic, values, keys=keys, timestamps_ms=timestamps_ms, headers=headers, partition=partition
            )
        except BaseException as error:  # whatever it is, what came before it was sent: half of what was to be
            self._refused(error)
            raise

    def _refused(self, error: BaseException) -> None:
        if self._begun:
            self._caught = self._caught or error

    # -- batches -------------------------------------------------------------------------------------------------------

    def _write(self, batch: Batch) -> Appended:
        topic, who = batch.target.topic, self._who
        tp = topic.tps[batch.partition]
        sequence = self._sequences.get(tp, 0)
        batch.sign(who.producer_id, who.producer_epoch, sequence)
        self._wrote = True
        appended = self._transactions.append(who, topic, batch.partition, batch.build())
        self._sequences[tp] = following(sequence, batch.count)
        return appended

    def _finish(self, batch: Batch, error: BaseException | None) -> None:
        if error is not None:
            self._failed = self._failed or error
            if isinstance(error, FencedError):
                self._fence(error)
        super()._finish(batch, error)

    # -- states --------------------------------------------------------------------------------------------------------

    def _guarded(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except ExpelledError:
            raise  # that is the consumer's: the producer may abort, and go on
        except FencedError as error:
            self._fence(error)
            raise

    def _fence(self, error: FencedError) -> None:
        self._fenced = error
        self._version = -1

    def _check_usable(self) -> None:
        if self._closed:
            self._broker.catalog.check_open(or_closing=True)
            raise InvalidError("the producer is closed: make another with log.producer()")
        if self._fenced is not None:
            raise self._fenced.with_traceback(None)
        self._broker.catalog.check_writable()

    def _check_begun(self) -> None:
        self._check_usable()
        if not self._begun:
            raise InvalidError(
                f"the producer of {self._who.transactional_id!r} is in no transaction: begin one first, or use "
                "`with producer.transaction():`"
            )

    def _refresh(self) -> None:
        self._check_begun()
        super()._refresh()

    def close(self) -> None:
        """Aborts what is open and closes; see `Producer.close`."""
        with self._changed:
            if self._closed:
                return
            try:
                if self._begun and self._fenced is None:
                    if self._decided() is True:
                        self.commit()
                    else:
                        self._abort_at_close()
            finally:
                self._drop_lingering()
                self._unseen.clear()
                super().close()

    def _abort_at_close(self) -> None:
        try:
            self.abort()
        except FencedError as error:  # after its time-out, or by the producer that has the id now
            logger.warning("a producer is closed within a transaction, which counts for nothing by now: %s", error)


def _member_given(member: object) -> tuple[str, int]:
    match member:
        case (str(name), int(generation)):
            return name, generation
        case _:
            raise TypeError(f"member={member!r} is not what consumer.member() gives: an id and a generation")
