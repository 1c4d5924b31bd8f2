"""Places where the tests of stores keep their bytes."""

from collections.abc import Callable

import pytest

from tailrace.state.rocksdb import RocksMemory
from tailrace.tests.support.places import MemoryPlace, Place, RocksPlace

MakePlace = Callable[[str], Place]


@pytest.fixture(scope="session")
def make_place(tmp_path_factory: pytest.TempPathFactory) -> MakePlace:
    """Makes a fresh place of a kind, "memory" or "rocksdb"; for hypothesis it outlives the examples."""
    memory = RocksMemory()

    def make(kind: str) -> Place:
        return MemoryPlace() if kind == "memory" else RocksPlace(str(tmp_path_factory.mktemp("state")), memory)

    return make
