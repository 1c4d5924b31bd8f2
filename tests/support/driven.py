"""A running app driven by hand, in one thread: what its own loop does is done step by step, by what runs it otherwise.

1. It is a member of its group: a step of `run` looks at the group first, and so may hand tasks over or take some.
2. What would run side by side runs one after the other.
3. Nothing waits: a task that cannot begin yet is tried again at the next step.
4. `between` is called twice within a commit: before its offsets are written, and before it is decided. It may have
   others run.
"""

# What an app's own loop calls is called here, one by one.
# pyright: reportPrivateUsage=false

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from tailrace.log.client import Log
from tailrace.log.clock import Clock
from tailrace.log.errors import TailraceError
from tailrace.streams import start
from tailrace.streams.app import App
from tailrace.streams.chain.positions import UnsettledError
from tailrace.streams.planning.plan import Loaded, Plan
from tailrace.streams.planning.units import Unit
from tailrace.streams.runner import Runner
from tailrace.streams.running.identity import Identity, in_memory
from tailrace.streams.running.loading import Load, Loader
from tailrace.streams.running.member import PlanOverError
from tailrace.streams.running.patience import Passing
from tailrace.streams.start import Stores
from tailrace.streams.task import Task

T = TypeVar("T")


class StepLoader(Loader):
    """Loads when it is asked for what is loaded.

    At a start what cannot begin yet is left out, or, where `all_at_once`, the start fails.
    """

    all_at_once = False

    def __init__(self, load: Load, loaded: Callable[[], None]) -> None:
        super().__init__(load, loaded)
        self.waits: list[Unit] = []
        self.causes: list[str] = []
        """Why what waits cannot begin yet."""

    def begin(self, unit: Unit) -> None:
        """See `Loader`."""
        self.waits.append(unit)

    def take(self) -> list[Loaded]:
        """See `Loader`."""
        loaded: list[Loaded] = []
        self.causes = []
        for unit in list(self.waits):
            try:
                loaded.append(self._load(unit, threading.Event()))
            except UnsettledError as error:
                self.causes.append(str(error))
            else:
                self.waits.remove(unit)
        return loaded

    def wait(self, timeout: float) -> bool:
        """Nothing is waited for; UnsettledError where the start is to fail."""
        if self.all_at_once and self.waits:
            raise UnsettledError("; ".join(self.causes))
        return False

    def forget(self, unit: Unit) -> None:
        """See `Loader`."""
        if unit in self.waits:
            self.waits.remove(unit)

    def close(self) -> None:
        """See `Loader`."""
        self.waits = []


class Driven:
    """One run of an app, from its start to its end; see the head of this file. Raises as a run does."""

    def __init__(
        self,
        app: App,
        log: Log,
        clock: Clock,
        *,
        number: int = 0,
        stores: Stores | None = None,
        identity: Identity | None = None,
        cache_entries: int = 4_000,
        in_group: bool = True,
    ) -> None:
        """`number` tells running apps of one name apart.

        in_group: False has it run what it was given at first, whatever its group says later.

        Raises as a start does; RetriableError where it is not in its group and something cannot begin yet.
        """
        self.log = log
        self.app = app.name
        topology = app.describe()
        self._attempts = start._Attempts(
            topology,
            app.options,
            log,
            clock,
            stores or Stores(None, clock),
            identity or in_memory(app.name, number),
            None,
            # In memory, both sides of a repartition are there or none.
            _Strict if not in_group or any(sub.repartitions_read for sub in topology.subtopologies) else StepLoader,
        )
        self.member = self._attempts.member
        self.between: Callable[[], None] = _nothing
        self._reading = ExitStack()
        try:
            plan = self._slowed(self._attempts.begin())
            self.runner = Runner(
                plan,
                log,
                clock,
                commit_interval_ms=1,
                cache_entries=cache_entries,
                again=self._attempts.again,
                member=self.member if in_group else None,
                add=self._attempts.add,
            )
            if self.runner._rounds is not None:
                self.runner._rounds._pool = _AtOnce()
            self._reading.enter_context(self.runner.reading())
            self.runner.speak_first()
        except BaseException as error:
            with suppress(TailraceError, OSError):
                self.end(error)
            raise

    def _slowed(self, plan: Plan) -> Plan:
        """Has commits ask for what is to be done in between."""
        commit, commit_offsets = plan.producer.commit, plan.producer.commit_offsets

        def commit_later() -> None:
            self.between()
            commit()

        def commit_offsets_later(*arguments: Any, **options: Any) -> None:
            self.between()
            commit_offsets(*arguments, **options)

        setattr(plan.producer, "commit", commit_later)  # noqa: B010 - of this one alone
        setattr(plan.producer, "commit_offsets", commit_offsets_later)  # noqa: B010
        return plan

    @property
    def plan(self) -> Plan:
        """What it runs now."""
        return self.runner._plan

    @property
    def waits_for(self) -> list[str]:
        """Why tasks that are its own cannot begin yet."""
        loader = self.member._loader
        assert isinstance(loader, StepLoader)
        return loader.causes

    def run(self) -> None:
        """Looks at the group, and runs what there is."""
        try:
            self.runner.run_waiting()
        except PlanOverError:
            self.again(None)

    def run_in_pieces(
        self, pick: Callable[[Sequence[Task]], Task | None], commits: Callable[[], bool], slices: int | None = None
    ) -> bool:
        """Runs to the end, a slice at a time of the task picked, with commits between slices where that says so.

        Or until so many slices were run; returns whether this is the end, all committed.
        """
        began = -1
        while began != (began := sum(self.log.committed(self.app).values())):
            while (task := self._next(pick)) is not None:
                if slices == 0:
                    return False
                slices = None if slices is None else slices - 1
                self.runner._turns = None  # any pace: nobody waits for others here
                self.runner._run_oldest(task, None)
                if commits():
                    self.commit()
            self.commit()
        return True

    def _next(self, pick: Callable[[Sequence[Task]], Task | None]) -> Task | None:
        self.runner._reader.fetch(None)
        return pick(self.plan.tasks)

    def commit(self) -> None:
        """Commits."""
        self.runner.commit()

    def again(self, error: Passing | None) -> None:
        """Drops what was not committed; None: nothing, as the plan is over, and another is begun."""
        self._reading.close()
        self.runner._adopt(self._slowed(self._attempts.again(error)))
        self._reading.enter_context(self.runner.reading())
        self.runner.speak_first()

    def end(self, error: BaseException | None = None) -> None:
        """Ends without a commit, as it should or with an error."""
        self._reading.close()
        try:
            self._attempts.end(None if error is None else type(error), error, None)
        finally:
            self.leave()

    def leave(self) -> None:
        """Its group learns that it is gone."""
        self.member.close()


class _AtOnce(ThreadPoolExecutor):
    """Runs in the caller's thread what is to run beside others, one after the other."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor`."""
        done = Future[T]()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            done.set_exception(error)
        return done


def _nothing() -> None:
    """Nobody does anything in between."""


class _Strict(StepLoader):
    all_at_once = True
