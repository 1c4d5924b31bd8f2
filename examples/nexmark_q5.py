"""Nexmark's query 5: which auctions had the most bids in the last ten seconds, every two seconds.

Two steps: each auction's bids are counted in windows that overlap, and the final counts of one window are compared. The
second step sees each count once, as the first one sends a window when it has closed; so it need not take anything back.
How to run it: see `nexmark`.
"""

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from tailrace import App, Topic, Windowed, hopping, json, seconds
from tailrace.examples.nexmark import Auction, Bid, Event, Person


class Counted(Struct):
    """How many bids an auction had in a window."""

    auction: int
    begin: datetime
    bids: int


class Hot(Struct):
    """The auctions with the most bids of a window, so far."""

    begin: datetime | None = None
    bids: int = 0
    auctions: list[int] = []


def bids(event: Event) -> Iterator[Bid]:
    """Keep the bids alone."""
    if isinstance(event, Bid):
        yield event


def as_counted(window: Windowed[int], bids: int) -> tuple[int, Counted]:
    """Make a row of a window and its count, keyed by the window's begin."""
    return window.start_ms, Counted(window.key, window.start, bids)


def hottest(so_far: Hot, counted: Counted) -> Hot:
    """Keep the greatest count, and all auctions that have it."""
    if counted.bids < so_far.bids:
        return so_far
    others = so_far.auctions if counted.bids == so_far.bids else []
    return Hot(counted.begin, counted.bids, sorted([*others, counted.auction]))


app = App("nexmark-q5")

events: Topic[bytes, Person | Auction | Bid] = app.topic(
    "nexmark", key=bytes, codec=json(Person | Auction | Bid), timestamp=lambda event: event.at
)
output = app.topic("hot-auctions", key=int, value=Hot)

counts = (
    app.stream(events)
    .flat_map(bids)
    .group_by(lambda bid: bid.auction)
    .windowed_by(hopping(seconds(10), seconds(2)))
    .count(store="bids", emit="close")
)
hot = counts.changes().map_kv(as_counted).group_by_key().aggregate(Hot, hottest, store="hot")
hot.to(output)


if __name__ == "__main__":
    app.run()
