"""Clicks per product and minute: the main job, and what to copy.

    tailrace topics create clicks --partitions 4
    tailrace send clicks clicks.ndjson --key user_id
    tailrace run tailrace.examples.click_counts --until end
    tailrace tail click-counts-output

A line of `clicks.ndjson` is `{"product_id": "p1", "user_id": "u7", "ts": 1700000000123}`. Clicks may come up to five
seconds out of order: that is the grace of the windows. `tailrace demo` runs this very program on clicks of its own.
"""

from datetime import datetime

from msgspec import Struct

from tailrace import App, Windowed, minutes, seconds, tumbling


class Click(Struct):
    """Someone looked at a product."""

    product_id: str
    user_id: str
    ts: int  # milliseconds since the epoch


class ProductClicks(Struct):
    """How often a product was clicked in one minute, so far: the newest one holds."""

    product_id: str
    minute: datetime
    clicks: int


def as_row(window: Windowed[str], clicks: int) -> tuple[str, ProductClicks]:
    """Make a row of a window and its count, keyed by product."""
    return window.key, ProductClicks(window.key, window.start, clicks)


app = App("click-counts")

clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
output = app.topic("click-counts-output", key=str, value=ProductClicks)

counts = (
    app.stream(clicks)
    .group_by(lambda click: click.product_id)
    .windowed_by(tumbling(minutes(1), grace=seconds(5)))
    .count(store="click-counts")
)
counts.changes().map_kv(as_row).to(output)


if __name__ == "__main__":
    app.run()
