"""The leader epochs of one partition: which began at which offset.

1. Epochs rise, and so do the offsets at which they begin; the last one is the partition's own since it was opened.
2. The file is on disk before the first record of an epoch: no other may then be taken for it.

Not here: the file's form (`checkpoint`). Kafka's LeaderEpochFileCache.
"""

from collections.abc import Sequence
from contextlib import suppress

from tailrace.log import checkpoint
from tailrace.log.disk import Disk
from tailrace.log.errors import DiskFullError


class LeaderEpochs:
    """Guarded by the partition's lock. `current` is -1 before there is one."""

    def __init__(self, disk: Disk, directory: str) -> None:
        """Knows none until `load` or `begin`."""
        self.current = -1
        self._disk = disk
        self._directory = directory
        self._entries: Sequence[checkpoint.EpochEntry] = ()
        self._written = False

    @property
    def entries(self) -> list[checkpoint.EpochEntry]:
        """Which epoch began where, in order."""
        return list(self._entries)

    def load(self, last_in_data: int) -> None:
        """Takes what the file says, for reading; where it says nothing, the last batch's epoch counts."""
        self._entries = checkpoint.read_epochs(self._disk, self._directory)
        self.current = self._entries[-1].epoch if self._entries else last_in_data

    def begin(self, epoch: int | None, log_end_offset: int, last_in_data: int) -> None:
        """A new epoch from the log end on, None: the last one plus 1.

        Epochs of what was cut, and those without a record, are forgotten.
        """
        entries = checkpoint.read_epochs(self._disk, self._directory)
        last = max([entry.epoch for entry in entries], default=last_in_data)
        self.current = last + 1 if epoch is None else epoch
        entries = [each for each in entries if each.epoch < self.current and each.start_offset < log_end_offset]
        self._entries = [*entries, checkpoint.EpochEntry(self.current, log_end_offset)]
        self._written = False
        # A full disk must not keep the log from being opened: only that way can something be deleted from it.
        with suppress(DiskFullError):
            self.write()

    def write(self) -> None:
        """Before each append; does something before the first alone.

        Raises:
            DiskFullError: no room; nothing has changed.
        """
        if not self._written:
            checkpoint.write_epochs(self._disk, self._directory, self._entries)
            self._written = True

    def end_of(self, epoch: int, log_end_offset: int) -> int:
        """Where the records of an epoch, or of those before it, end; -1 for one that is still to come."""
        if epoch > self.current:
            return -1
        later = [each.start_offset for each in self._entries if each.epoch > epoch]
        return later[0] if later else log_end_offset

    def of(self, offset: int) -> int:
        """The epoch in which an offset was, or would be, written; -1 for one from before the first that is known."""
        return max((each.epoch for each in self._entries if each.start_offset <= offset), default=-1)
