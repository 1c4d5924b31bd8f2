"""Members whose functions take long, and processes that stand still: who is expelled, who waits, what is aborted.

As in Kafka, a member may be busy for five minutes (max.poll.interval.ms) before the others go on without it. Time is
set by hand, and the functions of one member let the others work while it is busy.
"""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import ManualClock
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import ExpelledError, FencedError, OverdueError
from tailrace.log.record import TopicPartition
from tailrace.streams import start
from tailrace.streams.app import App
from tailrace.streams.chain import outputs, positions
from tailrace.streams.chain.positions import BrokenOffError, ChangelogReader
from tailrace.streams.running import patience
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.engine import contents, feed

PARTITIONS = 4


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)


@pytest.fixture
def log(clock: ManualClock) -> Iterator[Log]:
    with Log.open("memory:", clock=clock, background=False) as opened:
        opened.create_topic("words", partitions=PARTITIONS)
        yield opened


def counting(log: Log, look: Callable[[str], str] = lambda word: word) -> App:
    """Counts words by key, and writes each count."""
    app = App("counter", log=log)
    words = app.stream(app.topic("words", key=str, value=str)).map(look)
    words.group_by_key().count(store="counts").changes().to(app.topic("out", key=str, value=int))
    return app


def put(log: Log, word: str, partitions: range = range(PARTITIONS)) -> None:
    for partition in partitions:
        feed(log, "words", [(f"k{partition}", word, 0)], partition)


def counts(log: Log) -> dict[str, int]:
    return {(row.key or b"").decode(): int.from_bytes(row.value or b"", "big") for row in contents(log, "out")}


def shares(log: Log) -> list[int]:
    return [len(each.partitions) for each in log.describe_group("counter").members]


class Busy:
    """A function that is busy for so many seconds with the first "slow"; each second the others do something."""

    def __init__(self, clock: ManualClock, busy_s: int) -> None:
        self._clock = clock
        self._busy_s = busy_s
        self.others: Callable[[int], None] = lambda _second: None

    def __call__(self, word: str) -> str:
        if word == "slow" and self._busy_s:
            busy_s, self._busy_s = self._busy_s, 0
            for second in range(busy_s):
                self._clock.advance(1_000)
                self.others(second)
        return word


def test_one_that_is_busy_for_a_while_is_not_expelled_and_the_others_go_on(log: Log, clock: ManualClock) -> None:
    """Who joins meanwhile waits for its share no longer than until the busy one has looked."""
    busy = Busy(clock, 30)
    one, two = Driven(counting(log, busy), log, clock), Driven(counting(log), log, clock, number=1)
    one.run()
    two.run()
    assert shares(log) == [2, 2]
    put(log, "slow")
    joined: list[Driven] = []

    def others(second: int) -> None:
        if second == 10:
            joined.append(Driven(counting(log), log, clock, number=2))
        if second > 10:
            put(log, "quick", range(2, PARTITIONS))
        for each in (two, *joined):
            each.run()
            each.commit()
        assert shares(log)[:2] == [2, 2], "nobody loses anything while it is awaited"

    busy.others = others
    one.run()
    one.commit()
    assert counts(log) == {"k0": 1, "k1": 1, "k2": 20, "k3": 20}
    for each in (one, two, *joined, one, two, *joined):
        each.run()
    assert sorted(shares(log)) == [1, 1, 2]
    put(log, "quick")
    for each in (one, two, *joined):
        each.run()
        each.commit()
    assert counts(log) == {"k0": 2, "k1": 2, "k2": 21, "k3": 21}


def test_one_that_is_busy_for_too_long_is_expelled_and_joins_anew(log: Log, clock: ManualClock) -> None:
    busy = Busy(clock, 310)
    one, two = Driven(counting(log, busy), log, clock), Driven(counting(log), log, clock, number=1)
    one.run()
    two.run()
    put(log, "slow")
    seen: list[list[int]] = []

    def others(_second: int) -> None:
        two.run()
        two.commit()
        seen.append(shares(log))

    busy.others = others
    with pytest.raises(ExpelledError, match="its tasks run elsewhere") as raised:
        one.run()
    assert seen[298:301] == [[2, 2], [4], [4]]
    one.again(raised.value)
    for each in (one, two, one):
        each.run()
        each.commit()
    assert counts(log) == {f"k{number}": 1 for number in range(PARTITIONS)}, "each word once, by whoever"
    assert sorted(shares(log)) == [2, 2]


def test_a_process_that_stood_still_loses_nothing(log: Log, clock: ManualClock) -> None:
    """Stopped and continued after ten minutes: the first to look expels the others, who come back."""
    all_three = [Driven(counting(log), log, clock, number=n) for n in range(3)]
    for each in all_three:
        each.run()
    put(log, "a")
    for each in all_three:
        each.run()
    clock.advance(600_000)
    for _ in range(3):
        for each in all_three:
            try:
                each.run()
                each.commit()
            except ExpelledError as error:
                each.again(error)
    put(log, "b")
    for each in all_three:
        each.run()
        each.commit()
    assert counts(log) == {f"k{number}": 2 for number in range(PARTITIONS)}
    assert sorted(shares(log)) == [1, 1, 2]


