"""Assignors: Kafka's results for range and round-robin; every partition once, even loads, nothing moved in vain."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.errors import InvalidError
from tailrace.log.groups.assignors import (
    ASSIGNORS,
    Assignment,
    Members,
    Subscription,
    assign_ranges,
    assign_round_robin,
    assign_sticky,
    assignor,
)
from tailrace.log.record import TopicPartition

TOPICS: list[str] = ["t", "u", "v"]


def tps(topic: str, *numbers: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in numbers]


def test_ranges_are_kafkas() -> None:
    members = {"b": Subscription(["t"]), "a": Subscription(["t", "u"]), "c": Subscription(["t"])}
    assert assign_ranges(members, {"t": 7, "u": 2}) == {
        "a": tps("t", 0, 1, 2) + tps("u", 0, 1),
        "b": tps("t", 3, 4),
        "c": tps("t", 5, 6),
    }


def test_round_robin_is_kafkas() -> None:
    """The example of RoundRobinAssignor's documentation."""
    members = {"C0": Subscription(["t0"]), "C1": Subscription(["t0", "t1"]), "C2": Subscription(["t0", "t1", "t2"])}
    assert assign_round_robin(members, {"t0": 1, "t1": 2, "t2": 3}) == {
        "C0": tps("t0", 0),
        "C1": tps("t1", 0),
        "C2": tps("t1", 1) + tps("t2", 0, 1, 2),
    }


def test_static_members_come_first_by_their_own_names() -> None:
    members = {"a": Subscription(["t"]), "z": Subscription(["t"], instance="2"), "y": Subscription(["t"], instance="3")}
    assert assign_ranges(members, {"t": 3}) == {"z": tps("t", 0), "y": tps("t", 1), "a": tps("t", 2)}


def test_sticky_gives_what_kafkas_documentation_promises() -> None:
    """Its example: C1 goes; what C0 and C2 have they keep, and what C1 had is shared evenly."""
    every = ["t0", "t1", "t2", "t3"]
    counts = dict.fromkeys(every, 2)
    before = {
        "C0": tps("t0", 0) + tps("t1", 1) + tps("t3", 0),
        "C2": tps("t1", 0) + tps("t2", 1),
    }
    after = assign_sticky({name: Subscription(every, owned) for name, owned in before.items()}, counts)
    assert all(set(before[name]) <= set(after[name]) for name in before)
    assert sorted(map(len, after.values())) == [4, 4]


def test_who_was_told_later_keeps_a_partition_that_two_claim() -> None:
    members = {
        "a": Subscription(["t"], tps("t", 0, 1), generation=3),
        "b": Subscription(["t"], tps("t", 0, 2), generation=4),
    }
    assert assign_sticky(members, {"t": 4}) == {"a": tps("t", 1, 3), "b": tps("t", 0, 2)}
    members = {name: each._replace(generation=4) for name, each in members.items()}
    assert sum(map(len, assign_sticky(members, {"t": 4}).values())) == 4


@st.composite
def groups(draw: st.DrawFn, *, alike: bool) -> tuple[Members, dict[str, int]]:
    """Members with subscriptions and anything that they say they hold: gone topics, doubles, others' partitions."""
    counts = draw(st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 7), min_size=1))
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True))
    wanted = st.lists(st.sampled_from(TOPICS), min_size=1, unique=True)
    same = draw(wanted)
    held = st.lists(st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 8)), max_size=8, unique=True)
    return {
        name: Subscription(same if alike else draw(wanted), draw(held), generation=draw(st.integers(-1, 2)))
        for name in names
    }, counts


def kept(members: Members, assigned: Assignment) -> int:
    return sum(len(set(members[name].owned) & set(given)) for name, given in assigned.items())


