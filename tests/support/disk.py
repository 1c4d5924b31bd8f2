"""A disk for tests, in memory: at a crash it forgets what was not synced and tears writes; it fills up and fails.

1. Bytes survive a crash for certain only up to the last `sync` of their file; of what came after, a part may be there,
   with pages in it that were never written (zeros), as a real disk writes pages in any order.
2. A name (new, renamed, removed) survives for certain only after `sync_dir` of its folder; each change is one step.
3. `power_loss_after(n)`: the nth change from now raises `PowerLossError`, an append after a part of its bytes; so does
   all after it, until `crash()` brings the machine up again with what survived, or `kill()`, where only the process has
   ended: then all that was written is there, synced or not. Handles of before are dead after either.
4. Chance comes from the seed alone.
"""

import os
import random
from collections.abc import Callable

from tailrace.log.disk import Data, File, MemoryDisk, MemoryFile, MemoryNode, disk_full
from tailrace.log.partition.recovery import PAGE_BYTES


class PowerLossError(Exception):
    """The machine has stopped here."""


class FaultyDisk(MemoryDisk):
    """See the module's docstring. `capacity` is in bytes over all files; `operations` counts changes."""

    def __init__(self, seed: int = 0, *, capacity: int | None = None) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.capacity = capacity
        self.operations = 0
        self.told: list[str] | None = None
        """The kinds of the changes so far, where somebody wants to know."""
        self.generation = 0
        self.down = False
        self._stop_at: int | None = None
        self._syncs_left: int | None = None
        self._failures: list[tuple[str, str, Exception]] = []
        self.failed: list[str] = []
        """The paths where a failure that was asked for has come, since the process began."""
        self._durable_files: dict[str, MemoryNode] = {}
        self._durable_folders: set[str] = set(self._folders)
        self._unsynced_names: list[tuple[str, Callable[[], None]]] = []  # (folder, the change on what is durable)

    # ---- what a test asks for

    def power_loss_after(self, operations: int) -> None:
        """Stops the machine at the nth change from now."""
        self._stop_at = self.operations + operations

    def power_loss_at_sync(self, syncs: int) -> None:
        """Stops the machine at the nth sync (of a file or a folder) from now, which is not done."""
        self._syncs_left = syncs

    def kill(self) -> None:
        """The process has ended, and the machine has not."""
        self.generation += 1
        self.down = False
        self.failed = []
        self.heal()
        self._locks = set()

    def heal(self) -> None:
        """Takes back every end and failure that was asked for and has not come."""
        self.capacity, self._stop_at, self._syncs_left, self._failures = None, None, None, []

    def fail(self, operation: str, error: Exception, *, path: str = "") -> None:
        """Lets the next `operation` (append, sync, …) on a path that contains `path` raise `error`, once."""
        self._failures.append((operation, path, error))

    def crash(self) -> None:
        """Comes up again with what survived; handles of before are dead."""
        chance = self.random
        in_order = (
            chance.random() < 0.5
        )  # a journal keeps a prefix of the changes to names; be harsher half of the time
        keep_until = chance.randint(0, len(self._unsynced_names))
        for index, (_, change) in enumerate(self._unsynced_names):
            if index < keep_until if in_order else chance.random() < 0.5:
                change()
        survivors = {path: node for path, node in self._durable_files.items() if self._has_folder(path)}
        self._folders = {each for each in self._durable_folders if each in {os.sep, ""} or self._has_folder(each)}
        self._files = {path: _settled(node, chance) for path, node in survivors.items()}
        self._durable_files, self._durable_folders = dict(self._files), set(self._folders)
        self._unsynced_names = []
        self.kill()

    def _has_folder(self, path: str) -> bool:
        folder = os.path.dirname(path)
        return folder in {os.sep, ""} or (folder in self._durable_folders and self._has_folder(folder))

    # ---- the disk

    def step(self, operation: str, path: str) -> None:
        """Counts a change and stops or fails where that was asked for."""
        if self.stopping(operation, path):
            raise PowerLossError(operation)

    def stopping(self, operation: str, path: str) -> bool:
        """As `step`, for whoever does a part of it before the end."""
        if self.down or (self._stop_at is not None and self.operations >= self._stop_at):
            self.down = True
            raise PowerLossError(operation)
        self.operations += 1
        if self.told is not None:
            self.told.append(operation)
        if self._syncs_left is not None and operation in {"sync", "sync_dir"}:
            self._syncs_left -= 1
            if not self._syncs_left:
                self._stop_at = self.operations
        for index, (wanted, part, error) in enumerate(self._failures):
            if wanted == operation and part in path:
                del self._failures[index]
                self.failed.append(path)
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = path  # as the real disk says it
                raise error
        self.down = self._stop_at is not None and self.operations >= self._stop_at
        return self.down

    def used(self) -> int:
        """Bytes of all files."""
        return sum(len(node.data) for node in self._files.values())

    def _file(self, path: str, node: MemoryNode) -> File:
        return _FaultyFile(self, path, node)

    def open(self, path: str, *, write: bool = False) -> File:
        path = os.path.normpath(path)
        made = write and path not in self._files and os.path.dirname(path) in self._folders
        if made:
            self.step("create", path)
            self._files[path] = node = _FaultyNode()
            self._name_changed(path, lambda: self._durable_files.__setitem__(path, node))
        return super().open(path, write=write)

    def mkdir(self, path: str) -> None:
        path = os.path.normpath(path)
        while path not in self._folders:
            self.step("mkdir", path)
            self._folders.add(path)
            self._name_changed(path, lambda each=path: self._durable_folders.add(each))  # type: ignore[misc]
            path = os.path.dirname(path)

    def rename(self, old: str, new: str) -> None:
        old, new = os.path.normpath(old), os.path.normpath(new)
        self.step("rename", old)
        super().rename(old, new)

        def change() -> None:
            files, folders = self._durable_files, self._durable_folders
            self._durable_files = {_moved(each, old, new): node for each, node in files.items()}
            self._durable_folders = {_moved(each, old, new) for each in folders}

        self._name_changed(new, change)

    def remove(self, path: str) -> None:
        path = os.path.normpath(path)
        self.step("remove", path)
        super().remove(path)
        self._name_changed(path, lambda: void(self._durable_files.pop(path, None)))

    def remove_tree(self, path: str) -> None:
        path = os.path.normpath(path)
        self.step("remove_tree", path)
        super().remove_tree(path)

        def change() -> None:
            self._durable_folders.discard(path)  # what stood in it goes with it
            self._durable_files = {each: node for each, node in self._durable_files.items() if self._has_folder(each)}

        self._name_changed(path, change)

    def sync_dir(self, path: str) -> None:
        path = os.path.normpath(path)
        self.step("sync_dir", path)
        left: list[tuple[str, Callable[[], None]]] = []
        for folder, change in self._unsynced_names:
            if folder == path:
                change()
            else:
                left.append((folder, change))
        self._unsynced_names = left

    def _name_changed(self, path: str, change: Callable[[], None]) -> None:
        self._unsynced_names.append((os.path.dirname(path), change))


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if path == old or path.startswith(old + os.sep) else path


