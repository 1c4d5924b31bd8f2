"""How long an app goes on trying where an error may pass: a pause after each, longer each time, and not for ever.

1. Pauses double from FIRST_S to MOST_S.
2. After GIVE_UP_S without a commit the error is raised.
"""

from typing import Final

from tailrace.log.clock import Clock
from tailrace.log.errors import ExpelledError, OverdueError, RetriableError

FIRST_S = 0.1
MOST_S = 5.0
GIVE_UP_S = 300.0  # Kafka Streams' task.timeout.ms

Passing = RetriableError | ExpelledError | OverdueError
"""What may pass: not yet; others have the tasks; a commit took too long."""

PASSING: Final = (RetriableError, ExpelledError, OverdueError)


class Patience:
    """See the module's docstring."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._pause = FIRST_S

    def after(self, error: Passing) -> float:
        """The pause in seconds before the next try; raises the error where it has been tried for long enough."""
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= GIVE_UP_S:
            raise error
        pause = self._pause
        self._pause = min(2 * pause, MOST_S)
        return pause

    def reset(self) -> None:
        """Something was done: the next error is the first again."""
        self._since = None
        self._pause = FIRST_S
