"""The stores of a running app: removed whole or not at all, whenever the process is killed."""

import shutil
from pathlib import Path

import pytest

from tailrace.log.clock import ManualClock
from tailrace.state.store import WriteSet
from tailrace.streams.planning.units import Unit
from tailrace.streams.start import Stores
from tailrace.streams.task import TaskId

TASK = TaskId(5, 2)
UNIT = Unit((TASK,), ())


class KilledError(BaseException):
    """The process ends here."""


def with_a_row(path: Path) -> Stores:
    stores = Stores(str(path), ManualClock())
    backend = stores.open(TASK)
    backend.keyspace("counts")
    writes = WriteSet()
    writes.of("counts").put_all({b"key": b"row"})
    backend.write(writes)
    return stores


def remove_some(path: str) -> None:
    """Removes a file that the others cannot do without."""
    next(Path(path).glob("MANIFEST-*")).unlink()
    raise KilledError


def test_a_removal_that_was_killed_leaves_no_part_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = with_a_row(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", remove_some)
        with pytest.raises(KilledError):
            stores.delete(UNIT)
    assert stores.names() == []
    assert [path.name for path in tmp_path.iterdir()] == ["5_2.going"]

    again = Stores(str(tmp_path), ManualClock())
    assert list(tmp_path.iterdir()) == []
    assert list(again.open(TASK).keyspace("counts").range(b"", None)) == []
    again.close()
    again.delete(UNIT)
    assert list(tmp_path.iterdir()) == []


def test_a_removal_that_failed_is_made_good_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = with_a_row(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", remove_some)
        with pytest.raises(KilledError):
            stores.delete(UNIT)
    stores.open(TASK).keyspace("counts")
    stores.delete(UNIT)
    assert list(tmp_path.iterdir()) == []
