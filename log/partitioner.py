"""Which partition of a topic a record goes to, as Kafka's own producer chooses it.

1. A key always goes to the same partition of a topic whose partition count stays, whoever wrote it: murmur2 of the
   key's bytes, without the sign bit, modulo the count. Other programs that write the topic land in the same partitions.
2. Records without key stay in one partition until its batch is full, then go to the next: full batches, even load.

Source: `Utils.murmur2` and `BuiltInPartitioner` of Kafka 4.3.
"""

import struct
from functools import lru_cache
from typing import Final

KEYS_MAX: Final = 65_536  # remembered per topic: at about 120 bytes each some 8 MB, then begun anew

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


@lru_cache(maxsize=64)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 of `data`, as an unsigned number."""
    length = len(data)
    h = _SEED ^ length
    count = length >> 2
    for word in _words(count).unpack_from(data):
        k = (word * _M) & _MASK
        k = ((k ^ (k >> 24)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    rest = length & 3
    if rest:
        h ^= int.from_bytes(data[length - rest :], "little")
        h = (h * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class Partitioner:
    """The choice for one topic of `partitions` partitions, for one producer.

    `known` is key -> partition as far as it is remembered: murmur2 costs up to 3 µs in Python, a dict 0.05. A hot loop
    may look a key up in it and call `remember` for those that are missing.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.known: dict[bytes, int] = {}
        self.sticky = 0

    def grow(self, partitions: int) -> None:
        """Chooses among so many from now on: most keys go to another one then, as with Kafka's producer."""
        self.partitions = partitions
        self.known.clear()

    def of(self, key: bytes | None) -> int:
        """The partition of one record; `key=None` gives the one that null keys stay in for now."""
        if key is None:
            return self.sticky
        partition = self.known.get(key)
        return self.remember(key) if partition is None else partition

    def remember(self, key: bytes) -> int:
        """Works a key's partition out and keeps it."""
        if len(self.known) >= KEYS_MAX:
            self.known.clear()
        partition = self.known[bytes(key)] = partition_of(key, self.partitions)
        return partition

    def batch_full(self, partition: int) -> None:
        """Null keys go on in the next partition, if `partition` is where they are."""
        if partition == self.sticky:
            self.sticky = (partition + 1) % self.partitions
