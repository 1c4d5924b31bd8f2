"""A running app driven by hand, in one thread: what its own loop does is done step by step, by what runs it otherwise.

1. It is a member of its group: a step of `run` looks at the group first, and so may hand tasks over or take some.
2. Nothing waits: a task that cannot begin yet is tried again at the next step.
"""

# What an app's own loop calls is called here, one by one.
# pyright: reportPrivateUsage=false

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tailrace.log.client import Consumer, Log
from tailrace.log.clock import Clock
from tailrace.streams import start
from tailrace.streams.app import App
from tailrace.streams.identity import Identity, in_memory
from tailrace.streams.loading import Load, Loader
from tailrace.streams.patience import Passing
from tailrace.streams.plan import Loaded, Plan
from tailrace.streams.positions import UnsettledError
from tailrace.streams.runner import Runner
from tailrace.streams.start import Stores
from tailrace.streams.task import Task
from tailrace.streams.units import Unit


class StepLoader(Loader):
    """Loads when it is asked for what is loaded."""

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
    ) -> None:
        """`number` tells running apps of one name apart."""
        self.log = log
        self.app = app.name
        self._attempts = start._Attempts(
            app.describe(),
            app.options,
            log,
            clock,
            stores or Stores(None, clock),
            identity or in_memory(app.name, number),
            None,
            StepLoader,
        )
        self.member = self._attempts.member
        try:
            plan = self._attempts.begin()
        except BaseException:
            self.leave()
            raise
        self.runner = Runner(
            plan,
            log,
            clock,
            commit_interval_ms=1,
            cache_entries=cache_entries,
            again=self._attempts.again,
            member=self.member,
            add=self._attempts.add,
        )
        self._reading = ExitStack()
        self._consumer: Consumer = self._reading.enter_context(self.runner.reading())

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
        self.runner.run_waiting(self._consumer)

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
                self.runner._run_oldest(task)
                if commits():
                    self.commit()
            self.commit()
        return True

    def _next(self, pick: Callable[[Sequence[Task]], Task | None]) -> Task | None:
        self.runner._fetch(self._consumer, None)
        return pick(self.plan.tasks)

    def commit(self) -> None:
        """Commits."""
        self.runner.commit()

    def again(self, error: Passing) -> None:
        """Drops what was not committed."""
        self._reading.close()
        self.runner._adopt(self._attempts.again(error))
        self._consumer = self._reading.enter_context(self.runner.reading())

    def end(self) -> None:
        """Ends as it should, without a commit."""
        self._reading.close()
        self._attempts.end(None, None, None)
        self.leave()

    def leave(self) -> None:
        """Its group learns that it is gone."""
        self.member.close()
