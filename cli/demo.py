"""`tailrace demo`: the main job on clicks of its own, from nothing to checked results.

1. It runs `tailrace.examples.click_counts`, the program that a user would copy, on an embedded log in a directory.
2. It checks itself: every count equals a plain count made while the clicks were generated, and none was dropped.
3. It only ever deletes a directory that an earlier demo made, known by the mark in it; run again, it begins anew.
"""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.table import Table

from tailrace.cli.clicks import Counts, clicks
from tailrace.cli.errors import CommandError
from tailrace.cli.interrupts import interrupts
from tailrace.cli.output import Output, make_table, rate
from tailrace.cli.running import drawn, run_app
from tailrace.cli.session import Session, directory_of, shared
from tailrace.examples import click_counts
from tailrace.log.checkpoint import META_PROPERTIES
from tailrace.log.client import Consumer, Log
from tailrace.log.clock import SystemClock
from tailrace.log.disk import RealDisk
from tailrace.log.errors import LogLockedError
from tailrace.log.topics.directory import LOCK
from tailrace.streams.running.summary import Summary

DIRECTORY = "./tailrace-demo"
PARTITIONS = 4
_MARK = "made-by-tailrace-demo"
_BUSIEST = 10


@shared
def demo(
    session: Session,
    events: Annotated[int, typer.Option(min=1, help="How many clicks.")] = 300_000,
    seed: Annotated[int, typer.Option(help="Other clicks for another seed.")] = 1,
) -> int:
    """Generate clicks, count them per product and minute, show the busiest products, and check the result."""
    url = session.log or DIRECTORY
    _clear(url)
    with Log.open(url) as log:
        _mark(url)
        log.create_topic(click_counts.clicks.name, partitions=PARTITIONS)
        made = _generate(log, events, seed, session.output)
        board = _Board(log)
        with drawn(board, Console(quiet=session.json)):
            summary = run_app(click_counts.app, log, until="end")
        board.read()
    if click_counts.app.stopped_by:
        return 128 + click_counts.app.stopped_by
    _report(session.output, url, made, board, summary)
    return 0


# ---------------------------------------------------------------- the directory
def _clear(url: str) -> None:
    """Make room for a new log where an earlier demo left one, which is not opened: it may be damaged, or the disk full.

    Raises:
        CommandError: there is a log, and no demo made it.
        LogLockedError: a process works on it.
    """
    found = directory_of(url)
    if found is None:
        return
    directory = Path(found)
    mark = directory / _MARK
    if not mark.exists():
        if (directory / META_PROPERTIES).exists():
            raise CommandError(f"{url} was not made by the demo, which would overwrite it: name another with --log")
        return  # anything else is left to Log.open, which writes to no folder that holds other things
    pid = RealDisk().lock_holder(str(directory / LOCK))
    if pid is not None:
        raise LogLockedError(f"process {pid} works on {url}: stop it, or name another with --log", pid=pid)
    for each in directory.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif each != mark:
            each.unlink()
    mark.unlink()  # last: a clearing that was interrupted can be gone on with


def _mark(url: str) -> None:
    directory = directory_of(url)
    if directory is not None:
        (Path(directory) / _MARK).write_text(
            "`tailrace demo` deletes this directory when it is run again.\n", encoding="utf-8"
        )


# ---------------------------------------------------------------- the clicks
@dataclass(frozen=True)
class _Made:
    events: int
    seconds: float
    counts: Counts


def _generate(log: Log, events: int, seed: int, output: Output) -> _Made:
    clock = SystemClock()
    start = clock.monotonic()
    counts: Counts = Counter()
    done = 0
    with (
        interrupts() as signals,
        output.progress(f"making {events:,} clicks", events) as bar,
        log.producer(acks="all", batch_bytes=256 * 1024) as producer,
    ):
        for chunk in clicks(events, seed, counts):
            producer.send_many(
                click_counts.clicks.name, chunk.values, keys=chunk.keys, timestamps_ms=chunk.timestamps_ms
            )
            done += len(chunk.values)
            bar.update(done, rate(done, clock.monotonic() - start))
            signals.check()
    return _Made(events, clock.monotonic() - start, counts)


# ---------------------------------------------------------------- the run
class _Board:
    """The results as they come, read from the output topic beside the running app: the newest count of each holds."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._consumer: Consumer | None = None
        self._decode = msgspec.json.Decoder(click_counts.ProductClicks).decode
        self.counts: dict[tuple[str, int], int] = {}
        self.totals: Counter[str] = Counter()

    def __call__(self) -> RenderableType | None:
        """Make the table of what there is so far; nothing before the app made its output topic."""
        self.read()
        return self.table() if self.totals else None

    def table(self) -> Table:
        """Make the table of the busiest products."""
        return make_table(*_rows(self), title=f"{self.totals.total():,} clicks counted")

    def busiest(self) -> list[tuple[str, int]]:
        """Give the products with the most clicks, and how many."""
        return sorted(self.totals.items(), key=lambda row: (-row[1], row[0]))[:_BUSIEST]

    def read(self) -> None:
        """Take in what was added to the output topic."""
        topic = click_counts.output.name
        if self._consumer is None:
            if topic not in self._log.topics():
                return
            self._consumer = self._log.consumer()
            self._consumer.assign(sorted(self._log.offsets(topic)))
        while batches := self._consumer.poll_batches():
            for batch in batches:
                for record in batch.records:
                    if record.value is not None:
                        self._take(self._decode(record.value))

    def _take(self, row: click_counts.ProductClicks) -> None:
        window = (row.product_id, round(row.minute.timestamp() * 1000))
        self.totals[row.product_id] += row.clicks - self.counts.get(window, 0)
        self.counts[window] = row.clicks


# ---------------------------------------------------------------- what came of it
def _report(output: Output, url: str, made: _Made, board: _Board, summary: Summary) -> None:
    counted = board.totals.total()
    dropped = sum(summary.dropped.values())
    wrong = sum(
        1 for window in made.counts.keys() | board.counts.keys() if made.counts[window] != board.counts.get(window)
    )
    if output.json:
        output.value(
            {
                "events": made.events,
                "counted": counted,
                "dropped": dropped,
                "windows": len(board.counts),
                "wrong": wrong,
                "generate_seconds": round(made.seconds, 3),
                "seconds": round(summary.seconds, 3),
                "clicks_per_second": round(made.events / summary.seconds) if summary.seconds else None,
                "busiest": dict(board.busiest()),
                "log": url,
            }
        )
    else:
        output.table(*_rows(board))
        output.line("")
        output.line(
            f"clicks in   {made.events:,}, made in {made.seconds:.1f} s: {PARTITIONS} partitions, 5 s of disorder"
        )
        output.line(f"counted     {counted:,} in {summary.seconds:.1f} s: {rate(made.events, summary.seconds)}")
        output.line(f"dropped     {dropped:,}")
        output.line(f"windows     {len(board.counts):,} of a product and a minute")
    if wrong or counted != made.events or dropped:
        raise CommandError(
            f"{wrong:,} of {len(made.counts):,} counts differ from a plain count, and {dropped:,} clicks were dropped"
        )
    if output.json:
        return
    output.line("checked     every count equals a plain count of the same clicks")
    if directory_of(url) is not None:
        output.line(f"the log     {url}")
        output.line(f"look at it  tailrace --log {url} tail {click_counts.output.name}")


def _rows(board: _Board) -> tuple[list[str], list[tuple[object, ...]]]:
    total = board.totals.total()
    return ["product", "clicks", "share"], [(product, n, f"{n / total:.1%}") for product, n in board.busiest()]
