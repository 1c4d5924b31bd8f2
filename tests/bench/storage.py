"""Batches of records of 100 bytes appended to one partition, fetched and decoded; and a log of many partitions.

1. Append and fetch have the page cache as their floor: the same bytes written to, and read from, a plain file.
2. What is fetched is what was appended, and what is decoded too, or there is no number.
"""

import multiprocessing
import os
import shutil
from pathlib import Path

from tailrace import Log
from tailrace.log.clock import SystemClock
from tailrace.log.codec import batches, check_crc
from tailrace.log.disk import RealDisk
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.records import BatchRecords
from tailrace.log.topic import TopicConfig
from tailrace.tests.bench.clients import VALUE_BYTES, encoded, values_of
from tailrace.tests.bench.files import READ_BYTES
from tailrace.tests.bench.measure import Setting, Stopwatch, Values

OPEN, KILLED = "open s", "after a kill s"
WIDE = "wide"
_TP = TopicPartition("records", 0)


def append(setting: Setting) -> Values:
    """Each batch checked with its CRC, given its offsets, written; in the page cache at the end."""
    made = encoded(values_of(setting.small))
    partition = _new_partition(setting, "append")
    with Stopwatch() as watch:
        for batch in made:
            partition.append(batch)
    assert partition.log_end_offset == setting.small
    partition.close()
    return watch.values(setting.small)


def append_floor(setting: Setting) -> Values:
    """The same bytes written to a file, a call for each batch."""
    made = encoded(values_of(setting.small))
    path = _new_folder(setting, "append-floor") / "file"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with Stopwatch() as watch:
            for batch in made:
                os.write(file, batch)
    finally:
        os.close(file)
    return watch.values(setting.small)


def fetch(setting: Setting) -> Values:
    """Whole batches in reads of 1 MiB, from the page cache."""
    partition = _new_partition(setting, "fetch")
    for batch in encoded(values_of(setting.small)):
        partition.append(batch)
    size = offset = 0
    with Stopwatch() as watch:
        while data := partition.read(offset, READ_BYTES):
            size += len(data)
            offset = _end_of(data)
    assert (offset, size) == (setting.small, partition.size_bytes)
    partition.close()
    return watch.values(setting.small)


def _end_of(data: bytes) -> int:
    end = 0
    for header, _ in batches(data):
        end = header.next_offset
    return end


def fetch_floor(setting: Setting) -> Values:
    """The same bytes read from a file, 1 MiB at a time."""
    path = _new_folder(setting, "fetch-floor") / "file"
    path.write_bytes(b"".join(encoded(values_of(setting.small))))
    file = os.open(path, os.O_RDONLY)
    try:
        with Stopwatch() as watch:
            position = 0
            while data := os.pread(file, READ_BYTES, position):
                position += len(data)
    finally:
        os.close(file)
    return watch.values(setting.small)


def decode(setting: Setting) -> Values:
    """Headers read, CRCs checked, and each value looked at: what a consumer does with fetched bytes."""
    data = b"".join(encoded(values_of(setting.small)))
    size = 0
    with Stopwatch() as watch:
        for header, batch in batches(data):
            check_crc(batch, file="", position=0)
            for record in BatchRecords(header, batch, 0):
                size += len(record.value or b"")
    assert size == setting.small * VALUE_BYTES
    return watch.values(setting.small)


def _new_folder(setting: Setting, name: str) -> Path:
    folder = Path(setting.directory, "storage", name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _new_partition(setting: Setting, name: str) -> Partition:
    folder = _new_folder(setting, name)
    return Partition.open(RealDisk(), SystemClock(), str(folder / "records-0"), _TP, TopicConfig())


# ---- many partitions


def prepare_wide(setting: Setting) -> None:
    """A log with a record in each of many partitions, closed; and another whose process was killed."""
    _fill_wide(f"{setting.directory}/{WIDE}-closed", setting.partitions)
    # A process of its own, because only a process can die without closing.
    child = multiprocessing.get_context("spawn").Process(target=_fill_and_die, args=(setting,))
    child.start()
    child.join()


def _fill_wide(directory: str, partitions: int, *, die: bool = False) -> None:
    with Log.open(directory) as log:
        log.create_topic("wide", partitions=partitions)
        with log.producer(acks="all") as producer:
            for partition in range(partitions):
                producer.send("wide", b"value", partition=partition)
            producer.flush()
        if die:
            os._exit(0)


def _fill_and_die(setting: Setting) -> None:
    _fill_wide(f"{setting.directory}/{WIDE}-killed", setting.partitions, die=True)


def open_wide(setting: Setting) -> Values:
    """From nothing open to a log that takes records; a killed one is copied, as opening mends it."""
    killed = _new_folder(setting, WIDE) / "log"
    shutil.copytree(f"{setting.directory}/{WIDE}-killed", killed)
    return {
        OPEN: _opened_s(f"{setting.directory}/{WIDE}-closed", setting.partitions),
        KILLED: _opened_s(str(killed), setting.partitions),
    }


def _opened_s(directory: str, partitions: int) -> float:
    with Stopwatch() as watch:
        log = Log.open(directory)
    assert list(log.offsets("wide").values()) == [1] * partitions
    log.close()
    return watch.seconds
