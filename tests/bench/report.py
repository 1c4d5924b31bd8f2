"""What was measured, for reading and for keeping."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tailrace.tests.bench.measure import RATIO, Measured, Spread

RESULTS = Path(__file__).parent / "results"


def table(measured: Sequence[Measured]) -> Table:
    """A line for each metric: median, range, the floor's median, the ratio, and whether the target is met."""
    shown = Table(title="median of the samples (smallest to largest)", title_justify="left")
    for column in ("case", "metric"):
        shown.add_column(column, no_wrap=True)
    for column in ("case", "range", "floor", "case / floor", "target"):
        shown.add_column(column, justify="right", no_wrap=True)
    for each in measured:
        for row in rows(each):
            shown.add_row(*row)
        shown.add_section()
    return shown


def rows(each: Measured) -> Iterator[tuple[str, ...]]:
    """The lines of one case."""
    for number, metric in enumerate(each.case.metrics):
        found, floor = each.spread(metric), each.floor(metric)
        ratio = ""
        if floor is not None:
            ratio = _ranged(each.spread(RATIO)) if number == 0 else f"{found.median / floor.median:.2f}"
        yield (
            each.case.name if number == 0 else "",
            metric,
            _number(found.median),
            f"{_number(found.low)} to {_number(found.high)}",
            "" if floor is None else _number(floor.median),
            ratio,
            ", ".join(_targets(each, (metric, RATIO) if number == 0 else (metric,))),
        )


def _targets(each: Measured, metrics: tuple[str, ...]) -> Iterator[str]:
    for target in each.case.targets:
        if target.metric in metrics:
            met = "met" if target.met(each.spread(target.metric).median) else "MISSED"
            yield f"{'<=' if target.at_most else '>='} {_limit(target.value)} {met}"


def missed(measured: Sequence[Measured]) -> list[str]:
    """The targets that were not met, in words."""
    return [
        f"{each.case.name}: {target.metric} is {_number(found)}, target {_limit(target.value)}"
        for each in measured
        for target in each.case.targets
        if not target.met(found := each.spread(target.metric).median)
    ]


def _ranged(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def _limit(number: float) -> str:
    return f"{number:g}" if number < 10_000 else _number(number)


def _number(number: float) -> str:
    if number >= 1_000_000:
        return f"{number / 1_000_000:.2f} M"
    if number >= 1_000:
        return f"{number / 1_000:.0f} k"
    return f"{number:.1f}" if number >= 10 else f"{number:.3f}"


def show(measured: Sequence[Measured], machine: dict[str, Any], console: Console) -> None:
    """Prints it."""
    console.print(table(measured))
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), style="dim")
    for line in missed(measured):
        console.print(f"target missed: {line}", style="bold red")


def as_data(
    measured: Sequence[Measured], machine: dict[str, Any], commit: str, when: datetime, settings: dict[str, int]
) -> dict[str, Any]:
    """Everything that was found, sample by sample."""
    return {
        "date": when.isoformat(timespec="seconds"),
        "commit": commit,
        "machine": machine,
        "settings": settings,
        "cases": [
            {"name": each.case.name, "samples": _rounded(each.samples), "floors": _rounded(each.floors)}
            for each in measured
        ],
    }


def _rounded(samples: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{metric: float(f"{value:.4g}") for metric, value in sample.items()} for sample in samples]


def save(data: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Keeps it as `<date>-<commit>.json`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{data['date'][:10]}-{data['commit']}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n")
    return path
