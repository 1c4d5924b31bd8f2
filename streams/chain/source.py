"""A task's input from one source partition: bytes to typed values, the record's time, and bad records.

1. context.origin_ms is the largest timestamp that the task has taken: it moves with every record that has a valid
   timestamp, also with those that go no further. In a task that reads repartitions too, the input is one writer among
   others (`writer`): its own largest timestamp is the origin of its records, and stream time is the task's business.
2. A record that cannot be decoded, or has no valid timestamp, or one further in the future than the app allows, moves
   no clock and never ends the run silently: it fails the app, or is
   counted as "bad_record" and skipped, sent to the dead letters or to the stream `.errors`, as the app asks.
3. position is the offset of the first record not yet run through the chain: what a commit may write down.
4. A silence (silence) is taken where it stands: after all records before its offset, before all others.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from math import inf
from operator import attrgetter, length_hint
from typing import Any

from tailrace.log.client import FetchedBatch
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.streams.chain.clocks import NEVER, encode_clocks
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.markers import Claim, End
from tailrace.streams.chain.silence import Silence, Silences
from tailrace.streams.program.topology import Forward, Together
from tailrace.streams.values.wording import shown
from tailrace.windows.duration import format_ms

WriterId = tuple[int, int]
"""What a task behind repartitions hears time from: (repartition or source node, partition of the writing task)."""

_key, _value, _timestamp = attrgetter("key"), attrgetter("value"), attrgetter("timestamp")

# Records of a batch that are decoded together, which no other thread of the process can interrupt: a batch may be of
# tens of thousands.
_DECODED = 1_000
_TIME_MAX = 253_402_300_800_000  # the year 10000, in ms: what is beyond is no time but a mistake

BadRecord = Callable[[RawRecord, TopicPartition, Exception], None]
"""Takes a record that cannot be read: raises, or returns when the record is dealt with (bad_records)."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How one topic's records are read; timestamp takes the decoded value and gives its time."""

    decode_key: Callable[[bytes], Any]
    decode_value: Callable[[bytes], Any]
    timestamp: Callable[[Any], datetime | int] | None
    future: "Future | None" = None


@dataclass(frozen=True, slots=True)
class Future:
    """How far ahead an event time may be, in ms: of the wall clock, and of the record's own time where it has another.

    Against the second a replay decides as the live run did; against the first a record that was refused is taken once
    the wall clock has reached its time.
    """

    ahead_ms: int
    now_ms: Callable[[], int]


class WrongTimeError(ValueError):
    """A record has no timestamp that could be taken."""


