"""What the floors read: a partition's bytes as they stand in its files, with nothing of the log between."""

import os
from collections.abc import Iterator
from pathlib import Path

from tailrace.log.codec import HEADER_BYTES, batches

READ_BYTES = 1 << 20


def pieces(log: str, topic: str, partition: int = 0) -> Iterator[bytes]:
    """The bytes of one partition, in pieces of 1 MiB that begin with a batch; the last batch may be incomplete."""
    for path in sorted(Path(log, f"{topic}-{partition}").glob("*.log")):
        file = os.open(path, os.O_RDONLY)
        try:
            position = 0
            while len(piece := os.pread(file, READ_BYTES, position)) >= HEADER_BYTES:
                yield piece
                position += sum(header.size for header, _ in batches(piece))
        finally:
            os.close(file)