def void(_: object) -> None:
    """For a lambda that returns nothing."""


class _FaultyNode(MemoryNode):
    """`durable` is what was there at the last sync."""

    __slots__ = ("durable",)

    def __init__(self) -> None:
        super().__init__()
        self.durable = b""


class _FaultyFile(MemoryFile):
    def __init__(self, disk: FaultyDisk, path: str, node: MemoryNode) -> None:
        super().__init__(path, node)
        self._disk = disk
        self._generation = disk.generation

    def _check_alive(self) -> None:
        if self._generation != self._disk.generation:
            raise PowerLossError("its process has ended")

    def append(self, data: Data) -> int:
        self._check_alive()
        stop = self._disk.stopping("append", self.path)
        if stop:
            self._node.data += bytes(data)[: self._disk.random.randint(0, len(data))]
            raise PowerLossError("append")
        if self._disk.capacity is not None and self._disk.used() + len(data) > self._disk.capacity:
            raise disk_full(self.path)
        return super().append(data)

    def truncate(self, size: int) -> None:
        self._check_alive()
        self._disk.step("truncate", self.path)
        super().truncate(size)

    def sync(self) -> None:
        self._check_alive()
        self._disk.step("sync", self.path)
        assert isinstance(self._node, _FaultyNode)
        self._node.durable = bytes(self._node.data)


def _settled(node: MemoryNode, chance: random.Random) -> _FaultyNode:
    """What of a file is found after the crash."""
    assert isinstance(node, _FaultyNode)
    durable, current = node.durable, bytes(node.data)
    common = _common(durable, current)  # cut to here at most, and appended to since
    kept = durable
    if common == len(durable) or chance.random() < 0.5:  # a cut that was not synced may have happened or not
        kept = current[: chance.choice([common, len(current), chance.randint(common, len(current))])]
        kept = _with_lost_pages(kept, common, chance)
    made = _FaultyNode()
    made.durable = kept
    made.data = bytearray(kept)
    return made


def _common(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are the same."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)


def _with_lost_pages(data: bytes, begin: int, chance: random.Random) -> bytes:
    lost = chance.choice([0.0, 0.2, 0.5])
    out = bytearray(data)
    while begin < len(data):
        end = min((begin // PAGE_BYTES + 1) * PAGE_BYTES, len(data))
        if chance.random() < lost:
            out[begin:end] = bytes(end - begin)
        begin = end
    return bytes(out)
