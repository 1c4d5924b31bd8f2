"""Groups of one log: who their members are, what they own, which offsets they committed.

1. A commit is durable when the call returns: `write` appends one batch to `__consumer_offsets` and syncs it.
2. The table follows the topic: an offset is in it only after its record was appended, in the order of the records.
3. Who waits in a poll is woken when ownership changes.

Not here: the rules of assignment (`group`), the bytes (`offsets`), the topic itself (`broker`).
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from tailrace.log.assignors import Assign, Subscription
from tailrace.log.client import CommittedOffset
from tailrace.log.clock import Clock
from tailrace.log.errors import FencedError, InvalidError
from tailrace.log.group import EMPTY, Group
from tailrace.log.offsets import OffsetKey, OffsetTable, check_commit, encode_key, encode_value
from tailrace.log.record import TopicPartition
from tailrace.log.topic import near_names
from tailrace.log.waiting import Waiting

Rows = Sequence[tuple[bytes, bytes | None]]
# Appends rows as one batch, calls the second argument when they are appended, and returns when they are on disk.
Write = Callable[[Rows, Callable[[], None]], None]


class Coordinator:
    """Membership and committed offsets. Any thread may call; `_lock` is never held while a disk is waited for."""

    def __init__(self, clock: Clock, waiting: Waiting, write: Write) -> None:
        self._clock = clock
        self._waiting = waiting
        self._write = write
        self._lock = threading.RLock()
        self._groups: dict[str, Group] = {}
        self._names = itertools.count(1)
        self._offsets = OffsetTable()

    # -- members -------------------------------------------------------------------------------------------------------

    def new_member(self) -> str:
        """A name for a member; they sort in the order of joining."""
        return f"consumer-{next(self._names):06d}"

    def join(
        self,
        group: str,
        member: str,
        subscription: Subscription,
        partition_counts: dict[str, int],
        assignor: tuple[str, Assign],
    ) -> None:
        """A member comes, or changes its topics.

        Raises:
            InvalidError: other members use another assignor.
        """
        with self._lock:
            self._groups.setdefault(group, Group(group)).join(member, subscription, partition_counts, assignor)
        self._waiting.wake_all()

    def leave(self, group: str, member: str) -> None:
        """A member goes."""
        with self._lock:
            known = self._groups.get(group)
            if known is not None:
                known.leave(member)
        self._waiting.wake_all()

    def changes(self, group: str) -> int:
        """A number that differs when a member may have to settle."""
        known = self._groups.get(group)
        return 0 if known is None else known.changes

    def to_revoke(self, group: str, member: str) -> list[TopicPartition]:
        """What a member must give up."""
        with self._lock:
            return self._groups[group].to_revoke(member)

    def release(self, group: str, member: str, partitions: Sequence[TopicPartition]) -> None:
        """A member has given these up."""
        with self._lock:
            self._groups[group].release(member, partitions)
        self._waiting.wake_all()

    def take(self, group: str, member: str) -> list[TopicPartition]:
        """What a member owns from now on."""
        with self._lock:
            return self._groups[group].take(member)

    def generation(self, group: str) -> int:
        """How often the group's members or partitions have changed."""
        with self._lock:
            known = self._groups.get(group)
            return 0 if known is None else known.generation

    def check_member(self, group: str, member: str, generation: int) -> None:
        """Refuses offsets from a member that was expelled, or that knows an older generation only.

        Raises:
            FencedError: naming the member.
        """
        with self._lock:
            known = self._groups.get(group)
            if known is None or member not in known.members:
                raise FencedError(f"{member} is no member of group {group!r} any more: poll to join anew")
            if generation != known.generation:
                raise FencedError(
                    f"{member} has generation {generation} of group {group!r}, which is at {known.generation}: poll, "
                    "and ask for member() again"
                )

    def check_owner(self, group: str, member: str, partitions: Iterable[TopicPartition]) -> None:
        """Refuses a commit by a member for what another owns.

        Raises:
            FencedError: naming the partition and its owner.
        """
        with self._lock:
            for each in partitions:
                owner = self._groups[group].owner(each)
                if owner not in {None, member}:
                    raise FencedError(
                        f"{each} belongs to {owner} in group {group!r} now: {member} cannot commit for it, poll first"
                    )

    def topic_gone(self, topic: str) -> None:
        """A topic was deleted: its partitions and offsets go."""
        with self._lock:
            for group in self._groups.values():
                group.topic_gone(topic)
        self.forget_topics({topic})
        self._waiting.wake_all()

    def topic_grew(self, topic: str, partitions: int) -> None:
        """A topic got more partitions: its groups share them."""
        with self._lock:
            for group in self._groups.values():
                group.topic_grew(topic, partitions)
        self._waiting.wake_all()

    # -- offsets -------------------------------------------------------------------------------------------------------

    def load(self, key: bytes | None, value: bytes | None) -> None:
        """Takes in the next record of `__consumer_offsets`, at opening."""
        with self._lock:
            self._offsets.apply_bytes(key, value)

    def commit(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Commits offsets in one batch."""
        check_commit(group, offsets)
        now_ms = self._clock.now_ms()
        rows = {OffsetKey(group, each): committed for each, committed in offsets.items()}
        self._store(rows, [(encode_key(key), encode_value(committed, now_ms)) for key, committed in rows.items()])

    def forget_topics(self, topics: set[str]) -> None:
        """Removes every group's offsets for these topics."""
        with self._lock:
            keys = self._offsets.keys_of_topics(topics)
        self._forget(keys)

    def topics(self) -> set[str]:
        """The topics that offsets are committed for."""
        with self._lock:
            return self._offsets.topics()

    def _forget(self, keys: Sequence[OffsetKey]) -> None:
        self._store(dict.fromkeys(keys), [(encode_key(key), None) for key in keys])

    def _store(self, rows: Mapping[OffsetKey, CommittedOffset | None], encoded: Rows) -> None:
        def apply() -> None:
            with self._lock:
                for key, committed in rows.items():
                    self._offsets.apply(key, committed)

        if rows:
            self._write(encoded, apply)

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
        with self._lock:
            living = {name for name, group in self._groups.items() if group.state != EMPTY}
            return sorted({*self._offsets.groups(), *living})

    def describe(self, group: str) -> tuple[str, list[str]]:
        """State and members.

        Raises:
            InvalidError: the group is not known.
        """
        names = self.groups()
        if group not in names:
            raise InvalidError(f"there is no group {group!r} in this log{near_names(group, names)}")
        with self._lock:
            known = self._groups.get(group)
            return (EMPTY, []) if known is None else (known.state, known.members)

    def check_empty(self, group: str, what: str) -> None:
        """Refuses to touch a group that has members.

        Raises:
            InvalidError: naming them.
        """
        with self._lock:
            known = self._groups.get(group)
            if known is not None and known.members:
                raise InvalidError(
                    f"cannot {what} of group {group!r} while it has members: close {', '.join(known.members)} first"
                )

    def delete(self, group: str) -> None:
        """Forgets a group's offsets."""
        self.describe(group)
        self.check_empty(group, "delete the offsets")
        with self._lock:
            self._groups.pop(group, None)
            keys = [OffsetKey(group, each) for each in self._offsets.of(group)]
        self._forget(keys)
