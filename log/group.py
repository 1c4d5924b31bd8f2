"""Consumer groups within one process: who of a group's members reads which partition.

1. A partition has at most one owner, always: a member takes one only after its former owner has given it up.
2. Members agree on one assignor (`assignors`).
3. When members or partitions change, `generation` rises; every member settles at its next poll, and the group is
   `Stable` when each owns exactly what it should.

A member that does not poll keeps what it owns: within a process nobody else could tell "slow" from "gone"; one whose
consumer was dropped without `close` leaves when it is collected. Not here: sockets, heartbeats (the group protocol of
several processes), offsets (`offsets`). Plain data: whoever holds it locks.
"""

from collections.abc import Sequence
from typing import Final

from tailrace.log.assignors import Assign, Subscription, assign_ranges
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition

EMPTY: Final = "Empty"
REBALANCING: Final = "PreparingRebalance"
STABLE: Final = "Stable"
UNKNOWN: Final = "Unknown"  # what a reader says of groups while another process writes: the members are there

# (state, event) -> state, in Kafka's words. `changed`: members or partitions; `settled`: owners are as assigned.
TRANSITIONS: Final = {
    (EMPTY, "changed"): REBALANCING,
    (EMPTY, "emptied"): EMPTY,  # a topic goes, or grows, when the members are gone already
    (REBALANCING, "changed"): REBALANCING,
    (REBALANCING, "settled"): STABLE,
    (REBALANCING, "emptied"): EMPTY,
    (STABLE, "changed"): REBALANCING,
    (STABLE, "settled"): STABLE,
    (STABLE, "emptied"): EMPTY,
}


class Group:
    """One group's members, what each should own and what each does own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: str = EMPTY
        self.generation = 0
        self.changes = 0  # rises whenever a member may find something to settle
        self._assignor = ""
        self._assign: Assign = assign_ranges
        self._members: dict[str, Subscription] = {}
        self._counts: dict[str, int] = {}
        self._target: dict[str, list[TopicPartition]] = {}
        self._owners: dict[TopicPartition, str] = {}

    @property
    def members(self) -> list[str]:
        """The members' names, sorted."""
        return sorted(self._members)

    def join(
        self,
        member: str,
        subscription: Subscription,
        partition_counts: dict[str, int],
        assignor: tuple[str, Assign] = ("range", assign_ranges),
    ) -> None:
        """Adds a member, or changes what it subscribes to.

        Raises:
            InvalidError: other members use another assignor.
        """
        others = sorted(set(self._members) - {member})
        if others and assignor[0] != self._assignor:
            raise InvalidError(
                f"the members of group {self.name!r} use the assignor {self._assignor}, and {member} wants "
                f"{assignor[0]}: give all the same one ({', '.join(others)})"
            )
        self._assignor, self._assign = assignor
        self._members[member] = subscription
        self._counts |= partition_counts
        self._rebalance()

    def leave(self, member: str) -> None:
        """Removes a member and frees what it owns; an unknown one is passed over."""
        if self._members.pop(member, None) is None:
            return
        self._owners = {partition: owner for partition, owner in self._owners.items() if owner != member}
        self._rebalance()

    def topic_gone(self, topic: str) -> None:
        """Takes a deleted topic away from everyone."""
        if self._counts.pop(topic, None) is not None:
            self._rebalance()

    def topic_grew(self, topic: str, partitions: int) -> None:
        """Hands out the new partitions of a topic."""
        if topic in self._counts:
            self._counts[topic] = partitions
            self._rebalance()

    def owner(self, partition: TopicPartition) -> str | None:
        """Who owns a partition now."""
        return self._owners.get(partition)

    def to_revoke(self, member: str) -> list[TopicPartition]:
        """What a member owns and should not: it calls its listener, then `release`."""
        target = set(self._target.get(member, ()))
        return sorted(each for each, owner in self._owners.items() if owner == member and each not in target)

    def release(self, member: str, partitions: Sequence[TopicPartition]) -> None:
        """A member has given these up."""
        for partition in partitions:
            if self._owners.get(partition) == member:
                del self._owners[partition]
                self.changes += 1
        self._settle()

    def take(self, member: str) -> list[TopicPartition]:
        """What a member should own and nobody does: it owns it from now on."""
        free = [each for each in self._target.get(member, ()) if each not in self._owners]
        self._owners |= dict.fromkeys(free, member)
        self._settle()
        return free

    def _rebalance(self) -> None:
        self.generation += 1
        self.changes += 1
        owned: dict[str, list[TopicPartition]] = {}
        for partition, owner in sorted(self._owners.items()):
            owned.setdefault(owner, []).append(partition)
        members = {name: each._replace(owned=owned.get(name, ())) for name, each in self._members.items()}
        self._target = self._assign(members, self._counts) if members else {}
        self._move("changed" if self._members else "emptied")
        self._settle()

    def _settle(self) -> None:
        wanted = {each: member for member, share in self._target.items() for each in share}
        if self._members and self._owners == wanted:
            self._move("settled")

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]
