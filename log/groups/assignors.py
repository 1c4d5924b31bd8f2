"""Who of a group's members reads which partition: range, round-robin, sticky. Pure functions.

1. Every partition of a topic that somebody subscribes to has exactly one owner, who subscribes to it.
2. The answer depends on the arguments alone: every member would work out the same.
3. Sticky: loads are as even as the subscriptions allow: nobody has two partitions more than another who could take one
   of them. Within that, nobody loses a partition for another of the same kind.

Sources: Kafka's RangeAssignor and RoundRobinAssignor, result for result (without racks); its StickyAssignor in what it
promises, by an algorithm of ours. Not here: who asks, and when (`group`, `membership`).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Final, NamedTuple

from tailrace.log.client import Assignor
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition


class Subscription(NamedTuple):
    """What one member wants, and what it holds: `generation` is the one in which it was given `owned`."""

    topics: Sequence[str]
    owned: Sequence[TopicPartition] = ()
    userdata: bytes = b""
    instance: str | None = None  # a static member's name
    generation: int = -1


Members = Mapping[str, Subscription]
Counts = Mapping[str, int]
Assignment = dict[str, list[TopicPartition]]
Assign = Callable[[Members, Counts], Assignment]


def assign_ranges(members: Members, partition_counts: Counts) -> Assignment:
    """Per topic, members in order take consecutive partitions; the first ones one more where it does not come out."""
    assigned: Assignment = {member: [] for member in _in_order(members)}
    for topic, count in sorted(partition_counts.items()):
        takers = _takers(assigned, members, topic)
        if not takers:
            continue
        share, more = divmod(count, len(takers))
        start = 0
        for place, member in enumerate(takers):
            end = start + share + (place < more)
            assigned[member] += [TopicPartition(topic, number) for number in range(start, end)]
            start = end
    return assigned


def assign_round_robin(members: Members, partition_counts: Counts) -> Assignment:
    """All partitions in order, dealt to the members in turn; who does not subscribe to a topic is passed over."""
    assigned: Assignment = {member: [] for member in _in_order(members)}
    turns = cycle(assigned)
    for topic, count in sorted(partition_counts.items()):
        takers = set(_takers(assigned, members, topic))
        if not takers:
            continue
        for number in range(count):
            taker = next(member for member in turns if member in takers)
            assigned[taker].append(TopicPartition(topic, number))
    return assigned


def assign_sticky(members: Members, partition_counts: Counts) -> Assignment:
    """Members keep what they hold as far as an even share allows; the rest goes to who has least."""
    order = _in_order(members)
    takers = {topic: _takers(order, members, topic) for topic in sorted(partition_counts)}
    owner = _held(members, partition_counts)
    if len({frozenset(each.topics) for each in members.values()}) == 1:
        _cut_to_quota(owner, order, sum(partition_counts[topic] for topic, some in takers.items() if some))
    load = dict.fromkeys(order, 0)
    for member in owner.values():
        load[member] += 1
    # Who has fewest takers is placed first, while they are still empty.
    for topic in sorted((each for each in takers if takers[each]), key=lambda each: (len(takers[each]), each)):
        for number in range(partition_counts[topic]):
            partition = TopicPartition(topic, number)
            if partition not in owner:
                least = min(takers[topic], key=load.__getitem__)
                owner[partition] = least
                load[least] += 1
    _level(owner, load, takers)
    assigned: Assignment = {member: [] for member in order}
    for partition in sorted(owner):
        assigned[owner[partition]].append(partition)
    return assigned


def _held(members: Members, partition_counts: Counts) -> dict[TopicPartition, str]:
    """Who holds what and may go on: where two say so, the one who was told later; a tie is nobody's."""
    claims: dict[TopicPartition, list[tuple[int, str]]] = {}
    for member, subscription in members.items():
        for partition in subscription.owned:
            if partition.topic in subscription.topics and partition.partition < partition_counts.get(
                partition.topic, 0
            ):
                claims.setdefault(partition, []).append((subscription.generation, member))
    held: dict[TopicPartition, str] = {}
    for partition, claimed in claims.items():
        latest = max(claimed)[0]
        newest = [member for generation, member in claimed if generation == latest]
        if len(newest) == 1:
            held[partition] = newest[0]
    return held


def _cut_to_quota(owner: dict[TopicPartition, str], order: Sequence[str], partitions: int) -> None:
    """Everyone subscribes alike: who has more than the even share gives up the last ones of it."""
    share, more = divmod(partitions, len(order))
    held: Assignment = {member: [] for member in order}
    for partition in sorted(owner):
        held[owner[partition]].append(partition)
    for member in sorted(order, key=lambda each: -len(held[each])):
        quota = share
        if more and len(held[member]) > share:
            quota, more = share + 1, more - 1
        for partition in held[member][quota:]:
            del owner[partition]


def _level(owner: dict[TopicPartition, str], load: dict[str, int], takers: Mapping[str, Sequence[str]]) -> None:
    """Moves partitions to who has two or more less, until nothing moves. Each move lowers the sum of the squares."""
    moved = True
    while moved:
        moved = False
        for partition in sorted(owner):
            member = owner[partition]
            least = min(takers[partition.topic], key=load.__getitem__)
            if load[member] - load[least] >= 2:
                owner[partition] = least
                load[member] -= 1
                load[least] += 1
                moved = True


def _in_order(members: Members) -> list[str]:
    """Kafka's order of members: static ones first, by their names; then the others by theirs."""
    return sorted(members, key=lambda each: (members[each].instance is None, members[each].instance or each))


def _takers(order: Sequence[str] | Assignment, members: Members, topic: str) -> list[str]:
    return [member for member in order if topic in members[member].topics]


ASSIGNORS: Final[dict[str, Assign]] = {
    "range": assign_ranges,
    "roundrobin": assign_round_robin,
    "sticky": assign_sticky,
}


def assignor(chosen: str | Assignor) -> tuple[str, Assign]:
    """An assignor's name, on which all members of a group must agree, and its function.

    Raises:
        ValueError: a name that is not known.
    """
    if isinstance(chosen, str):
        if chosen not in ASSIGNORS:
            raise ValueError(f"assignor={chosen!r}: give one of {', '.join(ASSIGNORS)}, or a function")
        return chosen, ASSIGNORS[chosen]
    name = getattr(chosen, "__qualname__", type(chosen).__qualname__)
    return f"{getattr(chosen, '__module__', '')}.{name}", _checked(chosen, name)


def _checked(chosen: Assignor, name: str) -> Assign:
    """A user's function, held to invariant 1 as far as it is its own business: nothing twice, nothing unheard of."""

    def assign(members: Members, partition_counts: Counts) -> Assignment:
        given = chosen({member: each.userdata for member, each in members.items()}, partition_counts)
        assigned: Assignment = {
            member: sorted(TopicPartition(*each) for each in given.get(member, ())) for member in members
        }
        seen: set[TopicPartition] = set()
        for member, partitions in assigned.items():
            for each in partitions:
                if each in seen or not 0 <= each.partition < partition_counts.get(each.topic, 0):
                    why = "twice" if each in seen else "which nobody asked for"
                    raise InvalidError(f"the assignor {name} gave out {each}, {why}, here to {member}: correct it")
                seen.add(each)
        if not set(given) <= set(members):
            strangers = ", ".join(sorted(set(given) - set(members)))
            raise InvalidError(
                f"the assignor {name} gave partitions to {strangers}, no members of the group: correct it"
            )
        return assigned

    return assign
