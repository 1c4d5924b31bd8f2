"""The cases, by name; what each means stands in docs/benchmarks.md."""

from tailrace.tests.bench import click_counts, clients
from tailrace.tests.bench.click_counts import EARLY, GROWTH, HALF, LATE, READY
from tailrace.tests.bench.clicks import prepare, prepare_by_product
from tailrace.tests.bench.clients import ACK, P50, P99
from tailrace.tests.bench.measure import CPU, PEAK, RATE, RATIO, Case, Target

_RATES = (RATE, CPU)

CASES = (
    Case(
        "count-keyed",
        "clicks per product and minute, input keyed by product",
        click_counts.keyed,
        (*_RATES, PEAK),
        floor=click_counts.floor_keyed,
        targets=(Target(RATIO, 0.4),),
        prepare=prepare,
    ),
    Case(
        "count-rekeyed",
        "the same, input keyed by user: group_by",
        click_counts.rekeyed,
        (*_RATES, PEAK),
        floor=click_counts.floor_rekeyed,
        targets=(Target(RATIO, 0.3),),
        prepare=prepare,
    ),
    Case("send", "one call a record, acks=1", clients.send, _RATES, floor=clients.encode_floor),
    Case("send-many", "one call for all, acks=all", clients.send_many, _RATES, floor=clients.encode_floor),
    Case("consume", "poll_batches", clients.consume, _RATES, floor=clients.decode_floor),
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
)
