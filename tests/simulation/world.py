"""One machine under a seed: its disk, its clock, its log, and whoever uses it; every choice comes from the seed.

1. One thread, no background: what happens by itself elsewhere is a step here (`chores`).
2. A step is whole for the others, unless the machine or the process ends in it, at any operation of the disk; or it has
   the others take steps `meanwhile`.
3. `say` tells a line for each thing that happened: the trace of a seed.
"""

import atexit
import posixpath
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tailrace.log.checking.verify import verify
from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.embedded import EmbeddedLog
from tailrace.log.errors import DiskFullError, FencedError, RetriableError, TailraceError
from tailrace.log.topic import INT64_MAX
from tailrace.tests.simulation.model import Model, Violation
from tailrace.tests.support.disk import FaultyDisk, PowerLossError

START_MS: Final = 1_700_000_040_000
PATH: Final = "/log"

Topics = dict[str, tuple[int, dict[str, Any]]]

# What each topic is for; segments are small, so that rolls, retention and compaction have work.
# The wall clock is set back while records linger: none is too far in the future for that.
ANY_TIME: Final = {"message.timestamp.after.max.ms": INT64_MAX}
TOPICS: Final[Topics] = {
    "plain": (2, {"segment.bytes": 700, **ANY_TIME}),
    "mixed": (2, {"segment.bytes": 900, **ANY_TIME}),
    "loose": (1, {"segment.bytes": 700, **ANY_TIME}),
    "short": (1, {"segment.bytes": 600, "retention.ms": 3_600_000, **ANY_TIME}),
    "keyed": (
        1,
        {"segment.bytes": 600, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": 0.01, **ANY_TIME},
    ),
    "sink": (1, {"segment.bytes": 900, **ANY_TIME}),
}
CLICKS: Final = "clicks"
TOPICS[CLICKS] = (2, {"segment.bytes": 2_000, **ANY_TIME})
# What an app writes is checked by the app's actor; the model knows nothing of it.
RESULTS: Final[Topics] = {name: (2, {"segment.bytes": 2_000, **ANY_TIME}) for name in ("counts", "late")}
DELETING: Final = {"short"}
COMPACTED: Final = {"keyed"}


class World:
    """See the head of this file."""

    def __init__(
        self,
        seed: int,
        tell: Callable[[str], None] | None = None,
        *,
        topics: Topics = TOPICS,
        results: Topics = RESULTS,
    ) -> None:
        """The model knows what is in `topics`, and nothing of `results`."""
        self.seed = seed
        self.random = random.Random(f"schedule {seed}")
        self.disk = FaultyDisk(seed)
        self.clock = ManualClock(START_MS)
        self.model = Model(set(topics), deleting=DELETING, compacted=COMPACTED)
        self._topics = {**topics, **results}
        self._tell = tell
        self.step = 0
        self.crashes = 0
        # Since the log was opened: an I/O error was planted, so that any call may fail; the disk was full.
        self.broken = False
        self.was_full = False
        self.last_click_ms = START_MS + 100_000_000  # comes after every other, and closes their windows
        self._log: Log | None = None
        self.machine: bool | None = None
        """Whether an ending is one of the machine, or of the process alone; None: that is left to chance."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Has others take some steps, while somebody is within one."""

    def say(self, what: str) -> None:
        """A line of the trace."""
        if self._tell is not None:
            self._tell(f"{self.step:4d}  {what}")

    @property
    def log(self) -> Log:
        """The log, open."""
        assert self._log is not None
        return self._log

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self.random.random() < probability

    def click_ms(self) -> int:
        """When a click was made that is sent now: a little out of order, and seldom long ago."""
        if self.chance(0.05):
            return START_MS + self.random.randrange(60_000)
        return START_MS + 120_000 + self.step * 1_000 - self.random.randrange(5_000)

    def feed_ms(self) -> int:
        """The time of day for who sends in order."""
        return START_MS + 120_000 + self.step * 1_000

    # ---- errors

    def excused(self, error: BaseException) -> bool:
        """Whether what the disk does now explains an error.

        1. The machine has stopped, or is stopping: anything may fail, and nothing that it says counts.
        2. An operation on a file has failed since the log was opened, and the error, or one that led to it, names
           that file or its partition. Whoever has no business there is not to be told of it.
        3. The disk was full since the log was opened, and the error, or one that led to it, says so; it may pass, so
           it is a RetriableError.

        Not forgiven: an error without a cause of these, one that does not say where, any other kind of exception.
        """
        if self.disk.down or isinstance(error, PowerLossError):
            return True
        chain = list(_chain(error))
        if self.was_full and isinstance(error, RetriableError):
            return any(isinstance(each, DiskFullError) or "no room" in str(each) for each in chain)
        told = " ".join(map(str, chain))
        return isinstance(error, OSError | TailraceError) and any(
            path in told or posixpath.basename(posixpath.dirname(path)) in told for path in self.disk.failed
        )

    @contextmanager
    def excusing(self, what: str, failed: Callable[[BaseException], None] | None = None) -> Generator[None]:
        """Around a call into the log: errors that the disk explains are told to `failed`; others are violations."""
        try:
            yield
        except Violation:
            raise
        except Exception as error:
            if not self.excused(error):
                raise Violation(f"{what} raised {type(error).__name__}: {error}") from error
            self.say(f"{what} failed: {type(error).__name__}: {error}")
            if failed is not None:
                failed(error)

    # ---- opening and ending

    def boot(self) -> None:
        """Opens the log, however often its recovery is struck itself."""
        while True:
            try:
                self._open()
            except (OSError, TailraceError, PowerLossError) as error:
                if not self.excused(error):
                    raise Violation(f"opening raised {type(error).__name__}: {error}") from error
                self.say(f"opening failed: {error}")
                self.end()
            else:
                return

    def _open(self) -> None:
        self._log = log = Log.open(PATH, disk=self.disk, clock=self.clock, background=False)
        assert isinstance(log, EmbeddedLog)
        atexit.unregister(log._at_exit)  # pyright: ignore[reportPrivateUsage]  # of a process that has not ended itself
        for name, (partitions, config) in self._topics.items():
            log.create_topic(name, partitions=partitions, config=config, exist_ok=True)
        if self.disk.down:
            raise PowerLossError("while it opened")

    def end(self) -> None:
        """The process ends without a word, or the machine does; whatever ails the disk has passed."""
        self.crashes += 1
        self._log = None
        if self.chance(0.5) if self.machine is None else self.machine:
            self.say("-- the machine loses its power")
            self.disk.crash()
            self.model.power_lost()
        else:
            self.say("-- the process is killed")
            self.disk.kill()
        self.broken = self.was_full = False

    def close(self) -> None:
        """The process ends as it should."""
        log = self.log
        self._log = None
        self.say("-- the log is closed")
        with self.excusing("closing"), suppress(FencedError):  # which a ghost has not been told yet
            log.close()
        if self.disk.down or self.broken:
            self.end()

    def verify(self) -> None:
        """The log's own check of its files finds nothing."""
        report = verify(self.disk, PATH)
        if not report.ok:
            raise Violation(f"verify found {report.damage[0]}")


def _chain(error: BaseException | None) -> Generator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
