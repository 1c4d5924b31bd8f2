"""The same for every disk: files, folders, names, locks; then what only a real file system can do wrong."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.log import disk as disk_module
from tailrace.log.disk import Disk, MemoryDisk, RealDisk, join, name_of, parent
from tailrace.log.errors import DiskFullError, LogLockedError
from tailrace.tests.support.disk import FaultyDisk


@pytest.fixture(params=["real", "memory", "faulty"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    """A disk and an empty folder on it."""
    disks: dict[str, Disk] = {"real": RealDisk(), "memory": MemoryDisk(), "faulty": FaultyDisk()}
    disk = disks[request.param]
    folder = join(str(tmp_path), "folder")
    disk.mkdir(folder)
    return disk, folder


def test_files_grow_and_are_cut(place: tuple[Disk, str]) -> None:
    disk, folder = place
    path = join(folder, "file")
    with pytest.raises(FileNotFoundError):
        disk.open(path)
    file = disk.open(path, write=True)
    assert (file.path, file.size) == (path, 0)
    assert file.append(b"hello ") == 0
    assert file.append(memoryview(b"world")) == 6
    assert file.read(0, 100) == b"hello world"
    assert file.read(6, 3) == b"wor"
    assert file.read(50, 3) == b""
    beside = disk.open(path)
    file.append(bytearray(b"!"))
    assert (beside.size, beside.read(10, 10)) == (12, b"d!")
    file.truncate(5)
    assert file.append(b"?") == 5
    file.sync()
    file.close()
    file.close()
    beside.close()
    assert disk.size(path) == 6
    again = disk.open(path, write=True)
    assert again.read(0, 100) == b"hello?"
    again.close()


def test_folders_and_names(place: tuple[Disk, str]) -> None:
    disk, folder = place
    deep = join(folder, "a", "b")
    disk.mkdir(deep)
    disk.mkdir(deep)
    for name in ("two", "one"):
        disk.open(join(deep, name), write=True).close()
    assert disk.list(deep) == ["one", "two"]
    assert disk.list(folder) == ["a"]
    assert disk.is_dir(deep)
    assert not disk.is_dir(join(deep, "one"))
    assert disk.exists(join(deep, "one"))
    disk.rename(join(deep, "one"), join(deep, "two"))
    assert disk.list(deep) == ["two"]
    disk.rename(join(folder, "a"), join(folder, "c"))
    assert disk.list(join(folder, "c", "b")) == ["two"]
    disk.remove(join(folder, "c", "b", "two"))
    assert disk.list(join(folder, "c", "b")) == []
    disk.sync_dir(folder)
    disk.remove_tree(join(folder, "c"))
    disk.remove_tree(join(folder, "c"))
    assert not disk.exists(join(folder, "c"))
    for refused in (lambda: disk.list(join(folder, "c")), lambda: disk.remove(join(folder, "x"))):
        with pytest.raises(FileNotFoundError):
            refused()
    with pytest.raises(FileNotFoundError):
        disk.size(join(folder, "x"))
    with pytest.raises(FileNotFoundError):
        disk.open(join(folder, "c", "file"), write=True)
    assert (parent(join(folder, "x")), name_of(join(folder, "x"))) == (folder, "x")


def test_one_holds_a_lock_and_others_learn_who(place: tuple[Disk, str]) -> None:
    disk, folder = place
    path = join(folder, ".lock")
    assert disk.lock_holder(path) is None
    lock = disk.lock(path)
    assert disk.lock_holder(path) == os.getpid()
    with pytest.raises(LogLockedError, match=f"in this process .{os.getpid()}. already: use that Log") as caught:
        disk.lock(path)
    assert caught.value.pid == os.getpid()
    lock.release()
    lock.release()
    assert disk.lock_holder(path) is None
    disk.lock(path).release()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    root = Path(disk_module.__file__).resolve().parents[1]
    program = (
        "import sys, os; sys.path.insert(0, sys.argv[2]); from tailrace.log.disk import RealDisk;"
        "RealDisk().lock(sys.argv[1]); print(os.getpid(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, path, str(root / ".dev")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        with pytest.raises(LogLockedError) as caught:
            RealDisk().lock(path)
        assert caught.value.pid == pid
        child.kill()
        child.wait()
    RealDisk().lock(path).release()


def test_a_full_disk_undoes_the_half_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealDisk().open(str(tmp_path / "file"), write=True)
    file.append(b"before")
    room = [4]
    write = os.pwrite

    def little_room(fd: int, data: memoryview, position: int) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(fd, data[: room[0]], position)
        room[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", little_room)
    with pytest.raises(DiskFullError, match=f"no room on the disk for {tmp_path}/file"):
        file.append(b"0123456789")
    assert (file.size, (tmp_path / "file").read_bytes()) == (6, b"before")
    room[0] = 100
    file.append(b" after")
    assert (tmp_path / "file").read_bytes() == b"before after"
    file.close()


def test_a_half_done_write_that_cannot_be_undone_is_undone_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RealDisk().open(str(tmp_path / "file"), write=True)
    file.append(b"before")
    write = os.pwrite

    def three_bytes_and_no_more(fd: int, data: memoryview, position: int) -> int:
        return write(fd, data[:3], position) if position == 6 else fail()

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", three_bytes_and_no_more)
        broken.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="broken"):
            file.append(b"0123456789")
    assert file.size == 6
    file.append(b"!")
    assert (tmp_path / "file").read_bytes() == b"before!"
    file.close()


def fail(*_: object) -> int:
    raise OSError(errno.EIO, "broken")


@pytest.mark.parametrize("call", ["makedirs", "replace", "open"])
def test_no_room_for_a_name(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk()
    disk.open(str(tmp_path / "file"), write=True).close()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, call, full)
    calls: dict[str, Callable[[], object]] = {
        "makedirs": lambda: disk.mkdir(str(tmp_path / "x")),
        "replace": lambda: disk.rename(str(tmp_path / "file"), str(tmp_path / "y")),
        "open": lambda: disk.open(str(tmp_path / "z"), write=True),
    }
    with pytest.raises(DiskFullError):
        calls[call]()


def test_what_the_forgetting_disk_forgets() -> None:
    disk = FaultyDisk(seed=3)
    disk.mkdir("/log")
    disk.sync_dir("/")
    kept = disk.open("/log/kept", write=True)
    kept.append(b"synced")
    kept.sync()
    disk.sync_dir("/log")
    kept.append(b" and not")
    seen: set[bytes] = set()
    names: set[bool] = set()
    for seed in range(40):
        copy = FaultyDisk(seed)
        copy.mkdir("/log")
        copy.sync_dir("/")
        file = copy.open("/log/kept", write=True)
        copy.sync_dir("/log")
        file.append(b"synced")
        file.sync()
        file.append(b" and not")
        copy.open("/log/new", write=True)
        copy.crash()
        found = copy.open("/log/kept").read(0, 100)
        assert found.startswith(b"synced")
        seen.add(found)
        names.add(copy.exists("/log/new"))
    assert {b"synced", b"synced and not"} < seen
    assert names == {True, False}
