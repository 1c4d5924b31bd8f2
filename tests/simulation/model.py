"""What was promised so far, and whether the log keeps it.

A *deed* is what is seen whole or not at all: a transaction, or one plain record, or a commit of offsets. Its fate is
what its actor was told:

| fate      | what is seen of it by who reads what is committed                                      |
|-----------|----------------------------------------------------------------------------------------|
| open      | nothing                                                                                |
| unknown   | all or nothing, once the log is settled; what is seen then is its fate for good        |
| committed | all of it, each record once, where and with what it was sent                           |
| aborted   | nothing, ever                                                                          |
| loose     | acks=1: as committed, until the machine loses its power                                |

1. Every value is in one record only, so a record that is there twice, or that nobody sent, is told.
2. The offsets of a group are those of its last committed deed: offsets and records move together.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from tailrace.log.client import Log
from tailrace.log.record import Record, TopicPartition

Row = Record[bytes | None, bytes | None]


class Violation(AssertionError):  # noqa: N818 - it is a finding, not an error of the program
    """The log has broken a promise."""


class Fate(Enum):
    """See the head of this file."""

    OPEN = "open"
    UNKNOWN = "unknown"
    COMMITTED = "committed"
    ABORTED = "aborted"
    LOOSE = "loose"


@dataclass(eq=False)
class Sent:
    """A record of a deed. `offset`: where it was told to be, -1 where nobody said."""

    partition: TopicPartition
    key: bytes | None
    value: bytes
    offset: int = -1


@dataclass(eq=False)
class Deed:
    """See the head of this file."""

    number: int
    by: str
    fate: Fate = Fate.OPEN
    plain: bool = False
    sent: list[Sent] = field(default_factory=list[Sent])
    offsets: dict[tuple[str, TopicPartition], int] = field(default_factory=dict[tuple[str, TopicPartition], int])

    def __str__(self) -> str:
        return f"{self.fate.value} deed {self.number} of {self.by}"


class Bounds(NamedTuple):
    """What is known of the partitions: where they begin, where readers of committed records come to, the last offset
    of each key."""

    starts: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    last: Mapping[tuple[TopicPartition, bytes | None], int]


class Model:
    """All deeds, in the order in which they were begun.

    `topics`: where only those write that tell the model. `deleting`: those whose oldest records may go; `compacted`:
    those where a later record of the key takes the place.
    """

    def __init__(self, topics: set[str], *, deleting: set[str], compacted: set[str]) -> None:
        self._deeds: list[Deed] = []
        self._topics = sorted(topics)
        self._deleting = deleting
        self._compacted = compacted
        self.seen: dict[TopicPartition, list[Row]] = {}

    def begin(self, by: str, *, plain: bool = False) -> Deed:
        """The next deed; a plain one is in no transaction, and has no answer before it is sent."""
        deed = Deed(len(self._deeds), by, Fate.UNKNOWN if plain else Fate.OPEN, plain)
        self._deeds.append(deed)
        return deed

    def value(self, deed: Deed) -> bytes:
        """A value that no other record has."""
        return b"%d.%d" % (deed.number, len(deed.sent))

    def counts(self) -> dict[str, int]:
        """How many deeds of each fate there are."""
        found = [deed.fate for deed in self._deeds]
        return {fate.value: found.count(fate) for fate in Fate if fate in found}

    def power_lost(self) -> None:
        """Loose records may be gone from here on."""
        for deed in self._deeds:
            if deed.fate is Fate.LOOSE:
                deed.fate = Fate.UNKNOWN

    # ---- the check

    def check(self, log: Log, *, settled: bool) -> None:
        """Compares the log with what was promised; settled: nothing is open, nothing is under way.

        Raises:
            Violation: what was promised, and what is there.
        """
        self._read(log)
        found: dict[bytes, list[Row]] = defaultdict(list)
        for rows in self.seen.values():
            for row in rows:
                found[row.value or b""].append(row)
        starts = {tp: at for topic in self._topics for tp, at in log.offsets(topic, "earliest").items()}
        ends = {tp: at for topic in self._topics for tp, at in log.offsets(topic).items()}
        last = self._last_of_each_key()
        for deed in self._deeds:
            self._check_deed(deed, found, Bounds(starts, ends, last), settled=settled)
        nobodys = set(found) - {sent.value for deed in self._deeds for sent in deed.sent}
        if nobodys:
            raise Violation(f"nobody has sent {sorted(nobodys)[:5]}: {found[min(nobodys)]}")
        self._check_offsets(log, settled=settled)

    def _read(self, log: Log) -> None:
        self.seen = {}
        for topic in self._topics:
            for tp in log.offsets(topic):
                self.seen[tp] = read_committed(log, tp)

    def _check_deed(
        self,
        deed: Deed,
        found: Mapping[bytes, list[Row]],
        bounds: Bounds,
        *,
        settled: bool,
    ) -> None:
        there = [sent for sent in deed.sent if sent.value in found]
        for sent in there:
            self._check_row(deed, sent, found[sent.value])
        if deed.fate is Fate.UNKNOWN and settled and deed.sent:
            certain = [sent for sent in deed.sent if sent.partition.topic not in self._deleting | self._compacted]
            if certain:
                deed.fate = Fate.COMMITTED if certain[0] in there else Fate.ABORTED
        if deed.fate in {Fate.OPEN, Fate.ABORTED} and there:
            raise Violation(f"{deed} is seen: {found[there[0].value]}")
        if deed.fate in {Fate.COMMITTED, Fate.LOOSE}:
            for sent in deed.sent:
                waits = not settled and sent.offset >= bounds.ends[sent.partition]  # behind an open transaction
                if sent not in there and not waits and not self._may_be_gone(sent, bounds):
                    raise Violation(
                        f"{sent} of {deed} is lost; its partition begins at {bounds.starts[sent.partition]}"
                    )

    def _check_row(self, deed: Deed, sent: Sent, rows: list[Row]) -> None:
        row = rows[0]
        if len(rows) > 1:
            raise Violation(f"{sent} of {deed} is there {len(rows)} times: {rows}")
        if (row.topic, row.partition) != sent.partition or row.key != sent.key:
            raise Violation(f"{sent} of {deed} is another: {row}")
        if sent.offset >= 0 and row.offset != sent.offset and deed.fate is not Fate.UNKNOWN:
            raise Violation(f"{sent} of {deed} is elsewhere: {row}")
        sent.offset = row.offset

    def _last_of_each_key(self) -> dict[tuple[TopicPartition, bytes | None], int]:
        last: dict[tuple[TopicPartition, bytes | None], int] = {}
        for deed in self._deeds:
            for sent in deed.sent if deed.fate in {Fate.COMMITTED, Fate.UNKNOWN} else ():
                at = sent.partition, sent.key
                last[at] = max(last.get(at, -1), sent.offset)
        return last

    def _may_be_gone(self, sent: Sent, bounds: Bounds) -> bool:
        if sent.partition.topic in self._deleting:
            return sent.offset < bounds.starts[sent.partition]
        return sent.partition.topic in self._compacted and sent.offset < bounds.last[sent.partition, sent.key]

    def _check_offsets(self, log: Log, *, settled: bool) -> None:
        wanted: dict[tuple[str, TopicPartition], list[Deed]] = defaultdict(list)
        for deed in self._deeds:
            for at in deed.offsets:
                if deed.fate is Fate.COMMITTED:
                    wanted[at] = [deed]
                elif deed.fate is Fate.UNKNOWN:
                    wanted[at].append(deed)
        for (group, tp), deeds in wanted.items():
            now = log.committed(group).get(tp)
            allowed = [deed.offsets[group, tp] for deed in deeds]
            if now not in allowed and not (now is None and all(deed.fate is Fate.UNKNOWN for deed in deeds)):
                raise Violation(f"group {group} stands at {now} in {tp}, not at {allowed} ({deeds[-1]})")
            if settled and deeds[-1].fate is Fate.COMMITTED and now != allowed[-1]:
                raise Violation(f"group {group} stands at {now} in {tp}, not at {allowed[-1]} ({deeds[-1]})")


def read_committed(log: Log, tp: TopicPartition) -> list[Row]:
    """All that a reader of committed records sees of a partition."""
    rows: list[Row] = []
    with log.consumer() as consumer:
        consumer.assign([tp])
        consumer.seek_to_beginning()
        end = log.offsets(tp.topic)[tp]
        while consumer.position(tp) < end:
            before = consumer.position(tp)
            rows += consumer.poll()
            if consumer.position(tp) == before:
                raise Violation(f"a reader of {tp} stays at {before}, and the end is {end}")
    return rows
