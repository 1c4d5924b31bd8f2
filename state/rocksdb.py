"""A backend on RocksDB: one database per task, one column family per store, no write-ahead log.

1. A column family's rows and its checkpoint are in one memtable, so whatever a crash leaves fits the checkpoint in it,
   or runs ahead of it by rows that restoring writes again.
2. Nothing of a database outlives a call but the column families in `_keyspaces`: an iterator, a handle or a write batch
   that is alive keeps the directory locked after `close`. So ranges are read in pieces, and an iterator ends with its
   piece.
3. Column families are named `<format>:<store>`. The default one stays empty: a database in which it is not, or with
   other names, is not ours.

The write-ahead log is off because the changelog is one. Memory is bounded for the process, not for each store: give all
backends the same `RocksMemory`. Never fork a process that has a database open (it hangs): spawn.
The files are RocksDB's own affair; that is why this module, beside `log/disk.py`, looks into a directory.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    ReadOptions,
    SstFileWriter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from tailrace.log.errors import CorruptError, DiskFullError, InvalidError, TailraceError
from tailrace.state import checkpoint as checkpoints
from tailrace.state.checkpoint import Checkpoint
from tailrace.state.store import RESERVED, ROWS, Behind, Writes, WriteSet

FORMAT: Final = 1
# WriteBatch holds the GIL: 10,000 keys stop every other thread for up to 7 ms.
PIECE_ROWS: Final = 1_000
# Measured: sorting and writing a file 0.27 µs a row, write batches 0.75; below this a file is not worth its syncs.
INGEST_ROWS: Final = 10_000
# Sorted rows lie scattered in memory. Where some are looked up at once, their cache misses overlap: a fifth less time.
_GATHERED_ROWS: Final = 500
# A crash costs at most the reading of this much changelog.
FLUSH_ROWS: Final = 500_000
FLUSH_SECONDS: Final = 30.0

_CHECKPOINT = RESERVED + b"checkpoint"
_INGESTED = "ingest.sst"
_FIRST_PIECE, _LARGEST_PIECE = 16, 1_024
_FAMILY = re.compile(r"(\d+):(.*)", re.DOTALL)
_OURS = re.compile(
    r"LOCK|ingest\.sst|LOG(\.old.*)?|IDENTITY|rocksdict-config\.json|(MANIFEST|OPTIONS)-\d+(\.dbtmp)?|\d+\.(log|sst|dbtmp)"
)


class RocksMemory:
    """The memory that all databases of a process share: a block cache, and a budget for what is not flushed yet.

    `cache_bytes` bounds blocks read from files, their indexes and filters; at `write_buffer_bytes` of unflushed rows
    the database that holds the most begins to flush. The caches of the stores themselves come on top.
    """

    def __init__(self, cache_bytes: int = 64 << 20, write_buffer_bytes: int = 64 << 20) -> None:
        self.cache = Cache(cache_bytes)
        self.write_buffers = WriteBufferManager(write_buffer_bytes, False)

    def options(self) -> Options:
        """The settings of a database and of each of its column families."""
        table = BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        table.set_bloom_filter(10, False)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self.write_buffers)
        options.set_compression_type(DBCompressionType.lz4())
        # Most gets of a new key miss: the filter spares them the skip list.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(0.05)
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_stats_dump_period_sec(0)
        options.set_skip_stats_update_on_db_open(True)
        return options


class RocksKeyspace:
    """One column family."""

    def __init__(self, backend: "RocksBackend", name: str, family: Rdict) -> None:
        self.name = name
        self._backend = backend
        self._family: Rdict | None = family
        self._unflushed_rows = 0
        self._unflushed_since = 0.0
        self._behind: Behind | None = None
        """Has rows that the store keeps back."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of `key`, or None."""
        with self._backend.reading:
            found: bytes | None = self._open().get(key)
        return found

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        """The values of `keys`, read together."""
        with self._backend.reading:
            found: list[bytes | None] | None = self._open().get(list(keys))
        return found or []

    def range(self, low: bytes, high: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows with low <= key < high, read in growing pieces; each piece sees what was written before it."""
        size = _FIRST_PIECE
        while piece := self._piece(low, high, size, reverse=reverse):
            yield from piece
            if len(piece) < size:
                return
            low, high = (low, piece[-1][0]) if reverse else (piece[-1][0] + b"\x00", high)
            size = min(4 * size, _LARGEST_PIECE)

    def first(self, low: bytes, high: bytes | None, *, reverse: bool = False) -> tuple[bytes, bytes] | None:
        """The first row of the range, or the last, by one seek."""
        piece = self._piece(low, high, 1, reverse=reverse)
        return piece[0] if piece else None

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint written last; None where there is none, or one of another version."""
        data = self.get(_CHECKPOINT)
        return None if data is None else checkpoints.decode(data)

    def clear(self) -> None:
        """Remove every row and the checkpoint: the column family is dropped and made anew."""
        self._open()
        self._family = None
        self._family = self._backend.renewed(self.name)
        self._unflushed_rows, self._behind = 0, None

    def apply(self, writes: Writes) -> None:
        """Write what the store has not kept back."""
        if self._unflushed_rows == 0 and self._behind is None:
            self._unflushed_since = self._backend.monotonic()
        self._behind = writes.behind
        if writes.rows or writes.ranges or writes.checkpoint is not None:
            self._write(writes)

    def _write(self, writes: Writes) -> None:
        """Write in pieces, the checkpoint in the last: a crash between them leaves rows that will be written again."""
        family, (database, options) = self._open(), self._backend.writing()
        handle = database.get_column_family_handle(self._backend.family_name(self.name))
        begin, count = 0, len(writes.rows)
        while True:
            batch = WriteBatch(raw_mode=True)
            batch.set_default_column_family(handle)
            if begin == 0:
                for low, high in writes.ranges:
                    batch.delete_range(low, high, handle)  # it does not know the default one
            put, delete = batch.put, batch.delete
            for key, value in islice(writes.rows, begin, begin + PIECE_ROWS):
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            begin += PIECE_ROWS
            if begin >= count and writes.checkpoint is not None:
                put(_CHECKPOINT, checkpoints.encode(writes.checkpoint))
            family.write(batch, options)
            if begin >= count:
                break
        self._unflushed_rows += max(count, 1)

    def ingest(self, path: str) -> None:
        """Take a sorted file over: its rows replace older ones, and are on disk."""
        options = IngestExternalFileOptions()
        options.set_move_files(True)
        self._open().ingest_external_file([path], options)

    def flush(self, *, wait: bool) -> None:
        """Write what was kept back, and the memtable to a file; with `wait`, return when it is on disk."""
        if self._behind is not None:
            self._settle(self._behind)
        if self._unflushed_rows or wait:
            self._open().flush(wait)
            self._unflushed_rows = 0

    def _settle(self, behind: Behind) -> None:
        """Take what a store has kept back: as a sorted file where it is much, which holds the interpreter less."""
        writes, self._behind = behind.settle(), None
        if len(writes.rows) < INGEST_ROWS or writes.checkpoint is None:
            self.apply(writes)
            return
        # Before the file, which is on disk at once: what was deleted since must not come back beside its checkpoint.
        self._open().flush(True)
        self._backend.ingest(self.name, dict(writes.rows), writes.checkpoint)
        self._unflushed_rows = 0

    def due(self) -> bool:
        """Whether so much, or anything for so long, is unflushed that a crash would cost a long restore."""
        rows, behind = self._unflushed_rows, self._behind
        if behind is not None:
            rows += max(behind.behind, 1)  # if only a checkpoint
        return rows >= FLUSH_ROWS or (rows > 0 and self._backend.monotonic() - self._unflushed_since >= FLUSH_SECONDS)

    def release(self) -> None:
        """Let go of the column family: the database stays locked while one is held."""
        self._family = None

    def _open(self) -> Rdict:
        if self._family is None:
            raise InvalidError(f"store {self.name} was used after it had been closed; use it only while its task runs")
        return self._family

    def _piece(self, low: bytes, high: bytes | None, size: int, *, reverse: bool) -> list[tuple[bytes, bytes]]:
        low = max(low, ROWS)
        if high is not None and high <= low:
            return []
        with self._backend.reading:
            return self._read(low, high, size, reverse=reverse)

    def _read(self, low: bytes, high: bytes | None, size: int, *, reverse: bool) -> list[tuple[bytes, bytes]]:
        options = ReadOptions()
        if high is not None:
            options.set_iterate_upper_bound(high)
        items = self._open().items(backwards=reverse, from_key=high if reverse else low, read_opt=options)
        piece = cast("list[tuple[bytes, bytes]]", list(islice(items, size)))
        if len(piece) < size:
            self._check_end(piece, low, high, reverse=reverse)
        if reverse:
            # Not by a bound of RocksDB: rocksdict 0.3.29 takes a lower bound for an upper one.
            while piece and piece[-1][0] < low:
                piece.pop()
        return piece

    def _check_end(self, piece: list[tuple[bytes, bytes]], low: bytes, high: bytes | None, *, reverse: bool) -> None:
        # An iterator of rocksdict ends at a damaged block as if the rows ended there (tried: 108 rows of 5,000, and no
        # error). The lower interface has the status: seek to the first row that is not in the piece.
        rows = self._open().iter()
        last = piece[-1][0] if piece else None
        if not reverse:
            rows.seek(low if last is None else last + b"\x00")
        elif last is None and high is None:
            rows.seek_to_last()
        else:
            bound = high if last is None else last
            rows.seek_for_prev(cast("bytes", bound))
            if rows.valid() and rows.key() == bound:
                rows.prev()
        rows.status()


class RocksBackend:
    """The stores of one task in the directory `path` (made if missing, its parents too).

    `memory` is the process's; `monotonic` gives seconds. Raises CorruptError for a directory that holds something else
    or damaged files, InvalidError for one that is open already.
    """

    def __init__(self, path: str, memory: RocksMemory, monotonic: Callable[[], float]) -> None:
        self.path = path
        self.monotonic = monotonic
        self.reading = _Naming(path, "read")
        self._memory = memory
        self._keyspaces: dict[str, RocksKeyspace] = {}
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True  # type: ignore[method-assign,assignment]  # a property
        families = _families(path)
        self._database: Rdict | None = _opened(path, memory, families)
        if set(families) <= {"default"} and self._database.latest_sequence_number() > 0:
            self._database.close()
            self._database = None
            raise _foreign(path, "rows outside every store")
        self._known = set(families)

    def keyspace(self, name: str) -> RocksKeyspace:
        """Open the column family of a store, made if it is missing."""
        keyspace = self._keyspaces.get(name)
        if keyspace is None:
            keyspace = self._keyspaces[name] = RocksKeyspace(self, name, self._family(name))
        return keyspace

    def write(self, writes: WriteSet) -> None:
        """Apply a commit, and start to flush what is due. Raises DiskFullError, else TailraceError with the words."""
        with _Naming(self.path, "write"):
            for name, changes in writes.keyspaces.items():
                self.keyspace(name).apply(changes)
        self.flush_if_due()

    def ingest(self, keyspace: str, rows: dict[bytes, bytes | None], checkpoint: Checkpoint) -> None:
        """Write many rows with their checkpoint, as one sorted file where that pays. Raises as `write`."""
        if len(rows) < INGEST_ROWS:
            writes = WriteSet()
            writes.of(keyspace).put_all(rows)
            writes.of(keyspace).checkpoint = checkpoint
            self.write(writes)
            return
        with _Naming(self.path, "write"):
            path = str(Path(self.path, _INGESTED))
            table = SstFileWriter(self._memory.options())
            table.open(path)
            table[_CHECKPOINT] = checkpoints.encode(checkpoint)  # The first key of all.
            keys, value_of = sorted(rows), rows.__getitem__
            for first in range(0, len(keys), _GATHERED_ROWS):
                piece = keys[first : first + _GATHERED_ROWS]
                for key, value in zip(piece, list(map(value_of, piece)), strict=True):
                    if value is None:
                        del table[key]
                    else:
                        table[key] = value
            table.finish()
            self.keyspace(keyspace).ingest(path)

    def flush(self) -> None:
        """Return when everything written is in files and on disk."""
        with _Naming(self.path, "flush"):
            for keyspace in self._keyspaces.values():
                keyspace.flush(wait=True)

    def flush_if_due(self) -> None:
        """Start to flush, on RocksDB's own thread, what is due: for the runner's clock, where nothing is written."""
        with _Naming(self.path, "flush"):
            for keyspace in self._keyspaces.values():
                if keyspace.due():
                    keyspace.flush(wait=False)

    def close(self) -> None:
        """Flush, and let go of the directory and its lock."""
        if self._database is not None:
            try:
                self.flush()
            finally:
                self._release()

    def destroy(self) -> None:
        """Close without flushing and remove the directory's files."""
        self._release()
        Rdict.destroy(self.path, Options(raw_mode=True))

    def family_name(self, name: str) -> str:
        """The column family of a store."""
        return f"{FORMAT}:{name}"

    def writing(self) -> tuple[Rdict, WriteOptions]:
        """The database, and how to write to it."""
        return self._opened_database(), self._write_options

    def renewed(self, name: str) -> Rdict:
        """The column family of a store, dropped and made anew."""
        self._opened_database().drop_column_family(self.family_name(name))
        self._known.discard(self.family_name(name))
        return self._family(name)

    def _family(self, name: str) -> Rdict:
        database, family = self._opened_database(), self.family_name(name)
        if family in self._known:
            return database.get_column_family(family)
        self._known.add(family)
        return database.create_column_family(family, self._memory.options())

    def _opened_database(self) -> Rdict:
        if self._database is None:
            raise InvalidError(f"the state in {self.path} was used after it had been closed; open it again")
        return self._database

    def _release(self) -> None:
        for keyspace in self._keyspaces.values():
            keyspace.release()
        if self._database is not None:
            with _Naming(self.path, "close"):
                self._database.close()
            self._database = None


def _families(path: str) -> list[str]:
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in directory.iterdir()}
    strange = sorted(name for name in names if name != "CURRENT" and not _OURS.fullmatch(name))
    if strange:
        raise _foreign(path, f"{strange[0]!r}")
    if "CURRENT" not in names:
        return []
    with _Naming(path, "open"):
        families = Rdict.list_cf(path, Options(raw_mode=True))
    for family in families:
        match = _FAMILY.fullmatch(family)
        if family != "default" and match is None:
            raise _foreign(path, f"a column family {family!r}")
        if match is not None and int(match[1]) != FORMAT:
            raise _foreign(path, f"a store {match[2]!r} of format {match[1]}, and this version knows format {FORMAT}")
    return families


