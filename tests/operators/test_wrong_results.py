"""Functions of the user that return what their operator does not take: refused by name, line and record, never used."""

import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from msgspec import Struct

from tailrace import Context, Grouped, Processor, Record, milliseconds, reducers
from tailrace.log.errors import DecodeError, EncodeError, TaskError
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.testing import TopologyDriver

Chain = Callable[[App, Stream[str, str]], Any]


class Longest(Struct):
    n: int | None = None


async def later(*_: Any) -> bool:
    return True


async def one_after_another(*_: Any) -> AsyncIterator[int]:
    yield 1


def one(*_: Any) -> Iterator[int]:
    yield 1


def awaiting(*given: Any) -> Any:
    return later(*given)


def generating(*given: Any) -> Any:
    return one(*given)


def streaming(*given: Any) -> Any:
    return one_after_another(*given)


def giving(result: Any) -> Callable[..., Any]:
    """A function that always returns the same."""
    return lambda *_: result


def refused(chain: Chain, name: str, *words: str) -> str:
    """Runs a record through a chain that must end in an error of the node; returns what it says."""
    app = App("app", log="memory:")
    source = app.topic("in", key=str, value=str)
    chain(app, app.stream(source))
    with warnings.catch_warnings(record=True) as warned, TopologyDriver(app) as driver:
        warnings.simplefilter("always")
        with pytest.raises(TaskError) as raised:
            driver.pipe(source, "abc", key="k")
    assert not warned
    told = str(raised.value)
    assert re.search(
        rf"TypeError in {name}-\d+ \(.*test_wrong_results\.py:\d+\) at (in-0@0|a result of .*|a call .*): its function",
        told,
    ), told
    for word in words:
        assert word in told
    return told


def kept(app: App, stream: Stream[Any, Any]) -> None:
    stream.to(app.topic("out", key=str, value=str))


PREDICATES: dict[str, Callable[[App, Stream[str, str], Any], Any]] = {
    "filter": lambda app, stream, f: kept(app, stream.filter(f)),
    "filter-not": lambda app, stream, f: kept(app, stream.filter_not(f)),
    "filter-kv": lambda app, stream, f: kept(app, stream.filter_kv(f)),
    "split": lambda app, stream, f: kept(app, stream.split({"some": f}, default="rest")["some"]),
    "table-filter": lambda _app, stream, f: stream.to_table(store="t").filter(f),
    "table-filter-not": lambda _app, stream, f: stream.to_table(store="t").filter_not(f, store="kept"),
    "table-filter-kv": lambda _app, stream, f: stream.to_table(store="t").filter_kv(f),
}
EFFECTS: dict[str, Callable[[App, Stream[str, str], Any], Any]] = {
    "peek": lambda _app, stream, f: stream.peek(f),
    "peek-kv": lambda _app, stream, f: stream.peek_kv(f),
    "for-each": lambda _app, stream, f: stream.for_each(f),
    "for-each-kv": lambda _app, stream, f: stream.for_each_kv(f),
}


@pytest.mark.parametrize(("f", "what"), [(awaiting, "a coroutine"), (streaming, "an async_generator")])
@pytest.mark.parametrize("name", [*PREDICATES, *EFFECTS])
def test_what_would_have_to_be_awaited_is_refused(name: str, f: Any, what: str) -> None:
    chain = {**PREDICATES, **EFFECTS}[name]
    refused(lambda app, stream: chain(app, stream, f), name, what, "map_async")


VALUES: dict[str, Callable[[App, Stream[str, str]], Any]] = {
    "map": lambda _app, stream: stream.map(awaiting).for_each(print),
    "key-by": lambda _app, stream: stream.key_by(awaiting).for_each(print),
    "group-by": lambda _app, stream: stream.group_by(awaiting, key=str).count(store="n"),
    "group-by-kv": lambda _app, stream: stream.group_by_kv(awaiting, key=str).count(store="n"),
    "table-map": lambda _app, stream: stream.to_table(store="t").map(awaiting),
    "table-map-kv": lambda _app, stream: stream.to_table(store="t").map_kv(awaiting),
    "process": lambda _app, stream: stream.process(Awaiting),
}


class Awaiting(Processor[str, str, str, str]):
    def process(self, record: Record[str, str]) -> Any:
        return later(record)


@pytest.mark.parametrize("name", VALUES)
def test_a_coroutine_is_no_value(name: str) -> None:
    refused(
        VALUES[name], name.replace("group-by-kv", "key-by-kv").replace("group-by", "key-by"), "a coroutine", "map_async"
    )


def test_a_coroutine_of_a_scheduled_call_is_refused() -> None:
    class Waking(Processor[str, str, str, str]):
        def init(self, ctx: Context[str, str]) -> None:
            ctx.schedule(milliseconds(1), awaiting, clock="stream")

        def process(self, record: Record[str, str]) -> None: ...

    refused(lambda _app, stream: stream.process(Waking), "process", "a coroutine", "map_async")


