"""One consumer's place in a group: it joins, settles between two polls, is expelled and joins anew, leaves.

1. A partition is given up only between two polls, after `on_revoke`, so that what was processed can be committed; only
   then may another member take it.
2. What was revoked or lost is no longer read, also where the user's function raises.
3. While the group is busy rebalancing the consumer goes on reading what it has.

A membership knows nothing of its consumer, which may be dropped without a close: then the membership leaves for it.
Not here: who gets what (`assignors`), the group (`groups`), positions (`consumer`).
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from tailrace.log.arguments import check_int, check_text
from tailrace.log.client import DEFAULT_MAX_POLL_INTERVAL_MS, Assignor, Rebalance
from tailrace.log.errors import ExpelledError, FencedError
from tailrace.log.groups.assignors import Subscription, assignor
from tailrace.log.groups.consumer_protocol import encode_subscription
from tailrace.log.groups.groups import Groups
from tailrace.log.groups.protocol import Failure, JoinRequest
from tailrace.log.record import TopicPartition

logger = logging.getLogger(__name__)

WAIT_S_MAX: Final = 1.0  # a member that waits looks this often: whether others have gone without a word


class MemberOptions(NamedTuple):
    """What `Log.consumer` was told about membership."""

    instance: str | None = None
    assignor: str = "range"
    max_poll_interval_ms: int = DEFAULT_MAX_POLL_INTERVAL_MS

    def check(self, group: str | None) -> None:
        """Refuses what cannot be.

        Raises:
            ValueError: naming the argument.
        """
        check_text("assignor", self.assignor)
        assignor(self.assignor)
        check_int("max_poll_interval_ms", self.max_poll_interval_ms, 1)
        if self.instance is not None:
            check_text("group_instance_id", self.instance)
        if self.instance == "" or (self.instance is not None and group is None):
            raise ValueError(f"group_instance_id={self.instance!r}: give a name that is not empty, and a group")


class Listener(NamedTuple):
    """What the user wants to be told, and asked: see `Consumer.subscribe`."""

    on_assign: Rebalance | None = None
    on_revoke: Rebalance | None = None
    on_lost: Rebalance | None = None
    userdata: Callable[[], bytes] | None = None


class Membership:
    """See the head of this file. Used by the consumer's thread; `stirred`, `leave` and `drop` by any."""

    def __init__(self, groups: Groups, group: str, options: MemberOptions) -> None:
        self._groups = groups
        self._group = group
        self._options = options
        self._member = ""  # our id; empty before joining, and after we were expelled
        self._topics: Sequence[str] = ()
        self._assignor = assignor(options.assignor)
        self._held: list[TopicPartition] = []
        self._seen_changes = -1
        self._left = False
        self._joining = threading.Lock()  # a close by another thread: nobody joins after leaving

    @property
    def wait_s(self) -> float:
        """How long a poll may wait before it must look here again."""
        return min(WAIT_S_MAX, self._options.max_poll_interval_ms / 3000)

    # -- joining -------------------------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], chosen: str | Assignor | None, listener: Listener) -> None:
        """Joins, or changes what is subscribed to.

        Raises:
            InvalidError: the group has members with another assignor.
            ValueError: an assignor that is not known.
        """
        before = self._topics, self._assignor
        self._topics = list(topics)
        if chosen is not None:
            self._assignor = assignor(chosen)
        try:
            self._join(listener)
        except BaseException:
            self._topics, self._assignor = before
            raise

    def _join(self, listener: Listener) -> None:
        name, assign = self._assignor
        userdata = b"" if listener.userdata is None else listener.userdata()
        subscription = Subscription(self._topics, self._held, userdata)
        interval_ms = self._options.max_poll_interval_ms
        request = JoinRequest(
            self._member,
            ((name, encode_subscription(subscription)),),
            session_timeout_ms=interval_ms,
            rebalance_timeout_ms=interval_ms,
            instance=self._options.instance,
        )
        with self._joining:
            if not self._left:
                self._member = self._groups.join(self._group, request, assign)

    def current(self) -> tuple[str, int]:
        """Id and generation; see `Consumer.member`."""
        return self._member, self._groups.generation(self._group, self._member)

    def check_commit(self, partitions: Iterable[TopicPartition]) -> None:
        """Refuses a commit of a member that was expelled, or for what another member owns.

        Raises:
            ExpelledError: naming the member, or the partition and its owner.
        """
        self._groups.check_owner(self._group, self._member, partitions)

    # -- settling ------------------------------------------------------------------------------------------------------

    def alive(self) -> None:
        """Says that we are there, and looks whether others are overdue: at least every `wait_s`."""
        self._groups.alive(self._group, self._member)

    def stirred(self) -> bool:
        """Whether there may be something to settle."""
        return self._groups.changes(self._group) != self._seen_changes

    def settle(self, listener: Listener, drop: Rebalance, take: Rebalance) -> None:
        """Does what the group asks for; `drop` and `take` are the consumer's own part in it.

        Raises:
            FencedError: another consumer has taken our instance name.
        """
        self.alive()
        while self.stirred():
            self._seen_changes = self._groups.changes(self._group)
            if self._is_out(listener, drop):
                continue
            if not self._groups.must_join(self._group, self._member):
                self._lead()
                self._give_up(listener, drop)
                self._take(listener, take)
                continue
            self._give_up(listener, drop)
            try:
                self._join(listener)
            except ExpelledError:  # while the listener was busy
                self._seen_changes = -1

    def _lead(self) -> None:
        try:
            self._groups.lead(self._group, self._member)
        except BaseException:
            self._seen_changes = -1  # the group waits for us: the next poll raises again, unless it was put right
            raise

    def _is_out(self, listener: Listener, drop: Rebalance) -> bool:
        """Whether the group has done without us: then what we had is lost, and we join anew."""
        failure = self._groups.standing(self._group, self._member, self._options.instance)
        if failure is None or self._left:
            return False
        lost, self._held = self._held, []
        drop(lost)
        self._seen_changes = -1
        if failure == Failure.FENCED_INSTANCE_ID:
            raise FencedError(
                f"another consumer of group {self._group!r} has taken the group_instance_id "
                f"{self._options.instance!r} of this one ({self._member}): give each its own, and close this one"
            )
        expelled, self._member = self._member, ""
        if expelled and self._groups.was_moved(expelled):
            logger.info(
                "%s joins group %r anew, without %s: names of topics that it reads stand for others now",
                expelled,
                self._group,
                ", ".join(map(str, lost)) or "anything lost",
            )
        elif expelled:
            logger.warning(
                "%s was expelled from group %r, as it had not polled (or its assignor had failed) for %d ms; it lost "
                "%s and joins anew: poll more often, with fewer records at a time, or raise max_poll_interval_ms",
                expelled,
                self._group,
                self._options.max_poll_interval_ms,
                ", ".join(map(str, lost)) or "nothing",
            )
        on_lost = listener.on_lost or listener.on_revoke
        if lost and on_lost is not None:
            on_lost(lost)
        self._join(listener)
        return True

    def _give_up(self, listener: Listener, drop: Rebalance) -> None:
        revoked = self._groups.to_revoke(self._group, self._member)
        if not revoked:
            return
        try:
            if listener.on_revoke is not None:
                listener.on_revoke(revoked)
        finally:
            drop(revoked)
            self._held = [each for each in self._held if each not in revoked]
            self._groups.release(self._group, self._member, revoked)

    def _take(self, listener: Listener, take: Rebalance) -> None:
        taken = self._groups.take(self._group, self._member)
        self._held += taken
        take(taken)
        if taken and listener.on_assign is not None:
            listener.on_assign(taken)

    # -- leaving -------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Leaves the group, and frees what it owns; a static member keeps its place until its session ends."""
        with self._joining:
            self._left = True
            if self._options.instance is None:
                self._groups.leave(self._group, self._member)

    def drop(self) -> None:
        """The same for a garbage collector, which may hold any lock: done when somebody looks."""
        if self._options.instance is None:
            self._groups.drop(self._group, self._member)
