"""`tailrace replay MODULE:APP --into NAME`: the program over old input, beside the live one; compare what came of it.

1. The same words go on where a replay was; SIGINT and SIGTERM stop it at a commit, with the code 130 or 143.
2. `--to-time` replays nothing but a changelog, and needs no lock.
3. The line on a terminal is what the last commit says: nobody is asked to wait for it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.text import Text

from tailrace.cli.errors import UsageError
from tailrace.cli.load import load_app
from tailrace.cli.output import Output, instant
from tailrace.cli.run import Target, log_of
from tailrace.cli.running import at_log, drawn
from tailrace.cli.session import Session, shared
from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.reprocessing.difference import Difference
from tailrace.streams.reprocessing.replay import ReplayJob
from tailrace.streams.running.summary import Summary

_ANY_TIME = "TIME"


@shared
def replay(
    session: Session,
    target: Target,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAME", help="The version: outputs are TOPIC.NAME, the group is APP.NAME."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar=_ANY_TIME, help="Input from then on. Else from the beginning.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar=_ANY_TIME, help="Input before then. Else all that there is now.")
    ] = None,
    share: Annotated[
        float, typer.Option("--share", help="The part of the time that it works while the app itself runs.")
    ] = 0.5,
    diff: Annotated[
        list[str] | None,
        typer.Option("--diff", metavar="TOPIC", help="Only compare this output with the replay's; may be repeated."),
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", help="By how much numbers may differ, for --diff.")] = 0.0,
    promote: Annotated[
        bool, typer.Option("--promote", help="Only put the replay in the app's place: readers and the app move to it.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Only take --promote back.")] = False,
    behind: Annotated[
        int, typer.Option("--behind", help="How many records of its input may be left, for --promote.")
    ] = 0,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Only delete what --promote has replaced: there is no --undo then.")
    ] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Only delete what the replay has made.")] = False,
    to_time: Annotated[
        str | None,
        typer.Option("--to-time", metavar=_ANY_TIME, help="Only print a store as it was then; with --store."),
    ] = None,
    store: Annotated[str | None, typer.Option("--store", metavar="STORE", help="The store, for --to-time.")] = None,
) -> int:
    """Run an app over old input, beside the live one, into outputs and state of its own; then compare, and switch."""
    if sum([bool(diff), promote, undo, drop_old, discard]) > 1:
        raise UsageError("--diff, --promote, --undo, --drop-old and --discard are one thing each: give one of them")
    if behind and not promote:
        raise UsageError("--behind goes with --promote")
    if (to_time is None) != (store is None) or (to_time is None) == (into is None):
        raise UsageError("give --into NAME for a replay, or --to-time TIME and --store STORE to see a table as it was")
    app = load_app(target)
    app.describe()  # what is wrong with the program is said before a log is opened
    when = _time("--to-time", to_time)
    if when is not None and store is not None:
        _show_past(session, app, store, when)
        return 0
    assert into is not None
    with (
        log_of(app, session) as log,
        at_log(app, log),
        app.replay(
            since=_time("--since", since), until=_time("--until", until) or "end", into=into, share=share
        ) as job,
    ):
        for asked, step, done, told in (
            (promote, partial(job.promote, behind=behind), "promoted", "is promoted"),
            (undo, job.undo, "undone", "is undone"),
            (drop_old, job.drop_old, "old_dropped", "stays: what it has replaced is deleted"),
            (discard, job.discard, "discarded", "is discarded"),
        ):
            if asked:
                step()
                if session.json:
                    session.output.value({done: job.name})
                else:
                    session.output.line(f"replay {job.name} {told}")
                return 0
        if diff:
            for name in diff:
                _show(session.output, name, job.diff(job.topic(name), tolerance=tolerance))
            return 0
        with drawn(_line(job), Console(stderr=True, quiet=session.json)):
            summary = job.run()
        _report(session.output, job, summary)
        return 128 + job.stopped_by if job.stopped_by else 0


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} wants a time such as 2026-11-21T12:00:00Z, not {text!r}") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _line(job: ReplayJob) -> Callable[[], RenderableType | None]:
    def draw() -> RenderableType:
        return Text(str(job.progress()))

    return draw


def _report(output: Output, job: ReplayJob, summary: Summary) -> None:
    progress = job.progress()
    if output.json:
        output.value(
            {
                "replay": job.name,
                "stopped_by": job.stopped_by,
                "records_in": summary.records_in,
                "records_out": summary.records_out,
                "dropped": dict(summary.dropped),
                "seconds": round(summary.seconds, 3),
                "share": round(progress.share, 6),
                "event_time_ms": progress.event_time_ms,
                "outputs": job.outputs,
            }
        )
        return
    reached = "" if progress.event_time_ms is None else f", up to {instant(progress.event_time_ms)}"
    output.line(
        f"{job.name}: {summary.records_in:,} records in, {summary.records_out:,} out, in {summary.seconds:.1f} s; "
        f"{progress.share:.0%} of the input is done{reached}"
    )
    for before, after in job.outputs.items():
        output.line(f"  {before} -> {after}")


def _show_past(session: Session, app: App, store: str, when: datetime) -> None:
    own = app.options.log
    if isinstance(own, Log):
        rows = [(_plain(key), _plain(value)) for key, value in app.past(store, when).all()]
    else:
        session.log = session.log or (own if app.options.log_named else None)
        with session.open_log(read_only=True) as log, at_log(app, log):
            rows = [(_plain(key), _plain(value)) for key, value in app.past(store, when).all()]
    if session.json:
        for key, value in rows:
            session.output.value({"key": key, "value": value})
    else:
        session.output.table(["key", "value"], rows)


def _show(output: Output, name: str, found: Difference) -> None:
    if output.json:
        output.value(
            {
                "topic": name,
                "same": found.same,
                "changed": found.changed,
                "missing": found.missing,
                "new": found.new,
                "samples": [
                    {
                        "kind": each.kind,
                        "key": _plain(each.key),
                        "before": _plain(each.before),
                        "after": _plain(each.after),
                    }
                    for each in found.samples
                ],
            }
        )
        return
    output.line(f"{name}: {found}")


def _plain(value: object) -> object:
    """Make a value one that JSON has: what none of it is stands as text."""
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return str(value)
