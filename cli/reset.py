"""`tailrace reset MODULE:APP`: take an app back to another place in its inputs, and its state with it.

1. It shows what would be done, and does nothing until `--execute` is given. To look needs no lock.
2. A file has one line for each partition that moves: `topic,partition,offset`, as Kafka's tools write and read them.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from tailrace.cli.errors import UsageError
from tailrace.cli.lines import Lines
from tailrace.cli.load import load_app
from tailrace.cli.output import Output
from tailrace.cli.run import Target
from tailrace.cli.running import at_log
from tailrace.cli.session import Session, shared
from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.streams.reprocessing.reset import ResetPlan
from tailrace.streams.reprocessing.reset import Target as Place

_METAVAR: Final = "earliest|latest|OFFSET|TIME|DURATION"
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@shared
def reset(
    session: Session,
    target: Target,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar=_METAVAR,
            help="Where the app shall go on: a time as 2026-11-21T12:00:00Z, or so long before now, as 36h or 7d.",
        ),
    ] = "earliest",
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Lines topic,partition,offset; `-` is stdin. In place of --to."),
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it. Without, only show what would be done.")] = False,
) -> None:
    """Take an app back in its inputs: offsets move; its internal topics and its state on disk go; outputs stay.

    Shows what would be done, and does it only with --execute.
    """
    app = load_app(target)
    app.describe()  # what is wrong with the program is said before a log is opened
    own = app.options.log
    if isinstance(own, Log):
        plan = app.reset(to=_place(app, own, to, file), dry_run=not execute)
    else:
        session.log = session.log or (own if app.options.log_named else None)
        with session.open_log(read_only=not execute) as log, at_log(app, log):
            plan = app.reset(to=_place(app, log, to, file), dry_run=not execute)
    _show(session.output, plan)


def _place(app: App, log: Log, to: str, file: str | None) -> Place:
    if file is not None:
        return _offsets_in(file)
    if to in {"earliest", "latest"}:
        return "earliest" if to == "earliest" else "latest"
    if to.isascii() and to.isdecimal():
        topology = app.describe()
        reads = {node.operator.reads.name for node in topology.nodes if node.operator.reads is not None}
        return {each: int(to) for topic in sorted(reads - topology.inner_topics) for each in log.offsets(topic)}
    found = _DURATION.fullmatch(to)
    if found is not None:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        when = datetime.fromisoformat(to)
    except ValueError:
        raise UsageError(
            "--to wants earliest, latest, an offset, a time such as 2026-11-21T12:00:00Z, or a duration such as 36h "
            f"or 7d, not {to!r}"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _offsets_in(path: str) -> Mapping[TopicPartition, int]:
    lines = Lines.open(path)
    try:
        rows = [line for block in lines.blocks() for line in block]
    finally:
        lines.close()
    found: dict[TopicPartition, int] = {}
    for number, row in enumerate(rows, 1):
        text = row.decode(errors="replace").strip()
        if not text:
            continue
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts[1:]):
            raise UsageError(f"{lines.name}:{number} is not topic,partition,offset, such as clicks,0,1234: {text!r}")
        partition = TopicPartition(parts[0], int(parts[1]))
        if partition in found:
            raise UsageError(f"{lines.name}:{number} names {partition} a second time")
        found[partition] = int(parts[2])
    if not found:
        raise UsageError(f"{lines.name} has no line: give one topic,partition,offset for each partition to move")
    return found


def _show(output: Output, plan: ResetPlan) -> None:
    if not output.json:
        output.line(str(plan))
        if not plan.done:
            output.note("to do it, add --execute")
        return
    output.value(
        {
            "app": plan.app,
            "executed": plan.done,
            "offsets": [
                {"topic": each.topic, "partition": each.partition, "from": plan.before.get(each), "to": offset}
                for each, offset in sorted(plan.offsets.items())
            ],
            "deleted": plan.deleted,
            "stays": plan.stays,
        }
    )
