"""Members of this process in a group, with members elsewhere: rounds, hand-over, expelling, stuck assignors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.clock import ManualClock
from tailrace.log.errors import FencedError, InvalidError
from tailrace.log.groups.assignors import Assign, Assignment, Subscription, assign_ranges, assign_sticky
from tailrace.log.groups.consumer_protocol import (
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from tailrace.log.groups.group import EMPTY, PREPARING, STABLE
from tailrace.log.groups.groups import Groups
from tailrace.log.groups.protocol import Failure, Joined, JoinRequest, Synced, SyncRequest
from tailrace.log.record import TopicPartition

TIMEOUT_MS = 300_000


def tps(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("t", number) for number in numbers]


class World:
    """Groups on a clock that stands still, members here, and clients elsewhere that speak Kafka's eager protocol."""

    def __init__(self, partitions: int = 4, assign: Assign = assign_ranges) -> None:
        self.clock = ManualClock()
        self.counts: dict[str, int] = {"t": partitions}
        self.wakes = 0
        self.groups = Groups(self.clock, self.counts.get, self.woken)
        self.assign = assign
        self.held: dict[str, set[TopicPartition]] = {}  # what members here read, and clients believe to own
        self.clients: dict[str, Client] = {}

    def woken(self) -> None:
        self.wakes += 1

    def request(self, member: str = "", topics: tuple[str, ...] = ("t",), instance: str | None = None) -> JoinRequest:
        said = encode_subscription(Subscription(topics))
        return JoinRequest(member, (("p", said),), TIMEOUT_MS, TIMEOUT_MS, instance)

    def come(self, **more: str | None) -> str:
        member = self.groups.join("g", self.request(instance=more.get("instance")), self.assign)
        self.held[member] = set()
        return member

    def poll(self, member: str) -> list[TopicPartition]:
        """What a membership does in a poll; returns what the member reads then."""
        self.groups.alive("g", member)
        seen = -1
        while seen != self.groups.changes("g"):
            seen = self.groups.changes("g")
            if self.groups.standing("g", member, None) is not None:
                self.held.pop(member, None)
                return []
            if not self.groups.must_join("g", member):
                self.groups.lead("g", member)
                self.give_up(member)
                self.held[member] |= set(self.groups.take("g", member))
            else:
                self.give_up(member)
                self.groups.join("g", self.request(member), self.assign)
        return sorted(self.held[member])

    def give_up(self, member: str) -> None:
        revoked = self.groups.to_revoke("g", member)
        assert set(revoked) <= self.held[member]
        self.held[member] -= set(revoked)
        self.groups.release("g", member, revoked)

    def go(self, member: str) -> None:
        self.groups.leave("g", member)
        self.held.pop(member, None)

    def owners(self) -> list[TopicPartition]:
        held = [*self.held.values(), *(each.owned for each in self.clients.values())]
        return [each for share in held for each in share]


