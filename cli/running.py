"""An app run under the command: on the log that is meant, with a line about it on a terminal.

1. The log is opened here, so that what the app lags behind can be read beside it.
2. The line is drawn by a thread of its own, a few times a second; the app's thread is never asked to wait.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from tailrace.cli.output import rate
from tailrace.log.client import Log
from tailrace.log.clock import SystemClock
from tailrace.log.errors import TailraceError
from tailrace.state.restore import Progress
from tailrace.streams.app import App
from tailrace.streams.running.summary import Summary

_REFRESH_SECONDS = 0.25

Draw = Callable[[], RenderableType | None]


def run_app(app: App, log: Log, *, until: Literal["end"] | None) -> Summary:
    """Run an app on a log, whatever log it names itself; blocks until it ends."""
    with at_log(app, log):
        return app.run(until=until)


@contextmanager
def at_log(app: App, log: Log) -> Generator[None]:
    """Have an app take a log within the block, whatever log it names itself."""
    own = app.options
    app.options = replace(own, log=log)
    try:
        yield
    finally:
        app.options = own


@contextmanager
def drawn(draw: Draw, console: Console) -> Generator[None]:
    """Draw something again and again beside the block, on a terminal; it is gone when the block ends."""
    if not console.is_terminal:
        yield
        return
    done = threading.Event()
    live = Live(console=console, transient=True, auto_refresh=False)

    def work() -> None:
        while not done.wait(_REFRESH_SECONDS):
            try:
                found = draw()
            except RuntimeError:  # a dict that is summed up grew meanwhile: the next look will do
                continue
            if found is not None:
                live.update(found, refresh=True)

    thread = threading.Thread(target=work, name="tailrace-status")
    with live:
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Status:
    """A line about a running app: how much it has read, how fast, how far behind it is, what it dropped."""

    def __init__(self, app: App, log: Log) -> None:
        self._app = app
        self._log = log
        self._clock = SystemClock()
        self._restoring = ""
        self._last = (self._clock.monotonic(), 0)

    def restoring(self, store: str) -> Progress:
        """Take part in the restoring of a store: the function is told how many offsets of how many were read."""

        def told(done: int, total: int) -> None:
            self._restoring = f"restoring {store}: {done:,} of {total:,} ({done / total if total else 1:.0%})"

        return told

    def __call__(self) -> Text | None:
        """Make the line; nothing before the app begins."""
        summary = self._app.summary()
        if summary is None:
            return Text(self._restoring) if self._restoring else None
        before, read_before = self._last
        self._last = now, read = self._clock.monotonic(), summary.records_in
        parts = [f"{read:,} records", rate(read - read_before, now - before), f"lag {self._lag():,}"]
        dropped = sum(summary.dropped.values())
        return Text("  ".join([*parts, f"dropped {dropped:,}", f"open windows {summary.open_windows:,}"]))

    def _lag(self) -> int:
        try:
            return sum(self._log.describe_group(self._app.name).lag.values())
        except TailraceError:
            return 0  # nothing is committed yet
