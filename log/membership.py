"""One consumer's place in a group: it joins, settles between two polls, leaves.

1. A partition is given up only between two polls, after `on_revoke`, so that what was processed can be committed; only
   then may another member take it.
2. What was revoked is no longer read, also where `on_revoke` raises.

A membership knows nothing of its consumer, which may be dropped without a close: then the membership leaves for it.
Not here: who gets what (`assignors`), the group (`coordinator`), positions (`consumer`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tailrace.log.assignors import Subscription, assignor
from tailrace.log.client import Assignor, Rebalance
from tailrace.log.coordinator import Coordinator
from tailrace.log.record import TopicPartition


class Listener(NamedTuple):
    """What the user wants to be told, and asked: see `Consumer.subscribe`."""

    on_assign: Rebalance | None = None
    on_revoke: Rebalance | None = None
    userdata: Callable[[], bytes] | None = None


class Membership:
    """See the head of this file. Used by the consumer's thread; `stirred` and `leave` by any."""

    def __init__(self, coordinator: Coordinator, group: str) -> None:
        self._coordinator = coordinator
        self._group = group
        self._member = coordinator.new_member()
        self._seen_changes = -1

    def subscribe(
        self, topics: Sequence[str], partition_counts: Mapping[str, int], chosen: str | Assignor, listener: Listener
    ) -> None:
        """Joins, or changes what is subscribed to.

        Raises:
            InvalidError: the group has members with another assignor.
            ValueError: an assignor that is not known.
        """
        named = assignor(chosen)
        userdata = b"" if listener.userdata is None else listener.userdata()
        subscription = Subscription(list(topics), userdata=userdata)
        self._coordinator.join(self._group, self._member, subscription, dict(partition_counts), named)

    def current(self) -> tuple[str, int]:
        """Id and generation; see `Consumer.member`."""
        return self._member, self._coordinator.generation(self._group)

    def stirred(self) -> bool:
        """Whether there may be something to settle."""
        return self._coordinator.changes(self._group) != self._seen_changes

    def settle(self, listener: Listener, drop: Rebalance, take: Rebalance) -> None:
        """Gives up what is no longer ours, takes what is free; `drop` and `take` are the consumer's own part in it."""
        while self.stirred():
            self._seen_changes = self._coordinator.changes(self._group)
            revoked = self._coordinator.to_revoke(self._group, self._member)
            if revoked:
                try:
                    if listener.on_revoke is not None:
                        listener.on_revoke(revoked)
                finally:
                    drop(revoked)
                    self._coordinator.release(self._group, self._member, revoked)
            taken = self._coordinator.take(self._group, self._member)
            take(taken)
            if taken and listener.on_assign is not None:
                listener.on_assign(taken)

    def check_commit(self, partitions: Iterable[TopicPartition]) -> None:
        """Refuses a commit for what another member owns.

        Raises:
            FencedError: naming the partition and its owner.
        """
        self._coordinator.check_owner(self._group, self._member, partitions)

    def leave(self) -> None:
        """Leaves the group, and frees what it owns."""
        self._coordinator.leave(self._group, self._member)
