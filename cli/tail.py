"""`tailrace tail`: what a topic holds, printed; beside a writer, as it opens the log read-only.

1. Without `--from` it prints the last records by time (10 unless `-n` says otherwise), and with `-f` what follows.
2. With `--from` it begins there in each partition, and ends at the end, after `-n` records, or, with `-f`, never.
3. The end is where the topic ended when the command began: a busy writer does not keep it from ending.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Annotated

import typer

from tailrace.cli.names import TopicName
from tailrace.cli.output import Output, instant
from tailrace.cli.positions import METAVAR, positions
from tailrace.cli.session import Session, require_topic, shared
from tailrace.cli.typed import BytesType, shower
from tailrace.log.client import Consumer
from tailrace.log.errors import DecodeError
from tailrace.log.record import Record, TopicPartition

_LAST = 10
_POLL_SECONDS = 0.5
_POLL_RECORDS = 5_000

BytesRecord = Record[bytes | None, bytes | None]
Print = Callable[[BytesRecord], None]


@shared
def tail(
    session: Session,
    topic: TopicName,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar=METAVAR, help="Where to begin; else the last ones."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=0, help="How many: with --from the first, else the last (10).")
    ] = None,
    key_type: Annotated[BytesType, typer.Option(help="What keys are.")] = BytesType.AUTO,
    value_type: Annotated[BytesType, typer.Option(help="What values are.")] = BytesType.AUTO,
) -> None:
    """Print a topic's records: time, partition@offset, key and value."""
    show = _printer(session.output, key_type, value_type)
    with session.open_log(read_only=True) as log, log.consumer() as consumer:
        require_topic(log, topic, internal=True)
        ends = log.offsets(topic)
        starts = log.offsets(topic, "earliest")
        consumer.assign(sorted(ends))
        if start is None:
            _note_how_many(session.output, count, starts, ends)
            for record in _last(consumer, starts, ends, _LAST if count is None else count):
                show(record)
            _seek(consumer, ends)
        else:
            _seek(consumer, positions(log, topic, start, "--from"))
        if follow or start is not None:
            _show(
                session.output, _chunks(consumer, None if follow else ends), show, count if start is not None else None
            )


def _note_how_many(
    output: Output, count: int | None, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> None:
    held = sum(ends.values()) - sum(starts.values())
    if count is None and held > _LAST:
        output.note(f"the last {_LAST} of {held:,} records (all: --from earliest; more: -n)")


def _show(output: Output, chunks: Iterable[list[BytesRecord]], show: Print, limit: int | None) -> None:
    left = limit
    for chunk in chunks:
        for record in chunk[:left]:
            show(record)
        output.flush()
        if left is not None:
            left -= len(chunk)
            if left <= 0:
                return


def _printer(output: Output, key_type: BytesType, value_type: BytesType) -> Print:
    key_of = shower(key_type, json=output.json)
    value_of = shower(value_type, json=output.json)
    header_of = shower(BytesType.AUTO, json=output.json)

    def show(record: BytesRecord) -> None:
        try:
            key, value = key_of(record.key), value_of(record.value)
        except DecodeError as error:
            raise DecodeError(f"{record.topic}-{record.partition}@{record.offset}: {error}") from error
        if output.json:
            output.value(
                {
                    "topic": record.topic,
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp_ms": record.timestamp_ms,
                    "key": key,
                    "value": value,
                    "headers": [[name, header_of(data)] for name, data in record.headers],
                }
            )
        else:
            headers = "".join(f"  {name}={header_of(data)}" for name, data in record.headers)
            output.line(f"{instant(record.timestamp_ms)}  {record.partition}@{record.offset}  {key}  {value}{headers}")

    return show


def _seek(consumer: Consumer, positions: Mapping[TopicPartition, int]) -> None:
    for partition, offset in positions.items():
        consumer.seek(partition, offset)


def _chunks(consumer: Consumer, ends: Mapping[TopicPartition, int] | None) -> Iterator[list[BytesRecord]]:
    """Read on from the positions up to `ends`, or without end."""
    while True:
        before = {partition: consumer.position(partition) for partition in ends or ()}
        if ends is not None and all(offset >= ends[partition] for partition, offset in before.items()):
            return
        records = consumer.poll(_POLL_SECONDS, _POLL_RECORDS)
        if ends is None:
            yield records
            continue
        yield [each for each in records if each.offset < ends[TopicPartition(each.topic, each.partition)]]
        # The end may be unreadable (an open transaction): a poll that moves nothing has seen all there is.
        if not records and all(consumer.position(each) == at for each, at in before.items()):
            return


def _last(
    consumer: Consumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], count: int
) -> list[BytesRecord]:
    """The last records by time, out of the last `count` of each partition.

    Offsets are not records (compaction, control records), so where too few come the search begins further back.
    """
    if count == 0:
        return []
    width = count
    while True:
        begin = {partition: max(starts[partition], end - width) for partition, end in ends.items()}
        _seek(consumer, begin)
        found = heapq.nlargest(count, chain.from_iterable(_chunks(consumer, ends)), key=_when)
        if len(found) == count or begin == dict(starts):
            return found[::-1]
        width *= 8


def _when(record: BytesRecord) -> tuple[int, int, int]:
    return record.timestamp_ms, record.partition, record.offset