@given(st.booleans().flatmap(lambda alike: groups(alike=alike)), st.sampled_from(list(ASSIGNORS)))
@settings(max_examples=100, deadline=None)
def test_every_partition_has_one_owner_who_asked_for_it(case: tuple[Members, dict[str, int]], name: str) -> None:
    members, counts = case
    assigned = ASSIGNORS[name](members, counts)
    assert set(assigned) == set(members)
    asked = {topic for each in members.values() for topic in each.topics}
    expected = [TopicPartition(topic, number) for topic in asked & set(counts) for number in range(counts[topic])]
    assert sorted(each for given_ in assigned.values() for each in given_) == sorted(expected)
    for member, partitions in assigned.items():
        assert {each.topic for each in partitions} <= set(members[member].topics)
    assert ASSIGNORS[name](dict(reversed(list(members.items()))), counts) == assigned


@given(st.booleans().flatmap(lambda alike: groups(alike=alike)))
@settings(max_examples=100, deadline=None)
def test_sticky_is_even_and_then_changes_nothing(case: tuple[Members, dict[str, int]]) -> None:
    members, counts = case
    assigned = assign_sticky(members, counts)
    for member, partitions in assigned.items():
        for other, theirs in assigned.items():
            takeable = [each for each in partitions if each.topic in members[other].topics]
            assert not takeable or len(partitions) - len(theirs) <= 1, (member, other)
    again = {name: each._replace(owned=assigned[name]) for name, each in members.items()}
    assert assign_sticky(again, counts) == assigned


@given(groups(alike=True))
@settings(max_examples=60, deadline=None)
def test_sticky_moves_no_more_than_evenness_asks(case: tuple[Members, dict[str, int]]) -> None:
    """Everyone wants the same and each partition is claimed once: what may stay at most is known."""
    members, counts = case
    seen: set[TopicPartition] = set()
    clean: dict[str, Subscription] = {}
    for name, each in members.items():
        valid = [tp for tp in each.owned if tp.topic in each.topics and tp.partition < counts.get(tp.topic, 0)]
        mine = [tp for tp in valid if tp not in seen]
        seen |= set(mine)
        clean[name] = each._replace(owned=mine)
    total = sum(count for topic, count in counts.items() if topic in next(iter(clean.values())).topics)
    share, more = divmod(total, len(clean))
    rich = sorted((len(each.owned) for each in clean.values()), reverse=True)
    most = sum(min(size, share + (place < more)) for place, size in enumerate(rich))
    assert kept(clean, assign_sticky(clean, counts)) == most


def test_a_users_function_gets_what_members_said_and_is_held_to_the_rules() -> None:
    seen: list[object] = []

    def ours(members: object, counts: object) -> dict[str, list[TopicPartition]]:
        seen.append((members, counts))
        return answer

    name, assign = assignor(ours)
    assert name.endswith("ours")
    members = {"a": Subscription(["t"], userdata=b"A"), "b": Subscription(["t"], userdata=b"B")}
    answer = {"b": [TopicPartition("t", 1)]}
    assert assign(members, {"t": 2}) == {"a": [], "b": [TopicPartition("t", 1)]}
    assert seen == [({"a": b"A", "b": b"B"}, {"t": 2})]
    for wrong, why in (
        ({"a": tps("t", 0), "b": tps("t", 0)}, "t-0, twice, here to b"),
        ({"a": tps("t", 2)}, "t-2, which nobody asked for"),
        ({"c": tps("t", 0)}, "to c, no members"),
    ):
        answer = wrong
        with pytest.raises(InvalidError, match=why):
            assign(members, {"t": 2})
    with pytest.raises(ValueError, match="give one of range, roundrobin, sticky, or a function"):
        assignor("best")


def test_a_large_group_is_quick_enough_to_level() -> None:
    members = {f"m{number:02}": Subscription(["t"]) for number in range(50)}
    members["m00"] = Subscription(["t"], [TopicPartition("t", number) for number in range(2000)])
    loads = Counter(len(each) for each in assign_sticky(members, {"t": 2000}).values())
    assert loads == {40: 50}
