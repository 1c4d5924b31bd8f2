"""A switch of names at work: what readers go on from, and the one record that makes it so.

    refused? -> members expelled -> offsets written beside -> the record (here it is decided) -> everybody woken

1. Offsets are kept by what a topic is called on disk. So the ones that readers go on from are written before the
   switch, where nobody looks, and count with the record: before it everything is as it was, and after it everything has
   changed. A crash in between leaves offsets that nobody reads.
2. No offset is committed between the two: the caller holds the locks of the catalog and of commits, and members of the
   groups that read are expelled, so that what they have under way is refused. They join anew, and go on there.
3. A reader that has read everything goes on behind all that is no younger than that; any other at the first record that
   is as young as the next one that it has not read. So none is skipped; some of that very time may be read again.

Not here: names (`aliases`).
"""

from collections.abc import Iterable, Mapping
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

_READ_BYTES = 1 << 16


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
        for group, offsets in log.coordinator.offsets_of(before.places[0].topic).items():
            if group not in own:
                log.coordinator.commit(group, _carried(before, after, offsets))
    catalog.set_aliases(wanted)
    for name in names:
        log.coordinator.members.topic_changed(name)
    log.waiting.wake_all()


def _check_fit(name: str, before: Topic, after: Topic) -> None:
    if before.partitions != after.partitions:
        raise InvalidError(
            f"{name!r} has {before.partitions} partitions, and {after.name!r} has {after.partitions}: its readers "
            "would look for keys where they are not; give both the same number"
        )
    for topic in (before, after):
        for tp, partition in zip(topic.tps, topic.logs, strict=True):
            if partition.open_transactions():
                raise RetriableError(f"a transaction is open in {tp}, which readers are to leave: wait until it ends")


def _carried(
    before: Topic, after: Topic, offsets: Mapping[TopicPartition, CommittedOffset]
) -> dict[TopicPartition, CommittedOffset]:
    return {
        after.places[tp.partition]: CommittedOffset(
            carried(before.logs[tp.partition], after.logs[tp.partition], each.offset), -1, each.metadata
        )
        for tp, each in offsets.items()
        if tp.partition < len(before.logs)
    }


def carried(before: Partition, after: Partition, offset: int) -> int:
    """Where a reader of `before`, whose next offset this is, goes on in `after`."""
    next_ms = _time_at(before, max(offset, before.log_start_offset))
    wanted_ms = before.max_timestamp_ms + 1 if next_ms is None else next_ms
    found = after.offset_for_time(wanted_ms)
    return after.log_end_offset if found is None else found[0]


def _time_at(log: Partition, offset: int) -> int | None:
    """The time of the first record at or after an offset; None where there is none."""
    while offset < log.log_end_offset:
        data = log.read(offset, _READ_BYTES)
        if not data:
            return None
        for header, view in batches(data):
            if not header.control:
                for record in decode(view):
                    if record.offset >= offset:
                        return record.timestamp
            offset = max(offset, header.next_offset)
    return None
