"""Joins the parts of the embedded log in one process: topics, syncing, waiting, groups, what happens by itself.

1. Whoever appends wakes who waits, after the log end has moved.
2. An acknowledgement for `acks="all"` comes after a sync that began after the append.
3. At most one background thread each: syncing, lingering, looking after (checkpoints every minute, retention every
   five, compaction every quarter); `background=False` has none, and does all in the calls.

Locks, outermost first: cleaner, producer or consumer, transaction (one per transactional id), catalog, `_commits` (the
order of commits), groups, coordinator (its offsets), partition.
Not here: batching (`producer`), positions (`consumer`), topics (`catalog`), the bytes (`partition`).
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from tailrace.log.client import CommittedOffset, TransactionDescription
from tailrace.log.clock import Clock
from tailrace.log.codec import decode, encode
from tailrace.log.compaction.cleaner import Cleaner, StoppedError
from tailrace.log.disk import Disk
from tailrace.log.errors import DiskFullError, InvalidError, TailraceError, TopicNotFoundError
from tailrace.log.groups.coordinator import Coordinator, Rows
from tailrace.log.partition.markers import decode_marker
from tailrace.log.partition.partition import Appended, Partition
from tailrace.log.record import Offsets, TopicPartition
from tailrace.log.syncer import Syncer
from tailrace.log.timers import Timers
from tailrace.log.topic import CONSUMER_OFFSETS, TRANSACTION_STATE, check_not_owned, check_topic_name
from tailrace.log.topics.aliases import dropped, replaced, switched, switched_back
from tailrace.log.topics.catalog import Catalog
from tailrace.log.topics.metadata import new_topic_id
from tailrace.log.topics.replay import batches_of, records_of
from tailrace.log.topics.served import Topic
from tailrace.log.topics.switching import change
from tailrace.log.transactions.coordinator import TransactionCoordinator
from tailrace.log.transactions.store import TransactionStore
from tailrace.log.waiting import Waiting

logger = logging.getLogger(__name__)

RETENTION_INTERVAL_MS: Final = 300_000  # Kafka's log.retention.check.interval.ms
CLEANER_BACKOFF_MS: Final = 15_000  # Kafka's log.cleaner.backoff.ms
CHECKPOINT_INTERVAL_S: Final = 60.0  # Kafka's log.flush.offset.checkpoint.interval.ms
READ_ONLY_LOOK_S: Final = 0.05  # nobody tells a reader beside the writer: it looks this often
LOOK_S: Final = 60.0
OFFSETS_CONFIG: Final = {"cleanup.policy": "compact", "segment.bytes": "104857600"}  # Kafka's for this topic


class Broker:
    """One log, opened. Everything here may be called by any thread."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        path: str,
        *,
        read_only: bool,
        flush: str,
        background: bool,
        sync_thread: bool,
        retention_interval_ms: int,
        cleaner_backoff_ms: int = CLEANER_BACKOFF_MS,
        new_id: Callable[[], str] = new_topic_id,
    ) -> None:
        self.clock = clock
        self.wakes = 0
        self.look_again_s = READ_ONLY_LOOK_S if read_only else LOOK_S
        self.waiting = Waiting()
        self.coordinator = Coordinator(clock, self.waiting, self._write_offsets, self._partitions_of)
        self.timers = Timers(clock, background=background)
        self._syncer = Syncer(background=background and sync_thread)
        self._sync_all = flush == "disk"
        self._commits = threading.RLock()
        self._offsets_read = 0
        self._transactions_read = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.catalog = Catalog(
            disk,
            clock,
            path,
            read_only=read_only,
            wait_for_sync=self._sync_all,
            stable_moved=self.waiting.appended,
            new_id=new_id,
        )
        self.waiting.canonical = self.catalog.canonical
        self._cleaner = Cleaner(disk, clock, path)
        self._transaction_store = TransactionStore(self, self._commits, clock.now_ms)
        self.transactions = TransactionCoordinator(
            clock, self.timers, self._transaction_store, self.catalog.new_producer_id
        )
        try:
            self._load_offsets()
            self._load_transactions()
        except BaseException:
            self.catalog.close()
            raise
        if background and not read_only:
            self._thread = threading.Thread(
                target=self._look_after,
                args=(retention_interval_ms / 1000, cleaner_backoff_ms / 1000),
                name="tailrace-retention",
                daemon=True,
            )
            self._thread.start()

    def _partitions_of(self, topic: str) -> int | None:
        found = self.catalog.find(topic)
        return None if found is None else found.partitions

    def _load_offsets(self) -> None:
        self._read_offsets()
        if not self.catalog.read_only:
            gone = {topic for topic in self.coordinator.topics() if self.catalog.find(topic) is None}
            try:
                self.coordinator.forget_topics(gone)  # a crash came between the deletion of a topic and that of these
            except DiskFullError as error:
                logger.warning("offsets of deleted topics are removed at the next opening: %s", error)

    def _load_transactions(self) -> None:
        """Ends what a crash has left open, before anybody reads; after the offsets, some of which depend on it."""
        self._read_transactions()
        if not self.catalog.read_only:
            self.transactions.recover(self._transaction_store.open_transactions())

    def _read_transactions(self) -> None:
        topic = self.catalog.find(TRANSACTION_STATE)
        if topic is not None:
            for key, value in records_of(topic.logs[0], self._transactions_read):
                self.transactions.load(key, value)
            self._transactions_read = topic.logs[0].log_end_offset

    def open_transactions(self, topic: Topic) -> list[TransactionDescription]:
        """What is open in a topic, and whose; see `Log.open_transactions`."""
        self.look()
        if self.catalog.read_only:
            for tp in topic.tps:
                self.catalog.end_offset(tp)  # looks at the files
            self._read_transactions()
        found = [(tp, each) for tp, log in zip(topic.tps, topic.logs, strict=True) for each in log.open_transactions()]
        known = {each.producer_id: each for each in self.transactions.transactions()}
        now_ms = self.clock.now_ms()
        return [
            TransactionDescription(
                tp,
                None if owner is None else owner.transactional_id,
                each.producer_id,
                each.producer_epoch,
                each.first_offset,
                max(0, now_ms - (each.started_ms if owner is None or owner.started_ms < 0 else owner.started_ms)),
            )
            for tp, each in found
            for owner in (known.get(each.producer_id),)
        ]

    def close(self) -> None:
        """Serves who waits, syncs, checkpoints, and lets the next process in. Again does nothing."""
        if self.catalog.closed:
            return
        self._stop.set()
        self._cleaner.stop()
        if self._thread is not None:
            self._thread.join()
        self.timers.close()
        self._syncer.close()
        try:
            self.catalog.close()
        finally:
            self.wake()

    def create_topic(
        self, name: str, partitions: int, config: Mapping[str, Any] | None, *, exist_ok: bool, internal: bool
    ) -> None:
        """Creates a topic; see `Log.create_topic`."""
        self.catalog.check_writable()
        check_topic_name(name)
        check_not_owned(name)
        new = self.catalog.find(name) is None
        if new and name in self.coordinator.topics():
            self.coordinator.forget_topics({name})  # of an earlier topic: deleting it stopped half way
        self.catalog.create_topic(name, partitions, config, exist_ok=exist_ok, internal=internal)
        if new:
            self.coordinator.topic_grew(name)

    def delete_topic(self, name: str) -> None:
        """Deletes a topic; see `Log.delete_topic`."""
        self._delete(self.catalog.aliases.topics.get(name, name))

    def _delete(self, name: str) -> None:
        self.catalog.check_writable()
        known = {each for each in (name, *self.catalog.aliases.topics) if self.catalog.find(each) is not None}
        topic = self.catalog.delete_topic(name)
        self._cleaner.forget(topic.tps)
        for each in known - {topic.name}:
            if self.catalog.find(each) is None:
                self.coordinator.topic_grew(each)
        try:
            self.coordinator.topic_gone(topic.name)
        except DiskFullError as error:
            logger.warning("the offsets of the deleted topic %r are removed at the next opening: %s", name, error)

    def create_partitions(self, name: str, total: int) -> None:
        """Adds partitions to a topic; see `Log.create_partitions`."""
        self.catalog.create_partitions(name, total)
        self.coordinator.topic_grew(name)

    # -- other names ---------------------------------------------------------------------------------------------------

    def switch(self, name: str, topics: Mapping[str, str], groups: Mapping[str, str]) -> None:
        """Has names stand for others; see `Log.switch`."""
        self.catalog.check_writable()
        with self.catalog.lock, self._commits:
            known = {topic.name: topic.internal for topic in self.catalog.topics()}
            change(self, switched(self.catalog.aliases, name, topics, groups, known))

    def switch_back(self, name: str) -> None:
        """Takes a switch back; see `Log.switch_back`."""
        self.catalog.check_writable()
        with self.catalog.lock, self._commits:
            known = {topic.name: topic.internal for topic in self.catalog.topics()}
            change(self, switched_back(self.catalog.aliases, name, known))

    def drop_replaced(self, name: str) -> list[str]:
        """Deletes what the names of a switch stood for before; see `Log.drop_replaced`."""
        self.catalog.check_writable()
        with self.catalog.lock:
            marked = dropped(self.catalog.aliases, name)
            if marked != self.catalog.aliases:
                self.catalog.set_aliases(marked)
            topics, groups = replaced(self.catalog.aliases, name)
        for topic in topics:
            if self.catalog.place(topic) is not None:
                self._delete(topic)
        for group in groups:
            if group in self.coordinator.groups():
                self.coordinator.delete(group)
        return groups

    def look(self) -> None:
        """Beside a writer: takes in the topics and committed offsets that are new."""
        self.catalog.check_open()
        if self.catalog.read_only:
            self.catalog.refresh()
            self._read_offsets()

    # -- data ----------------------------------------------------------------------------------------------------------

    def append(self, topic: Topic, number: int, batch: bytearray) -> Appended:
        """Appends a batch and wakes who waits for it.

        Raises:
            TopicNotFoundError: the topic was deleted.
            TailraceError: what the partition refuses, or a sync that failed before.
        """
        self.catalog.check_writable()
        if topic.gone:
            raise TopicNotFoundError(f"the topic {topic.name!r} was deleted while records for it were on their way")
        log = topic.logs[number]
        appended = log.append(batch)
        self.waiting.appended(topic.tps[number])
        return appended

    def append_marker(
        self,
        topic: Topic,
        number: int,
        producer_id: int,
        producer_epoch: int,
        *,
        committed: bool,
        coordinator_epoch: int,
    ) -> Appended:
        """Ends a transaction in a partition and wakes who waits for it; see `Partition.append_marker`.

        Raises:
            TopicNotFoundError: the topic was deleted.
            TailraceError: what the partition refuses.
        """
        self.catalog.check_writable()
        if topic.gone:
            raise TopicNotFoundError(f"the topic {topic.name!r} was deleted while a transaction in it was open")
        appended = topic.logs[number].append_marker(
            producer_id, producer_epoch, committed=committed, coordinator_epoch=coordinator_epoch
        )
        self.waiting.appended(topic.tps[number])
        return appended

    def when_synced(self, topic: Topic, number: int, done: Callable[[BaseException | None], None]) -> None:
        """Calls `done`, by some thread, when what was appended so far is on disk or cannot be."""
        if not self._sync_all:
            done(None)
            return
        self._syncer.request(topic.logs[number], done)

    def sync_all(self, logs: Iterable[Partition]) -> None:
        """Returns when what was appended to these is on disk, where the log is kept on disk.

        Raises:
            TailraceError: one of them could not be synced.
        """
        if self._sync_all:
            self._syncer.sync_all(logs)

    def wait(
        self,
        positions: Mapping[TopicPartition, int],
        timeout: float | None,
        *,
        stop: Callable[[], bool] | None = None,
        stable: bool = False,
    ) -> bool:
        """True once a partition has data at or past its position; False at `timeout`, `wake`, a close, or `stop()`.

        `stable`: data below the last stable offset, for who reads only what is committed.
        """
        wakes = self.wakes
        give_up_at = None if timeout is None else self.clock.monotonic() + timeout
        stirred = threading.Event()
        wake = stirred.set
        partitions = list(positions)
        self.waiting.add(partitions, wake)
        try:
            while True:
                stirred.clear()
                if any(self.catalog.end_offset(each, stable=stable) > offset for each, offset in positions.items()):
                    return True
                if self.catalog.closed or wakes != self.wakes or (stop is not None and stop()):
                    return False
                left = None if give_up_at is None else give_up_at - self.clock.monotonic()
                if left is not None and left <= 0:
                    return False
                stirred.wait(self.look_again_s if left is None else min(left, self.look_again_s))
        finally:
            self.waiting.remove(wake)

    def wake(self) -> None:
        """Makes every wait return."""
        self.wakes += 1
        self.waiting.wake_all()

    # -- offsets -------------------------------------------------------------------------------------------------------

    def _read_offsets(self) -> None:
        topic = self.catalog.find(CONSUMER_OFFSETS)
        if topic is None:
            return
        for header, view in batches_of(topic.logs[0], self._offsets_read):
            if header.control:
                marker = decode_marker(view)
                if marker is not None:
                    self.coordinator.end_transaction(header.producer_id, committed=marker.committed)
            else:
                for record in decode(view):
                    self.coordinator.load(
                        record.key, record.value, header.producer_id if header.transactional else None
                    )
            self._offsets_read = header.next_offset

    def offsets_topic(self) -> Topic:
        """`__consumer_offsets`, made where it is missing."""
        found = self.catalog.find(CONSUMER_OFFSETS)
        return found or self.catalog.create_topic(CONSUMER_OFFSETS, 1, OFFSETS_CONFIG, exist_ok=True, internal=True)

    def _write_offsets(self, rows: Rows, check: Callable[[], None], appended: Callable[[], None]) -> None:
        topic = self.offsets_topic()
        now_ms = self.clock.now_ms()
        batch = encode([(key, value, now_ms, ()) for key, value in rows])
        answer: list[BaseException | None] = []
        answered = threading.Event()
        with self._commits:  # the table changes in the order of the topic
            check()
            self.append(topic, 0, batch)
            appended()

        def done(error: BaseException | None) -> None:
            answer.append(error)
            answered.set()

        self.when_synced(topic, 0, done)
        answered.wait()
        if answer[0] is not None:
            raise answer[0]

    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Commits offsets unless `check` raises; see `Log.commit_offsets`."""
        self.catalog.check_writable()
        for tp in offsets:
            self.catalog.partition(tp)
        wanted = {self.catalog.canonical(tp): each for tp, each in offsets.items()}
        self.sync_all(self.read_ahead({tp: each.offset for tp, each in wanted.items()}))
        self.coordinator.commit(self.catalog.group(group), wanted, check)

    def with_epochs(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> dict[TopicPartition, CommittedOffset]:
        """The same, each with the leader epoch of the record before it, so that its reader may learn that it is gone.

        Raises:
            TopicNotFoundError: no such topic or partition.
        """
        return {
            tp: replace(committed, leader_epoch=self.catalog.partition(tp).epoch_before(committed.offset))
            for tp, committed in offsets.items()
        }

    def check_not_past_end(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Refuses offsets that a user has mistaken; Kafka takes them, and the group's next reader is out of range.

        Raises:
            InvalidError: one is past the log's end.
            TopicNotFoundError: no such topic or partition.
        """
        for tp, committed in offsets.items():
            end = self.catalog.partition(tp).log_end_offset
            if committed.offset > end:
                raise InvalidError(
                    f"the offset {committed.offset} for {tp} in group {group!r} is past its end at {end}, so nobody "
                    "can have read up to there: give the offset of the next record to be read"
                )

    def read_ahead(self, offsets: Mapping[TopicPartition, int]) -> list[Partition]:
        """The partitions among these that are not on disk up to there; those that are gone are passed over.

        No offset is committed past what is on disk: a crash would take records from under it, and who goes on there
        would miss what is written in their place.
        """
        topics = {tp: self.catalog.place(tp.topic) for tp in offsets}
        logs = {
            tp: topic.logs[tp.partition] for tp, topic in topics.items() if topic and tp.partition < topic.partitions
        }
        return [log for tp, log in logs.items() if log.synced_offset < min(offsets[tp], log.log_end_offset)]

    def committed_offsets(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """A group's committed offsets, under every name that their partitions go by now."""
        self.look()
        found = self.coordinator.committed_offsets(self.catalog.group(group))
        aliases = self.catalog.aliases.topics
        if not aliases:
            return found
        names: dict[str, list[str]] = {}
        for name, behind in aliases.items():
            names.setdefault(behind, []).append(name)
        return {
            TopicPartition(name, tp.partition): each
            for tp, each in found.items()
            for name in [*names.get(tp.topic, ()), *([] if tp.topic in aliases else [tp.topic])]
        }

    def first_offset(self, group: str, tp: TopicPartition) -> tuple[CommittedOffset | None, bool]:
        """Where a group goes on in a partition, and whether a transaction is open that will say otherwise.

        Both at one moment: who was expelled can append no offsets after it (`TransactionStore.append_offsets`).
        """
        self.look()
        with self._commits:
            group, tp = self.catalog.group(group), self.catalog.canonical(tp)
            return self.coordinator.committed(group, tp), self.coordinator.is_pending(group, tp)

    def committed_offset(self, group: str, tp: TopicPartition) -> CommittedOffset | None:
        """One committed offset."""
        if self.catalog.read_only:
            return self.committed_offsets(group).get(tp)
        self.catalog.check_open()
        return self.coordinator.committed(self.catalog.group(group), self.catalog.canonical(tp))

    # -- retention and compaction --------------------------------------------------------------------------------------

    def _look_after(self, retention_s: float, cleaner_s: float) -> None:
        tasks: list[tuple[float, Callable[[], object]]] = [
            (CHECKPOINT_INTERVAL_S, self.catalog.checkpoint),
            (retention_s, self.apply_retention),
            (cleaner_s, self.compact_due),
        ]
        due = [self.clock.monotonic() + interval_s for interval_s, _ in tasks]
        while not self._stop.wait(min(interval_s for interval_s, _ in tasks)):
            for index, (interval_s, task) in enumerate(tasks):
                if self.clock.monotonic() >= due[index]:
                    due[index] = self.clock.monotonic() + interval_s
                    try:
                        task()
                    except (OSError, TailraceError) as error:
                        logger.warning(
                            "%s: a pass over the partitions stopped and will be tried again: %s",
                            self.catalog.path,
                            error,
                        )

    def compact_due(self) -> list[TopicPartition]:
        """Cleans the partitions of compacted topics that are due; returns which."""
        self.catalog.check_writable()
        return self._cleaner.clean_due(lambda: [log for topic in self.catalog.topics() for log in topic.logs])

    def compact(self, name: str) -> None:
        """Cleans all partitions of a topic now; see `Log.compact`."""
        self.catalog.check_writable()
        topic = self.catalog.topic(name)
        if not topic.config.compacted:
            raise InvalidError(
                f"the topic {name!r} is not compacted: give it cleanup.policy=compact, or compact,delete, first"
            )
        filled = [log for log in topic.logs if log.log_end_offset > log.log_start_offset]
        if filled and not any(len(log.segment_offsets) > 1 for log in filled):
            logger.warning(
                "%s: nothing to compact yet: all of it is in the active segments, which are left alone until "
                "segment.ms, segment.bytes or max.compaction.lag.ms closes them",
                name,
            )
        for log in topic.logs:
            try:
                self._cleaner.clean(log)
            except StoppedError:
                self.catalog.check_open()

    def delete_records(self, before: Offsets) -> dict[TopicPartition, int]:
        """Raises log starts; see `Log.delete_records`. All are looked at before the first is changed."""
        self.catalog.check_writable()
        _check_offsets(before)
        logs = {TopicPartition(*tp): (self.catalog.partition(TopicPartition(*tp)), each) for tp, each in before.items()}
        for tp, (log, offset) in logs.items():
            # The user's argument, whatever its annotation says.
            if isinstance(offset, bool) or not isinstance(offset, int):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"the offset for {tp} is an int, not {type(offset).__name__}")
            if not log.config.deleted:
                raise InvalidError(
                    f"the records of {tp} are not deleted by offset, as its topic keeps the last one of each key: "
                    f"delete a key by a null value, or alter cleanup.policy to compact,delete"
                )
            log.check_deletable(offset)
        starts = {tp: log.delete_records(offset) for tp, (log, offset) in logs.items()}
        self.catalog.write_checkpoints()
        return starts

    def apply_retention(self) -> dict[TopicPartition, list[str]]:
        """Deletes the segments that retention by time or size lets go; returns their names per partition."""
        self.catalog.check_writable()
        deleted: dict[TopicPartition, list[str]] = {}
        for topic in self.catalog.topics():
            for tp, log in zip(topic.tps, topic.logs, strict=True):
                names = [] if topic.gone else log.apply_retention(self.clock.now_ms())
                if names:
                    logger.info("%s: retention deleted %s", tp, ", ".join(names))
                    deleted[tp] = names
        with suppress(DiskFullError):  # where logs begin stands in the files' names too; the next pass writes it
            self.catalog.write_checkpoints()
        return deleted


def _check_offsets(before: object) -> None:
    """Raises TypeError for anything but what `Offsets` says: the user's argument, whatever its annotation."""
    given: Any = before
    if not isinstance(before, Mapping):
        raise TypeError(f"delete_records takes a dict of TopicPartition to offset, not {given!r}")
    for tp in given:
        parts: list[Any] = list(tp) if tp.__class__ in {tuple, TopicPartition} else []
        if [type(part) for part in parts] != [str, int]:
            raise TypeError(f"delete_records takes a dict of TopicPartition to offset, and one of its keys is {tp!r}")
