"""The running apps of one name on a log: numbers, and that all of them are one program.

1. Each has a number, the lowest that is free.
2. What would not share its work with those that run is refused before anything is made in the log.

Only what decides who runs what is compared: what each part reads and keeps, what connects the parts, and the guarantee
(beside one that commits without transactions no other has it). Two that write to different topics are members of one
group: so a program can be exchanged for another while it runs. Members of other processes are known to the group alone,
which refuses an assignor with another name (units). Not here: membership (member).
"""

from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.topology import SubTopology, Topology

_lock = Lock()
_running: WeakKeyDictionary[Log, dict[str, dict[int, "Program"]]] = WeakKeyDictionary()


class Part(NamedTuple):
    """What one kind of task is made of."""

    topics: tuple[str, ...]
    repartitions: tuple[str, ...]
    stores: tuple[str, ...]


class Program(NamedTuple):
    """What all running apps of a name must have alike."""

    guarantee: str
    parts: tuple[Part, ...]
    place: str
    """Where it begins, in the user's file; not compared."""

    @property
    def topics(self) -> set[str]:
        """What it reads."""
        return {topic for part in self.parts for topic in part.topics}

    @property
    def stores(self) -> set[str]:
        """What it keeps."""
        return {store for part in self.parts for store in part.stores}

    def differs(self, other: "Program") -> str | None:
        """How another that runs is not this one, in words; None: it is."""
        if other.guarantee != self.guarantee:
            return f"has guarantee={other.guarantee!r}, and this one {self.guarantee!r}"
        for what, theirs, mine in (("reads", other.topics, self.topics), ("keeps", other.stores, self.stores)):
            if theirs != mine:
                return f"{what} {_list(theirs)}, and this one {_list(mine)}"
        if other.parts != self.parts:
            return "has the same topics and stores in other tasks: joins, groupings or repartitions differ"
        return None


def program_of(topology: Topology, options: AppOptions) -> Program:
    """What is compared of a program."""
    place = next((str(node.place) for node in topology.nodes), "an empty program")
    return Program(options.guarantee, tuple(map(_part, topology.subtopologies)), place)


def _part(sub: SubTopology) -> Part:
    topics = [node.operator.reads.name for node in sub.sources if node.operator.reads is not None]
    cuts = [cut.operator.repartition for cut in sub.repartitions_read if cut.operator.repartition is not None]
    return Part(tuple(sorted(topics)), tuple(sorted(map(str, cuts))), tuple(sorted(sub.stores)))


def _list(names: set[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"


@contextmanager
def numbered(log: Log, name: str, program: Program) -> Generator[int]:
    """The lowest number that no other running app of the name has.

    Raises:
        InvalidError: one that runs is another program, or the app's group has members that are none.
    """
    with _lock:
        others = _running.setdefault(log, {}).setdefault(name, {})
        for other in others.values():
            told = program.differs(other)
            if told is not None:
                raise InvalidError(
                    f"app {name!r} runs on this log already, as another program, which begins at {other.place} and "
                    f"{told}; this one begins at {program.place}: stop that one first, or give one another name"
                )
        if not others:
            _refuse_strangers(log, name)
        number = next(each for each in count() if each not in others)
        others[number] = program
    try:
        yield number
    finally:
        with _lock:
            del others[number]


def _refuse_strangers(log: Log, name: str) -> None:
    members = log.describe_group(name).members if name in log.groups() else ()
    if members:
        raise InvalidError(
            f"the group of app {name!r} has members that are no app ({', '.join(each.member for each in members)}): "
            "close these consumers, or give their group or the app another name"
        )
