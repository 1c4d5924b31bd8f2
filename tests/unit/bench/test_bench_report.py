"""What the bench prints and keeps."""

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import msgspec
from rich.console import Console

from tailrace.tests.bench.measure import RATE, RATIO, Case, Measured, Setting, Target, Values
from tailrace.tests.bench.report import as_data, missed, rows, save, table


def _run(_setting: Setting) -> Values:
    return {}


def _measured(target: float) -> Measured:
    case = Case("count", "", _run, (RATE, "peak MiB"), targets=(Target(RATIO, target),))
    samples = [{RATE: 400_000.0, "peak MiB": 90.0}, {RATE: 500_000.0, "peak MiB": 91.0}]
    return Measured(case, samples, [{RATE: 1_000_000.0}, {RATE: 1_000_000.0}])


def test_a_row_shows_median_range_floor_ratio_and_target() -> None:
    assert list(rows(_measured(0.4))) == [
        (
            "count",
            RATE,
            "450 k",
            "400 k to 500 k",
            "1.00 M",
            "0.45 (0.40 to 0.50)",
            ">= 0.4 met",
        ),
        ("", "peak MiB", "90.5", "90.0 to 91.0", "", "", ""),
    ]


def test_a_missed_target_is_told_in_words() -> None:
    assert missed([_measured(0.4)]) == []
    assert missed([_measured(0.5)]) == ["count: of floor is 0.450, target 0.5"]


def test_the_table_fits_a_screen() -> None:
    console = Console(width=120, record=True, file=StringIO())
    console.print(table([_measured(0.5)]))
    assert ">= 0.5 MISSED" in console.export_text()


def test_results_are_kept_by_date_and_commit(tmp_path: Path) -> None:
    when = datetime(2026, 11, 21, 12, tzinfo=UTC)
    data = as_data([_measured(0.4)], {"cores": 2}, "abc", when, {"records": 1})
    path = save(data, tmp_path / "results")
    assert path.name == "2026-11-21-abc.json"
    assert msgspec.json.decode(path.read_bytes()) == data
    assert data["cases"][0]["floors"] == [{RATE: 1_000_000.0}] * 2
