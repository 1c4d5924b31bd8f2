"""The embedded log: a folder, or memory, in this process. What `Log.open` loads for both.

`Log`'s methods, each in a few lines on the parts: `broker` (topics, data), `coordinator` (groups), `producer`,
`consumer`.
"""

import atexit
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal

from tailrace.log.arguments import check_choice, offsets_given
from tailrace.log.broker import CLEANER_BACKOFF_MS, RETENTION_INTERVAL_MS, Broker
from tailrace.log.client import (
    DEFAULT_BATCH_BYTES,
    DEFAULT_BUFFER_BYTES,
    DEFAULT_FETCH_WAIT_MS,
    DEFAULT_LINGER_MS,
    DEFAULT_MAX_POLL_INTERVAL_MS,
    DEFAULT_TRANSACTION_TIMEOUT_MS,
    Acks,
    CommittedOffset,
    Compression,
    Consumer,
    GroupDescription,
    Isolation,
    Log,
    Producer,
    Reset,
    TopicDescription,
    TransactionDescription,
)
from tailrace.log.clients.consumer import EmbeddedConsumer
from tailrace.log.clients.producer import EmbeddedProducer
from tailrace.log.clients.transactional import TransactionalProducer
from tailrace.log.clock import Clock, SystemClock
from tailrace.log.disk import Disk, MemoryDisk, RealDisk
from tailrace.log.errors import InvalidError
from tailrace.log.groups.group import UNKNOWN
from tailrace.log.groups.membership import MemberOptions
from tailrace.log.record import At, Offsets, TopicPartition, instant_ms
from tailrace.log.topic import check_is_mapping, near_names
from tailrace.log.topics.layout import MEMORY_PATH

OPTIONS: Final = ("disk", "clock", "background", "retention_check_interval_ms", "cleaner_backoff_ms")


def open_log(address: str, *, read_only: bool, flush: Literal["disk", "os"], **options: Any) -> "EmbeddedLog":
    """Opens a folder, or a log in memory for the address `memory:`.

    Options: `disk` and `clock` (the machine's unless given); `background=False` for no threads: syncing happens in the
    calls, nothing lingers by time, retention and compaction run when they are called; `retention_check_interval_ms`
    (300,000); `cleaner_backoff_ms` (15,000).

    Raises:
        InvalidError: an unknown option, and what `Log.open` says.
    """
    for name in options:
        if name not in OPTIONS:
            raise InvalidError(f"there is no option {name!r} for opening a log{near_names(name, OPTIONS)}")
    check_choice("flush", flush, ("disk", "os"))
    memory = address == "memory:"
    if not address or (address.startswith("memory:") and not memory):
        raise InvalidError(f"{address!r} names no log: give a folder, or memory: for one in memory")
    if memory and read_only:
        raise InvalidError("a log in memory begins empty: there is nothing to open with read_only=True")
    disk: Disk = options.get("disk") or (MemoryDisk() if memory else RealDisk())
    clock: Clock = options.get("clock") or SystemClock()
    try:
        broker = Broker(
            disk,
            clock,
            MEMORY_PATH if memory else address,
            read_only=read_only,
            flush=flush,
            background=options.get("background", True),
            sync_thread=not memory,  # in memory a sync is nothing: no thread need be woken for it
            retention_interval_ms=options.get("retention_check_interval_ms", RETENTION_INTERVAL_MS),
            cleaner_backoff_ms=options.get("cleaner_backoff_ms", CLEANER_BACKOFF_MS),
        )
    except (NotADirectoryError, PermissionError) as error:
        raise InvalidError(
            f"the log {address} cannot be opened, as {error.filename} cannot be used ({error.strerror}): give another "
            "folder, or mend that"
        ) from error
    return EmbeddedLog(broker, None if memory else f"{address}/state")


