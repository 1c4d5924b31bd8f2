"""What exactly-once costs: beside at-least-once, from a record to who reads its result, and after a kill.

1. `exactly-keyed` and `exactly-rekeyed` have the same program at least once as their floor.
2. A latency is from before `send` (acks=1) to after the poll that returns the result, read committed, in one process.
3. The killed app had a store of so many keys, all committed, and had not closed anything.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio

from tailrace import App, Log
from tailrace.tests.bench import click_counts
from tailrace.tests.bench.clients import latencies
from tailrace.tests.bench.measure import Setting, Values
from tailrace.tests.support.source import ROOT

FIRST = "first out s"
_KEYS = "keys"


def end_to_end(setting: Setting) -> Values:
    """A record a millisecond through a `group_by`, the default guarantee and commit interval."""
    directory = str(Path(setting.directory, f"latency-{setting.sample}"))
    with Log.open(directory) as log:
        log.create_topic("in", partitions=4)
        app = numbers(log)
        with log.producer(acks=1, linger_ms=0) as producer, log.consumer() as consumer:

            def receive() -> list[int]:
                fetched = consumer.poll_batches(timeout=60.0)
                return [int.from_bytes(record.value or b"", "big") for batch in fetched for record in batch.records]

            def give(sent_ns: int) -> None:
                producer.send("in", sent_ns.to_bytes(8, "big"), key=b"%d" % (sent_ns % 4096))

            async def beside() -> Values:
                async with app.running():
                    consumer.assign(list(log.offsets("out")))
                    return await anyio.to_thread.run_sync(latencies, setting.waits, receive, give)

            return anyio.run(beside)


def numbers(log: str | Log) -> App:
    """Each number is a key of its own, so that no result is merged with another."""
    app = App("numbers", log=log)
    stream = app.stream(app.topic("in", key=str, value=int))
    latest = stream.group_by(lambda number: number).reduce(lambda _, new: new, store="latest")
    latest.changes().to(app.topic("out", key=int, value=int, partitions=4))
    return app


# ---- after a kill


def kill(setting: Setting) -> None:
    """Leaves an app behind that was killed when everything was committed."""
    directory = str(Path(setting.directory, "killed"))
    with Log.open(directory) as log:
        log.create_topic("in", partitions=4)
        with log.producer(batch_bytes=1 << 18) as producer:
            values = [number.to_bytes(8, "big") for number in range(setting.small)]
            producer.send_many("in", values, keys=[b"%d" % number for number in range(setting.small)])
    link = ROOT / ".dev" if (ROOT / ".dev").exists() else ROOT.parent
    environment = dict(os.environ, PYTHONPATH=str(link))
    command = [sys.executable, "-m", "tailrace.tests.bench.commits", directory]
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            with Log.open(directory, read_only=True) as log:
                done = sum(log.committed("numbers").values())
            if done >= setting.small:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.2)
    if process.returncode != -signal.SIGKILL:
        raise AssertionError(f"the app ended by itself, with {process.returncode}")


def first_out(setting: Setting) -> Values:
    """From nothing open until the result of a record that waits is read: log, stores and the tail of the changelogs."""
    began = time.perf_counter()
    with Log.open(str(Path(setting.directory, "killed"))) as log:
        ends = log.offsets("out")
        with log.producer() as producer:
            producer.send("in", bytes(8), key=b"first")
        app = numbers(log)

        async def first() -> float:
            with log.consumer() as consumer:
                consumer.assign(list(ends))
                for partition, end in ends.items():
                    consumer.seek(partition, end)
                async with app.running():
                    while not await anyio.to_thread.run_sync(consumer.poll, 1.0):
                        pass
                    return time.perf_counter()

        found = anyio.run(first)
    return {FIRST: found - began}


# ---- beside at least once


def exactly_keyed(setting: Setting) -> Values:
    """The count of clicks keyed by product, exactly once."""
    return click_counts.count(setting, keyed=True, guarantee="exactly_once")


def exactly_rekeyed(setting: Setting) -> Values:
    """The same, keyed by user."""
    return click_counts.count(setting, keyed=False, guarantee="exactly_once")


def at_least_keyed(setting: Setting) -> Values:
    """At least once."""
    return click_counts.count(setting, keyed=True, guarantee="at_least_once")


def at_least_rekeyed(setting: Setting) -> Values:
    """At least once."""
    return click_counts.count(setting, keyed=False, guarantee="at_least_once")


if __name__ == "__main__":
    numbers(sys.argv[1]).run()
