"""The click count as a process of its own, for tests that end it: `python -m tailrace.tests.support.counting LOG`.

It copies each click besides, so that one that is taken twice shows, whatever the counts say.

It says "running" when it has worked on the first record. With SLOW set, each click takes that many seconds, so that a
signal finds it at work; commits are a few milliseconds apart, so that it finds it within one now and then. With MEMBERS
set, so many apps share the work: what is counted goes through the log.
"""

import os
import sys
import threading
import time
from contextlib import ExitStack
from datetime import timedelta

from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.tests.support.programs import Click, row
from tailrace.windows.duration import minutes, seconds
from tailrace.windows.tumbling import tumbling


def main(path: str) -> None:
    """Counts until it is stopped."""
    pause = float(os.environ.get("SLOW", "0"))
    said = False

    def product_of(click: Click) -> str:
        nonlocal said
        if not said:
            said = True
            print("running", flush=True)
        if pause:
            time.sleep(pause)
        return click.product

    def program(log: Log) -> App:
        app = App("counter", log=log, commit_interval=timedelta(milliseconds=3))
        clicks = app.topic("clicks", key=str, value=Click, timestamp=lambda click: click.ts)
        app.stream(clicks).to(app.topic("copies", key=str, value=Click))
        windowed = app.stream(clicks).group_by(product_of).windowed_by(tumbling(minutes(1), grace=seconds(5)))
        windowed.count(store="clicks").changes().map_kv(row).to(app.topic("counts", key=str, value=int))
        return app

    with Log.open(path) as log, ExitStack() as stack:
        for _ in range(int(os.environ.get("MEMBERS", "1")) - 1):
            other = program(log)
            thread = threading.Thread(target=other.run)
            thread.start()
            stack.callback(thread.join)
            stack.callback(other.stop)
        app = program(log)
        summary = app.run()
    print(f"stopped by {app.stopped_by} after {summary.records_in}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
