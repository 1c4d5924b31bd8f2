"""What only the whole program shows, and how it falls into sub-topologies."""

import inspect
import re

import msgspec
import pytest

from tailrace.log.errors import TopologyError
from tailrace.streams.app import App
from tailrace.streams.operators.aggregate import Aggregate
from tailrace.streams.program.io import Late, Repartition, Sink, Source
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Input, Node, Topology, internal_topics
from tailrace.streams.values.codec import codec_of
from tailrace.windows.duration import minutes, seconds
from tailrace.windows.session import session
from tailrace.windows.tumbling import tumbling
from tailrace.windows.unlimited import unlimited
from tailrace.windows.windowed import Windowed


class Click(msgspec.Struct):
    product: str
    user: str = ""
    at: int = 0


@pytest.fixture
def app() -> App:
    return App("shop", log="memory:")


@pytest.fixture
def clicks(app: App) -> Topic[str, Click]:
    return app.topic("clicks", key=str, value=Click)


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def refused(app: App, *lines: int) -> str:
    """The words of the refusal, which must name these lines of this file."""
    with pytest.raises(TopologyError) as raised:
        app.describe()
    words = str(raised.value)
    assert [int(found) for found in re.findall(re.escape(__file__) + r":(\d+)", words)] == list(lines), words
    return words


def node(topology: Topology, kind: type) -> Node:
    (found,) = [node for node in topology.nodes if isinstance(node.operator, kind)]
    return found


def test_two_stores_of_one_name(app: App, clicks: Topic[str, Click]) -> None:
    grouped = app.stream(clicks).group_by_key()
    grouped.count(store="counts")
    first = line() - 1
    grouped.reduce(lambda a, _b: a, store="counts")
    assert "store='counts' is used twice" in refused(app, first, line() - 1)


def test_two_repartitions_of_one_name(app: App, clicks: Topic[str, Click]) -> None:
    stream = app.stream(clicks)
    stream.group_by(lambda c: c.product, name="by").count(store="a")
    stream.group_by(lambda c: c.user, name="by").count(store="b")
    assert "'shop-by-repartition' is used twice" in refused(app, line() - 2, line() - 1)


@pytest.mark.parametrize("store", ["", "a b", "ä", "x" * 250])
def test_store_names_that_cannot_name_a_topic(app: App, clicks: Topic[str, Click], store: str) -> None:
    app.stream(clicks).group_by_key().count(store=store)
    assert "cannot name a topic" in refused(app, line() - 1)


def test_a_topic_declared_in_two_ways(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).to(app.topic("out", key=str, value=Click))
    first = line() - 1
    app.topic("out", key=str, value=int)
    words = refused(app, first, line() - 1)
    assert "topic 'out' is declared twice" in words
    assert "value=Click" in words
    assert "value=int" in words


def test_a_topic_declared_twice_in_the_same_way(app: App, clicks: Topic[str, Click]) -> None:
    again = app.topic("clicks", key=str, value=Click)
    app.stream(clicks).to(app.topic("out", key=str, value=Click))
    app.stream(again).to(app.topic("out", key=str, value=Click))
    sources = [node for node in app.describe().nodes if isinstance(node.operator, Source)]
    assert len(sources) == 1


def test_an_app_that_reads_nothing(app: App) -> None:
    assert "begin with app.stream(topic)" in refused(app)


def test_an_app_that_writes_and_keeps_nothing(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).filter(lambda c: c.at > 0)
    assert "end with .to(topic)" in refused(app, line() - 1)


def test_a_store_is_enough(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).group_by_key().count(store="counts")
    assert app.describe().subtopologies[0].stores == ("counts",)


def test_late_of_a_grouping_without_aggregate(app: App, clicks: Topic[str, Click]) -> None:
    windowed = app.stream(clicks).group_by_key().windowed_by(tumbling(minutes(1)))
    others = app.topic("others", key=str, value=Click)
    windowed.late.to(others)
    assert "late at" in refused(app, line() - 1)


def test_windowed_keys_in_a_topic_of_plain_ones(app: App, clicks: Topic[str, Click]) -> None:
    out = app.topic("out", key=str, value=int)
    declared = line() - 1
    table = app.stream(clicks).group_by_key().windowed_by(tumbling(minutes(1))).count(store="counts")
    table.to(out)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the types would have told
    assert "windowed keys" in refused(app, line() - 1, declared)


def test_writing_to_a_topic_of_the_apps_own(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).group_by_key().count(store="counts")
    kept = line() - 1
    app.stream(clicks).to(app.topic("shop-counts-changelog", key=str, value=Click))
    assert "the app's own" in refused(app, line() - 1, kept)


def test_an_output_that_is_also_the_input(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).filter(lambda c: c.at > 0).to(clicks)
    with pytest.raises(
        TopologyError,
        match=r"topic 'clicks', read at .*:\d+, is written at .*:\d+ from what it brought.* write to another topic$",
    ):
        app.describe()


