"""Runs one seed from beginning to end, and checks it: while it runs, after each ending, and when all is healed."""

from collections.abc import Callable
from dataclasses import dataclass

from tailrace.log.errors import TailraceError
from tailrace.tests.simulation.actors import Actor, Copier, Plain, Transactional
from tailrace.tests.simulation.apps import ClickCount, Clicker
from tailrace.tests.simulation.chores import Chores
from tailrace.tests.simulation.model import Violation
from tailrace.tests.simulation.world import World
from tailrace.tests.support.disk import PowerLossError

STEPS = 150


REPLAY = "python -m tailrace.tests.simulation"


@dataclass(frozen=True)
class Outcome:
    """What came of a seed; `violation` None: nothing wrong."""

    seed: int
    violation: str | None
    crashes: int
    fates: dict[str, int]

    def __str__(self) -> str:
        """The verdict, and how to see more of it."""
        if self.violation is None:
            return f"seed {self.seed}: nothing wrong, {self.crashes} crashes, {self.fates}"
        return f"seed {self.seed}: {self.violation}\n    replay with its trace: {REPLAY} {self.seed}"


def simulate(seed: int, *, steps: int = STEPS, tell: Callable[[str], None] | None = None) -> Outcome:
    """Runs a seed; `tell` is given each line of the trace as it comes."""
    world = World(seed, tell)
    violation: str | None = None
    try:
        _Run(world).run(steps)
    except Violation as error:
        violation = str(error)
    except (AssertionError, LookupError, OSError, PowerLossError, TailraceError, TypeError, ValueError) as error:
        violation = f"{type(error).__name__}: {error}"
    return Outcome(seed, violation, world.crashes, world.model.counts())


class _Run:
    def __init__(self, world: World) -> None:
        self.world = world
        self.actors: list[tuple[Actor, float]] = [
            (Plain(world, "plain", ["plain", "mixed", "short"]), 2),
            (Plain(world, "loose", ["loose"], loose=True), 0.5),
            (Transactional(world, "x"), 4),
            (Transactional(world, "y"), 2),
            (Copier(world, "copier-1"), 2),
            (Copier(world, "copier-2"), 1),
            (Clicker(world), 2),
            (ClickCount(world), 4),
            (Chores(world), 2.5),
        ]

    def run(self, steps: int) -> None:
        world = self.world
        world.boot()
        actors, weights = [actor for actor, _ in self.actors], [weight for _, weight in self.actors]
        for step in range(steps):
            world.step = step
            actor = world.random.choices(actors, weights)[0]
            try:
                actor.step()
            except PowerLossError:
                world.say(f"{actor.name} is struck")
            if world.disk.down or (world.broken and world.chance(0.1)):
                self.restart()
            elif world.chance(0.05):
                self.look(settled=False)
        world.say("== all is healed")
        self.heal()

    def restart(self) -> None:
        """Everything ends and comes up again."""
        for actor, _ in self.actors:
            actor.died()
        self.world.end()
        if self.world.chance(0.3):
            self.world.disk.power_loss_after(self.world.random.randint(1, 40))
        self.world.boot()
        self.look(settled=True)

    def look(self, *, settled: bool) -> None:
        """Checks what can be told now; a power loss may come in between."""
        try:
            with self.world.excusing("the check"):
                self.world.model.check(self.world.log, settled=settled)
                if settled:
                    for actor, _ in self.actors:
                        actor.check()
        except PowerLossError:
            return

    def heal(self) -> None:
        """Nothing fails from here on: all is ended, opened once more, and checked."""
        if self.world.broken:
            self.restart()
        self.world.disk.heal()
        for actor, _ in self.actors:
            actor.drain()
        for actor, _ in self.actors:
            actor.died()
        self.world.close()
        self.world.boot()
        self.world.say("== the last check")
        self.world.model.check(self.world.log, settled=True)
        for actor, _ in self.actors:
            actor.check()
        self.world.close()
        self.world.verify()
