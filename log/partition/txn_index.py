"""Entries of a `.txnindex` file as bytes: the aborted transactions whose markers stand in a segment. Pure functions.

1. An entry has 34 bytes: version 0, producer id, first offset, last offset (the marker's), last stable offset.
2. Entries stand in the order of their markers, so last offsets rise.
3. `last_stable_offset` is what it was just after the marker: a reader that ends at or below it need not look further,
   as every transaction that begins before it has ended by then.

Not here: when they are written (`segment`), who asks (`stability`). Format: docs/log_format.md, after Kafka's
AbortedTxn and TransactionIndex.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from tailrace.log.codec import Data

VERSION: Final = 0
ENTRY: Final = struct.Struct(">hqqqq")
ENTRY_BYTES: Final = ENTRY.size
assert ENTRY_BYTES == 34


class AbortedEntry(NamedTuple):
    """An aborted transaction; `last_offset` is its marker's."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


def pack(entries: Iterable[AbortedEntry]) -> bytes:
    """The entries as they stand in the file."""
    return b"".join(ENTRY.pack(VERSION, *each) for each in entries)


def unpack(data: Data) -> list[AbortedEntry]:
    """The entries up to the first that is none: another version, or offsets that do not rise.

    A marker stands behind what it aborts, so zeros are no entry: a crash may leave a page of them at the end.
    """
    entries: list[AbortedEntry] = []
    last = -1
    for version, *numbers in ENTRY.iter_unpack(memoryview(data)[: len(data) // ENTRY_BYTES * ENTRY_BYTES]):
        entry = AbortedEntry(*numbers)
        if version != VERSION or not 0 <= entry.first_offset < entry.last_offset or entry.last_offset <= last:
            break
        entries.append(entry)
        last = entry.last_offset
    return entries
