"""What the writers of a repartition say of their times, as bytes: the value of a marker, and what a reader commits.

1. decode(encode(known)) == known.
2. A claim to be idle names every source partition, of the writer and of all that write to it, with the end up to which
   it was read. It holds while these are the ends: whoever has nothing to read has nothing to send.
3. A partition that has come to a source since ends every claim that rests on that source.

A marker is a record of the repartition's topic with a null key and, as its first header, `MARKER` with an empty value.
A row whose origin its timestamp does not tell has `ORIGIN` as its first header: the origin as 8 bytes, big-endian.
Headers of a program that have these names do not travel (log_hop).

Value of a marker: byte 1, then msgpack of `_Said`: [writers, [[topic, partitions], …], [claim, …], base time, [[writer,
time after the base or -1, claim or nil], …]]; a claim is [[topic, partition, end], …], a topic's and a claim's numbers
their places in the lists before. The same bytes stand in the metadata of the offset that a reader commits, behind byte
3 and its stream time (8 bytes), in base64. Docs: docs/log_format.md.
"""

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.clocks import METADATA_CHARS_MAX, NEVER, unreadable

MARKER: Final = "__tailrace.times"
ORIGIN: Final = "__tailrace.origin"
RESERVED: Final = frozenset({MARKER, ORIGIN})

_VERSION = 1
_FORMAT_KNOWN = 3  # beside those of `clocks`: the first byte of metadata says which
_TIME = struct.Struct(">q")


class End(NamedTuple):
    """A source partition and where it ended, while its topic had so many partitions."""

    topic: str
    partitions: int
    partition: int
    offset: int


Claim = frozenset[End]
"""All that has to end there still for a writer to be idle."""


class Said(NamedTuple):
    """A writer's word: it will send nothing older than this, and whether, and on what ground, nothing at all."""

    time_ms: int
    idle: Claim | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known, or told, of the writers of one repartition."""

    writers: int
    """How many there are, whether or not they have spoken."""
    sources: Mapping[str, int]
    """The partitions of each topic that ends there, in the end."""
    said: Mapping[int, Said]


class _Said(msgspec.Struct, array_like=True, frozen=True):
    writers: int
    topics: list[tuple[str, int]]
    claims: list[list[tuple[int, int, int]]]
    base_ms: int
    said: list[tuple[int, int, int | None]]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Said).decode


def pack_origin(origin_ms: int) -> bytes:
    """The value of an `ORIGIN` header."""
    return _TIME.pack(origin_ms)


def unpack_origin(data: bytes) -> int:
    """Reads it. Raises struct.error for other bytes."""
    origin_ms: int = _TIME.unpack(data)[0]
    return origin_ms


def encode(known: Known) -> bytes:
    """The value of a marker."""
    claims = sorted({said.idle for said in known.said.values() if said.idle is not None}, key=sorted)
    topics = sorted({*known.sources.items(), *((end.topic, end.partitions) for claim in claims for end in claim)})
    place = {topic: number for number, topic in enumerate(topics)}
    base_ms = min((said.time_ms for said in known.said.values() if said.time_ms != NEVER), default=0)
    return bytes([_VERSION]) + _pack(
        _Said(
            known.writers,
            topics,
            [[(place[end[:2]], end.partition, end.offset) for end in sorted(claim)] for claim in claims],
            base_ms,
            [
                (
                    writer,
                    NEVER if said.time_ms == NEVER else said.time_ms - base_ms,
                    None if said.idle is None else claims.index(said.idle),
                )
                for writer, said in sorted(known.said.items())
            ],
        )
    )


def decode(data: bytes) -> Known:
    """Reads what `encode` wrote. Raises ValueError for bytes that are not of this form."""
    if not data or data[0] != _VERSION:
        raise ValueError(f"version {data[0]}, and {_VERSION} is known" if data else "it is empty")
    found = _unpack(data[1:])
    try:
        claims = [frozenset(End(*found.topics[topic], *at) for topic, *at in claim) for claim in found.claims]
        said = {
            writer: Said(
                NEVER if after_ms == NEVER else found.base_ms + after_ms, None if claim is None else claims[claim]
            )
            for writer, after_ms, claim in found.said
        }
    except IndexError as error:
        raise ValueError("it refers to what is not in it") from error
    return Known(found.writers, dict(found.topics), said)


def encode_known(stream_time_ms: int, known: Known) -> str:
    """What a reader commits beside its offset: its stream time (ms) and what it knows of the writers.

    What would be too long is cut to the least of the times: windows may then close late, until each writer has spoken
    again, and nothing is lost.
    """
    text = _text(stream_time_ms, known)
    if len(text) > METADATA_CHARS_MAX:
        # Without a claim and all alike, every writer costs a few characters; without the writers, none.
        least_ms = min((said.time_ms for said in known.said.values()), default=NEVER)
        text = _text(stream_time_ms, Known(known.writers, {}, dict.fromkeys(known.said, Said(least_ms))))
        if len(text) > METADATA_CHARS_MAX:
            text = _text(stream_time_ms, Known(known.writers, {}, {}))
    return text


def _text(stream_time_ms: int, known: Known) -> str:
    data = bytes([_FORMAT_KNOWN]) + _TIME.pack(stream_time_ms) + encode(known)
    return base64.b64encode(data).decode("ascii")


def decode_known(metadata: str) -> tuple[int, Known] | None:
    """Reads what `encode_known` wrote; None for the clocks of a hop in memory, or for nothing.

    Raises InvalidError for what cannot be read.
    """
    if not metadata:
        return None
    try:
        data = base64.b64decode(metadata, validate=True)
        if not data or data[0] != _FORMAT_KNOWN:
            return None
        return _TIME.unpack_from(data, 1)[0], decode(data[1 + _TIME.size :])
    except (ValueError, struct.error, msgspec.MsgspecError) as error:
        raise unreadable(metadata, error) from error


class SourceEnds:
    """Where source partitions end now: looked up once, until `forget`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._found: dict[str, dict[TopicPartition, int]] = {}

    def forget(self) -> None:
        """Has the next question look at the log."""
        self._found.clear()

    def hold(self, claim: Iterable[End]) -> bool:
        """Whether everything ends where a claim says."""
        for topic, partitions, partition, offset in claim:
            ends = self._found.get(topic)
            if ends is None:
                ends = self._found[topic] = self._log.offsets(topic)
            if len(ends) != partitions or ends.get(TopicPartition(topic, partition)) != offset:
                return False
        return True
