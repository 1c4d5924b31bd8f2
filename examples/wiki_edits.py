"""Edits of Wikipedia per minute and language: one result for each minute, when it is over.

    tailrace topics create wiki-raw
    tailrace send wiki-raw wikiticker.ndjson.gz
    tailrace run tailrace.examples.wiki_edits --until end
    tailrace tail edits-per-minute

Some events of the recording bear the date of another day: one from seven weeks ahead would carry event time with it,
and make all that comes after it late. So event time begins behind a filter: the raw topic has no `timestamp=`, and the
topic that the stream goes `through` has one. The counts change with every edit; `suppress` holds them back until the
minute and its grace are over.
"""

from datetime import UTC, date, datetime

from msgspec import Struct

from tailrace import App, Windowed, minutes, seconds, tumbling, until_window_closes

DAY = date(2015, 9, 12)  # of the recording


class Edit(Struct):
    """Someone, or some program, changed a page."""

    time: datetime
    channel: str  # "#en.wikipedia"
    page: str
    user: str
    delta: int | None = None  # how many bytes longer the page is


class Minute(Struct):
    """The edits of one language in one minute: final."""

    language: str
    minute: datetime
    edits: int


def on_the_day(edit: Edit) -> bool:
    """Tell whether an event's clock may be believed."""
    return edit.time.astimezone(UTC).date() == DAY


def language(edit: Edit) -> str:
    """Read "en" out of "#en.wikipedia"."""
    return edit.channel.removeprefix("#").split(".")[0]


def as_minute(window: Windowed[str], edits: int) -> tuple[str, Minute]:
    """Make a row of a window and its count, keyed by language."""
    return window.key, Minute(window.key, window.start, edits)


app = App("wiki-edits")

raw = app.topic("wiki-raw", key=bytes, value=Edit)
edits = app.topic("wiki-edits", key=bytes, value=Edit, timestamp=lambda edit: edit.time)
output = app.topic("edits-per-minute", key=str, value=Minute)

per_minute = (
    app.stream(raw)
    .filter(on_the_day)
    .through(edits)
    .group_by(language)
    .windowed_by(tumbling(minutes(1), grace=seconds(5)))
    .count(store="per-minute")
)
per_minute.suppress(until_window_closes(), store="minutes-not-over").changes().map_kv(as_minute).to(output)


if __name__ == "__main__":
    app.run()
