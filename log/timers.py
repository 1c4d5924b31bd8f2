"""Calls at a later time, by one thread: the linger of producers.

1. A call is made once, at or after its time, never before.
2. The thread exists only once something was asked for. Calls must be short: they run one after another.
"""

import heapq
import threading
from collections.abc import Callable

from tailrace.log.clock import Clock


class Timers:
    """Runs functions when a monotonic clock has reached their time."""

    def __init__(self, clock: Clock, *, background: bool = True) -> None:
        self._clock = clock
        self._background = background
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls `call` in `seconds`; after `close`, or without a background thread, it is never called."""
        at = self._clock.monotonic() + seconds
        with self._changed:
            if self._closing or not self._background:
                return
            self._asked += 1
            heapq.heappush(self._queue, (at, self._asked, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tailrace-timer", daemon=True)
                self._thread.start()
            elif self._queue[0][0] == at:  # the thread sleeps until something later
                self._changed.notify()

    def close(self) -> None:
        """Stops; what is still to be called is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing:
                    if not self._queue:
                        self._changed.wait()
                        continue
                    left = self._queue[0][0] - self._clock.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                if self._closing:
                    return
                call = heapq.heappop(self._queue)[2]
            call()
