"""Nexmark's query 8: who opened an auction in the same ten seconds in which they registered.

A join of two streams: a person and an auction of theirs, at most ten seconds apart; of these pairs the ones that lie in
one and the same ten seconds, and each person once. How to run it: see `nexmark`.
"""

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from tailrace import App, Topic, Windowed, json, seconds, tumbling
from tailrace.examples.nexmark import Auction, Bid, Event, Person

SIZE = seconds(10)


class Opened(Struct):
    """A person, and an auction of theirs that came about then."""

    person: int
    name: str
    registered: int
    opened: int


class NewSeller(Struct):
    """Someone who registered and sold within one window: final."""

    person: int
    name: str
    begin: datetime


def persons(event: Event) -> Iterator[Person]:
    """Keep the persons alone."""
    if isinstance(event, Person):
        yield event


def auctions(event: Event) -> Iterator[Auction]:
    """Keep the auctions alone."""
    if isinstance(event, Auction):
        yield event


def opened(person: Person, auction: Auction) -> Opened:
    """Put the two together."""
    return Opened(person.id, person.name, person.at, auction.at)


def in_one_window(pair: Opened) -> bool:
    """Tell whether the two lie in the same ten seconds."""
    size_ms = SIZE.total_seconds() * 1_000
    return pair.registered // size_ms == pair.opened // size_ms


def as_seller(window: Windowed[int], pair: Opened) -> tuple[int, NewSeller]:
    """Make a row of a window's pair, keyed by person."""
    return window.key, NewSeller(pair.person, pair.name, window.start)


app = App("nexmark-q8")

events: Topic[bytes, Person | Auction | Bid] = app.topic(
    "nexmark", key=bytes, codec=json(Person | Auction | Bid), timestamp=lambda event: event.at
)
output = app.topic("new-sellers", key=int, value=NewSeller)

stream = app.stream(events)
registered = stream.flat_map(persons).key_by(lambda person: person.id)
sales = stream.flat_map(auctions).key_by(lambda auction: auction.seller)
pairs = registered.join(sales, opened, store="pairs", within=SIZE).filter(in_one_window)
# A pair's time is the later of the two, so that the windows of this count are those of the query.
sellers = pairs.group_by_key().windowed_by(tumbling(SIZE)).reduce(lambda first, _: first, store="once", emit="close")
sellers.changes().map_kv(as_seller).to(output)


if __name__ == "__main__":
    app.run()
