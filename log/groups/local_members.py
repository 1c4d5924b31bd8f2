"""The members of one group that live in this process: their side of the protocol, and how they hand partitions over.

1. A partition has at most one owner among them, always: a member takes one only after its former owner has given it up
   (`release`), left, or was expelled. So a member may keep what it has through a rebalance, and gives up only what it
   loses; nobody waits for a second round as KIP-429 needs it.
2. With members elsewhere in the group, which know nothing of owners here, the rule is Kafka's eager one: everything is
   given up before joining anew.
3. They sync at once: when a round is complete, whoever completed it runs the leader's assignor. One that raises is run
   again by the leader's own thread, which gets the error.

Not here: locking and waking (`groups`), the round itself (`group`), who calls the user's listeners (`membership`).
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from tailrace.log.errors import InvalidError
from tailrace.log.groups.assignors import Assign, Subscription
from tailrace.log.groups.consumer_protocol import decode_assignment, decode_subscription, encode_assignment
from tailrace.log.groups.group import PREPARING, Group
from tailrace.log.groups.protocol import Answer, Failure, Joined, JoinRequest, SyncRequest
from tailrace.log.record import TopicPartition

logger = logging.getLogger(__name__)

PartitionsOf = Callable[[str], int | None]  # topic -> how many, None where there is no such topic


class Here:
    """The ticket of a member in this process; `failure` is why its request was refused, if it was."""

    def __init__(self) -> None:
        self.failure: Failure | None = None


class LocalMembers:
    """See the head of this file. Plain data: whoever holds it locks."""

    def __init__(self, group: Group, partitions_of: PartitionsOf) -> None:
        self.group = group
        self.changes = 0  # rises whenever a member may find something to do
        self._partitions_of = partitions_of
        self._assigns: dict[str, Assign] = {}
        self._targets: dict[str, list[TopicPartition]] = {}
        self._owners: dict[TopicPartition, str] = {}
        self._stale: set[TopicPartition] = set()  # of topics that were deleted under their owners
        self._leading: dict[str, Joined] = {}  # leaders whose assignor raised
        self._seen: object = None

    # -- joining -------------------------------------------------------------------------------------------------------

    def join(
        self, request: JoinRequest, assign: Assign, now_ms: int, *, new_id: str
    ) -> tuple[Failure | None, list[Answer]]:
        """A member comes or joins anew; what others are told is returned."""
        answers: list[Answer] = []
        if self.group.state != PREPARING and (request.member or self._wants_other(request)):
            answers = self.group.rebalance(now_ms)
        ticket = Here()
        member = request.member or new_id
        if self._gives_all(member):
            self._targets.pop(member, None)  # what of it is not taken by now may be another's in the new round
        known = self._assigns.get(member)
        self._assigns[member] = assign
        others = self.take_in(answers + self.group.join(request, ticket, now_ms, new_id=new_id), now_ms)
        if ticket.failure is not None and known is not None:
            self._assigns[member] = known
        return ticket.failure, others

    def _wants_other(self, request: JoinRequest) -> bool:
        """Whether a static member comes back with other topics, so that what it had will not do."""
        old = self.group.static(request.instance)
        if old is None:
            return False
        before, now = (decode_subscription(each.protocols[0][1]).topics for each in (old.request, request))
        return set(before) != set(now)

    def must_join(self, member: str) -> bool:
        """Whether a round waits for this member."""
        known = self.group.members.get(member)
        return self.group.state == PREPARING and known is not None and known.join is None

    def stranger_comes(self) -> None:
        """Before a member elsewhere joins: those here that are parked with a share must give it up, and join again."""
        owners = set(self._owners.values())
        for member in self._assigns:
            has_share = member in owners or bool(self._targets.get(member))
            if has_share and self.group.members[member].join is not None:
                self.group.withdraw(member)
                self.changes += 1

    def take_in(self, answers: Sequence[Answer], now_ms: int) -> list[Answer]:
        """Has the members here act on their answers; returns those for others. After every call to the group."""
        others: list[Answer] = []
        waiting = deque(answers)
        while waiting:
            answer = waiting.popleft()
            if not isinstance(answer.ticket, Here):
                others.append(answer)
            elif answer.body.failure is not None:
                answer.ticket.failure = answer.body.failure
            elif isinstance(answer.body, Joined):
                waiting.extend(self._sync(answer.body, now_ms))
            else:
                self._targets[answer.body.member] = self._read(answer.body.assignment)
                self.changes += 1
        self._sweep()
        return others

    def _sync(self, joined: Joined, now_ms: int) -> list[Answer]:
        assignments: Mapping[str, bytes] = {}
        if joined.members and not joined.skip_assignment:
            try:
                assignments = self._assign(joined)
            except Exception:  # noqa: BLE001  # a user's function in another member's thread: the leader's gets to see it
                self._leading[joined.member] = joined
                self.changes += 1
                return []
        return self.group.sync(SyncRequest(joined.member, joined.generation, assignments), Here(), now_ms)

    def lead(self, member: str, now_ms: int) -> list[Answer]:
        """Runs the assignor once more that raised; what it raises now is the leader's to see."""
        joined = self._leading.get(member)
        if joined is None or joined.generation != self.group.generation:
            return []
        assignments = self._assign(joined)
        del self._leading[member]
        return self.take_in(
            self.group.sync(SyncRequest(member, joined.generation, assignments), Here(), now_ms), now_ms
        )

    def _assign(self, joined: Joined) -> Mapping[str, bytes]:
        members: dict[str, Subscription] = {}
        for each in joined.members:
            members[each.member] = decode_subscription(each.metadata, each.instance)
            if each.member in self._assigns:  # what it holds by now, not when it joined
                owned = sorted(tp for tp, owner in self._owners.items() if owner == each.member)
                members[each.member] = members[each.member]._replace(owned=owned, generation=joined.generation - 1)
        topics = sorted({topic for each in members.values() for topic in each.topics})
        counts = {topic: count for topic in topics if (count := self._partitions_of(topic)) is not None}
        assigned = self._assigns[joined.member](members, counts)
        return {member: encode_assignment(partitions) for member, partitions in assigned.items()}

    def _sweep(self) -> None:
        """Forgets members that are gone; notes whether anybody has a reason to look."""
        gone = self._assigns.keys() - self.group.members.keys()
        for member in gone:
            del self._assigns[member]
            self._targets.pop(member, None)
            self._leading.pop(member, None)
        self._owners = {tp: owner for tp, owner in self._owners.items() if owner not in gone}
        seen = (self.group.state, self.group.generation, sorted(self.group.members))
        if seen != self._seen:
            self._seen = seen
            self.changes += 1

    # -- handing over --------------------------------------------------------------------------------------------------

    def owner(self, partition: TopicPartition) -> str | None:
        """Who owns a partition here."""
        return self._owners.get(partition)

    def owned(self, member: str) -> list[TopicPartition]:
        """What a member here owns; for one elsewhere, what it was assigned."""
        if member in self._assigns or self.group.protocol_type != "consumer":
            return sorted(tp for tp, owner in self._owners.items() if owner == member)
        return self._read(self.group.members[member].assignment)

    def _read(self, assignment: bytes) -> list[TopicPartition]:
        try:
            return decode_assignment(assignment)
        except InvalidError as error:  # a leader elsewhere wrote it: its members read nothing, the others go on
            logger.warning("group %r: %s", self.group.name, error)
            return []

    def to_revoke(self, member: str) -> list[TopicPartition]:
        """What a member owns and must give up: it calls its listener, then `release`."""
        owned = sorted(tp for tp, owner in self._owners.items() if owner == member)
        if self._gives_all(member):
            return owned
        target = set(self._targets.get(member, ()))
        return [each for each in owned if each not in target or each in self._stale]

    def _gives_all(self, member: str) -> bool:
        return self.must_join(member) and bool(self.group.members.keys() - self._assigns.keys())

    def release(self, member: str, partitions: Sequence[TopicPartition]) -> None:
        """A member has given these up."""
        for partition in partitions:
            self._stale.discard(partition)
            if self._owners.get(partition) == member:
                del self._owners[partition]
                self.changes += 1

    def take(self, member: str) -> list[TopicPartition]:
        """What a member was assigned and nobody owns: it owns it from now on."""
        free = [each for each in self._targets.get(member, ()) if each not in self._owners]
        self._owners |= dict.fromkeys(free, member)
        return free

    def reads(self, topics: set[str]) -> bool:
        """Whether a member here subscribes to one of these."""
        return any(
            not topics.isdisjoint(decode_subscription(self.group.members[member].request.protocols[0][1]).topics)
            for member in self._assigns
        )

    def topic_changed(self, topic: str, now_ms: int) -> list[Answer]:
        """A topic has gone, or has more partitions: who subscribes to it here shares anew."""
        if self._partitions_of(topic) is None:
            self._stale |= {each for each in self._owners if each.topic == topic}
        for member in self._assigns:
            protocols = self.group.members[member].request.protocols
            if topic in decode_subscription(protocols[0][1]).topics:
                return self.take_in(self.group.rebalance(now_ms), now_ms)
        return []