class SourceInput:
    """One source partition of a task: batches that were fetched, and the chain that takes their records."""

    counted = True
    """Whether its records are counted as read by the app."""

    __slots__ = (
        "_bad",
        "_batch_end",
        "_batches",
        "_decoding",
        "_forward",
        "_index",
        "_records",
        "_walk",
        "head_ms",
        "leader_epoch",
        "limit_ms",
        "origin_ms",
        "partition",
        "position",
        "silences",
        "together",
        "writer",
    )

    def __init__(
        self, partition: TopicPartition, decoding: Decoding, forward: Forward, bad_record: BadRecord, position: int
    ) -> None:
        self.partition = partition
        self.position = position
        self.leader_epoch = -1
        """Of the batch that the last record came from."""
        self.head_ms: int | None = None
        """The time of the next record; None when nothing is buffered."""
        self.together: Together | None = None
        """What takes records together, if the chain can."""
        self.limit_ms: float = inf
        """What is later than this waits: see `turns`."""
        self.writer: WriterId | None = None
        """Among the writers of a task that reads repartitions too."""
        self.origin_ms = NEVER
        """What the task's origin was when the last record was taken."""
        self.silences: Silences | None = None
        """Where wall time may move the partition's."""
        self._decoding = decoding
        self._forward = forward
        self._bad = bad_record
        self._batches: deque[FetchedBatch] = deque()
        self._records: Sequence[RawRecord] = ()
        self._walk: Iterator[RawRecord] = iter(())
        """What is left of the batch at hand behind these."""
        self._index = 0
        self._batch_end = position

    def metadata(self, context: TaskContext) -> str:
        """What is committed beside the position: its clock."""
        return encode_clocks([context.origin_ms if self.writer is None else self.origin_ms])

    def claim(self, partitions: Mapping[str, int]) -> Claim:
        """What has to end where it does for nothing more to come; `partitions` are those of the topics."""
        topic, partition = self.partition
        return frozenset((End(topic, partitions[topic], partition, self.position),))

    def look_again(self, *, expected: bool) -> None:
        """Sees anew what may have changed without a record; `expected`: more will come from here."""

    def add(self, batch: FetchedBatch, end: int | None) -> None:
        """Takes the next batch that was fetched; records at or past end are left out."""
        if end is not None and batch.next_offset > end:
            records = [record for record in batch.records if record.offset < end]
            batch = replace(batch, records=records, next_offset=end)
        self._batches.append(batch)
        if self.head_ms is None:
            self._find_head()

    @property
    def empty(self) -> bool:
        """Whether no record waits; a silence may."""
        return self._index >= len(self._records)

    def listen(self, silences: Silences) -> None:
        """Has silences be part of the partition."""
        self.silences = silences
        self._find_head()

    def fall_silent(self, time_ms: int, data_ms: int) -> None:
        """Puts a silence behind all that was read: from data_ms, where the data ended, time went on to time_ms."""
        assert self.silences is not None
        self.silences.add(Silence(self.position, time_ms), data_ms)
        self._find_head()

    def skip_to(self, start: int) -> int:
        """Goes on at start, where nothing is buffered and the log begins later than here; returns how many offsets."""
        skipped = start - self.position
        self.position = self._batch_end = start
        return skipped

    def run(self, context: TaskContext, records_max: int) -> int:
        """Runs up to records_max records of the batch at hand through the chain, or a silence; returns how many.

        The first one is not past the limit.
        """
        part = self._records[self._index : self._index + records_max]
        silences = self.silences
        if silences is not None and silences.next_offset <= (part[-1].offset if part else self.position):
            if not part or part[0].offset >= silences.next_offset:
                self._pass(silences.take(), context)
                self._find_head()
                return 0
            part = [record for record in part if record.offset < silences.next_offset]
        left = self.run_records(context, part)
        if left:
            part = part[:-left]
        self.origin_ms = context.origin_ms
        self._index += len(part)
        self.position = part[-1].offset + 1
        self._find_head()
        return len(part)

    def run_until(self, context: TaskContext, limit_ms: int, records_max: int) -> int:
        """Runs the next record and those after it while they are not younger than limit_ms; returns how many."""
        limit = min(limit_ms, self.limit_ms)
        count = self.run(context, self._ready(limit, records_max))
        while self.head_ms is not None and self.head_ms <= limit and count < records_max:
            count += self.run(context, self._ready(limit, records_max - count))
        return count

    def _pass(self, time_ms: int, context: TaskContext) -> None:
        """Takes a silence, up to time_ms, for what a record of that time is to the clocks."""
        self.origin_ms = max(self.origin_ms, time_ms)
        if self.writer is None and time_ms > context.origin_ms:
            context.record, context.source = None, self.partition
            context.origin_ms = context.stream_time_ms = time_ms
            if time_ms >= context.next_close_ms:
                context.close_windows()
            if time_ms >= context.stream_calls.next_ms:
                context.stream_calls.run(time_ms)

    def _ready(self, limit_ms: float, records_max: int) -> int:
        """How many records of the batch at hand are known not to be younger than limit_ms, but the next in any case."""
        if self._decoding.timestamp is not None:
            return 1
        records, first = self._records, self._index
        last, end = first + 1, min(len(records), first + records_max)
        while last < end and records[last].timestamp <= limit_ms:
            last += 1
        return last - first

    def _find_head(self) -> None:
        while self._index >= len(self._records):
            # Decoded here and not before: what waits is bytes, which the garbage collector does not look at.
            if records := list(islice(self._walk, _DECODED)):
                self._records, self._index = records, 0
                break
            # Past control records, and past what compaction left out.
            self.position = max(self.position, self._batch_end)
            if not self._batches:
                self._records, self._index, self.head_ms = (), 0, self._silence_before(self.position)
                return
            batch = self._batches.popleft()
            self._walk, self.leader_epoch = chain(batch.records), batch.leader_epoch  # else it cannot be resumed
            self._batch_end = batch.next_offset
        record = self._records[self._index]
        silence_ms = self._silence_before(record.offset)
        self.head_ms = time_of(record, self._decoding) if silence_ms is None else silence_ms

    def _silence_before(self, offset: int) -> int | None:
        """The time of a silence that comes next, where the next record has that offset, or none is there before it."""
        silences = self.silences
        return silences.next_ms if silences is not None and silences.next_offset <= offset else None

    def run_records(self, context: TaskContext, records: Sequence[RawRecord]) -> int:
        """Runs records through the chain; returns how many are left, where the next is past the limit.

        Errors look for `record` in this frame (failure).
        """
        if self.together is not None and self.writer is None:
            taken = self.run_together(self.together, context, records)
            if taken == len(records):
                return 0
            records = records[taken:]
        decode_key, decode_value = self._decoding.decode_key, self._decoding.decode_value
        extract: Callable[[Any], Any] | None = self._decoding.timestamp
        forward = self._forward
        context.source = self.partition
        alone = self.writer is None
        if not alone:
            context.origin_ms = max(self.origin_ms, context.stream_time_ms)
        origin_ms, calls, limit_ms = context.origin_ms, context.stream_calls, self.limit_ms
        future, time_max = self._decoding.future, _TIME_MAX
        if future is not None:
            time_max = min(_TIME_MAX, future.now_ms() + future.ahead_ms + 1)
        rest = iter(records)
        in_chain = False
        record = records[0]
        while True:
            try:
                for record in rest:
                    in_chain = False
                    raw = record.value
                    value = None if raw is None else decode_value(raw)
                    raw = record.key
                    key = None if raw is None else decode_key(raw)
                    timestamp_ms = record.timestamp
                    if extract is not None and value is not None:
                        when = extract(value)
                        timestamp_ms = when if when.__class__ is int else to_timestamp_ms(when)
                        if future is not None and timestamp_ms - record.timestamp > future.ahead_ms:
                            raise _wrong_time(timestamp_ms, future, record.timestamp)
                    if not 0 <= timestamp_ms < time_max:
                        raise _wrong_time(timestamp_ms, future)
                    # From here on an exception is the chain's, not the record's.
                    in_chain = True
                    context.record = record
                    if timestamp_ms > origin_ms:
                        if timestamp_ms > limit_ms and record is not records[0]:
                            return length_hint(rest) + 1
                        context.origin_ms = origin_ms = timestamp_ms
                        if alone:
                            context.stream_time_ms = timestamp_ms
                            if timestamp_ms >= context.next_close_ms:
                                context.close_windows()
                                context.record = record
                            if timestamp_ms >= calls.next_ms:
                                forward(key, value, timestamp_ms)
                                calls.run(timestamp_ms)
                                continue
                    forward(key, value, timestamp_ms)
            except Exception as error:  # noqa: BLE001 - raised again where a policy says so
                if in_chain:
                    context.failed(error)
                    if context.stream_time_ms >= calls.next_ms:
                        calls.run(context.stream_time_ms)
                else:
                    self._bad(record, self.partition, error)
                    context.drop("bad_record")
            else:
                return 0

    def run_together(self, together: Together, context: TaskContext, records: Sequence[RawRecord]) -> int:
        """Runs what can be run together; returns how many that were: the next may be one that only `run_records` knows.

        What is wrong with a record, or unusual, is found one by one, and the first is exempt from the limit there.
        """
        raw_keys, raw_values = list(map(_key, records)), list(map(_value, records))
        decoding = self._decoding
        if decoding.future is not None or not all(raw_keys) or not all(raw_values):
            return 0
        try:
            keys = list(map(decoding.decode_key, raw_keys))
            values = list(map(decoding.decode_value, raw_values))
            times: list[Any] = list(map(decoding.timestamp or _timestamp, values if decoding.timestamp else records))
        except Exception:  # noqa: BLE001 - the user's functions: it will come again, and is reported there
            return 0
        if set(map(type, times)) != {int} or min(times) < 0 or max(times) >= min(_TIME_MAX, self.limit_ms):
            return 0
        context.source = self.partition
        taken = together(keys, values, times, records)
        if taken:
            context.record = records[taken - 1]
        return taken


