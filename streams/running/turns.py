"""Whose turn it is to be read: a source partition waits for others that are behind it in event time (`max_skew`).

Tasks of one app that sit in different members, or lanes, would else run apart over a backlog, each as fast as it can.
No result would be wrong, as readers of repartitions go by the slowest; all windows in between would be open at once.

1. No record is run that is later by more than the skew than the slowest partition that has data. How far a partition of
   this member is, is told by the record that waits; of another's, by what it has committed: its clock, and where that
   is behind, the record that comes next, which stands in the log for all to see.
2. Somebody always goes on: who is behind all others waits for none. A partition without data holds nobody, and neither
   does one that has not moved for SILENT_S: whoever has it is restoring, is at work on one record, or is gone.
3. A partition of another that keeps up with what comes holds nobody either, however old its records are: seen by its
   commits it always has some data. It keeps up while it is never for KEEPS_UP_S short of where it ended before.
4. Only sources wait. What is in repartitions is of records that were run.

Not here: which of those whose turn it is comes first (rounds).
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from math import inf

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import Clock
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.clocks import NEVER, decode_clocks
from tailrace.streams.chain.source import Decoding, time_of
from tailrace.streams.task import Task
from tailrace.windows.duration import format_ms

# How often others are looked at.
LOOK_S = 0.02
# Well above a commit interval, and what waiting for somebody who is not there may cost.
SILENT_S = 5.0
# A few commits that come soon; where these are further apart, two of them.
KEEPS_UP_S = 0.5
# After which it is told what is waited for, once.
_TOLD_S = 1.0

_logger = logging.getLogger(__name__)


class Turns:
    """See the module's docstring.

    decodings has the topics that the app reads, but for repartitions; commits are commit_s apart at most.
    """

    def __init__(
        self, log: Log, clock: Clock, app: str, decodings: Mapping[str, Decoding], skew_ms: int, commit_s: float
    ) -> None:
        self._log = log
        self._clock = clock
        self._app = app
        self._decodings = decodings
        self._skew_ms = skew_ms
        self._keeps_up_s = max(KEEPS_UP_S, 2 * commit_s)
        self._looked = -LOOK_S
        self._slowest: tuple[int, TopicPartition] | None = None
        """Of the others: time and partition."""
        self._next: dict[TopicPartition, tuple[int, int | None]] = {}
        """What comes next in others' partitions: the offset from which it was looked for, and its time."""
        self._moved: dict[TopicPartition, tuple[int, float]] = {}
        """Where others' partitions were seen first to stand, and when."""
        self._reaches: dict[TopicPartition, tuple[int, float]] = {}
        """Where others' partitions ended when they had last come to such an end, and when that was."""
        self._waits_since: float | None = None
        self._told = False

    def set_limits(self, tasks: Sequence[Task], ends: Mapping[TopicPartition, int] | None) -> None:
        """Says of each source how far it may be read; `ends` is where a run to the end ends."""
        sources = [source for task in tasks for source in task.inputs if source.counted]
        heads = [source.head_ms for source in sources if source.head_ms is not None]
        if not heads:
            return
        if self._clock.monotonic() - self._looked >= LOOK_S:
            self._look({source.partition for source in sources}, max(heads), ends)
        limit_ms = min(heads)
        if self._slowest is not None:
            limit_ms = min(limit_ms, self._slowest[0])
        limit_ms += self._skew_ms
        for source in sources:
            source.limit_ms = limit_ms
        if limit_ms >= min(heads):
            self._waits_since, self._told = None, False

    def waits(self, tasks: Sequence[Task]) -> bool:
        """Whether all that could be run here waits for others; says for whom when it takes long."""
        if self._slowest is None or all(task.head_ms() is None for task in tasks):
            return False
        now = self._clock.monotonic()
        if self._waits_since is None:
            self._waits_since = now
        elif not self._told and now - self._waits_since >= _TOLD_S:
            self._told = True
            _logger.info(
                "app %s waits for another member of it to read %s, which is behind by more than max_skew=%s",
                self._app,
                self._slowest[1],
                format_ms(self._skew_ms),
            )
        return True

    # ------------------------------------------------------------ others

    def _look(
        self, mine: Collection[TopicPartition], furthest_ms: int, ends: Mapping[TopicPartition, int] | None
    ) -> None:
        """Finds the slowest partition of others; furthest_ms is what of ours may have to wait for it."""
        self._slowest = None
        committed: Mapping[TopicPartition, CommittedOffset] | None = None
        now = self._looked = self._clock.monotonic()
        for topic in self._decodings:
            for partition, end in self._log.offsets(topic).items():
                if partition in mine:
                    continue
                if committed is None:
                    committed = self._log.committed_offsets(self._app)
                found = committed.get(partition)
                if found is None or self._keeps_up(partition, found.offset, end, now):
                    continue
                if ends is not None and found.offset >= ends.get(partition, end):
                    continue
                offset, since = self._moved.setdefault(partition, (found.offset, now))
                if offset != found.offset:
                    since = now
                    self._moved[partition] = found.offset, since
                at_ms = self._time_at(partition, found, furthest_ms)
                if at_ms is None or (now - since >= SILENT_S and at_ms + self._skew_ms < furthest_ms):
                    continue
                if self._slowest is None or at_ms < self._slowest[0]:
                    self._slowest = at_ms, partition

    def _keeps_up(self, partition: TopicPartition, offset: int, end: int, now: float) -> bool:
        # Where nothing is known yet, what is there has waited for ever.
        reaches, since = self._reaches.get(partition, (end, -inf))
        if offset >= reaches:
            reaches, since = end, now
            self._moved.pop(partition, None)
        self._reaches[partition] = reaches, since
        return offset >= end or now - since < self._keeps_up_s

    def _time_at(self, partition: TopicPartition, found: CommittedOffset, furthest_ms: int) -> int | None:
        """How far a partition of another is; None where nothing can be read there now."""
        time_ms = decode_clocks(found.metadata)[0] if found.metadata else NEVER
        if time_ms + self._skew_ms >= furthest_ms:
            return time_ms
        offset, next_ms = self._next.get(partition, (-1, None))
        if offset != found.offset:
            next_ms = self._time_of_next(partition, found.offset)
            self._next[partition] = found.offset, next_ms
        return None if next_ms is None else max(time_ms, next_ms)

    def _time_of_next(self, partition: TopicPartition, offset: int) -> int | None:
        with self._log.consumer(reset="earliest") as consumer:
            consumer.assign([partition])
            consumer.seek(partition, offset)
            for batch in consumer.poll_batches(0, 1):
                for record in batch.records:
                    return time_of(record, self._decodings[partition.topic])
        return None


def hold_sources(tasks: Sequence[Task]) -> None:
    """Has no source be read, so that what is in repartitions comes to its end."""
    for task in tasks:
        for source in task.inputs:
            if source.counted:
                source.limit_ms = -inf


def all_read(tasks: Sequence[Task], log: Log) -> bool:
    """Whether what is in the topics of repartitions was read, all of it."""
    return all(
        source.position >= log.offsets(source.partition.topic, isolation="read_uncommitted")[source.partition]
        for task in tasks
        for source in task.inputs
        if not source.counted
    )
