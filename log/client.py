"""The narrow interface through which everything above uses a log: `Log`, `Producer`, `Consumer`, `Delivery`.

The classes here are abstract; `Log.open` looks a URL's scheme up in a table and loads the module that implements them,
so that whoever holds a `Log` never knows which one it is.

1. A producer keeps the order of its records per partition.
2. A consumer's position in a partition is the next offset it will hand out; it only moves forward, except by a seek.
3. A transaction's records and offsets are seen all together, or never, by who reads committed records.
4. `acks="all"` and a commit of offsets return when the bytes are on disk; `acks=1` when they are in the page cache.

Every call blocks (`async for` over a consumer is the one exception). Every object may be used by several threads,
except a consumer, which belongs to one at a time.
"""

import importlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol

import msgspec

from tailrace.log.errors import InvalidError
from tailrace.log.record import At, Headers, Instant, Offsets, RawRecord, Record, RecordMetadata, TopicPartition

Acks = Literal["all", 0, 1]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Isolation = Literal["read_committed", "read_uncommitted"]
Reset = Literal["earliest", "latest", "none"]
Rebalance = Callable[[list[TopicPartition]], None]
# {member id: what its `userdata` said}, {topic: partitions} -> {member id: partitions}. See `Consumer.subscribe`.
Assignor = Callable[[Mapping[str, bytes], Mapping[str, int]], Mapping[str, Sequence[TopicPartition]]]

DEFAULT_LINGER_MS: Final = 5.0
DEFAULT_BATCH_BYTES: Final = 65_536
DEFAULT_BUFFER_BYTES: Final = 32 * 1024 * 1024
DEFAULT_FETCH_WAIT_MS: Final = 500
DEFAULT_MAX_POLL_INTERVAL_MS: Final = 300_000
DEFAULT_TRANSACTION_TIMEOUT_MS: Final = 60_000

# Scheme -> module that has `open_log(address, *, read_only, flush, **options) -> Log`. Loaded at the call: the one
# upward door.
ENGINES: Final[dict[str, str]] = {
    "": "tailrace.log.embedded",
    "memory": "tailrace.log.embedded",
    "file": "tailrace.log.embedded",
}


@dataclass(frozen=True, slots=True)
class FetchedBatch:
    """Records of one partition as they came from one record batch: the unit of everything that runs on a log.

    base_offset <= offset of every record < next_offset. `records` begins at the consumer's position; control records
    and those that compaction removed are not in it, so it may be empty while `next_offset` still moves the position
    on. It may be walked more than once; each walk decodes anew, one record at a time, which is the fastest way.
    """

    partition: TopicPartition
    base_offset: int
    next_offset: int
    leader_epoch: int
    max_timestamp_ms: int
    records: Sequence[RawRecord]
    control: bool = False
    """Whether it is a marker of a transaction."""


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """The next offset a group will read, the epoch of the record before it, and up to 4,096 bytes of its own text."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""


class TopicDescription(msgspec.Struct, frozen=True):
    """A topic. `topic_id` is Kafka's base64 form of a UUID; `config` has every value, defaults included.

    `note` is what its owner wrote with `Log.note_topic`: an app, what kind of store a changelog belongs to.
    """

    name: str
    topic_id: str
    partitions: int
    config: Mapping[str, str]
    internal: bool
    note: str = ""


class TransactionDescription(msgspec.Struct, frozen=True):
    """A transaction that is open in a partition: readers of committed records come to `first_offset`, and no further.

    `transactional_id` is None where nobody knows whose it is; `age_ms` is for how long it is open.
    """

    partition: TopicPartition
    transactional_id: str | None
    producer_id: int
    producer_epoch: int
    first_offset: int
    age_ms: int


class MemberDescription(msgspec.Struct, frozen=True):
    """A member of a consumer group: its id, its `group_instance_id` if it has one, the partitions that it owns now."""

    member: str
    instance: str | None
    partitions: Sequence[TopicPartition]


class GroupDescription(msgspec.Struct, frozen=True):
    """A consumer group: `state` is Kafka's word (`Empty`, `Stable`); `lag` = end of the partition - committed.

    `members` are `MemberDescription`s.

    Read beside a writer the state is `Unknown`, without members: they live in the writer's process.
    """

    group: str
    state: str
    members: Sequence[Any]
    offsets: Mapping[TopicPartition, int]
    lag: Mapping[TopicPartition, int]


class Delivery(Protocol):
    """The fate of one record that was sent."""

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Waits for the acknowledgement, at most `timeout` seconds; does not wait for the linger.

        Raises:
            RetriableError: not acknowledged in time; `DiskFullError` where there was no room.
            TailraceError: whatever else kept the record out of the log.
        """
        ...

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        ...

    def acknowledged(self) -> int:
        """How many of its records, from the first on, are acknowledged by now: all of them, or where to go on."""
        ...


