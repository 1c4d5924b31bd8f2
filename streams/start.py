"""Starts an app in this process and ends it: opens the log and the stores, plans, and closes what it opened, in order.

An abort is an end and a start that leave the log open.

1. A log that was handed in stays open; one that the app named is closed with it.
2. Processors are closed before the stores, and these before the log, whatever ended the run.
3. Apps of one name that run on a log are members of one group (member). Each has a number, the lowest that is free, and
   so a state directory and an identity of its own (identity). A log belongs to one process, so it is enough that this
   one knows the numbers.
4. A member leaves its group after everything is closed: only then may others have its tasks.
"""

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from tailrace.log.client import DEFAULT_MAX_POLL_INTERVAL_MS, Log, Producer
from tailrace.log.clock import Clock
from tailrace.log.disk import RealDisk, join, parent
from tailrace.log.errors import OverdueError, TailraceError
from tailrace.state.memory import MemoryBackend
from tailrace.state.restore import Progress
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.state.store import Backend
from tailrace.streams.chain.positions import Deleted, warn_deleted
from tailrace.streams.planning.plan import Loaded, Plan
from tailrace.streams.planning.planner import Planner
from tailrace.streams.planning.topics_in_use import known_in_memory
from tailrace.streams.planning.units import Unit
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.topology import Topology
from tailrace.streams.runner import Runner
from tailrace.streams.running import identity
from tailrace.streams.running.collector import seldom_collected
from tailrace.streams.running.identity import Identity
from tailrace.streams.running.loading import Loader, NewLoader
from tailrace.streams.running.member import Member
from tailrace.streams.running.patience import Passing
from tailrace.streams.running.precedence import GivingWay
from tailrace.streams.running.programs import numbered, program_of
from tailrace.streams.task import TaskId

_logger = logging.getLogger(__name__)

# What an entry of a cache costs with its key and value, about: turns cache_bytes into a number of entries.
_ENTRY_BYTES = 400
# Nothing lingers that a commit does not wait for.
_LINGER_MS = 50.0
_BATCH_BYTES = 256 << 10
# How long readers of an app's results may be held up by one that died, where nothing tells the log so.
TRANSACTION_TIMEOUT_MS = 10_000
# The same for an app that was told that it took too long, and lives: it would come to the same end again. As long as a
# member of a group may be busy.
PATIENT_TIMEOUT_MS = DEFAULT_MAX_POLL_INTERVAL_MS


@contextmanager
def started(
    topology: Topology,
    options: AppOptions,
    clock: Clock,
    progress: Callable[[str], Progress] | None = None,
    *,
    gives_way: GivingWay | None = None,
    deleted: Deleted = warn_deleted,
) -> Generator[Runner]:
    """A runner, ready to run; leaving the block closes the stores, and the log if it was opened here.

    gives_way, deleted: see `Runner`.

    Raises InvalidError where another program runs under this name, and what planning and opening raise.
    """
    with ExitStack() as stack:
        stack.enter_context(seldom_collected())
        log = options.log if isinstance(options.log, Log) else stack.enter_context(Log.open(options.log))
        name = log.group_behind(options.name)  # of a replay that was promoted: its state is this app's now
        number = stack.enter_context(numbered(log, name, program_of(topology, options)))
        root = options.state_dir or log.state_directory
        state = None if root is None else identity.directory(root, name, number)
        own = _identity(state, name, log, number)
        stack.callback(own.release)
        stores = Stores(state, clock)
        attempts = _Attempts(topology, options, log, clock, stores, own, progress, gives_way=gives_way)
        stack.callback(attempts.member.close)
        stack.push(attempts.end)
        yield Runner(
            attempts.begin(),
            log,
            clock,
            commit_interval_ms=options.commit_interval_ms,
            eager=options.commit_soon,
            cache_entries=options.cache_bytes // _ENTRY_BYTES,
            again=attempts.again,
            member=attempts.member,
            add=attempts.add,
            gives_way=gives_way,
            deleted=deleted,
        )


