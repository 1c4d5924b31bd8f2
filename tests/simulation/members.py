"""Members of an app that come and go, are slow, fail and fall silent, while clocks jump and the disk does what it does.

Each has a number, and with it an identity and stores of its own. They run in one thread, a step at a time.

1. What was given to them comes to what a run without a fault comes to (programs): nothing is dropped, every window is
   closed, and where results are final each is there once.
2. Who is expelled had been silent for as long as a member may be; whose transaction is aborted had it open for as long
   as it may take. Nobody else has its identity, so nobody is fenced.
3. A store never holds what was not committed, and when its task begins it has all that was (recovered).
4. With guarantee="at_least_once" the same is there where nothing went wrong, and else at least that (program).
"""

# Apps are driven by hand: what their own loop calls is called here, one by one.
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

from msgspec.json import encode

from tailrace.log.clock import Clock
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import ExpelledError, FencedError, OverdueError, RetriableError
from tailrace.log.partitioner import partition_of
from tailrace.log.record import TopicPartition
from tailrace.state.store import Backend
from tailrace.streams import start
from tailrace.streams.chain.positions import UnsettledError
from tailrace.streams.planning.units import Unit
from tailrace.streams.running.patience import PASSING, Passing
from tailrace.streams.task import TaskId
from tailrace.tests.simulation import programs
from tailrace.tests.simulation.actors import Actor, Plain
from tailrace.tests.simulation.model import Sent, Violation
from tailrace.tests.simulation.program import END, LAST, LATE, LEFT, RESULTS, RIGHT, Emit, Program
from tailrace.tests.simulation.programs import APP
from tailrace.tests.simulation.recovered import check_stores
from tailrace.tests.simulation.stores import CrashingBackend
from tailrace.tests.simulation.world import ANY_TIME, Topics, World
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.programs import Click

SLOTS: Final = 3
SILENT_S: Final = 300
# A difference of two clock readings may be a little less than what went by.
_ROUNDED_S: Final = 1e-6
OPEN_S: Final = 10
ROUNDS: Final = 60
QUIET_ROUNDS: Final = 4

PARTITIONS: Final = 3
_SMALL: Final = {"segment.bytes": 2_000, **ANY_TIME}
INPUTS: Final[Topics] = dict.fromkeys((LEFT, RIGHT), (PARTITIONS, _SMALL))
OUTPUTS: Final[Topics] = dict.fromkeys((RESULTS, LATE), (2, _SMALL))
FAILING: Final = ["left-", "right-", "results-", "changelog-", "repartition-", "__", "checkpoint"]


class Feeder(Plain):
    """Sends clicks, by product, up to 5 s out of order: 3 s each, and 2 s between partitions; some fall silent."""

    def __init__(self, world: World, program: Program) -> None:
        super().__init__(world, "feeder", list(program.inputs))
        self._by_clock = program.idle
        self._skews_ms = [world.random.randrange(2_000) for _ in range(PARTITIONS)]
        self._silent: set[int] = set()

    def there(self) -> set[bytes]:
        """What can be read by now, whether or not it is on disk."""
        return {each.value or b"" for topic in self._topics for each in programs.rows_of(self.world.log, topic)}

    def step(self) -> None:
        """Sends some, and waits until they are there: what lingers would come out of order by more."""
        for _ in range(self.world.random.randint(1, 8)):
            self._put()
        super().drain()

    def _put(self) -> None:
        chance, world = self.world.random, self.world
        if world.chance(0.05):
            self._silent = {number for number in range(PARTITIONS) if world.chance(0.4)}
            self.say(f"has nothing for partitions {sorted(self._silent)}")
        product = chance.choice("pqrstu") + chance.choice("abc")
        partition = partition_of(product.encode(), PARTITIONS)
        if partition not in self._silent:
            at_ms = self.now_ms() - chance.randrange(3_000) - self._skews_ms[partition]
            self._click(chance.choice(self._topics), product, at_ms)

    def now_ms(self) -> int:
        """The time of what is sent in order."""
        passed_ms = round(self.world.clock.monotonic() * 1_000) if self._by_clock else 0
        return self.world.feed_ms() + passed_ms

    def _click(self, topic: str, product: str, at_ms: int) -> None:
        deed = self.world.model.begin(self.name, plain=True)
        click = Click(product, self.world.model.value(deed).decode(), at_ms)
        tp = TopicPartition(topic, partition_of(product.encode(), PARTITIONS))
        self.hand_over(deed, Sent(tp, product.encode(), encode(click)), at_ms)

    def close_windows(self, at_ms: int) -> None:
        """Sends one into each partition that closes every window before."""
        for partition in range(PARTITIONS):
            names = (f"{LAST}{number}{END}" for number in count())
            product = next(name for name in names if partition_of(name.encode(), PARTITIONS) == partition)
            for topic in self._topics:
                self._click(topic, product, at_ms)
        super().drain()


