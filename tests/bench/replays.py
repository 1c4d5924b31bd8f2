"""What a replay costs, what it costs a live app beside it, and what a comparison of its results does.

1. A replay is timed as the count that is its floor is: from `run` to the last commit on disk. Its results are checked.
2. Latencies beside a replay and without one are measured in the same process, in turn, several times. Each replay is of
   the live app's own program, over a part of its input, with the share of the time that is the default, and is not over
   before the last record that is timed beside it.
3. Two topics that are compared have each key once, in no order; every hundredth value differs.
"""

import random
import statistics
import threading
import time
from pathlib import Path

import anyio

from tailrace import App, Log
from tailrace.log.disk import RealDisk
from tailrace.streams.program.topic import Topic
from tailrace.streams.reprocessing.difference import Range, difference
from tailrace.streams.reprocessing.replay import ReplayJob
from tailrace.streams.values.place import Place
from tailrace.tests.bench import click_counts
from tailrace.tests.bench.clicks import check, log_directory
from tailrace.tests.bench.clients import P99, timed
from tailrace.tests.bench.commits import numbers
from tailrace.tests.bench.measure import Setting, Stopwatch, Values, peak_mib, percentile

BESIDE, TIMES, REPLAYED = "p99 ms beside", "times p99", "replayed/s"
SECONDS, TENTH, GROWTH = "s", "MiB of a tenth", "MiB / of a tenth"
_TURNS = 3
# Records that a replay has for each wait beside it: more than it comes to in that time, where there are many.
_REPLAYED, _MANY = 80, 1_000
_PARTS = (10, 1)
_DIFFERS = 100


def replay(setting: Setting) -> Values:
    """The main job, with a group_by, over all clicks."""
    with Log.open(log_directory(setting)) as log:
        app = click_counts.program("replayed", log, keyed=False)
        with app.replay(into=f"v{setting.sample}") as job:
            with Stopwatch() as watch:
                summary = job.run()
            if summary.dropped or summary.records_in != setting.records:
                raise AssertionError(f"the replay took {summary.records_in} clicks: {summary.dropped}")
            check(setting, click_counts.output(log, f"replayed-output.v{setting.sample}"), "the replay")
            job.discard()
    return watch.values(summary.records_in)


def beside(setting: Setting) -> Values:
    """A live app's latencies without a replay and beside one of it, in turn."""
    directory = str(Path(setting.directory, f"beside-{setting.sample}"))
    with Log.open(directory) as log:
        log.create_topic("in", partitions=4)
        with log.producer(batch_bytes=1 << 18) as producer:
            values = [number.to_bytes(8, "big") for number in range(setting.small)]
            keys = [b"%d" % number for number in range(setting.small)]
            producer.send_many("in", values, keys=keys, timestamps_ms=range(setting.small))
        app = numbers(log)
        app.run(until="end")
        return anyio.run(_measured, log, app, setting.waits)


async def _measured(log: Log, app: App, waits: int) -> Values:
    with log.producer(acks=1, linger_ms=0) as producer, log.consumer() as consumer:
        consumer.assign(list(log.offsets("out")))
        for partition, end in log.offsets("out").items():
            consumer.seek(partition, end)

        def receive() -> list[int]:
            fetched = consumer.poll_batches(timeout=60.0)
            return [int.from_bytes(record.value or b"", "big") for batch in fetched for record in batch.records]

        def give(sent_ns: int) -> None:
            producer.send("in", sent_ns.to_bytes(8, "big"), key=b"%d" % (sent_ns % 4096))

        async def measured() -> list[float]:
            return await anyio.to_thread.run_sync(timed, waits, receive, give)

        alone, there, rates = list[float](), list[float](), list[float]()
        async with app.running():
            await measured()  # whatever is slow at first
            for turn in range(_TURNS):
                alone += await measured()
                with numbers(log).replay(into=f"again-{turn}", until=waits * _REPLAYED) as job:
                    thread, began = threading.Thread(target=job.run), time.perf_counter()
                    thread.start()
                    there += await measured()
                    if not thread.is_alive() and waits >= _MANY:
                        raise AssertionError("the replay was over before the last wait beside it")
                    done = await anyio.to_thread.run_sync(_committed, job, thread)
                    rates.append(done / (time.perf_counter() - began))
                    await anyio.to_thread.run_sync(thread.join)
                    job.discard()
    p99, beside = percentile(alone, 0.99), percentile(there, 0.99)
    return {P99: p99, BESIDE: beside, TIMES: beside / p99, REPLAYED: statistics.median(rates)}


def _committed(job: ReplayJob, thread: threading.Thread) -> int:
    """How many records a replay has committed, once it has any, or its thread has ended."""
    while thread.is_alive() and not job.progress().records:
        time.sleep(0.01)
    done = job.progress().records
    if not done:
        raise AssertionError("the replay ended and had committed nothing")
    return done


# ---- the comparison


def prepare_topics(setting: Setting) -> None:
    """Two topics of a partition for each of the sizes."""
    with Log.open(_compared(setting)) as log, log.producer(batch_bytes=1 << 18) as producer:
        for part in _PARTS:
            keys = [b"%012d" % number for number in range(setting.small // part)]
            for name, by in (("old", 1), ("new", 2)):
                random.Random(by).shuffle(keys)
                values = [int(key) + (by if int(key) % _DIFFERS == 0 else 0) for key in keys]
                log.create_topic(f"{name}-{part}")
                producer.send_many(f"{name}-{part}", [value.to_bytes(8, "big") for value in values], keys=keys)


def compare(setting: Setting) -> Values:
    """A tenth of the keys, then all."""
    found: Values = {}
    declared = Topic[str, int]("new", key=str, value=int, place=Place(__file__, 1))
    with Log.open(_compared(setting)) as log:
        for part in _PARTS:
            began, cpu = time.perf_counter(), time.process_time()
            result = difference(
                log,
                f"old-{part}",
                f"new-{part}",
                declared,
                tolerance=1e-9,
                sequences=False,
                samples=20,
                within=Range(None, None),
                disk=RealDisk(),
                directory=setting.directory,
            )
            count = setting.small // part
            differ = -(-count // _DIFFERS)
            if result[:4] != (count - differ, differ, 0, 0):
                raise AssertionError(f"of {count} keys {differ} differ, and this was found: {result[:4]}")
            if part > 1:
                found[TENTH] = peak_mib()
            else:
                found[SECONDS] = time.perf_counter() - began
                found["cpu s"] = time.process_time() - cpu
    return {**found, GROWTH: peak_mib() / found[TENTH]}


def _compared(setting: Setting) -> str:
    return str(Path(setting.directory, "compared"))
