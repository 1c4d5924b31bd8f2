"""The transaction protocol as a transcript: what a coordinator writes, in which order, and what is left by a crash.

Commands: `take A x [ms]` (a producer A takes the id x), `write A t-0`, `offsets A g`, `commit A`, `abort A`,
`pass MS` (time), `refuse marker|state|append|sync PLACE` (the next one there finds no room), `kill` (the process ends:
all that was written stays), `crash` (the machine stops: what was not synced goes), then a new coordinator opens.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tailrace.log.client import CommittedOffset
from tailrace.log.clock import ManualClock
from tailrace.log.errors import DiskFullError, TailraceError
from tailrace.log.partition.partition import Appended
from tailrace.log.partition.producers import OpenTransaction
from tailrace.log.record import TopicPartition
from tailrace.log.timers import Timers
from tailrace.log.topics.served import Topic
from tailrace.log.transactions.coordinator import Identity, TransactionCoordinator
from tailrace.log.transactions.records import decode_key, decode_value
from tailrace.tests.support.transcript import check

STATE = "state"
State = tuple[bytes, bytes | None]


class Topicless:
    """What a coordinator looks at in a topic."""

    def __init__(self, name: str) -> None:
        self.tps = self.places = [TopicPartition(name, number) for number in range(3)]


class Machine:
    """Places that tell what is done to them. `written` is all there is, `durable` what a crash leaves."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.written: dict[str, list[Any]] = {STATE: []}
        self.durable: dict[str, list[Any]] = {STATE: []}

    def _step(self, what: str, place: str) -> None:
        if (what, place) in self.refused:
            self.refused.remove((what, place))
            raise DiskFullError(f"no room to {what} in {place}")

    def append(self, topic: Topic, number: int, batch: bytearray) -> Appended:
        place = str(topic.tps[number])
        self._step("append", place)
        producer_id, epoch = batch
        self.written.setdefault(place, []).append((producer_id, epoch))
        self.told.append(f"{place}: records of {producer_id}/{epoch}")
        return Appended(0, 0, -1)

    def append_offsets(
        self,
        producer_id: int,
        producer_epoch: int,
        group: str,
        offsets: Mapping[TopicPartition, CommittedOffset],
        member: tuple[str, int] | None,
    ) -> None:
        self.written.setdefault("__consumer_offsets-0", []).append((producer_id, producer_epoch))
        self.told.append(f"offsets of {group}: {len(offsets)} by {producer_id}/{producer_epoch}")

    def append_state(self, key: bytes, value: bytes | None, *, sync: bool) -> None:
        self._step(STATE, decode_key(key) or "")
        self.written[STATE].append((key, value))
        name = decode_key(key)
        assert name is not None
        if value is None:
            self.told.append(f"{name}: forgotten")
            return
        found = decode_value(name, value)
        where = " ".join(str(each) for each in sorted(found.partitions))
        words = [f"{name}: {found.state.word} {found.producer_id}/{found.producer_epoch}", where]
        self.told.append(" ".join(each for each in words if each) + (", synced" if sync else ""))
        if sync:
            self.durable[STATE] = list(self.written[STATE])

    def append_marker(self, tp: TopicPartition, producer_id: int, producer_epoch: int, *, committed: bool) -> None:
        self._step("marker", str(tp))
        self.written.setdefault(str(tp), []).append((producer_id, producer_epoch, committed))
        self.told.append(f"{tp}: {'commit' if committed else 'abort'} {producer_id}/{producer_epoch}")

    def sync_partitions(self, partitions: Iterable[TopicPartition], read: Mapping[TopicPartition, int]) -> None:
        names = [str(each) for each in sorted(partitions)]
        ahead = [f"and {tp} before {offset}" for tp, offset in sorted(read.items())]
        if names or ahead:
            self.told.append(" ".join(["synced", *names, *ahead]))
        for name in names:
            self._step("sync", name)
            self.durable[name] = list(self.written.get(name, []))

    def open_transactions(self) -> dict[TopicPartition, list[OpenTransaction]]:
        found: dict[TopicPartition, list[OpenTransaction]] = {}
        for place, events in self.written.items():
            if place != STATE:
                left: dict[int, int] = {}
                for producer_id, epoch, *marker in events:
                    left[producer_id] = epoch
                    if marker:
                        del left[producer_id]
                topic, _, number = place.rpartition("-")
                tp = TopicPartition(topic, int(number))
                found[tp] = [OpenTransaction(each, epoch, 0, 0) for each, epoch in left.items()]
        return {tp: each for tp, each in found.items() if each}


class Protocol:
    """Runs the commands."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.clock = ManualClock(1_000)
        self.ids = itertools.count(7)
        self.producers: dict[str, Identity] = {}
        self.coordinator = self.opened()

    def opened(self) -> TransactionCoordinator:
        timers = Timers(self.clock, background=False)
        made = TransactionCoordinator(self.clock, timers, self.machine, lambda: next(self.ids))
        for key, value in self.machine.written[STATE]:
            made.load(key, value)
        made.recover(self.machine.open_transactions())
        return made

    def run(self, line: str) -> list[str]:
        """One command; what it did."""
        command, *words = line.split()
        self.machine.told = []
        try:
            getattr(self, command)(*words)
        except TailraceError as error:
            self.machine.told.append(f"{type(error).__name__}: {error}")
        return self.machine.told

    def take(self, name: str, transactional_id: str, timeout_ms: str = "60000") -> None:
        self.producers[name] = self.coordinator.take(transactional_id, int(timeout_ms), name)

    def write(self, name: str, place: str) -> None:
        who = self.producers[name]
        topic, _, number = place.rpartition("-")
        anything: Any = Topicless(topic)
        batch: Any = who[1:]
        self.coordinator.append(who, anything, int(number), batch)

    def offsets(self, name: str, group: str) -> None:
        offsets = {TopicPartition("t", 0): CommittedOffset(1)}
        self.coordinator.append_offsets(self.producers[name], group, offsets)

    def commit(self, name: str) -> None:
        self.producers[name] = self.coordinator.end(self.producers[name], commit=True)

    def abort(self, name: str) -> None:
        self.producers[name] = self.coordinator.end(self.producers[name], commit=False)

    def refuse(self, what: str, place: str) -> None:
        self.machine.refused.append((what, place))

    def kill(self) -> None:
        self.coordinator = self.opened()

    def crash(self) -> None:
        self.machine.written = {place: list(each) for place, each in self.machine.durable.items()}
        self.coordinator = self.opened()

    def __getattr__(self, name: str) -> Any:
        if name == "pass":  # a word of Python's
            return self.elapse
        raise AttributeError(name)

    def elapse(self, milliseconds: str) -> None:
        self.clock.advance(int(milliseconds))
        ended = self.coordinator.end_overdue()
        if ended:
            self.machine.told.append(f"ended: {' '.join(ended)}")


@pytest.mark.parametrize("name", ["transaction.txt"])
def test_the_protocol_is_as_written(name: str) -> None:
    protocol: list[Protocol] = []

    def run(line: str) -> list[str]:
        if line == "log":
            protocol[:] = [Protocol()]
            return []
        return protocol[0].run(line)

    check(name, run)
