"""`tailrace log verify [PATH]` and `tailrace log dump [PATH]`: on a log, a partition's folder or one segment.

Both only read, take no lock and may run beside a writer; what they check and print is `log/checking/verify.py` and
`log/checking/dump.py`. Both end with 4 where something is damaged, after they have shown all they could.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tailrace.cli.errors import CommandError, NotFoundError
from tailrace.cli.output import Output, instant, size
from tailrace.cli.session import Session, group, shared
from tailrace.log.checking.dump import dump
from tailrace.log.checking.verify import Report, verify
from tailrace.log.checkpoint import META_PROPERTIES, read_properties
from tailrace.log.clock import SystemClock
from tailrace.log.disk import Disk, RealDisk, join
from tailrace.log.errors import CorruptError
from tailrace.log.topics.directory import CLUSTER_ID
from tailrace.streams.running.identity import of_other_logs

log = group("Check and print the files of a log.")

Path = Annotated[str | None, typer.Argument(help="A log, a partition's folder or a segment; else the log itself.")]


def _checked(disk: Disk, path: str) -> str:
    if path.partition(":")[0] in {"memory", "kafka"}:
        raise CommandError(f"{path} is no directory: only a log on this machine's disk has files to look at")
    path = path.removeprefix("file://")
    if not disk.exists(path):
        raise NotFoundError(f"there is nothing at {path}: give a log, a partition's folder or a segment")
    return path


@log.command("verify")
@shared
def verify_log(session: Session, path: Path = None) -> None:
    """Check all there is: CRCs, records, indexes, producers, transactions, committed offsets. Repairs nothing."""
    disk, clock = RealDisk(), SystemClock()
    where = _checked(disk, path or session.url)
    start, read = clock.monotonic(), 0
    with session.output.progress(f"checking {where}", None) as bar:

        def progress(count: int) -> None:
            nonlocal read
            read += count
            seconds = clock.monotonic() - start
            bar.update(read, f"{size(read)}, {size(read / seconds if seconds else 0)}/s")

        report = verify(disk, where, progress=progress)
    report.notes += _of_other_logs(disk, where)
    if not report.segments:
        raise NotFoundError(
            f"there is no log at {where}: it holds no segment; give a log, a partition's folder or a segment"
        )
    if session.json:
        session.output.value(report.as_json())
    else:
        _show_report(session.output, report)
    if not report.ok:
        first = report.damage[0]
        raise CorruptError(
            f"{len(report.damage)} of what was checked in {where} is damaged; restore it from a copy",
            file=first.file,
            position=first.position,
            expected=first.expected,
            found=first.found,
        )


def _of_other_logs(disk: Disk, where: str) -> list[str]:
    """Nothing else in a log says which one it is: a cluster id that was changed is told by the state of its apps."""
    file = join(where, META_PROPERTIES)
    cluster_id = (read_properties(disk, file) or {}).get(CLUSTER_ID, "") if disk.is_dir(where) else ""
    others = of_other_logs(disk, join(where, "state"), cluster_id) if cluster_id else {}
    return [
        f"{path} is of an app on the log {other}, and this is the log {cluster_id}, as {file} says: one of the two was "
        "changed, or comes from elsewhere; the app will not start with it"
        for path, other in sorted(others.items())
    ]


def _show_report(output: Output, report: Report) -> None:
    for note in report.notes:
        output.line(f"note: {note}")
    for damage in report.damage:
        output.line(f"damaged: {damage}")
    output.line(
        f"checked {report.path}: {report.partitions:,} partitions, {report.segments:,} segments, {report.batches:,} "
        f"batches with their CRC, {report.records:,} records, {report.index_entries:,} index entries, "
        f"{size(report.bytes)}"
    )
    if report.committed or report.aborted or report.open:
        output.line(
            f"with {report.committed:,} transactions that were committed in a partition, {report.aborted:,} aborted, "
            f"{report.open:,} open"
        )
    if report.topics:
        output.line(
            f"and what the log says of itself: {report.topics:,} topics, {report.committed_offsets:,} committed "
            f"offsets of {report.groups:,} groups, {report.transactional_ids:,} transactional ids"
        )
    if report.ok:
        output.line("nothing is damaged")


@log.command("dump")
@shared
def dump_log(
    session: Session,
    path: Path = None,
    records: Annotated[bool, typer.Option("--records/--no-records", help="With the records of each batch.")] = True,
) -> None:
    """Print batches and records as they stand in the files; with --json one object per batch and line."""
    disk = RealDisk()
    where = _checked(disk, path or session.url)
    damaged: Mapping[str, Any] | None = None
    for batch in dump(disk, where, records=records):
        if session.json:
            session.output.value(batch)
        else:
            _show(session.output, batch)
        if not batch.get("crc_ok", True):
            damaged = batch
    if damaged:
        raise CorruptError(
            f"{damaged['file']}: the batch at offset {damaged['base_offset']} fails its CRC; for all that is wrong: "
            "tailrace log verify",
            file=damaged["file"],
            position=-1,
        )


def _show(output: Output, shown: Mapping[str, Any]) -> None:
    if "base_offset" in shown:
        _show_batch(output, shown)
    else:  # of a snapshot, or of a transaction index
        output.line("  ".join([shown["file"], *(f"{name}={value}" for name, value in shown.items() if name != "file")]))


def _show_batch(output: Output, batch: Mapping[str, Any]) -> None:
    marks = [
        batch["compression"],
        batch["timestamp_type"],
        f"epoch {batch['leader_epoch']}",
        *(["transactional"] if batch["transactional"] else []),
        *(["control"] if batch["control"] else []),
        *([batch["marker"]["type"]] if batch.get("marker") else []),
        *([f"producer {batch['producer_id']}/{batch['producer_epoch']}"] if batch["producer_id"] >= 0 else []),
        *([f"sequence {batch['base_sequence']}"] if batch["base_sequence"] >= 0 else []),
        "crc ok" if batch["crc_ok"] else "CRC WRONG",
    ]
    output.line(
        f"{batch['file']}  {batch['base_offset']}..{batch['last_offset']}  {batch['count']} records  "
        f"{batch['size_bytes']:,} bytes  {', '.join(marks)}"
    )
    for record in batch.get("records", ()):
        headers = "".join(f"  {name}={_text(value)}" for name, value in record["headers"])
        key, value = _text(record["key"]), _text(record["value"])
        output.line(f"  {record['offset']}  {instant(record['timestamp_ms'])}  {key}  {value}{headers}")


def _text(shown: str | Mapping[str, str] | None) -> str:
    if shown is None:
        return "null"
    return shown if isinstance(shown, str) else f"base64:{shown['base64']}"
