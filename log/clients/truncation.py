"""Positions whose records are gone: a crash has taken them, retention, or who deleted the topic and made it anew.

A commit puts on disk what its offsets say was read, but not with `flush="os"`; and a log may have offsets of a time
before that. A position is kept with the leader epoch of the record before it. Each opening begins an epoch where the
log ends then; so a position past the end of its epoch stands for records that are gone, and who went on there would
leave out what was written in their place. Kafka's consumers find it out the same way (KIP-320,
SubscriptionState.maybeCompleteValidation). Who goes on elsewhere than he was is told, whatever the reason.
"""

import logging

from tailrace.log.client import CommittedOffset, Reset
from tailrace.log.errors import InvalidError
from tailrace.log.partition.partition import Partition

logger = logging.getLogger(__name__)


def still_there(log: Partition, group: str | None, committed: CommittedOffset, reset: Reset) -> int:
    """Where to go on: the committed offset, or the end of its epoch where that comes first, with a warning.

    Raises:
        InvalidError: it comes first, and reset is "none".
    """
    end = log.end_of_epoch(committed.leader_epoch) if committed.leader_epoch >= 0 else -1
    if end < 0 or committed.offset <= end:  # or of an epoch that is still to come, in a log that was put back
        return committed.offset
    told = (
        f"{log.tp}: group {group!r} had read up to {committed.offset}, but a crash took the records from {end} on, "
        "which were not on disk yet"
    )
    if reset == "none":
        raise InvalidError(f'{told}, and reset="none": seek to {end} to read what was written instead')
    logger.warning("%s; it goes on at %d with what was written instead", told, end)
    return end


def in_range(log: Partition, group: str | None, position: int, reset: Reset, end: int) -> int:
    """Where to go on from a position that the log does not have: where `reset` says, with a warning; `end` is that one.

    Raises:
        InvalidError: reset is "none".
    """
    start, last = log.log_start_offset, log.log_end_offset
    if reset == "none":
        raise InvalidError(
            f'{log.tp}@{position} is not in the log, which has {start} to {last}, and reset="none": seek to an offset '
            "in that range"
        )
    to = start if reset == "earliest" else end
    gone = f"records {position} to {start - 1} were deleted" if position < start else f"the log has {start} to {last}"
    if group is None:  # nothing had been promised: whoever reads without a group goes where he likes
        logger.info("%s: a consumer was at %d, and %s; it goes on at %d (reset=%r)", log.tp, position, gone, to, reset)
    else:
        logger.warning(
            "%s: group %r was at %d, and %s; it goes on at %d (reset=%r)", log.tp, group, position, gone, to, reset
        )
    return to


def in_topic_made_anew(log: Partition, group: str | None, position: int, reset: Reset, end: int) -> int:
    """Where to go on when the topic of a position was deleted and made anew: where `reset` says, with a warning.

    Raises:
        InvalidError: reset is "none".
    """
    told = f"{log.tp}: its topic was deleted and made anew, with other records at the same offsets"
    if reset == "none":
        raise InvalidError(f'{told}, and reset="none": seek to where the new one is to be read from')
    to = log.log_start_offset if reset == "earliest" else end
    who = "a consumer" if group is None else f"group {group!r}"
    logger.warning("%s; %s, which was at %d of the old one, goes on at %d (reset=%r)", told, who, position, to, reset)
    return to
