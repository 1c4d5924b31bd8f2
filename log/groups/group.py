"""One consumer group: Kafka's classic protocol as a state machine. No sockets, no clock, no lock, nothing that waits.

1. A join is answered when all members have joined (or their time is up): so a generation never begins while a member
   of the one before may still work by it. Until then it is parked here under its ticket.
2. Every call returns the answers that are due now, its own and others'. Each parked ticket is answered once; one whose
   request was repeated since, or that was withdrawn, never.
3. `generation` rises with each round of joining. Requests that name another one are refused.
4. A dynamic member that is not heard of for its session, or does not come to a round, is out; a static one (with an
   instance name) keeps its place through a missed round, until its session ends.

    Empty -> PreparingRebalance -> CompletingRebalance -> Stable, and back to PreparingRebalance when members change;
    with the last member gone the round ends in Empty.

`now_ms` is a monotonic clock. Whoever holds a group calls `tick` at `due_ms`. Source: `ClassicGroup` and
`GroupMetadataManager.classicGroup*` of Kafka 4. Not here: members of this process (`local_members`), offsets
(`offsets`).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tailrace.log.groups.protocol import (
    Answer,
    Failure,
    Joined,
    JoinRequest,
    MemberMetadata,
    Synced,
    SyncRequest,
    Ticket,
)

EMPTY: Final = "Empty"
PREPARING: Final = "PreparingRebalance"
COMPLETING: Final = "CompletingRebalance"
STABLE: Final = "Stable"
DEAD: Final = "Dead"
UNKNOWN: Final = "Unknown"  # what a reader says of groups while another process writes: the members are there

# (state, event) -> state, in Kafka's words.
TRANSITIONS: Final = {
    (EMPTY, "rebalance"): PREPARING,
    (COMPLETING, "rebalance"): PREPARING,
    (STABLE, "rebalance"): PREPARING,
    (PREPARING, "joined"): COMPLETING,
    (PREPARING, "emptied"): EMPTY,
    (COMPLETING, "assigned"): STABLE,
    (EMPTY, "deleted"): DEAD,
}

NEW_MEMBER_TIMEOUT_MS: Final = 300_000  # Kafka's: a new member whose connection is gone before its first answer


@dataclass(slots=True)
class Member:
    """One member. A ticket that is not None is a parked request."""

    id: str
    request: JoinRequest
    expires_ms: int
    assignment: bytes = b""
    join: Ticket = None
    sync: Ticket = None
    new: bool = field(default=True)  # not yet answered the first time

    @property
    def waits(self) -> bool:
        """Whether the next move is ours: then silence is no fault of the member's."""
        return not self.new and (self.join is not None or self.sync is not None)

    def metadata(self, protocol: str) -> bytes:
        """What it said for one protocol."""
        return dict(self.request.protocols).get(protocol, b"")


