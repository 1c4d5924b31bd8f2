"""What describe() prints is compared as a whole: whoever changes it sees what users' diffs will see."""

import json

import msgspec
import pytest

from tailrace.streams.app import App
from tailrace.windows.duration import hours, minutes, seconds
from tailrace.windows.session import session
from tailrace.windows.tumbling import tumbling


class Click(msgspec.Struct):
    product: str
    at: int = 0


def clicked_at(click: Click) -> int:
    return click.at


@pytest.fixture
def app() -> App:
    app = App("shop", log="memory:")
    clicks = app.topic("clicks", key=str, value=Click, timestamp=clicked_at)
    out = app.topic("click-counts-output", key=str, value=int)
    windowed = app.stream(clicks).group_by(lambda c: c.product).windowed_by(tumbling(minutes(1), grace=seconds(5)))
    counts = windowed.count(store="click-counts", emit="close", retention=hours(1))
    counts.changes().map_kv(lambda key, n: (key.key, n)).to(out)
    windowed.late.to(app.topic("late-clicks", key=str, value=Click))
    return app


TEXT = """\
App: shop
  Sub-topology: 0
    Source: source-0 (topic: clicks, key: str, value: json(Click), timestamp: clicked_at)
      --> key-by-1
    Processor: key-by-1 (function: lambda)
      --> repartition-2
      <-- source-0
    Sink: repartition-2 (topic: shop-click-counts-repartition, key: str, value: json(Click))
      <-- key-by-1
  Sub-topology: 1 (stores: click-counts)
    Source: repartition-2 (topic: shop-click-counts-repartition, key: str, value: json(Click))
      --> count-3
    Processor: count-3 (store: click-counts, changelog: shop-click-counts-changelog, key: str, value: int, \
window: tumbling(1min, grace=5s), emit: close, grace: 5s, delay: 65s, retention: 1h)
      --> changes-4, late-7 [late]
      <-- repartition-2
    Processor: changes-4
      --> map-kv-5
      <-- count-3
    Processor: map-kv-5 (function: lambda)
      --> sink-6
      <-- changes-4
    Sink: sink-6 (topic: click-counts-output, key: str, value: int)
      <-- map-kv-5
    Processor: late-7
      --> sink-8
      <-- count-3 [late]
    Sink: sink-8 (topic: late-clicks, key: str, value: json(Click))
      <-- late-7
"""

MERMAID = """\
flowchart TD
  subgraph sub0 [Sub-topology 0]
    source_0_0["source-0<br>key: str<br>value: json(Click)<br>timestamp: clicked_at"]
    key_by_1_0["key-by-1<br>function: lambda"]
    repartition_2_0["repartition-2<br>key: str<br>value: json(Click)"]
  end
  subgraph sub1 [Sub-topology 1]
    repartition_2_1["repartition-2<br>key: str<br>value: json(Click)"]
    count_3_1["count-3<br>store: click-counts<br>key: str<br>value: int<br>window: tumbling(1min, grace=5s)<br>\
emit: close<br>grace: 5s<br>delay: 65s<br>retention: 1h"]
    changes_4_1["changes-4"]
    map_kv_5_1["map-kv-5<br>function: lambda"]
    sink_6_1["sink-6<br>key: str<br>value: int"]
    late_7_1["late-7"]
    sink_8_1["sink-8<br>key: str<br>value: json(Click)"]
  end
  topic0[("clicks")]
  topic1[("shop-click-counts-repartition")]
  topic2[("click-counts-output")]
  topic3[("late-clicks")]
  source_0_0 --> key_by_1_0
  topic0 --> source_0_0
  key_by_1_0 --> repartition_2_0
  repartition_2_0 --> topic1
  repartition_2_1 --> count_3_1
  topic1 --> repartition_2_1
  count_3_1 --> changes_4_1
  count_3_1 -->|late| late_7_1
  changes_4_1 --> map_kv_5_1
  map_kv_5_1 --> sink_6_1
  sink_6_1 --> topic2
  late_7_1 --> sink_8_1
  sink_8_1 --> topic3
"""


def test_text(app: App) -> None:
    assert str(app.describe()) == TEXT


def test_mermaid(app: App) -> None:
    assert app.describe().mermaid() == MERMAID


def test_json_says_the_same_as_data(app: App) -> None:
    document = json.loads(app.describe().json())
    assert document["app"] == "shop"
    assert document["internal_topics"] == ["shop-click-counts-repartition", "shop-click-counts-changelog"]
    first, second = document["sub_topologies"]
    assert [row["kind"] for row in first["nodes"]] == ["source", "processor", "sink"]
    assert second["stores"] == ["click-counts"]
    assert second["nodes"][1] == {
        "name": "count-3",
        "kind": "processor",
        "store": "click-counts",
        "changelog": "shop-click-counts-changelog",
        "key": "str",
        "value": "int",
        "window": "tumbling(1min, grace=5s)",
        "emit": "close",
        "grace_ms": 5000,
        "delay_ms": 65000,
        "retention_ms": 3600000,
        "from": [["repartition-2", "main"]],
        "to": [["changes-4", "main"], ["late-7", "late"]],
    }


def test_describing_twice_is_describing_once(app: App) -> None:
    assert str(app.describe()) == str(app.describe())


def test_a_later_hop_shows_how_far_it_may_lag() -> None:
    app = App("shop", log="memory:")
    clicks = app.topic("clicks", key=str, value=Click)
    first = (
        app.stream(clicks).group_by_key().windowed_by(session(seconds(10), grace=seconds(2))).count(store="sessions")
    )
    first.changes().group_by(lambda n: n, partitions=1).count(store="lengths")
    app.stream(clicks).to(lambda _key, _value: clicks)
    text = str(app.describe())
    assert "(topic: shop-lengths-repartition, key: natural, value: int, partitions: 1, delay: 22s)" in text
    assert "Sink: sink-6 (topic chosen by: lambda)" in text
