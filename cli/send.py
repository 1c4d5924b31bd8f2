"""`tailrace send`: a file, a `.gz` or stdin into a topic.

1. What is reported as acknowledged is on disk, from the first line on without a gap: a user goes on at `next_line`.
2. Nothing is sent after the first block that was not written whole; lines of it that got in all the same are told.
3. Memory is bounded by a block of input and the producer's buffer, which holds the reader back.
4. Ctrl-C or a bad line: what was read before is written and acknowledged, then said.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Annotated

import typer

from tailrace.cli.errors import CommandError, report
from tailrace.cli.formats import BadLineError, Fields, Format, Rows, format_of, rows_of
from tailrace.cli.interrupts import Interrupted, Interrupts, interrupts
from tailrace.cli.lines import Lines
from tailrace.cli.names import TopicName
from tailrace.cli.output import Bar, rate, size
from tailrace.cli.session import InternalOption, Session, require_topic, shared
from tailrace.log.client import Delivery, Log, Producer
from tailrace.log.clock import SystemClock
from tailrace.log.errors import InvalidError, TailraceError

# A block of input (lines.py), and what makes JSON of it, is one batch in each partition: where there is no room for one
# of its batches, hardly any of its later lines gets in. The buffer holds such batches for many partitions.
_BATCH_BYTES = 1024 * 1024
_BUFFER_BYTES = 64 * 1024 * 1024


@shared
def send(
    session: Session,
    topic: TopicName,
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="A file, gzip too, or - for stdin.")] = "-",
    key: Annotated[str | None, typer.Option(metavar="FIELD", help="The field that becomes the record's key.")] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Else by the file's name: .csv; .log and .txt raw; all else ndjson."),
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The field that holds the time: ms or ISO 8601. Else: now.")
    ] = None,
    internal: InternalOption = False,
) -> int:
    """Send the lines of a file to a topic: ndjson and raw lines as they are, csv rows as JSON objects."""
    lines = Lines.open(file)
    with closing(lines), session.open_log() as log:
        require_topic(log, topic, internal=internal)
        rows = rows_of(lines, form or format_of(file), Fields(key, timestamp))
        if "compact" in log.describe_topic(topic).config["cleanup.policy"]:
            rows = _with_keys(rows, lines.name, topic)
        return _Sending(session, topic, lines).run(log, rows)


def _with_keys(rows: Iterator[Rows], name: str, topic: str) -> Iterator[Rows]:
    """The rows up to the first without a key, by whose line it is told: the log would refuse its whole batch."""
    for part in rows:
        keys: list[bytes | None] = part.keys or [None] * len(part.values)
        if None not in keys:
            yield part
            continue
        at = keys.index(None)
        times = None if part.timestamps_ms is None else part.timestamps_ms[:at]
        if at:
            yield Rows(part.values[:at], part.lines[:at], keys[:at], times)
        raise BadLineError(
            name,
            part.lines[at],
            f"it has no key, and {topic} is compacted, where every record needs one: name the field with --key",
        )


class _Sending:
    """One file on its way: what was sent and acknowledged, and the words at the end."""

    def __init__(self, session: Session, topic: str, lines: Lines) -> None:
        self._session = session
        self._topic = topic
        self._lines = lines
        self._clock = SystemClock()
        self._start = self._clock.monotonic()
        self._sent = 0
        # Acknowledged, from the first line on without a gap.
        self._records = 0
        self._bytes = 0
        self._next_line = 1
        # Sent after that, oldest first; without a delivery where the sending itself was cut short.
        self._waiting: deque[tuple[Rows, Delivery | None]] = deque()

    def run(self, log: Log, rows: Iterator[Rows]) -> int:
        """Send all rows; say the exit code."""
        before = _end(log, self._topic)
        # Nothing lingers: that a batch found no room is known before the next block is sent.
        producer = log.producer(acks="all", linger_ms=0, batch_bytes=_BATCH_BYTES, buffer_bytes=_BUFFER_BYTES)
        bar = self._session.output.progress(f"sending {self._lines.name}", self._lines.total_bytes)
        with interrupts() as signals, bar:
            failure = _failure_of(lambda: self._send(rows, producer, signals, bar))
            unwritten = _failure_of(producer.close)
        added = _end(log, self._topic) - before  # we are the only writer
        self._settle(None if unwritten else added)
        failure = failure or unwritten
        self._summary(complete=failure is None, later=added - self._records)
        if isinstance(failure, Interrupted):
            return 128 + failure.signal_number
        return report(self._located(failure, added), debug=self._session.debug) if failure else 0

    def _send(self, rows: Iterator[Rows], producer: Producer, signals: Interrupts, bar: Bar) -> None:
        while True:
            with signals.waiting():
                batch = next(rows, None)
            if batch is None:
                return
            self._waiting.append((batch, None))
            sent = producer.send_many(self._topic, batch.values, keys=batch.keys, timestamps_ms=batch.timestamps_ms)
            self._waiting[-1] = batch, sent
            self._sent += len(batch.values)
            if sent.done():
                sent.result()  # raises what failed, and nothing is sent after it
            while self._waiting and (oldest := self._waiting[0][1]) and oldest.done():
                oldest.result()
                whole, _ = self._waiting.popleft()
                self._take(whole, len(whole.values))
            bar.update(self._lines.position, rate(self._sent, self._clock.monotonic() - self._start))
            signals.check()

    def _take(self, rows: Rows, count: int) -> None:
        if count:
            self._records += count
            self._bytes += sum(map(len, rows.values[:count]))
            self._next_line = rows.lines[count - 1] + 1

    def _settle(self, added: int | None) -> None:
        """Count up to the first record that is not acknowledged.

        Args:
            added: by how much the topic grew; None where not all that was sent was written.
        """
        for rows, delivery in self._waiting:
            if delivery:
                count = delivery.acknowledged()
            else:  # cut short at a record, before which all is written
                count = 0 if added is None else min(added - self._records, len(rows.values))
            self._take(rows, count)
            if count < len(rows.values):
                return

    def _located(self, failure: TailraceError, added: int) -> TailraceError:
        """Say up to where the file is in the topic, where the failure does not tell."""
        name = self._lines.name
        if isinstance(failure, CommandError) and added == self._records:
            return failure  # a bad line, by its number
        if type(failure) is InvalidError and added == self._records:
            return CommandError(f"record {self._records + 1:,} of {name}: {failure}")
        reached = f"lines 1 to {self._next_line - 1:,} of {name} are" if self._records else f"nothing of {name} is"
        later = f", and {added - self._records:,} records of later lines are in {self._topic} too"
        return CommandError(
            f"{failure}; {reached} acknowledged{later if added > self._records else ''}: go on from line "
            f"{self._next_line:,}"
        )

    def _summary(self, *, complete: bool, later: int) -> None:
        seconds = self._clock.monotonic() - self._start
        output = self._session.output
        if self._session.json:
            output.value(
                {
                    "topic": self._topic,
                    "file": self._lines.name,
                    "records": self._records,
                    "acknowledged": self._records,
                    "bytes": self._bytes,
                    "seconds": round(seconds, 3),
                    "records_per_second": round(self._records / seconds) if seconds else None,
                    "complete": complete,
                    "next_line": None if complete else self._next_line,
                    "later_records": later,
                }
            )
        else:
            output.line(
                f"{self._records:,} records ({size(self._bytes)}) of {self._lines.name} are in {self._topic}, "
                f"acknowledged, in {seconds:.1f} s: {rate(self._records, seconds)}"
            )


def _failure_of(step: Callable[[], None]) -> TailraceError | Interrupted | None:
    try:
        step()
    except (TailraceError, Interrupted) as error:
        return error
    return None


def _end(log: Log, topic: str) -> int:
    return sum(log.offsets(topic).values())
