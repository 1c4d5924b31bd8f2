"""The cases, by name; what each means stands in docs/benchmarks.md."""

from tailrace.tests.bench import changelogs, click_counts, clients, storage, transactions
from tailrace.tests.bench.changelogs import PAUSE_MAX, PAUSE_P99
from tailrace.tests.bench.click_counts import EARLY, GROWTH, HALF, LATE, READY
from tailrace.tests.bench.clicks import prepare, prepare_by_product
from tailrace.tests.bench.clients import ACK, P50, P99
from tailrace.tests.bench.measure import CPU, PEAK, RATE, RATIO, Case, Target
from tailrace.tests.bench.storage import KILLED, OPEN
from tailrace.tests.bench.transactions import TRANSACTIONS, WIDE

_RATES = (RATE, CPU)

CASES = (
    Case(
        "count-keyed",
        "clicks per product and minute, input keyed by product",
        click_counts.keyed,
        (*_RATES, PEAK),
        floor=click_counts.floor_keyed,
        targets=(Target(RATIO, 0.5),),
        prepare=prepare,
    ),
    Case(
        "count-rekeyed",
        "the same, input keyed by user: group_by",
        click_counts.rekeyed,
        (*_RATES, PEAK),
        floor=click_counts.floor_rekeyed,
        targets=(Target(RATIO, 0.35),),
        prepare=prepare,
    ),
    Case("append", "batches to a partition", storage.append, _RATES, floor=storage.append_floor),
    Case("fetch", "batches from a partition", storage.fetch, _RATES, floor=storage.fetch_floor),
    Case("decode", "records of batches", storage.decode, _RATES, floor=clients.decode_floor),
    Case(
        "send",
        "one call a record, acks=1",
        clients.send,
        _RATES,
        floor=clients.encode_floor,
        targets=(Target(RATE, 300_000),),
    ),
    Case(
        "send-many",
        "one call for all, acks=all",
        clients.send_many,
        _RATES,
        floor=clients.encode_floor,
        targets=(Target(RATE, 1_000_000),),
    ),
    Case(
        "consume",
        "poll_batches",
        clients.consume,
        _RATES,
        floor=clients.decode_floor,
        targets=(Target(RATE, 1_000_000),),
    ),
    Case(
        "restore",
        "a store from a changelog, ten updates of a key",
        changelogs.restore_updated,
        (*_RATES, PEAK),
        floor=changelogs.updated_floor,
        targets=(Target(RATE, 1_000_000),),
        prepare=changelogs.prepare,
    ),
    Case(
        "restore-distinct",
        "the same, each key once",
        changelogs.restore_distinct,
        (*_RATES, PEAK),
        floor=changelogs.distinct_floor,
        targets=(Target(RATE, 1_000_000),),
        prepare=changelogs.prepare,
    ),
    Case(
        "compact",
        "a cleaning, ten updates of a key",
        changelogs.compact_updated,
        (*_RATES, PEAK),
        floor=changelogs.compact_updated_floor,
        targets=(Target(RATE, 500_000),),
        prepare=changelogs.prepare,
    ),
    Case(
        "compact-distinct",
        "the same, each key once",
        changelogs.compact_distinct,
        (*_RATES, PEAK),
        floor=changelogs.compact_distinct_floor,
        targets=(Target(RATE, 500_000),),
        prepare=changelogs.prepare,
    ),
    Case(
        "compact-pause",
        "appends beside a cleaning",
        changelogs.pause,
        (PAUSE_P99, PAUSE_MAX),
        floor=changelogs.pause_floor,
        targets=(Target(PAUSE_P99, 5.0, at_most=True), Target(PAUSE_MAX, 5.0, at_most=True)),
        prepare=changelogs.prepare,
    ),
    Case(
        "open-wide",
        "a log of many partitions is opened",
        storage.open_wide,
        (OPEN, KILLED),
        targets=(Target(OPEN, 2.0, at_most=True), Target(KILLED, 2.0, at_most=True)),
        prepare=storage.prepare_wide,
    ),
    Case(
        "wake",
        "producer to waiting consumer, acks=1",
        clients.wake_one,
        (P99, P50, ACK),
        floor=clients.wake_floor,
        targets=(Target(P99, 1.0, at_most=True),),
    ),
    Case(
        "wake-all",
        "the same, acks=all",
        clients.wake_all,
        (P99, P50, ACK),
        floor=clients.wake_floor,
        targets=(Target(P99, 1.0, at_most=True),),
    ),
    Case(
        "transact",
        "transactions of one record, one after the other, on disk",
        transactions.one_by_one_disk,
        (TRANSACTIONS,),
        floor=transactions.floor_disk,
        targets=(Target(TRANSACTIONS, 300),),
    ),
    Case(
        "transact-os",
        'the same with flush="os"',
        transactions.one_by_one_os,
        (TRANSACTIONS,),
        targets=(Target(TRANSACTIONS, 1_000),),
    ),
    Case("commit-wide", "a commit over 16, 64, 200 partitions, on disk", transactions.wide, tuple(WIDE)),
    Case(
        "memory",
        "peak memory over many records",
        click_counts.memory,
        (GROWTH, EARLY, HALF, LATE, RATE),
        targets=(Target(GROWTH, 1.25, at_most=True),),  # a byte kept of each record would be more
        prepare=prepare_by_product,
        samples_max=1,
        long=True,
    ),
    Case(
        "start",
        "an app that was stopped cleanly starts again",
        click_counts.start,
        (READY, PEAK),
        targets=(Target(READY, 1.0, at_most=True),),
        prepare=click_counts.run_to_end,
        long=True,
    ),
    Case(
        "compact-many",
        "a cleaning of millions of keys, each once",
        changelogs.compact_many,
        (*_RATES, PEAK),
        targets=(Target(RATE, 500_000), Target(PEAK, 1024.0, at_most=True)),
        prepare=changelogs.prepare_many,
        samples_max=1,
        long=True,
    ),
)
