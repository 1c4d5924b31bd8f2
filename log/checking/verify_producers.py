"""What `verify` checks of producers and transactions: sequences, epochs, markers, aborted ranges, snapshots.

1. A batch that stands twice, one that is missing in a sequence, an older epoch after a newer one: damage. Where offsets
   are missing (compaction, damage before), sequences may be too.
2. What the newest whole snapshot says is what the batches before it say, but for producers that were forgotten. A torn
   snapshot is a note, as it is not synced.
3. Below that snapshot a `.txnindex` and the abort markers of its segment say the same; above, opening makes it anew.
4. Beside a writer the files are of different moments: of these only the batches are judged.

Not here: batches and the other indexes (`verify`).
"""

from collections.abc import Callable
from typing import Final

from tailrace.log.codec import BatchHeader, Data
from tailrace.log.disk import Disk
from tailrace.log.errors import InvalidError, TailraceError
from tailrace.log.partition.markers import decode_marker
from tailrace.log.partition.producer_snapshot import offset_of, path_at, read_snapshot
from tailrace.log.partition.producers import (
    NONE,
    Ended,
    OpenTransaction,
    OutOfOrderSequenceError,
    Producers,
    ProducerState,
)
from tailrace.log.partition.segment import TXN_INDEX, path_of
from tailrace.log.partition.txn_index import ENTRY_BYTES, unpack
from tailrace.log.record import TopicPartition

Found = Callable[[str, int, str, str], None]
NOWHERE: Final = TopicPartition("the partition", 0)


