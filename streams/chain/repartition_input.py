"""A partition of a repartition's topic, as an input of a task: rows for its chain, markers for its clocks.

1. A row's origin is what its header says, else its timestamp; a marker counts for what stands behind it.
2. A writer that the task does not know holds its stream time from the first marker on that tells of it.
3. A writer counts as idle while the partitions that its claim names end where it says.

Not here: writing (log_hop), the bytes (markers), deleting what was read (trimming).
"""

from collections.abc import Callable, Mapping, Sequence

from tailrace.log.errors import DecodeError
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.streams.chain import markers
from tailrace.streams.chain.clocks import WriterClocks
from tailrace.streams.chain.context import TaskContext, WithHeaders
from tailrace.streams.chain.markers import MARKER, ORIGIN, Claim, End, Known, Said, SourceEnds
from tailrace.streams.chain.source import Decoding, SourceInput
from tailrace.streams.program.io import Repartition
from tailrace.streams.program.topology import Forward


def _unreadable(record: RawRecord, partition: TopicPartition, error: Exception) -> None:
    raise DecodeError(
        f"{partition}@{record.offset} cannot be read: {error}; only the app itself writes there, so its types have "
        "changed with rows under way, or another program wrote: give the app another name, or delete that topic to go "
        "on without those rows"
    ) from error


class RepartitionInput(SourceInput):
    """One partition of a repartition's topic, as an input of the task that reads it."""

    __slots__ = ("_clocks", "_cut", "_ends", "_moved", "_said", "_sources", "_writers")

    counted = False

    def __init__(
        self,
        partition: TopicPartition,
        operator: Repartition,
        forward: Forward,
        position: int,
        *,
        cut: int,
        clocks: WriterClocks,
        moved: Callable[[], None],
        ends: SourceEnds,
    ) -> None:
        """`cut` is the repartition's node, `moved` what is called when the writers' times have gone on."""
        key, value = operator.key.codec, operator.value.codec
        super().__init__(partition, Decoding(key.decode, value.decode, None), forward, _unreadable, position)
        self._cut = cut
        self._clocks = clocks
        self._moved = moved
        self._ends = ends
        self._said: dict[int, Said] = {}
        self._sources: Mapping[str, int] = {}
        self._writers = 0

    def resume(self, known: Known) -> None:
        """Takes up what was known when the position was committed."""
        self._learn(known)

    def metadata(self, context: TaskContext) -> str:
        """What is committed beside the position."""
        return markers.encode_known(context.stream_time_ms, Known(self._writers, self._sources, self._said))

    def claim(self, partitions: Mapping[str, int]) -> Claim:
        """What has to end where it does for nothing more to come: all that its writers claim."""
        del partitions
        return frozenset[End]().union(*(said.idle for said in self._said.values() if said.idle is not None))

    def look_again(self, *, expected: bool) -> None:
        """Sees anew which of the writers are idle."""
        for writer, said in self._said.items():
            idle = said.idle is not None and not expected and self._ends.hold(said.idle)
            self._clocks.set_idle((self._cut, writer), idle=idle)
        self._moved()

    def run_records(self, context: TaskContext, records: Sequence[RawRecord]) -> int:
        """Runs rows through the chain, and hears markers; returns 0, as none is left.

        Errors look for `record` in this frame (failure).
        """
        decode_key, decode_value = self._decoding.decode_key, self._decoding.decode_value
        forward = self._forward
        rest = iter(records)
        in_chain = False
        record = records[0]
        while True:
            try:
                for record in rest:
                    in_chain = False
                    context.source = self.partition
                    origin_ms = timestamp_ms = record.timestamp
                    headers, at = record.headers, record
                    if headers:
                        name, said = headers[0]
                        if name == MARKER:
                            known = markers.decode(record.value or b"")
                            break
                        if name == ORIGIN:
                            origin_ms = markers.unpack_origin(said or b"")
                            at = WithHeaders(record, headers[1:])
                    raw = record.value
                    value = None if raw is None else decode_value(raw)
                    raw = record.key
                    key = None if raw is None else decode_key(raw)
                    # From here on an exception is the chain's, not the row's.
                    in_chain = True
                    context.record = at
                    # A row whose origin is older than the stream time here comes from a writer that was idle: to it the
                    # windows that closed meanwhile are closed too.
                    floor_ms = context.stream_time_ms
                    context.origin_ms = origin_ms if origin_ms > floor_ms else floor_ms
                    forward(key, value, timestamp_ms)
                else:
                    return 0
            except Exception as error:  # noqa: BLE001 - raised again where a policy says so
                if not in_chain:
                    self._bad(record, self.partition, error)
                context.failed(error)
                continue
            self._learn(known)
            self._moved()

    def _learn(self, known: Known) -> None:
        clocks, cut = self._clocks, self._cut
        for writer in range(self._writers, known.writers):
            clocks.add((cut, writer))
        self._writers = max(self._writers, known.writers)
        self._sources = known.sources
        for writer, said in known.said.items():
            clocks.add((cut, writer))
            clocks.advance((cut, writer), said.time_ms)
            self._said[writer] = said
            clocks.set_idle((cut, writer), idle=said.idle is not None and self._ends.hold(said.idle))
