"""How a number comes about: samples in processes of their own, spread, the machine.

1. Every sample runs in a new process, spawned: its peak memory is its own, and no sample inherits another's heap,
   caches of the allocator or state of the garbage collector. Python's own settings stay as they are.
2. A case and its floor are sampled in turn (floor, case, floor, case, …): the machine is shared, and a ratio is of two
   neighbours.
3. What is told of several samples is the median, with the smallest and the largest beside it.

Not here: what is measured (the cases' files), how it looks (report).
"""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Self

Values = dict[str, float]
"""What one sample found, by metric; a metric's name ends in its unit."""
Run = Callable[..., Any]
"""Calls a function with arguments, somewhere."""

RATE = "records/s"
CPU = "cpu us"  # of the process, per record: less noisy than the rate
PEAK = "peak MiB"
RATIO = "of floor"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a sample gets to know."""

    directory: str
    """Where the inputs lie."""
    records: int
    """How many clicks they hold."""
    small: int
    """How many records of 100 bytes the cases without clicks use."""
    waits: int
    """How many wake-ups are timed."""
    partitions: int = 1_000
    """How many a wide log has."""
    sample: int = 0
    """Which one it is: for names that nobody has used."""


class Target(NamedTuple):
    """What is to be reached: at least, or at most, this much of a metric (RATIO: case / floor of the first metric)."""

    metric: str
    value: float
    at_most: bool = False

    def met(self, found: float) -> bool:
        """Whether it is reached."""
        return found <= self.value if self.at_most else found >= self.value


@dataclass(frozen=True, slots=True)
class Case:
    """A named measurement; `run` and `floor` are functions of a module, as they go into other processes."""

    name: str
    about: str
    run: Callable[[Setting], Values]
    metrics: tuple[str, ...]
    """What to show, in this order; ratios are of the first."""
    floor: Callable[[Setting], Values] | None = None
    targets: tuple[Target, ...] = ()
    prepare: Callable[[Setting], None] | None = None
    """Runs once, before the samples, in a process of its own."""
    samples_max: int | None = None
    long: bool = False
    """Whether it needs `--long`."""


class Spread(NamedTuple):
    """Several samples of one number."""

    median: float
    low: float
    high: float


@dataclass(slots=True)
class Measured:
    """The samples of a case and of its floor; the n-th of both stand side by side."""

    case: Case
    samples: list[Values] = field(default_factory=list[Values])
    floors: list[Values] = field(default_factory=list[Values])

    def spread(self, metric: str) -> Spread:
        """Of a metric of the case, or of RATIO."""
        if metric == RATIO:
            first = self.case.metrics[0]
            return spread([case[first] / floor[first] for case, floor in zip(self.samples, self.floors, strict=True)])
        return spread([sample[metric] for sample in self.samples])

    def floor(self, metric: str) -> Spread | None:
        """Of the same metric of the floor, where it has one."""
        found = [floor[metric] for floor in self.floors if metric in floor]
        return spread(found) if found else None


def spread(numbers: Sequence[float]) -> Spread:
    """Median, smallest, largest."""
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


def percentile(numbers: Sequence[float], fraction: float) -> float:
    """The smallest number that is not exceeded by this fraction of them."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def measure(case: Case, setting: Setting, samples: int, run: Run) -> Measured:
    """Samples a case and its floor in turn; `run` says where (see `isolated`)."""
    if case.prepare is not None:
        run(case.prepare, setting)
    measured = Measured(case)
    for number in range(min(samples, case.samples_max or samples)):
        numbered = replace(setting, sample=number)
        if case.floor is not None:
            measured.floors.append(run(with_peak, case.floor, numbered))
        measured.samples.append(run(with_peak, case.run, numbered))
    return measured


def isolated(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def with_peak(function: Callable[[Setting], Values], setting: Setting) -> Values:
    """A sample, with the most memory that the process ever had."""
    values = function(setting)
    return {PEAK: peak_mib(), **values}


class Stopwatch:
    """Times a block: wall and processor."""

    def __enter__(self) -> Self:
        """Starts."""
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = time.process_time() - self._cpu

    def values(self, records: int) -> Values:
        """As a rate."""
        return {RATE: records / self.seconds, CPU: self.cpu_seconds / records * 1e6}


def peak_mib() -> float:
    """The most physical memory that this process had, in MiB."""
    # Not ru_maxrss where there is something better: Linux hands it down from the parent that spawned the process.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 20)


def machine() -> dict[str, str | int | float]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_before": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in ("aiokafka", "msgspec", "rocksdict")},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