class ProducerCheck:
    """The check of one partition, whose segments are walked from the first to the last; counts what it saw."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        tp: TopicPartition | None,
        *,
        found: Found,
        note: Callable[[str], None],
        in_use: bool,
    ) -> None:
        """`found` is called with file, byte, expected and found for each damage, `note` with a sentence."""
        self.committed = 0
        self.aborted = 0
        self._disk = disk
        self._directory = directory
        self._found = found
        self._note = note
        self._in_use = in_use
        self._producers = Producers(tp or NOWHERE)
        self._next_offset = NONE
        self._gaps = False
        # Abort markers of this segment: what they ended, and up to where all was decided then, or less.
        self._markers: dict[int, tuple[Ended | None, int]] = {}
        self._first_offset = NONE  # of the first segment
        self._offset = NONE  # of the newest whole snapshot
        self._compared = in_use
        self._snapshot: dict[int, ProducerState] = {}
        if not in_use:
            self._load_snapshot()
            self._compared = self._offset == NONE

    def _load_snapshot(self) -> None:
        names = self._disk.list(self._directory)
        for offset in sorted((each for name in names if (each := offset_of(name)) is not None), reverse=True):
            path = path_at(self._directory, offset)
            try:
                states = read_snapshot(self._disk, path)
            except ValueError as error:
                self._note(f"{path} is torn ({error}): the next opening reads more of the log instead")
            else:
                self._offset, self._snapshot = offset, {each.producer_id: each for each in states}
                return

    @property
    def open_transactions(self) -> list[OpenTransaction]:
        """Those without a marker so far."""
        return self._producers.open_transactions()

    def segment_began(self, base_offset: int) -> None:
        """Says which segment the batches to come are of."""
        if self._first_offset == NONE:
            self._first_offset = self._next_offset = base_offset

    def took(self, path: str, position: int, header: BatchHeader, batch: Data) -> None:
        """Looks at a batch with a right CRC."""
        if self._next_offset != header.base_offset:
            self._gaps = True
        self._next_offset = header.next_offset
        if not self._compared and self._offset <= header.base_offset:
            self._compare()
        if header.producer_id < 0:
            return
        marker = decode_marker(batch) if header.control else None
        try:
            if marker is not None:
                self._producers.check_marker(header.producer_id, header.producer_epoch, marker.coordinator_epoch)
            elif not header.control and (known := self._producers.check(header)) is not None:
                twice = f"sequence {header.base_sequence} of producer {header.producer_id} again"
                self._found(path, position, f"a batch that is not at offset {known.base_offset} already", twice)
        except OutOfOrderSequenceError as error:
            deleted = error.expected == 0 and self._first_offset > 0  # the marker is there, and not what it ended
            if not self._gaps and not deleted:
                who = f"of producer {header.producer_id}, epoch {header.producer_epoch}"
                self._found(path, position, f"sequence {error.expected} {who}", f"sequence {error.found}")
        except TailraceError as error:  # an older epoch, or a batch outside of the open transaction
            what = "a batch of the open transaction" if isinstance(error, InvalidError) else "no older epoch"
            self._found(path, position, f"{what} of producer {header.producer_id}", f"epoch {header.producer_epoch}")
        ended = self._producers.added(header, marker, now_ms=0)
        if marker is not None and not marker.committed:
            begun = self._producers.unstable_from
            self._markers[header.base_offset] = ended, header.next_offset if begun is None else begun
        if ended is not None:
            self.committed += ended.committed
            self.aborted += not ended.committed

    def damaged(self) -> None:
        """Says that a batch could not be looked at: sequences may go on behind it."""
        self._gaps = True

    def segment_ended(self, base_offset: int, data: bytes) -> int:
        """Compares the bytes of a `.txnindex` with the markers of its segment; returns how many entries it has."""
        path = path_of(self._directory, base_offset, TXN_INDEX)
        entries = unpack(data)
        missing = {each for each, (ended, _) in self._markers.items() if ended is not None and each < self._offset}
        for number, entry in enumerate(entries):
            ended, stable = self._markers.get(entry.last_offset, (None, entry.last_offset + 1))
            missing.discard(entry.last_offset)
            if entry.last_offset >= self._offset:  # also: where there is no snapshot
                continue
            at = number * ENTRY_BYTES
            if entry.last_offset not in self._markers:
                self._found(path, at, "the offset of an abort marker of this segment", f"offset {entry.last_offset}")
            elif ended is not None and (
                ended.producer_id != entry.producer_id or entry.first_offset > ended.first_offset
            ):
                expected = f"producer {ended.producer_id} from offset {ended.first_offset} or before"
                self._found(path, at, expected, f"producer {entry.producer_id} from offset {entry.first_offset}")
            elif entry.last_stable_offset > stable:  # a reader that ends there would not look further
                self._found(path, at, f"a last stable offset up to {stable}", str(entry.last_stable_offset))
        for offset in sorted(missing):
            self._found(path, -1, f"an entry for the transaction that was aborted at offset {offset}", "none")
        whole = len(entries) * ENTRY_BYTES
        if len(data) > whole and not self._in_use and not missing:
            self._note(f"{path} has {len(data) - whole} bytes behind its last whole entry, at byte {whole}")
        self._markers.clear()
        return len(entries)

    def ended(self, *, whole: bool) -> None:
        """Ends the check; `whole`: all segments of the partition were walked."""
        if whole and not self._compared and self._offset <= max(self._next_offset, 0):
            self._compare()
        if whole and not self._in_use:
            for each in self.open_transactions:
                self._note(
                    f"{self._directory} has an open transaction: producer {each.producer_id}, epoch "
                    f"{each.producer_epoch}, from offset {each.first_offset} on; committed records are read up to there"
                )

    def _compare(self) -> None:
        self._compared = True
        seen = {each.producer_id: each for each in self._producers.states}
        for producer in sorted(seen.keys() | self._snapshot.keys()):
            state, said = seen.get(producer), self._snapshot.get(producer)
            if not _agree(state, said, self._first_offset):
                path = path_at(self._directory, self._offset)
                self._found(path, -1, f"producer {producer} {_shown(state)}", _shown(said))


def _agree(state: ProducerState | None, said: ProducerState | None, first_offset: int) -> bool:
    """Whether what the batches say, as far as they are there, and what the snapshot says may both be true."""
    if said is None:  # forgotten after a day
        return state is None or state.first_offset == NONE
    if state is None:  # its batches were deleted
        return said.first_offset < first_offset
    if said.epoch != state.epoch:
        return said.epoch > state.epoch
    if (said.first_offset == NONE) != (state.first_offset == NONE) or said.first_offset > state.first_offset:
        return False
    return not state.batches or said.last_sequence == state.last_sequence


def _shown(state: ProducerState | None) -> str:
    if state is None:
        return "unknown"
    begun = "no transaction" if state.first_offset == NONE else f"a transaction from offset {state.first_offset}"
    return f"with epoch {state.epoch}, sequence {state.last_sequence}, {begun}"
