"""The producer of the embedded log: batches per partition, acknowledgements, bounded memory.

1. Per partition, records are in the log in the order in which they were sent: one lock covers taking and appending.
2. A record belongs to exactly one batch, and a batch is written whole or not at all: all its deliveries fare alike.
3. `_reserved` <= buffer_bytes, except that one batch is always allowed: what was sent and is not acknowledged yet.
4. A refused record leaves no trace; an interrupted call leaves a whole batch, never half of one.
5. An error that no delivery has shown is raised by the next `flush` or `close`: nothing is lost in silence.

The fast path has no handoff: the thread that fills a batch appends it. The linger timer appends what stays half full,
and the log's sync thread acknowledges for `acks="all"`. Not here: where bytes go (`partition`), who waits for them
(`waiting`).
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count, islice, repeat
from types import TracebackType
from typing import Any, Final

from tailrace.log.arguments import check_choice, check_int, check_ms, offsets_given
from tailrace.log.broker import Broker
from tailrace.log.client import Acks, CommittedOffset, Compression, Delivery, Producer
from tailrace.log.clients.deliveries import BatchDelivery, ManyDelivery
from tailrace.log.clients.outgoing import NO_HEADERS, Batch, Target, check_lengths, explained, iterate
from tailrace.log.codec import COMPRESSIONS
from tailrace.log.errors import InvalidError, RetriableError, TailraceError
from tailrace.log.partition.partition import Appended
from tailrace.log.record import Headers, Offsets, TopicPartition
from tailrace.log.topic import check_not_owned

logger = logging.getLogger(__name__)

MAX_BLOCK_S: Final = 60.0  # Kafka's max.block.ms
CHUNK: Final = 2048  # records of a bulk send taken under the lock at once: about a millisecond
_END: Final = object()


class EmbeddedProducer(Producer):
    """See `client.Producer` and the head of this file."""

    def __init__(
        self,
        broker: Broker,
        *,
        acks: Acks,
        linger_ms: float,
        batch_bytes: int,
        compression: Compression,
        buffer_bytes: int,
    ) -> None:
        if repr(acks) not in {"'all'", "0", "1"}:  # True would be 1
            raise ValueError(f'acks={acks!r}: give "all" (on disk), 1 (in the page cache) or 0 (not waited for)')
        check_choice("compression", compression, COMPRESSIONS)
        check_ms("linger_ms", linger_ms)
        check_int("batch_bytes", batch_bytes, 1)
        check_int("buffer_bytes", buffer_bytes, 1)
        self._broker = broker
        self._acks: Acks = acks
        self._linger_s = linger_ms / 1000
        self._batch_bytes = batch_bytes
        self._compression = COMPRESSIONS[compression]
        self._buffer_bytes = buffer_bytes
        self._transactional = False
        self._now_ms = broker.clock.now_ms
        self._targets: dict[str, Target] = {}
        self._version = broker.catalog.version
        self._changed = threading.Condition()  # re-entrant: a sync may be acknowledged within the append
        self._lingering: dict[Batch, None] = {}  # not yet appended, oldest first
        self._inflight: dict[Batch, None] = {}  # appended, not yet acknowledged
        self._reserved = 0
        self._unseen: list[Batch] = []  # failed, and nobody was told
        self._armed = False
        self._closed = False
        self._lost: dict[tuple[TopicPartition, type[Exception]], int] = {}  # with acks=0

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Delivery:
        """Takes one record; see `Producer.send`."""
        with self._changed:
            target = self._target(topic)
            number = -1
            try:
                kept = list(headers) if headers else NO_HEADERS
                if timestamp_ms is None:
                    timestamp_ms = self._now_ms()
                elif timestamp_ms.__class__ is not int or not target.earliest_ms <= timestamp_ms <= target.latest_ms:
                    target.check_time(timestamp_ms, self._now_ms())
                number = target.partitioner.of(key) if partition is None else self._partition(target, partition)
                batch = target.open[number]
                if batch is None or batch.append(batch.count, timestamp_ms, key, value, kept) is None:
                    batch = self._begin(target, number, timestamp_ms, key, value, kept, fixed=partition is not None)
                index = batch.count
                batch.count = index + 1
            except (TypeError, OverflowError, AttributeError) as error:
                raise explained(topic, error, [value], [key], [timestamp_ms], [headers], partition) from None
            except ValueError:
                raise
            except TailraceError as error:
                self._refused(error)
                raise
            except BaseException as error:
                self._refused(error)
                self._interrupted(target.open[number] if number >= 0 else None)
                raise
            if not self._linger_s:
                self._dispatch(batch)
            return BatchDelivery(self, batch, index, timestamp_ms)

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
        check_lengths(topic, values, keys=keys, timestamps_ms=timestamps_ms, headers=headers)
        touched: dict[Batch, int] = {}  # the batches of these values, each with the number of its first one here
        last: BatchDelivery | None = None
        taken = 0
        others = [
            iterate(topic, name, each)
            for name, each in (("keys", keys), ("timestamps_ms", timestamps_ms), ("headers", headers))
        ]
        rest = iterate(topic, "values", values) or iter(())
        while chunk := list[bytes | None](islice(rest, CHUNK)):
            columns = [None if each is None else list(islice(each, len(chunk))) for each in others]
            for name, column in zip(("keys", "timestamps_ms", "headers"), columns, strict=True):
                if column is not None and len(column) != len(chunk):
                    raise ValueError(
                        f"send_many to topic {topic!r} got {taken + len(column)} {name} and more values: give one for "
                        f"each; the first {taken} were sent"
                    )
            with self._changed:
                target = self._target(topic)
                fixed = None if partition is None else self._partition(target, partition)
                if target.fills_in_turn(columns, fixed):
                    last = self._take_run(target, chunk, columns, fixed, touched, taken)
                else:
                    last = self._take_rows(target, chunk, columns, fixed, touched, taken)
            taken += len(chunk)
        for name, each in zip(("keys", "timestamps_ms", "headers"), others, strict=True):
            if each is not None and next(each, _END) is not _END:
                raise ValueError(
                    f"send_many to topic {topic!r} got {taken} values and more {name}: give one for each; the {taken} "
                    "were sent"
                )
        if last is None:
            raise ValueError(f"send_many to topic {topic!r} got no values: there is no delivery to return")
        if not self._linger_s:
            with self._changed:
                self._dispatch_all()
        return ManyDelivery(self, touched, taken, last)

    def _take_run(
        self,
        target: Target,
        values: list[bytes | None],
        columns: list[list[Any] | None],
        fixed: int | None,
        touched: dict[Batch, int],
        first: int,
    ) -> BatchDelivery:
        """Rows that fill one batch after the other."""
        keys, times, _ = columns
        timestamp_ms = self._now_ms()
        batch = target.open[target.partitioner.sticky if fixed is None else fixed]
        place, rows = 0, len(values)
        try:
            while True:
                if batch is not None:
                    touched.setdefault(batch, first + place)
                    place += batch.fill(
                        repeat(timestamp_ms) if times is None else islice(times, place, None),
                        repeat(None) if keys is None else islice(keys, place, None),
                        islice(values, place, None),
                    )
                    if place == rows:
                        break
                key, value = None if keys is None else keys[place], values[place]
                time_ms = timestamp_ms if times is None else times[place]
                number = target.partitioner.sticky if fixed is None else fixed
                batch = self._begin(target, number, time_ms, key, value, NO_HEADERS, fixed=fixed is not None)
                batch.count += 1
                touched.setdefault(batch, first + place)
                place += 1
        except (TypeError, OverflowError, AttributeError) as error:
            raise explained(target.name, error, values, keys or (), times or (), (), None) from None
        except (TailraceError, ValueError):
            raise
        except BaseException:
            self._interrupted(batch)
            raise
        return BatchDelivery(self, batch, batch.count - 1, times[-1] if times else timestamp_ms)

    def _take_rows(
        self,
        target: Target,
        values: list[bytes | None],
        columns: list[list[Any] | None],
        fixed: int | None,
        touched: dict[Batch, int],
        first: int,
    ) -> BatchDelivery:
        keys, times, headers = columns
        now_ms = self._now_ms()
        known, partitioner, open_batches = target.partitioner.known, target.partitioner, target.open
        batch: Batch | None = None
        timestamp_ms = now_ms
        rows = zip(
            count(first),
            values,
            keys or repeat(None),
            times or repeat(now_ms),
            headers or repeat(NO_HEADERS),
            strict=False,
        )
        try:
            for place, value, key, timestamp_ms, each in rows:
                if timestamp_ms.__class__ is not int or not target.earliest_ms <= timestamp_ms <= target.latest_ms:
                    target.check_time(timestamp_ms, now_ms)
                kept = list(each) if each.__class__ is not list else each
                if fixed is not None:
                    number = fixed
                elif key is None:
                    number = partitioner.sticky
                else:
                    found = known.get(key)
                    number = partitioner.remember(key) if found is None else found
                batch = open_batches[number]
                if batch is None or batch.append(batch.count, timestamp_ms, key, value, kept) is None:
                    batch = self._begin(target, number, timestamp_ms, key, value, kept, fixed=fixed is not None)
                batch.count += 1
                if batch not in touched:
                    touched[batch] = place
        except (TypeError, OverflowError, AttributeError) as error:
            raise explained(target.name, error, values, keys or (), times or (), headers or (), None) from None
        except (TailraceError, ValueError):
            raise
        except BaseException:
            self._interrupted(batch)
            raise
        assert batch is not None
        return BatchDelivery(self, batch, batch.count - 1, timestamp_ms)

    # -- batches -------------------------------------------------------------------------------------------------------

    def _begin(
        self,
        target: Target,
        number: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
        *,
        fixed: bool,
    ) -> Batch:
        """Closes a full batch, begins the next, and puts the record into it; the caller counts the record."""
        give_up_at = None
        while True:
            batch = target.open[number]
            if batch is not None:
                if batch.append(batch.count, timestamp_ms, key, value, headers) is not None:
                    return batch
                self._dispatch(batch)
                if key is None and not fixed:
                    target.partitioner.batch_full(number)
                    number = target.partitioner.sticky
                    continue
            if self._reserved and self._reserved + target.batch_limit > self._buffer_bytes:
                give_up_at = self._wait_for_room(target, give_up_at)
                continue  # the lock was released: look again
            return self._open_batch(target, number, timestamp_ms, key, value, headers)

    def _open_batch(
        self,
        target: Target,
        number: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
    ) -> Batch:
        batch = Batch(target, number, self._broker.clock.monotonic() + self._linger_s)
        batch.append(0, timestamp_ms, key, value, headers)
        # Only the first record of a batch can be larger than a batch, so this look is enough, and it is free.
        size = batch.size()
        if size > target.value_limit:
            raise InvalidError(
                f"a record for topic {target.name!r} makes a batch of {size} bytes, max.message.bytes allows "
                f"{target.value_limit}: make the value smaller, or create the topic with a higher limit"
            )
        batch.bytes = max(size, target.batch_limit)
        batch.finished = self._acks == 0
        target.open[number] = batch
        self._lingering[batch] = None
        self._reserved += batch.bytes
        if self._linger_s and not self._armed:
            self._armed = True
            self._broker.timers.after(self._linger_s, self._linger)
        return batch

    def _wait_for_room(self, target: Target, give_up_at: float | None) -> float:
        self._dispatch_all()
        now = self._broker.clock.monotonic()
        give_up_at = now + MAX_BLOCK_S if give_up_at is None else give_up_at
        if self._reserved + target.batch_limit > self._buffer_bytes and self._reserved:
            if now >= give_up_at:
                raise RetriableError(
                    f"no room for a record to topic {target.name!r} within {MAX_BLOCK_S:.0f} s: {self._reserved} bytes "
                    "wait to be acknowledged; send again later, or raise buffer_bytes"
                )
            self._changed.wait(give_up_at - now)
            self._target(target.name)  # raises where the producer was closed meanwhile
        return give_up_at

    def _dispatch_all(self) -> None:
        for batch in list(self._lingering):
            self._dispatch(batch)

    def _dispatch(self, batch: Batch) -> None:
        """Appends a batch to its partition; its deliveries have their answer then, or when it is synced."""
        if batch not in self._lingering:
            return
        self._inflight[batch] = None
        try:
            del self._lingering[batch]
            self._append(batch)
        except BaseException as error:
            self._finish(batch, error)
            if not isinstance(error, Exception):
                raise

    def _append(self, batch: Batch) -> None:
        target = batch.target
        if target.open[batch.partition] is batch:
            target.open[batch.partition] = None
        appended = self._write(batch)
        if self._acks != 0:
            batch.base_offset, batch.timestamp_ms = appended.base_offset, appended.timestamp_ms
        if self._acks == "all":
            self._broker.when_synced(target.topic, batch.partition, lambda error: self._finish(batch, error))
        else:
            self._finish(batch, None)

    def _write(self, batch: Batch) -> Appended:
        return self._broker.append(batch.target.topic, batch.partition, batch.build())

    def _finish(self, batch: Batch, error: BaseException | None) -> None:
        with self._changed:
            self._inflight.pop(batch, None)
            self._reserved -= batch.bytes
            batch.drop()
            if error is not None and not isinstance(error, Exception):
                error = RetriableError(
                    f"writing was interrupted by {type(error).__name__}: look what is there, then send again"
                )
            if error is not None and self._acks == 0:  # nobody asks: the log is all there is to tell
                self._tell_lost(TopicPartition(batch.target.name, batch.partition), batch.count, error)
            elif error is not None:
                batch.error = error
                self._unseen.append(batch)
            batch.finished = True
            self._changed.notify_all()

    def _tell_lost(self, where: TopicPartition, count: int, error: Exception) -> None:
        """Once per partition and kind of error: a full disk would be told thousands of times in a second."""
        told = self._lost.setdefault((where, type(error)), 0)
        self._lost[where, type(error)] = told + count
        if not told:
            logger.error(
                "%d records for %s were not written, and with acks=0 nobody is told of each; how many more is said at "
                "the close: %s",
                count,
                where,
                error,
            )

    def _interrupted(self, batch: Batch | None) -> None:
        # Whether the last record is in the batch is not known; what the builder holds is whole, so it goes as it is
        # and nothing is appended to it any more.
        if batch is not None:
            self._dispatch(batch)

    def _linger(self) -> None:
        with self._changed:
            self._armed = False
            now = self._broker.clock.monotonic()
            for batch in list(self._lingering):
                if batch.deadline > now:
                    self._armed = True
                    self._broker.timers.after(batch.deadline - now, self._linger)
                    return
                self._dispatch(batch)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait_for(self, batches: Sequence[Batch], timeout: float | None) -> None:
        """Waits until all of these have their answer; raises the first error among them."""
        with self._changed:
            for batch in batches:
                self._dispatch(batch)
            self._raise_error_of(batches)
            self._wait(batches, timeout)
            self._raise_error_of(batches)

    def _raise_error_of(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if batch.error is not None:
                batch.seen = True
                raise batch.error.with_traceback(None)

    def _wait(self, batches: Sequence[Batch], timeout: float | None) -> None:
        give_up_at = None if timeout is None else self._broker.clock.monotonic() + timeout
        for batch in batches:
            while not batch.finished:
                left = None if give_up_at is None else give_up_at - self._broker.clock.monotonic()
                if left is not None and left <= 0:
                    raise RetriableError(
                        f"the batch for {TopicPartition(batch.target.name, batch.partition)} was not acknowledged "
                        f"within {timeout} s: wait again, it may still be written"
                    )
                self._changed.wait(left)

    def flush(self, timeout: float | None = None) -> None:
        """Writes and waits for all that was sent; see `Producer.flush`."""
        with self._changed:
            self._dispatch_all()
            self._wait(list(self._inflight), timeout)
            failed = [batch for batch in self._unseen if not batch.seen]
            self._unseen.clear()
            for batch in failed:
                batch.seen = True
            if failed and failed[0].error is not None:
                raise failed[0].error.with_traceback(None)

    def transaction(self) -> AbstractContextManager[None]:
        """Needs a transactional id; see `Producer.transaction`."""
        raise self._not_transactional()

    def begin(self) -> None:
        """Needs a transactional id; see `Producer.begin`."""
        raise self._not_transactional()

    def commit(self) -> None:
        """Needs a transactional id; see `Producer.commit`."""
        raise self._not_transactional()

    def abort(self) -> None:
        """Needs a transactional id; see `Producer.abort`."""
        raise self._not_transactional()

    def send_offsets(self, group: str, offsets: Offsets, *, member: tuple[str, int] | None = None) -> None:
        """Needs a transactional id; see `Producer.send_offsets`."""
        self.commit_offsets(group, offsets_given(offsets), member=member)

    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        *,
        member: tuple[str, int] | None = None,  # noqa: ARG002  # the interface's
    ) -> None:
        """Needs a transactional id; see `Producer.commit_offsets`."""
        raise InvalidError(
            f"offsets of group {group!r} for {len(offsets)} partitions go with a transaction: give log.producer() a "
            "transactional_id, or commit them with the consumer"
        )

    def _not_transactional(self) -> InvalidError:
        return InvalidError("this producer has no transactions: give log.producer() a transactional_id for them")

    def close(self) -> None:
        """Flushes and closes; see `Producer.close`."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._version = -1  # sends look at one number: see _target
        try:
            self.flush()
        finally:
            for (where, kind), count in self._lost.items():
                logger.error("in all, %d records for %s were not written (%s)", count, where, kind.__name__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes; an error of the block itself is not hidden by one of the flush (which is logged)."""
        if error is None:
            self.close()
        else:
            try:
                self.close()
            except TailraceError as hidden:
                logger.error("not all that was sent was written: %s", hidden)  # noqa: TRY400 - its text says it all

    # -- topics --------------------------------------------------------------------------------------------------------

    def _refused(self, error: BaseException) -> None:
        """A record that was to be sent is not: by what the log says, not for an argument of a wrong type."""

    def _target(self, topic: str) -> Target:
        if self._version != self._broker.catalog.version:
            self._refresh()
        target = self._targets.get(topic)
        if target is None:
            if isinstance(topic, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # else the catalog says so
                check_not_owned(topic)
            try:
                found = self._broker.catalog.topic(topic)
            except TailraceError as error:
                self._refused(error)
                raise
            target = self._targets[topic] = Target(
                found,
                self._compression,
                self._batch_bytes,
                transactional=self._transactional,
            )
        return target

    def _refresh(self) -> None:
        if self._closed:
            self._broker.catalog.check_open(or_closing=True)
            raise InvalidError("the producer is closed: make another with log.producer()")
        self._version = self._broker.catalog.version
        for name, target in list(self._targets.items()):
            if self._broker.catalog.find(name) is not target.topic:
                for batch in target.open:  # altered: what was sent before goes before
                    if batch is not None:
                        self._dispatch(batch)
                del self._targets[name]

    def _partition(self, target: Target, partition: int) -> int:
        if isinstance(partition, bool) or not isinstance(partition, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's
            raise TypeError(f"partition for topic {target.name!r} is an int, not {type(partition).__name__}")
        if not 0 <= partition < len(target.open):
            raise InvalidError(
                f"topic {target.name!r} has partitions 0 to {len(target.open) - 1}, not {partition}: choose one of them"
            )
        return partition
