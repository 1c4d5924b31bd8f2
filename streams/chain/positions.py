"""Where reading begins: the first position of an input partition, and a changelog from an offset to its end.

1. A position is between the partition's start and the end of the leader epoch that it was committed in.

Not here: restoring (tailrace.state.restore).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from tailrace.log.client import CommittedOffset, FetchedBatch, Log, TransactionDescription
from tailrace.log.errors import RetriableError, TailraceError
from tailrace.log.record import TopicPartition

_logger = logging.getLogger(__name__)

# Partitions in a warning.
_NAMED = 5
# Everything up to the end of a changelog is there to be read: what takes longer is worth a word.
_STALLED_S = 10.0


Deleted = Callable[[TopicPartition, str, int, int], None]
"""Hears of a partition that an app was to go on reading at an offset, and that begins later by now."""


class FirstPosition(NamedTuple):
    """Where an app begins to read a partition, and how many offsets before it were deleted unread."""

    offset: int
    deleted: int = 0


def first_position(
    log: Log,
    app: str,
    reset: Literal["earliest", "latest"],
    partition: TopicPartition,
    found: CommittedOffset | None,
    *,
    tell: bool = True,
) -> FirstPosition:
    """The offset at which an app begins to read a partition; `found` is what it had committed.

    Records that are gone (deleted before they were read, or taken by a crash after they were) are told in a warning.
    """
    start = log.offsets(partition.topic, "earliest")[partition]
    if found is None:
        end = log.offsets(partition.topic, "latest")[partition]
        return FirstPosition(start if reset == "earliest" else end)
    end = log.offsets(partition.topic, "latest")[partition]
    if found.leader_epoch >= 0:
        end = min(end, log.end_of_epoch(partition, found.leader_epoch))
    if found.offset < start:
        if tell:
            warn_deleted(partition, app, found.offset, start)
        return FirstPosition(start, start - found.offset)
    if found.offset > end and tell:
        _logger.warning(
            "%s: app %s had read up to %d, but a crash took the records from %d on, which were not on disk yet; it "
            "goes on at %d with what was written instead",
            partition,
            app,
            found.offset,
            end,
            end,
        )
    return FirstPosition(min(found.offset, max(end, start)))


def tell_what_is_behind_transactions(log: Log, app: str, ends: Mapping[TopicPartition, int]) -> None:
    """Warns of open transactions at which a run to the ends stops: what lies behind them is not read."""
    held: list[str] = []
    for topic in sorted({partition.topic for partition in ends}):
        there = log.offsets(topic, isolation="read_uncommitted")
        if any(ends.get(partition, end) < end for partition, end in there.items()):
            held += [
                f"{each.partition} at offset {ends[each.partition]} of {there[each.partition]}, by {_whose(each)}"
                for each in log.open_transactions(topic)
                if ends.get(each.partition, -1) == each.first_offset
            ]
    if held:
        more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
        _logger.warning(
            "app %s stops before the end of its inputs, where a transaction is open that holds up who reads what is "
            "committed (%s%s): what lies behind it is read by the next run, once it is committed or aborted",
            app,
            "; ".join(held[:_NAMED]),
            more,
        )


def _whose(transaction: TransactionDescription) -> str:
    name = transaction.transactional_id
    return f"{'an unknown producer' if name is None else repr(name)}, open for {transaction.age_ms} ms"


def warn_deleted(partition: TopicPartition, app: str, position: int, start: int) -> None:
    """Tells that an app was to go on at position, and the log begins at start by now."""
    _logger.warning(
        "%s: records %d to %d were deleted before app %s had read them; it goes on at %d",
        partition,
        position,
        start - 1,
        app,
        start,
    )


class BrokenOffError(TailraceError):
    """Restoring was broken off: its result is not wanted any more."""


class UnsettledError(RetriableError):
    """What ran a task before has left something open: the task may begin when that is committed or aborted."""


class ChangelogReader:
    """One partition of a changelog, from the log; see `tailrace.state.restore.Changelog`."""

    def __init__(self, log: Log, partition: TopicPartition, unwanted: threading.Event | None = None) -> None:
        """`unwanted` is set when what reads here is to be broken off."""
        self._log = log
        self._unwanted = unwanted or threading.Event()
        self.partition = partition
        self.leader_epoch = log.leader_epoch(partition)
        topic = log.describe_topic(partition.topic)
        self.topic_id = topic.topic_id
        self.deletions_kept_ms = int(topic.config["delete.retention.ms"])
        self.start_offset = log.offsets(partition.topic, "earliest")[partition]
        self.end_offset = log.offsets(partition.topic, "latest")[partition]

    def __str__(self) -> str:
        return str(self.partition)

    def epoch_end(self, leader_epoch: int, /) -> int:
        """The first offset written after an epoch."""
        return self._log.end_of_epoch(self.partition, leader_epoch)

    def batches(self, offset: int, /) -> Iterator[FetchedBatch]:
        """Batches from offset to the end; raises BrokenOffError."""
        with self._log.consumer(reset="earliest") as consumer:
            consumer.assign([self.partition])
            consumer.seek(self.partition, offset)
            while (position := consumer.position(self.partition)) < self.end_offset:
                if self._unwanted.is_set():
                    raise BrokenOffError(f"the restore from {self.partition} was broken off at offset {position}")
                batches = consumer.poll_batches(_STALLED_S)
                if not batches:
                    _logger.warning(
                        "the restore from %s stands at offset %d of %d: %s",
                        self.partition,
                        position,
                        self.end_offset,
                        self._stalled(),
                    )
                yield from batches

    def _stalled(self) -> str:
        """Why nothing can be read."""
        stable, written = (
            self._log.offsets(self.partition.topic, isolation=isolation)[self.partition]
            for isolation in ("read_committed", "read_uncommitted")
        )
        if written < self.end_offset:
            return f"it ends at {written} now, as somebody has cut it; stop the app, and run `tailrace log verify`"
        if stable < self.end_offset:
            return f"readers come to {stable}, as a transaction is open there ({open_in(self._log, self.partition)})"
        return "it cannot be read there, and nothing is open; run `tailrace log verify`"


def open_in(log: Log, partition: TopicPartition) -> str:
    """Which transactions hold up who reads what is committed of a partition."""
    found = [each for each in log.open_transactions(partition.topic) if each.partition == partition]
    told = ", ".join(f"{each.transactional_id} for {each.age_ms} ms" for each in found)
    return told or "its end is not on disk yet"
