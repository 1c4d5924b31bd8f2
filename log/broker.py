"""Joins the parts of the embedded log: folder, topics, partitions, syncing, waiting, groups.

1. A topic exists exactly when its record in `__cluster_metadata-0` is on disk and no deletion follows it. Opening
   removes folders without a record, and makes those that a record has and the disk has not.
2. A partition's folder is on disk before a record in it is acknowledged, as the topic is created before it is written
   to.
3. `version` changes with the topics, so that whoever remembers a `Topic` knows when to look again.
4. At most one background thread each: syncing, lingering, retention; `background=False` has none, and does all in the
   calls.

Locks, outermost first: producer or consumer, `_admin` (topics), `_commits` (the order of commits), coordinator,
partition. Not here: batching (`producer`), positions (`consumer`), the bytes (`partition`).
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from tailrace.log import checkpoint
from tailrace.log.client import CommittedOffset
from tailrace.log.clock import Clock
from tailrace.log.codec import batches, check_crc, decode, encode
from tailrace.log.coordinator import Coordinator, Rows
from tailrace.log.directory import LogDirectory
from tailrace.log.disk import Disk, join
from tailrace.log.errors import CorruptError, InvalidError, TailraceError, TopicNotFoundError
from tailrace.log.metadata import (
    FORMAT_VERSION,
    DeletedRecord,
    FormatRecord,
    MetadataRecord,
    TopicRecord,
    TopicTable,
    decode_record,
    encode_record,
    new_topic_id,
)
from tailrace.log.partition import Appended, Partition
from tailrace.log.record import TopicPartition
from tailrace.log.syncer import Syncer
from tailrace.log.timers import Timers
from tailrace.log.topic import (
    CLUSTER_METADATA,
    CONSUMER_OFFSETS,
    INT32_MAX,
    TopicConfig,
    check_topic_name,
    config_strings,
)
from tailrace.log.waiting import Waiting

logger = logging.getLogger(__name__)

RETENTION_INTERVAL_MS: Final = 300_000  # Kafka's log.retention.check.interval.ms
CHECKPOINT_INTERVAL_S: Final = 60.0  # Kafka's log.flush.offset.checkpoint.interval.ms
READ_ONLY_LOOK_S: Final = 0.05  # nobody tells a reader beside the writer: it looks this often
LOOK_S: Final = 60.0
READ_BYTES: Final = 1 << 20
METADATA: Final = TopicPartition(CLUSTER_METADATA, 0)
OFFSETS: Final = TopicPartition(CONSUMER_OFFSETS, 0)
OFFSETS_CONFIG: Final = {"cleanup.policy": "compact", "segment.bytes": "104857600"}  # Kafka's for this topic


class Topic:
    """A topic as it is served. `logs[n]` is partition n; `gone` once it is deleted."""

    def __init__(self, record: TopicRecord, config: TopicConfig, logs: list[Partition]) -> None:
        self.record = record
        self.name = record.name
        self.topic_id = record.topic_id
        self.partitions = record.partitions
        self.internal = record.internal
        self.config = config
        self.logs = logs
        self.tps = [TopicPartition(record.name, number) for number in range(record.partitions)]
        self.gone = False


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
        new_id: Callable[[], str] = new_topic_id,
    ) -> None:
        self.disk = disk
        self.clock = clock
        self._new_id = new_id
        self.path = path
        self.read_only = read_only
        self.version = 0
        self.wakes = 0
        self.look_again_s = READ_ONLY_LOOK_S if read_only else LOOK_S
        self.waiting = Waiting()
        self.coordinator = Coordinator(clock, self.waiting, self._write_offsets)
        self.timers = Timers(clock, background=background)
        self._syncer = Syncer(background=background and sync_thread)
        self._sync_all = flush == "disk"
        self._admin = threading.RLock()
        self._commits = threading.RLock()
        self._table = TopicTable()
        self._topics: dict[str, Topic] = {}
        self._offsets_read = 0
        self._metadata_read = 0
        self._closed = False
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._retention_thread: threading.Thread | None = None
        self._metadata: Partition | None = None
        self._directory = LogDirectory(disk, path, read_only=read_only)
        self._recovery = checkpoint.read_offsets(disk, join(path, checkpoint.RECOVERY_POINTS))
        self._starts = checkpoint.read_offsets(disk, join(path, checkpoint.LOG_STARTS))
        try:
            self._open()
        except BaseException:
            with suppress(OSError, TailraceError):
                self._close_partitions()
            self._directory.unlock()
            raise
        if background and not read_only:
            self._retention_thread = threading.Thread(
                target=self._look_after, args=(retention_interval_ms / 1000,), name="tailrace-retention", daemon=True
            )
            self._retention_thread.start()

    # -- opening and closing -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if not self.read_only:
            self._make_folder(METADATA, None)
        metadata = self._metadata = self._open_partition(METADATA, TopicConfig())
        self.refresh()
        if not self.read_only:
            if metadata.log_end_offset == 0:
                self._check_nothing_is_here()
                self._record(FormatRecord(FORMAT_VERSION))
            self._tidy_folders()
        with self._admin:
            self._open_topics()
        self._read_offsets()
        if not self.read_only:
            gone = self.coordinator.topics() - set(self._topics)
            if gone:  # a crash came between the deletion of a topic and that of its offsets
                self.coordinator.forget_topics(gone)

    def _open_partition(self, tp: TopicPartition, config: TopicConfig) -> Partition:
        return Partition.open(
            self.disk,
            self.clock,
            join(self.path, str(tp)),
            tp,
            config,
            recovery_point=self._recovery.get(tp, 0),
            log_start_offset=self._starts.get(tp, 0),
            read_only=self.read_only,
        )

    def _make_folder(self, tp: TopicPartition, topic_id: str | None) -> None:
        folder = join(self.path, str(tp))
        if not self.disk.exists(folder):
            self.disk.mkdir(folder)
            self.disk.sync_dir(self.path)
        if topic_id is not None and self._directory.topic_id(str(tp)) != topic_id:
            self._directory.write_topic_id(str(tp), topic_id)

    def _check_nothing_is_here(self) -> None:
        """Without a metadata record there can be no partition, whatever crashed: to go on would remove them all."""
        folders = [each for each in self._directory.partition_folders() if each != str(METADATA)]
        if folders:
            file = join(self.path, str(METADATA))
            raise CorruptError(
                f"{file} has no record, but there are partitions such as {folders[0]}: restore it from a copy, nothing "
                "was changed",
                file=file,
                position=0,
                expected="a record of the format",
                found="nothing",
            )

    def _tidy_folders(self) -> None:
        """Removes the folders that no record speaks of: what a crash left of a creation or deletion."""
        wanted = {
            str(TopicPartition(record.name, number)): record.topic_id
            for record in self._table.records()
            for number in range(record.partitions)
        }
        for folder in self._directory.partition_folders():
            if folder == str(METADATA):
                continue
            found = self._directory.topic_id(folder)
            if folder not in wanted or found not in {None, wanted[folder]}:
                logger.warning("%s: removed, as no record of a topic speaks of it", join(self.path, folder))
                self._remove_folder(folder)

    def _remove_folder(self, folder: str) -> None:
        doomed = folder
        if not folder.endswith("-delete"):
            # Kafka's form: a crash from here on leaves a name that nobody takes for a partition.
            doomed = f"{folder}.{self._new_id()}-delete"
            self.disk.rename(join(self.path, folder), join(self.path, doomed))
            self.disk.sync_dir(self.path)
        self.disk.remove_tree(join(self.path, doomed))

    def _open_topics(self) -> None:
        """Makes the served topics equal to the table."""
        for name in set(self._topics) - set(self._table.names(internal=True)):
            self._drop(name)
        for record in self._table.records():
            served = self._topics.get(record.name)
            if served is not None and served.topic_id != record.topic_id:
                self._drop(record.name)
                served = None
            if served is None:
                self._serve(record)

    def _serve(self, record: TopicRecord) -> None:
        config = TopicConfig.parse(record.config)
        logs: list[Partition] = []
        try:
            for number in range(record.partitions):
                tp = TopicPartition(record.name, number)
                if not self.read_only:
                    self._make_folder(tp, record.topic_id)
                elif not self.disk.exists(join(self.path, str(tp))):
                    return  # the writer is just making or deleting it
                logs.append(self._open_partition(tp, config))
        except BaseException:
            for log in logs:
                log.close()
            raise
        self._topics[record.name] = Topic(record, config, logs)
        self.version += 1

    def _drop(self, name: str) -> Topic:
        topic = self._topics.pop(name)
        topic.gone = True
        self.version += 1
        for log in topic.logs:
            log.close()
        return topic

    def check_open(self) -> None:
        """Refuses to go on after `close`.

        Raises:
            InvalidError: it is closed.
        """
        if self._closed:
            raise InvalidError(f"the log {self.path} is closed: open it again with Log.open")

    def close(self) -> None:
        """Syncs, checkpoints, marks the clean stop, and lets the next process in. Again does nothing."""
        with self._admin:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
        self._stop.set()
        if self._retention_thread is not None:
            self._retention_thread.join()
        self.timers.close()
        self._syncer.close()
        self.version += 1
        self.wakes += 1
        self.waiting.wake_all()
        try:
            self._close_partitions()
            if not self.read_only:
                self._write_checkpoints()
        finally:
            self._directory.unlock()

    def _close_partitions(self) -> None:
        """Closes all, whatever happens to one; then raises the first error."""
        errors: list[Exception] = []
        for log in self._logs().values():
            try:
                log.close()
            except (OSError, TailraceError) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _logs(self) -> dict[TopicPartition, Partition]:
        with self._admin:
            logs = {} if self._metadata is None else {METADATA: self._metadata}
            for topic in self._topics.values():
                logs |= dict(zip(topic.tps, topic.logs, strict=True))
            return logs

    def _write_checkpoints(self) -> None:
        logs = self._logs()
        points = {tp: log.recovery_point for tp, log in logs.items()}
        starts = {tp: log.log_start_offset for tp, log in logs.items() if log.log_start_offset}
        checkpoint.write_offsets(self.disk, join(self.path, checkpoint.RECOVERY_POINTS), points)
        checkpoint.write_offsets(self.disk, join(self.path, checkpoint.LOG_STARTS), starts)

    # -- topics --------------------------------------------------------------------------------------------------------

    def _record(self, record: MetadataRecord) -> None:
        """Appends a metadata record and syncs it: the commit point."""
        assert self._metadata is not None
        key, value = encode_record(record)
        self._metadata.append(encode([(key, value, self.clock.now_ms(), ())]))
        self._metadata.sync()
        self._metadata_read = self._metadata.log_end_offset
        self._table.apply(record)
        # Below the recovery point damage is refused, never cut as a torn tail: a topic that was cut would be removed.
        with suppress(OSError, TailraceError):
            self._metadata.checkpoint()
            self._write_checkpoints()

    def refresh(self) -> None:
        """Takes in the new metadata records: all of them at opening, later those of the writer we read beside."""
        with self._admin:
            assert self._metadata is not None
            for _, value in _records(self._metadata, self._metadata_read):
                if value is not None:
                    self._table.apply(decode_record(value))
            self._metadata_read = self._metadata.log_end_offset
            if self.read_only and self._topics:
                self._open_topics()

    def check_writable(self) -> None:
        """Refuses to write where that is not possible.

        Raises:
            InvalidError: closed, or opened read-only.
        """
        self.check_open()
        if self.read_only:
            raise InvalidError(f"the log {self.path} was opened with read_only=True: open it for writing to change it")
        if os.getpid() != self._pid:  # a forked child has our files and our lock, and none of our threads
            raise InvalidError(
                f"the log {self.path} was opened by process {self._pid} before a fork: spawn, and open it there"
            )

    def find(self, name: str) -> Topic | None:
        """The topic, or None."""
        return self._topics.get(name)

    def topic(self, name: str) -> Topic:
        """The topic.

        Raises:
            TopicNotFoundError: there is none; near names are in the message.
        """
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"a topic's name is a str, not {type(name).__name__}")
        self.check_open()
        topic = self._topics.get(name)
        if topic is None:
            if self.read_only:
                with self._admin:
                    self.refresh()
                    self._open_topics()
                    topic = self._topics.get(name)
            if topic is None:
                self._table.require(name)
                raise TopicNotFoundError(
                    f"the topic {name!r} is just being made or deleted by another process: try again"
                )
        return topic

    def partition(self, tp: TopicPartition) -> Partition:
        """One partition's log.

        Raises:
            TopicNotFoundError: no such topic or partition.
        """
        topic = self.topic(tp[0])
        if not 0 <= tp[1] < topic.partitions:
            raise TopicNotFoundError(
                f"topic {tp[0]!r} has partitions 0 to {topic.partitions - 1}, not {tp[1]}: choose one of them"
            )
        return topic.logs[tp[1]]

    def end_offset(self, tp: TopicPartition) -> int:
        """Where a partition ends now; beside a writer, after a look at the files."""
        log = self.partition(tp)
        if self.read_only:
            log.read(log.log_end_offset, 1)
        return log.log_end_offset

    def look(self) -> None:
        """Beside a writer: takes in the topics and committed offsets that are new."""
        self.check_open()
        if self.read_only:
            self.refresh()
            self._read_offsets()

    def names(self, *, internal: bool) -> list[str]:
        """The topics' names."""
        self.check_open()
        if self.read_only:
            self.refresh()
        return self._table.names(internal=internal)

    def create_topic(
        self, name: str, partitions: int, config: Mapping[str, Any] | None, *, exist_ok: bool, internal: bool
    ) -> Topic:
        """Creates a topic; see `Log.create_topic`."""
        self.check_writable()
        check_topic_name(name)
        # The user's argument, whatever its annotation says.
        if isinstance(partitions, bool) or not isinstance(partitions, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"partitions is an int, not {type(partitions).__name__}")
        if not 1 <= partitions <= INT32_MAX:
            raise InvalidError(f"a topic of {partitions} partitions cannot be made: give 1 or more")
        given = config_strings(config)
        with self._admin:
            if exist_ok and name in self._topics:
                return self._topics[name]
            record = self._table.new_topic(name, partitions, given, internal=internal, new_id=self._new_id)
            # Folders first: with no room for them there must be no topic either. What a crash leaves of them is
            # removed.
            try:
                self._serve(record)
                self._record(record)
            except BaseException:
                if name in self._topics and name not in self._table:
                    self._drop(name)
                with suppress(OSError, TailraceError):
                    for number in range(partitions):
                        self.disk.remove_tree(join(self.path, str(TopicPartition(name, number))))
                raise
            return self._topics[name]

    def delete_topic(self, name: str) -> None:
        """Deletes a topic; see `Log.delete_topic`."""
        self.check_writable()
        with self._admin:
            record = self._table.require(name)
            if name in {CLUSTER_METADATA, CONSUMER_OFFSETS}:
                raise InvalidError(f"the topic {name!r} belongs to the log itself and cannot be deleted")
            self._record(DeletedRecord(name=name, topic_id=record.topic_id))
            topic = self._drop(name)
            for tp in topic.tps:
                self._remove_folder(str(tp))
        self.coordinator.topic_gone(name)

    # -- data ----------------------------------------------------------------------------------------------------------

    def append(self, topic: Topic, number: int, batch: bytearray) -> Appended:
        """Appends a batch and wakes who waits for it.

        Raises:
            TopicNotFoundError: the topic was deleted.
            TailraceError: what the partition refuses, or a sync that failed before.
        """
        self.check_writable()
        if topic.gone:
            raise TopicNotFoundError(f"the topic {topic.name!r} was deleted while records for it were on their way")
        log = topic.logs[number]
        appended = log.append(batch)
        self.waiting.appended(topic.tps[number])
        return appended

    def when_synced(self, topic: Topic, number: int, done: Callable[[BaseException | None], None]) -> None:
        """Calls `done`, by some thread, when what was appended so far is on disk or cannot be."""
        if not self._sync_all:
            done(None)
            return
        self._syncer.request(topic.logs[number], done)

    def wait(
        self, positions: Mapping[TopicPartition, int], timeout: float | None, *, stop: Callable[[], bool] | None = None
    ) -> bool:
        """True once a partition has data at or past its position; False at `timeout`, `wake`, a close, or `stop()`."""
        wakes = self.wakes
        give_up_at = None if timeout is None else self.clock.monotonic() + timeout
        stirred = threading.Event()
        wake = stirred.set
        partitions = list(positions)
        self.waiting.add(partitions, wake)
        try:
            while True:
                stirred.clear()
                if any(self.end_offset(each) > offset for each, offset in positions.items()):
                    return True
                if self._closed or wakes != self.wakes or (stop is not None and stop()):
                    return False
                left = None if give_up_at is None else give_up_at - self.clock.monotonic()
                if left is not None and left <= 0:
                    return False
                stirred.wait(self.look_again_s if left is None else min(left, self.look_again_s))
        finally:
            self.waiting.remove(partitions, wake)

    def wake(self) -> None:
        """Makes every wait return."""
        self.wakes += 1
        self.waiting.wake_all()

    # -- offsets -------------------------------------------------------------------------------------------------------

    def _read_offsets(self) -> None:
        topic = self._topics.get(CONSUMER_OFFSETS)
        if topic is not None:
            for key, value in _records(topic.logs[0], self._offsets_read):
                self.coordinator.load(key, value)
            self._offsets_read = topic.logs[0].log_end_offset

    def _write_offsets(self, rows: Rows, appended: Callable[[], None]) -> None:
        topic = self._topics.get(CONSUMER_OFFSETS)
        if topic is None:
            topic = self.create_topic(CONSUMER_OFFSETS, 1, OFFSETS_CONFIG, exist_ok=True, internal=True)
        now_ms = self.clock.now_ms()
        batch = encode([(key, value, now_ms, ()) for key, value in rows])
        answer: list[BaseException | None] = []
        answered = threading.Event()
        with self._commits:  # the table changes in the order of the topic
            self.append(topic, 0, batch)
            appended()

        def done(error: BaseException | None) -> None:
            answer.append(error)
            answered.set()

        self.when_synced(topic, 0, done)
        answered.wait()
        if answer[0] is not None:
            raise answer[0]

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Commits offsets; see `Log.commit_offsets`."""
        self.check_writable()
        for tp in offsets:
            self.partition(tp)
        self.coordinator.commit(group, offsets)

    def committed_offsets(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """A group's committed offsets."""
        self.look()
        return self.coordinator.committed_offsets(group)

    def committed_offset(self, group: str, tp: TopicPartition) -> CommittedOffset | None:
        """One committed offset."""
        if self.read_only:
            return self.committed_offsets(group).get(tp)
        self.check_open()
        return self.coordinator.committed(group, tp)

    # -- retention -----------------------------------------------------------------------------------------------------

    def _look_after(self, interval_s: float) -> None:
        retain_at = self.clock.monotonic() + interval_s
        while not self._stop.wait(min(interval_s, CHECKPOINT_INTERVAL_S)):
            try:
                self.checkpoint()
                if self.clock.monotonic() >= retain_at:
                    retain_at = self.clock.monotonic() + interval_s
                    self.apply_retention()
            except (OSError, TailraceError) as error:
                logger.warning("%s: a pass over the partitions stopped and will be tried again: %s", self.path, error)

    def checkpoint(self) -> None:
        """Syncs every partition and writes down up to where: what a crash leaves to be read again at opening."""
        for log in self._logs().values():
            with suppress(InvalidError):  # deleted just now
                log.checkpoint()
        self._write_checkpoints()

    def apply_retention(self) -> dict[TopicPartition, list[str]]:
        """Deletes the segments that retention by time or size lets go; returns their names per partition."""
        self.check_writable()
        deleted: dict[TopicPartition, list[str]] = {}
        with self._admin:
            topics = [topic for topic in self._topics.values() if topic.config.deleted]
        for topic in topics:
            for tp, log in zip(topic.tps, topic.logs, strict=True):
                names = [] if topic.gone else log.apply_retention(self.clock.now_ms())
                if names:
                    logger.info("%s: retention deleted %s", tp, ", ".join(names))
                    deleted[tp] = names
        self._write_checkpoints()
        return deleted


def _records(log: Partition, offset: int) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Key and value of every record from `offset` to the end, control records left out."""
    offset = max(offset, log.log_start_offset)
    while data := log.read(offset, READ_BYTES):
        for header, view in batches(data):
            check_crc(view, file=log.directory, position=-1, where=f"{log.tp}@{header.base_offset}")
            if not header.control:
                for record in decode(view):
                    if record.offset >= offset:
                        yield record.key, record.value
            offset = header.next_offset
