"""Compacted topics: what a restore reads of one, what a cleaning leaves of it, and what appends notice of that.

1. Records look like a changelog's: keys of 12 bytes in an order that no cache likes, values of 8 bytes. In one topic
   a key comes ten times on average, by chance, in the others every key is another.
2. The floors read the same files in pieces of 1 MiB, let the compiled codec take the batches apart, and keep the last
   record of each key in a dictionary; that of a cleaning then encodes these. No CRC, no file.
3. A restored store and a cleaned topic are checked before their time counts.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tailrace import Log
from tailrace.log.codec import batches, decode, encode_columns
from tailrace.log.record import RawRecord, TopicPartition
from tailrace.state.changelog import KeyValueLayout
from tailrace.state.restore import restore
from tailrace.state.rocksdb import RocksBackend, RocksMemory
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.tests.bench.files import pieces
from tailrace.tests.bench.measure import Setting, Stopwatch, Values, percentile

PAUSE_P99, PAUSE_MAX = "p99 ms", "max ms"
_UPDATED, _DISTINCT, _MANY = "updated", "distinct", "many"
_SEGMENT_BYTES = 8 << 20  # several are cleaned; a changelog of an app has 64 MiB
_CHUNK = 20_000
_AT_MS = 1_767_225_600_000
_LATER_MS = _AT_MS + 30 * 86_400_000  # past segment.ms
_SEED = 20_261_121
_STRIDE = 7_368_787  # a prime: its multiples meet every remainder once, in an order that no cache likes
_PACE_S = 0.0005


def _shape(setting: Setting, topic: str) -> tuple[int, int]:
    """How many records, of how many keys."""
    records = setting.records // 2 if topic == _MANY else setting.records
    return records, records // 10 if topic == _UPDATED else records


def _log(setting: Setting, name: str) -> str:
    return f"{setting.directory}/changelogs/{name}"


def prepare(setting: Setting) -> None:
    """A topic with ten updates of each key, and one without; done once, a second call finds them."""
    _fill(setting, _UPDATED)
    _fill(setting, _DISTINCT)


def prepare_many(setting: Setting) -> None:
    """Half as many keys as there are records elsewhere, each once."""
    _fill(setting, _MANY)


def _fill(setting: Setting, topic: str) -> None:
    directory = _log(setting, topic)
    if Path(directory).exists():
        return
    records, keys = _shape(setting, topic)
    chance = random.Random(_SEED)
    with Log.open(directory) as log, log.producer(acks=1) as producer:
        log.create_topic(topic, config={"cleanup.policy": "compact", "segment.bytes": _SEGMENT_BYTES})
        for first in range(0, records, _CHUNK):
            numbers = range(first, min(first + _CHUNK, records))
            # By chance, and at the end each key once, so that none is left out.
            drawn = [
                int(chance.random() * keys) if number < records - keys else number * _STRIDE % keys
                for number in numbers
            ]
            producer.send_many(
                topic,
                [number.to_bytes(8, "big") for number in numbers],
                keys=[b"key-%08d" % each for each in drawn],
                timestamps_ms=[_AT_MS + number for number in numbers],
            )


# ---- restoring


def restore_updated(setting: Setting) -> Values:
    """A store that was lost, from a changelog with ten updates of each key."""
    return _restore(setting, _UPDATED)


def restore_distinct(setting: Setting) -> Values:
    """The same where nothing was ever updated."""
    return _restore(setting, _DISTINCT)


def _restore(setting: Setting, topic: str) -> Values:
    records, keys = _shape(setting, topic)
    state = _log(setting, "state")
    with Log.open(_log(setting, topic)) as log:
        backend = RocksBackend(state, RocksMemory(), time.monotonic)
        with Stopwatch() as watch:
            found = restore(backend, "store", KeyValueLayout(), ChangelogReader(log, TopicPartition(topic, 0)))
        assert found.records == records
        assert sum(1 for _ in backend.keyspace("store").range(b"", None)) == keys
        backend.destroy()
    shutil.rmtree(state, ignore_errors=True)
    return watch.values(records)


def updated_floor(setting: Setting) -> Values:
    """The bytes of the topic with updates into a dictionary."""
    return _into_dictionary(setting, _UPDATED)


def distinct_floor(setting: Setting) -> Values:
    """The bytes of the topic without updates into a dictionary."""
    return _into_dictionary(setting, _DISTINCT)


def _into_dictionary(setting: Setting, topic: str) -> Values:
    records, keys = _shape(setting, topic)
    last: dict[bytes | None, bytes | None] = {}
    with Stopwatch() as watch:
        for record in _records(setting, topic):
            last[record.key] = record.value
    assert len(last) == keys
    return watch.values(records)


def _records(setting: Setting, topic: str) -> Iterator[RawRecord]:
    for piece in pieces(_log(setting, topic), topic):
        for _, batch in batches(piece):
            yield from decode(batch)


# ---- cleaning


def compact_updated(setting: Setting) -> Values:
    """Of ten records of a key one stays."""
    return _compact(setting, _UPDATED)


def compact_distinct(setting: Setting) -> Values:
    """Every record stays."""
    return _compact(setting, _DISTINCT)


def compact_many(setting: Setting) -> Values:
    """Every record stays, of so many keys that memory counts."""
    return _compact(setting, _MANY)


def _compact(setting: Setting, topic: str) -> Values:
    records, keys = _shape(setting, topic)
    directory = _copy_to_clean(setting, topic)
    with Log.open(directory) as log, Stopwatch() as watch:
        log.compact(topic)
    assert sum(header.record_count for piece in pieces(directory, topic) for header, _ in batches(piece)) == keys + 1
    shutil.rmtree(directory)
    return watch.values(records)


def _copy_to_clean(setting: Setting, topic: str) -> str:
    """Cleaning changes it, and leaves the segment alone that is being written to: so that has one record more."""
    directory = _log(setting, f"{topic}-to-clean")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(_log(setting, topic), directory)
    with Log.open(directory) as log, log.producer() as producer:
        producer.send(topic, b"", key=b"last", timestamp_ms=_LATER_MS)
    return directory


def compact_updated_floor(setting: Setting) -> Values:
    """The last record of each key, and these encoded."""
    return _last_encoded(setting, _UPDATED)


def compact_distinct_floor(setting: Setting) -> Values:
    """The last record of each key, and these encoded."""
    return _last_encoded(setting, _DISTINCT)


def _last_encoded(setting: Setting, topic: str) -> Values:
    records, keys = _shape(setting, topic)
    last: dict[bytes | None, bytes | None] = {}
    with Stopwatch() as watch:
        for record in _records(setting, topic):
            last[record.key] = record.value
        kept, values, index = list(last), list(last.values()), 0
        while index < len(values):
            _, index = encode_columns(values, start=index, keys=kept, timestamps_ms=_AT_MS)
    assert len(last) == keys
    return watch.values(records)


# ---- appends beside a cleaning


def pause(setting: Setting) -> Values:
    """One append after the other to the partition that is being cleaned, with a pause between: how long each took."""
    with Log.open(_copy_to_clean(setting, _UPDATED)) as log:
        cleaning = threading.Thread(target=log.compact, args=(_UPDATED,))
        cleaning.start()
        found = _appends(log, cleaning.is_alive)
        cleaning.join()
    return found


def pause_floor(setting: Setting) -> Values:
    """The same appends with nothing beside them."""
    left = iter(range(setting.waits))
    with Log.open(_copy_to_clean(setting, _UPDATED)) as log:
        return _appends(log, lambda: next(left, None) is not None)


def _appends(log: Log, go_on: Callable[[], bool]) -> Values:
    took: list[float] = []
    with log.producer(acks=1, linger_ms=0) as producer:
        while go_on():
            begun = time.perf_counter()
            producer.send(_UPDATED, b"value", key=b"beside", timestamp_ms=_LATER_MS).result()
            took.append((time.perf_counter() - begun) * 1000)
            time.sleep(_PACE_S)
    return {PAUSE_P99: percentile(took, 0.99), PAUSE_MAX: max(took)}
