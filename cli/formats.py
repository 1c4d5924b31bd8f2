"""From lines to what is sent: ndjson, csv and raw lines become values, keys and timestamps.

1. Each block of lines gives one `Rows`; a live pipe therefore waits for nothing but its own line.
2. A line that cannot be sent raises `BadLineError` with its number, after the rows before it were handed out.
3. ndjson and raw lines are sent byte for byte; a csv row becomes a JSON object of strings, named by the header row.

Keys are the field's text in UTF-8 (a JSON number as it is written); null, a missing field and an empty csv cell give a
null key. Timestamps are int milliseconds or ISO 8601; without a zone they count as UTC.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from tailrace.cli.errors import CommandError, UsageError
from tailrace.cli.lines import LINE_BYTES_MAX, Lines


class Format(StrEnum):
    """How the lines of a file are read."""

    NDJSON = "ndjson"
    CSV = "csv"
    RAW = "raw"


class Rows(NamedTuple):
    """Some records, column by column, as the producer takes them; `lines` says on which line each one ends."""

    values: list[bytes]
    lines: Sequence[int]
    keys: list[bytes | None] | None = None
    timestamps_ms: list[int] | None = None


class BadLineError(CommandError):
    """A line that cannot be sent.

    Attributes:
        line: its number, from 1.
    """

    def __init__(self, name: str, line: int, why: str) -> None:
        super().__init__(f"{name}:{line}: {why}")
        self.line = line


class Fields(NamedTuple):
    """Which fields of a row are its key and its time."""

    key: str | None = None
    timestamp: str | None = None


def format_of(path: str) -> Format:
    """Tell the format by a file's name, `.gz` aside: `.csv`; `.log` and `.txt` are raw; all else is ndjson."""
    name = path.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return Format.CSV
    return Format.RAW if name.endswith((".log", ".txt")) else Format.NDJSON


def rows_of(lines: Lines, form: Format, fields: Fields) -> Iterator[Rows]:
    """Read rows in a format.

    Raises:
        UsageError: the format has no fields, or (csv) the file has no such column.
        BadLineError: a line that cannot be sent; the rows before it have been given.
    """
    if form is Format.RAW:
        if fields != Fields():
            raise UsageError("raw lines have no fields: --key and --timestamp need --format ndjson or csv")
        return _raw(lines)
    return _ndjson(lines, fields) if form is Format.NDJSON else _csv(lines, fields)


def _raw(lines: Lines) -> Iterator[Rows]:
    before = 0
    for block in lines.blocks():
        yield Rows(block, range(before + 1, before + len(block) + 1))
        before += len(block)


# ---------------------------------------------------------------- ndjson
def _ndjson(lines: Lines, fields: Fields) -> Iterator[Rows]:
    """Check each line and take key and time out of it. Blank lines are left out.

    A block is read in one go; only where that fails it is read again line by line, to find which one it is.
    """
    read = _row_reader(fields)
    before = 0
    for block in lines.blocks():
        try:
            rows = _read_block(block, before, read)
        except (ValueError, msgspec.DecodeError):
            good, line, why = _find_bad(block, before, read)
            if good.values:
                yield good
            raise BadLineError(lines.name, before + line, why) from None
        before += len(block)
        if rows.values:
            yield rows


_Read = Callable[[list[bytes], Sequence[int]], Rows]


def _read_block(block: list[bytes], before: int, read: _Read) -> Rows:
    filled = [line for line in block if line and not line.isspace()]
    if len(filled) == len(block):
        return read(filled, range(before + 1, before + len(block) + 1))
    return read(filled, [number for number, line in enumerate(block, before + 1) if line and not line.isspace()])


def _find_bad(block: list[bytes], before: int, read: _Read) -> tuple[Rows, int, str]:
    for number, line in enumerate(block, 1):
        if not line or line.isspace():
            continue
        try:
            read([line], [number])
        except (ValueError, msgspec.DecodeError) as error:
            return (
                _read_block(block[: number - 1], before, read),
                number,
                f"{error} (ndjson: one JSON value per line; --format raw sends lines as they are)",
            )
    raise AssertionError("the block was refused, its lines are not")


