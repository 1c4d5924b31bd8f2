"""Short ways to a partition, its batches and its records, for the tests of storage."""

from tailrace.log import codec
from tailrace.log.clock import Clock, ManualClock
from tailrace.log.disk import Disk
from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig

TP = TopicPartition("clicks", 0)
FOLDER = "/log/clicks-0"
NOW_MS = 1_700_000_000_000
Rows = list[tuple[int, bytes | None]]


def opened(
    disk: Disk,
    config: TopicConfig | None = None,
    *,
    clock: Clock | None = None,
    directory: str = FOLDER,
    recovery_point: int = 0,
    log_start_offset: int = 0,
    read_only: bool = False,
) -> Partition:
    """A partition with defaults for everything."""
    return Partition.open(
        disk,
        clock or ManualClock(NOW_MS),
        directory,
        TP,
        config or TopicConfig(),
        recovery_point=recovery_point,
        log_start_offset=log_start_offset,
        read_only=read_only,
    )


def a_batch(*values: bytes, timestamp_ms: int = NOW_MS, compression: int = codec.NONE) -> bytearray:
    """One batch of values without keys, all of one time."""
    return codec.encode([(None, value, timestamp_ms, ()) for value in values], compression)


def at_times(*timestamps_ms: int) -> bytearray:
    """One batch with a record for each time."""
    return codec.encode([(None, b"value", each, ()) for each in timestamps_ms])


def rows_of(data: codec.Data, offset: int = 0) -> Rows:
    """Offsets and values from `offset` on."""
    return [
        (record.offset, record.value)
        for _, batch in codec.batches(data)
        for record in codec.decode(batch)
        if record.offset >= offset
    ]


def read_all(partition: Partition, max_bytes: int = 10_000) -> Rows:
    """Everything from the log start to the log end, in as many reads as it takes; CRCs checked."""
    out: Rows = []
    offset = partition.log_start_offset
    while data := partition.read(offset, max_bytes):
        for header, batch in codec.batches(data):
            codec.check_crc(batch, file="", position=0)
            out += [(record.offset, record.value) for record in codec.decode(batch) if record.offset >= offset]
            offset = header.next_offset
    return out
