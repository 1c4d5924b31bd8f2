"""Arguments that are wrong in themselves are refused at the call, in words that name it."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tailrace.log.errors import InvalidError, TopologyError
from tailrace.streams.app import App
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.program.io import Sink
from tailrace.streams.program.topic import Topic
from tailrace.streams.surface.stream import Stream
from tailrace.windows.duration import days, minutes, seconds
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.unlimited import unlimited


class Click(msgspec.Struct):
    product: str
    at: int = 0


async def _later(*_arguments: Any) -> Any:
    return None


later: Any = _later  # what the types would refuse


def wrong(value: object) -> Any:
    """A value that the types would refuse."""
    return value


@pytest.fixture
def app() -> App:
    return App("shop", log="memory:")


@pytest.fixture
def stream(app: App) -> Stream[str, Click]:
    return app.stream(app.topic("clicks", key=str, value=Click))


METHODS = (
    *("filter", "filter_not", "filter_kv", "map", "map_values", "map_kv", "flat_map", "flat_map_kv", "key_by", "to"),
    *("peek", "peek_kv", "for_each", "for_each_kv", "group_by", "group_by_kv"),
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("f", "words"), [(later, "is async"), (3, "takes a function")])
def test_async_functions_and_no_functions(stream: Stream[str, Click], method: str, f: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        getattr(stream, method)(f)


def test_functions_of_aggregates(stream: Stream[str, Click]) -> None:
    grouped = stream.group_by_key()
    with pytest.raises(TypeError, match=r"reduce\(store='a'\) takes a plain function, and _later is async"):
        grouped.reduce(later, store="a")
    with pytest.raises(TypeError, match=r"aggregate\(store='a'\)"):
        grouped.aggregate(int, later, store="a")
    with pytest.raises(TypeError, match=r"aggregate\(store='a', zero=…\) takes a function, not 0"):
        grouped.aggregate(wrong(0), lambda a, _v: a, store="a")
    with pytest.raises(TypeError, match=r"aggregate\(store='a', merge=…\)"):
        grouped.windowed_by(session(seconds(1))).aggregate(int, lambda a, _v: a, store="a", merge=later)


def test_sessions_need_merge_and_others_must_not_have_it(stream: Stream[str, Click]) -> None:
    grouped = stream.group_by_key()
    with pytest.raises(TypeError, match="needs merge="):
        grouped.windowed_by(session(seconds(1))).aggregate(int, lambda a, _v: a + 1, store="a")
    with pytest.raises(TypeError, match="is for sessions"):
        grouped.windowed_by(sliding(seconds(1))).aggregate(
            int, lambda a, _v: a + 1, store="a", merge=lambda a, b: a + b
        )
    sessions = grouped.windowed_by(session(seconds(1)))
    sessions.count(store="counts")
    sessions.reduce(lambda a, _b: a, store="first")
    sessions.aggregate(int, lambda a, _v: a + 1, store="a", merge=lambda a, b: a + b)


def test_arguments_of_windowed_aggregates(app: App, stream: Stream[str, Click]) -> None:
    windowed = stream.group_by_key().windowed_by(tumbling(minutes(1), grace=seconds(5)))
    with pytest.raises(ValueError, match="emit='final' is neither"):
        windowed.count(store="a", emit=wrong("final"))
    with pytest.raises(ValueError, match=r"retention=1min is shorter than the 65s"):
        windowed.count(store="a", retention=minutes(1))
    with pytest.raises(ValueError, match="never sends anything"):
        stream.group_by_key().windowed_by(unlimited()).count(store="a", emit="close")
    with pytest.raises(TypeError, match=r"windowed_by takes a window such as tumbling\(minutes\(1\)\)"):
        stream.group_by_key().windowed_by(wrong(minutes(1)))
    windowed.count(store="a", emit="close", retention=days(1))
    found = [node.operator for node in app.describe().nodes if isinstance(node.operator, Aggregate)]
    assert [(each.emit, each.retention_ms, each.grace_ms) for each in found] == [("close", 86_400_000, 5_000)]


@pytest.mark.parametrize("partitions", [0, -1])
def test_partitions_are_above_zero(app: App, stream: Stream[str, Click], partitions: int) -> None:
    with pytest.raises(ValueError, match="not a number above 0"):
        stream.group_by(lambda c: c.product, partitions=partitions)
    with pytest.raises(ValueError, match=r"group_by_kv\(partitions=.*not a number above 0"):
        stream.group_by_kv(lambda k, _c: k, partitions=partitions)
    with pytest.raises(ValueError, match=r"repartition\(partitions=.*not a number above 0"):
        stream.repartition(name="again", partitions=partitions)
    with pytest.raises(ValueError, match="topic 'x': partitions"):
        app.topic("x", key=str, value=str, partitions=partitions)


@pytest.mark.parametrize(
    ("branches", "default", "words"),
    [
        ([len], None, "takes a mapping of names to functions"),
        ({1: len}, None, "1 is no name of a branch"),
        ({"a": later}, None, r"split\('a'\) takes a plain function, and _later is async"),
        ({"a": len}, 3, r"split\(default=3\) is no name"),
        ({"a": len}, "a", "is the name of another branch"),
        ({}, None, "has no branch"),
    ],
)
def test_branches_are_checked(stream: Stream[str, Click], branches: Any, default: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        stream.split(branches, default=default)


def test_what_can_be_merged(app: App, stream: Stream[str, Click]) -> None:
    other = App("other", log="memory:")
    with pytest.raises(ValueError, match="a stream of another app"):
        stream.merge(other.stream(other.topic("clicks", key=str, value=Click)))
    with pytest.raises(TypeError, match="merge takes streams, not 3"):
        stream.merge(wrong(3))
    with pytest.raises(TypeError, match=r"print\(label=3\)"):
        stream.print(wrong(3))
    assert isinstance(stream.merge(), Stream)


@pytest.mark.parametrize("end", ["peek", "print", "for_each"])
def test_a_program_may_end_in_an_effect(app: App, stream: Stream[str, Click], end: str) -> None:
    with pytest.raises(TopologyError, match="writes nothing and keeps nothing"):
        app.describe()
    getattr(stream, end)(*([] if end == "print" else [str]))
    assert end.replace("_", "-") in str(app.describe())


@pytest.mark.parametrize("method", ["filter", "filter_not", "filter_kv", "map", "map_values", "map_kv"])
def test_functions_and_stores_of_tables(app: App, method: str) -> None:
    table = app.table(app.topic("clicks", key=str, value=Click), store="clicks")
    with pytest.raises(TypeError, match=rf"{method} takes a plain function, and _later is async"):
        getattr(table, method)(later)
    with pytest.raises(TypeError, match=rf"{method}\(store=3\) is not a name"):
        getattr(table, method)(len, store=3)
    getattr(table, method)(len, store="clicks")
    with pytest.raises(TopologyError, match=r"store='clicks' is used twice"):
        app.describe()


def test_tables_need_a_topic_and_a_store(app: App, stream: Stream[str, Click]) -> None:
    with pytest.raises(TypeError, match=r"app\.table takes a topic, as app\.topic\(\) returns it, not 'clicks'"):
        app.table(wrong("clicks"), store="clicks")
    with pytest.raises(TypeError, match=r'app\.table needs store=, .*: store="table"'):
        app.table(app.topic("clicks", key=str, value=Click), store=wrong(None))
    with pytest.raises(TypeError, match=r"to_table needs store="):
        stream.to_table(store=wrong(None))


def test_through_and_repartition_are_checked(stream: Stream[str, Click]) -> None:
    with pytest.raises(TypeError, match=r"through takes a topic, as app\.topic\(\) returns it, not 'a'"):
        stream.through(wrong("a"))
    with pytest.raises(TypeError, match=r"repartition\(name=None\) is not a name"):
        stream.repartition(name=wrong(None))


def test_store_is_a_name(stream: Stream[str, Click]) -> None:
    with pytest.raises(TypeError, match=r"count needs store="):
        stream.group_by_key().count(store=wrong(None))


@pytest.mark.parametrize("topic", ["clicks", 3, ["clicks"], None])
def test_app_stream_takes_topics(app: App, topic: Any) -> None:
    with pytest.raises(TypeError, match=r"app\.stream takes topics"):
        app.stream(topic)


def test_app_stream_takes_at_least_one(app: App) -> None:
    with pytest.raises(ValueError, match="at least one topic"):
        app.stream([])


def test_topics_are_checked_when_declared(app: App) -> None:
    class Strange:
        pass

    with pytest.raises(InvalidError, match="not allowed"):
        app.topic("a b", key=str, value=str)
    with pytest.raises(TypeError, match=r"the value of topic 'x' has no codec: Strange"):
        app.topic("x", key=str, value=Strange)
    with pytest.raises(TypeError, match="is async"):
        app.topic("x", key=str, value=Click, timestamp=later)
    with pytest.raises(InvalidError, match=r"retention\.ms"):
        app.topic("x", key=str, value=str, config={"retention.mss": 1})


def test_what_a_topic_is_created_with(app: App) -> None:
    topic = app.topic("x", key=str, value=Click, partitions=4, compact=True, config={"retention.ms": 1})
    assert (topic.partitions, topic.config) == (4, {"cleanup.policy": "compact", "retention.ms": "1"})
    assert repr(topic) == "Topic('x', key=str, value=Click)"
    assert app.topic("y", key=str, codec="msgpack").value_codec.name == "msgpack(Any)"


def test_a_sink_that_chooses(app: App, stream: Stream[str, Click]) -> None:
    out: Topic[str, Click] = app.topic("out", key=str, value=Click)
    stream.to(lambda _key, _value: out)
    sink = app.describe().nodes[-1].operator
    assert isinstance(sink, Sink)
    assert sink.topic is None
    assert sink.choose is not None
    assert sink.choose("a", Click("x")) is out
    assert sink.codecs(out) == (out.key_codec, out.value_codec)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"log": 3}, "neither a URL nor a Log"),
        ({"guarantee": "at_most_once"}, "guarantee='at_most_once'"),
        ({"on_bad_record": "ignore"}, "on_bad_record='ignore'"),
        ({"reset": "none"}, "reset='none'"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"commit_interval": timedelta(0)}, "commit_interval"),
        ({"commit_interval": 5}, "commit_interval"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        App("shop", **options)


def test_the_name_begins_the_names_of_topics() -> None:
    with pytest.raises(InvalidError, match="not allowed"):
        App("my shop")


def test_options_have_defaults() -> None:
    options = App("shop").options
    assert (options.guarantee, options.on_bad_record, options.reset) == ("exactly_once", "fail", "earliest")