def test_a_circle_through_several_topics(app: App, clicks: Topic[str, Click]) -> None:
    first, second = (app.topic(name, key=str, value=Click) for name in ("first", "second"))
    app.stream(clicks).through(first).group_by(lambda c: c.product).reduce(lambda a, _b: a, store="s").to(second)
    assert len(app.describe().subtopologies) == 3
    app.stream(second).merge(app.stream(clicks)).to(first)
    with pytest.raises(TopologyError, match=r"topic 'first', read at"):
        app.describe()


def test_writers_of_a_topic_come_before_its_readers(app: App, clicks: Topic[str, Click]) -> None:
    inner = app.topic("inner", key=str, value=Click)
    app.stream(inner).to(app.topic("out", key=str, value=Click))
    app.stream(clicks).to(inner)
    topology = app.describe()
    assert [part.sources[0].name for part in topology.subtopologies] == ["source-2", "source-0"]
    assert topology.inner_topics == {"inner"}


def test_a_repartition_that_nobody_reads(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).to(app.topic("out", key=str, value=Click))
    app.stream(clicks).repartition(name="again")
    with pytest.raises(TopologyError, match=r"the repartition at .* leads nowhere"):
        app.describe()


def test_a_repartition_beside_what_it_was_made_of(app: App, clicks: Topic[str, Click]) -> None:
    stream = app.stream(clicks)
    stream.repartition(name="again").merge(stream).print()
    with pytest.raises(TopologyError, match=r"comes together with what it was made of: put a topic between"):
        app.describe()


def test_a_repartition_of_a_repartition(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).repartition(name="a", partitions=2).repartition(name="b", partitions=3).print()
    assert [[each.name for each in part.nodes] for part in app.describe().subtopologies] == [
        ["source-0"],
        ["pass-2"],
        ["print-4"],
    ]


def test_a_repartition_divides(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).group_by(lambda c: c.product, partitions=3).count(store="counts")
    topology = app.describe()
    first, second = topology.subtopologies
    cut = node(topology, Repartition)
    assert first.repartitions_written == second.repartitions_read == (cut,)
    assert first.repartitions_read == second.repartitions_written == ()
    assert [each.operator.kind for each in first.nodes] == ["source", "processor"]
    assert second.stores == ("counts",)
    assert isinstance(cut.operator, Repartition)
    assert cut.operator.partitions == 3
    assert internal_topics("shop", topology.nodes) == [
        "shop-counts-repartition",
        "shop-counts-changelog",
    ]


def test_an_unchanged_key_needs_no_repartition(app: App, clicks: Topic[str, Click]) -> None:
    stream = app.stream(clicks).filter(lambda c: c.at > 0).map(lambda c: c.user)
    stream.group_by_key().count(store="counts")
    assert len(app.describe().subtopologies) == 1


@pytest.mark.parametrize("how", ["key_by", "map_kv"])
def test_a_changed_key_is_repartitioned_once_where_it_is_named(app: App, clicks: Topic[str, Click], how: str) -> None:
    stream = app.stream(clicks)
    changed = stream.key_by(lambda c: c.user) if how == "key_by" else stream.map_kv(lambda _k, c: (c.user, c))
    grouped = changed.group_by_key(name="by-user")
    grouped.count(store="counts").to_stream().group_by_key().count(store="changes")
    grouped.reduce(lambda a, _b: a, store="first")
    topology = app.describe()
    assert node(topology, Repartition).operator.repartition == "by-user"
    assert len(topology.subtopologies) == 2
    assert topology.subtopologies[1].stores == ("counts", "changes", "first")


def test_without_a_name_each_store_has_its_repartition(app: App, clicks: Topic[str, Click]) -> None:
    grouped = app.stream(clicks).group_by(lambda c: c.product)
    grouped.count(store="counts")
    grouped.reduce(lambda a, _b: a, store="first")
    topology = app.describe()
    assert [part.stores for part in topology.subtopologies] == [(), ("counts",), ("first",)]
    assert len(topology.subtopologies[0].repartitions_written) == 2


def test_unrelated_streams_run_apart_and_merged_ones_together(app: App, clicks: Topic[str, Click]) -> None:
    others = app.topic("others", key=str, value=Click)
    app.stream(clicks).to(app.topic("a", key=str, value=Click))
    app.stream(others).to(app.topic("b", key=str, value=Click))
    assert [[each.name for each in part.sources] for part in app.describe().subtopologies] == [
        ["source-0"],
        ["source-2"],
    ]
    app.stream([clicks, others]).to(app.topic("c", key=str, value=Click))
    (part,) = app.describe().subtopologies
    assert [each.name for each in part.sources] == ["source-0", "source-2"]


