"""`python -m tailrace.tests.bench`: measures, prints, and keeps the numbers where asked; see docs/benchmarks.md."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tailrace.tests.bench.cases import CASES
from tailrace.tests.bench.measure import Case, Measured, Setting, isolated, machine, measure
from tailrace.tests.bench.report import as_data, missed, save, show

LONG_RECORDS = 20_000_000
_FILE_WIDTH = 120  # of the table where no terminal says how wide it is


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases that were asked for; 1 where a target is missed and `--strict` was given."""
    options = _options(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    before = machine()
    root = Path(tempfile.mkdtemp(prefix="tailrace-bench-", dir=options.directory))
    try:
        measured = [_measure(case, root, options, console) for case in _chosen(options)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    show(measured, before, console)
    if options.save:
        names = ("records", "long_records", "small", "waits", "partitions")
        settings = {name: getattr(options, name) for name in names}
        data = as_data(measured, dict(before), _commit(), datetime.now(UTC), settings)
        console.print(f"kept in {save(data)}")
    return 1 if options.strict and missed(measured) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tailrace.tests.bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"which: {', '.join(case.name for case in CASES)}")
    parser.add_argument("--samples", type=int, default=5, help="how many of each (5)")
    parser.add_argument("--records", type=int, default=1_000_000, help="clicks in the backlog (1000000)")
    parser.add_argument("--small", type=int, default=1_000_000, help="records of 100 bytes (1000000)")
    parser.add_argument("--waits", type=int, default=2_000, help="wake-ups, and appends, timed in a sample (2000)")
    parser.add_argument("--partitions", type=int, default=1_000, help="of the log that is opened (1000)")
    parser.add_argument("--long", action="store_true", help=f"also the cases over {LONG_RECORDS} records")
    parser.add_argument("--long-records", type=int, default=LONG_RECORDS, help="how many these are")
    parser.add_argument("--directory", help="where the inputs are made; the folder for temporary files unless given")
    parser.add_argument("--save", action="store_true", help="keep the numbers in tests/bench/results")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a target is missed")
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    return options


def _chosen(options: argparse.Namespace) -> list[Case]:
    if options.cases:
        return [case for case in CASES if case.name in options.cases]
    return [case for case in CASES if options.long or not case.long]


def _measure(case: Case, root: Path, options: argparse.Namespace, console: Console) -> Measured:
    console.print(f"{case.name}: {case.about} …", style="dim")
    directory = root / ("long" if case.long else "short")
    directory.mkdir(exist_ok=True)
    records = options.long_records if case.long else options.records
    setting = Setting(str(directory), records, options.small, options.waits, options.partitions)
    return measure(case, setting, options.samples, isolated)


def _commit() -> str:
    """The commit that was measured; with a plus where the files are not as in it."""
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "--short=10", "HEAD")
    return f"{commit}+" if _git(here, "status", "--porcelain") else commit


def _git(folder: Path, *words: str) -> str:
    found = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    return found.stdout.strip() if not found.returncode else "unknown"


if __name__ == "__main__":
    sys.exit(main())
