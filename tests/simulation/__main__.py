"""`python -m tailrace.tests.simulation SEED`: replays a seed with its trace; `--seeds N`: runs N of them.

`--each-sync SEED`: plays a short life of a seed, ended at each sync and each change of a name, one after the other.
`--program NAME` has any seed play that program, and not the one that it would choose.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from tailrace.tests.simulation.each import end_at, end_at_each
from tailrace.tests.simulation.many import run_many
from tailrace.tests.simulation.programs import PROGRAMS
from tailrace.tests.simulation.run import STEPS, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tailrace.tests.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="the seed to replay, or the first of many (0)")
    parser.add_argument("--seeds", type=int, help="run so many, and tell those that fail")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of each ({STEPS})")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="side by side (2)")
    parser.add_argument("--each-sync", type=int, metavar="SEED", help="end a short life of it at each sync")
    parser.add_argument("--appends", action="store_true", help="at each append, too")
    parser.add_argument("--at", type=int, help="only at this operation, with its trace")
    parser.add_argument("--program", choices=[each.name for each in PROGRAMS], help="which, whatever the seed says")
    options = parser.parse_args(arguments)
    if options.each_sync is not None:
        return _each(options.each_sync, options.at, options.program, appends=options.appends)
    if options.seeds is None and options.seed is None:
        parser.error("give a seed to replay, or --seeds")
    if options.seeds is None:
        return _replay(options.seed, options.steps, options.program)
    failed = run_many(
        options.seed or 0,
        options.seeds,
        steps=options.steps,
        processes=options.processes,
        program=options.program,
    )
    return int(failed > 0)


def _each(seed: int, at: int | None, program: str | None, *, appends: bool) -> int:
    if at is not None:
        logging.basicConfig(level=logging.WARNING, format="      log: %(message)s", stream=sys.stdout)
        outcome = end_at(seed, at, tell=print, program=program)
        print(outcome)
        return int(outcome.violation is not None)
    logging.disable(logging.CRITICAL)
    points = failed = 0
    for outcome in end_at_each(seed, appends=appends, program=program):
        points += 1
        if outcome.violation is not None:
            failed += 1
            print(outcome, flush=True)
    print(f"seed {seed}, ended at each of {points} operations: {failed} failed")
    return int(failed > 0)


def _replay(seed: int, steps: int, program: str | None) -> int:
    logging.basicConfig(level=logging.WARNING, format="      log: %(message)s", stream=sys.stdout)
    outcome = simulate(seed, steps=steps, tell=print, program=program)
    print(outcome)
    return int(outcome.violation is not None)


if __name__ == "__main__":
    sys.exit(main())
