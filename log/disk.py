"""Every door to files: open, append, read, truncate, sync, rename, remove, list, lock. Nothing else touches `os`.

1. `File.append` is all or nothing for its caller: where it raises, the file is as long as before.
2. What `File.sync` returned for survives a crash; a new, renamed or removed name survives after `sync_dir` of its
   folder. Before that nothing is promised: bytes and names may be lost, and the last write may be torn.
3. A full disk is `DiskFullError`; everything else that the system refuses stays an `OSError`.
4. Paths are plain strings with the system's separator. A `Disk` and its files may be used by several threads.

Two disks stand here: the machine's, and one in memory for `memory:` (where syncing has nothing to do). The disk of the
tests, which forgets, tears and fills up, is `tests/support/disk.py`.
Not here: what a file means (`segment`, `checkpoint`).
"""

import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from tailrace.log.errors import DiskFullError, LogLockedError

Data = bytes | bytearray | memoryview

LOCK_ATTEMPTS: Final = 5  # a reader that asks who holds a lock takes it for microseconds: do not fall over that
LOCK_PAUSE_SECONDS: Final = 0.01


class File(Protocol):
    """An open file that grows at its end."""

    @property
    def path(self) -> str:
        """Where it was when it was opened."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes, now."""
        ...

    def append(self, data: Data) -> int:
        """Writes at the end and returns the position at which `data` begins.

        Raises:
            DiskFullError: no room; the file is as long as before.
            OSError: anything else; the file is as long as before where that could be brought about.
        """
        ...

    def read(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position`; fewer only at the end of the file."""
        ...

    def truncate(self, size: int) -> None:
        """Cuts the file to `size` bytes."""
        ...

    def sync(self) -> None:
        """Returns when every byte is on disk (fdatasync)."""
        ...

    def close(self) -> None:
        """Gives the handle back; a second call does nothing."""
        ...


class Lock(Protocol):
    """A lock that is held until `release` or the end of the process."""

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        ...


class Disk(Protocol):
    """Folders and files."""

    def open(self, path: str, *, write: bool = False) -> File:
        """Opens a file; with `write` it is created when missing, else `FileNotFoundError`."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this name."""
        ...

    def is_dir(self, path: str) -> bool:
        """Whether it is a folder."""
        ...

    def size(self, path: str) -> int:
        """A file's length in bytes; `FileNotFoundError` where there is none."""
        ...

    def list(self, path: str) -> list[str]:
        """The names in a folder, sorted; `FileNotFoundError` where there is none."""
        ...

    def mkdir(self, path: str) -> None:
        """Makes a folder and those above it; nothing happens where it exists."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Gives a file or folder another name; a file that has it already is replaced, in one step."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file; `FileNotFoundError` where there is none."""
        ...

    def remove_tree(self, path: str) -> None:
        """Removes a folder and all in it; nothing happens where there is none."""
        ...

    def sync_dir(self, path: str) -> None:
        """Returns when the names in a folder are on disk."""
        ...

    def lock(self, path: str) -> Lock:
        """Takes the lock file at `path` (created when missing) for this process, whose pid is written into it.

        Raises:
            LogLockedError: another holds it; `pid` is what it wrote there.
        """
        ...

    def lock_holder(self, path: str) -> int | None:
        """The pid of who holds the lock (0 where it cannot be read), None where nobody does. Changes nothing."""
        ...


def join(directory: str, *names: str) -> str:
    """A path below a folder."""
    return os.path.join(directory, *names)


def parent(path: str) -> str:
    """The folder in which a file or folder stands."""
    return os.path.dirname(os.path.abspath(path))


def name_of(path: str) -> str:
    """The last part of a path."""
    return os.path.basename(os.path.normpath(path))


class RealDisk:
    """The machine's file system."""

    def open(self, path: str, *, write: bool = False) -> File:
        """See `Disk.open`."""
        with _full_disk(path):
            flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
            return _RealFile(path, os.open(path, flags | os.O_CLOEXEC, 0o644), write=write)

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return os.path.exists(path)

    def is_dir(self, path: str) -> bool:
        """See `Disk.is_dir`."""
        return os.path.isdir(path)

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        return os.stat(path).st_size

    def list(self, path: str) -> list[str]:
        """See `Disk.list`."""
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        """See `Disk.mkdir`."""
        with _full_disk(path):
            os.makedirs(path, exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        """See `Disk.rename`."""
        with _full_disk(new):
            os.replace(old, new)

    def remove(self, path: str) -> None:
        """See `Disk.remove`."""
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        """See `Disk.remove_tree`."""
        if os.path.lexists(path):
            shutil.rmtree(path)

    def sync_dir(self, path: str) -> None:
        """See `Disk.sync_dir`."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> Lock:
        """See `Disk.lock`."""
        with _full_disk(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt + 1 < LOCK_ATTEMPTS:
                    time.sleep(LOCK_PAUSE_SECONDS)
                    continue
                pid = _read_pid(fd)
                os.close(fd)
                raise _locked(path, pid) from None
        # Written over what is there, as a full disk gives no new block; without room the lock holds all the same.
        text = f"{os.getpid()}\n".encode()
        with suppress(DiskFullError), _full_disk(path):
            os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
        return _RealLock(fd)

    def lock_holder(self, path: str) -> int | None:
        """See `Disk.lock_holder`."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(fd)
        else:
            return None
        finally:
            os.close(fd)


class _RealFile:
    """A file descriptor; `_size` is the end of what was appended, so that a half-done append is never part of it."""

    def __init__(self, path: str, fd: int, *, write: bool) -> None:
        self._path = path
        self._fd = fd
        self._write = write
        self._size = os.fstat(fd).st_size
        self._ragged = False  # bytes of a failed append may stand behind `_size`

    @property
    def path(self) -> str:
        return self._path

    @property
    def size(self) -> int:
        return self._size if self._write else os.fstat(self._fd).st_size

    def append(self, data: Data) -> int:
        if self._ragged:
            self._cut_back()
        position, done, view = self._size, 0, memoryview(data)
        self._ragged = True  # until the end: Ctrl-C may come between any two lines
        try:
            with _full_disk(self._path):
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], position + done)
        except BaseException:
            self._cut_back()
            raise
        self._size = position + done
        self._ragged = False
        return position

    def _cut_back(self) -> None:
        os.ftruncate(self._fd, self._size)
        self._ragged = False

    def read(self, position: int, size: int) -> bytes:
        data = os.pread(self._fd, size, position)
        if len(data) == size or not data:
            return data
        parts = [data]  # one call returns at most 2 GiB, and less where a signal came in
        while data and (size := size - len(data)) > 0:
            position += len(data)
            data = os.pread(self._fd, size, position)
            parts.append(data)
        return b"".join(parts)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size
        self._ragged = False

    def sync(self) -> None:
        try:
            _sync_data(self._fd)
        except OSError as error:
            error.filename = self._path  # as in _full_disk
            raise

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


# macOS has no fdatasync, and its fsync stops at the drive's cache.
_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)


def _sync_data(fd: int) -> None:
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    else:
        os.fdatasync(fd)


class _RealLock:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _read_pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _locked(path: str, pid: int) -> LogLockedError:
    if pid == os.getpid():
        return LogLockedError(
            f"{os.path.dirname(path)} is open for writing in this process ({pid}) already: use that Log object, or "
            "close it first",
            pid=pid,
        )
    return LogLockedError(
        f"{os.path.dirname(path)} is being written by process {pid or 'unknown'}: stop it first, or read "
        f"beside it with read_only=True",
        pid=pid,
    )


@contextmanager
def _full_disk(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise disk_full(path) from error
        if error.filename is None:
            error.filename = path  # the system does not say where, of a file that is open
        raise


def disk_full(path: str) -> DiskFullError:
    """The error for a write to `path` that found no room."""
    return DiskFullError(f"no room on the disk for {path}: what was acknowledged stays; make room, then go on")


class MemoryDisk:
    """A disk in memory: gone with the process. Folders are kept by name; `sync` and `sync_dir` have nothing to do."""

    def __init__(self) -> None:
        """Empty, with the root folder alone."""
        self._files: dict[str, MemoryNode] = {}
        self._folders: set[str] = {os.sep, ""}
        self._locks: set[str] = set()
        self._guard = threading.RLock()

    def open(self, path: str, *, write: bool = False) -> File:
        """See `Disk.open`."""
        path = os.path.normpath(path)
        with self._guard:
            node = self._files.get(path)
            if node is None:
                if not write:
                    raise FileNotFoundError(errno.ENOENT, "no such file", path)
                if os.path.dirname(path) not in self._folders:
                    raise FileNotFoundError(errno.ENOENT, "no such folder", os.path.dirname(path))
                node = self._files[path] = MemoryNode()
            return self._file(path, node)

    def _file(self, path: str, node: "MemoryNode") -> File:
        return MemoryFile(path, node)

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        path = os.path.normpath(path)
        return path in self._files or path in self._folders

    def is_dir(self, path: str) -> bool:
        """See `Disk.is_dir`."""
        return os.path.normpath(path) in self._folders

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        with self._guard:
            return len(self._node(path).data)

    def _node(self, path: str) -> "MemoryNode":
        node = self._files.get(os.path.normpath(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return node

    def list(self, path: str) -> list[str]:
        """See `Disk.list`."""
        path = os.path.normpath(path)
        with self._guard:
            if path not in self._folders:
                raise FileNotFoundError(errno.ENOENT, "no such folder", path)
            below = path.rstrip(os.sep) + os.sep
            names = {each[len(below) :] for each in (*self._files, *self._folders) if each.startswith(below)}
            return sorted(name for name in names if name and os.sep not in name)

    def mkdir(self, path: str) -> None:
        """See `Disk.mkdir`."""
        path = os.path.normpath(path)
        with self._guard:
            while path not in self._folders:
                self._folders.add(path)
                path = os.path.dirname(path)

    def rename(self, old: str, new: str) -> None:
        """See `Disk.rename`."""
        old, new = os.path.normpath(old), os.path.normpath(new)
        with self._guard:
            if old in self._files:
                self._files[new] = self._files.pop(old)
                return
            if old not in self._folders:
                raise FileNotFoundError(errno.ENOENT, "no such file or folder", old)
            self._folders = {_moved(each, old, new) for each in self._folders}
            self._files = {_moved(each, old, new): node for each, node in self._files.items()}

    def remove(self, path: str) -> None:
        """See `Disk.remove`."""
        with self._guard:
            self._node(path)
            del self._files[os.path.normpath(path)]

    def remove_tree(self, path: str) -> None:
        """See `Disk.remove_tree`."""
        path = os.path.normpath(path)
        with self._guard:
            self._folders = {each for each in self._folders if not _within(each, path)}
            self._files = {each: node for each, node in self._files.items() if not _within(each, path)}

    def sync_dir(self, path: str) -> None:
        """See `Disk.sync_dir`."""

    def lock(self, path: str) -> Lock:
        """See `Disk.lock`."""
        path = os.path.normpath(path)
        with self._guard:
            if path in self._locks:
                raise _locked(path, os.getpid())
            self._locks.add(path)
        return _MemoryLock(self._locks, path)

    def lock_holder(self, path: str) -> int | None:
        """See `Disk.lock_holder`."""
        return os.getpid() if os.path.normpath(path) in self._locks else None


class MemoryNode:
    """The bytes of a file in memory, apart from its names."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        """Empty."""
        self.data = bytearray()


class MemoryFile:
    """A handle on a node."""

    def __init__(self, path: str, node: MemoryNode) -> None:
        """`path` is for messages only."""
        self._path = path
        self._node = node

    @property
    def path(self) -> str:
        """See `File.path`."""
        return self._path

    @property
    def size(self) -> int:
        """See `File.size`."""
        return len(self._node.data)

    def append(self, data: Data) -> int:
        """See `File.append`."""
        position = len(self._node.data)
        self._node.data += data
        return position

    def read(self, position: int, size: int) -> bytes:
        """See `File.read`."""
        return bytes(self._node.data[position : position + size])

    def truncate(self, size: int) -> None:
        """See `File.truncate`."""
        del self._node.data[size:]

    def sync(self) -> None:
        """See `File.sync`."""

    def close(self) -> None:
        """See `File.close`."""


class _MemoryLock:
    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        self._held.discard(self._path)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if _within(path, old) else path
