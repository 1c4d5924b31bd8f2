"""`earliest|latest|OFFSET|TIME`: a place in a topic as the command line writes it, as an offset for each partition."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from tailrace.cli.errors import UsageError
from tailrace.log.client import Log
from tailrace.log.record import TopicPartition

METAVAR: Final = "earliest|latest|OFFSET|TIME"


def positions(log: Log, topic: str, where: str, option: str) -> Mapping[TopicPartition, int]:
    """Find the place in every partition of a topic.

    An offset outside of what a partition holds means its nearest end. A time is the first record at or after it, the
    end where there is none; without a zone it is UTC.

    Raises:
        UsageError: `where` is none of the four; `option` is named.
        TopicNotFoundError: there is no such topic.
    """
    if where == "earliest":
        return log.offsets(topic, "earliest")
    if where == "latest":
        return log.offsets(topic)
    if where.isascii() and where.isdecimal():
        starts, ends = log.offsets(topic, "earliest"), log.offsets(topic)
        return {each: min(max(int(where), starts[each]), end) for each, end in ends.items()}
    try:
        when = datetime.fromisoformat(where)
    except ValueError:
        raise UsageError(
            f"{option} wants earliest, latest, an offset or a time such as 2026-11-21T12:00:00Z, not {where!r}"
        ) from None
    return log.offsets(topic, when if when.tzinfo else when.replace(tzinfo=UTC))
