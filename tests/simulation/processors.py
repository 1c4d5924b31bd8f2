"""Programs of processors with stores of their own, which are called as event time, or the clock, goes on."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from tailrace.log.record import Record
from tailrace.streams.app import App
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.program.store import Store
from tailrace.tests.simulation.program import Emit, Given, Program, Results, clicks_of, comes_to, write
from tailrace.tests.support.programs import Click
from tailrace.windows.duration import seconds
from tailrace.windows.tumbling import tumbling

HELD_MS: Final = 7_000
SIZE_MS: Final = 2_000
BACK_MS: Final = 6_000


class _Hold(Processor[str, Click, str, str]):
    """Sends each record when event time is so far past it."""

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        self.held: Store[str, Click] = ctx.store("held")
        ctx.schedule(seconds(1), self.look, clock="stream")

    def process(self, record: Record[str, Click]) -> None:
        self.held.put(f"{record.value.ts:015} {record.value.user}", record.value)

    def look(self, now_ms: int) -> None:
        for key, click in self.held.range("", f"{now_ms - HELD_MS:015} ~"):
            self.ctx.forward(click.product, click.user)
            self.held.delete(key)


def _held(*, repartitioned: bool) -> Callable[[App, Emit], None]:
    def build(app: App, _: Emit) -> None:
        clicks = clicks_of(app)
        if repartitioned:
            clicks = clicks.repartition(name="again", partitions=2)
        held = app.store("held", key=str, value=Click)
        write(app, clicks.process(_Hold, stores=[held]))

    return build


class _Count(Processor[str, Click, str, str]):
    """Tells of each record how many there were of its product in the windows before, its own included."""

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        self.counts: Store[str, int] = ctx.store("counts")

    def process(self, record: Record[str, Click]) -> None:
        self.counts.put(record.key, (self.counts.get(record.key) or 0) + 1)
        now_ms = record.timestamp_ms
        seen = sum(count for _, count in self.counts.fetch(record.key, now_ms - BACK_MS, now_ms))
        self.ctx.forward(f"{record.value.user} {record.value.product}", str(seen))


def _counted(app: App, _: Emit) -> None:
    counts = app.store("counts", key=str, value=int, window=tumbling(seconds(2), grace=seconds(20)))
    write(app, clicks_of(app).process(_Count, stores=[counts]))


class _Tell(Processor[str, Click, str, str]):
    """Tells of the products that were counted since, every now and then by the clock."""

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        self.totals: Store[str, int] = ctx.store("totals")
        self.changed: Store[str, int] = ctx.store("changed")
        ctx.schedule(seconds(5), self.tell, clock="wall")

    def process(self, record: Record[str, Click]) -> None:
        total = (self.totals.get(record.key) or 0) + 1
        self.totals.put(record.key, total)
        self.changed.put(record.key, total)

    def tell(self, _: int) -> None:
        for product, total in list(self.changed.all()):
            self.ctx.forward(product, str(total))
            self.changed.delete(product)


def _told(app: App, _: Emit) -> None:
    totals = app.store("totals", key=str, value=int)
    changed = app.store("changed", key=str, value=int, kind="memory")
    write(app, clicks_of(app).process(_Tell, stores=[totals, changed]))


# ------------------------------------------------------------ what they come to


def _each(given: Given) -> Results:
    return Counter((click.product, click.user) for click in given.left)


def _before_each(given: Given) -> Results:
    found, counts = Results(), defaultdict[str, Counter[int]](Counter)
    for click in given.left:
        windows = counts[click.product]
        windows[click.ts - click.ts % SIZE_MS] += 1
        seen = sum(count for start, count in windows.items() if click.ts - BACK_MS <= start <= click.ts)
        found[f"{click.user} {click.product}", str(seen)] += 1
    return found


def _totals(given: Given) -> Results:
    counts = Counter(click.product for click in given.left)
    return Counter((product, str(count)) for product, count in counts.items())


PROGRAMS: Final = [
    Program("held by a processor", _held(repartitioned=False), comes_to(_each), emits=("close",)),
    Program("repartitioned, held by a processor", _held(repartitioned=True), comes_to(_each), emits=("close",)),
    Program("windows of a processor", _counted, comes_to(_before_each, adds_up=True), emits=("close",)),
    Program("told by the clock", _told, comes_to(_totals, adds_up=True), emits=("update",)),
]
