"""What a start says when something is gone that the app needs: a topic of its own, or what it had read.

1. What stores would be wrong without is refused, and the message names `tailrace reset`.
2. An input that was deleted and made anew while the app was stopped is read as `reset=` says, with a warning: its
   records are others, and its offsets went with it. So is told an output that is gone, and what was in it.
3. Offsets that somebody set by hand fit the stores as he may know: that is told, too.

Not here: offsets that were deleted (topics), what happens under a running app (topics_in_use).
"""

import logging
from collections.abc import Collection, Container, Mapping
from typing import Final, Literal

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.errors import InvalidError, TopologyError
from tailrace.log.record import TopicPartition
from tailrace.state.store import Backend
from tailrace.streams.chain.clocks import decode_clocks
from tailrace.streams.chain.markers import MARKER, decode_known
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.streams.planning.topics import StoreOf
from tailrace.streams.planning.topics_in_use import BEGIN_ANEW, Use

_logger = logging.getLogger(__name__)
# What a reset commits in place of clocks until it is finished: those are base64, which has no such character.
BROKEN_OFF: Final = "!reset"
# Partitions in a warning.
_NAMED = 5


def look_at_topics_made_anew(
    anew: Mapping[str, Use],
    app: str,
    begun: Container[str],
    reset: Literal["earliest", "latest"],
    backing: Container[str] = (),
) -> None:
    """Tells of inputs that are other ones than in the last run; `begun` are the topics that have committed offsets.

    backing: the topics that tables are restored from.

    Raises:
        TopologyError: one of the app's own topics was deleted.
    """
    for name, use in anew.items():
        if use.kind == "input" and name not in begun:  # else somebody has said where to go on in the new one
            _logger.warning(
                "topic %r was deleted and made anew since app %r ran last (%s): the app reads the new one from its %s "
                "(reset=%r), and %s keep what they hold of the old one; to leave that out, %s",
                name,
                app,
                use.told,
                "beginning" if reset == "earliest" else "end",
                reset,
                'all its stores but the table with changelog="source"' if name in backing else "its stores",
                BEGIN_ANEW,
            )
        elif use.kind == "output":
            _logger.warning(
                "topic %r was deleted since app %r ran last (%s): what the app had written there is gone and is not "
                "written again, it goes on from its last commit; to have all of it made again, %s",
                name,
                app,
                use.told,
                BEGIN_ANEW,
            )
    own = {name: use for name, use in anew.items() if use.kind in {"changelog", "rows"}}
    for name, use in own.items() if begun else ():
        lost = "the store" if use.kind == "changelog" else "rows that were on their way"
        raise TopologyError(
            f"topic {name!r} was deleted since app {app!r} ran last ({use.told}): {lost} cannot be made again, as what "
            f"that came from has been read; {BEGIN_ANEW}"
        )


def refuse_rows_left_behind(
    log: Log, app: str, committed: Mapping[TopicPartition, CommittedOffset], used: Container[str]
) -> None:
    """Refuses to leave rows unread in repartitions that the program has no more; `used` are the topics that it has.

    Raises:
        TopologyError: there are some.
    """
    there = set(log.topics(internal=True))
    for partition, found in sorted(committed.items()):
        name = partition.topic
        if name in used or name not in there or not name.startswith(f"{app}-") or not name.endswith("-repartition"):
            continue
        if not log.describe_topic(name).internal:
            continue
        left = _rows_from(ChangelogReader(log, partition), found.offset)
        if left:
            raise TopologyError(
                f"{partition} has {left} rows that are on their way to a part of app {app!r} that is not in the "
                "program any more, as something was renamed or taken out since it ran last: what they were made of has "
                'been read, so they would be lost; run the program as it was to the end once more (run(until="end")), '
                f"then this one; or delete the topic, to go on without them; or {BEGIN_ANEW}"
            )


def _rows_from(reader: ChangelogReader, offset: int) -> int:
    """How many rows stand in a repartition from an offset on, without markers."""
    return sum(
        not (record.headers and record.headers[0][0] == MARKER)
        for batch in reader.batches(max(offset, reader.start_offset))
        for record in batch.records
    )


def refuse_strange_clocks(read: Mapping[TopicPartition, CommittedOffset], app: str) -> None:
    """Raises TopologyError where what was committed beside an offset is not of an app."""
    for partition, found in read.items():
        try:
            if decode_known(found.metadata) is None:
                decode_clocks(found.metadata)
        except InvalidError as error:
            raise TopologyError(
                f"{partition}: the offset of app {app!r} was committed by something else: its metadata "
                f"{found.metadata[:40]!r} holds no clocks ({error.__cause__}); set it with "
                f"log.alter_offsets({app!r}, …) to go on from there without them, or {BEGIN_ANEW}"
            ) from error


def tell_offsets_set_by_hand(
    read: Mapping[TopicPartition, CommittedOffset], stores: Collection[StoreOf], app: str
) -> None:
    """Warns of inputs of stores whose offsets come without the clock that an app commits with them.

    `stores` are those that have content.
    """
    altered = [f"{partition} ({found.offset})" for partition, found in sorted(read.items()) if not found.metadata]
    if altered and stores:
        _logger.warning(
            "the offsets of app %r in %s were set since it ran last, by log.alter_offsets for example, and its stores "
            "(%s) hold what they held: what is read again counts twice there, what is skipped is missing; for stores "
            "that fit, %s",
            app,
            ", ".join(altered[:_NAMED]) + (f" and {len(altered) - _NAMED} more" if altered[_NAMED:] else ""),
            ", ".join(sorted({store.name for store in stores})),
            BEGIN_ANEW,
        )


def refuse_other_changelog(backend: Backend, store: StoreOf, changelog: ChangelogReader, app: str) -> None:
    """Raises TopologyError where the store was written from a topic that is gone, and the input has been read."""
    checkpoint = backend.keyspace(store.name).checkpoint()
    if checkpoint is not None and checkpoint.topic_id != changelog.topic_id:
        raise TopologyError(
            f"the changelog of store {store.name!r} (at {store.of.place}), {changelog.partition.topic}, was "
            f"deleted since app {app!r} ran last: what the store holds on disk is not in it, and what that "
            f"was made of has been read; {BEGIN_ANEW}"
        )


def refuse_cut_changelog(backend: Backend, store: StoreOf, changelog: ChangelogReader) -> None:
    """Raises TopologyError where records are gone that the store would need, and nothing expires in it."""
    checkpoint = backend.keyspace(store.name).checkpoint()
    if not store.retention_ms and changelog.start_offset > (checkpoint.offset if checkpoint is not None else 0):
        raise TopologyError(
            f"the changelog of store {store.name!r} (at {store.of.place}), {changelog.partition}, begins at offset "
            f"{changelog.start_offset}: what stood before was deleted, and entries of the store with it; "
            f"its topic should have cleanup.policy=compact, as it was made; {BEGIN_ANEW}"
        )


def refuse_broken_off(app: str, committed: Mapping[TopicPartition, CommittedOffset]) -> None:
    """Raises TopologyError where a reset was begun and not finished."""
    if any(each.metadata == BROKEN_OFF for each in committed.values()):
        raise TopologyError(
            f"a reset of app {app!r} was broken off half way, so some of its state may be gone and some not: run it "
            "again, with `tailrace reset` or app.reset(dry_run=False), or, of a replay, discard()"
        )
