"""A switch of names at work: what readers go on from, and the one record that makes it so.

    refused? -> members expelled -> offsets written beside -> the record (here it is decided) -> everybody woken

1. Offsets are kept by what a topic is called on disk. So the ones that readers go on from are written before the
   switch, where nobody looks, and count with the record: before it everything is as it was, and after it everything has
   changed. A crash in between leaves offsets that nobody reads.
2. No offset is committed between the two: the caller holds the locks of the catalog and of commits, and members of the
   groups that read are expelled, so that what they have under way is refused. They join anew, and go on there.
3. A reader that has read everything goes on behind all that is no younger than that; any other at the first record that
   is as young as the oldest that it has not read. So none is skipped; some may be read again.

Not here: names (`aliases`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Protocol

from tailrace.log.client import CommittedOffset
from tailrace.log.codec import batches, decode
from tailrace.log.errors import InvalidError, RetriableError
from tailrace.log.groups.coordinator import Coordinator
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topics.aliases import AliasesRecord
from tailrace.log.topics.catalog import Catalog
from tailrace.log.topics.served import Topic
from tailrace.log.waiting import Waiting

_READ_BYTES = 1 << 20


class Switched(Protocol):
    """What of a log is needed here (`broker`)."""

    @property
    def catalog(self) -> Catalog:
        """Its topics."""
        ...

    @property
    def coordinator(self) -> Coordinator:
        """Its groups."""
        ...

    @property
    def waiting(self) -> Waiting:
        """Who waits for data."""
        ...

    def sync_all(self, logs: Iterable[Partition], /) -> None:
        """Returns when what was appended to these is on disk."""
        ...


def change(log: Switched, wanted: AliasesRecord) -> None:
    """Has names stand for what `wanted` says, and their readers go on there; under the locks named above.

    Raises:
        InvalidError: topics that differ in their partitions, a group that is to be another and has members.
        RetriableError: a transaction is open that writes to these topics, or commits offsets in them; or no room.
    """
    catalog, now = log.catalog, log.catalog.aliases
    names = {each for each in {*now.topics, *wanted.topics} if now.topics.get(each) != wanted.topics.get(each)}
    groups = {each for each in {*now.groups, *wanted.groups} if now.groups.get(each) != wanted.groups.get(each)}
    moved: dict[str, tuple[Topic, Topic]] = {}
    for name in sorted(names):
        before = catalog.find(name)
        after = catalog.place(wanted.topics.get(name, name))
        if before is not None and after is not None:
            _check_fit(name, before, after)
            moved[name] = before, after
    own = {
        *groups,
        *(now.groups.get(each, each) for each in groups),
        *(wanted.groups.get(each, each) for each in groups),
    }
    for group in sorted(own):
        log.coordinator.check_empty(group, "switch the offsets")
    log.coordinator.members.expel(names)
    for before, after in moved.values():
        log.sync_all([*before.logs, *after.logs])  # no offset is committed past what is on disk
        committed = log.coordinator.offsets_of(before.places[0].topic)
        for group, offsets in _carried(before, after, committed).items():
            if group not in own:
                log.coordinator.commit(group, offsets)
    catalog.set_aliases(wanted)
    for name in names:
        log.coordinator.members.topic_changed(name)
    log.waiting.wake_all()


def _check_fit(name: str, before: Topic, after: Topic) -> None:
    # What is internal is read by its app alone, which goes on at offsets of its own.
    if before.partitions != after.partitions and not (before.internal and after.internal):
        raise InvalidError(
            f"{name!r} has {before.partitions} partitions, and {after.name!r} has {after.partitions}: its readers "
            "would look for keys where they are not; give both the same number"
        )
    for topic in (before, after):
        for tp, partition in zip(topic.tps, topic.logs, strict=True):
            if partition.open_transactions():
                raise RetriableError(f"a transaction is open in {tp}, which readers are to leave: wait until it ends")


def _carried(
    before: Topic, after: Topic, committed: Mapping[str, Mapping[TopicPartition, CommittedOffset]]
) -> dict[str, dict[TopicPartition, CommittedOffset]]:
    """What groups that have committed these in `before` are to find for `after`."""
    found: dict[str, dict[TopicPartition, CommittedOffset]] = {group: {} for group in committed}
    for number, (old, new) in enumerate(zip(before.logs, after.logs, strict=False)):
        place = before.places[number]
        offsets = {offsets[place].offset for offsets in committed.values() if place in offsets}
        goes_on = {offset: _at_time(new, wanted_ms) for offset, wanted_ms in _wanted_ms(old, offsets).items()}
        for group, read in committed.items():
            if place in read:
                at = goes_on[read[place].offset]
                found[group][after.places[number]] = CommittedOffset(at, -1, read[place].metadata)
    return found


def carried(before: Partition, after: Partition, offset: int) -> int:
    """Where a reader of `before`, whose next offset this is, goes on in `after`."""
    return _at_time(after, _wanted_ms(before, [offset])[offset])


def _at_time(log: Partition, wanted_ms: int) -> int:
    found = log.offset_for_time(wanted_ms)
    return log.log_end_offset if found is None else found[0]


def _wanted_ms(log: Partition, offsets: Iterable[int]) -> dict[int, int]:
    """By offset the time of the oldest record from there on; where there is none, one that is past all of them."""
    known = sorted(offsets)
    oldest: list[float] = [inf] * len(known)  # between this offset and the next
    if known:
        for offset, time_ms in _times(log, known[0]):
            at = bisect_right(known, offset) - 1
            oldest[at] = min(oldest[at], time_ms)
    found: dict[int, int] = {}
    sofar = inf
    for offset, least in zip(reversed(known), reversed(oldest), strict=True):
        sofar = min(sofar, least)
        found[offset] = log.max_timestamp_ms + 1 if sofar == inf else int(sofar)
    return found


def _times(log: Partition, offset: int) -> Iterator[tuple[int, int]]:
    """Offset and time of each record from an offset on."""
    offset = max(offset, log.log_start_offset)
    while offset < log.log_end_offset and (data := log.read(offset, _READ_BYTES)):
        for header, view in batches(data):
            if not header.control:
                yield from ((each.offset, each.timestamp) for each in decode(view) if each.offset >= offset)
            offset = max(offset, header.next_offset)