class _Stores(start.Stores):
    """Those of one number, which a crash leaves something of."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(None, clock)
        self.backends: dict[TaskId, CrashingBackend] = {}

    def open(self, task: TaskId) -> Backend:
        """See `Stores`."""
        backend = self._opened[task] = self.backends.setdefault(task, CrashingBackend())
        return backend

    def names(self) -> list[str]:
        """See `Stores`."""
        return [str(task) for task in self.backends]

    def delete(self, unit: Unit) -> None:
        """See `Stores`."""
        for task in unit.tasks:
            self._opened.pop(task, None)
            self.backends.pop(task, None)


class _Slot:
    """One number: who has it now, if anybody, and what it left."""

    def __init__(self, number: int, clock: Clock) -> None:
        self.number = number
        self.stores = _Stores(clock)
        self.life: Driven | None = None
        self.heard = 0.0
        """When it looked at its group last."""
        self.began: float | None = None
        """When its transaction may have been begun."""
        self.silent_until = 0
        """The step until which it does nothing."""
        self.busy = False
        """While it is within a commit."""
        self.interrupted = False
        """Others have worked in the middle of its commit."""

    def __str__(self) -> str:
        return f"member {self.number}"


class Members(Actor):
    """See the head of this file."""

    def __init__(self, world: World, feeder: Feeder, program: Program) -> None:
        super().__init__(world, "members")
        chance = world.random
        self._feeder = feeder
        self._read: set[bytes] = set()
        """Of at least once: what was to be read when one of them ran."""
        self._program = program
        self._emit: Emit = chance.choice(self._program.emits)
        self._options: dict[str, Any] = {
            "hops": chance.choice(["memory", "log"]),
            "cache_bytes": chance.choice([0, 1 << 20]),
            "guarantee": program.guarantees[-1] if world.chance(0.2) else "exactly_once",
            "max_skew_ms": chance.choice([None, None, 10_000, 60_000]),
            "threads": 2 if world.chance(0.1) else 1,
        }
        self._entries_max = chance.choice([0, 12, 4_000])
        self._went_wrong = False
        """Whether anything was done that was not committed."""
        self._slots = [_Slot(number, world.clock) for number in range(SLOTS)]
        told = ", ".join(f"{name}={value}" for name, value in self._options.items())
        world.say(f"{program.name}, emit={self._emit}, {told}, caches of {self._entries_max}")

    @property
    def _repeats(self) -> bool:
        """Whether results may be there more than once."""
        return self._went_wrong and self._options["guarantee"] == "at_least_once"

    # ---- steps

    def step(self) -> None:
        """One of them does something, or something befalls it."""
        world = self.world
        slot = world.random.choices(self._slots, [4, 2, 1])[0]
        if slot.silent_until > world.step or slot.busy:
            return
        if slot.life is None:
            self._start(slot)
            return
        life, choice = slot.life, world.random.random()
        if choice < 0.5:
            self._run(slot, life)
        elif choice < 0.78:
            self._commit(slot, life)
        elif choice < 0.83:
            self._send_ahead(slot, life)
        elif choice < 0.88:
            self._say(slot, "goes back to its last commit")
            self._again(slot, life, RetriableError("as the simulation has it"))
        elif choice < 0.93:
            slot.silent_until = world.step + world.random.randint(5, 40)
            self._say(slot, f"falls silent until step {slot.silent_until}")
        else:
            self._end(slot, life)

    def _say(self, slot: _Slot, what: str) -> None:
        self.world.say(f"{slot} {what}")

    def _start(self, slot: _Slot) -> None:
        self._say(slot, "starts")
        world = self.world
        app = programs.app_of(self._program, world.log, self._emit, **self._options)
        slot.heard, slot.began = world.clock.monotonic(), None

        def begin() -> None:
            slot.life = Driven(
                app,
                world.log,
                world.clock,
                number=slot.number,
                stores=slot.stores,
                cache_entries=self._entries_max,
            )
            check_stores(world.log, slot.life.plan.tasks, begun=True)

        with world.excusing(f"{slot}: start"):
            try:
                begin()
            except PASSING as error:
                self._excuse(slot, error)
                self._say(slot, f"does not start: {error}")

    def _run(self, slot: _Slot, life: Driven) -> None:
        self._say(slot, "looks at its group, and runs what there is")
        life.runner._slices = [self.world.random.choice([1, 5, 1_000])] * self._options["threads"]

        def run() -> None:
            # Within, it may commit what it hands over.
            self._may_begin(slot)
            looked, plan = self.world.clock.monotonic(), life.plan
            if self._options["guarantee"] == "at_least_once":
                self._read |= self._feeder.there()
            life.run()
            slot.heard = looked
            if life.plan is not plan:
                self._say(slot, f"now has its repartitions {'in memory' if life.plan.in_memory else 'in the log'}")
                check_stores(self.world.log, life.plan.tasks, begun=True)

        self._attempt(slot, life, run)

    def _commit(self, slot: _Slot, life: Driven) -> None:
        self._say(slot, "commits")

        def commit() -> None:
            self._may_begin(slot)
            life.commit()
            slot.began = None

        with self._slowly(slot, life):
            self._attempt(slot, life, commit)

    def _overtake(self, slot: _Slot) -> None:
        """One is so slow that the others go on without it."""
        self._say(slot, "stands still, and the others go on without it")
        self.world.clock.advance(SILENT_S * 1_000)
        for other in self._slots * 2:
            if other.life is not None and not other.busy and other.silent_until <= self.world.step:
                self._run(other, other.life)
        self._say(slot, "goes on")

    @contextmanager
    def _slowly(self, slot: _Slot, life: Driven) -> Generator[None]:
        """Now and then the others work while it is half-way through a commit."""

        def between() -> None:
            choice = self.world.random.random()
            slot.interrupted |= choice < 0.15
            if choice < 0.1:
                self.world.meanwhile()
            elif choice < 0.15:
                self._overtake(slot)

        slot.busy, slot.interrupted, life.between = True, False, between
        try:
            yield
        finally:
            slot.busy, life.between = False, lambda: None

    def _send_ahead(self, slot: _Slot, life: Driven) -> None:
        """As where one batch makes more than can wait for the commit."""
        self._say(slot, "sends ahead what it has")

        def send() -> None:
            self._may_begin(slot)
            for outputs in life.plan.outputs:
                outputs.send()
            life.plan.producer.flush()

        self._attempt(slot, life, send)

    def _may_begin(self, slot: _Slot) -> None:
        if slot.began is None:
            slot.began = self.world.clock.monotonic()

    # ---- what goes wrong

    def _attempt(self, slot: _Slot, life: Driven, step: Callable[[], None]) -> None:
        try:
            step()
        except PASSING as error:
            self._excuse(slot, error)
            self._say(slot, f"goes back to its last commit: {type(error).__name__}: {error}")
            self._again(slot, life, error)
        except FencedError as error:
            raise Violation(f"{slot} is fenced, and nobody has its id: {error}") from error
        except Exception as error:
            if not self.world.excused(error):
                raise
            self._say(slot, f"ends: {type(error).__name__}: {error}")
            self._fail(slot, life, error)

    def _excuse(self, slot: _Slot, error: Passing) -> None:
        """Raises Violation unless something explains the error."""
        now = self.world.clock.monotonic()
        if isinstance(error, ExpelledError):
            # Or the group has gone on to another generation, after it was asked which.
            fair = now - slot.heard >= SILENT_S - _ROUNDED_S or slot.interrupted
        elif isinstance(error, OverdueError):
            fair = slot.began is not None and now - slot.began >= OPEN_S - _ROUNDED_S
        else:
            fair = self.world.excused(error) or isinstance(error, UnsettledError)
        if not fair:
            raise Violation(f"{slot} raised {type(error).__name__}: {error}") from error

    def _again(self, slot: _Slot, life: Driven, error: Passing) -> None:
        """As a run does it: again and again, until it stands."""
        slot.began, self._went_wrong = None, True
        for _ in range(3):
            try:
                looked = self.world.clock.monotonic()
                life.again(error)
                slot.heard = looked
                check_stores(self.world.log, life.plan.tasks, begun=True)
            except PASSING as another:
                self._excuse(slot, another)
                error = another
            except Exception as another:
                if not self.world.excused(another):
                    raise
                self._say(slot, f"ends: {type(another).__name__}: {another}")
                self._fail(slot, life, another)
                return
            else:
                return
        self._say(slot, f"gives up: {error}")
        self._fail(slot, life, error)

    def _fail(self, slot: _Slot, life: Driven, error: BaseException) -> None:
        """A run ends with an error: it closes what it has, and leaves."""
        slot.life, self._went_wrong = None, True
        with self.world.excusing(f"{slot}: end"):
            life.end(error)

    def _end(self, slot: _Slot, life: Driven) -> None:
        if self.world.chance(0.5):
            self._commit(slot, life)
            if slot.life is not life:
                return
        else:
            self._went_wrong = True
        self._say(slot, "ends")
        slot.life = None
        with self.world.excusing(f"{slot}: end"):
            try:
                life.end()
            except PASSING as error:
                self._excuse(slot, error)

    def died(self) -> None:
        """See `Actor.died`."""
        self._went_wrong = True
        for slot in self._slots:
            slot.life, slot.silent_until, slot.busy = None, 0, False
            for backend in slot.stores.backends.values():
                backend.crash(self.world.random)

    # ---- the end

    def drain(self) -> None:
        """Runs all there is, closes every window, and compares."""
        self._run_all()
        if self._program.idle:
            self._close_by_waiting()
        else:
            self._close_by_records()
        self.check()
        if self._repeats and not self._feeder.there().issuperset(self._read):
            self.world.say("what a lost record has brought about may be there: results are not judged")
            return
        wrong = programs.judge(
            self._program, self.world.log, self._emit, self.world.last_click_ms, repeats=self._repeats
        )
        if wrong is not None:
            raise Violation(f"{self._program.name}: {wrong}; the app stands at {self.world.log.committed(APP)}")

    def _close_by_records(self) -> None:
        for hours in (0, 1):  # what the first brings out of one step, the second brings out of the next
            self._feeder.close_windows(self.world.last_click_ms + hours * 3_600_000)
            self._run_all()

    def _close_by_waiting(self) -> None:
        self.world.last_click_ms = self._feeder.now_ms() + 25 * 3_600_000
        self.world.clock.advance(100_000)
        self._run_all()

    def _run_all(self) -> None:
        """Runs until all is read, and for some rounds, as many as a program has steps, nothing has come of it."""
        log = self.world.log
        assert isinstance(log, EmbeddedLog)
        before, quiet = -1, 0
        for _ in range(ROUNDS):
            self.world.clock.advance(OPEN_S * 1_000)
            log.end_overdue_transactions()
            for slot in self._slots:
                slot.silent_until = 0
                if slot.life is None and slot.number == 0:
                    self._start(slot)
                if slot.life is not None:
                    self._run(slot, slot.life)
                if slot.life is not None:
                    self._commit(slot, slot.life)
            results = sum(len(programs.rows_of(log, topic)) for topic in (RESULTS, LATE))
            quiet = quiet + 1 if results == before and self._all_read() else 0
            if quiet == QUIET_ROUNDS:
                return
            before = results
        waits = [cause for slot in self._slots if slot.life is not None for cause in slot.life.waits_for]
        raise Violation(f"{self.name} do not come to an end: they wait for {waits}, and stand at {log.committed(APP)}")

    def _all_read(self) -> bool:
        log = self.world.log
        committed = log.committed(APP)
        shared = [topic for topic in self._program.inputs if topic not in self._program.read_whole]
        return all(committed.get(tp, 0) >= end for topic in shared for tp, end in log.offsets(topic).items())

    def check(self) -> None:
        """Nothing is late, and stores are what they are to be."""
        late = programs.rows_of(self.world.log, LATE)
        if late and not self._repeats:  # rows of a repartition that are there again come after their time
            raise Violation(f"{len(late)} records are late, and none is")
        for slot in self._slots:
            tasks = slot.life.plan.tasks if slot.life is not None else []
            check_stores(self.world.log, tasks)
            for task in tasks:
                if task.context.dropped and not self._repeats:
                    raise Violation(f"{slot} has dropped {task.context.dropped}")
