"""Transactions: of one record, one after the other; and how long a commit over many partitions takes.

1. What was committed is read back, all of it, or there is no number.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Literal

from tailrace import Log
from tailrace.log.record import TopicPartition
from tailrace.tests.bench.measure import Setting, Values, percentile

TRANSACTIONS = "transactions/s"
WIDE = {f"{count} ms": count for count in (16, 64, 200)}  # partitions of a commit
_WARM_UP = 20
_VALUE = b"v" * 100


def one_by_one_disk(setting: Setting) -> Values:
    """Records, decision and markers on disk before the next begins."""
    return _one_by_one(setting, "disk")


def one_by_one_os(setting: Setting) -> Values:
    """The same in the page cache, as Kafka does."""
    return _one_by_one(setting, "os")


def _one_by_one(setting: Setting, flush: Literal["disk", "os"]) -> Values:
    path = _new_folder(setting, f"transactions-{flush}")
    with Log.open(path, flush=flush) as log, log.producer(transactional_id="bench") as producer:
        log.create_topic("t")
        for number in range(-_WARM_UP, setting.waits):
            if number == 0:
                begun = time.perf_counter()
            with producer.transaction():
                producer.send("t", _VALUE)
        elapsed = time.perf_counter() - begun  # pyright: ignore[reportPossiblyUnboundVariable]  # waits is 1 or more
        assert _records(log) == setting.waits + _WARM_UP
    return {TRANSACTIONS: setting.waits / elapsed}


def floor_disk(setting: Setting) -> Values:
    """A record, a decision, a marker: three writes, each synced, to three files."""
    folder = Path(_new_folder(setting, "transactions-floor"))
    folder.mkdir()
    files = [os.open(folder / str(each), os.O_WRONLY | os.O_CREAT | os.O_APPEND) for each in range(3)]
    for file in files:
        os.write(file, _VALUE)
        os.fsync(file)
    begun = time.perf_counter()
    for _ in range(setting.waits):
        for file in files:
            os.write(file, _VALUE)
            os.fdatasync(file)
    elapsed = time.perf_counter() - begun
    for file in files:
        os.close(file)
    return {TRANSACTIONS: setting.waits / elapsed}


def wide(setting: Setting) -> Values:
    """From the call of commit, with a record of 1 KiB for each partition in the buffer, until it returns."""
    return {name: _wide(setting, min(count, setting.partitions)) for name, count in WIDE.items()}


def _wide(setting: Setting, partitions: int) -> float:
    path = _new_folder(setting, f"transactions-{partitions}")
    rounds = max(1, setting.waits // 50)
    took: list[float] = []
    with Log.open(path) as log, log.producer(transactional_id="bench", linger_ms=1000) as producer:
        log.create_topic("t", partitions=partitions)
        for _ in range(rounds):
            producer.begin()
            for number in range(partitions):
                producer.send("t", _VALUE * 10, partition=number)
            begun = time.perf_counter()
            producer.commit()
            took.append((time.perf_counter() - begun) * 1000)
        assert _records(log) == rounds * partitions
    return percentile(took, 0.5)


def _records(log: Log) -> int:
    found = 0
    with log.consumer() as consumer:
        consumer.assign([TopicPartition("t", each) for each in range(log.describe_topic("t").partitions)])
        while batches := consumer.poll_batches():
            found += sum(len(batch.records) for batch in batches)
    return found


def _new_folder(setting: Setting, name: str) -> str:
    path = Path(setting.directory, f"{name}-{setting.sample}")
    shutil.rmtree(path, ignore_errors=True)
    return str(path)
