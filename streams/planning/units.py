"""What is dealt out to the running apps of one name: units of tasks, each with all the partitions that its tasks read.

1. Every task, and every partition that is read, of repartitions, too, belongs to exactly one unit. A unit is one task,
   whatever repartitions connect: whether rows go through these in memory is up to who has all of them (repartitions).
2. Every unit is given to exactly one member. The answer depends on the arguments alone.
3. No member has two units more than another. Within that a unit stays with who runs it, else it goes to who has its
   state on disk; only who has more than an even share gives one up.

Members agree on the units: the assignor's name tells what they are, and the group refuses a member with another name.
Source of the rule: Kafka Streams' StickyTaskAssignor in what it promises. Not here: who asks, and when (member).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from tailrace.log.client import Assignor
from tailrace.log.record import TopicPartition
from tailrace.streams.program.topology import Topology, repartition_topic
from tailrace.streams.task import TaskId


class Unit(NamedTuple):
    """Tasks that run in one member, and what they read."""

    tasks: tuple[TaskId, ...]
    """In the order of their sub-topologies."""
    inputs: tuple[TopicPartition, ...]

    @property
    def name(self) -> str:
        """That of its first task, 0_3."""
        return str(self.tasks[0])


class Claim(msgspec.Struct, frozen=True):
    """What a member says of itself when it joins: the names of units that it runs, and of those it has state of."""

    runs: list[str] = []
    stored: list[str] = []

    def to_bytes(self) -> bytes:
        """For the group."""
        return msgspec.json.encode(self)


def units_of(
    topology: Topology, tasks: Mapping[int, int], partitions: Mapping[str, int], widths: Mapping[int, int]
) -> list[Unit]:
    """The units of an app.

    `tasks` counts those of each sub-topology, `partitions` those of each topic that is read, `widths` those of each
    repartition, by node.
    """
    units: list[Unit] = []
    for sub in topology.subtopologies:
        read = [(topic.name, partitions[topic.name]) for node in sub.sources if (topic := node.operator.reads)]
        read += [
            (repartition_topic(topology.app, cut.operator.repartition), widths[cut.id])
            for cut in sub.repartitions_read
            if cut.operator.repartition is not None
        ]
        for number in range(tasks[sub.id]):
            inputs = tuple(TopicPartition(topic, number) for topic, count in read if number < count)
            units.append(Unit((TaskId(sub.id, number),), inputs))
    return units


def assignor_of(units: Sequence[Unit], stores: Sequence[str] = ()) -> Assignor:
    """The assignor that deals these; see `Consumer.subscribe`. All members must have the same `stores`, too."""

    def deal_units(members: Mapping[str, bytes], counts: Mapping[str, int]) -> dict[str, list[TopicPartition]]:
        dealt = deal(units, {member: _claim(said) for member, said in members.items()})
        # A topic may have been deleted since: the app ends where it looks at its topics.
        return {
            member: [each for unit in given for each in unit.inputs if each.partition < counts.get(each.topic, 0)]
            for member, given in dealt.items()
        }

    deal_units.__qualname__ = f"units-{hashlib.sha256(repr((list(units), list(stores))).encode()).hexdigest()[:12]}"
    return deal_units


def _claim(said: bytes) -> Claim:
    return msgspec.json.decode(said, type=Claim) if said else Claim()


def deal(units: Sequence[Unit], claims: Mapping[str, Claim]) -> dict[str, list[Unit]]:
    """Who gets which unit; see the head of this file."""
    order = sorted(claims)
    if not order:
        return {}
    share, more = divmod(len(units), len(order))
    keeps = {unit.name: [member for member in order if unit.name in claims[member].stored] for unit in units}
    held: dict[str, list[Unit]] = {member: [] for member in order}
    free: list[Unit] = []
    for unit in units:
        runs = next((member for member in order if unit.name in claims[member].runs), None)
        (free if runs is None else held[runs]).append(unit)
    # Who has more than the others keeps one more than they, where it does not come out even.
    for member in sorted(order, key=lambda each: -len(held[each])):
        quota = share
        if more and len(held[member]) > share:
            quota, more = share + 1, more - 1
        while len(held[member]) > quota:
            free.append(_given_up(member, held[member], keeps))
    for unit in sorted(free):
        taker = next((each for each in keeps[unit.name] if len(held[each]) < share + (more > 0)), None)
        if taker is not None:
            more -= len(held[taker]) == share
            held[taker].append(unit)
            free.remove(unit)
    for unit in sorted(free):
        held[min(order, key=lambda each: (len(held[each]), _alike(held[each], unit)))].append(unit)
    return {member: sorted(given) for member, given in held.items()}


def _given_up(member: str, held: list[Unit], keeps: Mapping[str, Sequence[str]]) -> Unit:
    """Takes out the one to give up: one that another has state of; of the kind of which there are most; the last."""
    unit = max(held, key=lambda each: (keeps[each.name] not in ([], [member]), _alike(held, each), each))
    held.remove(unit)
    return unit


def _alike(held: Sequence[Unit], unit: Unit) -> int:
    """How many are of the same sub-topology: what is dear there is to be shared."""
    return sum(each.tasks[0].subtopology == unit.tasks[0].subtopology for each in held)