class Producer(AbstractContextManager["Producer"]):
    """Writes records, batched per partition. Made by `Log.producer`; leaving the `with` block flushes and closes.

    With a transactional id it writes in transactions alone, and a delivery has its answer when the record is in the
    page cache: it is the commit that puts all of them on disk.
    """

    @abstractmethod
    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Delivery:
        """Takes one record; `value=None` is a tombstone, `timestamp_ms=None` is now.

        Without `partition` Kafka's murmur2 of the key chooses it, and for a null key one that stays the same for a
        batch. Blocks while `buffer_bytes` are not yet acknowledged.

        Raises:
            TypeError: value, key, headers, timestamp or partition of a wrong type; argument and topic are named.
            TopicNotFoundError: nothing is created silently.
            InvalidError: larger than the topic's `max.message.bytes`, a timestamp beyond its future guard, no such
                partition.
            RetriableError: no room in the buffer for 60 s.
        """

    @abstractmethod
    def send_many(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        timestamps_ms: Iterable[int] | None = None,
        headers: Iterable[Headers] | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Sends many records to one topic in order; returns when all are in the buffer or the log: the path for bulk.

        `keys`, `timestamps_ms` and `headers` are as long as `values`. The result is the last record's delivery;
        `flush` waits for all. Raises as `send`; what came before the record that is wrong has been sent.
        """

    @abstractmethod
    def flush(self, timeout: float | None = None) -> None:
        """Writes what is buffered and waits until it is acknowledged, at most `timeout` seconds.

        Raises:
            RetriableError: not all was acknowledged in time.
        """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """`with producer.transaction():` begins one, commits it at the end, and aborts it on an exception.

        Where the commit itself fails before anything was decided, it is aborted, too. Raises what `begin` and `commit`
        raise.
        """

    @abstractmethod
    def begin(self) -> None:
        """Begins a transaction: what is sent from now on is seen by `read_committed` readers all together, or never.

        Nothing is written before the first record; the time-out runs from there.

        Raises:
            InvalidError: the producer has no transactional id, or is in a transaction.
            FencedError: another producer has taken the transactional id.
        """

    @abstractmethod
    def commit(self) -> None:
        """Ends the transaction: its records and offsets count. It is on disk when the call returns.

        Where it raises a `RetriableError`, call it again, or `abort` (which says so where it is too late for that).

        Raises:
            InvalidError: there is no transaction.
            FencedError: another producer has taken the transactional id; the producer can only be closed.
            OverdueError: the transaction was aborted after `transaction_timeout_ms`; the producer can only be closed,
                and another be made that does it again.
            TailraceError: what kept a record of the transaction out of the log, also where `send` has raised it before
                (no such topic, too large) and it was caught; `send_many` has sent a part whatever it raised. Abort it.
        """

    @abstractmethod
    def abort(self) -> None:
        """Ends the transaction: its records and offsets never count, what was not written yet is dropped.

        Raises as `commit`; InvalidError, too, where an earlier `commit` has decided already: commit again.
        """

    @abstractmethod
    def send_offsets(self, group: str, offsets: Offsets, *, member: tuple[str, int] | None = None) -> None:
        """Commits a group's offsets with the transaction: they count when it is committed.

        `member`: what `Consumer.member` says of who read them; it is checked against the group. Without it they are
        taken as they are, as Kafka does; where the group has members, a warning says that one of them may have been
        expelled. What raises here keeps the transaction from being committed.

        Raises:
            InvalidError: there is no transaction; metadata over 4,096 bytes, an offset that is negative or past the
                end of its partition.
            TopicNotFoundError: no such topic or partition.
            ExpelledError: the group has expelled the member, or gone on to another generation: abort, and poll. The
                producer itself is as good as before.
            FencedError: as `commit`.
        """

    @abstractmethod
    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        *,
        member: tuple[str, int] | None = None,
    ) -> None:
        """As `send_offsets`, with epoch and metadata."""

    @abstractmethod
    def close(self) -> None:
        """Flushes and closes, and aborts an open transaction; again does nothing.

        One that was aborted before, after its time-out or by the producer that has the transactional id now, is no
        error here, where nobody has asked for a commit: a warning tells of it.

        Raises what kept a record, or a commit that was decided, from being written, where no other call has raised it.
        """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes."""
        self.close()


class Consumer(AbstractContextManager["Consumer"]):
    """Reads records. Made by `Log.consumer`; one thread at a time."""

    @abstractmethod
    def subscribe(
        self,
        topics: Sequence[str],
        *,
        on_assign: Rebalance | None = None,
        on_revoke: Rebalance | None = None,
        on_lost: Rebalance | None = None,
        assignor: str | Assignor | None = None,
        userdata: Callable[[], bytes] | None = None,
    ) -> None:
        """Shares the topics' partitions with the other members of the group.

        When a member comes or goes, the next `poll` calls `on_revoke` with what is to be given up, then `on_assign`
        with what is new; what stays is in neither. In `on_revoke` the partitions are still this member's: it may commit
        for them. Nobody else gets them before it returns.

        Whoever does not poll for `max_poll_interval_ms` is expelled as soon as another looks, and its partitions are
        given away. Its next `poll` calls `on_lost` (without one `on_revoke`, where a commit raises `ExpelledError`) and
        joins anew under another id.

        To subscribe again changes the topics, and in any case has the group share anew.

        `assignor` (else the consumer's own) says who gets what: "range", "roundrobin", "sticky", or a function, the
        same for all members of the group: it is called with {member id: userdata of that member} and {topic:
        partitions}, of all topics that a member subscribes to, and returns {member id: partitions}; a member that is
        left out gets none, a partition that is left out is read by nobody. It must depend on its arguments alone, be
        quick, and not use the log: any member's thread may call it, under a lock. What it raises, the member that leads
        the group gets out of `poll`. `userdata` is called, in this member's thread, each time that it joins anew: at
        `subscribe` and in `poll`.

        Raises:
            InvalidError: the consumer has no group, or has been assigned partitions by hand, or the group has members
                with another assignor.
            TopicNotFoundError: one of the topics does not exist.
            ValueError: an assignor that is not known.
        """

    @abstractmethod
    def member(self) -> tuple[str, int]:
        """This member's id in its group, and the generation: what `Producer.send_offsets` takes as `member`.

        The generation rises with every rebalance. Offsets with those of a member that was expelled are refused; ask
        again for each commit, in the thread that polls.

        Raises:
            InvalidError: the consumer has not subscribed.
            ExpelledError: the member was expelled, or another has taken its instance id: poll again.
        """

    @abstractmethod
    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Reads these partitions instead, from the group's committed offsets or else as `reset` says."""

    @abstractmethod
    def assignment(self) -> list[TopicPartition]:
        """The partitions being read, in order."""

    @abstractmethod
    def poll(self, timeout: float = 0.0, max_records: int = 500) -> list[Record[bytes | None, bytes | None]]:
        """Up to `max_records` records; waits at most `timeout` seconds for the first.

        Raises:
            InvalidError: the position is out of range and `reset="none"`.
            CorruptError: a batch on disk fails its CRC.
            FencedError: another consumer has taken this one's `group_instance_id`: this one can only be closed.
        """

    @abstractmethod
    def poll_batches(self, timeout: float = 0.0, max_bytes: int = 1 << 20) -> list[FetchedBatch]:
        """Whole batches of the assigned, unpaused partitions, about `max_bytes` altogether: the fast path.

        Positions move past what is returned. Raises as `poll`.
        """

    @abstractmethod
    def position(self, partition: TopicPartition) -> int:
        """The next offset that will be handed out."""

    @abstractmethod
    def committed(self, partition: TopicPartition) -> int | None:
        """The group's committed offset, None where there is none."""

    @abstractmethod
    def commit(self, offsets: Offsets | None = None) -> None:
        """Commits the positions (or `offsets`) for the group; returns when they are on disk.

        Raises:
            InvalidError: the consumer has no group; its partitions were assigned by hand while the group has members:
                what they commit would be overwritten; one of `offsets` is past the end of its partition.
            ExpelledError: this member was expelled, or a partition belongs to another member now.
        """

    @abstractmethod
    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Goes on at `offset`."""

    @abstractmethod
    def seek_to_beginning(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Goes on at the log start offset (of all assigned partitions unless some are given)."""

    @abstractmethod
    def seek_to_end(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Goes on at the end."""

    @abstractmethod
    def seek_to_time(self, when: Instant, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Goes on at the first record at or after `when`; at the end where there is none."""

    @abstractmethod
    def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """The first offset whose timestamp is at or after each time in ms; None where there is none."""

    @abstractmethod
    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Leaves these partitions out of `poll` until `resume`."""

    @abstractmethod
    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Takes these partitions back into `poll`."""

    @abstractmethod
    def close(self) -> None:
        """Leaves the group (a consumer with a `group_instance_id` keeps its place); commits nothing. Again nothing."""

    @abstractmethod
    def __iter__(self) -> Iterator[Record[bytes | None, bytes | None]]:
        """Records one by one, waiting for more without end; ends when closed meanwhile. InvalidError: closed before."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Record[bytes | None, bytes | None]]:
        """The same without blocking the event loop."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes."""
        self.close()


class Log(AbstractContextManager["Log"]):
    """Topics of records, wherever they are kept. Open one with `Log.open`."""

    @classmethod
    def open(cls, url: str, *, read_only: bool = False, flush: Literal["disk", "os"] = "disk", **options: Any) -> "Log":
        """Opens a log: a directory (created when missing), or `memory:` for one that is gone with the process.

        `read_only` takes no lock and writes nothing: it may stand beside a writer. `flush="os"` lets `acks="all"` mean
        what `acks=1` means, in the page cache. `options` go to the engine (see its `open_log`).

        Raises:
            LogLockedError: another process writes the directory.
            InvalidError: not a log, a log of a newer format, an unknown scheme or option.
            CorruptError: a bad batch before the tail.
        """
        if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f'Log.open takes a str, such as a folder or "memory:", not {type(url).__name__}')
        scheme, colon, address = url.partition(":")
        if not colon or "/" in scheme or len(scheme) == 1:  # "data", "./a:b", and a drive letter are paths
            scheme, address = "", url
        module = ENGINES.get(scheme)
        if module is None:
            known = ", ".join(sorted(f"{each}:" for each in ENGINES if each))
            raise InvalidError(f"no engine here opens {url!r}: use a directory or one of {known}")
        engine = importlib.import_module(module)
        opened = engine.open_log(
            url if scheme == "memory" else address.removeprefix("//"), read_only=read_only, flush=flush, **options
        )
        assert isinstance(opened, Log)
        return opened

    @property
    @abstractmethod
    def cluster_id(self) -> str:
        """The id that the log was given when it was made; it goes with its directory. Empty where it has none."""

    @property
    @abstractmethod
    def state_directory(self) -> str | None:
        """Where apps on this log keep their stores unless told otherwise; None: in memory, as the log itself is."""

    @abstractmethod
    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
        internal: bool = False,
    ) -> None:
        """Creates a topic; it is on disk when the call returns. `internal` hides it from `topics()`.

        Raises:
            TopicExistsError: it exists, and not `exist_ok` (which leaves an existing one as it is).
            InvalidError: name, partition count (1 to 10,000) or configuration refused; with `exist_ok`, the topic that
                exists has another number of partitions, or another value for something in `config`.
        """

    @abstractmethod
    def delete_topic(self, name: str) -> None:
        """Deletes a topic, its data and the offsets committed for it.

        Raises:
            TopicNotFoundError: there is none of this name.
        """

    @abstractmethod
    def alter_topic(self, name: str, config: Mapping[str, Any]) -> None:
        """Changes some of a topic's settings, at once and on disk when the call returns; the others stay.

        None as a value takes a setting back to its default.

        Raises:
            TopicNotFoundError: there is none of this name; near ones are in the message.
            InvalidError: a topic of the log's own, an unknown setting (near ones are in the message), a value that it
                cannot have, or two that contradict each other; nothing is changed.
        """

    @abstractmethod
    def note_topic(self, name: str, note: str) -> None:
        """Keeps a text of its owner's beside a topic, and goes with it; `describe_topic` has it.

        Raises:
            TopicNotFoundError: there is none of this name.
            InvalidError: over 4,096 bytes.
        """

    @abstractmethod
    def switch(
        self, name: str, *, topics: Mapping[str, str] | None = None, groups: Mapping[str, str] | None = None
    ) -> None:
        """Has names of topics and groups stand for others, all in one step; on disk when the call returns.

        `{"counts": "counts.v2"}`: who names `counts` reads and writes the topic `counts.v2` from now on; name the topic
        that stood there (`{"counts.old": "counts"}`) to find it further. Groups that read go on there: behind what is
        no younger than what they had read. Their members join anew. A crash leaves all of it or nothing.

        Raises:
            InvalidError: a switch of that name is in force, a topic is not there, or has another number of partitions;
                a group that is to be another has members.
            RetriableError: a transaction is open in these topics, or commits offsets of them: try again.
        """

    @abstractmethod
    def switch_back(self, name: str) -> None:
        """Takes a switch back, in one step: names, and the offsets of who reads, as they follow from the topics.

        Raises:
            InvalidError: there is none of the name in force; a later one has its names; a topic of before is deleted.
            RetriableError: as `switch`.
        """

    @abstractmethod
    def drop_replaced(self, name: str) -> list[str]:
        """Deletes the topics and the offsets of groups that a switch's names stood for before; there is no way back.

        What a name stands for now, or another switch would lead back to, stays. To be called again where it was broken
        off.

        Returns:
            The groups whose offsets are gone.

        Raises:
            InvalidError: there is no switch of the name in force.
        """

    @abstractmethod
    def switches(self) -> list[str]:
        """The names of the switches in force, oldest first."""

    @abstractmethod
    def group_behind(self, group: str) -> str:
        """The group that a name stands for: itself, as a rule."""

    @abstractmethod
    def create_partitions(self, name: str, total: int) -> None:
        """Adds partitions to a topic, up to `total`; on disk when the call returns.

        Records stay where they are, so a key may be found in two partitions: the new records of some keys go to another
        partition than the old. Groups that are subscribed share the new ones.

        Raises:
            TopicNotFoundError: there is none of this name.
            InvalidError: not more than it has, as there is no way to have fewer; over 10,000.
        """

    @abstractmethod
    def delete_records(self, before: Offsets) -> dict[TopicPartition, int]:
        """Deletes all records before these offsets (-1: all there are), and returns the new log start offsets.

        They are out of reach when the call returns; their bytes go with whole segments, when retention next comes by.

        Raises:
            TopicNotFoundError: there is no such topic or partition.
            InvalidError: an offset past the end, or a topic that is compacted alone. Nothing is changed then.
        """

    @abstractmethod
    def topics(self, *, internal: bool = False) -> list[str]:
        """The topics' names, sorted; those that the log or an app made for itself only with `internal`."""

    @abstractmethod
    def describe_topic(self, name: str) -> TopicDescription:
        """Id, partitions, configuration.

        Raises:
            TopicNotFoundError: there is none of this name; near ones are in the message.
        """

    @abstractmethod
    def offsets(
        self, name: str, at: At = "latest", *, isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """An offset per partition: the log start, the end, or the first at or after an instant (the end if none).

        The end is where a reader of this isolation comes to now: with "read_committed", the first open transaction.
        """

    @abstractmethod
    def open_transactions(self, name: str) -> list[TransactionDescription]:
        """The transactions that are open in a topic's partitions, oldest first within each: what readers wait for.

        Raises:
            TopicNotFoundError: there is none of this name.
        """

    @abstractmethod
    def leader_epoch(self, partition: TopicPartition) -> int:
        """The epoch in which records are written to the partition now; it rises at each opening for writing."""

    @abstractmethod
    def end_of_epoch(self, partition: TopicPartition, leader_epoch: int) -> int:
        """Where the records of an epoch end; -1 for one that this log never had.

        Who remembers (epoch, offset) with an offset above this remembers records that a crash took away.
        """

    @abstractmethod
    def groups(self) -> list[str]:
        """The groups that have committed offsets or members, sorted."""

    @abstractmethod
    def describe_group(self, group: str) -> GroupDescription:
        """State, members, committed offsets and lag.

        Raises:
            InvalidError: the group is not known; near names are in the message.
        """

    @abstractmethod
    def delete_group(self, group: str) -> None:
        """Forgets a group's offsets; on disk when the call returns.

        Raises:
            InvalidError: the group is not known, or has members.
        """

    @abstractmethod
    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The group's committed offsets; empty where it has none."""

    @abstractmethod
    def alter_offsets(self, group: str, offsets: Offsets) -> None:
        """Sets a group's committed offsets; on disk when the call returns.

        The stores of an app stay as they are: for its group use `App.reset`, which moves both.

        Raises:
            InvalidError: the group has members, an offset is negative or past the end; nothing is changed.
            TopicNotFoundError: no such topic or partition.
        """

    @abstractmethod
    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Commits offsets with epoch and metadata, atomically; on disk when the call returns.

        Raises:
            InvalidError: metadata over 4,096 bytes, an offset that is negative or past the end of its partition.
            TopicNotFoundError: no such topic or partition.
        """

    @abstractmethod
    def committed_offsets(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """The group's committed offsets with epoch and metadata."""

    @abstractmethod
    def wait_for_data(
        self,
        positions: Mapping[TopicPartition, int],
        timeout: float | None = None,
        *,
        isolation: Isolation = "read_committed",
    ) -> bool:
        """True as soon as a partition has data at or past its position here; False after `timeout` s, or at `wake`.

        Data is what a reader of this isolation would see, markers and aborted records among them.
        """

    @abstractmethod
    def wake(self) -> None:
        """Makes every `wait_for_data` and waiting `poll` of this log return at once; may be called by any thread."""

    @abstractmethod
    def compact(self, name: str) -> None:
        """Compacts a topic now instead of by and by: of the records with the same key only the last stays.

        Offsets stay as they are. What is in a partition's active segment (the one being written to), or younger than
        `min.compaction.lag.ms`, is left alone (a warning tells where that is all there is); tombstones go
        `delete.retention.ms` after they were first compacted.

        Raises:
            TopicNotFoundError: there is none of this name.
            InvalidError: its `cleanup.policy` has no `compact`.
            DiskFullError: no room to write the compacted segments; the topic is as it was.
            CorruptError: a segment is damaged; it is not touched.
        """

    @abstractmethod
    def producer(
        self,
        *,
        acks: Acks = "all",
        linger_ms: float = DEFAULT_LINGER_MS,
        batch_bytes: int = DEFAULT_BATCH_BYTES,
        compression: Compression = "none",
        transactional_id: str | None = None,
        transaction_timeout_ms: int = DEFAULT_TRANSACTION_TIMEOUT_MS,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    ) -> Producer:
        """A producer. A batch is written at `batch_bytes`, after `linger_ms`, or at once when someone waits for it.

        `acks`: "all" = on disk, 1 = in the page cache, 0 = not waited for (errors are logged). `buffer_bytes` bounds
        what is not yet acknowledged; beyond it `send` blocks.

        `transactional_id`: for transactions, which need acks="all"; choose one that stays the same over restarts. One
        producer at a time has an id: a new one aborts what the older has open, and fences it. An open transaction
        holds up `read_committed` readers of its partitions; `transaction_timeout_ms` (1 to 900,000) after its first
        record it is aborted, and its producer is fenced.

        Raises:
            ValueError, TypeError: an option that cannot be.
        """

    @abstractmethod
    def consumer(
        self,
        *,
        group: str | None = None,
        isolation: Isolation = "read_committed",
        reset: Reset = "earliest",
        fetch_min_bytes: int = 1,
        fetch_max_wait_ms: int = DEFAULT_FETCH_WAIT_MS,
        group_instance_id: str | None = None,
        assignor: str = "range",
        max_poll_interval_ms: int = DEFAULT_MAX_POLL_INTERVAL_MS,
    ) -> Consumer:
        """A consumer. `reset` says where to begin without a committed offset, or where the position is out of range.

        A waiting `poll` returns as soon as `fetch_min_bytes` are there, or with whatever there is after
        `fetch_max_wait_ms`. `isolation="read_committed"` reads up to the first transaction that is still open (the last
        stable offset), and leaves out what was aborted; "read_uncommitted" reads all that is there.

        In a group that it subscribes in: `assignor` is "range", "roundrobin" or "sticky", the same for all members (see
        `Consumer.subscribe`); `max_poll_interval_ms` is how long it may go without a `poll` before its partitions are
        given to others. `group_instance_id` makes it a static member: it keeps its place for that time when it is
        closed, and whoever comes with the same name gets what it had, at once, while it is fenced itself.

        Raises:
            ValueError: an option that cannot be.
        """

    @abstractmethod
    def close(self) -> None:
        """Writes and syncs everything, marks the log as cleanly shut, frees the lock; again does nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes."""
        self.close()
