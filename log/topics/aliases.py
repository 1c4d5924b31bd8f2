"""Names of topics and groups that stand for others: how readers go from one topic to another in one step.

    counts -> counts.v2        who names `counts` reads and writes the topic `counts.v2`
    shop   -> shop.v2          who commits as group `shop` has the offsets of group `shop.v2`

1. All of it is one record (`AliasesRecord`), so whatever changes changes at once, or not at all.
2. A name stands for a topic itself, never for another alias; a topic whose name stands for another one is still there,
   and found under whatever other name was given to it.
3. A name may stand for a topic that is not there (yet, or any more): then there is none of that name, and to create it
   creates what it stands for. So an earlier topic of the name never comes to light by itself.
4. A switch remembers what its names stood for, and is taken back as a whole, as long as no later one has its names, and
   until what they stood for is dropped.

Pure functions. Not here: the offsets that readers go on from (`switching`), what is served (`catalog`).
"""

from collections.abc import Container, Mapping

import msgspec
from msgspec.structs import replace

from tailrace.log.errors import InvalidError


class Switch(msgspec.Struct, frozen=True):
    """Names that were made to stand for others in one step, and what they had stood for: "" for nothing."""

    name: str
    topics: dict[str, str]
    groups: dict[str, str]
    dropped: bool = False
    """Whether what they had stood for is deleted, or about to be."""


class AliasesRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="aliases"):
    """All names of topics and groups that stand for others, and the switches that brought them, oldest first."""

    topics: dict[str, str] = {}
    groups: dict[str, str] = {}
    switches: list[Switch] = []


def without(now: AliasesRecord, topic: str, known: Container[str], *, internal: bool) -> AliasesRecord:
    """The aliases when a topic is gone; `known` are those that are left.

    Names that hide an earlier topic stay what they are; so do those of an app's own topics, which it makes anew.
    """
    if topic not in now.topics.values() or internal:
        return now
    return replace(
        now, topics={name: behind for name, behind in now.topics.items() if behind != topic or name in known}
    )


def switched(
    now: AliasesRecord, name: str, topics: Mapping[str, str], groups: Mapping[str, str], known: Mapping[str, bool]
) -> AliasesRecord:
    """The aliases after a switch; `known` are the topics themselves, and whether each is internal.

    Raises:
        InvalidError: there is a switch of that name, or a topic that is not there, but for an internal one's name.
    """
    if any(each.name == name for each in now.switches):
        raise InvalidError(f"the switch {name!r} is in force already: switch back first")
    # What a name stands for now is found by names of today, so that a switch can follow another.
    wanted = {each: now.topics.get(behind, behind) for each, behind in topics.items()}
    missing = sorted(
        behind for each, behind in wanted.items() if behind not in known and not known.get(now.topics.get(each, each))
    )
    if missing:
        raise InvalidError(f"the switch {name!r} would lead to {missing[0]!r}, and there is no such topic")
    before = Switch(
        name,
        {each: now.topics.get(each, each if each in known else "") for each in wanted},
        {each: now.groups.get(each, each) for each in groups},
    )
    return AliasesRecord(
        {each: behind for each, behind in {**now.topics, **wanted}.items() if each != behind},
        {each: behind for each, behind in {**now.groups, **groups}.items() if each != behind},
        [*now.switches, before],
    )


def switched_back(now: AliasesRecord, name: str, known: Mapping[str, bool]) -> AliasesRecord:
    """The aliases after a switch was taken back.

    Raises:
        InvalidError: there is none of the name, a later one has its names, or a topic of before was deleted.
    """
    found = _named(now, name, "take back")
    if found.dropped:
        raise InvalidError(f"the switch {name!r} cannot be taken back: what was there before was dropped")
    for later in now.switches[now.switches.index(found) + 1 :]:
        if later.topics.keys() & found.topics.keys() or later.groups.keys() & found.groups.keys():
            raise InvalidError(
                f"the switch {later.name!r} came after {name!r} and has the same names: take it back first"
            )
    gone = sorted(each for each in found.topics.values() if each and each not in known)
    if gone:
        raise InvalidError(f"the switch {name!r} cannot be taken back: the topic {gone[0]!r} of before was deleted")
    topics = {**now.topics, **found.topics}
    groups = {**now.groups, **found.groups}
    return AliasesRecord(
        {each: behind for each, behind in topics.items() if behind not in {each, ""}},
        {each: behind for each, behind in groups.items() if each != behind},
        [each for each in now.switches if each is not found],
    )


def dropped(now: AliasesRecord, name: str) -> AliasesRecord:
    """The aliases when what a switch's names stood for before may be deleted.

    Raises:
        InvalidError: there is no switch of the name.
    """
    found = _named(now, name, "drop")
    return replace(now, switches=[replace(each, dropped=True) if each is found else each for each in now.switches])


def replaced(now: AliasesRecord, name: str) -> tuple[list[str], list[str]]:
    """The topics and groups that the names of a switch stood for, and that nobody needs any more.

    Needed is what a name stands for now, or what another switch would lead back to; the names that the switch gave to
    what was there before do not count.
    """
    found = _named(now, name, "drop")
    others = [each for each in now.switches if each is not found and not each.dropped]
    topics = {behind for each, behind in now.topics.items() if found.topics.get(each) != ""}
    topics |= {before for each in others for before in each.topics.values()}
    groups = {*now.groups.values(), *(before for each in others for before in each.groups.values())}
    return (
        sorted({before for before in found.topics.values() if before} - topics),
        sorted({before for each, before in found.groups.items() if each in now.groups} - groups),
    )


def _named(now: AliasesRecord, name: str, what: str) -> Switch:
    found = next((each for each in now.switches if each.name == name), None)
    if found is None:
        raise InvalidError(f"there is no switch {name!r} in force, so nothing to {what}")
    return found
