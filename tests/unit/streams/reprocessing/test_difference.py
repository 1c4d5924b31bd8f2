"""Two topics compared by key, against a dictionary of each."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.disk import MemoryDisk, disk_full
from tailrace.log.errors import DiskFullError
from tailrace.streams.program.topic import Topic
from tailrace.streams.reprocessing.difference import Difference, Range, Sample, difference
from tailrace.streams.values.place import Place
from tailrace.tests.support.disk import FaultyDisk

ALL = Range(None, None)


def compared(
    old: Any, new: Any, *, value: Any = Any, partitions: tuple[int, int] = (1, 1), within: Range = ALL, **options: Any
) -> Difference:
    """What differs between two topics of these records (key, value, time)."""
    declared = Topic[Any, Any]("old", key=str, value=value, place=Place("here", 1))
    with Log.open("memory:") as log:
        for name, records, count in (("old", old, partitions[0]), ("new", new, partitions[1])):
            log.create_topic(name, partitions=count)
            with log.producer(batch_bytes=64) as producer:
                for key, what, time_ms in records:
                    producer.send(
                        name,
                        None if what is None else declared.value_codec.encode(what),
                        key=None if key is None else key.encode(),
                        timestamp_ms=time_ms,
                    )
        given: dict[str, Any] = {"tolerance": 0.0, "sequences": False, "samples": 20, **options}
        return difference(log, "old", "new", declared, within=within, **given)


KEYS = st.sampled_from([f"k{number}" for number in range(12)])
ROWS = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 9)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    old=ROWS,
    new=ROWS,
    partitions=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bytes_max=st.sampled_from([1, 2_000, 1 << 20]),
)
def test_it_is_what_two_dictionaries_say(old: Any, new: Any, partitions: tuple[int, int], bytes_max: int) -> None:
    found = compared(old, new, partitions=partitions, bytes_max=bytes_max)
    before, after = ({key: value for key, value, _ in rows} for rows in (old, new))
    before = {key: value for key, value in before.items() if value is not None}
    after = {key: value for key, value in after.items() if value is not None}
    both = before.keys() & after.keys()
    assert found[:4] == (
        sum(before[key] == after[key] for key in both),
        sum(before[key] != after[key] for key in both),
        len(before.keys() - both),
        len(after.keys() - both),
    )
    assert sorted(found.samples, key=str) == sorted(
        [
            *(Sample("changed", key, before[key], after[key]) for key in both if before[key] != after[key]),
            *(Sample("missing", key, before[key], None) for key in before.keys() - both),
            *(Sample("new", key, None, after[key]) for key in after.keys() - both),
        ],
        key=str,
    )


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "same"),
    [
        (1.0, 1.0 + 1e-9, 0.0, False),
        (1.0, 1.0 + 1e-9, 1e-6, True),
        (1_000_000.0, 1_000_000.5, 1e-6, True),
        (1_000_000, 1_000_002, 1e-6, False),
        ({"a": [1.0, "x"]}, {"a": [1.05, "x"]}, 0.1, True),
        ({"a": [1.0, "x"]}, {"a": [1.05, "y"]}, 0.1, False),
        ({"a": 1}, {"b": 1}, 9.0, False),
        ([1], [1, 2], 9.0, False),
        (True, 1, 9.0, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0.0, True),
        ("1", "2", 9.0, False),
    ],
)
def test_tolerance(one: Any, other: Any, tolerance: float, same: bool) -> None:
    found = compared([("k", one, 0)], [("k", other, 0)], tolerance=tolerance)
    assert (found.same, found.changed) == ((1, 0) if same else (0, 1))


def test_sequences() -> None:
    old, new = [("a", 1, 0), ("a", 2, 0), ("b", 1, 0)], [("a", 2, 0), ("b", 1, 0)]
    assert compared(old, new)[:4] == (2, 0, 0, 0)
    assert compared(old, new, sequences=True) == Difference(1, 1, 0, 0, [Sample("changed", "a", [1, 2], 2)])
    assert compared([("a", None, 0)], [("a", 1, 0), ("a", None, 1)], sequences=True)[:4] == (0, 0, 0, 1)


@settings(max_examples=50, deadline=None)
@given(
    old=st.lists(st.integers(0, 5), max_size=30),
    new=st.lists(st.integers(0, 5), max_size=30),
    bytes_max=st.sampled_from([1, 1_000, 1 << 20]),
    sequences=st.booleans(),
)
def test_without_keys_there_are_as_many_of_each_value(
    old: list[int], new: list[int], bytes_max: int, sequences: bool
) -> None:
    rows = [[(None, value, 0) for value in side] for side in (old, new)]
    found = compared(*rows, partitions=(1, 3), bytes_max=bytes_max, sequences=sequences)
    before, after = Counter(old), Counter(new)
    same, gone, come = before & after, before - after, after - before
    assert found[:4] == (same.total(), 0, gone.total(), come.total())
    assert sorted(found.samples, key=str) == sorted(
        [*(Sample("missing", None, value, None) for value in gone), *(Sample("new", None, None, v) for v in come)],
        key=str,
    )


@settings(max_examples=50, deadline=None)
@given(
    old=ROWS,
    new=ROWS,
    bytes_max=st.sampled_from([1, 2_000, 1 << 20]),
)
def test_sequences_are_what_two_dictionaries_of_lists_say(old: Any, new: Any, bytes_max: int) -> None:
    found = compared(old, new, sequences=True, bytes_max=bytes_max)
    sides: list[dict[str, list[Any]]] = [{}, {}]
    for side, rows in zip(sides, (old, new), strict=True):
        for key, value, _ in rows:
            side.setdefault(key, []).append(value)
    before, after = ({key: values for key, values in side.items() if values != [None]} for side in sides)
    both = before.keys() & after.keys()
    same = sum(before[key] == after[key] for key in both)
    assert found[:4] == (same, len(both) - same, len(before.keys() - both), len(after.keys() - both))


def test_more_keys_than_memory_are_parted_again_and_again() -> None:
    old = [(f"k{number}", number, 0) for number in range(600)]
    new = [(f"k{number}", number + (number % 100 == 7), 0) for number in range(50, 650)]
    disk = MemoryDisk()
    found = compared(old, new, bytes_max=400, disk=disk, directory="/there", samples=3)
    assert found[:4] == (545, 5, 50, 50)
    assert [each.key for each in found.samples] == sorted(each.key for each in found.samples)
    assert disk.list("/there") == [], "the scratch file has no name"


def test_without_room_for_the_scratch_file() -> None:
    old = [(f"k{number}", number, 0) for number in range(600)]
    disk = FaultyDisk()
    disk.fail("append", disk_full("the scratch file"), path=".compare-")
    with pytest.raises(DiskFullError, match="no room on the disk for the scratch file"):
        compared(old, old, bytes_max=400, disk=disk, directory="/there")


def test_only_a_range_of_times() -> None:
    old = [("a", 1, 5), ("a", 2, 15), ("b", 1, 25)]
    assert compared(old, [("a", 2, 15)], within=Range(10, 20))[:4] == (1, 0, 0, 0)
    assert compared(old, [("a", 1, 5)], within=Range(None, 10))[:4] == (1, 0, 0, 0)


def test_bytes_that_cannot_be_read_are_shown_as_they_are() -> None:
    declared = Topic[Any, Any]("old", key=str, value=int, place=Place("here", 1))
    with Log.open("memory:") as log:
        for name, value in (("old", b"12345678"), ("new", b"x")):
            log.create_topic(name)
            with log.producer() as producer:
                producer.send(name, value, key=b"k")
        found = difference(log, "old", "new", declared, tolerance=1.0, sequences=False, samples=1, within=ALL)
    assert found.changed == 1
    assert found.samples[0].after == b"x"


def test_a_table_for_a_person() -> None:
    found = compared([("a", 1, 0), ("b", 2, 0)], [("a", 3, 0), ("c", 4, 0)], samples=2)
    assert str(found).splitlines() == [
        "0 same, 1 changed, 1 missing, 1 new",
        "         key  before  after",
        "changed  a    1       3",
        "missing  b    2       -",
    ]
    assert str(compared([("a", 1, 0)], [("a", 1, 0)])) == "1 same, 0 changed, 0 missing, 0 new"


def test_a_table_is_never_wider_than_a_page() -> None:
    """Of long values it has the part in which they begin to differ, and of what is whole on one side some."""
    many = [("a", number, number) for number in range(200)]
    other = [("a", number + (number == 150), number) for number in range(200)]
    found = compared([*many, ("b" * 50, 1, 0)], [*other, ("c", 2, 0), ("c", 3, 0)], sequences=True)
    assert str(found).splitlines() == [
        "0 same, 1 changed, 1 missing, 1 new",
        f"         {'key':30}  {'before':38}  after",
        f"changed  {'a':30}  …48, 149, 150, 151, 152, 153, 154, 15…  …48, 149, 151, 151, 152, 153, 154, 15…",
        f"missing  {'b' * 29}…  {1:<38}  -",
        f"new      {'c':30}  {'-':38}  [2, 3]",
    ]
    assert (len(found.samples[0].before), len(found.samples[1].key)) == (200, 50), "in the samples all is there"


@given(st.text("ab\n", max_size=90), st.text("ab\n", max_size=90))
@settings(max_examples=100, deadline=None)
def test_what_differs_is_in_the_table(before: str, after: str) -> None:
    """Whatever is long: the first character that differs is shown, in no more than 120 columns."""
    lines = str(Difference(0, 1, 0, 0, [Sample("changed", "k", before, after)])).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 120
    if before != after:
        column = lines[1].index("after")
        assert lines[2][14:column].rstrip() != lines[2][column:]


def test_a_tolerance_below_0() -> None:
    with pytest.raises(ValueError, match="below 0"):
        compared([], [], tolerance=-1)
