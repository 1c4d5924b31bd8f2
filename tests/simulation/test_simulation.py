"""Some hundred lives of a log and its users; and that a broken promise is noticed, whatever breaks it."""

import errno
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tailrace.log.errors import DiskFullError, RetriableError, TailraceError
from tailrace.log.groups.groups import Groups
from tailrace.log.partition.partition import Partition
from tailrace.log.syncer import Syncer
from tailrace.log.transactions.coordinator import TransactionCoordinator
from tailrace.state.memory import MemoryBackend
from tailrace.streams import runner
from tailrace.streams.chain.clocks import WriterClocks
from tailrace.streams.commit import commit, offsets_of
from tailrace.streams.operators.own_stores import OwnStore
from tailrace.streams.planning import planner
from tailrace.streams.planning.planner import Planner
from tailrace.streams.planning.repartitions import Repartitions
from tailrace.streams.task import Task
from tailrace.tests.simulation.each import end_at, points_of
from tailrace.tests.simulation.run import life_of, simulate
from tailrace.tests.simulation.world import World

SEEDS = 100
PARTS = 10
PLANTED_SEEDS = 120
LOG, PROGRAM = 1, 0
"""By whether a seed is odd: producers and readers of a log, or a program and its members."""


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Thousands of warnings, each of something that was meant to happen."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_promise_is_broken(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        outcome = simulate(seed)
        assert outcome.violation is None, str(outcome)


@pytest.mark.parametrize("seed", [4, 5])
def test_a_seed_is_told_the_same_each_time(seed: int) -> None:
    told: list[list[str]] = []
    for _ in range(2):
        lines: list[str] = []
        simulate(seed, tell=lines.append)
        told.append(lines)
    assert told[0] == told[1]
    assert len(told[0]) > 50


@pytest.mark.parametrize(("seed", "of"), [(2, 12), (3, 2)], ids=["program", "log"])
def test_a_short_life_ended_at_each_sync(seed: int, of: int) -> None:
    """From its first step on, at some of them: `--each-sync` does all."""
    began = life_of(seed, None, calm=True)
    began.world.boot()
    points = [each for each in points_of(seed, steps=12) if each > began.world.disk.operations]
    assert len(points) > 100
    for point in points[::of]:
        outcome = end_at(seed, point, steps=12)
        assert outcome.violation is None, str(outcome)
        assert outcome.crashes == 1


def test_an_error_that_the_disk_does_not_explain_is_none_that_is_forgiven() -> None:
    world = World(1)
    world.boot()
    error = OSError(errno.EIO, "Input/output error")
    named = TailraceError("plain-0 could not be synced to disk")
    assert not world.excused(named), "nothing has failed"
    world.disk.fail("sync", error, path="/plain-0/")
    with pytest.raises(TailraceError, match="plain-0 could not be synced"), world.log.producer() as producer:
        producer.send("plain", b"v", partition=0).result()
    assert world.excused(named)
    assert not world.excused(TailraceError("mixed-1 could not be synced to disk")), "somewhere else"
    assert not world.excused(OSError(errno.EIO, "Input/output error")), "it does not say where"
    assert not world.excused(KeyError("plain-0"))
    assert not world.excused(RetriableError("not yet")), "there was room"
    world.was_full = True
    assert world.excused(DiskFullError("no room"))
    assert not world.excused(RetriableError("not yet"))
    world.end()
    assert not world.excused(named), "the log was opened anew"


def _no_sync_of_data(_syncer: Syncer, _targets: Any) -> None:
    """A commit that leaves its data in the page cache."""


def _none_aborted(*_: Any) -> list[Any]:
    return []


def _nothing(*_: Any) -> None:
    """What was to be done is not."""


def _never(*_: Any) -> bool:
    return False


def _always(*_: Any) -> bool:
    return True


def _no_fence(coordinator: Any, who: Any) -> tuple[Any, Any]:
    """Whoever had the id once may go on."""
    entry = coordinator._entries[who[0]]
    return entry, entry.transaction


def _write_before_commit(tasks: Any, to: Any) -> None:
    """A commit of an app that moves its offsets in a transaction of their own."""
    for task in tasks:
        task.flush()
        task.tell_time(flushed=True)
    for outputs in to.outputs:
        outputs.send()
    if to.transactional:
        to.producer.commit()
        to.producer.begin()
    commit(tasks, to)


def _offsets_first(tasks: Any, to: Any) -> None:
    """A commit that tells what was read before it writes what came of it, and no transaction holds the two together."""
    if not to.transactional:
        to.log.commit_offsets(to.group, offsets_of(tasks))
    commit(tasks, to)


PLANTED: list[tuple[int, Any, str, Callable[..., Any]]] = [
    (LOG, Syncer, "sync_all", _no_sync_of_data),
    (LOG, Partition, "aborted", _none_aborted),
    (LOG, TransactionCoordinator, "recover", _nothing),
    (LOG, TransactionCoordinator, "_held", _no_fence),
    (LOG, runner, "commit", _write_before_commit),
    (LOG, MemoryBackend, "write", _nothing),
    (PROGRAM, runner, "commit", _write_before_commit),
    (PROGRAM, Planner, "_open_in", _nothing),  # nobody waits for what the one before has open
    (PROGRAM, Groups, "check_member", _nothing),
    (PROGRAM, WriterClocks, "resume", _nothing),
    (PROGRAM, planner, "restore", _nothing),
    (PROGRAM, MemoryBackend, "write", _nothing),
    (PROGRAM, Task, "listen", _never),  # no silence closes a window
    (PROGRAM, Repartitions, "_all_read", _always),  # a hop through the log is left with what waits there
    (PROGRAM, runner, "commit", _offsets_first),
    (PROGRAM, OwnStore, "flush", _nothing),  # what a processor has put is forgotten
]


@pytest.mark.parametrize(
    ("life", "owner", "method", "instead"), PLANTED, ids=[f"{each[2]}-{each[0]}" for each in PLANTED]
)
def test_what_breaks_a_promise_is_found(
    life: int, owner: Any, method: str, instead: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, instead)
    assert any(simulate(seed).violation is not None for seed in range(life, PLANTED_SEEDS, 2))
