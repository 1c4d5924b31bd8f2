"""When the next commit is due: at the interval, and with the default one soon after everything was read.

1. A commit is due `interval` after the last one, or after the first record since then that found nothing to commit.
2. Eager: it is due, too, as soon as nothing waits to be read, but not before the last commit has been over for SOON_S
   and for SHARE times as long as a commit takes. So results are seen soon where records come one by one, a part of the
   time goes into commits on any disk, and a backlog, where what is merged saves work, has the whole interval.
3. What a commit takes is what the quickest of the last LAST took: that is the disk's part and the app's. What is above
   it was somebody else's (another app, another program on the disk), who would be answered by five times the delay.
4. What was sent ahead of a commit waits at most OPEN_S for it: well below the time-out of its transaction.
"""

from collections import deque

from tailrace.log.clock import Clock

SOON_S = 0.01
SHARE = 4
LAST = 8
OPEN_S = 3.0


class Pace:
    """See the module's docstring. Times are those of the clock's `monotonic`, in seconds."""

    def __init__(self, clock: Clock, interval_s: float, *, eager: bool) -> None:
        self._clock = clock
        self._interval = interval_s
        self._eager = eager
        self._took: deque[float] = deque(maxlen=LAST)
        self._due = self._soon = 0.0
        self.begin()

    def begin(self) -> None:
        """Nothing is to be committed yet."""
        self._due = self._clock.monotonic() + self._interval
        self._soon = min(self._soon, self._due) if self._eager else self._due

    def committed(self, began: float) -> None:
        """A commit that began then is done."""
        now = self._clock.monotonic()
        self._took.append(now - began)
        self._soon = now + max(SOON_S, SHARE * min(self._took))
        self.begin()

    def sent_ahead(self) -> None:
        """Records were sent that are seen only after the commit."""
        self._due = min(self._due, self._clock.monotonic() + OPEN_S)

    def left(self, *, caught_up: bool) -> float:
        """In how many seconds a commit is due, 0 or less if it is now; caught_up: nothing waits to be read."""
        due = min(self._soon, self._due) if caught_up else self._due
        return due - self._clock.monotonic()
