"""A running app as a member of its group: which units are its own, from being given to it until they are handed over.

    given -> loading (beside the others, in a thread) -> running -> handed over

1. The tasks of a unit run only while all its partitions are this member's, on stores that stand at the last commit.
2. A unit is handed over between two polls of the member: what was done is committed, its processors and stores are
   closed, then somebody else may have it. Where that fails the member drops everything, and so hands over all the same.
3. The store of a task that went to another member is deleted here: it would fall behind, and what was deleted in the
   meantime might be forgotten by the changelog before it comes back.
4. A member that was expelled has lost everything; it drops what it has, and joins anew.
5. A plan whose repartitions are in memory is all or nothing: with the first unit that goes it is over, committed, and
   another is begun for the rest.

Not here: who gets what (units), running (runner), restoring (plan, loading).
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from tailrace.log.client import Log
from tailrace.log.errors import ExpelledError, InvalidError
from tailrace.log.record import TopicPartition
from tailrace.streams.planning.plan import Loaded
from tailrace.streams.planning.units import Claim, Unit, assignor_of
from tailrace.streams.running.loading import Load, Loader, NewLoader

_logger = logging.getLogger(__name__)

# How long the group may go unseen while the member has nothing to do but to restore.
_LOOK_S = 0.1


class PlanOverError(Exception):
    """What the plan has done is committed, and it cannot go on: another is to be made."""


class Member:
    """See the module's docstring. Used by the thread that runs the app."""

    def __init__(
        self,
        log: Log,
        app: str,
        load: Load,
        stored: Callable[[], Sequence[str]],
        leave: Callable[[Unit], None],
        new_loader: NewLoader = Loader,
    ) -> None:
        """`stored` names tasks whose state is here; `leave` closes and deletes the stores of a unit.

        new_loader is for who drives members by hand, in one thread.
        """
        self._log = log
        self._app = app
        self._stored = stored
        self._leave = leave
        self._load = load
        self._new_loader = new_loader
        self._loader = new_loader(load, log.wake)
        self._units: Sequence[Unit] = ()
        self._given: set[TopicPartition] = set()
        self._running: dict[Unit, bool] = {}
        """Those that were begun; whether they are in the plan by now."""
        self._news = False
        """Whether something was given that was not begun."""
        self._told: object = None
        self.consumer = log.consumer(group=app, reset="none")
        self.hand_over: Callable[[Sequence[Unit]], None] | None = None
        """Commits what is done, and takes the tasks of these out of the plan; None while there is none."""
        self.all_or_nothing = False
        """Whether the plan is over once a unit goes."""

    def who(self) -> tuple[str, int]:
        """Member id and generation. Raises ExpelledError."""
        return self.consumer.member()

    def join(self, units: Sequence[Unit], stores: Sequence[str]) -> None:
        """Joins the group, for the first time, anew or with other units, and looks what it is given right away.

        Raises:
            InvalidError: an app of this name runs that is another program.
        """
        changed, self._units = units != self._units, units
        if changed:
            topics = sorted({partition.topic for unit in units for partition in unit.inputs})
            try:
                self.consumer.subscribe(
                    topics,
                    on_assign=self._assigned,
                    on_revoke=self._revoked,
                    on_lost=self._lost,
                    assignor=assignor_of(units, stores),
                    userdata=self._claim,
                )
            except InvalidError as error:
                raise InvalidError(
                    f"app {self._app!r} runs on this log already, with other tasks, stores, guarantee or partition "
                    "counts (partitions may have been added to a topic since it began): stop that one first, or give "
                    "one of them another name"
                ) from error
        self.consumer.poll_batches(0)

    def has_all(self) -> bool:
        """Whether every unit is this member's."""
        return all(self._given.issuperset(unit.inputs) for unit in self._units)

    def runs_all(self) -> bool:
        """Whether every unit is in the plan."""
        return len(self._running) == len(self._units) and all(self._running.values())

    def _claim(self) -> bytes:
        stored = set(self._stored())
        kept = [unit.name for unit in self._units if any(str(task) in stored for task in unit.tasks)]
        return Claim([unit.name for unit in self._mine()], kept).to_bytes()

    def _mine(self) -> list[Unit]:
        return [unit for unit in self._units if self._given.issuperset(unit.inputs)]

    # ------------------------------------------------------------ what the group says, within a poll

    def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.consumer.pause(partitions)  # until their tasks are there
        self._given.update(partitions)
        self._news = True

    def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        going = [unit for unit in self._running if not set(partitions).isdisjoint(unit.inputs)]
        try:
            if self.hand_over is not None:
                self.hand_over([unit for unit in going if self._running[unit]])
            for unit in going:
                self._loader.forget(unit)
                self._leave(unit)
        finally:
            self._given.difference_update(partitions)
            for unit in going:
                del self._running[unit]
        if going:
            _logger.info("app %s hands over %s", self._app, _names(going))
            if self.all_or_nothing:
                raise PlanOverError

    def _lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._given.difference_update(partitions)
        if self._running:
            raise ExpelledError(
                f"app {self._app!r} was expelled from its group, as it had not been heard of for too long; its tasks "
                "run elsewhere, and what it had not committed is done there"
            )

    # ------------------------------------------------------------ running

    def load_all(self) -> list[Loaded]:
        """Loads what was given and not begun yet, and returns when that is done. Raises as `Planner.load`.

        It looks at the group meanwhile: whoever is not heard of, however much there is to restore, holds up the others.
        """
        loaded = self.work()
        while self._loader.wait(_LOOK_S):
            loaded += self._taken()
            self.consumer.poll_batches(0)
        loaded += self._taken()
        return [each for each in loaded if each.unit in self._running]  # the others were asked back meanwhile

    def _new(self) -> list[Unit]:
        return [unit for unit in self._mine() if unit not in self._running]

    def work(self) -> list[Loaded]:
        """Begins to load what was given since the last time; returns what was loaded, to be added to the plan."""
        if self._news:
            self._news = False
            for unit in self._new():
                _logger.info("app %s takes over %s", self._app, unit.name)
                self._running[unit] = False
                self._loader.begin(unit)
        return self._taken()

    def _taken(self) -> list[Loaded]:
        loaded = self._loader.take()
        for each in loaded:
            self._running[each.unit] = True
        return loaded

    def drop(self) -> None:
        """Gives up what was loaded: the plan is gone. The partitions stay this member's."""
        self.hand_over = None
        self.all_or_nothing = False
        self._loader.close()
        self._loader = self._new_loader(self._load, self._log.wake)
        self._running.clear()
        self._news = True

    def done_elsewhere(self, ends: Mapping[TopicPartition, int], mine: set[TopicPartition]) -> bool:
        """Whether all that does not run here is committed up to the ends."""
        others = [partition for partition, end in ends.items() if partition not in mine and end > 0]
        if not others:
            return True
        committed = self._log.committed_offsets(self._app)
        starts = {topic: self._log.offsets(topic, "earliest") for topic in {each.topic for each in others}}
        return all(
            ((at := committed.get(each)) is not None and at.offset >= ends[each])
            or starts[each.topic][each] >= ends[each]
            for each in others
        )

    def tell_if_idle(self) -> None:
        """Says why this member has nothing to do, where it is not for a moment only."""
        if self._given:
            return
        members = len(self._log.describe_group(self._app).members)
        told = (members, len(self._units))
        if members > len(self._units) and told != self._told:
            self._told = told
            _logger.warning(
                "app %s has %d running members and work for %d: this one has nothing to do until another goes",
                self._app,
                members,
                len(self._units),
            )

    def close(self) -> None:
        """Leaves the group: what it had may go to others."""
        self._loader.close()
        self.consumer.close()


def _names(units: Sequence[Unit]) -> str:
    return ", ".join(unit.name for unit in units)
