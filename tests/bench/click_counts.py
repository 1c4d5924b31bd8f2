"""The main job over a backlog on disk, beside its floor: a plain loop over the same bytes.

1. The floor does what no program can leave out: reads the files in pieces of 1 MiB, lets the compiled codec take the
   batches apart, decodes each value into the same Struct, counts in a dictionary. No CRC, no state, no output, no time.
2. A run is timed from `app.run` to its return, when state, changelog, output and offsets are committed on disk; the log
   is open before. Each run is a new app: nothing is there that it could go on with.
3. A run that drops a click, or whose output is not the plain count, is an error and no number.
"""

import shutil
import threading
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import anyio
import msgspec

from tailrace import App, Log, Windowed, minutes, seconds, tumbling
from tailrace.log.codec import batches, decode
from tailrace.streams.program.options import Guarantee
from tailrace.tests.bench.clicks import (
    BY_PRODUCT,
    BY_USER,
    DISORDER_MS,
    MINUTE_MS,
    PARTITIONS,
    Click,
    Counts,
    check,
    log_directory,
    prepare_by_product,
)
from tailrace.tests.bench.files import pieces
from tailrace.tests.bench.measure import Setting, Stopwatch, Values, peak_mib

_LOOK_S = 0.01
READY = "ready s"
EARLY, HALF, LATE, GROWTH = "MiB at a tenth", "MiB at half", "MiB at the end", "end / tenth"


class ProductClicks(msgspec.Struct):
    """A row of the output."""

    product_id: str
    minute: datetime
    clicks: int


def as_row(window: Windowed[str], clicks: int) -> tuple[str, ProductClicks]:
    """Makes a row of a window and its count."""
    return window.key, ProductClicks(window.key, window.start, clicks)


def program(name: str, log: str | Log, *, keyed: bool, guarantee: Guarantee = "exactly_once") -> App:
    """The main job, over the topic that is keyed by product or over the one that is not."""
    app = App(name, log=log, guarantee=guarantee)
    topic = app.topic(BY_PRODUCT if keyed else BY_USER, key=str, value=Click, timestamp=lambda click: click.ts)
    output = app.topic(f"{name}-output", key=str, value=ProductClicks)
    stream = app.stream(topic)
    grouped = stream.group_by_key() if keyed else stream.group_by(lambda click: click.product_id)
    windowed = grouped.windowed_by(tumbling(minutes(1), grace=seconds(DISORDER_MS // 1000)))
    windowed.count(store="counts").changes().map_kv(as_row).to(output)
    return app


def keyed(setting: Setting) -> Values:
    """The input has the key that is counted by."""
    return count(setting, keyed=True)


def rekeyed(setting: Setting) -> Values:
    """The input is keyed by user: every click goes from one task to another."""
    return count(setting, keyed=False)


def count(setting: Setting, *, keyed: bool, guarantee: Guarantee = "exactly_once") -> Values:
    """The main job over all clicks, with the guarantee that is the default or the other."""
    name = f"{'keyed' if keyed else 'rekeyed'}-{guarantee}-{setting.sample}"
    with Log.open(log_directory(setting)) as log:
        app = program(name, log, keyed=keyed, guarantee=guarantee)
        with Stopwatch() as watch:
            summary = app.run(until="end")
        values = watch.values(summary.records_in)
        values["peak MiB"] = peak_mib()  # before the check reads the output
        if summary.dropped or summary.records_in != setting.records:
            raise AssertionError(f"{name} took {summary.records_in} of {setting.records} clicks: {summary.dropped}")
        check(setting, output(log, f"{name}-output"), name)
        _forget(log, name, setting)
    return values


def output(log: Log, topic: str) -> Counts:
    """The newest row of each product and minute."""
    decode_row = msgspec.json.Decoder(ProductClicks).decode
    counts: Counts = defaultdict(dict)
    with log.consumer() as consumer:
        consumer.assign(list(log.offsets(topic)))
        while batches := consumer.poll_batches():
            for batch in batches:
                for record in batch.records:
                    row = decode_row(record.value or b"")
                    counts[row.product_id][int(row.minute.timestamp()) * 1000] = row.clicks
    return counts


def _forget(log: Log, name: str, setting: Setting) -> None:
    """Makes room: a run leaves as much behind as it read."""
    for topic in log.topics(internal=True):
        if topic.startswith(f"{name}-"):
            log.delete_topic(topic)
    log.delete_group(name)
    shutil.rmtree(Path(log_directory(setting), "state", name))


# ---- the floor


def floor_keyed(setting: Setting) -> Values:
    """The plain loop over the topic keyed by product."""
    return _plain(setting, BY_PRODUCT)


def floor_rekeyed(setting: Setting) -> Values:
    """The plain loop over the topic keyed by user: the same, as a dictionary does not care."""
    return _plain(setting, BY_USER)


def _plain(setting: Setting, topic: str) -> Values:
    decode_click = msgspec.json.Decoder(Click).decode
    counts: defaultdict[tuple[str, int], int] = defaultdict(int)
    with Stopwatch() as watch:
        for partition in range(PARTITIONS):
            for piece in pieces(log_directory(setting), topic, partition):
                for _, batch in batches(piece):
                    for record in decode(batch):
                        click = decode_click(record.value or b"")
                        counts[click.product_id, click.ts - click.ts % MINUTE_MS] += 1
    found: Counts = defaultdict(dict)
    for (product, minute), clicks in counts.items():
        found[product][minute] = clicks
    check(setting, found, "the floor")
    return watch.values(setting.records)


# ---- over many records: memory, and starting again


def memory(setting: Setting) -> Values:
    """Peak memory after a tenth of the records, after half, and at the end."""
    app = program("kept", log_directory(setting), keyed=True)
    found: Values = {}
    ended = threading.Event()

    def look() -> None:
        marks = [(setting.records // 10, EARLY), (setting.records // 2, HALF)]
        while marks and not ended.wait(_LOOK_S):
            summary = app.summary()
            while marks and summary is not None and summary.records_in >= marks[0][0]:
                found[marks.pop(0)[1]] = peak_mib()

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with Stopwatch() as watch:
            summary = app.run(until="end")
    finally:
        ended.set()
        watcher.join()
    if summary.dropped:
        raise AssertionError(f"clicks were dropped: {summary.dropped}")
    late = peak_mib()
    early = found.get(EARLY, late)  # a run of a few records has ended before anybody looked
    half = found.get(HALF, late)
    return {EARLY: early, HALF: half, LATE: late, GROWTH: late / early, **watch.values(setting.records)}


def run_to_end(setting: Setting) -> None:
    """Leaves an app behind that has counted everything and was stopped cleanly."""
    prepare_by_product(setting)
    program("kept", log_directory(setting), keyed=True).run(until="end")


def start(setting: Setting) -> Values:
    """From nothing open to an app that takes records, on the log and the state that `run_to_end` left."""
    app = program("kept", log_directory(setting), keyed=True)

    async def ready() -> Values:
        with Stopwatch() as watch:
            running = app.running()
            await running.__aenter__()
        await running.__aexit__(None, None, None)
        return {READY: watch.seconds}

    return anyio.run(ready)
