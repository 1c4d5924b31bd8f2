"""Programs of windows and sessions, of one stream or of two together, final by themselves or held back until they are;
by records alone, or the clock.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from tailrace.streams.app import App
from tailrace.streams.operators.suppress import until_window_closes
from tailrace.streams.surface.cogrouped import Cogrouped
from tailrace.streams.surface.grouped import Grouped
from tailrace.tests.simulation.program import (
    GRACE,
    LEFT,
    RIGHT,
    Emit,
    Found,
    Given,
    Judge,
    Program,
    Results,
    clicks_of,
    comes_to,
    group,
    write,
    write_late,
    write_windows,
)
from tailrace.tests.support.programs import Click
from tailrace.windows.duration import seconds
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling

SIZE_MS: Final = 10_000
GAP_MS: Final = 3_000
SLIDE_MS: Final = 2_000
RIGHT_COUNTS: Final = 1_000


def _by_product(app: App) -> Grouped[str, Click]:
    return clicks_of(app).group_by_key()


def _by_group(app: App) -> Grouped[str, Click]:
    return clicks_of(app).group_by(group)


def _windows(grouped: Callable[[App], Grouped[str, Click]], **options: Any) -> Callable[[App, Emit], None]:
    def build(app: App, emit: Emit) -> None:
        windowed = grouped(app).windowed_by(tumbling(seconds(10), grace=GRACE), **options)
        write_windows(app, windowed.count(store="counted", emit=emit))
        write_late(app, windowed.late)

    return build


def _sessions(app: App, emit: Emit) -> None:
    windowed = _by_product(app).windowed_by(session(seconds(3), grace=GRACE))
    write_windows(app, windowed.count(store="counted", emit=emit))
    write_late(app, windowed.late)


def _held_windows(app: App, _: Emit) -> None:
    windowed = _by_group(app).windowed_by(tumbling(seconds(10), grace=GRACE))
    write_windows(app, windowed.count(store="counted").suppress(until_window_closes(), store="held"))
    write_late(app, windowed.late)


def _held_sessions(app: App, _: Emit) -> None:
    windowed = _by_group(app).windowed_by(session(seconds(3), grace=GRACE))
    write_windows(app, windowed.count(store="counted").suppress(until_window_closes(), store="held"))
    write_late(app, windowed.late)


def _two_hops(app: App, emit: Emit) -> None:
    windowed = _by_group(app).windowed_by(tumbling(seconds(10), grace=GRACE))
    first = windowed.count(store="first", emit="close")
    of_all = first.changes().map_kv(lambda window, count: (_half(window.key), count), key=str, value=int)
    second = of_all.group_by_key().windowed_by(tumbling(seconds(40)))
    write_windows(app, second.reduce(lambda so_far, count: so_far + count, store="second", emit=emit))
    write_late(app, windowed.late)
    write_late(app, second.late)


def _half(letter: str) -> str:
    return f"all {letter < 'b'}"


def _slides(grouped: Callable[[App], Grouped[str, Click]]) -> Callable[[App, Emit], None]:
    def build(app: App, emit: Emit) -> None:
        windowed = grouped(app).windowed_by(sliding(seconds(2), grace=GRACE))
        write_windows(app, windowed.count(store="counted", emit=emit))
        write_late(app, windowed.late)

    return build


def _cogrouped(app: App, key: Callable[[Click], str] | None) -> Cogrouped[str, int]:
    """Of two streams: a left record counts one, a right one RIGHT_COUNTS."""

    def add(so_far: int, _: Click) -> int:
        return so_far + 1

    def add_right(so_far: int, _: Click) -> int:
        return so_far + RIGHT_COUNTS

    left, right = (
        clicks_of(app, topic).group_by_key(name=topic) if key is None else clicks_of(app, topic).group_by(key)
        for topic in (LEFT, RIGHT)
    )
    return left.cogroup(add).cogroup(right, add_right)


def _together(key: Callable[[Click], str] | None) -> Callable[[App, Emit], None]:
    def build(app: App, _: Emit) -> None:
        counts = _cogrouped(app, key).aggregate(int, store="counted")
        write(app, counts.changes().map(str, value=str))

    return build


def _together_in_windows(key: Callable[[Click], str] | None) -> Callable[[App, Emit], None]:
    def build(app: App, emit: Emit) -> None:
        windowed = _cogrouped(app, key).windowed_by(tumbling(seconds(10), grace=GRACE))
        write_windows(app, windowed.aggregate(int, store="counted", emit=emit))
        write_late(app, windowed.late)

    return build


# ------------------------------------------------------------ what they come to


def _counted(key: Callable[[Click], str], size_ms: int = SIZE_MS) -> Callable[[Given], Results]:
    def wanted(given: Given) -> Results:
        counts = Counter((key(click), click.ts - click.ts % size_ms) for click in given.left)
        return Counter((f"{of}@{start}-{start + size_ms}", str(count)) for (of, start), count in counts.items())

    return wanted


def _slid(key: Callable[[Click], str]) -> Callable[[Given], Results]:
    """A window ends at each record, and one begins behind each; those that have none are not there."""

    def wanted(given: Given) -> Results:
        found = Results()
        for of in {key(click) for click in given.left}:
            times = [click.ts for click in given.left if key(click) == of]
            for start in {time - SLIDE_MS for time in times} | {time + 1 for time in times}:
                count = sum(start <= time <= start + SLIDE_MS for time in times)
                if count:
                    found[f"{of}@{start}-{start + SLIDE_MS}", str(count)] += 1
        return found

    return wanted


def _added(key: Callable[[Click], str], size_ms: int | None = None) -> Callable[[Given], Results]:
    """Of both sides together; by window, or for good."""

    def wanted(given: Given) -> Results:
        sums = Counter[str]()
        for clicks, each in ((given.left, 1), (given.right, RIGHT_COUNTS)):
            for click in clicks:
                start = 0 if size_ms is None else click.ts - click.ts % size_ms
                sums[key(click) if size_ms is None else f"{key(click)}@{start}-{start + size_ms}"] += each
        return Counter((of, str(total)) for of, total in sums.items())

    return wanted


def _in_sessions(key: Callable[[Click], str]) -> Callable[[Given], Results]:
    def wanted(given: Given) -> Results:
        found = Results()
        for of in {key(click) for click in given.left}:
            for times in _sessions_of(sorted(click.ts for click in given.left if key(click) == of)):
                found[f"{of}@{times[0]}-{times[-1]}", str(len(times))] += 1
        return found

    return wanted


def _whole_sessions(key: Callable[[Click], str]) -> Judge:
    """The judge of sessions: of one that was let go of, records that come again may make a part once more."""
    wanted = _in_sessions(key)
    whole = comes_to(wanted, adds_up=True)

    def judge(given: Given, found: Found) -> str | None:
        if not found.repeats:
            return whole(given, found)
        spans = [_span(window) for window, _ in wanted(given)]
        rows = [row for row in found.rows if not any(_is_part(_span(row[0]), of) for of in spans)]
        return whole(given, found._replace(rows=rows))

    return judge


def _span(window: str) -> tuple[str, int, int]:
    key, _, span = window.partition("@")
    start, _, end = span.partition("-")
    return key, int(start), int(end)


def _is_part(span: tuple[str, int, int], of: tuple[str, int, int]) -> bool:
    return span != of and span[0] == of[0] and of[1] <= span[1] and span[2] <= of[2]


def _sessions_of(times: Sequence[int]) -> list[Sequence[int]]:
    begins = [0, *(at for at, (one, next_one) in enumerate(pairwise(times), 1) if next_one - one > GAP_MS), len(times)]
    return [times[begin:end] for begin, end in pairwise(begins)]


def _product(click: Click) -> str:
    return click.product


_counts = comes_to(_counted(_product), adds_up=True)
_group_counts = comes_to(_counted(group), adds_up=True)
_both: Final[dict[str, Any]] = {"inputs": (LEFT, RIGHT)}
_idle: Final[dict[str, Any]] = {"emits": ("close",), "idle": True}

PROGRAMS: Final = [
    Program("windows", _windows(_by_product), _counts),
    Program("re-keyed windows", _windows(_by_group), _group_counts),
    Program("sessions", _sessions, _whole_sessions(_product), emits=("close",)),
    Program("suppressed windows", _held_windows, _group_counts, emits=("close",)),
    Program("suppressed sessions", _held_sessions, _whole_sessions(group), emits=("close",)),
    Program(
        "two hops",
        _two_hops,
        comes_to(_counted(lambda click: _half(group(click)), 4 * SIZE_MS), adds_up=True),
    ),
    Program("sliding windows", _slides(_by_product), comes_to(_slid(_product), adds_up=True)),
    Program("re-keyed sliding windows", _slides(_by_group), comes_to(_slid(group), adds_up=True)),
    Program("cogroup", _together(None), comes_to(_added(_product), adds_up=True), emits=("update",), **_both),
    Program("re-keyed cogroup", _together(group), comes_to(_added(group), adds_up=True), emits=("update",), **_both),
    Program(
        "cogroup in windows", _together_in_windows(None), comes_to(_added(_product, SIZE_MS), adds_up=True), **_both
    ),
    Program(
        "re-keyed cogroup in windows",
        _together_in_windows(group),
        comes_to(_added(group, SIZE_MS), adds_up=True),
        **_both,
    ),
    Program("idle windows", _windows(_by_product, idle_after=seconds(20)), _counts, **_idle),
    Program("idle re-keyed windows", _windows(_by_group, idle_after=seconds(20)), _group_counts, **_idle),
]
