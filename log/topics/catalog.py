"""The topics of an embedded log: which there are, where their partitions lie, how one comes and goes.

1. A topic exists exactly when its record in `__cluster_metadata-0` is on disk and no deletion follows it. Opening
   removes folders without a record, and makes those that a record has and the disk has not. A file that no log has
   made is never removed, nor is its folder.
2. A partition's folder is on disk before a record in it is acknowledged, as the topic is created before it is written
   to.
3. `version` changes with the topics, so that whoever remembers a `Topic` knows when to look again.

Not here: what is in partitions (`partition`), who reads and writes them (`broker`), the records' form (`metadata`).
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from msgspec import structs

from tailrace.log import checkpoint
from tailrace.log.clock import Clock
from tailrace.log.codec import encode
from tailrace.log.disk import Disk, join
from tailrace.log.errors import CorruptError, DiskFullError, InvalidError, TailraceError, TopicNotFoundError
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import (
    CLUSTER_METADATA,
    TopicConfig,
    check_not_owned,
    check_note,
    check_partition_count,
    check_same,
    check_topic_name,
    config_strings,
)
from tailrace.log.topics.aliases import AliasesRecord
from tailrace.log.topics.directory import LOCK, LogDirectory
from tailrace.log.topics.folders import Folders
from tailrace.log.topics.layout import named
from tailrace.log.topics.metadata import (
    FORMAT_VERSION,
    DeletedRecord,
    FormatRecord,
    MetadataRecord,
    TopicRecord,
    TopicTable,
    decode_record,
    encode_record,
)
from tailrace.log.topics.replay import records_of
from tailrace.log.topics.served import Topic

logger = logging.getLogger(__name__)

METADATA: Final = TopicPartition(CLUSTER_METADATA, 0)


class Catalog:
    """The topics of one log. Any thread may call; `lock` is held while topics change."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        path: str,
        *,
        read_only: bool,
        wait_for_sync: bool,
        stable_moved: Callable[[TopicPartition], None],
        new_id: Callable[[], str],
    ) -> None:
        """Opens the folder and all partitions.

        `stable_moved` is called by a thread that syncs, after a last stable offset has moved.

        Raises:
            LogLockedError, InvalidError, CorruptError: see `Log.open`.
        """
        self.disk = disk
        self.clock = clock
        self.path = path
        self.read_only = read_only
        self.version = 0
        self.closed = False
        self.closing = False  # its clients are being closed, before it is
        self.lock = threading.RLock()
        self._open_log = partial(Partition.open, disk, clock, read_only=read_only, wait_for_sync=wait_for_sync)
        self._stable_moved = stable_moved
        self._new_id = new_id
        self._pid = os.getpid()
        self._table = TopicTable()
        self._topics: dict[str, Topic] = {}
        self._views: dict[str, Topic] = {}  # by the names that stand for others
        self._producer_ids: list[int] = []  # of our block
        self._metadata_read = 0
        self._metadata: Partition | None = None
        self._folders = Folders(disk, path, new_id)
        self._directory = LogDirectory(disk, path, read_only=read_only)
        self.cluster_id = self._directory.cluster_id()
        try:
            self._recovery = checkpoint.read_offsets(disk, join(path, checkpoint.RECOVERY_POINTS))
            self._starts = checkpoint.read_offsets(disk, join(path, checkpoint.LOG_STARTS))
            self._open()
        except BaseException:
            with suppress(OSError, TailraceError):
                self._close_partitions()
            self._directory.unlock()
            raise

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
        with self.lock:
            self._open_topics()

    def _open_partition(self, tp: TopicPartition, config: TopicConfig) -> Partition:
        return self._open_log(
            join(self.path, str(tp)),
            tp,
            config,
            recovery_point=self._recovery.get(tp, 0),
            log_start_offset=self._starts.get(tp, 0),
            stable_moved=partial(self._stable_moved, tp),
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
            foreign = self._folders.foreign(folder)
            if folder not in wanted and foreign:
                logger.warning(
                    "%s: left as it is: no record of a topic speaks of it, but %s in it is none of the log's files",
                    join(self.path, folder),
                    foreign[0],
                )
            elif folder not in wanted or found not in {None, wanted[folder]}:
                logger.warning("%s: removed, as no record of a topic speaks of it", join(self.path, folder))
                self._folders.remove(folder)

    def _check_no_strangers(self, record: TopicRecord, numbers: range) -> None:
        """Refuses to make partitions in folders that somebody has put things into."""
        for number in numbers:
            folder = str(TopicPartition(record.name, number))
            foreign = self._folders.foreign(folder) if self.disk.is_dir(join(self.path, folder)) else []
            if foreign:
                raise InvalidError(
                    f"{join(self.path, folder)} is there already with {foreign[0]} in it, which is none of the log's "
                    "files: move that elsewhere, or choose another name for the topic"
                )

    def _open_topics(self) -> None:
        """Makes the served topics equal to the table."""
        for name in set(self._topics) - {record.name for record in self._table.records()}:
            self._drop(name)
        for record in self._table.records():
            served = self._topics.get(record.name)
            if served is not None and served.topic_id != record.topic_id:
                self._drop(record.name)
                served = None
            if served is None:
                self._serve(record)
            elif served.record != record:  # beside a writer, who has altered it
                added = self._open_logs(record, range(served.partitions, record.partitions))
                if added is not None:
                    self._serve_altered(record, [*served.logs, *added])
        self._look_at_aliases()

    def _look_at_aliases(self) -> None:
        """Makes the topics known by their other names, too."""
        aliases = self._table.aliases.topics.items()
        views = {name: self._topics[behind].under(name) for name, behind in aliases if behind in self._topics}
        if views != self._views:
            self._views = views
            self.version += 1

    def _serve(self, record: TopicRecord) -> None:
        logs = self._open_logs(record, range(record.partitions))
        if logs is not None:
            self._topics[record.name] = Topic(record, TopicConfig.parse(record.config), logs)
            self.version += 1

    def _open_logs(self, record: TopicRecord, numbers: range) -> list[Partition] | None:
        """Opens some of a topic's partitions; None where the writer is just making or deleting them."""
        config = TopicConfig.parse(record.config)
        logs: list[Partition] = []
        try:
            for number in numbers:
                tp = TopicPartition(record.name, number)
                if not self.read_only:
                    self._make_folder(tp, record.topic_id)
                elif not self.disk.exists(join(self.path, str(tp))):
                    return None
                logs.append(self._open_partition(tp, config))
        except BaseException:
            for log in logs:
                log.close()
            raise
        return logs

    def _serve_altered(self, record: TopicRecord, logs: list[Partition]) -> None:
        config = TopicConfig.parse(record.config)
        for log in logs:
            log.config = config
        self._topics[record.name] = Topic(record, config, logs, self._topics[record.name])
        self.version += 1
        self._look_at_aliases()

    def _drop(self, name: str) -> Topic:
        topic = self._topics.pop(name)
        topic.mark_gone()
        self.version += 1
        for log in topic.logs:
            log.close()
        self._look_at_aliases()
        return topic

    def check_open(self, *, or_closing: bool = False) -> None:
        """Refuses to go on after `close`; or_closing: as soon as that was called.

        Raises:
            InvalidError: it is closed.
        """
        if self.closed or (or_closing and self.closing):
            raise InvalidError(f"the log {named(self.path)} is closed: open it again with Log.open")

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
            self.write_checkpoints()

    def refresh(self) -> None:
        """Takes in the new metadata records: all of them at opening, later those of the writer we read beside."""
        with self.lock:
            assert self._metadata is not None
            for _, value in records_of(self._metadata, self._metadata_read):
                if value is not None:
                    self._table.apply(decode_record(value))
            self._metadata_read = self._metadata.log_end_offset
            if self.read_only and self._topics:
                self._open_topics()

    def beside_a_writer(self) -> bool:
        """Whether this log was opened for reading alone and another writes it just now."""
        return self.read_only and self.disk.lock_holder(join(self.path, LOCK)) is not None

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
        """The topic that the name stands for, or None."""
        return self._views.get(name) if name in self._table.aliases.topics else self._topics.get(name)

    def place(self, name: str) -> Topic | None:
        """The topic of this name itself, whatever the name stands for."""
        return self._topics.get(name)

    def canonical(self, tp: TopicPartition) -> TopicPartition:
        """What a partition is called on disk."""
        behind = self._table.aliases.topics.get(tp.topic)
        return tp if behind is None else TopicPartition(behind, tp.partition)

    @property
    def aliases(self) -> AliasesRecord:
        """The names that stand for others."""
        return self._table.aliases

    def group(self, name: str) -> str:
        """The group that a name stands for."""
        return self._table.aliases.groups.get(name, name)

    def set_aliases(self, record: AliasesRecord) -> None:
        """Has names stand for others, at once; under `lock`. On disk when this returns."""
        self._record(record)
        self._look_at_aliases()

    def topic(self, name: str) -> Topic:
        """The topic.

        Raises:
            TopicNotFoundError: there is none; near names are in the message.
        """
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"a topic's name is a str, not {type(name).__name__}")
        self.check_open()
        topic = self.find(name)
        if topic is None:
            if self.read_only:
                with self.lock:
                    self.refresh()
                    self._open_topics()
                    topic = self.find(name)
            if topic is None:
                self._table.require(self._table.behind(name))
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

    def end_offset(self, tp: TopicPartition, *, stable: bool = False) -> int:
        """Where a partition, or what is `stable` of it, ends now; beside a writer, after a look at the files."""
        if self.read_only:
            self.refresh()  # a topic that is deleted is not there any more
        log = self.partition(tp)
        if self.read_only:
            log.read(log.log_end_offset, 1)
        return log.last_stable_offset if stable else log.log_end_offset

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
        check_partition_count("partitions", partitions)
        given = config_strings(config)
        with self.lock:
            have = self.find(name)
            if exist_ok and have is not None:
                check_same(have.config, name, have.partitions, partitions, given)
                return have
            if have is None:
                name = self._table.behind(name)
            record = self._table.new_topic(name, partitions, given, internal=internal, new_id=self._new_id)
            self._check_no_strangers(record, range(partitions))
            self._forget_points(record, range(partitions))
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
            self._look_at_aliases()
            return self._topics[name]

    def alter_topic(self, name: str, config: Mapping[str, Any]) -> None:
        """Changes a topic's configuration; see `Log.alter_topic`."""
        self.check_writable()
        check_not_owned(name)
        with self.lock:
            name = self._table.behind(name)
            record = self._table.require(name)
            defaults = TopicConfig().as_strings()
            given = config_strings(
                {each: defaults.get(each) if value is None else value for each, value in config.items()}
            )
            kept = {each: value for each, value in (record.config | given).items() if config.get(each, "") is not None}
            if config_strings(kept) != record.config:  # refuses what does not go together
                record = structs.replace(record, config=kept)
                self._record(record)
                self._serve_altered(record, self._topics[name].logs)

    def note_topic(self, name: str, note: str) -> None:
        """Writes a text down beside a topic; see `Log.note_topic`."""
        self.check_writable()
        check_note(name, note)
        with self.lock:
            name = self._table.behind(name)
            record = self._table.require(name)
            if note != record.note:
                record = structs.replace(record, note=note)
                self._record(record)
                self._serve_altered(record, self._topics[name].logs)

    def create_partitions(self, name: str, total: int) -> None:
        """Adds partitions to a topic; see `Log.create_partitions`."""
        self.check_writable()
        check_partition_count("total", total)
        with self.lock:
            name = self._table.behind(name)
            record = self._table.require(name)
            check_not_owned(name)
            if total <= record.partitions:
                raise InvalidError(
                    f"the topic {name!r} has {record.partitions} partitions, and can only get more: give more than that"
                )
            wider = structs.replace(record, partitions=total)
            numbers = range(record.partitions, total)
            self._check_no_strangers(wider, numbers)
            added: list[Partition] = []
            try:
                self._forget_points(wider, numbers)
                added = self._open_logs(wider, numbers) or []  # first, as in create_topic
                self._record(wider)
            except BaseException:
                if self._table.require(name) is not wider:
                    with suppress(OSError, TailraceError):
                        for log in added:
                            log.close()
                        for number in numbers:
                            self.disk.remove_tree(join(self.path, str(TopicPartition(name, number))))
                raise
            self._serve_altered(wider, [*self._topics[name].logs, *added])

    def delete_topic(self, name: str) -> Topic:
        """Deletes a topic and its data, and returns it; its offsets are the caller's to forget.

        The one of this name itself, whatever the name stands for.
        """
        self.check_writable()
        check_not_owned(name)
        with self.lock:
            record = self._table.require(name)
            deletion = DeletedRecord(name=name, topic_id=record.topic_id)
            try:
                self._record(deletion)
            except DiskFullError:
                # Its records go first, to make the room in which its deletion is written. A crash in between leaves
                # an empty topic.
                for log in self._topics[name].logs:
                    log.empty()
                self._record(deletion)
            topic = self._drop(name)
            with suppress(OSError, TailraceError):
                self.write_checkpoints()
            for tp in topic.tps:
                self._folders.remove(str(tp))
            return topic

    def new_producer_id(self) -> int:
        """A producer id that was never used in this log, and never will be by another."""
        with self.lock:
            if not self._producer_ids:
                record, ids = self._table.new_producer_ids()
                self._record(record)
                self._producer_ids = [*ids]
            return self._producer_ids.pop(0)

    # -- all partitions ------------------------------------------------------------------------------------------------

    def topics(self) -> list[Topic]:
        """Those there are now."""
        with self.lock:
            return list(self._topics.values())

    def checkpoint(self) -> None:
        """Syncs every partition and writes down up to where: what a crash leaves to be read again at opening.

        Raises:
            DiskFullError: no room for some of it: more is read again then.
        """
        full: DiskFullError | None = None
        for log in self._logs().values():
            try:
                log.checkpoint()
            except InvalidError:  # deleted just now
                pass
            except DiskFullError as error:
                full = error
        self.write_checkpoints()
        if full is not None:
            raise full

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
        with self.lock:
            logs = {} if self._metadata is None else {METADATA: self._metadata}
            for topic in self._topics.values():
                logs |= dict(zip(topic.tps, topic.logs, strict=True))
            return logs

    def write_checkpoints(self) -> None:
        """Writes down recovery points and log starts; `_recovery` and `_starts` are what the files have."""
        with self.lock:  # two at once would take each other's file away, or set the offsets back
            logs = self._logs()
            points = {tp: log.recovery_point for tp, log in logs.items()}
            starts = {tp: log.log_start_offset for tp, log in logs.items() if log.log_start_offset}
            checkpoint.write_offsets(self.disk, join(self.path, checkpoint.RECOVERY_POINTS), points)
            self._recovery = points
            checkpoint.write_offsets(self.disk, join(self.path, checkpoint.LOG_STARTS), starts)
            self._starts = starts

    def _forget_points(self, record: TopicRecord, numbers: range) -> None:
        """Takes partitions of an earlier topic of the name out of the checkpoints.

        The new ones have none of its records, and would seem to have lost them.

        Raises:
            DiskFullError: no room; nothing has changed.
        """
        tps = {TopicPartition(record.name, number) for number in numbers}
        if tps & (self._recovery.keys() | self._starts.keys()):
            self.write_checkpoints()

    def close(self) -> bool:
        """Closes all and lets the next process in; False where that was done already, or this is a fork's child."""
        with self.lock:
            if self.closed or os.getpid() != self._pid:
                return False
            self.closed = True
            self.version += 1
        try:
            self._close_partitions()
            if not self.read_only:
                try:
                    self.write_checkpoints()
                except DiskFullError as error:
                    logger.warning(
                        "%s: closed with old recovery points, more is read at the next start: %s", self.path, error
                    )
        finally:
            self._directory.unlock()
        return True