def time_of(record: RawRecord, decoding: Decoding) -> int:
    """A record's time, for choosing among inputs; one that cannot be read counts with the log's time."""
    extract = decoding.timestamp
    if extract is None or record.value is None:
        return record.timestamp
    try:
        time_ms = to_timestamp_ms(extract(decoding.decode_value(record.value)))
    except Exception:  # noqa: BLE001 - the user's function and decoder: reported when the record is run
        return record.timestamp
    future = decoding.future
    readable = time_ms < _TIME_MAX and (
        future is None or time_ms - min(future.now_ms(), record.timestamp) <= future.ahead_ms
    )
    return time_ms if readable else record.timestamp


def taken(record: RawRecord, decoding: Decoding, ahead_ms: int | None) -> tuple[Any, Any, int]:
    """Key, value and time of a record that a task has taken; raises where it cannot have.

    Of what `max_future`, ahead_ms, says only the half that does not go by when it was read (see `Future`).
    """
    key = None if record.key is None else decoding.decode_key(record.key)
    value = None if record.value is None else decoding.decode_value(record.value)
    extract = decoding.timestamp
    timestamp_ms = record.timestamp if extract is None or value is None else to_timestamp_ms(extract(value))
    if not 0 <= timestamp_ms < _TIME_MAX or (ahead_ms is not None and timestamp_ms - record.timestamp > ahead_ms):
        raise _wrong_time(timestamp_ms, None)
    return key, value, timestamp_ms


