"""The markers that end a transaction in a partition: control batches of one record, as bytes. Pure functions.

1. A marker is a batch of its own, with the producer's id and epoch and no sequence; both control and transactional bit
   are set.
2. Control records of other kinds (a new leader, a snapshot) are no markers, and mean nothing to a partition.

Not here: what a marker does (`producers`). Format: docs/log_format.md, after Kafka's ControlRecordType and
EndTxnMarker.
"""

import struct
from typing import Final, NamedTuple

from tailrace.log import codec
from tailrace.log.codec import Data

VERSION: Final = 0
ABORT: Final = 0
COMMIT: Final = 1
_KEY: Final = struct.Struct(">hh")  # version, type
_VALUE: Final = struct.Struct(">hi")  # version, coordinator epoch


class Marker(NamedTuple):
    """What a marker says beside its producer: the decision, and which coordinator wrote it."""

    committed: bool
    coordinator_epoch: int


def encode_marker(producer_id: int, producer_epoch: int, marker: Marker, *, timestamp_ms: int) -> bytearray:
    """A marker as a batch, to be appended."""
    batch = codec.encode(
        [
            (
                _KEY.pack(VERSION, COMMIT if marker.committed else ABORT),
                _VALUE.pack(VERSION, marker.coordinator_epoch),
                timestamp_ms,
                (),
            )
        ],
        transactional=True,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
    )
    codec.set_control(batch)
    return batch


def decode_marker(batch: Data) -> Marker | None:
    """What a control batch says; None where it ends no transaction. Its CRC was checked before."""
    for record in codec.decode(batch):
        kind = codec.control_type(record)
        value = record.value
        if kind in {ABORT, COMMIT}:
            epoch = int(_VALUE.unpack_from(value)[1]) if value is not None and len(value) >= _VALUE.size else -1
            return Marker(kind == COMMIT, epoch)
    return None
