"""All consumer groups of a log and their members: one lock, one clock, who is told what and when.

1. A group is there from its first join until it is deleted, or empty and asked to go; who names another gets Kafka's
   UNKNOWN_MEMBER_ID.
2. Answers that were parked are given by the thread whose call made them due, after the lock is let go.
3. Members in this process are woken whenever they may find something to do. They are heard of when they poll, and
   expelled when they have not for their `max_poll_interval_ms` and somebody looks: another member's poll, or a reader.
4. A consumer that was dropped leaves when somebody looks, too: what a garbage collector calls must take no lock.

Not here: committed offsets (`coordinator`), the protocol (`group`), handing over (`local_members`).
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from tailrace.log.client import MemberDescription
from tailrace.log.clock import Clock
from tailrace.log.errors import ExpelledError, InvalidError
from tailrace.log.groups.assignors import Assign
from tailrace.log.groups.group import EMPTY, Group
from tailrace.log.groups.local_members import LocalMembers, PartitionsOf
from tailrace.log.groups.protocol import Answer, Failure, Joined, JoinRequest, Synced, SyncRequest
from tailrace.log.record import TopicPartition

Reply = Callable[[Joined | Synced], None]


class Groups:
    """See the head of this file. Any thread may call."""

    def __init__(
        self, clock: Clock, partitions_of: PartitionsOf, wake: Callable[[], None], *, initial_delay_ms: int = 0
    ) -> None:
        """`partitions_of` is called under the lock, `wake` is not."""
        self._clock = clock
        self._partitions_of = partitions_of
        self._wake = wake
        self._initial_delay_ms = initial_delay_ms
        self._lock = threading.RLock()
        self._groups: dict[str, LocalMembers] = {}
        self._ids = itertools.count(1)
        self._dropped: deque[tuple[str, str]] = deque()
        self._moved: set[str] = set()

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _made(self, group: str) -> LocalMembers:
        if group not in self._groups:
            self._groups[group] = LocalMembers(
                Group(group, initial_delay_ms=self._initial_delay_ms), self._partitions_of
            )
        return self._groups[group]

    def _tell(self, answers: Sequence[Answer]) -> None:
        """Outside of the lock: gives the answers, wakes who waits here."""
        for answer in answers:
            answer.ticket(answer.body)
        self._wake()

    # -- members elsewhere: what a server hands on ---------------------------------------------------------------------

    def join_group(
        self, group: str, request: JoinRequest, reply: Reply, *, new_id: str, known_ids_only: bool = False
    ) -> None:
        """JoinGroup; `reply` is called with a `Joined`, now or by a later call of anyone. See `Group.join`."""
        with self._lock:
            members = self._made(group)
            members.stranger_comes()
            now_ms = self._now_ms()
            answers = members.group.join(request, reply, now_ms, new_id=new_id, known_ids_only=known_ids_only)
            answers = members.take_in(answers, now_ms)
        self._tell(answers)

    def sync_group(self, group: str, request: SyncRequest, reply: Reply) -> None:
        """SyncGroup; `reply` is called with a `Synced`, now or later."""
        with self._lock:
            known = self._groups.get(group)
            if known is None:
                answers = [Answer(reply, Synced(request.member, Failure.UNKNOWN_MEMBER_ID))]
            else:
                now_ms = self._now_ms()
                answers = known.take_in(known.group.sync(request, reply, now_ms), now_ms)
        self._tell(answers)

    def heartbeat(self, group: str, member: str, generation: int, instance: str | None = None) -> Failure | None:
        """Heartbeat."""
        with self._lock:
            known = self._groups.get(group)
            if known is None:
                return Failure.UNKNOWN_MEMBER_ID
            return known.group.heartbeat(member, generation, self._now_ms(), instance=instance)

    def leave_group(self, group: str, member: str, instance: str | None = None) -> Failure | None:
        """LeaveGroup, for one member; an administrator names static ones by their instance alone."""
        with self._lock:
            known = self._groups.get(group)
            if known is None:
                return Failure.UNKNOWN_MEMBER_ID
            now_ms = self._now_ms()
            failure, answers = known.group.leave(member, now_ms, instance=instance)
            answers = known.take_in(answers, now_ms)
        self._tell(answers)
        return failure

    def check_commit(
        self, group: str, member: str, generation: int, *, instance: str | None = None, transactional: bool = False
    ) -> Failure | None:
        """Whether OffsetCommit (or TxnOffsetCommit) is to be taken from this member."""
        with self._lock:
            known = self._groups.get(group)
            if known is None:  # offsets alone, as of a program that assigns its partitions itself
                return None if generation < 0 else Failure.ILLEGAL_GENERATION
            return known.group.check_commit(
                member, generation, self._now_ms(), instance=instance, transactional=transactional
            )

    def due_ms(self) -> int | None:
        """When `tick` next has something to do, by the monotonic clock."""
        with self._lock:
            times = [self._now_ms()] if self._dropped else []
            times += [due for each in self._groups.values() if (due := each.group.due_ms()) is not None]
            return min(times, default=None)

    def tick(self, group: str | None = None) -> None:
        """Expels who is overdue and ends rounds whose time is up, in all groups unless one is named."""
        answers: list[Answer] = []
        with self._lock:
            now_ms = self._now_ms()
            changed = self._reap(answers, now_ms)
            for each in list(self._groups.values()) if group is None else filter(None, [self._groups.get(group)]):
                due_ms = each.group.due_ms()
                if due_ms is not None and due_ms <= now_ms:
                    changed = True
                    answers += each.take_in(each.group.tick(now_ms), now_ms)
        if changed:
            self._tell(answers)

    def _reap(self, answers: list[Answer], now_ms: int) -> bool:
        """Has those leave whose consumers were garbage; says whether there were any."""
        reaped = False
        while self._dropped:
            group, member = self._dropped.popleft()
            if group in self._groups:
                _, told = self._groups[group].group.leave(member, now_ms)
                answers += self._groups[group].take_in(told, now_ms)
                reaped = True
        return reaped

    # -- members in this process ---------------------------------------------------------------------------------------

    def join(self, group: str, request: JoinRequest, assign: Assign) -> str:
        """A member comes (without an id), or joins anew. Returns its id.

        Raises:
            InvalidError: other members use another assignor.
            ExpelledError: another has taken its instance name, or it was expelled.
        """
        self.tick(group)
        with self._lock:
            members = self._made(group)
            member = request.member or f"consumer-{next(self._ids):06d}"  # they sort in the order of joining
            failure, answers = members.join(request, assign, self._now_ms(), new_id=member)
            others = {
                name: each.request.protocols[0][0] for name, each in members.group.members.items() if name != member
            }
        self._tell(answers)
        if failure == Failure.INCONSISTENT_GROUP_PROTOCOL:
            raise InvalidError(
                f"the members of group {group!r} use the assignor {next(iter(others.values()))}, and {member} wants "
                f"{request.protocols[0][0]}: give all the same one ({', '.join(others)})"
            )
        if failure is not None:
            raise ExpelledError(
                f"{member} is no member of group {group!r} any more ({failure.name}): poll to join anew"
            )
        return member

    def leave(self, group: str, member: str) -> None:
        """A member goes."""
        self.leave_group(group, member)

    def drop(self, group: str, member: str) -> None:
        """A member's consumer was garbage: it goes when somebody looks. Takes no lock."""
        self._dropped.append((group, member))

    def alive(self, group: str, member: str) -> None:
        """A member polls: it is heard of, and what is due happens."""
        with self._lock:
            known = self._groups.get(group)
            if known is not None and member in known.group.members:
                known.group.alive(member, self._now_ms())
        self.tick(group)

    def standing(self, group: str, member: str, instance: str | None) -> Failure | None:
        """Whether a member is still one."""
        with self._lock:
            known = self._groups.get(group)
            return Failure.UNKNOWN_MEMBER_ID if known is None else known.group.check(member, instance)

    def changes(self, group: str) -> int:
        """A number that differs when a member may find something to do."""
        known = self._groups.get(group)
        return 0 if known is None else known.changes

    def must_join(self, group: str, member: str) -> bool:
        """Whether a round waits for the member to join anew, after it gave up what `to_revoke` says."""
        with self._lock:
            return self._groups[group].must_join(member)

    def lead(self, group: str, member: str) -> None:
        """Runs the member's assignor, where it leads the group and the assignor has raised before."""
        with self._lock:
            answers = self._groups[group].lead(member, self._now_ms())
        if answers:
            self._tell(answers)

    def to_revoke(self, group: str, member: str) -> list[TopicPartition]:
        """What a member must give up."""
        with self._lock:
            return self._groups[group].to_revoke(member)

    def release(self, group: str, member: str, partitions: Sequence[TopicPartition]) -> None:
        """A member has given these up."""
        with self._lock:
            self._groups[group].release(member, partitions)
        self._wake()

    def take(self, group: str, member: str) -> list[TopicPartition]:
        """What a member owns from now on."""
        with self._lock:
            return self._groups[group].take(member)

    def generation(self, group: str, member: str) -> int:
        """The generation a member is in.

        Raises:
            ExpelledError: it is no member any more.
        """
        with self._lock:
            known = self._groups.get(group)
            if known is None or member not in known.group.members:
                raise ExpelledError(f"{member} is no member of group {group!r} any more: poll to join anew")
            return known.group.generation

    def check_member(self, group: str, member: str, generation: int) -> None:
        """Refuses offsets in a transaction from a member that was expelled, or that knows an older generation only.

        Raises:
            ExpelledError: naming the member.
        """
        failure = self.check_commit(group, member, generation, transactional=True)
        if failure is not None:
            now = self.generation(group, member)
            raise ExpelledError(
                f"{member} has generation {generation} of group {group!r}, which is at {now}: poll, and ask for "
                "member() again"
            )

    def check_owner(self, group: str, member: str, partitions: Iterable[TopicPartition]) -> None:
        """Refuses a commit by a member that was expelled, or for what another owns.

        Raises:
            ExpelledError: naming the member, or the partition and its owner.
        """
        self.generation(group, member)
        with self._lock:
            known = self._groups[group]
            known.group.alive(member, self._now_ms())
            for each in partitions:
                owner = known.owner(each)
                if owner not in {None, member}:
                    raise ExpelledError(
                        f"{each} belongs to {owner} in group {group!r} now: {member} cannot commit for it, poll first"
                    )

    def topic_changed(self, topic: str) -> None:
        """A topic has gone, or has more partitions."""
        answers: list[Answer] = []
        with self._lock:
            now_ms = self._now_ms()
            for each in self._groups.values():
                answers += each.topic_changed(topic, now_ms)
        self._tell(answers)

    def expel(self, topics: Iterable[str]) -> None:
        """All members of the groups that read one of these are none any more: what they commit is refused."""
        names = set(topics)
        answers: list[Answer] = []
        with self._lock:
            now_ms = self._now_ms()
            for each in self._groups.values():
                if each.reads(names):
                    for member in list(each.group.members):
                        self._moved.add(member)
                        _, told = each.group.leave(member, now_ms)
                        answers += each.take_in(told, now_ms)
        self._tell(answers)

    def was_moved(self, member: str) -> bool:
        """Whether `expel` has put this one out, and not that it did not poll; says so once."""
        with self._lock:
            moved = member in self._moved
            self._moved.discard(member)
            return moved

    # -- groups --------------------------------------------------------------------------------------------------------

    def living(self) -> list[str]:
        """The groups that have members."""
        self.tick()
        with self._lock:
            return [name for name, each in self._groups.items() if each.group.state != EMPTY]

    def describe(self, group: str) -> tuple[str, list[MemberDescription]]:
        """State and members; a group without a trace is empty."""
        self.tick(group)
        with self._lock:
            known = self._groups.get(group)
            if known is None:
                return EMPTY, []
            members = known.group.members
            return known.group.state, [
                MemberDescription(each, members[each].request.instance, known.owned(each)) for each in sorted(members)
            ]

    def forget(self, group: str) -> None:
        """Ends a group that has no members."""
        with self._lock:
            known = self._groups.get(group)
            if known is not None and known.group.state == EMPTY:  # else somebody has come in the meantime
                known.group.delete()
                del self._groups[group]
