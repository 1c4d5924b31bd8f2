"""Keeps the changelogs of windowed stores as short as the stores: what has expired in stream time is deleted there too.

1. A record is deleted only where its window has expired by a commit, and so has that of every record before it: a
   restore reads the same with it and without it.
2. Nothing at or past the end of the last commit is deleted.
3. Wall time never deletes state; it only says how often we look.

A changelog record has the time of its entry, which is not before its window's start, nor before a session's end. So up
to the first record that is as young as the oldest start to be kept, everything has expired. Where the log cannot do it
now, it is done later. Not here: compaction, which leaves the newest value of each key (log).
"""

import logging
from collections.abc import Iterable

from tailrace.log.client import Log
from tailrace.log.clock import Clock
from tailrace.log.errors import RetriableError
from tailrace.log.record import TopicPartition
from tailrace.streams.task import Task

# Log starts are written to disk, and segments that they leave behind go every five minutes.
INTERVAL_S = 30.0

_logger = logging.getLogger(__name__)


class Trimmer:
    """Trims the changelogs of an app's windowed stores, now and then."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._last = clock.monotonic()
        self._trimmed: dict[TopicPartition, int] = {}
        """By changelog: the stream time, in ms, before which it was trimmed last."""

    def after_commit(self, tasks: Iterable[Task]) -> None:
        """Trims if it is time to. To be called when nothing has run since the commit."""
        if self._clock.monotonic() - self._last >= INTERVAL_S:
            self.trim(tasks)

    def trim(self, tasks: Iterable[Task]) -> None:
        """Trims now what has expired since the last time."""
        self._last = self._clock.monotonic()
        before: dict[TopicPartition, int] = {}
        bounds: dict[TopicPartition, int] = {}
        for task in tasks:
            for store in task.stores:
                expired_ms = store.expired_before_ms(task.context.stream_time_ms)
                if expired_ms > self._trimmed.get(store.changelog, 0):
                    bounds[store.changelog] = expired_ms
                    before[store.changelog] = store.changelog_end
        if not bounds:
            return
        with self._log.consumer() as consumer:
            for changelog, offset in consumer.offsets_for_times(bounds).items():
                if offset is not None:
                    before[changelog] = min(before[changelog], offset)
        try:
            self._log.delete_records(before)
        except RetriableError as error:
            _logger.warning("expired records of changelogs are deleted later: %s", error)
        else:
            self._trimmed.update(bounds)
