"""The clocks of a task: what is late, and when a window closes.

Two clocks (docs/design.md, "Time"). *Late or not* goes by a record's origin: the largest timestamp that its source
partition had shown up to it; it travels with the record. *Closing* goes by stream time: for a task that reads source
partitions, the largest timestamp it has taken; behind a repartition, the minimum over its writers, kept here.

1. A writer's time never goes back, and stream time never goes back.
2. stream_time_ms <= the origin of every record that a writer still holds, so a record that is not late finds its window
   open. A writer that was idle and wakes up must be within grace of the others.
3. A writer that has not spoken and is not idle holds stream time where it is: nothing closes before all have spoken.
4. When all writers are idle, stream time is the largest of their times.

Clocks are committed beside the offsets, as text in the offset's metadata, so that a restart judges as the run before it
would have done: a format byte, then zigzag varints, in base64.
"""

import base64
from collections.abc import Hashable, Iterable, Mapping, Sequence

from tailrace.log.errors import InvalidError
from tailrace.windows.duration import TIME_MAX_MS

NEVER = -1
"""The time of a clock that has seen nothing; every real timestamp is larger."""

_FORMAT_TIMES = 1
_FORMAT_MINIMUM = 2
# Kafka refuses metadata of more than 4,096 bytes (offset.metadata.max.bytes); above this the writers' times are
# reduced to their minimum: windows may close later than they could, nothing is lost.
METADATA_CHARS_MAX = 3_000


class WriterClocks:
    """Stream time of one task behind repartitions: the minimum over the times of its writers.

    A writer is any hashable identity: here (hop, upstream task).
    """

    __slots__ = ("_idle", "_times", "stream_time_ms")

    def __init__(self, writers: Iterable[Hashable]) -> None:
        self._times: dict[Hashable, int] = dict.fromkeys(writers, NEVER)
        self._idle: set[Hashable] = set()
        self.stream_time_ms = NEVER

    @property
    def times_ms(self) -> Mapping[Hashable, int]:
        """Each writer's time, -1 for one that has not spoken."""
        return self._times

    @property
    def all_idle(self) -> bool:
        """Whether every writer has read its inputs to their ends."""
        return len(self._idle) == len(self._times)

    def add(self, writer: Hashable) -> None:
        """Hears that there is such a writer: from now on it holds the minimum, until it has spoken."""
        self._times.setdefault(writer, NEVER)

    def resume(self, stream_time_ms: int) -> None:
        """Goes on from a stream time that was reached before."""
        self.stream_time_ms = max(self.stream_time_ms, stream_time_ms)

    def advance(self, writer: Hashable, time_ms: int) -> None:
        """Takes a writer's word that it will send nothing older than time_ms (milliseconds since the epoch)."""
        self._times[writer] = max(self._times[writer], time_ms)

    def set_idle(self, writer: Hashable, *, idle: bool) -> None:
        """Says whether the writer's inputs are read to their ends; an idle writer does not hold the others back."""
        if idle:
            self._idle.add(writer)
        else:
            self._idle.discard(writer)

    def update(self) -> int:
        """Works out stream time anew and returns it."""
        if len(self._idle) == len(self._times):
            now = max(self._times.values(), default=NEVER)
        elif self._idle:
            now = min(time for writer, time in self._times.items() if writer not in self._idle)
        else:
            now = min(self._times.values())
        self.stream_time_ms = max(self.stream_time_ms, now)
        return self.stream_time_ms

    def snapshot(self) -> list[int]:
        """Stream time and the writers' times, in the order of the writers given at the start."""
        return [self.stream_time_ms, *self._times.values()]

    def restore(self, times_ms: Sequence[int]) -> None:
        """Takes up what `snapshot` returned.

        One single time (what is left of very many writers) counts for stream time and for every writer. The times of
        another number of writers (an input got partitions since) are nobody's: stream time goes on from what it was,
        and each writer holds it there until it has spoken.
        """
        if len(times_ms) == 1:
            times_ms = [times_ms[0]] * (1 + len(self._times))
        if len(times_ms) == 1 + len(self._times):
            self._times = dict(zip(self._times, times_ms[1:], strict=True))
        self.resume(times_ms[0])


def encode_clocks(times_ms: Sequence[int]) -> str:
    """Writes times (milliseconds since the epoch, or -1) as text for the metadata of a committed offset.

    The first is followed by the differences to it, as zigzag varints: a few characters a writer.
    """
    text = _encode(_FORMAT_TIMES, times_ms)
    return text if len(text) <= METADATA_CHARS_MAX else _encode(_FORMAT_MINIMUM, [min(times_ms)])


def decode_clocks(metadata: str) -> list[int]:
    """Reads what `encode_clocks` wrote; an empty text gives an empty list.

    Raises InvalidError for text that is not of this form.
    """
    if not metadata:
        return []
    try:
        data = base64.b64decode(metadata, validate=True)
        if data[0] not in (_FORMAT_TIMES, _FORMAT_MINIMUM):
            raise ValueError(f"format {data[0]}")
        deltas = _varints(data[1:])
        if not deltas:
            raise ValueError("no time is in it")
        times_ms = [deltas[0], *(deltas[0] + delta for delta in deltas[1:])]
        if not NEVER <= min(times_ms) <= max(times_ms) <= TIME_MAX_MS:
            raise ValueError("a time in it is none")
    except (ValueError, IndexError) as error:
        raise unreadable(metadata, error) from error
    return times_ms


def unreadable(metadata: str, why: Exception) -> InvalidError:
    """The error for a committed offset's metadata that holds no clocks."""
    return InvalidError(
        f"the clocks in a committed offset's metadata cannot be read ({why}): {metadata[:40]!r}; "
        "commit the offset anew to go on without them"
    )


def _encode(form: int, times_ms: Sequence[int]) -> str:
    out = bytearray([form])
    base = 0
    for position, time_ms in enumerate(times_ms):
        delta = time_ms - base
        number = (delta << 1) if delta >= 0 else ((-delta << 1) - 1)
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
        if position == 0:
            base = time_ms
    return base64.b64encode(out).decode("ascii")


def _varints(data: bytes) -> list[int]:
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            continue
        numbers.append((number >> 1) if not number & 1 else -((number + 1) >> 1))
        number = shift = 0
    if shift:
        raise ValueError("it ends within a number")
    return numbers
