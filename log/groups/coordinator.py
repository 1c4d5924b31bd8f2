"""Groups of one log: who their members are, what they own, which offsets they committed.

1. A commit is durable when the call returns: `write` appends one batch to `__consumer_offsets` and syncs it.
2. The table follows the topic: an offset is in it only after its record was appended, in the order of the records.
3. A member is looked at under the lock under which who takes its partitions over reads their offsets: an expelled one
   cannot set them back.

Not here: members and their rounds (`groups`), the rules of assignment (`assignors`), the bytes (`offsets`), the topic
itself (`broker`).
"""

import threading
from collections.abc import Callable, Mapping, Sequence

from tailrace.log.client import CommittedOffset, MemberDescription
from tailrace.log.clock import Clock
from tailrace.log.errors import InvalidError, RetriableError
from tailrace.log.groups.groups import Groups
from tailrace.log.groups.local_members import PartitionsOf
from tailrace.log.groups.offsets import OffsetKey, OffsetTable, check_commit, encode_key, encode_value
from tailrace.log.record import TopicPartition
from tailrace.log.topic import near_names
from tailrace.log.waiting import Waiting

Rows = Sequence[tuple[bytes, bytes | None]]
Check = Callable[[], None]
# Appends rows as one batch and returns when they are on disk. Under the lock of the order of commits, the second
# argument is called before, and may refuse; the third after.
Write = Callable[[Rows, Check, Callable[[], None]], None]


class Coordinator:
    """Membership and committed offsets. Any thread may call; `_lock` is never held while a disk is waited for."""

    def __init__(self, clock: Clock, waiting: Waiting, write: Write, partitions_of: PartitionsOf) -> None:
        """`partitions_of` says how many a topic has, None for one that is not there; it must take no lock."""
        self.members = Groups(clock, partitions_of, waiting.wake_all)
        self._clock = clock
        self._wake_all = waiting.wake_all
        self._write = write
        self._lock = threading.RLock()
        self._offsets = OffsetTable()

    # -- members -------------------------------------------------------------------------------------------------------

    def check_member(self, group: str, member: str, generation: int) -> None:
        """Refuses offsets in a transaction from a member that was expelled, or that knows an older generation only.

        Raises:
            ExpelledError: naming the member.
        """
        self.members.check_member(group, member, generation)

    def members_of(self, group: str) -> list[str]:
        """The ids of a group's members; empty where there is none, or no group."""
        return [each.member for each in self.members.describe(group)[1]]

    def topic_gone(self, topic: str) -> None:
        """A topic was deleted: its partitions and offsets go."""
        self.members.topic_changed(topic)
        self.forget_topics({topic})

    def topic_grew(self, topic: str) -> None:
        """A topic is there, or got more partitions: its groups share them."""
        self.members.topic_changed(topic)

    # -- offsets -------------------------------------------------------------------------------------------------------

    def load(self, key: bytes | None, value: bytes | None, producer_id: int | None = None) -> None:
        """Takes in the next record of `__consumer_offsets`, at opening; with its producer's id in a transaction."""
        with self._lock:
            self._offsets.apply_bytes(key, value, producer_id)

    def pend(self, producer_id: int, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Offsets were appended in a transaction: they count when it is committed."""
        with self._lock:
            self._offsets.pend(producer_id, {OffsetKey(group, each): found for each, found in offsets.items()})

    def end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """The marker of a transaction was appended: its offsets count from now on, or are forgotten."""
        with self._lock:
            any_pending = self._offsets.end(producer_id, committed=committed)
        if any_pending:
            self._wake_all()  # who waits to begin from these

    def is_pending(self, group: str, partition: TopicPartition) -> bool:
        """Whether a transaction is open that commits an offset here."""
        with self._lock:
            return self._offsets.is_pending(OffsetKey(group, partition))

    def commit(
        self, group: str, offsets: Mapping[TopicPartition, CommittedOffset], check: Check = lambda: None
    ) -> None:
        """Commits offsets in one batch, unless `check` raises."""
        rows = {OffsetKey(group, each): committed for each, committed in offsets.items()}
        self._store(rows, self.encoded(group, offsets), check)

    def encoded(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> Rows:
        """The records of a commit.

        Raises:
            InvalidError: what could not be stored or read back (`check_commit`).
        """
        check_commit(group, offsets)
        now_ms = self._clock.now_ms()
        return [
            (encode_key(OffsetKey(group, each)), encode_value(committed, now_ms)) for each, committed in offsets.items()
        ]

    def forget_topics(self, topics: set[str]) -> None:
        """Removes every group's offsets for these topics."""
        with self._lock:
            self._offsets.forget_pending(topics)
            keys = self._offsets.keys_of_topics(topics)
        self._forget(keys)

    def topics(self) -> set[str]:
        """The topics that offsets are committed for."""
        with self._lock:
            return self._offsets.topics()

    def _forget(self, keys: Sequence[OffsetKey]) -> None:
        self._store(dict.fromkeys(keys), [(encode_key(key), None) for key in keys])

    def _store(
        self, rows: Mapping[OffsetKey, CommittedOffset | None], encoded: Rows, check: Check = lambda: None
    ) -> None:
        def apply() -> None:
            with self._lock:
                for key, committed in rows.items():
                    self._offsets.apply(key, committed)

        if rows:
            self._write(encoded, check, apply)

    def offsets_of(self, topic: str) -> dict[str, dict[TopicPartition, CommittedOffset]]:
        """What groups have committed in a topic, by group.

        Raises:
            RetriableError: a transaction is open that commits some.
        """
        found: dict[str, dict[TopicPartition, CommittedOffset]] = {}
        with self._lock:
            for group in self._offsets.groups():
                held = {each: offset for each, offset in self._offsets.of(group).items() if each.topic == topic}
                if held:
                    found[group] = held
                for each in held:
                    if self._offsets.is_pending(OffsetKey(group, each)):
                        raise RetriableError(f"group {group!r} commits offsets of {each} just now: wait until it has")
        return found

    def committed(self, group: str, partition: TopicPartition) -> CommittedOffset | None:
        """One committed offset."""
        with self._lock:
            return self._offsets.get(group, partition)

    def committed_offsets(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """All of a group's."""
        with self._lock:
            return self._offsets.of(group)

    # -- groups --------------------------------------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """Groups with offsets or members."""
        living = self.members.living()
        with self._lock:
            return sorted({*self._offsets.groups(), *living})

    def describe(self, group: str) -> tuple[str, list[MemberDescription]]:
        """State and members.

        Raises:
            InvalidError: the group is not known.
        """
        names = self.groups()
        if group not in names:
            near = near_names(group, names) or "; log.groups(), or `tailrace groups list`, shows them"
            raise InvalidError(f"there is no group {group!r} in this log{near}")
        return self.members.describe(group)

    def check_empty(self, group: str, what: str) -> None:
        """Refuses to touch a group that has members.

        Raises:
            InvalidError: naming them.
        """
        _, members = self.members.describe(group)
        if members:
            names = ", ".join(each.member for each in members)
            raise InvalidError(f"cannot {what} of group {group!r} while it has members: close {names} first")

    def delete(self, group: str) -> None:
        """Forgets a group's offsets."""
        self.describe(group)
        self.check_empty(group, "delete the offsets")
        self.members.forget(group)
        with self._lock:
            keys = [OffsetKey(group, each) for each in self._offsets.of(group)]
        self._forget(keys)
