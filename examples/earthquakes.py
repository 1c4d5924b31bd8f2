"""Earthquakes per network of stations and six hours, counted once and for all; late ones are kept apart.

    tailrace topics create earthquakes
    tailrace send earthquakes earthquakes.ndjson.gz
    tailrace run tailrace.examples.earthquakes --until end
    tailrace tail earthquakes-counted
    tailrace tail earthquakes-too-late

The input are features of the USGS's feed, one on each line, sorted by `properties.updated`: they came in the order in
which they were last corrected, hours after the shaking, some of them days. A window waits a day for them.
`emit="close"` then sends its one result, and what comes after that is not lost but in `.late`, record by record: one
can see what share a grace of one day misses, and choose.
"""

from datetime import datetime

from msgspec import Struct

from tailrace import App, Windowed, days, hours, reducers, tumbling


class Properties(Struct):
    """What the feed tells of a quake, as far as it is used here."""

    net: str  # the network of stations that reports it
    time: int  # of the quake, milliseconds since the epoch
    mag: float | None = None


class Quake(Struct):
    """One feature of the feed."""

    id: str
    properties: Properties


class Shaking(Struct):
    """What is kept of a window."""

    quakes: int
    strongest: float | None


class Report(Struct):
    """The quakes that one network reported of six hours: final."""

    net: str
    since: datetime
    quakes: int
    strongest: float | None


def as_report(window: Windowed[str], shaking: Shaking) -> tuple[str, Report]:
    """Make a row of a window's result, keyed by network."""
    return window.key, Report(window.key, window.start, shaking.quakes, shaking.strongest)


app = App("earthquakes")

quakes = app.topic("earthquakes", key=bytes, value=Quake, timestamp=lambda quake: quake.properties.time)
reports = app.topic("earthquakes-counted", key=str, value=Report)
too_late = app.topic("earthquakes-too-late", key=str, value=Quake)

windows = app.stream(quakes).group_by(lambda quake: quake.properties.net).windowed_by(tumbling(hours(6), grace=days(1)))
counts = windows.agg(
    Shaking,
    store="shaking",
    emit="close",
    quakes=reducers.count(),
    strongest=reducers.max(lambda quake: quake.properties.mag),
)
counts.changes().map_kv(as_report).to(reports)
windows.late.to(too_late)


if __name__ == "__main__":
    app.run()
