"""Two windowed steps over random clicks: whatever partitions, commits, cache and restarts, the plain counts come out.

The clicks come in arrival order, no further out of order than the grace, and every run reads up to one moment of
arrival; so nothing is late anywhere, each final comes once, and the second step adds up exactly what the first sent.
"""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Literal
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.streams import runner
from tailrace.streams.app import App
from tailrace.tests.support.programs import Click, Sent, last, plain_count, results, row, send
from tailrace.windows.duration import milliseconds
from tailrace.windows.tumbling import tumbling
from tailrace.windows.windowed import Windowed

GRACE_MS = 20
FAR_MS = 5_000
Emit = Literal["update", "close"]


@st.composite
def clicks(draw: st.DrawFn) -> list[Click]:
    """In arrival order: sorted by time plus a delay of at most the grace."""
    arriving: list[tuple[int, Click]] = []
    now_ms = 0
    for product, step, delay in draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, 15), st.integers(0, GRACE_MS)), min_size=1, max_size=60
        )
    ):
        now_ms += step
        arriving.append((now_ms + delay, Click(product, "u", now_ms)))
    return [click for _, click in sorted(arriving, key=lambda each: each[0])]


def initial(window: Windowed[str], n: int) -> tuple[str, int]:
    return f"of {window.key}", n


def add(so_far: int, n: int) -> int:
    return so_far + n


def program(log: Log, *, hop: bool, emit: Emit, cache_bytes: int) -> App:
    app = App("app", log=log, cache_bytes=cache_bytes, commit_interval=timedelta(hours=1))
    topic = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
    grouped = app.stream(topic).group_by(lambda click: click.product)
    first = grouped.windowed_by(tumbling(milliseconds(10), grace=milliseconds(GRACE_MS))).count(
        store="first", emit="close"
    )
    first.changes().map_kv(row).to(app.topic("finals", key=str, value=int))
    sums = tumbling(milliseconds(40))
    if hop:
        second = first.changes().map_kv(initial).group_by_key().windowed_by(sums).reduce(add, store="second", emit=emit)
        second.changes().map_kv(row).to(app.topic("counts", key=str, value=int))
    else:
        kept = first.changes().group_by_key().windowed_by(sums).reduce(add, store="second", emit=emit)
        kept.changes().map_kv(lambda window, n: (f"{row(window.key, n)[0]}", n)).to(
            app.topic("counts", key=str, value=int)
        )
    return app


@settings(max_examples=80)
@given(
    given_clicks=clicks(),
    partitions=st.integers(1, 4),
    cuts=st.sets(st.integers(0, 60), max_size=3),
    hop=st.booleans(),
    emit=st.sampled_from(["update", "close"]),
    cache_bytes=st.sampled_from([0, 1_200, 1 << 20]),
    slice_=st.sampled_from([1, 4, 1_000]),
    dirty_max=st.sampled_from([1, 4, 5_000]),
    data=st.data(),
)
def test_two_steps_add_up(
    given_clicks: list[Click],
    partitions: int,
    cuts: set[int],
    hop: bool,
    emit: Emit,
    cache_bytes: int,
    slice_: int,
    dirty_max: int,
    data: st.DataObject,
) -> None:
    dealt = data.draw(st.lists(st.integers(0, partitions - 1), min_size=len(given_clicks), max_size=len(given_clicks)))
    sent = [Sent(click, partition) for click, partition in zip(given_clicks, dealt, strict=True)]
    ends = [[Sent(Click("end", "u", at), partition) for partition in range(partitions)] for at in (FAR_MS, 2 * FAR_MS)]
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    runs = [sent[begin:end] for begin, end in pairwise(edges)] + ends
    dropped: Counter[str] = Counter()
    with (
        patch.object(runner, "_SLICE", slice_),
        patch.object(runner, "_DIRTY_MAX", dirty_max),
        Log.open("memory:", background=False) as log,
    ):
        log.create_topic("clicks", partitions=partitions)
        for run in runs:
            send(log, run, batch=3)
            dropped.update(program(log, hop=hop, emit=emit, cache_bytes=cache_bytes).run(until="end").dropped)
        assert not dropped
        finals = plain_count(given_clicks, 10)
        assert early(Counter(results(log, "finals"))) == Counter(finals.items())
        found = Counter(results(log)) if emit == "close" else Counter(last(log).items())
        if hop:
            wanted = plain_count([Click(f"of {click.product}", "", click.ts) for click in given_clicks], 40)
            assert early(found) == Counter(wanted.items())
        else:
            assert early(found) == Counter(finals.items())


def early(found: Counter[tuple[str, int]]) -> Counter[tuple[str, int]]:
    return Counter({each: n for each, n in found.items() if int(each[0].split("@")[1]) < FAR_MS - 40})