def test_late_hangs_on_the_first_aggregate(app: App, clicks: Topic[str, Click]) -> None:
    windowed = app.stream(clicks).group_by_key().windowed_by(tumbling(minutes(1)))
    others = app.topic("others", key=str, value=Click)
    windowed.late.to(others)
    windowed.count(store="counts")
    windowed.reduce(lambda a, _b: a, store="first")
    windowed.late.filter(lambda c: c.at > 0).to(others)
    topology = app.describe()
    late = node(topology, Late)
    counts = next(each for each in topology.nodes if isinstance(each.operator, Aggregate))
    assert late.parents == (Input(counts.id, "late"),)
    assert topology.nodes.index(counts) < topology.nodes.index(late)
    assert len(topology.children(late.id)) == 2
    assert topology.children(counts.id, "late") == [late]


def test_errors_of_a_stream_are_those_of_its_sources(app: App, clicks: Topic[str, Click]) -> None:
    raw = app.topic("raw", key=bytes, value=bytes)
    app.stream(clicks).filter(lambda c: c.at > 0).errors.to(raw)
    topology = app.describe()
    assert [each.operator.kind for each in topology.children(0, "errors")] == ["sink"]
    app.stream([clicks, app.topic("others", key=str, value=Click)]).errors.to(raw)
    assert [each.name for each in app.describe().children(0, "errors")] == ["sink-2", "errors-5"]


def test_delay_and_grace_along_the_way(app: App, clicks: Topic[str, Click]) -> None:
    first = app.stream(clicks).group_by(lambda c: c.product).windowed_by(tumbling(minutes(1), grace=seconds(5)))
    table = first.count(store="counts")
    second = table.changes().group_by(lambda n: n).windowed_by(session(seconds(10), grace=seconds(2)))
    second.count(store="again")
    topology = app.describe()
    source = topology.nodes[0]
    cuts = [each for each in topology.nodes if isinstance(each.operator, Repartition)]
    assert [topology.delay_ms(cut) for cut in cuts] == [0, 65_000]
    assert [topology.least_tolerated_ms(cut) for cut in cuts] == [2_000, 2_000]
    assert topology.least_tolerated_ms(source) == 2_000
    assert topology.least_tolerated_ms(topology.nodes[-1]) == 2_000


def test_no_windows_no_grace(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).group_by_key().count(store="counts").to(app.topic("out", key=str, value=int))
    topology = app.describe()
    assert topology.least_tolerated_ms(topology.nodes[0]) is None
    app.stream(clicks).group_by_key().windowed_by(unlimited()).count(store="all")
    assert app.describe().delay_ms(app.describe().nodes[-1]) == 0


class Strange:
    """Nothing that msgspec knows."""


def test_a_type_without_codec_in_front_of_a_store(app: App, clicks: Topic[str, Click]) -> None:
    app.stream(clicks).map(lambda _c: Strange(), value=Strange).group_by_key().reduce(lambda a, _b: a, store="first")
    words = refused(app, line() - 1)
    assert "the value that map-1 at" in words
    assert "name another type with value=" in words


def test_a_type_without_codec_that_never_leaves_the_chain(app: App, clicks: Topic[str, Click]) -> None:
    stream = app.stream(clicks).map(lambda _c: Strange(), value=Strange)
    stream.map(lambda s: str(s)).to(app.topic("out", key=str, value=str))  # noqa: PLW0108 - its type is to be unknown
    app.describe()


def test_a_topic_may_follow_after_describe(app: App, clicks: Topic[str, Click]) -> None:
    table = app.stream(clicks).group_by(lambda c: c.product).reduce(lambda a, _b: a, store="first")
    counts = node(app.describe(), Aggregate).operator
    assert isinstance(counts, Aggregate)
    assert counts.key.codec.hashable
    assert counts.key.codec is not codec_of(str)
    table.to(clicks)
    assert counts.key.codec is codec_of(str)


def test_codecs_travel_and_following_topics_tell(app: App, clicks: Topic[str, Click]) -> None:
    out = app.topic("out", key=Windowed[str], value=int)
    grouped = app.stream(clicks).group_by(lambda c: c.product)
    grouped.windowed_by(tumbling(minutes(1))).count(store="counts").changes().map(lambda n: n + 1).to(out)
    topology = app.describe()
    cut, sink, counts = (node(topology, kind).operator for kind in (Repartition, Sink, Aggregate))
    assert isinstance(cut, Repartition)
    assert isinstance(sink, Sink)
    assert isinstance(counts, Aggregate)
    assert cut.key.codec is counts.key.codec is codec_of(str)
    assert cut.value.codec is clicks.value_codec
    key, value = sink.codecs(out)
    assert key.encode(Windowed("tea", 0, 60_000)) == b"tea" + bytes(8)
    assert value is codec_of(int)
    assert out.key_codec.decode(b"tea" + bytes(8)) == Windowed("tea", 0, 60_000)