class Client:
    """A client elsewhere: gives up everything before it joins, reads what it was assigned."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.member, self.generation = "", -1
        self.owned: set[TopicPartition] = set()
        self.waits = self.rubbish = False
        self.failures: list[Failure] = []
        world.clients[name] = self

    def join(self) -> None:
        self.owned, self.waits = set(), True
        self.world.groups.join_group(
            "g", self.world.request(self.member), self.joined, new_id=f"{self.name}-{self.member}x"
        )

    def joined(self, answer: Joined | Synced) -> None:
        assert isinstance(answer, Joined)
        self.waits = False
        if answer.failure is not None:
            self.failed(answer.failure)
            return
        self.member, self.generation = answer.member, answer.generation
        assignments: dict[str, bytes] = {}
        if answer.members:
            members = {each.member: decode_subscription(each.metadata) for each in answer.members}
            assigned = self.world.assign(members, self.world.counts)
            assignments = {
                member: b"\0" if self.rubbish else encode_assignment(share) for member, share in assigned.items()
            }
        self.waits = True
        self.world.groups.sync_group("g", SyncRequest(self.member, self.generation, assignments), self.synced)

    def synced(self, answer: Joined | Synced) -> None:
        assert isinstance(answer, Synced)
        self.waits = False
        if answer.failure is None and not self.rubbish:
            self.owned = set(decode_assignment(answer.assignment))
        elif answer.failure is not None:
            self.failed(answer.failure)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        if failure != Failure.REBALANCE_IN_PROGRESS:
            self.member, self.generation, self.owned = "", -1, set()

    def beat(self) -> None:
        if self.waits:
            return
        failure = self.world.groups.heartbeat("g", self.member, self.generation)
        if failure is not None:
            self.failed(failure)
            self.join()

    def leave(self) -> None:
        self.world.groups.leave_group("g", self.member)
        del self.world.clients[self.name]


def test_a_partition_changes_hands_in_one_round_and_only_when_it_was_given_up() -> None:
    world = World(2)
    first = world.come()
    assert world.poll(first) == tps(0, 1)
    second = world.come()
    assert (world.groups.describe("g")[0], world.poll(second)) == (PREPARING, [])
    assert world.poll(first) == tps(0)
    assert world.poll(second) == tps(1)
    assert world.groups.describe("g")[0] == STABLE
    assert world.groups.generation("g", first) == 2
    world.go(first)
    assert world.poll(second) == tps(0, 1)


def test_members_here_and_elsewhere_share_by_kafkas_eager_rule() -> None:
    world = World()
    here = world.come()
    assert world.poll(here) == tps(0, 1, 2, 3)
    client = Client(world, "c")
    client.join()
    assert client.waits
    assert world.poll(here) == tps(2, 3)  # it gave up all, led the round, and was assigned these
    assert client.owned == set(tps(0, 1))  # ids sort: c, then consumer-…
    described = {each.member: each.partitions for each in world.groups.describe("g")[1]}
    assert described == {here: tps(2, 3), client.member: tps(0, 1)}
    late = world.come()
    world.poll(late)
    client.beat()
    assert client.owned == set()
    world.poll(here)
    assert {here: world.poll(here), late: world.poll(late)} == {here: tps(2), late: tps(3)}
    client.leave()
    assert (world.poll(here), world.poll(late)) == (tps(2), tps(3))  # among themselves again, they keep what they can
    assert (world.poll(here), world.poll(late)) == (tps(0, 1), tps(2, 3))


def test_a_client_that_leads_assigns_to_members_here() -> None:
    world = World()
    client = Client(world, "c")
    client.join()
    here = world.come()
    assert world.poll(here) == []
    client.beat()
    assert (client.owned, world.poll(here)) == (set(tps(0, 1)), tps(2, 3))


def test_a_stranger_that_comes_while_a_member_here_is_parked_gets_nothing_that_is_still_read() -> None:
    world = World()
    first, second = world.come(), world.come()
    world.poll(first)
    world.poll(second)
    third = world.come()
    world.poll(first)  # parked, and goes on reading
    assert world.held[first] == set(tps(0, 1))
    client = Client(world, "c")
    client.join()
    world.poll(second)
    world.poll(third)
    assert client.waits  # the first must join again, without partitions
    world.poll(first)
    for _ in range(2):
        for member in (first, second, third):
            world.poll(member)
        client.beat()
    assert sorted(world.owners()) == tps(0, 1, 2, 3)


def test_who_does_not_poll_is_expelled_when_somebody_looks() -> None:
    world = World(2)
    stuck, well = world.come(), world.come()
    for member in (stuck, well, stuck, well):
        world.poll(member)
    world.clock.advance(TIMEOUT_MS - 1)
    assert world.poll(well) == tps(1)
    world.clock.advance(1)
    assert world.poll(well) == tps(0, 1)
    world.held.pop(stuck)
    for refused in (
        lambda: world.groups.check_owner("g", stuck, tps(0)),
        lambda: world.groups.check_member("g", stuck, 2),
        lambda: world.groups.generation("g", stuck),
        lambda: world.groups.join("g", world.request(stuck), world.assign),
    ):
        with pytest.raises(FencedError, match=f"{stuck} is no member of group 'g' any more"):
            refused()
    with pytest.raises(FencedError, match="has generation 2 of group 'g', which is at 3"):
        world.groups.check_member("g", well, 2)
    world.groups.check_member("g", well, 3)


def test_one_that_is_late_is_not_expelled_while_nobody_looks() -> None:
    world = World(2)
    alone = world.come()
    world.poll(alone)
    world.clock.advance(10 * TIMEOUT_MS)
    assert world.poll(alone) == tps(0, 1)
    world.clock.advance(10 * TIMEOUT_MS)
    world.groups.check_owner("g", alone, tps(0))  # a commit is a sign of life, too
    assert world.groups.living() == ["g"]
    world.clock.advance(TIMEOUT_MS)
    assert world.groups.living() == []


def test_a_member_that_does_not_come_to_a_round_is_left_out_of_it() -> None:
    world = World(2)
    stuck = world.come()
    world.poll(stuck)
    new = world.come()
    for _ in range(3):
        world.clock.advance(TIMEOUT_MS // 3)
        world.poll(new)
    assert world.poll(new) == tps(0, 1)
    assert world.groups.standing("g", stuck, None) == Failure.UNKNOWN_MEMBER_ID


def test_an_assignor_that_raises_is_the_leaders_to_see_and_is_asked_again() -> None:
    broken = True

    def moody(members: object, counts: object) -> Assignment:
        if broken:
            raise ZeroDivisionError
        return {leader: [], follower: tps(0, 1)}

    world = World(2)
    leader, follower = world.come(), world.come()
    world.poll(leader)
    world.assign = moody
    world.poll(follower)
    world.groups.topic_changed("t")
    world.poll(leader)
    assert world.poll(follower) == tps(1)  # it completes the round, and is spared
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            world.groups.lead("g", leader)
    world.groups.lead("g", follower)
    broken = False
    world.poll(leader)
    assert (world.poll(follower), world.poll(leader)) == (tps(0, 1), [])


def test_topics_that_grow_and_go_are_shared_anew() -> None:
    world = World(1)
    member = world.come()
    world.poll(member)
    world.counts["t"] = 3
    world.groups.topic_changed("t")
    assert world.poll(member) == tps(0, 1, 2)
    before = world.groups.generation("g", member)
    world.groups.topic_changed("another")
    assert world.groups.generation("g", member) == before
    del world.counts["t"]
    world.groups.topic_changed("t")
    world.counts["t"] = 2  # made anew before the member looks: it must not go on with the positions of the old one
    world.groups.topic_changed("t")
    assert world.groups.to_revoke("g", member) == tps(0, 1, 2)
    assert world.poll(member) == tps(0, 1)


def test_a_static_member_comes_back_to_what_it_had() -> None:
    world = World()
    static = world.come(instance="s")
    other = world.come()
    for member in (static, other, static, other):
        world.poll(member)
    assert world.groups.generation("g", other) == 2
    again = world.come(instance="s")
    assert (world.poll(again), world.groups.generation("g", other)) == (tps(0, 1), 2)
    assert world.groups.standing("g", static, "s") == Failure.FENCED_INSTANCE_ID
    with pytest.raises(FencedError, match="no member"):
        world.groups.check_owner("g", static, tps(0))
    world.held.pop(static)
    world.counts["u"] = 2
    wider = world.groups.join("g", world.request("", ("t", "u"), "s"), world.assign)
    world.held.pop(again)
    world.held[wider] = set()
    world.poll(wider)
    world.poll(other)
    assert TopicPartition("u", 1) in world.poll(wider)


def test_other_protocols_are_refused_with_the_assignor_that_is_used() -> None:
    world = World()
    world.come()
    with pytest.raises(InvalidError, match=r"use the assignor p, and consumer-000002 wants q: .* \(consumer-000001\)"):
        world.groups.join("g", world.request()._replace(protocols=(("q", b""),)), world.assign)
    assert len(world.groups.describe("g")[1]) == 1


def test_requests_for_groups_that_are_not_there() -> None:
    world = World()
    assert world.groups.heartbeat("g", "m", 1) == Failure.UNKNOWN_MEMBER_ID
    assert world.groups.leave_group("g", "m") == Failure.UNKNOWN_MEMBER_ID
    assert world.groups.check_commit("g", "m", 1) == Failure.ILLEGAL_GENERATION
    assert world.groups.check_commit("g", "", -1) is None
    told: list[object] = []
    world.groups.sync_group("g", SyncRequest("m", 1), told.append)
    assert told == [Synced("m", Failure.UNKNOWN_MEMBER_ID)]
    assert (world.groups.due_ms(), world.groups.describe("g")) == (None, (EMPTY, []))
    world.groups.forget("g")


def test_rubbish_from_a_leader_elsewhere_is_nobodys_assignment(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    client = Client(world, "c")
    client.join()
    here = world.come()
    client.rubbish = True
    client.beat()
    assert world.poll(here) == []
    assert "group 'g': an assignment of a group's member ends after 1 bytes" in caplog.text
    client.rubbish = False
    client.join()
    world.poll(here)
    assert world.poll(here) == tps(2, 3)


def test_whose_consumer_was_garbage_leaves_when_somebody_looks_and_the_others_are_woken() -> None:
    world = World(2)
    gone, there = world.come(), world.come()
    for member in (gone, there, gone, there):
        world.poll(member)
    wakes = world.wakes
    world.groups.drop("g", gone)
    world.groups.drop("g", gone)
    world.groups.drop("another", gone)
    del world.held[gone]
    assert (world.groups.due_ms(), world.wakes) == (0, wakes)
    world.groups.tick()
    assert world.wakes == wakes + 1
    assert world.poll(there) == tps(0, 1)


def test_a_group_is_forgotten_unless_somebody_has_come() -> None:
    world = World(2)
    member = world.come()
    world.groups.forget("g")
    assert world.poll(member) == tps(0, 1)
    world.go(member)
    assert world.groups.check_commit("g", member, 1) == Failure.UNKNOWN_MEMBER_ID
    world.groups.forget("g")
    assert world.groups.check_commit("g", member, 1) == Failure.ILLEGAL_GENERATION


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["come", "poll", "poll", "poll", "go", "drop", "join", "beat", "beat", "leave", "grow", "time"]
        ),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(EVENTS, st.sampled_from([assign_ranges, assign_sticky]))
@settings(max_examples=100)
def test_no_partition_ever_has_two_owners_and_all_settles(events: list[tuple[str, int]], assign: Assign) -> None:
    world = World(5, assign)
    for event, number in events:
        happen(world, event, number)
        owned = world.owners()
        assert len(owned) == len(set(owned))
    for _ in range(8):
        world.groups.tick()  # as a server does, by its clock
        for member in list(world.held):
            world.poll(member)
        for client in list(world.clients.values()):
            client.beat()
    if world.held or world.clients:
        assert sorted(world.owners()) == tps(*range(world.counts["t"]))
        assert world.groups.describe("g")[0] == STABLE
    else:
        assert world.groups.living() == []


def happen(world: World, event: str, number: int) -> None:
    members = list(world.held)
    clients = list(world.clients.values())
    if event == "come":
        world.come()
    elif event == "join" and len(clients) < 3:
        Client(world, f"c{len(members)}{number}{len(world.clients)}").join()
    elif event == "grow":
        world.counts["t"] += 1
        world.groups.topic_changed("t")
        for client in clients:  # clients elsewhere look for themselves; one that leads joins anew
            if not client.waits:
                client.join()
    elif event == "time":
        world.clock.advance(number * TIMEOUT_MS // 5)
        world.groups.tick()
        for member in members:  # who is out learns it before anything else: its commits are refused from here on
            if world.groups.standing("g", member, None) is not None:
                del world.held[member]
        for client in clients:
            client.beat()
    elif event in {"poll", "go", "drop"} and members:
        member = members[number % len(members)]
        if event == "poll":
            world.poll(member)
        elif event == "go":
            world.go(member)
        else:
            world.groups.drop("g", member)
            del world.held[member]
    elif event in {"beat", "leave"} and clients:
        client = clients[number % len(clients)]
        if event == "beat":
            client.beat()
        elif not client.waits:  # else it does not know its id
            client.leave()