class Stores:
    """The stores of one running app, by task."""

    def __init__(self, state: str | None, clock: Clock) -> None:
        """`state` is their directory; None: they are in memory."""
        self._state = state
        self._clock = clock
        self._memory = None if state is None else RocksMemory()
        self._opened: dict[TaskId, Backend] = {}
        if state is not None and RealDisk().is_dir(state):
            self._clear(state)

    def open(self, task: TaskId) -> Backend:
        """Opens a task's."""
        if self._state is None or self._memory is None:
            backend: Backend = MemoryBackend()
        else:
            backend = RocksBackend(join(self._state, str(task)), self._memory, self._clock.monotonic)
        self._opened[task] = backend
        return backend

    def names(self) -> list[str]:
        """The tasks that have something here."""
        disk = RealDisk()
        if self._state is None or not disk.is_dir(self._state):
            return []
        return [name for name in disk.list(self._state) if identity.TASK.fullmatch(name)]

    def delete(self, unit: Unit) -> None:
        """Closes and removes what the tasks of a unit have."""
        for task in unit.tasks:
            backend = self._opened.pop(task, None)
            if backend is not None:
                backend.close()
            if self._state is not None and str(task) in self.names():
                self._remove(join(self._state, str(task)))

    @staticmethod
    def _remove(path: str) -> None:
        # A store of which a part is gone cannot be opened any more, and a kill may come at any file. So it loses its
        # name first, and what a kill left is removed by the next run.
        disk, going = RealDisk(), path + identity.GOING
        disk.remove_tree(going)
        disk.rename(path, going)
        disk.sync_dir(parent(path))
        disk.remove_tree(going)

    @staticmethod
    def _clear(state: str) -> None:
        for name in RealDisk().list(state):
            if name.endswith(identity.GOING) and identity.TASK.fullmatch(name.removesuffix(identity.GOING)):
                RealDisk().remove_tree(join(state, name))

    def close(self) -> None:
        """Closes all, every one, whatever another raises."""
        with ExitStack() as stack:
            for backend in self._opened.values():
                stack.callback(backend.close)
            self._opened = {}


class _Attempts:
    """What an abort drops and makes anew: the producer, the stores, the tasks. The log and the identity stay."""

    def __init__(
        self,
        topology: Topology,
        options: AppOptions,
        log: Log,
        clock: Clock,
        stores: Stores,
        own: Identity,
        progress: Callable[[str], Progress] | None,
        new_loader: NewLoader = Loader,
        *,
        gives_way: GivingWay | None = None,
    ) -> None:
        self._topology = topology
        self._options = options
        self._log = log
        self._stores = stores
        self._own = own
        self._progress = progress
        self._gives_way = gives_way
        self._planner = Planner(topology, log, options, stores.open, clock, own.topics)
        self._stack = ExitStack()
        self._timeout_ms = TRANSACTION_TIMEOUT_MS
        self.member = Member(log, options.name, self._load, stores.names, stores.delete, new_loader)

    def begin(self) -> Plan:
        """The tasks that are this member's right now, at the last commit. Raises what planning and opening raise."""
        with ExitStack() as stack:
            producer = stack.enter_context(self._producer())
            stack.callback(self._stores.close)
            stack.callback(self.member.drop)
            # Before planning: partition counts, and so units, may be others than before an abort.
            units = self._planner.prepare()
            plan = self._planner.begin(producer, lanes=self._options.threads)
            stack.push(plan.stop)
            self.member.join(
                units, [*(name for sub in self._topology.subtopologies for name in sub.stores), self._options.guarantee]
            )
            self.add(plan, self._load_all(plan))
            self._planner.remember_topics(plan)
            self._stack = stack.pop_all()
        return plan

    def _load_all(self, plan: Plan) -> list[Loaded]:
        """Loads what is this member's, for the form that repartitions then have in the plan."""
        while True:
            self._planner.choose(plan, whole=self.member.has_all())
            loaded = self.member.load_all()
            if not plan.in_memory or self.member.has_all():
                self.member.all_or_nothing = plan.in_memory
                return loaded
            # Some were asked back meanwhile.
            self.member.drop()
            self._stores.close()

    def add(self, plan: Plan, loaded: Sequence[Loaded]) -> None:
        """Adds units to a plan. Raises what starting their processors raises."""
        self._planner.add(plan, loaded)

    def _load(self, unit: Unit, unwanted: threading.Event) -> Loaded:
        if self._gives_way is not None:  # to open a store stops every other thread for 10 ms
            self._gives_way.let_first()
        return self._planner.load(unit, self._progress, unwanted)

    def _producer(self) -> Producer:
        """One that, for exactly once, has fenced the one before it and ended what that had open."""
        if self._options.guarantee == "at_least_once":
            return self._log.producer(acks="all", linger_ms=_LINGER_MS, batch_bytes=_BATCH_BYTES)
        producer = self._log.producer(
            linger_ms=_LINGER_MS,
            batch_bytes=_BATCH_BYTES,
            transactional_id=self._own.transactional_id,
            transaction_timeout_ms=self._timeout_ms,
        )
        producer.begin()
        return producer

    def again(self, error: Passing | None) -> Plan:
        """Drops all that was not committed, for that error, and begins from the last commit.

        None: all is committed, and the plan at hand is over. Raises what ending it raises, then.
        """
        if error is None:
            self.end(None, None, None)
            return self.begin()
        if isinstance(error, OverdueError):
            self._timeout_ms = PATIENT_TIMEOUT_MS
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


def _identity(state: str | None, app: str, log: Log, number: int) -> Identity:
    kept = log.state_directory is not None
    if state is None:
        own = identity.in_memory(app, number)
    else:
        # A log in memory is another one each time: what is on disk cannot be of this one, and is rebuilt.
        own = identity.take(RealDisk(), state, app, log.cluster_id if kept else None)
    if not kept:
        own.topics = known_in_memory(log, app, number)
    return own
