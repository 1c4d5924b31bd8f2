"""Exactly the truly late records are late: the engine against the rules of docs/design.md, "Time", in a few lines.

Whatever the batches, commits and cache: only the content of each source partition and where a run ended count. At the
end of a run all writers of a hop are idle, so stream time is the largest of their times from there on.
"""

from collections import Counter
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.partitioner import partition_of
from tailrace.streams import runner
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import Click, Sent, click_app, last, results, send

PRODUCTS = ["a", "b", "c"]
Runs = list[list[Sent]]


class Model:
    """What becomes of each click, from the rules alone."""

    def __init__(self, partitions: int, size_ms: int, grace_ms: int, *, keyed: bool) -> None:
        self.origins = [-1] * partitions
        self.floor_ms = -1  # stream time behind the hop when the last run ended
        self.size_ms, self.grace_ms, self.keyed = size_ms, grace_ms, keyed
        self.counts: Counter[tuple[int, str, int]] = Counter()  # by (task, key, start)
        self.late: Counter[tuple[str, int]] = Counter()

    def run(self, clicks: list[Sent]) -> None:
        for click, partition in clicks:
            assert partition is not None
            origin = self.origins[partition] = max(self.origins[partition], click.ts)
            start = click.ts - click.ts % self.size_ms
            key = click.user if self.keyed else click.product
            if start + self.size_ms + self.grace_ms <= max(origin, self.floor_ms):
                self.late[key, click.ts] += 1
            else:
                self.counts[partition if self.keyed else 0, key, start] += 1
        if not self.keyed:
            self.floor_ms = max(self.origins)

    def final(self) -> dict[str, int]:
        return {f"{key}@{start}": count for (_, key, start), count in self.counts.items()}

    def closed(self) -> dict[str, int]:
        def stream_time(task: int) -> int:
            return self.origins[task] if self.keyed else self.floor_ms

        ends = self.size_ms + self.grace_ms
        return {
            f"{key}@{start}": n for (task, key, start), n in self.counts.items() if start + ends <= stream_time(task)
        }


@st.composite
def programs(draw: st.DrawFn) -> tuple[int, bool, Runs]:
    partitions, keyed = draw(st.sampled_from([1, 2, 4])), draw(st.booleans())
    moves = st.tuples(st.sampled_from(PRODUCTS), st.integers(0, partitions - 1), st.integers(-30, 30))
    runs: Runs = []
    now_ms = 100
    for moved in draw(st.lists(st.lists(moves, max_size=12), min_size=1, max_size=4)):
        clicks: list[Sent] = []
        for product, chosen, move in moved:
            now_ms = max(now_ms + move, 0)
            partition = partition_of(product.encode(), partitions) if keyed else chosen
            clicks.append(Sent(Click(product, product if keyed else "u", now_ms), partition))
        runs.append(clicks)
    return partitions, keyed, runs


OPTIONS = st.fixed_dictionaries(
    {
        "cache_bytes": st.sampled_from([0, 800, 1 << 20]),
        "emit": st.sampled_from(["update", "close"]),
        "hops": st.sampled_from(["memory", "log"]),
    }
)


@settings(max_examples=100)
@given(
    program=programs(),
    grace_ms=st.sampled_from([0, 5, 20]),
    options=OPTIONS,
    batch=st.sampled_from([1, 2, 5, 100]),
    slice_=st.sampled_from([1, 3, 1_000]),
    dirty_max=st.sampled_from([1, 3, 5_000]),
)
def test_counts_late_records_and_finals_are_those_of_the_model(
    program: tuple[int, bool, Runs], grace_ms: int, options: dict[str, Any], batch: int, slice_: int, dirty_max: int
) -> None:
    partitions, keyed, runs = program
    model = Model(partitions, 10, grace_ms, keyed=keyed)
    late_counted = 0
    with (
        patch.object(runner, "_SLICE", slice_),
        patch.object(runner, "_DIRTY_MAX", dirty_max),
        Log.open("memory:", background=False) as log,
    ):
        log.create_topic("clicks", partitions=partitions)
        for clicks in runs:
            send(log, clicks, batch=batch)
            model.run(clicks)
            app = click_app(
                log,
                keyed=keyed,
                size_ms=10,
                grace_ms=grace_ms,
                commit_interval=timedelta(hours=1),
                **options,
            )
            late_counted += app.run(until="end").dropped.get("late", 0)
        late = Counter(((record.key or b"").decode(), record.timestamp_ms) for record in contents(log, "late"))
        assert late == model.late
        assert late_counted == model.late.total()
        if options["emit"] == "close":
            assert Counter(results(log)) == Counter(model.closed().items())
        else:
            assert last(log) == model.final()
