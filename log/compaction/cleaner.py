"""When which partition is cleaned, and what is remembered of it: the log's own broom.

1. A partition of a compacted topic is due when at least `min.cleanable.dirty.ratio` of its closed segments' bytes were
   never cleaned, when a record of these is older than `max.compaction.lag.ms`, or when tombstones may go. The one with
   the largest share comes first.
2. `cleaner-offset-checkpoint` has, per partition, the offset below which all was clean: Kafka's file. To forget it, or
   to believe an older one, costs work and no record.
3. One cleaning at a time. One that fails leaves the partition as it is, is logged, and is not tried again by itself
   before the log is opened anew; a full disk is tried again.

Not here: what a cleaning does (`compaction`), the thread that calls this (`broker`).
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from tailrace.log import checkpoint
from tailrace.log.clock import Clock
from tailrace.log.compaction.cleaning import BUDGET_BYTES, Cleaned, clean
from tailrace.log.disk import Disk, join
from tailrace.log.errors import CorruptError, DiskFullError, InvalidError, TailraceError
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import INT64_MAX

PAUSE_S: Final = 0.0001  # long enough for a thread that waits for the interpreter to get it

logger = logging.getLogger(__name__)


class StoppedError(Exception):
    """The log is being closed: the cleaning ended where it was."""


class Cleaner:
    """Cleans the partitions of one log. Any thread may call."""

    def __init__(self, disk: Disk, clock: Clock, path: str, *, budget_bytes: int = BUDGET_BYTES) -> None:
        """Reads what was clean when the log was closed; a file that cannot be read counts for nothing."""
        self._disk = disk
        self._clock = clock
        self._file = join(path, checkpoint.CLEANER_OFFSETS)
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._due: dict[TopicPartition, int] = {}
        self._failed: dict[TopicPartition, Partition] = {}
        try:
            self._clean_to = checkpoint.read_offsets(disk, self._file)
        except (CorruptError, InvalidError, ValueError) as error:
            logger.warning("%s: what was compacted before is not known, and looked at again: %s", path, error)
            self._clean_to = {}

    def stop(self) -> None:
        """Ends the cleaning that runs, and those to come."""
        self._stop.set()

    def clean_due(self, partitions: Callable[[], Iterable[Partition]]) -> list[TopicPartition]:
        """Cleans every partition that is due, the dirtiest first; returns which."""
        cleaned: list[TopicPartition] = []
        shares: list[tuple[float, TopicPartition, Partition]] = []
        for partition in partitions():
            share = self._share_due(partition)
            if share is not None:
                shares.append((share, partition.tp, partition))
        for _, tp, partition in sorted(shares, key=lambda each: each[:2], reverse=True):
            try:
                self.clean(partition)
                cleaned.append(tp)
            except StoppedError:
                break
            except DiskFullError as error:
                logger.warning("%s: not compacted now, and tried again later: %s", tp, error)
            except (OSError, TailraceError) as error:
                self._failed[tp] = partition
                logger.warning("%s: could not be compacted, and is left as it is until the next start: %s", tp, error)
            except Exception:  # whatever a cleaning stumbles over, the log goes on
                self._failed[tp] = partition
                logger.exception("%s: could not be compacted, and is left as it is until the next start", tp)
        return cleaned

    def _share_due(self, partition: Partition) -> float | None:
        """The share of its bytes that were never cleaned, where it is due."""
        config, tp = partition.config, partition.tp
        if not config.compacted or self._failed.get(tp) is partition:
            return None
        try:
            segments = partition.cleanable_segments()
            first_dirty = self._first_dirty(partition)
            every = sum(size for _, size in segments)
            dirty = [(base, size) for base, size in segments if base >= first_dirty]
            share = sum(size for _, size in dirty) / every if every else 0.0
            now_ms = self._clock.now_ms()
            due = self._due.get(tp, INT64_MAX) <= now_ms
            if dirty and not due and config.max_compaction_lag_ms < INT64_MAX:
                due = partition.first_timestamp_ms(dirty[0][0]) < now_ms - config.max_compaction_lag_ms
        except TailraceError:  # deleted just now, or closed for writing
            return None
        return share if due or (share > 0 and share >= config.min_cleanable_dirty_ratio) else None

    def _first_dirty(self, partition: Partition) -> int:
        clean_to = self._clean_to.get(partition.tp, 0)
        return clean_to if clean_to <= partition.log_end_offset else 0  # above: of a partition that was before

    def clean(self, partition: Partition) -> Cleaned:
        """Cleans one partition now, whatever its share.

        Raises:
            StoppedError: the log is being closed.
            TailraceError, OSError: see `compaction.clean`.
        """
        with self._lock:
            tp, begun = partition.tp, self._clock.monotonic()
            done = clean(
                self._disk,
                self._clock,
                partition,
                self._first_dirty(partition),
                breathe=self._breathe,
                budget_bytes=self._budget_bytes,
            )
            self._due.pop(tp, None)
            if done.due_ms is not None:
                self._due[tp] = done.due_ms
            if done.bytes_before:
                logger.info(
                    "%s: compacted below offset %d in %.1f s: %d of %d records and %d of %d bytes stay",
                    tp,
                    done.next_offset,
                    self._clock.monotonic() - begun,
                    done.records_after,
                    done.records_before,
                    done.bytes_after,
                    done.bytes_before,
                )
            if done.next_offset != self._clean_to.get(tp, 0):
                self._clean_to[tp] = done.next_offset
                checkpoint.write_offsets(self._disk, self._file, self._clean_to)
            return done

    def _breathe(self) -> None:
        if self._stop.wait(PAUSE_S):
            raise StoppedError

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Forgets partitions that are gone: another of the same name begins anew."""
        with self._lock:
            gone = [self._clean_to.pop(tp, None) for tp in partitions]
            for tp in partitions:
                self._due.pop(tp, None)
                self._failed.pop(tp, None)
            if any(each is not None for each in gone):
                checkpoint.write_offsets(self._disk, self._file, self._clean_to)
