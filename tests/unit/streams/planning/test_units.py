"""Which member gets which unit: exactly one, evenly, and nobody loses one without need."""

from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.streams.planning.units import Claim, Unit, assignor_of, deal, units_of
from tailrace.streams.task import TaskId
from tailrace.tests.support.programs import click_app

MEMBERS = [f"consumer-{number:06d}" for number in range(6)]


def unit(subtopology: int, partition: int) -> Unit:
    return Unit((TaskId(subtopology, partition),), (TopicPartition(f"t{subtopology}", partition),))


UNITS = [unit(subtopology, partition) for subtopology in range(3) for partition in range(5)]
NAMES = [each.name for each in UNITS]

names = st.lists(st.sampled_from(NAMES), unique=True)
claims = st.dictionaries(st.sampled_from(MEMBERS), st.builds(Claim, runs=names, stored=names), min_size=1)


def claims_of(dealt: Mapping[str, list[Unit]], stored: Mapping[str, list[str]] | None = None) -> dict[str, Claim]:
    return {
        member: Claim([each.name for each in given], (stored or {}).get(member, [])) for member, given in dealt.items()
    }


@given(st.integers(0, len(UNITS)), claims)
@settings(max_examples=100, deadline=None)
def test_each_unit_has_one_owner_and_loads_are_even(count: int, said: dict[str, Claim]) -> None:
    dealt = deal(UNITS[:count], said)
    assert set(dealt) == set(said)
    assert sorted(each for given in dealt.values() for each in given) == sorted(UNITS[:count])
    loads = [len(given) for given in dealt.values()]
    assert max(loads) - min(loads) <= 1
    assert deal(UNITS[:count], dict(reversed(said.items()))) == dealt, "the order of the members says nothing"


@given(st.integers(1, len(UNITS)), st.lists(st.sampled_from(MEMBERS), unique=True, min_size=1), claims, st.data())
@settings(max_examples=100, deadline=None)
def test_nobody_loses_a_unit_without_need(
    count: int, before: list[str], stored: dict[str, Claim], data: st.DataObject
) -> None:
    units = UNITS[:count]
    keeps = {member: said.stored for member, said in stored.items()}
    running = deal(units, dict.fromkeys(before, Claim()))
    assert deal(units, claims_of(running, keeps)) == running, "nobody came, nobody went"
    after = data.draw(st.lists(st.sampled_from(MEMBERS), unique=True, min_size=1))
    said = claims_of({member: running.get(member, []) for member in after}, keeps)
    dealt = deal(units, said)
    share = len(units) // len(after)
    for member in after:
        lost = set(running.get(member, [])) - set(dealt[member])
        if lost:
            assert len(dealt[member]) >= share, "who loses something has as much as the others"
            assert not set(dealt[member]) - set(running[member]), "and gets nothing for it"


def test_who_comes_back_gets_what_it_has_on_disk() -> None:
    units = [unit(0, number) for number in range(4)]
    alone = {"b": Claim(["0_0", "0_1", "0_2", "0_3"], ["0_0", "0_1", "0_2", "0_3"])}
    assert deal(units, alone | {"a": Claim([], ["0_0", "0_2"])}) == {
        "a": [units[0], units[2]],
        "b": [units[1], units[3]],
    }
    both_begin = {"a": Claim([], ["0_3", "0_1"]), "b": Claim([], ["0_0", "0_2"])}
    assert deal(units, both_begin) == {"a": [units[1], units[3]], "b": [units[0], units[2]]}


def test_what_is_dear_is_shared() -> None:
    dealt = deal(
        [unit(subtopology, number) for subtopology in range(2) for number in range(4)], {"a": Claim(), "b": Claim()}
    )
    for given_units in dealt.values():
        assert Counter(each.tasks[0].subtopology for each in given_units) == {0: 2, 1: 2}


def units_in(log: Log, app: App, partitions: Mapping[str, int]) -> list[Unit]:
    topology = app.describe()
    counts = {
        sub.id: max((partitions[node.operator.reads.name] for node in sub.sources if node.operator.reads), default=3)
        for sub in topology.subtopologies
    }
    widths = {cut.id: 2 for sub in topology.subtopologies for cut in sub.repartitions_read}
    return units_of(topology, counts, partitions, widths)


def test_each_task_is_a_unit_with_its_part_of_repartitions() -> None:
    with Log.open("memory:") as log:
        assert units_in(log, click_app(log), {"clicks": 3}) == [
            *(Unit((TaskId(0, number),), (TopicPartition("clicks", number),)) for number in range(3)),
            *(Unit((TaskId(1, number),), (TopicPartition("counter-clicks-repartition", number),)) for number in (0, 1)),
            Unit((TaskId(1, 2),), ()),
        ]
        assert units_in(log, click_app(log, keyed=True), {"clicks": 2}) == [
            Unit((TaskId(0, number),), (TopicPartition("clicks", number),)) for number in range(2)
        ]


def test_partitions_that_are_read_together_go_together() -> None:
    with Log.open("memory:") as log:
        app = App("together", log=log)
        topics = [app.topic(name, key=str, value=int) for name in ("a", "b", "c")]
        app.stream(topics[:2]).to(app.topic("out", key=str, value=int))
        app.stream(topics[2]).to(app.topic("out2", key=str, value=int))
        assert [each.inputs for each in units_in(log, app, {"a": 2, "b": 3, "c": 1})] == [
            (TopicPartition("a", 0), TopicPartition("b", 0)),
            (TopicPartition("a", 1), TopicPartition("b", 1)),
            (TopicPartition("b", 2),),
            (TopicPartition("c", 0),),
        ]


def test_the_assignor_tells_programs_apart_and_leaves_out_what_is_gone() -> None:
    assign = assignor_of(UNITS, ["counts"])
    names = {
        getattr(each, "__qualname__", "")
        for each in (
            assign,
            assignor_of(UNITS, ["counts"]),
            assignor_of(UNITS, ["sums"]),
            assignor_of(UNITS[1:], ["counts"]),
        )
    }
    assert len(names) == 3
    said = {"a": Claim().to_bytes(), "b": b""}
    dealt = assign(said, {"t0": 5, "t2": 3})
    assert sorted(each for given_partitions in dealt.values() for each in given_partitions) == [
        TopicPartition(topic, number) for topic, count in (("t0", 5), ("t2", 3)) for number in range(count)
    ]
