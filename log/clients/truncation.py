"""Positions that a crash has overtaken: what was read was not on disk yet, and other records stand there by now.

A commit puts on disk what its offsets say was read, but not with `flush="os"`; and a log may have offsets of a time
before that. A position is kept with the leader epoch of the record before it. Each opening begins an epoch where the
log ends then; so a position past the end of its epoch stands for records that are gone, and who went on there would
leave out what was written in their place. Kafka's consumers find it out the same way (KIP-320,
SubscriptionState.maybeCompleteValidation).
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
