"""What the log itself does with records of 100 bytes: the codec alone, the producer, the consumer, waking up.

The codec is the floor of producer and consumer; a condition variable between two threads is that of a wake-up.
"""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tailrace import Log
from tailrace.log.client import Acks
from tailrace.log.codec import batches, decode, encode_columns
from tailrace.tests.bench.measure import Setting, Stopwatch, Values, percentile

VALUE_BYTES = 100
P50, P99, ACK = "p50 ms", "p99 ms", "ack p50 ms"
_TOPIC = "records"
_PAUSE_S = 0.001  # between two records, so that whoever reads has gone to sleep
_BATCH_BYTES = 65_536
_AT_MS = 1_767_225_600_000


def values_of(count: int) -> list[bytes | None]:
    """So many values, all different."""
    return [number.to_bytes(8, "big") + bytes(VALUE_BYTES - 8) for number in range(count)]


def encoded(values: list[bytes | None]) -> list[bytearray]:
    """Batches of them, as a producer makes them."""
    made: list[bytearray] = []
    index = 0
    while index < len(values):
        batch, index = encode_columns(values, start=index, timestamps_ms=_AT_MS, batch_bytes=_BATCH_BYTES)
        made.append(batch)
    return made


def encode_floor(setting: Setting) -> Values:
    """The compiled codec makes batches of what is in a list."""
    values = values_of(setting.small)
    with Stopwatch() as watch:
        encoded(values)
    return watch.values(setting.small)


def decode_floor(setting: Setting) -> Values:
    """The compiled codec takes them apart, and each value is looked at."""
    data = b"".join(encoded(values_of(setting.small)))
    size = 0
    with Stopwatch() as watch:
        for _, batch in batches(data):
            for record in decode(batch):
                size += len(record.value or b"")
    assert size == setting.small * VALUE_BYTES
    return watch.values(setting.small)


def send(setting: Setting) -> Values:
    """One call for each record; in the page cache at the end."""
    values = values_of(setting.small)
    with _new_log(setting, "send") as log, log.producer(acks=1) as producer:
        with Stopwatch() as watch:
            for value in values:
                producer.send(_TOPIC, value)
            producer.flush()
        _all_there(log, setting)
    return watch.values(setting.small)


def send_many(setting: Setting) -> Values:
    """One call for all; on disk at the end."""
    values = values_of(setting.small)
    with _new_log(setting, "send-many") as log, log.producer(acks="all") as producer:
        with Stopwatch() as watch:
            producer.send_many(_TOPIC, values)
            producer.flush()
        _all_there(log, setting)
    return watch.values(setting.small)


def consume(setting: Setting) -> Values:
    """Batches from the page cache, CRC checked, and each value is looked at."""
    with _new_log(setting, "consume") as log:
        with log.producer(acks=1) as producer:
            producer.send_many(_TOPIC, values_of(setting.small))
        size = 0
        with log.consumer() as consumer:
            consumer.assign(list(log.offsets(_TOPIC)))
            with Stopwatch() as watch:
                while fetched := consumer.poll_batches():
                    for batch in fetched:
                        for record in batch.records:
                            size += len(record.value or b"")
    assert size == setting.small * VALUE_BYTES
    return watch.values(setting.small)


def _new_log(setting: Setting, name: str) -> Log:
    directory = Path(setting.directory, "clients", name)
    shutil.rmtree(directory, ignore_errors=True)
    log = Log.open(str(directory))
    log.create_topic(_TOPIC)
    return log


def _all_there(log: Log, setting: Setting) -> None:
    assert list(log.offsets(_TOPIC).values()) == [setting.small]


# ---- waking up


def wake_one(setting: Setting) -> Values:
    """Until a waiting consumer has the record, acks=1."""
    return _wake(setting, 1)


def wake_all(setting: Setting) -> Values:
    """The same with acks="all", whose consumer need not wait for the disk, and until the producer has its answer."""
    return _wake(setting, "all")


def wake_floor(setting: Setting) -> Values:
    """The same between two threads with a list and a condition variable."""
    box: list[int] = []
    changed = threading.Condition()

    def receive() -> list[int]:
        with changed:
            while not box:
                changed.wait()
            got = box[:]
            box.clear()
        return got

    def give(sent_ns: int) -> None:
        with changed:
            box.append(sent_ns)
            changed.notify()

    return latencies(setting.waits, receive, give)


def _wake(setting: Setting, acks: Acks) -> Values:
    with _new_log(setting, f"wake-{acks}") as log, log.producer(acks=acks, linger_ms=0) as producer:
        consumer = log.consumer()
        consumer.assign(list(log.offsets(_TOPIC)))
        answers: list[float] = []

        def receive() -> list[int]:
            fetched = consumer.poll_batches(timeout=60.0)
            return [int.from_bytes(record.value or b"", "big") for batch in fetched for record in batch.records]

        def give(sent_ns: int) -> None:
            producer.send(_TOPIC, sent_ns.to_bytes(8, "big")).result()
            answers.append((time.perf_counter_ns() - sent_ns) / 1e6)

        values = latencies(setting.waits, receive, give)
        consumer.close()
    return {**values, ACK: percentile(answers, 0.5)}


def latencies(count: int, receive: Callable[[], list[int]], give: Callable[[int], None]) -> Values:
    """See `timed`: in the middle, and what a hundredth of them exceeds."""
    found = timed(count, receive, give)
    return {P50: percentile(found, 0.5), P99: percentile(found, 0.99)}


def timed(count: int, receive: Callable[[], list[int]], give: Callable[[int], None]) -> list[float]:
    """Milliseconds from before `give` to after the `receive` that returns it, in another thread."""
    found: list[float] = []

    def reader() -> None:
        while len(found) < count:
            sent = receive()
            now_ns = time.perf_counter_ns()
            found.extend((now_ns - sent_ns) / 1e6 for sent_ns in sent)

    thread = threading.Thread(target=reader)
    thread.start()
    for _ in range(count):
        time.sleep(_PAUSE_S)
        give(time.perf_counter_ns())
    thread.join()
    return found
