"""Rows of two sides by key, next to each other, in memory that does not grow with their number.

1. A key belongs to one of PARTS parts, by a hash of its bytes; so does it on the other side.
2. What is taken is held in memory, by part. When that comes to `bytes_max`, all of it goes to a scratch file, a block
   for each part and side, and is forgotten. Blocks are read in the order in which they were written.
3. When all is taken, parts are looked at one after the other. One that is too large itself is parted once more, by
   other bits of the hash, as often as there are any.
4. The file has no name once it is open: whatever ends the process, nothing is left of it.

Not here: what rows are and how they are compared (difference).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from tailrace.log.disk import Disk, File, join

_BITS: Final = 6
PARTS: Final = 1 << _BITS
MASK: Final = PARTS - 1
# Of a hash of 32 bits: as often as there are bits for it.
_LEVELS: Final = 5
# What an entry costs beside the bytes of its key and its value, about.
_ENTRY_BYTES: Final = 170

Rows = dict[bytes, Any]
Merge = Callable[[Rows, Rows], None]
"""Adds rows that came later to those of before."""

_encode: Final = msgspec.msgpack.Encoder().encode


class _Block(NamedTuple):
    """Where rows stand in the scratch file."""

    position: int
    size: int
    rows: int


class Scratch(AbstractContextManager["Scratch"]):
    """A file for blocks of rows, made when the first one comes."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._file: File | None = None

    def __exit__(self, *_: object) -> None:
        """Gives its room back."""
        if self._file is not None:
            self._file.close()

    def write(self, rows: Rows) -> _Block:
        """Returns where they are; raises DiskFullError where there is no room."""
        if self._file is None:
            self._disk.mkdir(self._directory)
            path = join(self._directory, f".compare-{threading.get_ident()}")
            self._file = self._disk.open(path, write=True)
            self._disk.remove(path)
        data = _encode(rows)
        return _Block(self._file.append(data), len(data), len(rows))

    def read(self, block: _Block) -> bytes:
        """What was written there."""
        assert self._file is not None
        return self._file.read(block.position, block.size)


class Side:
    """Rows of one side. `held` has those in memory, by part; whoever takes rows puts them there."""

    def __init__(self, scratch: Scratch, kind: Any, merge: Merge, level: int = 0) -> None:
        """`kind` is the type of rows, for msgspec."""
        self.held: list[Rows] = [{} for _ in range(PARTS)]
        self._scratch = scratch
        self._kind = kind
        self._decode: Callable[[bytes], Rows] = msgspec.msgpack.Decoder(kind).decode
        self._merge = merge
        self._level = level
        self._blocks: list[list[_Block]] = [[] for _ in range(PARTS)]

    def __len__(self) -> int:
        """How many rows are in memory."""
        return sum(map(len, self.held))

    def put_away(self) -> None:
        """Writes all that is in memory, and forgets it."""
        for rows, blocks in zip(self.held, self._blocks, strict=True):
            if rows:
                blocks.append(self._scratch.write(rows))
                rows.clear()

    def cost(self, part: int) -> int:
        """What the blocks of a part would come to in memory, in bytes, at most."""
        return sum(block.rows * _ENTRY_BYTES + block.size for block in self._blocks[part])

    def rows(self, part: int) -> Rows:
        """All of a part, which this side has no more then."""
        found: Rows = {}
        for _, more in self._take(part):
            self._merge(found, more)
        return found

    def parted(self, part: int, bytes_max: int) -> "Side":
        """The rows of a part, by the next bits of the hash."""
        other = Side(self._scratch, self._kind, self._merge, self._level + 1)
        shift = other._level * _BITS
        cost = 0
        for size, more in self._take(part):
            for key, row in more.items():
                self._merge(other.held[crc32(key) >> shift & MASK], {key: row})
            cost += size + len(more) * _ENTRY_BYTES
            if cost > bytes_max:
                other.put_away()
                cost = 0
        return other

    def _take(self, part: int) -> Iterator[tuple[int, Rows]]:
        """The rows of a part block by block, with the size of each, in the order in which they came."""
        blocks, self._blocks[part] = self._blocks[part], []
        held, self.held[part] = self.held[part], {}
        for block in blocks:
            yield block.size, self._decode(self._scratch.read(block))
        yield 0, held


class SideBySide:
    """Two sides of rows of one kind; see the module's docstring."""

    def __init__(self, scratch: Scratch, kind: Any, merge: Merge, bytes_max: int) -> None:
        self.sides = Side(scratch, kind, merge), Side(scratch, kind, merge)
        self._bytes_max = bytes_max
        self._rows = self._bytes = 0

    def took(self, rows: int, each_bytes: int) -> None:
        """Hears that so many rows were put into a side, of so many bytes each, and makes room where it is time."""
        self._rows += rows
        self._bytes += rows * each_bytes
        if self._rows * _ENTRY_BYTES + self._bytes > self._bytes_max:
            # Of what was taken, later rows have replaced earlier ones.
            each_bytes = self._bytes // self._rows
            self._rows = sum(map(len, self.sides))
            if self._rows * (_ENTRY_BYTES + each_bytes) > self._bytes_max // 2:
                for side in self.sides:
                    side.put_away()
                self._rows = 0
            self._bytes = self._rows * each_bytes

    def pairs(self) -> Iterator[tuple[Rows, Rows]]:
        """The rows of both sides, part by part, which this has no more then."""
        yield from self._pairs(*self.sides, 0)

    def _pairs(self, one: Side, other: Side, level: int) -> Iterator[tuple[Rows, Rows]]:
        for part in range(PARTS):
            if one.cost(part) + other.cost(part) > self._bytes_max and level + 1 < _LEVELS:
                room = self._bytes_max // 2
                yield from self._pairs(one.parted(part, room), other.parted(part, room), level + 1)
            else:
                yield one.rows(part), other.rows(part)
