"""Runs one seed from beginning to end, and checks it: while it runs, after each ending, and when all is healed."""

from collections.abc import Callable
from dataclasses import dataclass

from tailrace.log.errors import TailraceError
from tailrace.tests.simulation.actors import Actor, Copier, Plain, Transactional
from tailrace.tests.simulation.apps import ClickCount, Clicker
from tailrace.tests.simulation.chores import Chores
from tailrace.tests.simulation.members import FAILING, INPUTS, OUTPUTS, Feeder, Members
from tailrace.tests.simulation.model import Violation
from tailrace.tests.simulation.programs import PROGRAMS
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
    at: int | None = None
    """The operation of the disk at which it was ended."""
    program: str | None = None
    """Which it had to be of the programs."""

    def __str__(self) -> str:
        """The verdict, and how to see more of it."""
        what = f"seed {self.seed}" if self.at is None else f"seed {self.seed} ended at operation {self.at}"
        if self.violation is None:
            return f"{what}: nothing wrong, {self.crashes} crashes, {self.fates}"
        how = f"{self.seed}" if self.at is None else f"--each-sync {self.seed} --at {self.at}"
        if self.program is not None:
            how += f" --program '{self.program}'"
        return f"{what}: {self.violation}\n    replay with its trace: {REPLAY} {how}"


def simulate(
    seed: int, *, steps: int = STEPS, tell: Callable[[str], None] | None = None, program: str | None = None
) -> Outcome:
    """Runs a seed; `tell` is given each line of the trace as it comes. program: see `life_of`."""
    return play(life_of(seed, tell, program=program), seed, steps)


def life_of(seed: int, tell: Callable[[str], None] | None, *, calm: bool = False, program: str | None = None) -> "Life":
    """The life of a seed; calm: nothing goes wrong by itself.

    program: the name of the one that it is to be of, where the seed is not to choose.
    """
    if seed % 2 and program is None:
        life = _log_and_users(seed, tell, calm=calm)
    else:
        life = _program(seed, tell, calm=calm, name=program)
    life.calm, life.program = calm, program
    return life


def play(life: "Life", seed: int, steps: int, *, at: int | None = None) -> Outcome:
    """Runs a life; `at` is for who wants to see it again."""
    world = life.world
    violation: str | None = None
    try:
        life.run(steps)
    except Violation as error:
        violation = str(error)
    except (AssertionError, LookupError, OSError, PowerLossError, TailraceError, TypeError, ValueError) as error:
        violation = f"{type(error).__name__}: {error}"
    return Outcome(seed, violation, world.crashes, world.model.counts(), at, life.program)


def _log_and_users(seed: int, tell: Callable[[str], None] | None, *, calm: bool) -> "Life":
    """Producers, copiers and a click count beside each other."""
    world = World(seed, tell)
    return Life(
        world,
        [
            (Plain(world, "plain", ["plain", "mixed", "short"]), 2),
            (Plain(world, "loose", ["loose"], loose=True), 0.5),
            (Transactional(world, "x"), 4),
            (Transactional(world, "y"), 2),
            (Copier(world, "copier-1"), 2),
            (Copier(world, "copier-2"), 1),
            (Clicker(world), 2),
            (ClickCount(world), 4),
            (Chores(world, calm=calm), 2.5),
        ],
    )


def _program(seed: int, tell: Callable[[str], None] | None, *, calm: bool, name: str | None) -> "Life":
    """One program, and members of it that come and go."""
    world = World(seed, tell, topics=INPUTS, results=OUTPUTS)
    program = world.random.choice(PROGRAMS)
    if name is not None:
        program = next(each for each in PROGRAMS if each.name == name)
    feeder = Feeder(world, program)
    return Life(
        world, [(feeder, 3), (Members(world, feeder, program), 7), (Chores(world, failing=FAILING, calm=calm), 1.5)]
    )


class Life:
    """All who act on one machine, and whose turn it is."""

    def __init__(self, world: World, actors: list[tuple[Actor, float]]) -> None:
        self.world = world
        self.actors = actors
        self.calm = False
        self.program: str | None = None
        self.healed_at = 0
        """How many operations the disk had done when nothing could fail any more."""
        self._within = False
        world.meanwhile = self.meanwhile

    def run(self, steps: int) -> None:
        """From beginning to end. Raises Violation."""
        world = self.world
        world.boot()
        for step in range(steps):
            world.step = step
            try:
                self.step()
            except PowerLossError:
                world.say("it is struck")
            if world.disk.down or (world.broken and world.chance(0.1)):
                self.restart()
            elif world.chance(0.05):
                self.look(settled=False)
        self.healed_at = world.disk.operations
        world.say("== all is healed")
        self.heal()

    def meanwhile(self) -> None:
        """See `World`; not within each other."""
        if self._within:
            return
        self._within = True
        try:
            self.world.say("( meanwhile")
            for _ in range(self.world.random.randint(1, 8)):
                self.step()
            self.world.say(") where it was")
        finally:
            self._within = False

    def step(self) -> None:
        """Somebody's next."""
        actors, weights = [actor for actor, _ in self.actors], [weight for _, weight in self.actors]
        self.world.random.choices(actors, weights)[0].step()

    def restart(self) -> None:
        """Everything ends and comes up again."""
        for actor, _ in self.actors:
            actor.died()
        self.world.end()
        if not self.calm and self.world.chance(0.3):
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
        self._within = True  # nobody comes in between
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
