"""The consumer of the embedded log: positions, fetching, waiting.

1. `position` of a partition is the next offset handed out. It only moves forward, except by a seek or by `reset`.
2. What is fetched is not handed out yet: it waits in the partition's queue, and a seek or a revocation drops it.
3. Every batch passes its CRC before a record of it is seen, and its offsets are never below the position: else
   `CorruptError`.
4. With `read_committed`, nothing at or above the last stable offset is handed out, and nothing of an aborted
   transaction; positions pass both markers and what was left out.
5. A first position is taken from committed offsets only when none of that group and partition are in an open
   transaction: else they might be old by the time that they are used (KIP-447).

Not here: its place in a group (`membership`), committed offsets (`offsets`).
"""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final

from tailrace.log.arguments import check_choice, check_int, check_ms, check_text, many, offsets_given
from tailrace.log.broker import Broker
from tailrace.log.client import Assignor, CommittedOffset, Consumer, FetchedBatch, Isolation, Rebalance, Reset
from tailrace.log.clients.fetched import Aborted, Source, end_of, size_of, unreadable
from tailrace.log.clients.truncation import in_range, in_topic_made_anew, still_there
from tailrace.log.codec import batches, check_crc, crc_ok
from tailrace.log.errors import InvalidError, RetriableError, TailraceError
from tailrace.log.groups.membership import Listener, MemberOptions, Membership
from tailrace.log.partition.extent import OffsetOutOfRangeError
from tailrace.log.partition.partition import Partition
from tailrace.log.record import Instant, Offsets, Record, TopicPartition, as_partition, instant_ms
from tailrace.log.records import BatchRecords
from tailrace.log.topics.switching import carried

FETCH_BYTES: Final = 1 << 20  # Kafka's max.partition.fetch.bytes
ITERATION_WAIT_S: Final = 3600.0  # `for` waits without end; it looks around this often
_RESETS_MAX: Final = 3

Raw = Record[bytes | None, bytes | None]


