"""What happens by itself elsewhere, and what goes wrong: passes over the partitions, time, a full or failing disk."""

import errno
from collections.abc import Callable, Sequence

from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import InvalidError
from tailrace.tests.simulation.actors import Actor
from tailrace.tests.simulation.world import World

_SECONDS = 1_000
_HOURS = 3_600_000
FAILING = ["plain-", "mixed-", "clicks-", "short-", "keyed-", "sink-", "counts-", "changelog-", "__", "checkpoint"]


class Chores(Actor):
    """Does one of them in each step."""

    def __init__(self, world: World, *, failing: Sequence[str] = FAILING, calm: bool = False) -> None:
        """`failing`: parts of the names of files where an operation may fail; calm: none does, and no end comes."""
        super().__init__(world, "chores")
        self._failing = failing
        self._calm = calm

    def step(self) -> None:
        """One of them."""
        chores: list[tuple[Callable[[], None], float]] = [
            (self._let_time_pass, 4),
            (self._retention, 1),
            (self._compaction, 1),
            (self._checkpoint, 1),
            (self._overdue, 1),
            (self._delete_records, 1),
        ]
        trouble: list[tuple[Callable[[], None], float]] = [
            (self._fill_or_free_the_disk, 1 if self.world.disk.capacity is None else 4),
            (self._fail_once, 0.3),
            (self._lose_power_soon, 1.5),
        ]
        chores += [] if self._calm else trouble
        self.world.random.choices([chore for chore, _ in chores], [weight for _, weight in chores])[0]()

    def died(self) -> None:
        """Nothing is kept."""

    @property
    def _log(self) -> EmbeddedLog:
        log = self.world.log
        assert isinstance(log, EmbeddedLog)
        return log

    def _let_time_pass(self) -> None:
        chance, clock = self.world.random, self.world.clock
        by_ms = chance.choice([10, _SECONDS, 10 * _SECONDS, 70 * _SECONDS, 6 * 60 * _SECONDS, 2 * _HOURS, 25 * _HOURS])
        if chance.random() < 0.8:
            self.say(f": {by_ms} ms pass")
            clock.advance(by_ms)
        else:
            to_ms = clock.now_ms() + chance.choice([-by_ms, by_ms])
            self.say(f": the wall clock is set to {to_ms}")
            clock.set_ms(to_ms)

    def _retention(self) -> None:
        with self.world.excusing("retention"):
            self.say(f": retention deletes {self._log.apply_retention()}")

    def _compaction(self) -> None:
        self.say(": compaction")
        with self.world.excusing("compaction"):
            if self.world.chance(0.5) or "keyed" not in self._log.topics():
                self._log._broker.compact_due()  # pyright: ignore[reportPrivateUsage]  # the pass that a thread makes
            else:
                self._log.compact("keyed")

    def _checkpoint(self) -> None:
        self.say(": checkpoint")
        with self.world.excusing("checkpoint"):
            self._log._broker.catalog.checkpoint()  # pyright: ignore[reportPrivateUsage]  # the pass that a thread makes

    def _overdue(self) -> None:
        with self.world.excusing("overdue"):
            self.say(f": overdue transactions {self._log.end_overdue_transactions()}")

    def _delete_records(self) -> None:
        if "short" not in self._log.topics():
            return
        with self.world.excusing("delete_records"):
            for tp, start in self._log.offsets("short", "earliest").items():
                end = self._log.offsets("short")[tp]
                to = self.world.random.randint(start, max(start, end))
                self.say(f": deletes what is before {tp}@{to}")
                try:
                    self._log.delete_records({tp: to})
                except InvalidError as error:
                    self.say(f"is told: {error}")

    def _fill_or_free_the_disk(self) -> None:
        disk = self.world.disk
        if disk.capacity is not None:
            disk.capacity = None
            self.say(": the disk has room again")
        else:
            self.world.was_full = True
            disk.capacity = disk.used() + self.world.random.choice([0, 100, 500, 2000])
            self.say(f": the disk has room for {disk.capacity - disk.used()} bytes")

    def _fail_once(self) -> None:
        operation = self.world.random.choice(["append", "sync", "sync", "create", "rename", "sync_dir"])
        path = self.world.random.choice(self._failing)
        self.say(f": the next {operation} of {path} fails")
        self.world.broken = True
        self.world.disk.fail(operation, OSError(errno.EIO, "Input/output error"), path=path)

    def _lose_power_soon(self) -> None:
        if self.world.chance(0.5):
            syncs = self.world.random.randint(1, 12)
            self.say(f": the end comes at sync {syncs} from here")
            self.world.disk.power_loss_at_sync(syncs)
        else:
            operations = self.world.random.randint(1, 60)
            self.say(f": the end comes at operation {operations} from here")
            self.world.disk.power_loss_after(operations)
