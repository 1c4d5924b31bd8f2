"""Keeps an app's topics short: of changelogs of windowed stores goes what has expired, of repartitions what was read.

1. A record is deleted only where its window has expired by a commit, and so has that of every record before it: a
   restore reads the same with it and without it.
2. Nothing at or past the end of the last commit is deleted.
3. A row or marker of a repartition is deleted only when a commit stands behind it.
4. Wall time never deletes state; it only says how often we look.

A changelog record has the time of its entry, which is not before its window's start, nor before a session's end. So up
to the first record that is as young as the oldest start to be kept, everything has expired. Where the log cannot do it
now, it is done later. Not here: compaction, which leaves the newest value of each key (log).
"""

import logging
from collections.abc import Collection

from tailrace.log.client import Log
from tailrace.log.clock import Clock
from tailrace.log.errors import RetriableError
from tailrace.log.record import TopicPartition
from tailrace.streams.task import Task

# Log starts are written to disk, and segments that they leave behind go every five minutes.
INTERVAL_S = 30.0

_logger = logging.getLogger(__name__)


class Trimmer:
    """Trims the changelogs of an app's windowed stores, and its repartitions, now and then."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._last = clock.monotonic()
        self._trimmed: dict[TopicPartition, int] = {}
        """By changelog: the stream time, in ms, before which it was trimmed last."""
        self._purged: dict[TopicPartition, int] = {}
        """By partition of a repartition: the offset before which it was deleted last."""

    def after_commit(self, tasks: Collection[Task]) -> None:
        """Trims if it is time to. To be called when nothing has run since the commit."""
        if self._clock.monotonic() - self._last >= INTERVAL_S:
            self.trim(tasks)

    def trim(self, tasks: Collection[Task]) -> None:
        """Trims now what has expired or was read since the last time."""
        self._last = self._clock.monotonic()
        before: dict[TopicPartition, int] = {}
        bounds: dict[TopicPartition, int] = {}
        for task in tasks:
            for store in task.stores:
                expired_ms = store.expired_before_ms(task.context.stream_time_ms)
                if expired_ms > self._trimmed.get(store.changelog, 0):
                    bounds[store.changelog] = expired_ms
                    before[store.changelog] = store.changelog_end
        if bounds:
            with self._log.consumer() as consumer:
                for changelog, offset in consumer.offsets_for_times(bounds).items():
                    if offset is not None:
                        before[changelog] = min(before[changelog], offset)
        read = {
            source.partition: source.position
            for source in (source for task in tasks for source in task.inputs if not source.counted)
            if source.position > self._purged.get(source.partition, 0)
        }
        before |= read
        if not before:
            return
        try:
            self._log.delete_records(before)
        except RetriableError as error:
            _logger.warning("expired records of changelogs, and rows that were read, are deleted later: %s", error)
        else:
            self._trimmed.update(bounds)
            self._purged.update(read)
