"""Many seeds, in processes side by side."""

import logging
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tailrace.tests.simulation.run import simulate

EVERY = 1_000


def run_many(first: int, count: int, *, steps: int, processes: int, program: str | None = None) -> int:
    """Runs so many seeds and prints those that fail; returns how many did. program: see `life_of`."""
    began = time.monotonic()
    failed, crashes, fates = 0, 0, Counter[str]()
    # Spawned, as everything here that has processes; this module and not __main__, which a spawned one does not load.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=quiet) as pool:
        one = partial(simulate, steps=steps, program=program)
        for number, outcome in enumerate(pool.map(one, range(first, first + count), chunksize=16), 1):
            crashes += outcome.crashes
            fates.update(outcome.fates)
            if outcome.violation is not None:
                failed += 1
                print(outcome, flush=True)
            if number % EVERY == 0:
                print(f"{number} seeds, {failed} failed, {time.monotonic() - began:.0f} s", flush=True)
    told = ", ".join(f"{number:,} {fate}" for fate, number in sorted(fates.items()))
    print(f"seeds {first} to {first + count - 1}: {failed} failed; {crashes:,} crashes; deeds: {told}")
    return failed


def quiet() -> None:
    """Thousands of warnings, each of something that was meant to happen."""
    logging.disable(logging.CRITICAL)