class EmbeddedConsumer(Consumer):
    """See `client.Consumer` and the head of this file."""

    def __init__(
        self,
        broker: Broker,
        *,
        group: str | None,
        isolation: Isolation,
        reset: Reset,
        fetch_min_bytes: int,
        fetch_max_wait_ms: int,
        member: MemberOptions,
    ) -> None:
        check_choice("isolation", isolation, ("read_committed", "read_uncommitted"))
        check_choice("reset", reset, ("earliest", "latest", "none"))
        check_int("fetch_min_bytes", fetch_min_bytes, 1)
        check_ms("fetch_max_wait_ms", fetch_max_wait_ms)
        if group is not None:
            check_text("group", group)
        if group == "":
            raise ValueError("a group's name cannot be empty: give a name, or None for no group")
        member.check(group)
        self._broker = broker
        self._group = None if group is None else broker.catalog.group(group)
        self._committed_only = isolation == "read_committed"
        self._reset: Reset = reset
        self._min_bytes = fetch_min_bytes
        self._max_wait_s = fetch_max_wait_ms / 1000
        self._sources: dict[TopicPartition, Source] = {}
        self._turn = 0  # whose turn it is among the sources
        self._member_options = member
        self._membership: Membership | None = None  # while subscribed
        self._listener = Listener()
        self._lock = threading.RLock()  # a cancelled `async for` may leave one fetch running
        self._closed = False
        self._finalizer: weakref.finalize[[], EmbeddedConsumer] | None = None

    # -- assignment ----------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        topics: Sequence[str],
        *,
        on_assign: Rebalance | None = None,
        on_revoke: Rebalance | None = None,
        on_lost: Rebalance | None = None,
        assignor: str | Assignor | None = None,
        userdata: Callable[[], bytes] | None = None,
    ) -> None:
        """Joins the group; see `Consumer.subscribe`."""
        self._check_open()
        if self._group is None:
            raise InvalidError("subscribe needs a group: pass group= to log.consumer(), or use assign")
        if isinstance(topics, str):
            raise TypeError(f"subscribe takes a list of topics, not one str: subscribe([{topics!r}])")
        if self._sources and self._membership is None:
            raise InvalidError("this consumer was assigned partitions by hand: use another one to subscribe")
        for topic in many("topics", topics, "names"):
            self._broker.catalog.topic(topic)
        membership = self._membership or Membership(self._broker.coordinator.members, self._group, self._member_options)
        listener = Listener(on_assign, on_revoke, on_lost, userdata)
        membership.subscribe(topics, assignor, listener)
        self._listener = listener
        if self._membership is None:
            self._membership = membership
            # A consumer that is dropped without close must not keep its partitions from the others.
            self._finalizer = weakref.finalize(self, membership.drop)
            self._finalizer.atexit = False

    def member(self) -> tuple[str, int]:
        """Id and generation; see `Consumer.member`."""
        self._needed_group()
        if self._membership is None:
            raise InvalidError("this consumer is no member of its group: subscribe first")
        return self._membership.current()

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Reads these partitions; see `Consumer.assign`."""
        self._check_open()
        if self._membership is not None:
            raise InvalidError("this consumer has subscribed: use another one to assign partitions by hand")
        wanted = [as_partition(each) for each in many("partitions", partitions, "partitions")]
        for each in wanted:
            self._broker.catalog.partition(each)
        with self._lock:
            kept = {each: self._sources.get(each) or Source(each) for each in sorted(set(wanted))}
            self._sources = kept
            for source in kept.values():
                if source.position < 0 and self._reset != "none":
                    self._begin(source)

    def assignment(self) -> list[TopicPartition]:
        """The partitions being read; see `Consumer.assignment`."""
        return sorted(self._sources)

    def _begin(self, source: Source) -> None:
        """Sets the first position: the committed offset, else where `reset` says; none while it is being committed."""
        committed, pending = (None, False)
        if self._group is not None:
            committed, pending = self._broker.first_offset(self._group, source.partition)
        if pending and self._committed_only:
            return
        log = self._broker.catalog.partition(source.partition)
        if committed is not None:
            source.move(still_there(log, self._group, committed, self._reset))
            source.leader_epoch = committed.leader_epoch
            return
        match self._reset:
            case "earliest":
                source.move(log.log_start_offset)
            case "latest":
                source.move(self._end(source.partition))
            case "none":
                raise InvalidError(
                    f'{source.partition} has no committed offset in group {self._group!r} and reset="none": '
                    "seek to an offset, or choose reset=earliest or latest"
                )

    def _settle(self) -> None:
        if self._membership is not None:
            self._membership.settle(self._listener, self._drop, self._add)

    def _drop(self, revoked: Sequence[TopicPartition]) -> None:
        for each in revoked:
            self._sources.pop(each, None)

    def _add(self, taken: Sequence[TopicPartition]) -> None:
        for each in taken:
            self._sources[each] = Source(each)
            if self._reset != "none":
                self._begin(self._sources[each])

    # -- fetching ------------------------------------------------------------------------------------------------------

    def _active(self) -> list[Source]:
        """The sources to read, whose turn it is first."""
        sources = [source for source in self._sources.values() if not source.paused]
        turn = self._turn % len(sources) if sources else 0
        return sources[turn:] + sources[:turn]

    def _fetch_all(self, max_bytes: int) -> int:
        """Fills the queues of the sources that have none; returns how many bytes were read or lie there (at least)."""
        active = self._active()
        size = 0
        empty: list[Source] = []
        for source in active:
            if source.queue:
                size += 1 if self._min_bytes == 1 else sum(size_of(batch) for batch in source.queue)
            elif self._has_data(source):
                empty.append(source)
        share = max(1, max_bytes // len(empty)) if empty else 0
        for source in empty:
            if size and size >= max_bytes:
                break
            size += self._fetch(source, share)
        return size

    def _end(self, partition: TopicPartition) -> int:
        """Where reading ends."""
        return self._broker.catalog.end_offset(partition, stable=self._committed_only)

    def _log_of(self, source: Source) -> Partition:
        """What is read; where its topic's name stands for another by now, the position becomes one of that.

        Raises:
            InvalidError: it was deleted and made anew, and reset is "none".
        """
        log = self._broker.catalog.partition(source.partition)
        before = source.log
        if before is not None and before is not log and source.position >= 0:
            if before.tp != log.tp:
                source.move(carried(before, log, source.position))
            else:
                end = self._end(source.partition)
                source.move(in_topic_made_anew(log, self._group, source.position, self._reset, end))
            source.leader_epoch = -1
        source.log = log
        return log

    def _has_data(self, source: Source) -> bool:
        self._log_of(source)
        if source.position < 0:
            self._begin(source)
            if source.position < 0:
                return False
        end = self._end(source.partition)
        if source.fetch_offset > end and self._committed_only:  # not stable yet, or out of range
            return source.fetch_offset > self._broker.catalog.end_offset(source.partition)
        return source.fetch_offset != end

    def _fetch(self, source: Source, max_bytes: int) -> int:
        log = self._log_of(source)
        # Before reading: what is not below it may be committed only later.
        end = self._end(source.partition)
        if not log.read_only:  # of this very one: its name may stand for another any time
            end = log.last_stable_offset if self._committed_only else log.log_end_offset
        data = self._read(source, log, max_bytes, end)
        begin = source.fetch_offset
        try:
            for batch in self._batches(source, log, data, end):
                source.queue.append(batch)
                source.fetch_offset = batch.next_offset
        except TailraceError:
            # What is good before it is handed out first; the next fetch begins there, and raises.
            if source.fetch_offset == begin:
                raise
        return len(data)

    def _read(self, source: Source, log: Partition, max_bytes: int, end: int) -> bytes:
        limit = end if end < log.log_end_offset else None
        # Once more for a start that moved, and beside a writer once for each time that retention was quicker.
        for _ in range(_RESETS_MAX):
            try:
                return log.read(source.fetch_offset, max_bytes, limit=limit)
            except OffsetOutOfRangeError:
                self._out_of_range(source, log)
        return log.read(source.fetch_offset, max_bytes, limit=limit)

    def _batches(self, source: Source, log: Partition, data: bytes, end: int) -> Iterator[FetchedBatch]:
        position = source.fetch_offset
        if not data and position < end and not log.read_only:
            raise unreadable(log, position, "no batch that can be read")
        aborted: Aborted | None = None
        for header, view in batches(data):
            if header.base_offset >= end:
                return
            if not crc_ok(view):
                file, at = log.locate(max(position, header.base_offset))
                check_crc(view, file=file, position=at, where=f"{source.partition}@{header.base_offset}")
            if header.next_offset <= position or (header.base_offset < position and source.queue):
                raise unreadable(log, position, f"a batch at offset {header.base_offset}")
            hidden = False
            if header.transactional and self._committed_only:
                aborted = Aborted(log.aborted(position, end_of(data))) if aborted is None else aborted
                hidden = aborted.has(header)
            yield FetchedBatch(
                source.partition,
                max(header.base_offset, position),
                header.next_offset,
                header.leader_epoch,
                header.max_timestamp_ms,
                BatchRecords(header, view, position, hidden=hidden),
                header.control,
            )
            position = header.next_offset

    def _out_of_range(self, source: Source, log: Partition) -> None:
        end = self._end(source.partition)
        source.move(in_range(log, self._group, source.fetch_offset, self._reset, end))

    def _wait_for_records(self, timeout: float, max_bytes: int) -> None:
        """Fills the queues, waiting for `fetch_min_bytes`."""
        monotonic = self._broker.clock.monotonic
        give_up_at = monotonic() + timeout
        enough_at: float | None = None  # when whatever there is counts as enough
        wakes = self._broker.wakes
        while not self._closed:
            self._broker.catalog.check_open()
            self._settle()
            size = self._fetch_all(max_bytes)
            now = monotonic()
            if size >= self._min_bytes or now >= give_up_at or wakes != self._broker.wakes:
                return
            until = give_up_at
            if size:
                enough_at = now + self._max_wait_s if enough_at is None else enough_at
                if now >= enough_at:
                    return
                until = min(until, enough_at)
            look_again_s = min(until - now, self._look_again_s())
            self._broker.wait(self._ends(), look_again_s, stop=self._stirred, stable=self._committed_only)

    def _ends(self) -> dict[TopicPartition, int]:
        return {
            source.partition: source.fetch_offset
            for source in self._sources.values()
            if not source.paused and source.fetch_offset >= 0
        }

    def _look_again_s(self) -> float:
        look_again_s = self._broker.look_again_s
        return look_again_s if self._membership is None else min(look_again_s, self._membership.wait_s)

    def _stirred(self) -> bool:
        return self._closed or (self._membership is not None and self._membership.stirred())

    # -- handing out ---------------------------------------------------------------------------------------------------

    def poll(self, timeout: float = 0.0, max_records: int = 500) -> list[Raw]:
        """Up to `max_records` records; see `Consumer.poll`."""
        self._check_open()
        check_int("max_records", max_records, 1)
        _check_timeout(timeout)
        with self._lock:
            give_up_at = self._broker.clock.monotonic() + timeout
            while True:
                wakes = self._broker.wakes
                left = give_up_at - self._broker.clock.monotonic()
                self._wait_for_records(max(0.0, left), FETCH_BYTES)
                records = self._take(max_records)
                # Markers, and batches that compaction has emptied, move the position without a record: go on.
                if records or self._closed or wakes != self._broker.wakes or (left <= 0 and not self._any_data()):
                    return records

    def _take(self, max_records: int) -> list[Raw]:
        out: list[Raw] = []
        for source in self._active():
            topic, number = source.partition
            for record in source.take(max_records - len(out)):
                headers = tuple(record.headers)
                out.append(Record(topic, number, record.offset, record.timestamp, record.key, record.value, headers))
            if len(out) >= max_records:
                break
        self._turn += 1
        return out

    def poll_batches(self, timeout: float = 0.0, max_bytes: int = 1 << 20) -> list[FetchedBatch]:
        """Whole batches; see `Consumer.poll_batches`."""
        self._check_open()
        _check_timeout(timeout)
        with self._lock:
            self._wait_for_records(timeout, max_bytes)
            out: list[FetchedBatch] = []
            for source in self._active():
                out += source.take_batches()
            self._turn += 1
            return out

    def _pop(self) -> Raw | None:
        """The next record that is already here, for iteration: one source's batch is walked to its end."""
        with self._lock:
            for source in self._active():
                for record in source.take(1):
                    topic, number = source.partition
                    headers = tuple(record.headers)
                    return Record(topic, number, record.offset, record.timestamp, record.key, record.value, headers)
            return None

    def __iter__(self) -> Iterator[Raw]:
        """Records one by one, until the consumer is closed; see `Consumer.__iter__`."""
        self._check_open()
        return self._each()

    def _each(self) -> Iterator[Raw]:
        while not self._closed:
            record = self._pop()
            if record is not None:
                yield record
                continue
            with self._lock:
                if not self._closed:
                    self._turn += 1
                    self._wait_for_records(ITERATION_WAIT_S, FETCH_BYTES)

    def __aiter__(self) -> AsyncIterator[Raw]:
        """The same without blocking the event loop: reading happens in a thread, waiting nowhere."""
        self._check_open()
        return self._each_async()

    async def _each_async(self) -> AsyncIterator[Raw]:
        while not self._closed:
            record = self._pop()
            if record is not None:
                yield record
                continue
            self._turn += 1
            if self._stirred() or self._any_data():
                await asyncio.to_thread(self._look)
            else:
                await self._until_stirred()

    def _look(self) -> None:
        with self._lock:
            if not self._closed:
                self._settle()
                self._fetch_all(FETCH_BYTES)

    def _any_data(self) -> bool:
        return any(source.queue or self._has_data(source) for source in self._active())

    async def _until_stirred(self) -> None:
        loop = asyncio.get_running_loop()
        stirred = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(stirred.set)

        partitions = list(self._ends())
        self._broker.waiting.add(partitions, wake)
        try:
            if not (self._stirred() or self._any_data()):
                async with asyncio.timeout(self._look_again_s()):
                    await stirred.wait()
        except TimeoutError:
            self._broker.catalog.refresh()
            if self._membership is not None:
                self._membership.alive()
        finally:
            self._broker.waiting.remove(wake)

    # -- positions -----------------------------------------------------------------------------------------------------

    def _source(self, partition: TopicPartition) -> Source:
        source = self._sources.get(partition)
        if source is None:
            raise InvalidError(
                f"{as_partition(partition)} is not assigned to this consumer: it reads {self.assignment()}"
            )
        return source

    def _given(self, partitions: Sequence[TopicPartition] | None) -> Iterable[Source]:
        return list(self._sources.values()) if partitions is None else [self._source(each) for each in partitions]

    def position(self, partition: TopicPartition) -> int:
        """The next offset; see `Consumer.position`."""
        with self._lock:
            source = self._source(partition)
            if source.position < 0:
                self._begin(source)
            if source.position < 0:
                raise RetriableError(
                    f"offsets of group {self._group!r} for {partition} are in a transaction that is open: poll on, the "
                    "position is known when it ends"
                )
            return source.position

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Goes on at `offset`; see `Consumer.seek`."""
        if isinstance(offset, bool) or not isinstance(offset, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's
            raise TypeError(f"an offset is an int, not {type(offset).__name__}")
        if offset < 0:
            raise ValueError(f"the offset {offset} for {as_partition(partition)} is negative: give 0 or more")
        with self._lock:
            self._seek(self._source(partition), offset)

    def _seek(self, source: Source, offset: int) -> None:
        """The offset is one of what the topic is now."""
        source.move(offset)
        found = self._broker.catalog.find(source.partition.topic)
        source.log = None if found is None else found.logs[source.partition.partition]

    def seek_to_beginning(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Goes on at the log start; see `Consumer.seek_to_beginning`."""
        with self._lock:
            for source in self._given(partitions):
                self._seek(source, self._broker.catalog.partition(source.partition).log_start_offset)

    def seek_to_end(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Goes on at the end; see `Consumer.seek_to_end`."""
        with self._lock:
            for source in self._given(partitions):
                self._seek(source, self._end(source.partition))

    def seek_to_time(self, when: Instant, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Goes on at a time; see `Consumer.seek_to_time`."""
        at_ms = instant_ms(when)
        with self._lock:
            for source in self._given(partitions):
                log = self._broker.catalog.partition(source.partition)
                found = log.offset_for_time(at_ms)
                self._seek(source, self._end(source.partition) if found is None else found[0])

    def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Offsets at times; see `Consumer.offsets_for_times`."""
        out: dict[TopicPartition, int | None] = {}
        for each, at_ms in times.items():
            found = self._broker.catalog.partition(each).offset_for_time(instant_ms(at_ms))
            out[each] = None if found is None else found[0]
        return out

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Leaves partitions out; see `Consumer.pause`."""
        for source in self._given(list(partitions)):
            source.paused = True

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Takes partitions back; see `Consumer.resume`."""
        for source in self._given(list(partitions)):
            source.paused = False

    # -- committing ----------------------------------------------------------------------------------------------------

    def committed(self, partition: TopicPartition) -> int | None:
        """The committed offset; see `Consumer.committed`."""
        found = self._broker.committed_offset(self._needed_group(), as_partition(partition))
        return None if found is None else found.offset

    def commit(self, offsets: Offsets | None = None) -> None:
        """Commits; see `Consumer.commit`."""
        group = self._needed_group()
        if offsets is None:
            with self._lock:
                for source in self._sources.values():
                    self._log_of(source)
                wanted = {
                    source.partition: CommittedOffset(source.position, source.leader_epoch)
                    for source in self._sources.values()
                    if source.position >= 0
                }
        else:
            wanted = self._broker.with_epochs(offsets_given(offsets))

        def check() -> None:
            if self._membership is not None:
                self._membership.check_commit(wanted)
            else:
                self._broker.coordinator.check_empty(group, "commit partitions assigned by hand")

        check()
        if offsets is not None:  # positions may be past what a crash has left: the next poll sees to that
            self._broker.check_not_past_end(group, wanted)
        if wanted:
            self._broker.commit_offsets(group, wanted, check)

    def _needed_group(self) -> str:
        self._check_open()
        if self._group is None:
            raise InvalidError("this consumer has no group to commit for: pass group= to log.consumer()")
        return self._group

    def _check_open(self) -> None:
        self._broker.catalog.check_open(or_closing=self._closed)  # first: it closes the consumers with it
        if self._closed:
            raise InvalidError("the consumer is closed: make another with log.consumer()")

    def close(self) -> None:
        """Leaves the group; see `Consumer.close`."""
        if self._closed:
            return
        self._closed = True
        if self._membership is not None and self._finalizer is not None and self._finalizer.detach():
            self._membership.leave()
        self._broker.waiting.wake_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes."""
        self.close()


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's
        raise TypeError(f"timeout={timeout!r} is not a number of seconds: give 0 or more")
    if not timeout >= 0:  # nor is it not a number
        raise ValueError(f"timeout={timeout}: give 0 or more seconds (0: what is here already)")
