"""Two queries of Nexmark, by the examples and by plain scripts."""

from collections import Counter
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from tailrace.examples.nexmark import BEGIN_MS, Auction, Bid, Event, Person, events
from tailrace.tests.support.command import Command

LAST_MS = BEGIN_MS + 100_000  # 20,000 events, 5 ms apart


@pytest.fixture
def sent(tailrace: Command, tmp_path: Path) -> list[Event]:
    """Events in four partitions."""
    made = list(events(20_000))
    (tmp_path / "events.ndjson").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in made))
    tailrace.ok("topics", "create", "nexmark", "--partitions", "4")
    tailrace.ok("send", "nexmark", str(tmp_path / "events.ndjson"))
    return made


def run(tailrace: Command, example: str) -> None:
    summary = tailrace.ok("run", f"tailrace.examples.{example}", "--until", "end", "--json").json[0]
    assert summary["records_in"] == 20_000
    assert sum(summary["dropped"].values()) == 0


def ms(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)


def test_q5_hot_auctions(tailrace: Command, sent: list[Event]) -> None:
    counts: Counter[tuple[int, int]] = Counter()
    for bid in sent:
        if isinstance(bid, Bid):
            newest = bid.at // 2_000 * 2_000
            counts.update((begin, bid.auction) for begin in range(newest - 8_000, newest + 1, 2_000))
    most: dict[int, int] = {}
    for (begin, _), n in counts.items():
        most[begin] = max(most.get(begin, 0), n)
    plain = {
        begin: (n, sorted(auction for (at, auction), m in counts.items() if (at, m) == (begin, n)))
        for begin, n in most.items()
        if begin + 10_000 < LAST_MS
    }
    assert len(plain) == 49
    run(tailrace, "nexmark_q5")
    rows = tailrace.values("hot-auctions")
    assert {ms(row["begin"]): (row["bids"], row["auctions"]) for row in rows} == plain


def test_q8_new_sellers(tailrace: Command, sent: list[Event]) -> None:
    registered = {event.id: event for event in sent if isinstance(event, Person)}
    plain: set[tuple[int, str, int]] = set()
    for event in sent:
        person = registered.get(event.seller) if isinstance(event, Auction) else None
        if person and person.at // 10_000 == event.at // 10_000 and event.at < LAST_MS - 10_000:
            plain.add((person.id, person.name, event.at // 10_000 * 10_000))
    assert len(plain) > 10
    run(tailrace, "nexmark_q8")
    rows = tailrace.values("new-sellers")
    assert sorted((row["person"], row["name"], ms(row["begin"])) for row in rows) == sorted(plain), "each once"


def test_the_events_are_those_of_nexmark() -> None:
    made = list(events(50_000, seed=3))
    assert [type(event).__name__ for event in made[50:55]] == ["Person", "Auction", "Auction", "Auction", "Bid"]
    assert Counter(type(event) for event in made) == {Person: 1_000, Auction: 3_000, Bid: 46_000}
    for kind in (Person, Auction):
        ids = [event.id for event in made if isinstance(event, kind)]
        assert ids == list(range(1_000, 1_000 + len(ids)))
    bids = [event for event in made if isinstance(event, Bid)]
    hot = sum(1 for bid in bids if bid.auction % 100 == 0)
    assert 0.48 < hot / len(bids) < 0.55
    assert all(100 <= bid.price <= 100_000_000 for bid in bids)
    assert made == list(events(50_000, seed=3)), "the same for a seed"