def _opened(path: str, memory: RocksMemory, families: list[str]) -> Rdict:
    with _Naming(path, "open"):
        return Rdict(path, memory.options(), column_families={f: memory.options() for f in families if f != "default"})


class _Naming:
    """Within its block, RocksDB's errors (all of one class) become ours, with the directory's name."""

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, TailraceError):
            raise _failed(self._path, self._what, error) from error


def _foreign(path: str, found: str) -> CorruptError:
    return CorruptError(
        f"state directory {path} holds {found}: it is not state that this version wrote; give the app another "
        "state_dir, or delete the directory (state is rebuilt from the changelogs)",
        file=path,
        position=-1,
        expected=f"state of format {FORMAT}",
        found=found,
    )


def _failed(path: str, what: str, error: Exception) -> TailraceError:
    """RocksDB's errors come as one class; what the caller must do is in their text."""
    words = " ".join(str(error).split())  # it has line ends now and then
    if "lock hold by current process" in words or "While lock file" in words:
        return InvalidError(
            f"state directory {path} is open already, in this process or another ({words}); stop that one, or give "
            "this app another state_dir"
        )
    if "No space left" in words:
        return DiskFullError(f"no room to {what} the state in {path} ({words}); make room and start the app again")
    if "comparator" in words:
        return _foreign(path, f"another program's database ({words})")
    if "Corruption" in words or "No such file" in words:
        return CorruptError(
            f"state directory {path} cannot be read ({words}); delete it: state is rebuilt from the changelogs",
            file=path,
            position=-1,
            found=words,
        )
    return TailraceError(f"could not {what} the state in {path}: {words}")
