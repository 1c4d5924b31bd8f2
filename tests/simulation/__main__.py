"""`python -m tailrace.tests.simulation SEED`: replays a seed with its trace; `--seeds N`: runs N of them."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from tailrace.tests.simulation.many import run_many
from tailrace.tests.simulation.run import STEPS, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tailrace.tests.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="the seed to replay, or the first of many (0)")
    parser.add_argument("--seeds", type=int, help="run so many, and tell those that fail")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of each ({STEPS})")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="side by side (2)")
    options = parser.parse_args(arguments)
    if options.seeds is None and options.seed is None:
        parser.error("give a seed to replay, or --seeds")
    if options.seeds is None:
        return _replay(options.seed, options.steps)
    return int(run_many(options.seed or 0, options.seeds, steps=options.steps, processes=options.processes) > 0)


def _replay(seed: int, steps: int) -> int:
    logging.basicConfig(level=logging.WARNING, format="      log: %(message)s", stream=sys.stdout)
    outcome = simulate(seed, steps=steps, tell=print)
    print(outcome)
    return int(outcome.violation is not None)


if __name__ == "__main__":
    sys.exit(main())