KEPT: dict[str, Callable[[Grouped[str, str]], Any]] = {
    "aggregate": lambda grouped: grouped.aggregate(str, awaiting, store="s"),
    "agg": lambda grouped: grouped.agg(Longest, store="s", n=reducers.max(awaiting)),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_coroutine_is_nothing_to_keep(name: str) -> None:
    app = App("app", log="memory:")
    source = app.topic("in", key=str, value=str)
    KEPT[name](app.stream(source).group_by_key())
    with warnings.catch_warnings(record=True) as warned, TopologyDriver(app) as driver:
        warnings.simplefilter("always")
        with pytest.raises(EncodeError, match=r"test_wrong_.*returned a coroutine, and nothing awaits it.*in-0@0"):
            driver.pipe(source, "abc", key="k")
    assert not warned


@pytest.mark.parametrize("name", [*PREDICATES, *EFFECTS])
def test_a_generator_is_no_result(name: str) -> None:
    chain = {**PREDICATES, **EFFECTS}[name]
    refused(lambda app, stream: chain(app, stream, generating), name, "a generator, of which nothing has run")


@pytest.mark.parametrize("name", PREDICATES)
def test_predicates_may_return_whatever_is_true_or_not(name: str) -> None:
    for result in ([], [1], "", "x", 0, 1, None):
        app = App("app", log="memory:")
        source = app.topic("in", key=str, value=str)
        seen: list[Any] = []
        found = PREDICATES[name](app, app.stream(source), giving(result))
        if found is not None:
            found.changes().peek(seen.append)
        with TopologyDriver(app) as driver:
            driver.pipe(source, "abc", key="k")
            came = bool(seen) if found is not None else bool(driver.read("out"))
        assert came is (bool(result) is not ("not" in name))


@pytest.mark.parametrize("result", ["abc", b"abc", bytearray(b"abc"), {"a": 1}, 5, None])
def test_flat_map_takes_no_single_value_apart(result: Any) -> None:
    shown = "None" if result is None else f"{result!r} of type {type(result).__name__}"
    refused(lambda app, stream: kept(app, stream.flat_map(giving(result))), "flat-map", shown, "[value]")
    refused(lambda app, stream: kept(app, stream.flat_map_kv(giving(result))), "flat-map-kv", shown, "iterable")
    refused(lambda app, stream: kept(app, stream.flat_map(awaiting)), "flat-map", "a coroutine")


@pytest.mark.parametrize("result", ["ab", b"ab", {"a": 1, "b": 2}, {1, 2}, (1,), (1, 2, 3), [1], 5, None])
def test_a_pair_is_two_of_a_tuple(result: Any) -> None:
    words = "return (key, value)", repr(result)
    refused(lambda app, stream: kept(app, stream.map_kv(giving(result))), "map-kv", *words)
    refused(lambda _, stream: stream.map_kv(giving(result)).group_by_key().count(store="s"), "map-kv", *words)
    words = "yield (key, value)", repr(result)
    refused(lambda app, stream: kept(app, stream.flat_map_kv(giving([result]))), "flat-map-kv", *words)


class Two(NamedTuple):
    key: str
    value: int


def test_what_is_a_pair_and_what_can_be_run_through() -> None:
    for result in (("k", 1), ["k", 1], Two("k", 1)):
        app = App("app", log="memory:")
        source = app.topic("in", key=str, value=str)
        app.stream(source).map_kv(giving(result)).to(app.topic("out", key=str, value=int))
        for many in ([result], (result,), iter([result, result]), {1: result}.values()):
            app.stream(source).flat_map_kv(giving(many)).to(app.topic("out", key=str, value=int))
        with TopologyDriver(app) as driver:
            driver.pipe(source, "abc", key="k")
            assert [(row.key, row.value) for row in driver.read("out")] == [("k", 1)] * 6


@pytest.mark.parametrize("chosen", ["out", None, 5])
def test_a_sink_is_given_a_topic(chosen: Any) -> None:
    told = refused(lambda _, stream: stream.to(giving(chosen)), "sink", "it must return a Topic, as app.topic()")
    assert repr(chosen) in told
    refused(lambda _, stream: stream.to(awaiting), "sink", "a coroutine")


def test_a_coroutine_is_no_time_and_is_closed() -> None:
    app = App("app", log="memory:")
    kept(app, app.stream(app.topic("in", key=str, value=str, timestamp=awaiting)))
    with warnings.catch_warnings(record=True) as warned, TopologyDriver(app) as driver:
        warnings.simplefilter("always")
        with pytest.raises(DecodeError, match=r"in-0@0 cannot be read: its timestamp is <coroutine object later"):
            driver.pipe("in", "abc", key="k")
    assert not warned
