"""A short life, ended at every point of its disk, one after the other: each sync, and each change of a name.

1. The life is played once to the end, to learn its points; then again for each of them, the same up to there. What was
   to be done at the point is not done. Everything starts again, goes on for the rest of its steps, and is checked.
2. Endings take turns: the machine loses its power, and what was not synced with it; the process is killed.
3. With `appends`, every append is a point, too, and a part of its bytes may be there.

What is covered: the moments at which the disk is asked for something, in the log and whatever uses it; so also those
between two parts of one commit. Not covered: a kill between two instructions that ask it for nothing, which leaves the
same behind; RocksDB's files (`stores` plays them, the real kills try them); two threads (lives have one).
"""

from collections.abc import Callable, Iterator

from tailrace.tests.simulation.run import Outcome, life_of, play

STEPS = 30


def points_of(seed: int, *, steps: int = STEPS, appends: bool = False, program: str | None = None) -> list[int]:
    """The operations of a life that count as points, by their numbers from 1 on. program: see `life_of`."""
    life = life_of(seed, None, calm=True, program=program)
    life.world.disk.told = told = list[str]()
    outcome = play(life, seed, steps)
    assert outcome.violation is None, outcome.violation
    return [
        number
        for number, operation in enumerate(told[: life.healed_at], 1)
        if appends or operation not in {"append", "truncate"}
    ]


def end_at(
    seed: int,
    point: int,
    *,
    steps: int = STEPS,
    tell: Callable[[str], None] | None = None,
    program: str | None = None,
) -> Outcome:
    """Plays a life that ends at a point, and goes on after it."""
    life = life_of(seed, tell, calm=True, program=program)
    life.world.machine = point % 2 == 0
    life.world.disk.power_loss_after(point)
    return play(life, seed, steps, at=point)


def end_at_each(
    seed: int, *, steps: int = STEPS, appends: bool = False, program: str | None = None
) -> Iterator[Outcome]:
    """The same for every point."""
    for point in points_of(seed, steps=steps, appends=appends, program=program):
        yield end_at(seed, point, steps=steps, program=program)
