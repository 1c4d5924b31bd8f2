"""What becomes of a record that cannot be read: it ends the app, is skipped, or is kept with the reason as headers.

1. Nothing is lost silently: the record is counted as "bad_record" (source) unless it ends the app.
2. A record that is kept has its key, value, time and headers as they came, and headers that say where from and why:
   those of KIP-1034, and `tailrace.node`, `tailrace.attempts`.

Not here: what makes a record bad (source).
"""

import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from tailrace.log.errors import DecodeError
from tailrace.log.record import Headers, RawRecord, TopicPartition
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.failure import line_of, raised_in
from tailrace.streams.chain.outputs import Outputs
from tailrace.streams.chain.source import BadRecord, WrongTimeError
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Forward
from tailrace.streams.values.place import function_name
from tailrace.streams.values.wording import words

# Of a message and of a stack trace: a letter must fit where its record did, or nearly.
_TEXT_MAX = 8_000


class Letter(msgspec.Struct, frozen=True):
    """A raw record with the reason in its headers."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def dead_letter_topic(app: str) -> str:
    """The name of the topic for records that cannot be read."""
    return f"{app}-dead-letters"


def skip(_record: RawRecord, _partition: TopicPartition, _error: Exception) -> None:
    """The policy "skip": the record is counted, and that is all."""


def fail(topic: Topic[Any, Any]) -> BadRecord:
    """The policy "fail": DecodeError with the record's place, and the decoder's words or the line that raised."""
    timestamp = topic.timestamp

    def failing(record: RawRecord, partition: TopicPartition, error: Exception) -> None:
        if timestamp is not None and raised_in(timestamp, error):
            raise _without_time(record, partition, error, timestamp) from error
        mend = f"the type of the topic declared at {topic.place}"
        if isinstance(error, WrongTimeError):
            mend = "what writes the topic"
            if timestamp is not None:
                mend = f"timestamp={function_name(timestamp)} of the topic declared at {topic.place}"
        raise unreadable(record, partition, error, mend) from error

    return failing


_ADVICE = 'or go on past such records with on_bad_record="skip" or "dead_letter"'


def unreadable(
    record: RawRecord, partition: TopicPartition, error: Exception, mend: str = "the topic's type"
) -> DecodeError:
    """The error that ends an app, with the record's place and the decoder's words; `mend` is what to look at."""
    return DecodeError(f"{partition}@{record.offset} cannot be read: {words(error)}; mend {mend}, {_ADVICE}")


def _without_time(
    record: RawRecord, partition: TopicPartition, error: Exception, timestamp: Callable[[Any], Any]
) -> DecodeError:
    return DecodeError(
        f"{partition}@{record.offset} has no time: {type(error).__name__} in timestamp={function_name(timestamp)} "
        f"({line_of(error)}): {words(error)}; mend that function, {_ADVICE}"
    )


def to_stream(context: TaskContext, node: str, errors: Forward) -> BadRecord:
    """Sends the record's bytes to what stands behind `.errors`; a topic behind it gets the reason as headers."""

    def send(record: RawRecord, partition: TopicPartition, error: Exception) -> None:
        context.record = explained(record, partition, node, error)
        errors(record.key, record.value, max(record.timestamp, 0))

    return send


def to_dead_letters(outputs: Outputs, topic: str, node: str) -> BadRecord:
    """The policy "dead_letter": keeps the record in a topic, in the same commit as the offset behind it."""

    def keep(record: RawRecord, partition: TopicPartition, error: Exception) -> None:
        outputs.raw(topic, explained(record, partition, node, error))

    return keep


def explained(record: RawRecord, source: TopicPartition | None, node: str, error: Exception) -> Letter:
    """The record as it came, with headers that say where from and why; source None: it came from no topic."""
    trace = "".join(traceback.format_exception(error))
    headers = list(record.headers)
    if source is not None:
        headers += [
            ("__streams.errors.topic", source.topic.encode()),
            ("__streams.errors.partition", str(source.partition).encode()),
            ("__streams.errors.offset", str(record.offset).encode()),
        ]
    headers += [
        ("__streams.errors.exception", type(error).__qualname__.encode()),
        ("__streams.errors.message", _bytes(words(error)[:_TEXT_MAX])),
        # Its end says most: the line that raised.
        ("__streams.errors.stacktrace", _bytes(trace[-_TEXT_MAX:])),
        ("tailrace.node", node.encode()),
        ("tailrace.attempts", b"1"),
    ]
    return Letter(record.offset, record.timestamp, record.key, record.value, headers)


def _bytes(text: str) -> bytes:
    # A message may quote half a surrogate pair.
    return text.encode(errors="backslashreplace")
