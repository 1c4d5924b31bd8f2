"""A replay as a process of its own, for tests that end it: `python -m tailrace.tests.support.replaying LOG STEP`.

STEP is `run`, `promote` or `undo`: what is done with the job that corrects the program. It says "ready" when that
begins, or at the first record of a run; before a promotion the job catches up. Both programs count clicks, and the
right one begins at RIGHT, so that any result tells whose it is; each copies what it reads besides, so that a click that
is taken twice shows. With SLOW set each click takes that many seconds.
"""

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.tests.support.programs import Click

RIGHT = 1_000_000


def program(log: Log | str, begin: int, slow_s: float = 0.0) -> App:
    """Clicks of each product, counted from a number on, and a copy of each."""

    said = not slow_s

    def product_of(click: Click) -> str:
        nonlocal said
        if not said:
            said = True
            print("ready", flush=True)
        if slow_s:
            time.sleep(slow_s)
        return click.product

    app = App("shop", log=log, commit_interval=timedelta(milliseconds=3))
    clicks = app.stream(app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts))
    clicks.to(app.topic("copies", key=str, value=Click))

    def result(count: int) -> int:
        return begin + count

    counted = clicks.group_by(product_of).count(store="counts")
    counted.map(result).to(app.topic("counts", key=str, value=int))
    return app


def main(path: str, step: str) -> None:
    """Takes one step with the job."""
    with Log.open(path) as log, program(log, RIGHT, float(os.environ.get("SLOW", "0"))).replay(into="v2") as job:
        steps: dict[str, Callable[[], object]] = {"run": job.run, "promote": job.promote, "undo": job.undo}
        if step == "promote":
            job.run()
        if step != "run":
            print("ready", flush=True)
        steps[step]()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
