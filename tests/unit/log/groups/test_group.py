"""The group protocol as a state machine: a transcript, and any order of requests against a few rules."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.groups.group import COMPLETING, DEAD, EMPTY, PREPARING, STABLE, TRANSITIONS, Group
from tailrace.log.groups.protocol import Answer, Failure, Joined, JoinRequest, SyncRequest
from tailrace.tests.support.transcript import check


class Console:
    """A group, and members that say what a line tells them to say."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.group = Group("g")
        self.ids: dict[str, str] = {}  # actor -> the member id it believes to have
        self.generations: dict[str, int] = {}
        self.given: Counter[str] = Counter()

    def run(self, line: str) -> list[str]:
        verb, *words = line.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        actor = plain[0] if plain else ""
        shown: list[str] = getattr(self, f"do_{verb}")(actor, set(plain[1:]), options)
        return shown

    def show(self, answers: list[Answer]) -> list[str]:
        lines: list[str] = []
        for ticket, body in answers:
            if body.failure in {None, Failure.MEMBER_ID_REQUIRED}:
                self.ids[ticket] = body.member
            if body.failure is not None:
                lines.append(f"{ticket}: {body.failure.name}")
            elif isinstance(body, Joined):
                self.generations[ticket] = body.generation
                members = " ".join(f"{each.member}({each.metadata.decode()})" for each in body.members)
                leads = f", leads {members}" if members else f", {body.leader} leads"
                skip = ", assignment stands" if body.skip_assignment else ""
                lines.append(
                    f"{ticket}: joined as {body.member}, generation {body.generation}, {body.protocol}{leads}{skip}"
                )
            else:
                lines.append(f"{ticket}: synced, {body.assignment.decode() or 'nothing'}")
        return [*lines, f"[{self.group.state} {self.group.generation}]"]

    def do_group(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        self.__init__()  # type: ignore[misc]
        self.group = Group("g", initial_delay_ms=int(options.get("delay", 0)) * 1000)
        return []

    def do_join(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        self.given[actor] += 1
        protocols = options.get("protocols", "range").split(",")
        request = JoinRequest(
            "" if "anew" in flags else self.ids.get(actor, ""),
            tuple((name, f"{options.get('wants', 't')}".encode()) for name in protocols),
            int(options.get("session", 10)) * 1000,
            int(options.get("rebalance", 60)) * 1000,
            options.get("instance"),
            protocol_type=options.get("type", "consumer"),
        )
        return self.show(
            self.group.join(
                request, actor, self.now_ms, new_id=f"{actor}{self.given[actor]}", known_ids_only="v4" in flags
            )
        )

    def do_sync(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        generation = int(options.pop("generation", self.generations.get(actor, -1)))
        protocol, instance = options.pop("protocol", None), options.pop("instance", None)
        assignments = {self.ids[name]: text.encode() for name, text in options.items()}
        request = SyncRequest(self.ids.get(actor, actor), generation, assignments, instance, protocol=protocol)
        return self.show(self.group.sync(request, actor, self.now_ms))

    def _known(self, actor: str, options: dict[str, str]) -> tuple[str, int]:
        return self.ids.get(actor, actor), int(options.get("generation", self.generations.get(actor, -1)))

    def do_heartbeat(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        failure = self.group.heartbeat(*self._known(actor, options), self.now_ms, instance=options.get("instance"))
        return [f"{actor}: {failure.name if failure else 'ok'}"]

    def do_commit(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        member, generation = ("", -1) if actor == "nobody" else self._known(actor, options)
        failure = self.group.check_commit(member, generation, self.now_ms, transactional="transactional" in flags)
        return [f"{actor}: {failure.name if failure else 'ok'}"]

    def do_leave(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        member = "" if "instance" in options else self.ids.get(actor, actor)
        failure, answers = self.group.leave(member, self.now_ms, instance=options.get("instance"))
        return [f"{actor}: {failure.name if failure else 'left'}", *self.show(answers)]

    def do_changed(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        return self.show(self.group.rebalance(self.now_ms))

    def do_after(self, actor: str, flags: set[str], options: dict[str, str]) -> list[str]:
        """`after 5`: five seconds pass; what is due happens when it is due."""
        end_ms = self.now_ms + int(float(actor) * 1000)
        lines: list[str] = []
        while (due_ms := self.group.due_ms()) is not None and due_ms <= end_ms:
            assert due_ms >= self.now_ms
            self.now_ms = due_ms
            happened = self.show(self.group.tick(self.now_ms))
            lines += [f"{self.now_ms / 1000:g} s: {line}" for line in happened]
        self.now_ms = end_ms
        return lines


def test_transcript() -> None:
    check("group.txt", Console().run)


def test_every_state_can_be_reached_and_left_as_the_table_says() -> None:
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == {
        EMPTY,
        PREPARING,
        COMPLETING,
        STABLE,
        DEAD,
    }
    group = Group("g")
    group.delete()
    assert group.state == DEAD
    with pytest.raises(KeyError):
        group.delete()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "static", "sync", "heartbeat", "leave", "rebalance", "time", "again"]),
        st.sampled_from("abcd"),
        st.integers(0, 40),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=100)
def test_in_any_order_tickets_are_answered_once_and_everything_settles(steps: list[tuple[str, str, int]]) -> None:
    """Then: who goes on doing what the protocol asks for ends in one stable generation."""
    world = World()
    for step in steps:
        world.step(*step)
        world.check()
    for _ in range(90):  # a client that is gone before its first answer is given five minutes
        for actor in list(world.ids):
            world.follow(actor)
        world.time(4)
        world.check()
    if world.group.members:
        assert world.group.state == STABLE
        assert set(world.ids.values()) == set(world.group.members)
    else:
        assert world.group.state == EMPTY


class World:
    """Four clients that do as they like, and a record of what they were told."""

    def __init__(self) -> None:
        self.group = Group("g")
        self.now_ms = 0
        self.ids: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.parked: dict[str, tuple[str, Any]] = {}
        self.tickets = 0
        self.open: set[tuple[str, int]] = set()
        self.generation = 0

    def ticket(self, actor: str) -> tuple[str, int]:
        self.tickets += 1
        ticket = (actor, self.tickets)
        self.open = {each for each in self.open if each[0] != actor} | {ticket}  # an older one is given up
        return ticket

    def tell(self, answers: list[Answer]) -> None:
        seen: set[object] = set()
        for ticket, body in answers:
            assert ticket not in seen
            seen.add(ticket)
            if ticket not in self.open:
                continue
            self.open.remove(ticket)
            actor = ticket[0]
            if body.failure in {Failure.UNKNOWN_MEMBER_ID, Failure.FENCED_INSTANCE_ID}:
                self.ids.pop(actor, None)
            elif isinstance(body, Joined):
                self.ids[actor], self.generations[actor] = body.member, body.generation
                assert body.generation == self.group.generation or body.failure
                if body.members:
                    assert {each.member for each in body.members} == set(self.group.members)
            elif body.failure is None:
                static = self.group.members[body.member].request.instance  # such a one inherits
                assert static or body.assignment in {body.member.encode(), b""}

    def step(self, what: str, actor: str, number: int) -> None:
        if what in {"join", "static", "again"}:
            member = self.ids.get(actor, "") if what == "join" else ""
            instance = "shared" if what == "static" else None
            request = JoinRequest(member, (("p", b""),), 10_000, 30_000, instance)
            self.tell(self.group.join(request, self.ticket(actor), self.now_ms, new_id=f"{actor}{self.tickets}"))
        elif what == "sync":
            self.sync(actor, self.generations.get(actor, 0) + (number > 35))
        elif what == "heartbeat":
            self.group.heartbeat(self.ids.get(actor, "?"), self.generations.get(actor, 0), self.now_ms)
        elif what == "leave":
            self.tell(self.group.leave(self.ids.pop(actor, "?"), self.now_ms)[1])
        elif what == "rebalance":
            self.tell(self.group.rebalance(self.now_ms))
        else:
            self.time(number)

    def time(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        self.tell(self.group.tick(self.now_ms))

    def sync(self, actor: str, generation: int) -> None:
        assignments = {each: each.encode() for each in self.group.members}
        request = SyncRequest(self.ids.get(actor, "?"), generation, assignments)
        self.tell(self.group.sync(request, self.ticket(actor), self.now_ms))

    def follow(self, actor: str) -> None:
        """What a well-behaved client does next."""
        if any(each[0] == actor for each in self.open):
            return  # it waits for an answer
        failure = self.group.heartbeat(self.ids.get(actor, "?"), self.generations.get(actor, 0), self.now_ms)
        if failure == Failure.UNKNOWN_MEMBER_ID:
            self.ids.pop(actor, None)
        elif failure in {Failure.REBALANCE_IN_PROGRESS, Failure.ILLEGAL_GENERATION}:
            self.step("join", actor, 0)
        else:
            self.sync(actor, self.generations[actor])

    def check(self) -> None:
        group = self.group
        assert group.generation >= self.generation
        self.generation = group.generation
        assert bool(group.members) == bool(group.leader)
        assert not group.leader or group.leader in group.members
        assert group.state != STABLE or all(each.join is None and each.sync is None for each in group.members.values())
        assert group.state != EMPTY or not group.members
