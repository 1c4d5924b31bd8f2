"""Every case runs, on a few records and in this process: what it measures is another matter."""

from pathlib import Path
from typing import Any

import pytest

from tailrace.tests.bench import click_counts
from tailrace.tests.bench.__main__ import main
from tailrace.tests.bench.cases import CASES
from tailrace.tests.bench.clicks import START_MS, check, clicks, counts_file, prepare
from tailrace.tests.bench.measure import Case, Setting, measure


def here(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_case_runs(case: Case, tmp_path: Path) -> None:
    """Twice, as the second sample must find nothing of the first. Most of the time goes into starts and syncs."""
    setting = Setting(str(tmp_path), records=600, small=200, waits=3, partitions=8)
    found = measure(case, setting, 2, here)
    assert len(found.samples) == min(2, case.samples_max or 2)
    for metric in (*case.metrics, *(target.metric for target in case.targets)):
        assert found.spread(metric).low > 0, metric
    assert case.floor is None or found.floor(case.metrics[0]) is not None


def test_clicks_are_the_same_each_time_and_at_most_so_late() -> None:
    first, again = list(clicks(25_000)), list(clicks(25_000))
    assert first == again
    values = [value for chunk in first for value in chunk.values]
    times = [at for chunk in first for at in chunk.times]
    assert len(values) == len(times) == 25_000
    assert 65 < sum(map(len, values)) / len(values) < 80
    latest = START_MS
    for at in times:
        latest = max(latest, at)
        assert at >= START_MS
        assert latest - at <= 5_000


def test_a_wrong_count_is_an_error_and_no_number(tmp_path: Path) -> None:
    setting = Setting(str(tmp_path), records=100, small=0, waits=0)
    prepare(setting)
    before = counts_file(setting).read_bytes()
    prepare(setting)  # finds what is there
    assert counts_file(setting).read_bytes() == before
    with pytest.raises(AssertionError, match="counted 0 clicks and a plain count 100"):
        check(setting, {}, "nothing")
    counts_file(setting).write_bytes(b"{}")
    with pytest.raises(AssertionError, match="keyed-exactly_once-0 counted 100 clicks and a plain count 0"):
        click_counts.keyed(setting)


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["count-sideways"])
    assert "no such case: count-sideways" in capsys.readouterr().err
