"""Thirty days that were worked on as they came, replayed at full rate: in order of event time, and to the same results.

Two topics, of three partitions and of two, are read together, each out of order by up to ten minutes; what they hold is
counted by another key, in windows that are sent once, when they close. Watched are the order in which records are taken
over all partitions, and how many windows are open at a time.
"""

import random
from collections import Counter, defaultdict
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import Struct
from msgspec.json import encode

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import BEGIN_MS, chunks, row
from tailrace.windows.tumbling import tumbling

MINUTE_MS = 60_000
MONTH_MS = 30 * 24 * 60 * MINUTE_MS
DISORDER_MS = 10 * MINUTE_MS
GRACE_MS = 60 * MINUTE_MS
TOPICS = {"clicks": 3, "orders": 2}
PRODUCTS = 20


class Event(Struct):
    """`source` is where it is sent to."""

    product: str
    source: str
    ts: int


class Sent(NamedTuple):
    event: Event
    to: TopicPartition


def month(count: int) -> list[Sent]:
    """In the order in which they arrive."""
    chance = random.Random(count)
    places = [TopicPartition(topic, number) for topic, partitions in TOPICS.items() for number in range(partitions)]
    made: list[tuple[float, Sent]] = []
    for number in range(count):
        to = places[int(chance.random() ** 2 * len(places))]  # some have many more than others
        ts = BEGIN_MS + number * MONTH_MS // count
        event = Event(f"p{chance.randrange(PRODUCTS)}", str(to), ts)
        made.append((ts + chance.uniform(0, DISORDER_MS), Sent(event, to)))
    return [each for _, each in sorted(made, key=lambda pair: pair[0])]


class Watch:
    """Follows what is taken, of what there is."""

    def __init__(self, events: list[Sent]) -> None:
        self._times: dict[str, list[int]] = defaultdict(list)
        for event, to in events:
            self._times[str(to)].append(event.ts)
        self._taken = dict.fromkeys(self._times, 0)
        self._heads = {source: times[0] for source, times in self._times.items()}
        self.gap_ms = max(after - before for times in self._times.values() for before, after in pairwise(times))
        """The longest time for which nothing comes to a partition: its stream time stands still for so long."""
        self.apart_ms = 0
        """How far a record that was taken was ahead of the next one of the slowest partition."""
        self.open: set[str] = set()
        self.open_max = self.starts_max = 0
        self._size_ms = 0

    def windows(self, size_ms: int) -> None:
        self._size_ms = size_ms

    def take(self, event: Event) -> bool:
        source, times = event.source, self._times[event.source]
        assert event.ts == times[self._taken[source]], "each partition in its order"
        self._taken[source] += 1
        if self._taken[source] < len(times):
            self._heads[source] = times[self._taken[source]]
        else:
            del self._heads[source]
        if self._heads:
            self.apart_ms = max(self.apart_ms, event.ts - min(self._heads.values()))
        key = f"{event.product}@{event.ts - event.ts % self._size_ms}"
        if key not in self.open:
            self.open.add(key)
            self.open_max = max(self.open_max, len(self.open))
            self.starts_max = max(self.starts_max, len({each.partition("@")[2] for each in self.open}))
        return True

    def close(self, key: str) -> None:
        self.open.discard(key)


def program(log: Log, size_ms: int, watch: Watch | None = None) -> App:
    """Events of each product and window, of both topics; each count once."""
    app = App("monthly", log=log)
    topics = [app.topic(name, key=str, value=Event, timestamp=lambda event: event.ts) for name in TOPICS]
    events = app.stream(topics)
    if watch is not None:
        watch.windows(size_ms)
        events = events.filter(watch.take)
    window = tumbling(timedelta(milliseconds=size_ms), grace=timedelta(milliseconds=GRACE_MS))
    windowed = events.group_by(lambda event: event.product).windowed_by(window)
    results = windowed.count(store="events", emit="close").changes().map_kv(row)
    if watch is not None:
        results = results.peek_kv(lambda key, _count: watch.close(key))
    results.to(app.topic("counts", key=str, value=int))
    windowed.late.to(app.topic("late", key=str, value=Event))
    return app


def send(log: Log, events: list[Sent]) -> None:
    with log.producer(linger_ms=0, batch_bytes=1 << 18) as producer:
        for event, to in events:
            producer.send(to.topic, encode(event), key=b"k", timestamp_ms=event.ts, partition=to.partition)


def replay_month(path: Path, count: int, size_ms: int, sessions: int) -> None:
    events = month(count)
    with Log.open(str(path)) as log:
        for name, partitions in TOPICS.items():
            log.create_topic(name, partitions=partitions)
        dropped: Counter[str] = Counter()
        for part in chunks(events, sessions):
            send(log, list(part))
            dropped.update(program(log, size_ms).run(until="end").dropped)
        watch = Watch(events)
        with program(log, size_ms, watch).replay(into="v2") as job:
            summary = job.run()
            found = job.diff(job.topic("counts"), sequences=True)
        assert (summary.records_in, summary.dropped, dropped) == (count, {}, {})
        live, again = (
            Counter((each.key, each.value, each.timestamp_ms) for each in contents(log, topic))
            for topic in ("counts", "counts.v2")
        )
        assert live == again, "record for record"
        assert max(live.values()) == 1, "each window once"
        plain = Counter(f"{event.product}@{event.ts - event.ts % size_ms}" for event, _ in events)
        end_ms = max(event.ts for event, _ in events)
        closed = {key: n for key, n in plain.items() if int(key.partition("@")[2]) + size_ms + GRACE_MS <= end_ms}
        assert {(key or b"").decode(): int.from_bytes(value or b"", "big") for key, value, _ in live} == closed
        assert (found.same, found.changed, found.missing, found.new) == (len(closed), 0, 0, 0)
        assert not any([*log.offsets("late").values(), *log.offsets("late.v2").values()])
    windows = MONTH_MS // size_ms
    skew_ms = GRACE_MS  # the default of max_skew where a window waits for longer than a minute
    at_once = 2 + (GRACE_MS + skew_ms + watch.gap_ms) // size_ms
    assert watch.apart_ms <= skew_ms
    assert watch.starts_max <= at_once < windows // 10
    assert watch.open_max <= at_once * PRODUCTS


def test_a_month_is_replayed_in_the_order_of_its_time(tmp_path: Path) -> None:
    replay_month(tmp_path / "log", 5_000, 6 * 60 * MINUTE_MS, 6)


@pytest.mark.kills
@pytest.mark.timeout(1_800)
def test_a_month_of_millions(tmp_path: Path) -> None:
    replay_month(tmp_path / "log", 3_000_000, 30 * MINUTE_MS, 60)
