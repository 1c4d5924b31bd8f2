"""Keys and values that cannot be written where they would have to be: refused when the app is built where it can be
seen, else at the first record, with the operator that made them and the argument that says their type."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from tailrace.errors import EncodeError, TopologyError
from tailrace.streams.app import App
from tailrace.streams.surface.stream import Stream
from tailrace.streams.values.codec import json
from tailrace.testing import TopologyDriver


class Click(Struct):
    page: str = "p"


class View(Struct):
    page: str = "p"


class Plain:
    def __repr__(self) -> str:
        return "Plain()"


def giving(result: Any) -> Callable[..., Any]:
    return lambda *_: result


def a_view(_value: str) -> View:
    return View()


def texts(name: str = "in") -> tuple[App, Stream[str, str]]:
    app = App("app", log="memory:")
    return app, app.stream(app.topic(name, key=str, value=str))


def at_the_record(app: App) -> str:
    with TopologyDriver(app) as driver, pytest.raises(EncodeError) as raised:
        driver.pipe("in", "v", key="k")
    return str(raised.value)


def when_built(app: App) -> str:
    with pytest.raises(TopologyError) as raised:
        app.describe()
    return str(raised.value)


# ---------------------------------------------------------------- repartitions in memory


WAYS: dict[str, Callable[[Stream[Any, Any]], Any]] = {
    "repartition": lambda stream: stream.repartition(name="r").for_each(giving(None)),
    "group-by-count": lambda stream: stream.group_by(giving("k")).count(store="s"),
    "group-by-reduce": lambda stream: stream.group_by(giving("k")).reduce(lambda _a, b: b, store="s"),
    "to-table": lambda stream: stream.map_kv(lambda k, v: (k, v)).to_table(store="s"),
}


@pytest.mark.parametrize("value", [View(), {1, 2}, Plain(), [View()], {"a": Plain()}, 2**70, [2**70], (1, 2)])
@pytest.mark.parametrize("way", WAYS)
def test_values_of_no_type_that_cannot_be_written(way: str, value: Any) -> None:
    _, stream = app_stream = texts()
    WAYS[way](stream.map(giving(value)))
    told = at_the_record(app_stream[0])
    maker = "map-kv-2" if way == "to-table" else "map-1"
    assert f"the value that {maker} at {__file__}:" in told
    assert "name its type with value= there" in told
    assert told.count("cannot be encoded") == 1
    assert "natural" not in told


@pytest.mark.parametrize("key", [View(), frozenset({1}), Plain(), 1.5, True, (1, 2)])
def test_keys_of_no_type_that_cannot_be_written(key: Any) -> None:
    app, stream = texts()
    stream.map_kv(lambda _k, v: (key, v)).repartition(name="r").for_each(giving(None))
    told = at_the_record(app)
    assert f"map-kv-1 at {__file__}:" in told
    assert "name their type with key=" in told


@pytest.mark.parametrize("declared", [None, int])
def test_an_int_key_beyond_64_bits(declared: Any) -> None:
    app, stream = texts()
    stream.group_by(giving(2**70), key=declared).count(store="s")
    told = at_the_record(app)
    assert told.startswith(f"the key that key-by-1 at {__file__}:")
    assert "an int has 64 bits, and this one needs more (the value: 1180591620717411303424)" in told


@pytest.mark.parametrize(
    ("declared", "value"), [(View, Click()), (View, Plain()), (int, "x"), (str, 5), (list, {1: 2}), (float, "x")]
)
def test_values_of_another_type_than_the_named_one(declared: Any, value: Any) -> None:
    app, stream = texts()
    stream.map(giving(value), value=declared).repartition(name="r").for_each(giving(None))
    if declared is list:  # bare: whatever is built in
        with TopologyDriver(app) as driver:
            driver.pipe("in", "v", key="k")
        return
    assert f"the value that map-1 at {__file__}:" in at_the_record(app)


def test_a_type_without_a_codec_is_seen_when_the_app_is_built() -> None:
    for part in ("key", "value"):
        app, stream = texts()
        named: Any = {part: Plain}
        stream.map_kv(lambda k, v: (k, v), **named).repartition(name="r").for_each(giving(None))
        told = when_built(app)
        assert f"the {part} that map-kv-1 at {__file__}:" in told
        assert f"name another type with {part}=" in told


def test_the_second_value_of_a_class_is_looked_at_where_the_class_does_not_tell() -> None:
    values: list[Any] = ["a", [1], None, 1.5, True, 7, [View()]]
    rest = iter(values)
    app, stream = texts()
    seen: list[Any] = []
    stream.map(lambda _v: next(rest)).repartition(name="r").for_each(seen.append)
    with TopologyDriver(app) as driver:
        for _ in values[:-1]:
            driver.pipe("in", "v", key="k")
        with pytest.raises(EncodeError, match="a value of type View would not come back"):
            driver.pipe("in", "v", key="k")
    assert seen == values[:-1]


# ---------------------------------------------------------------- sinks


def test_a_topic_of_another_type_than_the_streams() -> None:
    def told(make: Callable[[App, Stream[str, str]], Any]) -> str:
        app, stream = texts()
        make(app, stream)
        return when_built(app)

    def to(app: App, stream: Stream[Any, Any], key: Any = str, value: Any = str) -> None:
        stream.to(app.topic("out", key=key, value=value))

    words = told(lambda app, stream: to(app, stream, value=int))
    assert "to('out') at " in words
    assert "values of type str, from topic 'in' at " in words
    assert "has values of type int" in words
    assert words.count(__file__) == 3
    words = told(lambda app, stream: to(app, stream.map(a_view), value=Click))
    assert "values of type View, from map-1 at " in words
    assert "name their type with value= there" in words
    assert "keys of type str, from topic 'in'" in told(lambda app, stream: to(app, stream, key=int))
    assert "keys of type int, from key-by-1" in told(lambda app, stream: to(app, stream.key_by(len, key=int)))
    assert "values of type str, from topic 'in'" in told(
        lambda app, stream: stream.through(wrong_topic(app, bytes)).for_each(giving(None))
    )
    counts = told(lambda app, stream: stream.group_by_key().count(store="n").to(wrong_topic(app)))
    assert "values of type int, from count(store='n') at " in counts
    merged = told(lambda app, stream: to(app, stream.map(giving("x")).merge(stream.map(a_view))))
    assert "values of type View, from map-2" in merged


def wrong_topic(app: App, value: Any = Click) -> Any:
    """What the types would not let through."""
    return app.topic("out", key=str, value=value)


def test_topics_that_take_what_the_stream_has() -> None:
    app, stream = texts()
    stream.map(a_view).to(wrong_topic(app, Any))
    both: Any = app.topic("both", key=str, codec=json(View | int))
    stream.map(a_view).to(both)
    floats: Any = app.topic("floats", key=str, value=float)
    stream.map(len, value=int).to(floats)
    stream.map(giving(View())).to(app.topic("views", key=str, value=View))
    app.describe()


def test_a_sink_names_what_made_the_value() -> None:
    app, stream = texts()
    stream.map(giving(5)).to(app.topic("out", key=str, value=View))
    told = at_the_record(app)
    assert "the value for topic 'out', written at " in told
    assert "expected View, got int (the value: 5); it comes from map-1 at " in told
    assert "name its type with value= there" in told


# ---------------------------------------------------------------- merges


def unlike(app: App, stream: Stream[Any, Any]) -> Stream[Any, Any]:
    other: Any = app.stream(app.topic("views", key=str, value=View))
    return stream.merge(other)


@pytest.mark.parametrize("way", ["repartition", "group-by-count", "group-by-reduce", "to-table"])
def test_streams_of_unlike_types_that_would_need_one_codec(way: str) -> None:
    app, stream = texts()
    merged = unlike(app, stream)
    if way == "to-table":
        merged.to_table(store="s")
    else:
        WAYS[way](merged)
    told = when_built(app)
    assert f"what comes together at {__file__}:" in told
    assert "values of type str, from topic 'in' at " in told
    assert "and of type View, from topic 'views' at " in told


def test_streams_of_unlike_types_that_need_none() -> None:
    app, stream = texts()
    unlike(app, stream).map(str).to(app.topic("out", key=str, value=str))
    unlike(app, stream).group_by_key().count(store="n")
    with TopologyDriver(app) as driver:
        driver.pipe("in", "v", key="k")
        driver.pipe("views", View(), key="k")
        assert [row.value for row in driver.read("out")] == ["v", "View(page='p')"]


def test_merged_values_are_looked_at_where_one_side_may_bring_anything() -> None:
    app, stream = texts()
    anything: Any = app.stream(app.topic("any", key=str, codec=json(Any)))
    stream.merge(anything).repartition(name="r").for_each(giving(None))
    with TopologyDriver(app) as driver, pytest.raises(EncodeError, match=r"topic 'in' at .* or topic 'any' at "):
        driver.pipe("any", [1], key="k")


# ---------------------------------------------------------------- aggregates


def test_results_are_told_once_with_the_store_and_the_argument() -> None:
    app, stream = texts()
    stream.group_by_key().aggregate(lambda: None, giving(Plain()), store="s")
    told = at_commit(app)
    assert told.count("cannot be encoded") == 1
    assert "what aggregate(store='s') at " in told
    assert "say what it returns with value=" in told
    app, stream = texts()
    stream.map(giving(1)).group_by_key().reduce(giving(Plain()), store="s")
    told = at_commit(app)
    assert told.count("cannot be encoded") == 1
    assert "what reduce(store='s') at " in told
    assert "it comes from map-1 at " in told


def test_what_reduce_returned_is_not_taken_for_what_came_in() -> None:
    app, stream = texts()
    stream.group_by_key().reduce(giving(3.5), store="s").changes().to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver:
        driver.pipe("in", "v", key="k")
        with pytest.raises(
            EncodeError, match=r"the value: 3\.5\); it comes from reduce\(store='s'\) at .*test_refused"
        ):
            driver.pipe("in", "w", key="k")


def at_commit(app: App) -> str:
    def run(driver: TopologyDriver) -> None:
        for _ in range(2):
            driver.pipe("in", "v", key="k")
        driver.commit()

    with TopologyDriver(app, cache=True) as driver, pytest.raises(EncodeError) as raised:
        run(driver)
    return str(raised.value)
