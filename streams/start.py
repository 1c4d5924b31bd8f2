"""Starts an app in this process and ends it: opens the log and the stores, plans, and closes what it opened, in order.

An abort is an end and a start that leave the log open.

1. A log that was handed in stays open; one that the app named is closed with it.
2. Processors are closed before the stores, and these before the log, whatever ended the run.
3. One app of a name runs on a log at a time: two would read and commit the same offsets. A log belongs to one process,
   so it is enough that this one knows. The state directory is locked besides: it may be elsewhere (identity).
"""

import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from threading import Lock
from types import TracebackType
from weakref import WeakKeyDictionary

from tailrace.log.client import Log, Producer
from tailrace.log.clock import Clock
from tailrace.log.disk import RealDisk, join
from tailrace.log.errors import InvalidError, RetriableError, TailraceError
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import Progress
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.state.store import Backend
from tailrace.streams import identity
from tailrace.streams.identity import Identity
from tailrace.streams.options import AppOptions
from tailrace.streams.plan import Plan, Planner
from tailrace.streams.runner import Runner
from tailrace.streams.task import TaskId
from tailrace.streams.topology import Topology

_logger = logging.getLogger(__name__)

# What an entry of a cache costs with its key and value, about: turns cache_bytes into a number of entries.
_ENTRY_BYTES = 400
# Nothing lingers that a commit does not wait for.
_LINGER_MS = 50.0
_BATCH_BYTES = 256 << 10
# How long readers of an app's results may be held up by one that died, where nothing tells the log so.
TRANSACTION_TIMEOUT_MS = 10_000

_lock = Lock()
_running: WeakKeyDictionary[Log, set[str]] = WeakKeyDictionary()


@contextmanager
def started(
    topology: Topology, options: AppOptions, clock: Clock, progress: Callable[[str], Progress] | None = None
) -> Generator[Runner]:
    """A runner, ready to run; leaving the block closes the stores, and the log if it was opened here.

    Raises InvalidError where an app of this name runs on the log already, and what planning and opening raise.
    """
    with ExitStack() as stack:
        log = options.log if isinstance(options.log, Log) else stack.enter_context(Log.open(options.log))
        stack.enter_context(_alone(log, options.name))
        root = options.state_dir or log.state_directory
        state = None if root is None else join(root, options.name)
        member = _identity(state, options.name, log)
        stack.callback(member.release)
        attempts = _Attempts(topology, options, log, clock, state, member, progress)
        stack.push(attempts.end)
        plan = attempts.begin()
        stores = sum(len(task.stores) for task in plan.tasks) or 1
        yield Runner(
            plan,
            log,
            clock,
            commit_interval_ms=options.commit_interval_ms,
            eager=options.commit_soon,
            entries_max=options.cache_bytes // _ENTRY_BYTES // stores,
            again=attempts.again,
        )


class _Attempts:
    """What an abort drops and makes anew: the producer, the stores, the tasks. The log and the identity stay."""

    def __init__(
        self,
        topology: Topology,
        options: AppOptions,
        log: Log,
        clock: Clock,
        state: str | None,
        member: Identity,
        progress: Callable[[str], Progress] | None,
    ) -> None:
        self._topology = topology
        self._options = options
        self._log = log
        self._clock = clock
        self._open_backend = _backends(state, clock)
        self._member = member
        self._progress = progress
        self._stack = ExitStack()

    def begin(self) -> Plan:
        """Tasks that stand at the last commit. Raises what planning and opening raise."""
        with ExitStack() as stack:
            producer = stack.enter_context(self._producer())

            def backend_for(task: TaskId) -> Backend:
                backend = self._open_backend(task)
                stack.callback(backend.close)
                return backend

            planner = Planner(self._topology, self._log, self._options, backend_for, self._clock)
            plan = planner.plan(producer, self._progress)
            stack.push(plan.stop)
            self._stack = stack.pop_all()
        return plan

    def _producer(self) -> Producer:
        """One that, for exactly once, has fenced the one before it and ended what that had open."""
        if self._options.guarantee == "at_least_once":
            return self._log.producer(acks="all", linger_ms=_LINGER_MS, batch_bytes=_BATCH_BYTES)
        producer = self._log.producer(
            linger_ms=_LINGER_MS,
            batch_bytes=_BATCH_BYTES,
            transactional_id=self._member.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        producer.begin()
        return producer

    def again(self, error: RetriableError) -> Plan:
        """Drops all that was not committed, for that error, and begins from the last commit."""
        try:
            self.end(type(error), error, error.__traceback__)
        except TailraceError as hidden:  # what failed may fail to be closed for the same reason
            _logger.warning("while the app goes back to its last commit: %s", hidden)
        return self.begin()

    def end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Closes the processors, then the stores, then the producer; every one of them, whatever another raises."""
        stack, self._stack = self._stack, ExitStack()
        return stack.__exit__(kind, error, trace)


@contextmanager
def _alone(log: Log, name: str) -> Generator[None]:
    with _lock:
        names = _running.setdefault(log, set())
        if name in names:
            raise InvalidError(f"the app {name!r} runs on this log already: stop it first, or give one another name")
        names.add(name)
    try:
        yield
    finally:
        with _lock:
            names.remove(name)


def _identity(state: str | None, app: str, log: Log) -> Identity:
    if state is None:
        return identity.in_memory(app)
    # A log in memory is another one each time: what is on disk cannot be of this one, and is rebuilt.
    return identity.take(RealDisk(), state, app, log.cluster_id if log.state_directory is not None else None)


def _backends(state: str | None, clock: Clock) -> Callable[[TaskId], Backend]:
    """Opens a task's stores: on RocksDB in the state directory, in memory where there is none."""
    if state is None:
        return lambda _task: MemoryBackend()
    memory = RocksMemory()
    return lambda task: RocksBackend(join(state, str(task)), memory, clock.monotonic)