class EmbeddedLog(Log):
    """See `client.Log`. Make one with `Log.open`."""

    def __init__(self, broker: Broker, state_directory: str | None) -> None:
        self._broker = broker
        self._state_directory = state_directory
        self._at_exit = partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)
        self._clients: weakref.WeakSet[EmbeddedProducer | EmbeddedConsumer] = weakref.WeakSet()

    @property
    def cluster_id(self) -> str:
        """See `Log.cluster_id`."""
        return self._broker.catalog.cluster_id

    @property
    def state_directory(self) -> str | None:
        """See `Log.state_directory`: beside the partitions, whose folders all end in a number."""
        return self._state_directory

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
        internal: bool = False,
    ) -> None:
        """See `Log.create_topic`."""
        self._broker.create_topic(name, partitions, config, exist_ok=exist_ok, internal=internal)

    def delete_topic(self, name: str) -> None:
        """See `Log.delete_topic`."""
        self._broker.delete_topic(name)

    def alter_topic(self, name: str, config: Mapping[str, Any]) -> None:
        """See `Log.alter_topic`."""
        check_is_mapping(config)
        self._broker.catalog.alter_topic(name, config)

    def note_topic(self, name: str, note: str) -> None:
        """See `Log.note_topic`."""
        self._broker.catalog.note_topic(name, note)

    def switch(
        self, name: str, *, topics: Mapping[str, str] | None = None, groups: Mapping[str, str] | None = None
    ) -> None:
        """See `Log.switch`."""
        self._broker.switch(name, topics or {}, groups or {})

    def switch_back(self, name: str) -> None:
        """See `Log.switch_back`."""
        self._broker.switch_back(name)

    def drop_replaced(self, name: str) -> list[str]:
        """See `Log.drop_replaced`."""
        return self._broker.drop_replaced(name)

    def switches(self) -> list[str]:
        """See `Log.switches`."""
        self._broker.look()
        return [each.name for each in self._broker.catalog.aliases.switches]

    def group_behind(self, group: str) -> str:
        """See `Log.group_behind`."""
        self._broker.look()
        return self._broker.catalog.group(group)

    def create_partitions(self, name: str, total: int) -> None:
        """See `Log.create_partitions`."""
        self._broker.create_partitions(name, total)

    def delete_records(self, before: Offsets) -> dict[TopicPartition, int]:
        """See `Log.delete_records`."""
        return self._broker.delete_records(before)

    def topics(self, *, internal: bool = False) -> list[str]:
        """See `Log.topics`."""
        return self._broker.catalog.names(internal=internal)

    def describe_topic(self, name: str) -> TopicDescription:
        """See `Log.describe_topic`."""
        topic = self._broker.catalog.topic(name)
        config = topic.config.as_strings()
        return TopicDescription(
            topic.name, topic.topic_id, topic.partitions, config, topic.internal, topic.record.note or ""
        )

    def offsets(
        self, name: str, at: At = "latest", *, isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """See `Log.offsets`."""
        stable = isolation == "read_committed"
        topic = self._broker.catalog.topic(name)
        out: dict[TopicPartition, int] = {}
        for tp, log in zip(topic.tps, topic.logs, strict=True):
            if at == "earliest":
                out[tp] = log.log_start_offset
            elif at == "latest":
                out[tp] = self._broker.catalog.end_offset(tp, stable=stable)
            elif isinstance(at, str):
                raise ValueError(f'at={at!r}: give "earliest", "latest", an aware datetime or milliseconds')
            else:
                found = log.offset_for_time(instant_ms(at))
                out[tp] = self._broker.catalog.end_offset(tp, stable=stable) if found is None else found[0]
        return out

    def open_transactions(self, name: str) -> list[TransactionDescription]:
        """See `Log.open_transactions`."""
        return self._broker.open_transactions(self._broker.catalog.topic(name))

    def leader_epoch(self, partition: TopicPartition) -> int:
        """See `Log.leader_epoch`."""
        return self._broker.catalog.partition(partition).leader_epoch

    def end_of_epoch(self, partition: TopicPartition, leader_epoch: int) -> int:
        """See `Log.end_of_epoch`."""
        return self._broker.catalog.partition(partition).end_of_epoch(leader_epoch)

    def groups(self) -> list[str]:
        """See `Log.groups`."""
        self._broker.look()
        return sorted({*self._broker.coordinator.groups(), *self._broker.catalog.aliases.groups})

    def describe_group(self, group: str) -> GroupDescription:
        """See `Log.describe_group`."""
        self._broker.look()
        state, members = self._broker.coordinator.describe(self._broker.catalog.group(group))
        if self._broker.catalog.beside_a_writer():
            state = UNKNOWN
        aliases = self._broker.catalog.aliases.topics
        behind_others = set(aliases.values()) - aliases.keys()  # told under the name that is used
        offsets = {tp: offset for tp, offset in self.committed(group).items() if tp.topic not in behind_others}
        ends = {
            tp: self._broker.catalog.end_offset(tp) for tp in offsets if self._broker.catalog.find(tp.topic) is not None
        }
        lag = {tp: max(0, end - offsets[tp]) for tp, end in ends.items()}
        return GroupDescription(group, state, members, offsets, lag)

    def delete_group(self, group: str) -> None:
        """See `Log.delete_group`."""
        self._broker.catalog.check_writable()
        self._broker.coordinator.delete(self._broker.catalog.group(group))

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """See `Log.committed`."""
        return {tp: committed.offset for tp, committed in self._broker.committed_offsets(group).items()}

    def alter_offsets(self, group: str, offsets: Offsets) -> None:
        """See `Log.alter_offsets`."""
        self._broker.coordinator.check_empty(self._broker.catalog.group(group), "alter the offsets")
        wanted = offsets_given(offsets)
        for tp, committed in wanted.items():
            end = self._broker.catalog.end_offset(tp)
            if committed.offset > end:
                raise InvalidError(
                    f"the offset {committed.offset} for {tp} is past its end at {end}: records up to there would be "
                    "skipped unread; give that or less"
                )
        self._broker.commit_offsets(group, wanted)

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """See `Log.commit_offsets`."""
        self._broker.check_not_past_end(group, offsets)
        self._broker.commit_offsets(group, offsets)

    def committed_offsets(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """See `Log.committed_offsets`."""
        return self._broker.committed_offsets(group)

    def wait_for_data(
        self,
        positions: Mapping[TopicPartition, int],
        timeout: float | None = None,
        *,
        isolation: Isolation = "read_committed",
    ) -> bool:
        """See `Log.wait_for_data`."""
        self._broker.catalog.check_open()
        return self._broker.wait(positions, timeout, stable=isolation == "read_committed")

    def wake(self) -> None:
        """See `Log.wake`."""
        self._broker.wake()

    def apply_retention(self) -> dict[TopicPartition, list[str]]:
        """Deletes now what retention lets go, as happens every five minutes by itself; segment files per partition."""
        return self._broker.apply_retention()

    def end_overdue_transactions(self) -> list[str]:
        """Aborts now what is open longer than its time-out, as happens by itself; returns the transactional ids."""
        self._broker.catalog.check_writable()
        return self._broker.transactions.end_overdue()

    def compact(self, name: str) -> None:
        """See `Log.compact`."""
        self._broker.compact(name)

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
        """See `Log.producer`."""
        self._broker.catalog.check_open(or_closing=True)
        self._broker.catalog.check_writable()
        if transactional_id is None:
            producer = EmbeddedProducer(
                self._broker,
                acks=acks,
                linger_ms=linger_ms,
                batch_bytes=batch_bytes,
                compression=compression,
                buffer_bytes=buffer_bytes,
            )
        else:
            producer = TransactionalProducer(
                self._broker,
                transactional_id=transactional_id,
                transaction_timeout_ms=transaction_timeout_ms,
                acks=acks,
                linger_ms=linger_ms,
                batch_bytes=batch_bytes,
                compression=compression,
                buffer_bytes=buffer_bytes,
            )
        self._clients.add(producer)
        return producer

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
        """See `Log.consumer`."""
        self._broker.catalog.check_open(or_closing=True)
        consumer = EmbeddedConsumer(
            self._broker,
            group=group,
            isolation=isolation,
            reset=reset,
            fetch_min_bytes=fetch_min_bytes,
            fetch_max_wait_ms=fetch_max_wait_ms,
            member=MemberOptions(group_instance_id, assignor, max_poll_interval_ms),
        )
        self._clients.add(consumer)
        return consumer

    def close(self) -> None:
        """See `Log.close`. Producers are flushed; an error of theirs is raised after the log is closed."""
        atexit.unregister(self._at_exit)
        self._broker.catalog.closing = True
        error: BaseException | None = None
        for client in list(self._clients):
            try:
                client.close()
            except Exception as raised:  # noqa: BLE001  # the lock must be let go whatever a producer says
                error = error or raised
        self._broker.close()
        if error is not None:
            raise error


def _close_at_exit(log: "weakref.ref[EmbeddedLog]") -> None:
    """What lingers in producers is still written when a program ends without `close`."""
    alive = log()
    if alive is not None:
        alive.close()
