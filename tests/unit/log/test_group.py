"""Groups: ranges, hand-over, states."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.assignors import Subscription
from tailrace.log.group import EMPTY, REBALANCING, STABLE, TRANSITIONS, Group
from tailrace.log.record import TopicPartition

TOPICS = Subscription(["t"])


def tps(topic: str, *numbers: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in numbers]


def test_a_partition_changes_hands_only_when_it_was_given_up() -> None:
    group = Group("g")
    assert group.state == EMPTY
    group.join("a", TOPICS, {"t": 2})
    assert group.state == REBALANCING
    assert group.take("a") == tps("t", 0, 1)
    assert group.state == STABLE
    group.join("b", TOPICS, {"t": 2})
    assert (group.state, group.take("b")) == (REBALANCING, [])
    assert group.to_revoke("a") == tps("t", 1)
    group.release("a", tps("t", 1))
    assert group.take("b") == tps("t", 1)
    assert group.state == STABLE
    group.leave("a")
    assert group.take("b") == tps("t", 0)
    group.topic_gone("t")
    assert group.to_revoke("b") == tps("t", 0, 1)
    group.leave("b")
    group.leave("b")
    assert (group.state, group.owner(TopicPartition("t", 0))) == (EMPTY, None)


def test_every_move_that_is_made_is_in_the_table() -> None:
    assert set(TRANSITIONS.values()) == {EMPTY, REBALANCING, STABLE}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["join", "leave", "poll"])), max_size=40))
@settings(max_examples=80, deadline=None)
def test_no_partition_ever_has_two_owners_and_all_settles(events: list[tuple[str, str]]) -> None:
    group = Group("g")
    held: dict[str, set[TopicPartition]] = {"a": set(), "b": set(), "c": set()}

    def poll(member: str) -> None:
        revoked = group.to_revoke(member)
        held[member] -= set(revoked)
        group.release(member, revoked)
        held[member] |= set(group.take(member))

    for member, event in events:
        if event == "join":
            group.join(member, TOPICS, {"t": 5})
        elif event == "leave":
            group.leave(member)
            held[member] = set()
        elif member in group.members:
            poll(member)
        assert sum(map(len, held.values())) == len({each for share in held.values() for each in share})
    for _ in range(2):
        for member in group.members:
            poll(member)
    if group.members:
        assert {each for share in held.values() for each in share} == set(tps("t", *range(5)))
        assert group.state == STABLE
