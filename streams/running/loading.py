"""Loads units in a thread of its own, one after the other, while a member's other tasks run.

1. What was loaded is handed over once, by `take`, which also raises what went wrong; in the order in which it was asked
   for.
2. After `forget` nobody touches the unit's stores any more, and what was loaded of it is not handed over.
3. The thread ends when there is nothing to load, and with `close`.
4. What is open of who ran a unit before is waited for, and named while that lasts: at least as long as a transaction
   of an app may be open.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import count

from tailrace.streams.chain.positions import BrokenOffError, UnsettledError
from tailrace.streams.planning.plan import Loaded
from tailrace.streams.planning.units import Unit

_logger = logging.getLogger(__name__)

Load = Callable[[Unit, threading.Event], Loaded]
"""Loads a unit, or raises BrokenOffError once the event is set, UnsettledError where it is too early."""

# Between two tries of what is not settled yet; how many make a warning, and are enough: five seconds, and thirty.
_WAIT_S = 0.005
_TRIES_TOLD = 1_000
_TRIES_MAX = 6_000


class Loader:
    """See the module's docstring. All methods are for one thread."""

    def __init__(self, load: Load, loaded: Callable[[], None]) -> None:
        """`loaded` is called in the loader's thread when there is something to take."""
        self._load = load
        self._loaded = loaded
        self._lock = threading.Lock()
        self._waiting: deque[Unit] = deque()
        self._at_work: Unit | None = None
        self._unwanted = threading.Event()
        self._done: list[Loaded | BaseException] = []
        self._thread: threading.Thread | None = None

    def begin(self, unit: Unit) -> None:
        """Has a unit loaded."""
        with self._lock:
            self._waiting.append(unit)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tailrace-restore", daemon=True)
                self._thread.start()

    def take(self) -> list[Loaded]:
        """What was loaded since the last time. Raises what loading raised."""
        if not self._done:
            return []
        with self._lock:
            done, self._done = self._done, []
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return [each for each in done if not isinstance(each, BaseException)]

    def wait(self, timeout: float) -> bool:
        """Waits until there is nothing to load any more, in seconds at most; returns whether there was anything."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is not None

    def forget(self, unit: Unit) -> None:
        """Breaks the loading of a unit off, and waits until it is."""
        with self._lock:
            if unit in self._waiting:
                self._waiting.remove(unit)
            self._done = [each for each in self._done if isinstance(each, BaseException) or each.unit != unit]
            thread = self._thread if self._at_work == unit else None
            if thread is None:
                return
            later, self._waiting = self._waiting, deque()
            self._unwanted.set()
        thread.join()
        with self._lock:
            self._done = [each for each in self._done if isinstance(each, BaseException) or each.unit != unit]
        for each in later:
            self.begin(each)

    def close(self) -> None:
        """Breaks everything off."""
        with self._lock:
            self._waiting.clear()
            self._unwanted.set()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._done = []

    def _run(self) -> None:
        while True:
            with self._lock:
                self._at_work = self._waiting.popleft() if self._waiting else None
                unit = self._at_work
                if unit is None:
                    self._thread = None
                    self._unwanted.clear()
                    return
            try:
                done: Loaded | BaseException = self._load_settled(unit)
            except BrokenOffError as error:
                _logger.info("%s", error)
                continue
            except BaseException as error:  # noqa: BLE001 - raised where it is taken
                done = error
            with self._lock:
                self._done.append(done)
            self._loaded()

    def _load_settled(self, unit: Unit) -> Loaded:
        for tries in count(1):
            try:
                return self._load(unit, self._unwanted)
            except UnsettledError as error:
                if tries >= _TRIES_MAX:
                    raise
                if tries % _TRIES_TOLD == 0:
                    _logger.warning("%s", error)
            if self._unwanted.wait(_WAIT_S):
                raise BrokenOffError(f"unit {unit.name} is not wanted any more")
        raise AssertionError


NewLoader = Callable[[Load, Callable[[], None]], Loader]