def to_timestamp_ms(when: object) -> int:
    """Milliseconds since the epoch of an aware datetime or an int; WrongTimeError for anything else."""
    if isinstance(when, int) and not isinstance(when, bool):
        return when
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise WrongTimeError(f"its timestamp {when} has no time zone")
        # Not timestamp() * 1000: floating point would lose a millisecond now and then.
        seconds = int(when.replace(microsecond=0).timestamp())
        return seconds * 1000 + when.microsecond // 1000
    told = shown(when)
    if isinstance(when, Coroutine):
        when.close()  # else Python warns of it too
    raise WrongTimeError(f"its timestamp is {told}: an aware datetime or int milliseconds are wanted")


def _wrong_time(timestamp_ms: int, future: Future | None, own_ms: int | None = None) -> WrongTimeError:
    if future is None or not 0 <= timestamp_ms < _TIME_MAX:
        return WrongTimeError(f"its timestamp is {timestamp_ms} ms: before 1970, or past the year 9999")
    ahead_ms, of = timestamp_ms - future.now_ms(), "the wall clock"
    if own_ms is not None and ahead_ms <= future.ahead_ms:
        ahead_ms, of = timestamp_ms - own_ms, "the time that the record was written with"
    return WrongTimeError(
        f"its timestamp is {timestamp_ms} ms, {format_ms(ahead_ms)} ahead of {of}, and max_future allows "
        f"{format_ms(future.ahead_ms)}"
    )
