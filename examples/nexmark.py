"""An auction house, after the Nexmark benchmark: persons, auctions, bids; the input of `nexmark_q5` and `nexmark_q8`.

    python -m tailrace.examples.nexmark 100000 > events.ndjson
    tailrace topics create nexmark --partitions 4
    tailrace send nexmark events.ndjson
    tailrace run tailrace.examples.nexmark_q5 --until end
    tailrace tail hot-auctions

Rates and shares are those of Nexmark's generator: of each 50 events one is a person, three are auctions and the rest
bids, 10,000 a second; every second bid is for the first auction of the current hundred. Other than there, the events
are spread over more time (`delay_ms`), texts are left out, and a bidder's id is that of a person.
"""

import random
import sys
from collections.abc import Iterator

import msgspec
from msgspec import Struct

FIRST_ID = 1_000  # of persons and of auctions
BEGIN_MS = 1_436_918_400_000


class Person(Struct, tag=True):
    """Someone who registered."""

    id: int
    name: str
    at: int  # milliseconds since the epoch, as in the other two


class Auction(Struct, tag=True):
    """Something that a person sells."""

    id: int
    seller: int
    category: int
    at: int


class Bid(Struct, tag=True):
    """A price that a person offers in an auction."""

    auction: int
    bidder: int
    price: int
    at: int


Event = Person | Auction | Bid


def events(count: int, seed: int = 1, delay_ms: float = 5.0) -> Iterator[Event]:
    """Make the first so many events, `delay_ms` of event time apart; the same ones for a seed."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    for number in range(count):
        at, (round_, place) = BEGIN_MS + int(number * delay_ms), divmod(number, 50)
        person, auction = FIRST_ID + round_, FIRST_ID + round_ * 3  # the newest person, and the round's first auction
        if place == 0:
            yield Person(person, f"person {person}", at)
        elif place <= 3:
            seller = _one(chance, person, hot=3 / 4, active=1_000)
            yield Auction(auction + place - 1, seller, 10 + chance.randrange(5), at)
        else:
            bidder = _one(chance, person, hot=3 / 4, active=1_000)
            price = round(100 * 10 ** (6 * chance.random()))
            yield Bid(_one(chance, auction + 2, hot=1 / 2, active=100), bidder, price, at)


def _one(chance: random.Random, newest: int, *, hot: float, active: int) -> int:
    """Choose an id: the first of the current hundred, or any that is active, or one of ten to come."""
    if chance.random() < hot:
        return max(FIRST_ID, newest // 100 * 100)
    return max(FIRST_ID, newest - chance.randrange(active)) + chance.randrange(11)


def main(count: int) -> None:
    """Print so many events, one on each line."""
    encoder = msgspec.json.Encoder()
    for event in events(count):
        sys.stdout.buffer.write(encoder.encode(event) + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
