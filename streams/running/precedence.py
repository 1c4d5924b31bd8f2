"""Who goes first: an app that works off old input, a replay, gives way to the apps that run on the same log.

All of a process share one interpreter. Who waits for it gets it when the one at work has had it for a while, or comes
to the end of a call of compiled code, and so for each file that a commit writes.

1. Beside running apps a replay works in pieces of about PIECE_S: slices, the steps of a commit, stores to be opened.
2. After a piece it rests for as long as its share of the time says, and on until none of them is at work: PATIENCE_S at
   most, so that it goes on beside apps that are never done.
3. An app is at work from where it has looked for records to where it waits for some, commits included.
4. Alone a replay takes all of the time. Replays go first of nobody, another replay neither.

Not here: where a piece ends (runner, commit).
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Condition, Lock
from typing import Final
from weakref import WeakKeyDictionary

from tailrace.log.client import Log
from tailrace.log.clock import Clock

PIECE_S: Final = 0.002
PATIENCE_S: Final = 0.05
# Python hands its lock over after so long to another thread that waits: a hundredth of what it is by itself.
_SWITCH_S: Final = 0.00005

_lock = Lock()
_on_log: WeakKeyDictionary[Log, "Precedence"] = WeakKeyDictionary()
_often = 0
_before = 0.0


class Precedence:
    """The apps of a log that go first; any thread may use it."""

    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._at_work = 0
        self.running = 0
        """How many run."""

    @contextmanager
    def run(self) -> Generator[None]:
        """Around the run of one."""
        with self._changed:
            self.running += 1
        try:
            yield
        finally:
            with self._changed:
                self.running -= 1

    def __enter__(self) -> None:
        """One of them is at work, up to the end of the block."""
        with self._changed:
            self._at_work += 1

    def __exit__(self, *_: object) -> None:
        """See `__enter__`."""
        with self._changed:
            self._at_work -= 1
            if not self._at_work:
                self._changed.notify_all()

    def wait_for_rest(self, timeout: float) -> bool:
        """Returns when none of them is at work, or after so many seconds; whether none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work, timeout)


def precedence_on(log: Log) -> Precedence:
    """Of the apps on a log."""
    with _lock:
        return _on_log.setdefault(log, Precedence())


class GivingWay:
    """How one that gives way works: in pieces, `share` of the time."""

    def __init__(self, log: Log, share: float, clock: Clock) -> None:
        self._first = precedence_on(log)
        self._share = share
        self._clock = clock
        self.begin()

    @property
    def beside(self) -> bool:
        """Whether there is anybody to give way to."""
        return self._first.running > 0

    def begin(self) -> None:
        """A piece begins here: what was done before, such as restoring stores, was none, and earns no rest."""
        self._since = self._clock.monotonic()

    def let_first(self) -> None:
        """Waits until none of them is at work: before something that no other thread can interrupt."""
        if self.beside:
            self._first.wait_for_rest(PATIENCE_S)

    def pause(self, wait: Callable[[float], object]) -> None:
        """Where a piece may end, and does if it has had its time; `wait` waits for so many seconds."""
        now = self._clock.monotonic()
        if not self.beside:
            self._since = now
        elif now - self._since >= PIECE_S:
            wait((now - self._since) * (1 / self._share - 1))
            self.let_first()
            self.begin()


@contextmanager
def switching_often() -> Generator[None]:
    """Lets other threads of the process have their turn sooner than Python would."""
    global _often, _before  # noqa: PLW0603 - the interval is one for the process, and so is the count of those who ask
    with _lock:
        if not _often:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_SWITCH_S, _before))
        _often += 1
    try:
        yield
    finally:
        with _lock:
            _often -= 1
            if not _often:
                sys.setswitchinterval(_before)
