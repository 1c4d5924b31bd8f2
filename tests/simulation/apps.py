"""The click count as a user of the log: clicks by user, counted by product and minute, killed and fenced at any step.

The app is planned, aborted and ended by what runs it in production (`start`), and driven by hand: run what there is,
commit, go back, die, and come back as a ghost beside its successor.

1. Every committed click below the committed offsets is in the results, or in "late", once ("at_least_once": or more
   often): results, offsets and clicks move together.
2. With emit="update" the counts of a window only grow, and none is written twice; with "close" there is one for each.
3. A store that was brought up from its checkpoint has the rows of one that is read from the changelog's beginning.
"""

# The app is driven by hand: what its own loop calls is called here, one by one.
# pyright: reportPrivateUsage=false

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from tailrace.log.clock import Clock
from tailrace.log.errors import FencedError, RetriableError
from tailrace.log.record import TopicPartition
from tailrace.state.changelog import WindowLayout
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import restore
from tailrace.state.store import Backend
from tailrace.streams import start
from tailrace.streams.app import App
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.streams.planning.plan import Plan
from tailrace.streams.program.options import Guarantee
from tailrace.streams.running.identity import Identity
from tailrace.streams.running.patience import Passing
from tailrace.streams.task import TaskId
from tailrace.tests.simulation.actors import Actor, Plain
from tailrace.tests.simulation.model import Row, Sent, Violation, read_committed
from tailrace.tests.simulation.stores import CrashingBackend
from tailrace.tests.simulation.world import CLICKS, World
from tailrace.tests.support.driven import Driven
from tailrace.tests.support.programs import Click, click_app, plain_count

GRACE_MS: Final = 5_000


