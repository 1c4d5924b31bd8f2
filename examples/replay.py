"""A rate that was calculated wrongly, put right: replayed, compared, promoted, undone.

    python -m tailrace.examples.replay [LOG]

What does an edit of Wikipedia add, where it adds something? The first program divides the bytes that were added by all
edits, also by those that took something away: its average is too low. The second divides by those that added. Edits are
read from the topic `wiki-raw`, as for tailrace.examples.wiki_edits; where there is none, some are made.

The two have one name: they are versions of one program. The second runs over the same input beside the first, into
`additions.v2`; what differs is shown; then readers of `additions` are moved to it, and back.
"""

import sys
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from tailrace import App, Log, Topic, reducers
from tailrace.examples.wiki_edits import Edit, language


class Additions(Struct):
    """Of a language, so far."""

    edits: int
    bytes_each: float


class Sums(Struct):
    """What an average is made of."""

    edits: int
    adding: int
    added: int


def wrong(sums: Sums) -> Additions:
    """Divide by all edits: the bug."""
    return Additions(sums.edits, sums.added / sums.edits)


def right(sums: Sums) -> Additions:
    """Divide by those that added something."""
    return Additions(sums.edits, sums.added / sums.adding if sums.adding else 0.0)


def bytes_added(edit: Edit) -> int:
    """Tell how many bytes longer an edit made its page, if it did."""
    return max(edit.delta or 0, 0)


def program(log: Log, *, fixed: bool) -> tuple[App, Topic[str, Additions]]:
    """Make one of the two versions, and its output."""
    app = App("additions", log=log)
    output = app.topic("additions", key=str, value=Additions, compact=True)
    sums = (
        app.stream(app.topic("wiki-raw", key=bytes, value=Edit))
        .group_by(language)
        .agg(
            Sums,
            store="sums",
            edits=reducers.count(),
            adding=reducers.sum(lambda edit: 1 if bytes_added(edit) else 0),
            added=reducers.sum(bytes_added),
        )
    )
    sums.map(right if fixed else wrong).to(output)
    return app, output


def make_edits(log: Log) -> None:
    """Write some edits, where nobody has: those in German add something each time."""
    log.create_topic("wiki-raw", partitions=2)
    with log.producer() as producer:
        for number in range(3_000):
            at = datetime.fromtimestamp(1_442_000_000 + number, UTC)
            name = ("en", "de", "vi")[number % 7 % 3]
            delta = number % 100 + 1 if name == "de" else number % 100 - 30
            edit = Edit(at, f"#{name}.wikipedia", f"page {number % 90}", f"user {number % 40}", delta)
            producer.send("wiki-raw", msgspec.json.encode(edit), timestamp_ms=round(at.timestamp() * 1000))


def newest(log: Log) -> dict[str, Additions]:
    """Read what a reader of the output holds in the end."""
    found: dict[str, Additions] = {}
    with log.consumer() as reader:
        reader.assign(list(log.offsets("additions")))
        while records := reader.poll():
            for record in records:
                if record.key is not None and record.value is not None:
                    found[record.key.decode()] = msgspec.json.decode(record.value, type=Additions)
    return found


def main(url: str) -> None:
    """Do all of it on a log."""
    with Log.open(url) as log:
        if "wiki-raw" not in log.topics():
            make_edits(log)
        app, _ = program(log, fixed=False)
        app.run(until="end")
        before = newest(log)

        app, output = program(log, fixed=True)
        with app.replay(into="v2") as job:
            job.run()
            print(f"replayed: {job.progress()}")
            found = job.diff(output, tolerance=1e-9)
            print(found)
            example = found.samples[0].key if found.samples else next(iter(before))
            print(f"a reader sees of {example!r}:")
            print(f"  before     {before[example]}")
            job.promote()
            print(f"  promoted   {newest(log)[example]}")
            job.undo()
            print(f"  undone     {newest(log)[example]}")
            job.promote()
        app.run(until="end")  # the right program, where the job was
        print(f"  and again  {newest(log)[example]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory:")
