"""Records that a function sends back to a topic that brought them: as many rounds as it likes, but not for ever."""

import pytest

from tailrace.errors import InvalidError, TopologyError
from tailrace.streams.app import App
from tailrace.streams.program.topic import Topic
from tailrace.testing import TopologyDriver

Numbers = Topic[str, int]


def counting_down(*, through: bool = False) -> tuple[App, Numbers, Numbers]:
    app = App("app", log="memory:")
    source, done = (app.topic(name, key=str, value=int) for name in ("in", "done"))
    stream = app.stream(source).map(lambda n: n - 1)
    if through:
        stream = stream.through(app.topic("between", key=str, value=int))
    stream.to(lambda _key, n: source if n > 0 else done)
    return app, source, done


@pytest.mark.parametrize(("through", "times"), [(False, 300), (False, 1_000), (True, 400)])
def test_a_loop_that_ends(through: bool, times: int) -> None:
    app, source, done = counting_down(through=through)
    with TopologyDriver(app) as driver:
        for _ in range(3):
            driver.pipe(source, times, key="k")
            assert [row.value for row in driver.read(done)] == [0]
        assert len(driver.read(source)) == 3 * (times - 1)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_loop_without_an_end_is_told_by_its_topic(partitions: int) -> None:
    app = App("app", log="memory:")
    source = app.topic("again", key=str, value=int)
    app.stream(source).map(lambda n: n + 1).to(lambda _key, _n: source)
    with TopologyDriver(app, partitions=partitions) as driver:
        with pytest.raises(
            TopologyError,
            match=r"go round .* through topic 'again', which app 'app' reads .*test_loops\.py:\d+ chooses",
        ):
            driver.pipe(source, 0, key="k")
        with pytest.raises(InvalidError, match="has ended with TopologyError"):
            driver.pipe(source, 0, key="k")
        assert len(driver.read(source)) == 1_000


def test_a_loop_that_grows_is_told_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.streams.testing._MADE_MAX", 20_000)
    app = App("app", log="memory:")
    source = app.topic("again", key=str, value=int)
    app.stream(source).flat_map(lambda n: [n] * 8).to(lambda _key, _n: source)
    with TopologyDriver(app) as driver, pytest.raises(TopologyError, match=r"through topic 'again'.* after 5 rounds"):
        driver.pipe(source, 0, key="k")


def test_many_records_through_topics_of_the_app_are_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.streams.testing._MADE_MAX", 10)
    app = App("app", log="memory:")
    source, inner = (app.topic(name, key=str, value=int) for name in ("in", "inner"))
    numbers = app.stream(source).flat_map(range)
    numbers.to(lambda _key, _n: inner)
    app.stream(inner).filter(lambda n: n == 0).to(app.topic("out", key=str, value=int))
    with TopologyDriver(app) as driver:
        driver.pipe(source, 12_000, key="k")
        assert len(driver.read("out")) == 1


def test_a_loop_behind_a_cache() -> None:
    app = App("app", log="memory:")
    source = app.topic("in", key=str, value=int)
    app.stream(source).group_by_key().reduce(lambda a, b: a + b, store="sum").changes().to(lambda _key, _n: source)
    with TopologyDriver(app, cache=True) as driver:
        driver.pipe(source, 1, key="k")
        for total in (1, 2, 4):  # once round for every commit: nothing goes on by itself
            driver.commit()
            assert [row.value for row in driver.read(source)][-1] == total