def _row_reader(fields: Fields) -> _Read:
    """Make the function that checks lines and takes their key and time; fields not asked for are skipped unread."""
    wanted = [(name, msgspec.Raw, msgspec.Raw(b"null")) for name, field in fields._asdict().items() if field]
    rename = {name: field for name, field in fields._asdict().items() if field}
    # Only the fields asked for are decoded: the check of all others is a skip over their bytes.
    decode = msgspec.json.Decoder(msgspec.defstruct("Row", wanted, rename=rename) if wanted else msgspec.Raw).decode

    def read(block: list[bytes], numbers: Sequence[int]) -> Rows:
        b"\n".join(block).decode()  # the decoder does not look inside strings that it skips
        rows: list[Any] = [decode(line) for line in block]
        keys = [_json_key(bytes(row.key)) for row in rows] if fields.key else None
        times = [_json_time(bytes(row.timestamp), fields.timestamp) for row in rows] if fields.timestamp else None
        return Rows(block, numbers, keys, times)

    return read


def _json_key(raw: bytes) -> bytes | None:
    if raw[:1] == b'"':
        return raw[1:-1] if b"\\" not in raw else str(msgspec.json.decode(raw)).encode()
    if raw == b"null":
        return None
    if raw[:1] in {b"{", b"["}:
        raise ValueError(f"the key must be a text or a number, this one is {raw[:40].decode(errors='replace')}…")
    return raw


def _json_time(raw: bytes, field: str) -> int:
    value = msgspec.json.decode(raw)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        return _time_ms(value, field)
    raise ValueError(f"{field} must be milliseconds or ISO 8601, this one is {raw[:40].decode(errors='replace')}")


def _time_ms(text: str, field: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{field} must be milliseconds or ISO 8601, this one is {text[:40]!r}") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp() * 1000)


# ---------------------------------------------------------------- csv
def _csv(lines: Lines, fields: Fields) -> Iterator[Rows]:
    """Read rows under a header; a quoted field may hold newlines, across blocks too."""
    csv.field_size_limit(LINE_BYTES_MAX)
    text = _Text(lines)
    reader = csv.reader(text, strict=True)
    table: _Table | None = None
    failure: BadLineError | None = None
    more = True
    while more and not failure:
        try:
            row = next(reader, None)
            more = row is not None
            if row and table is None:
                table = _Table(row, fields, lines.name)
            elif row and table:
                table.add(row, reader.line_num)
        except (csv.Error, ValueError) as error:
            failure = BadLineError(lines.name, reader.line_num, f"{error} (csv: a header row, then one row per record)")
        if table and table.values and (text.drained or failure or not more):
            yield table.take()
    if failure:
        raise failure


class _Text:
    """Lines as text for the csv reader, which asks for the next one only when a row is not whole."""

    def __init__(self, lines: Lines) -> None:
        self.drained = False
        self._lines = self._read(lines)

    def __iter__(self) -> "_Text":
        return self

    def __next__(self) -> str:
        return next(self._lines)

    def _read(self, lines: Lines) -> Iterator[str]:
        for block in lines.blocks():
            last = len(block) - 1
            for number, line in enumerate(block):
                self.drained = number == last
                yield line.decode() + "\n"


class _Table:
    """The rows under a header, gathered until they are taken."""

    def __init__(self, header: list[str], fields: Fields, name: str) -> None:
        for option, field in fields._asdict().items():
            if field and field not in header:
                raise UsageError(f"{name} has no column {field} for --{option}; its columns are {', '.join(header)}")
        doubled = {column for column in header if header.count(column) > 1}
        if doubled:
            raise CommandError(f"{name} names the column {min(doubled)!r} twice: a JSON object cannot hold both")
        self.values: list[bytes] = []
        self._header = header
        self._fields = fields
        self._encode = msgspec.json.Encoder().encode
        self._keys: list[bytes | None] = []
        self._times: list[int] = []
        self._lines: list[int] = []

    def add(self, row: list[str], line: int) -> None:
        if len(row) != len(self._header):
            raise ValueError(f"{len(row)} fields under a header of {len(self._header)}")
        cells = dict(zip(self._header, row, strict=True))
        if self._fields.timestamp:
            self._times.append(_time_ms(cells[self._fields.timestamp], self._fields.timestamp))
        if self._fields.key:
            self._keys.append(cells[self._fields.key].encode() or None)
        self.values.append(self._encode(cells))
        self._lines.append(line)

    def take(self) -> Rows:
        keys, times = self._keys if self._fields.key else None, self._times if self._fields.timestamp else None
        rows = Rows(self.values, self._lines, keys, times)
        self.values, self._keys, self._times, self._lines = [], [], [], []
        return rows