# ------------------------------------------------------------ transactions that take too long


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result is written as soon as it is there: a transaction is open from the first one on."""
    monkeypatch.setattr(outputs, "_ROWS_MAX", 1)
    monkeypatch.setattr(start, "_BATCH_BYTES", 1)
    monkeypatch.setattr(patience, "FIRST_S", 0.0)


def passing_on(log: Log, look: Callable[[str], str]) -> App:
    app = App("counter", log=log)
    app.stream(app.topic("words", key=str, value=str)).map(look).to(app.topic("out", key=str, value=str))
    return app


def overdue(log: Log, clock: ManualClock, seconds: int) -> None:
    """So long nothing happens but what the log does by itself."""
    assert isinstance(log, EmbeddedLog)
    clock.advance(seconds * 1_000)
    log.end_overdue_transactions()


@pytest.mark.usefixtures("at_once")
def test_a_transaction_that_took_too_long_is_begun_anew(
    log: Log, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It had sent something, and was stopped for more than ten seconds: from there on it may take five minutes."""
    put(log, "a")
    stops: list[int] = []

    def look(word: str) -> str:
        stops.append(0)
        if len(stops) in {3, 7}:
            overdue(log, clock, 11 if len(stops) == 3 else 200)
        return word

    app = passing_on(log, look)
    app.clock = clock
    with caplog.at_level(logging.WARNING):
        app.run(until="end")
    assert "app counter goes back to its last commit" in caplog.text
    assert "aborted after its time-out of 10000 ms" in caplog.text
    assert len(stops) == 4 + 4 or len(stops) == 3 + 4, "and that once"
    assert [row.value for row in contents(log, "out")] == [b"a"] * PARTITIONS


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("also_overdue", [False, True])
def test_one_whose_identity_was_taken_ends(log: Log, clock: ManualClock, also_overdue: bool) -> None:
    put(log, "a")
    taken: list[object] = []

    def look(word: str) -> str:
        if word == "a" and not taken and contents_uncommitted(log):
            if also_overdue:
                overdue(log, clock, 11)
            taken.append(log.producer(transactional_id="counter-memory"))
        return word

    app = passing_on(log, look)
    app.clock = clock
    with pytest.raises(FencedError, match="taken over by another producer") as raised:
        app.run(until="end")
    assert not isinstance(raised.value, OverdueError)
    assert taken


def contents_uncommitted(log: Log) -> int:
    return sum(log.offsets("out", isolation="read_uncommitted").values())


# ------------------------------------------------------------ what a task waits for


@pytest.mark.usefixtures("at_once")
def test_a_task_waits_until_what_ran_it_before_is_settled(log: Log, clock: ManualClock) -> None:
    """Its member died in the middle of a commit: others wait for the time-out, and name who is waited for."""
    put(log, "a")
    one = Driven(counting(log), log, clock, number=0)
    one.run()
    producer = one.plan.producer
    producer.commit_offsets("counter", {TopicPartition("words", 0): CommittedOffset(1)}, member=one.member.who())
    one.leave()
    two = Driven(counting(log), log, clock, number=1)
    two.run()
    two.commit()
    assert [task.id.partition for task in two.plan.tasks] == [1, 2, 3]
    (cause,) = two.waits_for
    assert "task 0_0 of app 'counter' waits to begin" in cause
    assert "words-0 are in a transaction that is open" in cause
    overdue(log, clock, 11)
    two.run()
    two.commit()
    assert two.waits_for == []
    assert counts(log) == {f"k{number}": 1 for number in range(PARTITIONS)}
    producer.close()


def test_it_names_what_is_open_in_its_changelog(log: Log, clock: ManualClock) -> None:
    one = Driven(counting(log), log, clock, number=0)
    one.run()
    one.commit()
    one.end()
    stranger = log.producer(transactional_id="stranger")
    stranger.begin()
    stranger.send("counter-counts-changelog", b"\0" * 8, key=b"k1", partition=1)
    stranger.flush()
    clock.advance(2_000)
    two = Driven(counting(log), log, clock, number=1)
    two.run()
    (cause,) = two.waits_for
    assert "counter-counts-changelog-1 has records of a transaction (stranger for 2000 ms)" in cause
    stranger.abort()
    two.run()
    assert two.waits_for == []


class SetLater(threading.Event):
    """Is set when it is asked for the third time."""

    asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 2


@pytest.mark.parametrize(
    ("opened", "told"),
    [
        (True, "readers come to 2, as a transaction is open there (x for 0 ms)"),
        (False, "it ends at 2 now, as somebody has cut it; stop the app, and run `tailrace log verify`"),
    ],
)
def test_a_restore_that_stalls_says_why(
    opened: bool, told: str, log: Log, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "_STALLED_S", 0.0)
    log.create_topic("changes")
    feed(log, "changes", [("k", "v", 0)] * 2)
    if opened:
        producer = log.producer(transactional_id="x")
        producer.begin()
        producer.send("changes", b"v", key=b"k")
        producer.flush()
    reader = ChangelogReader(log, TopicPartition("changes", 0), SetLater())
    assert reader.end_offset == 2
    reader.end_offset += 1  # as it may have been when it was looked at
    found: list[int] = []
    with pytest.raises(BrokenOffError, match="broken off at offset 2"):
        found += [len(batch.records) for batch in reader.batches(0)]
    assert [record.getMessage() for record in caplog.records] == [
        f"the restore from changes-0 stands at offset 2 of 3: {told}"
    ]