class Group:
    """See the head of this file."""

    def __init__(self, name: str, *, initial_delay_ms: int = 0) -> None:
        """`initial_delay_ms`: how long the first round waits for more members (`group.initial.rebalance.delay.ms`)."""
        self.name = name
        self.state: str = EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.members: dict[str, Member] = {}
        self._initial_delay_ms = initial_delay_ms
        self._instances: dict[str, str] = {}  # static members: instance -> member
        self._pending: dict[str, int] = {}  # ids that were handed out and not used yet -> when they expire
        self._not_before_ms = 0  # the round: it ends between these two
        self._round_ends_ms = 0
        self._unsynced: set[str] = set()
        self._sync_ends_ms = 0
        self._answers: list[Answer] = []

    # -- joining -------------------------------------------------------------------------------------------------------

    def join(
        self, request: JoinRequest, ticket: Ticket, now_ms: int, *, new_id: str = "", known_ids_only: bool = False
    ) -> list[Answer]:
        """A member comes, or joins anew. `new_id` is for one without an id.

        `known_ids_only` has it come back with that id first (JoinGroup from version 4 on), unless it is static.
        """
        if not self._speaks(request):
            self._refuse(ticket, Joined(request.member, Failure.INCONSISTENT_GROUP_PROTOCOL))
        elif not request.member and request.instance in self._instances:
            self._replace(self._instances[request.instance], request._replace(member=new_id), ticket, now_ms)
        elif not request.member and request.instance is None and known_ids_only:
            self._pending[new_id] = now_ms + request.session_timeout_ms
            self._refuse(ticket, Joined(new_id, Failure.MEMBER_ID_REQUIRED))
        elif not request.member or self._pending.pop(request.member, None) is not None:
            self._add(request._replace(member=request.member or new_id), ticket, now_ms)
        else:
            self._join_again(request, ticket, now_ms)
        return self._flush()

    def _speaks(self, request: JoinRequest) -> bool:
        """Whether everybody else knows one of its protocols."""
        itself = {request.member, self._instances.get(request.instance or "")}
        others = [each for each in self.members.values() if each.id not in itself]
        if not request.protocols or (others and request.protocol_type != self.protocol_type):
            return False
        return bool(_common([each.request for each in others] + [request]))

    def _add(self, request: JoinRequest, ticket: Ticket, now_ms: int) -> None:
        self.protocol_type = request.protocol_type
        self.members[request.member] = Member(
            request.member, request, now_ms + max(NEW_MEMBER_TIMEOUT_MS, request.session_timeout_ms), join=ticket
        )
        if request.instance is not None:
            self._instances[request.instance] = request.member
        self.leader = self.leader or request.member
        if self.state == PREPARING and now_ms < self._not_before_ms:  # the first round waits for more again
            self._not_before_ms = min(self._round_ends_ms, now_ms + self._initial_delay_ms)
        self._rebalance(now_ms)

    def _join_again(self, request: JoinRequest, ticket: Ticket, now_ms: int) -> None:
        failure = self.check(request.member, request.instance)
        if failure is not None:
            self._refuse(ticket, Joined(request.member, failure))
            return
        member = self.members[request.member]
        same = member.request.protocols == request.protocols
        if same and (self.state == COMPLETING or (self.state == STABLE and member.id != self.leader)):
            self._answers.append(Answer(ticket, self._joined(member)))  # it has not seen the answer, or asks in vain
            self._heard(member, now_ms)
            return
        member.request, member.join = (
            request._replace(instance=member.request.instance),
            ticket,
        )  # static once is always
        self._heard(member, now_ms)
        self._rebalance(now_ms)

    def _replace(self, old_id: str, request: JoinRequest, ticket: Ticket, now_ms: int) -> None:
        """A static member came back, or another took its name: who still has the old id is fenced."""
        old = self.members[old_id]
        member = Member(request.member, request, 0, assignment=old.assignment, new=False)
        # In the old one's place: the order of members is that of their coming.
        self.members = {
            member.id if id_ == old_id else id_: member if id_ == old_id else each for id_, each in self.members.items()
        }
        self._instances[str(request.instance)] = member.id
        self._unsynced = {member.id if id_ == old_id else id_ for id_ in self._unsynced}
        self._fence(old)
        was_leader = self.leader == old_id
        self.leader = member.id if was_leader else self.leader
        self._heard(member, now_ms)
        if self.state == STABLE and self._select() == self.protocol:
            self._answers.append(Answer(ticket, self._joined(member)._replace(skip_assignment=was_leader)))
            return
        member.join = ticket
        self._rebalance(now_ms)

    def _fence(self, old: Member) -> None:
        if old.join is not None:
            self._refuse(old.join, Joined(old.id, Failure.FENCED_INSTANCE_ID))
        if old.sync is not None:
            self._refuse(old.sync, Synced(old.id, Failure.FENCED_INSTANCE_ID))

    def withdraw(self, member: str) -> None:
        """Takes back a parked join: the member must join again for the round to end."""
        self.members[member].join = None

    # -- rounds --------------------------------------------------------------------------------------------------------

    def rebalance(self, now_ms: int) -> list[Answer]:
        """Has all members join anew: what there is to share has changed."""
        if self.members:
            self._rebalance(now_ms)
        return self._flush()

    def _rebalance(self, now_ms: int) -> None:
        if self.state != PREPARING:
            for member in self.members.values():
                if member.sync is not None:
                    self._refuse(member.sync, Synced(member.id, Failure.REBALANCE_IN_PROGRESS))
                    member.sync = None
                    self._heard(member, now_ms)
            self._unsynced.clear()
            self._begin_round(now_ms)
        self._try_complete(now_ms)

    def _begin_round(self, now_ms: int) -> None:
        self._round_ends_ms = now_ms + self._round_ms()
        delay_ms = self._initial_delay_ms if self.state == EMPTY else 0
        self._not_before_ms = min(self._round_ends_ms, now_ms + delay_ms)
        self._move("rebalance")

    def _round_ms(self) -> int:
        return max((each.request.rebalance_timeout_ms for each in self.members.values()), default=0)

    def _try_complete(self, now_ms: int) -> None:
        all_came = not self._pending and all(each.join is not None for each in self.members.values())
        if self.state == PREPARING and all_came and now_ms >= self._not_before_ms:
            self._complete(now_ms)

    def _complete(self, now_ms: int) -> None:
        for member in list(self.members.values()):
            if member.join is None and member.request.instance is None:
                self._forget(member)
        came = [each for each in self.members.values() if each.join is not None]
        if self.members and not came:  # static ones alone, and none is here: they have another round's time
            self._round_ends_ms = now_ms + self._round_ms()
            return
        self.generation += 1
        if not came:
            self.protocol = self.leader = ""
            self._move("emptied")
            return
        if self.members[self.leader].join is None:
            self.leader = came[0].id
        self.protocol = self._select()
        self._unsynced = set(self.members)
        self._sync_ends_ms = now_ms + self._round_ms()
        self._move("joined")
        for member in came:
            self._answers.append(Answer(member.join, self._joined(member)))
            member.join, member.new = None, False
            self._heard(member, now_ms)

    def _select(self) -> str:
        """The protocol that all know and most like best."""
        requests = [each.request for each in self.members.values()]
        common = _common(requests)
        votes = Counter(next(name for name, _ in each.protocols if name in common) for each in requests)
        return max(sorted(votes), key=votes.__getitem__)

    def _joined(self, member: Member) -> Joined:
        members = tuple(
            MemberMetadata(each.id, each.request.instance, each.metadata(self.protocol))
            for each in (self.members.values() if member.id == self.leader else ())
        )
        return Joined(member.id, None, self.generation, self.protocol, self.leader, members)

    # -- syncing -------------------------------------------------------------------------------------------------------

    def sync(self, request: SyncRequest, ticket: Ticket, now_ms: int) -> list[Answer]:
        """A member asks for its assignment; the leader brings everybody's."""
        failure = self.check(request.member, request.instance, request.generation)
        if failure is None and (
            request.protocol_type not in {None, self.protocol_type} or request.protocol not in {None, self.protocol}
        ):
            failure = Failure.INCONSISTENT_GROUP_PROTOCOL
        if failure is None and self.state == PREPARING:
            failure = Failure.REBALANCE_IN_PROGRESS
        if failure is not None:
            self._refuse(ticket, Synced(request.member, failure))
            return self._flush()
        member = self.members[request.member]
        member.sync = ticket
        self._unsynced.discard(member.id)
        self._heard(member, now_ms)
        if self.state == COMPLETING and member.id == self.leader:
            for each in self.members.values():
                each.assignment = request.assignments.get(each.id, b"")
            self._move("assigned")
        if self.state == STABLE:
            self._answer_syncs(now_ms)
        return self._flush()

    def _answer_syncs(self, now_ms: int) -> None:
        for each in self.members.values():
            if each.sync is not None:
                self._answers.append(Answer(each.sync, Synced(each.id, None, self.protocol, each.assignment)))
                each.sync = None
                self._heard(each, now_ms)

    # -- being there ---------------------------------------------------------------------------------------------------

    def check(self, member: str, instance: str | None, generation: int | None = None) -> Failure | None:
        """Whether someone is who they say, and knows the generation."""
        if instance is not None and self._instances.get(instance, member) != member:
            return Failure.FENCED_INSTANCE_ID
        if member not in self.members or (instance is not None and instance not in self._instances):
            return Failure.UNKNOWN_MEMBER_ID
        return None if generation in {None, self.generation} else Failure.ILLEGAL_GENERATION

    def check_commit(
        self, member: str, generation: int, now_ms: int, *, instance: str | None = None, transactional: bool = False
    ) -> Failure | None:
        """Whether offsets may be committed so. An empty id with generation -1 is a program without membership."""
        if not member and generation < 0 and instance is None:
            return None if transactional or not self.members else Failure.UNKNOWN_MEMBER_ID
        failure = self.check(member, instance, generation)
        if failure is not None:
            return failure
        self._heard(self.members[member], now_ms)
        return Failure.REBALANCE_IN_PROGRESS if self.state == COMPLETING and not transactional else None

    def heartbeat(self, member: str, generation: int, now_ms: int, *, instance: str | None = None) -> Failure | None:
        """A sign of life; REBALANCE_IN_PROGRESS asks the member to join anew."""
        failure = self.check(member, instance, generation)
        if failure is not None:
            return failure
        self._heard(self.members[member], now_ms)
        return Failure.REBALANCE_IN_PROGRESS if self.state == PREPARING else None

    def static(self, instance: str | None) -> Member | None:
        """The static member of this name."""
        return None if instance is None else self.members.get(self._instances.get(instance, ""))

    def alive(self, member: str, now_ms: int) -> None:
        """A sign of life from a member of this process, which learns all else by other ways."""
        self._heard(self.members[member], now_ms)

    def leave(self, member: str, now_ms: int, *, instance: str | None = None) -> tuple[Failure | None, list[Answer]]:
        """A member goes. A static one may be sent away by its instance name alone."""
        if instance is not None and not member:
            member = self._instances.get(instance, "")
        if self._pending.pop(member, None) is not None:
            self._try_complete(now_ms)
            return None, self._flush()
        failure = self.check(member, instance)
        if failure is None:
            self._remove([self.members[member]], now_ms)
        return failure, self._flush()

    def delete(self) -> None:
        """Ends an empty group."""
        self._move("deleted")

    def _remove(self, gone: Iterable[Member], now_ms: int) -> None:
        for member in gone:
            self._forget(member)
            if member.join is not None:
                self._refuse(member.join, Joined(member.id, Failure.UNKNOWN_MEMBER_ID))
            if member.sync is not None:
                self._refuse(member.sync, Synced(member.id, Failure.UNKNOWN_MEMBER_ID))
        self._rebalance(now_ms)

    def _forget(self, member: Member) -> None:
        del self.members[member.id]
        self._unsynced.discard(member.id)
        if member.request.instance is not None:
            del self._instances[member.request.instance]
        if self.leader == member.id:
            self.leader = next(iter(self.members), "")

    def _heard(self, member: Member, now_ms: int) -> None:
        timeout_ms = member.request.session_timeout_ms
        member.expires_ms = now_ms + (max(NEW_MEMBER_TIMEOUT_MS, timeout_ms) if member.new else timeout_ms)

    # -- time ----------------------------------------------------------------------------------------------------------

    def due_ms(self) -> int | None:
        """When `tick` next has something to do; None: never, as things are."""
        times = [*self._pending.values(), *(each.expires_ms for each in self.members.values() if not each.waits)]
        if self.state == PREPARING:
            times.append(self._round_ends_ms)
            if not self._pending and all(each.join is not None for each in self.members.values()):
                times.append(self._not_before_ms)
        elif self._unsynced:
            times.append(self._sync_ends_ms)
        return min(times, default=None)

    def tick(self, now_ms: int) -> list[Answer]:
        """Does what its time has come for: sessions that are over, a round's end."""
        for member_id in [each for each, expires_ms in self._pending.items() if expires_ms <= now_ms]:
            del self._pending[member_id]
        late = [each for each in self.members.values() if not each.waits and each.expires_ms <= now_ms]
        if self._unsynced and self.state != PREPARING and self._sync_ends_ms <= now_ms:
            late += [self.members[each] for each in self._unsynced if self.members[each] not in late]
        if late:
            self._remove(late, now_ms)
        if self.state == PREPARING and self._round_ends_ms <= now_ms:
            self._complete(now_ms)
        self._try_complete(now_ms)
        return self._flush()

    # -- answers -------------------------------------------------------------------------------------------------------

    def _refuse(self, ticket: Ticket, body: Joined | Synced) -> None:
        self._answers.append(Answer(ticket, body))

    def _flush(self) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]


def _common(requests: list[JoinRequest]) -> set[str]:
    common = {name for name, _ in requests[0].protocols}
    for each in requests:
        common &= {name for name, _ in each.protocols}
    return common
