"""The bench's own arithmetic, and that samples stand alone."""

import os

from tailrace.tests.bench.measure import (
    CPU,
    PEAK,
    RATE,
    RATIO,
    Case,
    Measured,
    Setting,
    Stopwatch,
    Target,
    Values,
    isolated,
    machine,
    measure,
    peak_mib,
    percentile,
    spread,
)

SETTING = Setting("nowhere", 10, 10, 10)


def test_a_spread_is_median_smallest_and_largest() -> None:
    assert spread([3, 1, 2]) == (2, 1, 3)
    assert spread([4, 1, 2, 3]) == (2.5, 1, 4)


def test_a_percentile_is_one_of_the_numbers() -> None:
    numbers = [float(number) for number in range(100, 0, -1)]
    assert percentile(numbers, 0.5) == 51
    assert percentile(numbers, 0.99) == 100
    assert percentile([7.0], 0.99) == 7


def test_a_target_is_a_bound_from_one_side() -> None:
    assert Target(RATIO, 0.4).met(0.4)
    assert not Target(RATIO, 0.4).met(0.39)
    assert Target("p99 ms", 1.0, at_most=True).met(0.5)
    assert not Target("p99 ms", 1.0, at_most=True).met(1.1)


def _case(_setting: Setting) -> Values:
    return {RATE: 50.0}


def _floor(_setting: Setting) -> Values:
    return {RATE: 100.0}


def test_case_and_floor_are_sampled_in_turn() -> None:
    calls: list[tuple[str, int]] = []

    def run(function: object, *arguments: object) -> Values:
        sampled, setting = arguments
        assert isinstance(setting, Setting)
        calls.append((getattr(sampled, "__name__", ""), setting.sample))
        return {RATE: 100.0 if sampled is _floor else 50.0}

    found = measure(Case("x", "", _case, (RATE,), floor=_floor), SETTING, 2, run)
    assert calls == [("_floor", 0), ("_case", 0), ("_floor", 1), ("_case", 1)]
    assert found.spread(RATIO) == (0.5, 0.5, 0.5)
    assert found.floor(CPU) is None


def test_a_ratio_is_of_neighbours() -> None:
    found = Measured(Case("x", "", _case, (RATE,)), [{RATE: 50.0}, {RATE: 10.0}], [{RATE: 100.0}, {RATE: 20.0}])
    assert found.spread(RATIO) == (0.5, 0.5, 0.5)
    assert found.spread(RATE) == (30, 10, 50)


def test_preparing_happens_once_and_samples_are_limited() -> None:
    called: list[object] = []

    def run(function: object, *_arguments: object) -> Values:
        called.append(function)
        return {}

    measure(Case("x", "", _case, (RATE,), prepare=print, samples_max=1), SETTING, 5, run)
    assert len(called) == 2
    assert called[0] is print


def test_a_stopwatch_gives_rate_and_processor_time() -> None:
    with Stopwatch() as watch:
        sum(range(1000))
    values = watch.values(10)
    assert values[RATE] > 0
    assert values[CPU] >= 0


def test_a_sample_runs_in_a_process_of_its_own() -> None:
    assert isolated(os.getpid) != os.getpid()


def test_the_machine_is_written_down() -> None:
    assert {"processor", "cores", "python", "aiokafka"} <= set(machine())
    assert peak_mib() > 1
    assert PEAK.endswith("MiB")
