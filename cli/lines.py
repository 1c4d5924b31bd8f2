"""Reading lines out of a file, a `.gz`, or stdin, in blocks.

1. A block is what one read gave, cut at its last newline: a live pipe is handed on at once, a file in large pieces.
2. Memory is bounded by a block and one line; a line longer than `LINE_BYTES_MAX` is refused.
3. gzip is known by its first two bytes, whatever the name.

Not here: what a line means (formats.py).
"""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, Self, cast

from tailrace.cli.errors import CommandError, NotFoundError

BLOCK_BYTES = 256 * 1024
LINE_BYTES_MAX = 64 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class Lines:
    """The lines of one input.

    Attributes:
        name: for messages: the path, or `stdin`.
        total_bytes: the size on disk, compressed if it is; None for a pipe.
    """

    def __init__(self, raw: BinaryIO, name: str, total_bytes: int | None) -> None:
        self.name = name
        self.total_bytes = total_bytes
        self._raw = raw
        buffered = cast("io.BufferedReader", raw)
        zipped = buffered.peek(2)[:2] == _GZIP_MAGIC
        self._data: _Readable = gzip.GzipFile(fileobj=raw) if zipped else buffered

    @classmethod
    def open(cls, path: str) -> Self:
        """Open a file, or stdin for `-`.

        Raises:
            NotFoundError: there is no such file.
        """
        if path == "-":
            return cls(sys.stdin.buffer, "stdin", None)
        try:
            raw = Path(path).open("rb")  # noqa: SIM115 - closed by close()
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {path}") from None
        return cls(raw, path, Path(path).stat().st_size or None)

    @property
    def position(self) -> int:
        """How many bytes were taken from the file itself; 0 for a pipe."""
        return self._raw.tell() if self.total_bytes is not None else 0

    def blocks(self) -> Iterator[list[bytes]]:
        """Give the lines without their newlines, as many at a time as one read made whole."""
        rest: list[bytes] = []
        held = 0
        first = True
        while data := self._read():
            if first:
                data, first = data.removeprefix(_BYTE_ORDER_MARK), False
            head, newline, tail = data.rpartition(b"\n")
            if newline:
                yield b"".join((*rest, head)).split(b"\n")
                rest, held = [], 0
            rest.append(tail)
            held += len(tail)
            if held > LINE_BYTES_MAX:
                raise CommandError(
                    f"{self.name} holds a line of more than {LINE_BYTES_MAX:,} bytes; is it text at all?"
                )
        if held:
            yield [b"".join(rest)]

    def _read(self) -> bytes:
        try:
            return self._data.read1(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CommandError(f"{self.name} is a damaged gzip file: {error}; what came before is read") from error

    def close(self) -> None:
        """Close a file; stdin stays open, it is the process's."""
        if self.total_bytes is not None or self.name != "stdin":
            self._raw.close()
