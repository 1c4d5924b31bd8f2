"""`tailrace send`: a file, a `.gz` or stdin into a topic.

1. What is reported as acknowledged is on disk: it is counted after the producer flushed with acks=all.
2. Memory is bounded by a block of input and the producer's buffer, which holds the reader back.
3. Ctrl-C, a bad line or a full disk: what was read before is flushed, then said; so a user can go on from there.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

import typer

from tailrace.cli.errors import CommandError, report
from tailrace.cli.formats import Fields, Format, Rows, format_of, rows_of
from tailrace.cli.interrupts import Interrupted, Interrupts, interrupts
from tailrace.cli.lines import Lines
from tailrace.cli.names import TopicName
from tailrace.cli.output import Bar, rate, size
from tailrace.cli.session import InternalOption, Session, require_topic, shared
from tailrace.log.client import Log, Producer
from tailrace.log.clock import SystemClock
from tailrace.log.errors import InvalidError, TailraceError

# Larger than a producer's own default: nobody waits for a single line of a file.
_BATCH_BYTES = 256 * 1024


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
        return _Sending(session, topic, lines).run(log, rows)


class _Sending:
    """One file on its way: what was sent and acknowledged, and the words at the end."""

    def __init__(self, session: Session, topic: str, lines: Lines) -> None:
        self._session = session
        self._topic = topic
        self._lines = lines
        self._clock = SystemClock()
        self._start = self._clock.monotonic()
        self._sent = 0
        self._acknowledged = 0
        self._bytes = 0

    def run(self, log: Log, rows: Iterator[Rows]) -> int:
        """Send all rows; say the exit code."""
        before = _end(log, self._topic)
        failure: TailraceError | Interrupted | None = None
        bar = self._session.output.progress(f"sending {self._lines.name}", self._lines.total_bytes)
        with interrupts() as signals, bar:
            try:
                with log.producer(acks="all", batch_bytes=_BATCH_BYTES) as producer:
                    self._send(rows, producer, signals, bar)
            except (TailraceError, Interrupted) as error:
                failure = error
        if failure:
            # A batch was cut short. We are the only writer, so what was added is what is in the topic; leaving the
            # producer has flushed it.
            self._acknowledged = _end(log, self._topic) - before
        else:
            self._acknowledged = self._sent
        self._summary(complete=failure is None)
        if isinstance(failure, Interrupted):
            return 128 + failure.signal_number
        return report(self._located(failure), debug=self._session.debug) if failure else 0

    def _send(self, rows: Iterator[Rows], producer: Producer, signals: Interrupts, bar: Bar) -> None:
        while True:
            with signals.waiting():
                batch = next(rows, None)
            if batch is None:
                return
            producer.send_many(self._topic, batch.values, keys=batch.keys, timestamps_ms=batch.timestamps_ms)
            self._sent += len(batch.values)
            self._bytes += sum(map(len, batch.values))
            bar.update(self._lines.position, rate(self._sent, self._clock.monotonic() - self._start))
            signals.check()

    def _located(self, failure: TailraceError) -> TailraceError:
        """Say which record the log refused; a bad line has said so itself."""
        if type(failure) is not InvalidError:
            return failure
        return CommandError(f"record {self._acknowledged + 1:,} of {self._lines.name}: {failure}")

    def _summary(self, *, complete: bool) -> None:
        seconds = self._clock.monotonic() - self._start
        output = self._session.output
        if self._session.json:
            output.value(
                {
                    "topic": self._topic,
                    "file": self._lines.name,
                    "records": self._acknowledged,
                    "acknowledged": self._acknowledged,
                    "bytes": self._bytes,
                    "seconds": round(seconds, 3),
                    "records_per_second": round(self._acknowledged / seconds) if seconds else None,
                    "complete": complete,
                }
            )
        else:
            output.line(
                f"{self._acknowledged:,} records ({size(self._bytes)}) of {self._lines.name} are in {self._topic}, "
                f"acknowledged, in {seconds:.1f} s: {rate(self._acknowledged, seconds)}"
            )


def _end(log: Log, topic: str) -> int:
    return sum(log.offsets(topic).values())
