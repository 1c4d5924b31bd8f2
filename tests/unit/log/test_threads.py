"""One partition, many threads: writers, a syncer, readers, retention; every read is a slice of what was written."""

import threading
from pathlib import Path

from tailrace.log import codec
from tailrace.log.disk import RealDisk, join
from tailrace.log.partition.extent import OffsetOutOfRangeError
from tailrace.log.partition.partition import Partition
from tailrace.log.topic import TopicConfig
from tailrace.tests.support.partitions import NOW_MS, opened

WRITERS, BATCHES = 3, 400


def test_all_at_once(tmp_path: Path) -> None:
    config = TopicConfig(segment_bytes=4000, retention_bytes=30_000, file_delete_delay_ms=0, index_interval_bytes=300)
    partition = opened(RealDisk(), config, directory=join(str(tmp_path), "clicks-0"))
    done = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: object) -> None:
        try:
            assert callable(work)
            work()
        except BaseException as error:  # noqa: BLE001  # shown at the end, whatever it is
            failures.append(error)

    def write() -> None:
        for index in range(BATCHES):
            landed = partition.append(codec.encode([(None, b"%d" % index, NOW_MS, ())] * (1 + index % 3)))
            assert landed.last_offset == landed.base_offset + index % 3

    def sync() -> None:
        while not done.is_set():
            before = partition.log_end_offset
            assert partition.sync() >= before

    def look_after() -> None:
        while not done.is_set():
            partition.apply_retention(NOW_MS)
            partition.checkpoint()

    def read() -> None:
        while not done.is_set():
            follow(partition)

    writers = [threading.Thread(target=guarded, args=(write,)) for _ in range(WRITERS)]
    others = [threading.Thread(target=guarded, args=(each,)) for each in (sync, look_after, read, read)]
    for each in [*writers, *others]:
        each.start()
    for each in writers:
        each.join()
    done.set()
    for each in others:
        each.join()
    assert failures == []
    assert partition.log_end_offset == WRITERS * sum(1 + index % 3 for index in range(BATCHES))
    assert partition.log_start_offset > 0
    partition.close()
    assert partition.recovery_point == partition.log_end_offset


def follow(partition: Partition) -> None:
    """Reads to the end once; offsets are dense, CRCs right."""
    offset = partition.log_start_offset
    try:
        while data := partition.read(offset, 2000):
            for header, batch in codec.batches(data):
                codec.check_crc(batch, file="", position=0)
                assert header.base_offset == offset
                offset = header.next_offset
    except OffsetOutOfRangeError:
        pass  # retention was faster
