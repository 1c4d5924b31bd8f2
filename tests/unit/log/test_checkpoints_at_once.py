"""Recovery points and log starts are written by one at a time: here two deletions of records."""

import threading
from pathlib import Path

import pytest

from tailrace.log import checkpoint
from tailrace.log.client import Log
from tailrace.log.record import TopicPartition


def test_a_second_one_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, overlap = threading.Lock(), list[object]()
    write = checkpoint.write_offsets
    meet = threading.Barrier(2, timeout=20)

    def one_at_a_time(*arguments: object) -> None:
        if not writing.acquire(blocking=False):
            overlap.append(arguments)
            return
        try:
            write(*arguments)  # type: ignore[arg-type]  # passed on as they came
        finally:
            writing.release()

    monkeypatch.setattr(checkpoint, "write_offsets", one_at_a_time)
    with Log.open(str(tmp_path), background=False) as log:
        log.create_topic("t", partitions=2)
        with log.producer() as producer:
            for partition in range(2):
                producer.send_many("t", [b"v"] * 200, partition=partition)

        def delete(partition: int) -> None:
            for offset in range(1, 100):
                if offset == 1:
                    meet.wait()
                log.delete_records({TopicPartition("t", partition): offset})

        threads = [threading.Thread(target=delete, args=(partition,)) for partition in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not overlap
        assert log.offsets("t", "earliest") == {TopicPartition("t", 0): 99, TopicPartition("t", 1): 99}