class ClickCount(Actor):
    """See the head of this file."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "counter")
        chance = world.random
        self._emit: Literal["update", "close"] = chance.choice(["update", "close"])
        self._guarantee: Guarantee = "exactly_once" if chance.random() < 0.8 else "at_least_once"
        self._entries_max = chance.choice([0, 12, 4_000])  # of all stores together
        self._backends: dict[TaskId, CrashingBackend] = {}
        self._life: _Life | None = None
        self._ghosts: list[_Life] = []
        world.say(f"{self.name}: {self._guarantee}, emit={self._emit}, caches of {self._entries_max}")

    def step(self) -> None:
        """Runs, commits, or has something befall it."""
        world, life = self.world, self._life
        if life is None:
            self._start()
        elif self._ghosts and world.chance(0.2):
            self._haunt(self._ghosts.pop())
        else:
            choice = world.random.random()
            if choice < 0.45:
                self._run(life)
            elif choice < 0.85:
                self._commit(life)
            elif choice < 0.9:
                self.say("goes back to its last commit")
                self._again(life, RetriableError("as the simulation has it"))
            else:
                self._die(life)

    # ---- a life

    def _start(self) -> None:
        self.say("starts")
        with self.world.excusing(f"{self.name}: start"):
            life = _Life(self)
            self._life = life
            self._check_stores(life.plan)

    def backend(self, task: TaskId) -> CrashingBackend:
        """Where a task keeps its stores."""
        return self._backends.setdefault(task, CrashingBackend())

    def app(self) -> tuple[App, int]:
        """The program, and the entries of its caches."""
        app = click_app(
            self.world.log, emit=self._emit, grace_ms=GRACE_MS, guarantee=self._guarantee, cache_bytes=1 << 20
        )
        return app, self._entries_max

    def _run(self, life: "_Life") -> None:
        self.say("runs what there is")
        self._attempt(life, life.run)

    def _commit(self, life: "_Life") -> None:
        self.say("commits")
        self._attempt(life, life.commit)

    def _attempt(self, life: "_Life", step: Callable[[], None]) -> None:
        try:
            step()
        except RetriableError as error:
            if not self.world.excused(error):
                raise Violation(f"{self.name} raised {type(error).__name__}: {error}") from error
            self.say(f"goes back to its last commit: {error}")
            self._again(life, error)
        except FencedError as error:
            if self._guarantee == "exactly_once" and life.slow():
                self.say(f"was too slow: {error}")
                self._end_badly()
            elif not self.world.excused(error):
                raise Violation(f"{self.name} is fenced, and nobody has its id: {error}") from error
        except Exception as error:
            if not self.world.excused(error):
                raise
            self.say(f"ends: {type(error).__name__}: {error}")
            self._end_badly()

    def _again(self, life: "_Life", error: RetriableError) -> None:
        try:
            life.again(error)
        except Exception as another:
            if not self.world.excused(another):
                raise
            self.say(f"ends: {type(another).__name__}: {another}")
            self._end_badly()

    def _end_badly(self) -> None:
        if self._life is not None:
            self._life.leave()
        self._life = None
        self._crash_stores()

    def _die(self, life: "_Life") -> None:
        if self.world.chance(0.4):
            self.say("ends as it should")
            with self.world.excusing(f"{self.name}: end"):
                life.end()
            self._life = None
            return
        if self.world.chance(0.5) and self._guarantee == "exactly_once":
            self._ghosts.append(life)
        self.say("dies")
        self._end_badly()

    def _crash_stores(self) -> None:
        for backend in self._backends.values():
            backend.crash(self.world.random)

    def _haunt(self, ghost: "_Life") -> None:
        """It may read and work as it likes: nothing of it is committed, in the log or in the stores."""
        self.say("comes back as a ghost")
        before = self._rows_of_stores()
        try:
            if self.world.chance(0.7):
                ghost.run()
            ghost.commit()
        except Exception as error:
            if not (isinstance(error, FencedError) or self.world.excused(error)):
                raise
        else:
            raise Violation(f"the ghost of {self.name} has committed")
        if self._rows_of_stores() != before:
            raise Violation(f"the ghost of {self.name} has written to the stores")

    def _rows_of_stores(self) -> dict[tuple[TaskId, str], dict[bytes, bytes]]:
        return {
            (task, name): dict(keyspace.range(b"", None))
            for task, backend in self._backends.items()
            for name, keyspace in backend.keyspaces.items()
        }

    # ---- the end

    def died(self) -> None:
        """See `Actor.died`."""
        self._life = None
        self._ghosts.clear()
        self._crash_stores()

    def drain(self) -> None:
        """Closes every window and counts all there is."""
        self._ghosts.clear()
        for _ in range(6):
            if self._life is None:
                self._start()
            if self._life is not None:
                self._run(self._life)
            if self._life is not None:
                self._commit(self._life)
        if self._life is None:
            raise Violation(f"{self.name} does not run, though nothing fails")
        self._check_stores(self._life.plan)
        self.check()
        clicks = sum(len(rows) for rows in self._clicks().values())
        if sum(map(len, self._clicks(all_of_them=True).values())) != clicks:
            raise Violation(f"{self.name} has not read all clicks")
        if self._emit == "close":
            self._check_closed()

    # ---- what it promises

    def _clicks(self, *, all_of_them: bool = False) -> dict[TopicPartition, list[Row]]:
        """The committed clicks that it has passed."""
        committed = self.world.log.committed(self.name)
        return {
            tp: [row for row in read_committed(self.world.log, tp) if all_of_them or row.offset < committed.get(tp, 0)]
            for tp in self.world.log.offsets(CLICKS)
        }

    def check(self) -> None:
        """Results, late ones and offsets stand for the same clicks."""
        log = self.world.log
        clicks = [msgspec.json.decode(row.value or b"", type=Click) for rows in self._clicks().values() for row in rows]
        late = Counter[str]()
        for row in self._rows("late"):
            late[(row.value or b"").decode()] += 1
        counts = self._counts()
        once = self._guarantee == "exactly_once"
        if once and late and max(late.values()) > 1:
            raise Violation(f"{max(late, key=late.__getitem__)} is late {max(late.values())} times")
        if self._emit == "close":
            return
        found = Counter({key: values[-1] for key, values in counts.items()})
        found.update(plain_count(msgspec.json.decode(each, type=Click) for each in late))
        wanted = plain_count(clicks)
        if once and found != wanted:
            raise Violation(
                f"counted and late {dict(found - wanted)} too often, {dict(wanted - found)} not at all; "
                f"{self.name} stands at {log.committed(self.name)}"
            )
        if not once and wanted - found:
            raise Violation(f"{dict(wanted - found)} are not counted")
        for key, values in counts.items() if once else ():
            if values != sorted(set(values)):
                raise Violation(f"the counts of {key} are {values}: one is there twice, or goes back")

    def _check_closed(self) -> None:
        counts = self._counts()
        clicks = [msgspec.json.decode(row.value or b"", type=Click) for rows in self._clicks().values() for row in rows]
        late = plain_count(msgspec.json.decode(row.value or b"", type=Click) for row in self._rows("late"))
        wanted = plain_count(click for click in clicks if click.ts < self.world.last_click_ms)
        found = Counter({key: sum(values) for key, values in counts.items()})
        found.update(late)
        if self._guarantee == "exactly_once":
            several = {key: values for key, values in counts.items() if len(values) > 1}
            if several or found != wanted:
                raise Violation(
                    f"closed more than once: {several}; too much: {found - wanted}, lacking: {wanted - found}"
                )
        elif wanted - found:
            raise Violation(f"{dict(wanted - found)} are not counted")

    def _counts(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for row in self._rows("counts"):
            found[(row.key or b"").decode()].append(int.from_bytes(row.value or b"", "big"))
        return found

    def _rows(self, topic: str) -> list[Row]:
        log = self.world.log
        return [row for tp in log.offsets(topic) for row in read_committed(log, tp)]

    def _check_stores(self, plan: Plan) -> None:
        for task in plan.tasks:
            for store in task.stores:
                name = store.node.name
                fresh = MemoryBackend()
                bound = store.expired_before_ms(task.context.stream_time_ms)
                changelog = ChangelogReader(self.world.log, store.changelog)
                restore(fresh, name, WindowLayout(), changelog, expire_before_ms=bound)
                low = b"\x01" + bound.to_bytes(8, "big")
                wanted = dict(fresh.keyspace(name).range(low, None))
                found = dict(self.backend(task.id).keyspace(name).range(low, None))
                if found != wanted:
                    raise Violation(
                        f"store {name} of task {task.id} has {found.items() - wanted.items()}, its changelog "
                        f"{wanted.items() - found.items()}"
                    )


class _Life(Driven):
    """One run of the app, from its start to its end; alone in its group, which takes no part in what a ghost may do."""

    def __init__(self, of: ClickCount) -> None:
        self._world = world = of.world
        self._since: float | None = None
        app, entries = of.app()
        super().__init__(
            app,
            world.log,
            world.clock,
            stores=_Stores(world.clock, of.backend),
            identity=Identity(app.name, "member"),
            cache_entries=entries,
            in_group=False,
        )

    def slow(self) -> bool:
        """Whether its transaction may have been aborted by now."""
        return self._since is not None and self._world.clock.monotonic() - self._since >= 10

    def run(self) -> None:
        """Runs what there is."""
        if self._since is None:
            self._since = self._world.clock.monotonic()
        self.runner._slices = [self._world.random.choice([1, 5, 1_000])]
        super().run()

    def commit(self) -> None:
        """Commits."""
        if self._since is None:
            self._since = self._world.clock.monotonic()
        super().commit()
        self._since = None

    def again(self, error: Passing | None) -> None:
        """Drops what was not committed."""
        self._since = None
        super().again(error)


class _Stores(start.Stores):
    """Those that a crash leaves something of."""

    def __init__(self, clock: Clock, backend: Callable[[TaskId], CrashingBackend]) -> None:
        super().__init__(None, clock)
        self._backend = backend

    def open(self, task: TaskId) -> Backend:
        """See `Stores`."""
        self._opened[task] = self._backend(task)
        return self._opened[task]


class Clicker(Plain):
    """Sends clicks, and at the end one into each partition that closes every window."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "clicker", [CLICKS])

    def drain(self) -> None:
        """See the class."""
        with self.world.log.producer() as producer:
            for tp in self.world.log.offsets(CLICKS):
                deed = self.world.model.begin(self.name, plain=True)
                value = self.world.model.value(deed).decode()
                click = Click("last", value, self.world.last_click_ms)
                self.send(producer, deed, Sent(tp, None, msgspec.json.encode(click)), click.ts)
        super().drain()
