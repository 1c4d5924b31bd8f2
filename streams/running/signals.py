"""SIGINT and SIGTERM as a request to stop, while an app runs in the main thread."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(stop: Callable[[], None]) -> Generator[list[int]]:
    """Calls stop at the first signal; gives the signals that came, in order. The second SIGINT interrupts as usual.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1 and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        # In a thread of its own: the signal may have come while this one holds a lock that `stop` needs.
        threading.Thread(target=stop, name="tailrace-stop", daemon=True).start()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
