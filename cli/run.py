"""`tailrace run MODULE:APP` and `tailrace describe MODULE:APP`.

1. The log is `--log`, else the one that the app names, else `$TAILRACE_LOG`, else the default; an app that was given an
   open `Log` keeps it.
2. SIGINT and SIGTERM end a run cleanly: what was read is committed, the summary is printed, and the code is 130 or 143.
"""

from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from tailrace.cli.load import load_app
from tailrace.cli.output import Output, rate
from tailrace.cli.running import Status, drawn, run_app
from tailrace.cli.session import Session, shared
from tailrace.log.client import Log
from tailrace.streams.app import App
from tailrace.streams.running.summary import Summary

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:APP", help="The app: `shop:app` is the object `app` in shop.py; APP is `app` unless given."
    ),
]


class Until(StrEnum):
    """Where a run ends."""

    END = "end"


@shared
def run(
    session: Session,
    target: Target,
    until: Annotated[
        Until | None, typer.Option(help="`end`: stop where the inputs ended at the start. Else: until it is stopped.")
    ] = None,
) -> int:
    """Run an app, until its inputs' end or until it is stopped; then say what it did."""
    app = load_app(target)
    app.describe()  # what is wrong with the program is said before a log is opened
    with log_of(app, session) as log:
        status = Status(app, log)
        app.on_restore = status.restoring
        with drawn(status, Console(stderr=True, quiet=session.json)):
            summary = run_app(app, log, until="end" if until else None)
    _report(session.output, app, summary)
    return 128 + app.stopped_by if app.stopped_by else 0


@contextmanager
def log_of(app: App, session: Session) -> Generator[Log]:
    """Open the log that an app is meant to take, for writing."""
    own = app.options.log
    if isinstance(own, Log):
        yield own
        return
    with Log.open(session.url if session.log or not app.options.log_named else own) as log:
        yield log


def _report(output: Output, app: App, summary: Summary) -> None:
    if output.json:
        output.value({"app": app.name, "stopped_by": app.stopped_by, **_as_dict(summary)})
        return
    output.line(
        f"{app.name}: {summary.records_in:,} records in, {summary.records_out:,} out, in {summary.seconds:.1f} s: "
        f"{rate(summary.records_in, summary.seconds)}"
    )
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in summary.dropped.items() if count) or "none"
    output.line(f"dropped: {dropped}; open windows: {summary.open_windows:,}")


def _as_dict(summary: Summary) -> dict[str, object]:
    return {
        "records_in": summary.records_in,
        "records_out": summary.records_out,
        "dropped": dict(summary.dropped),
        "open_windows": summary.open_windows,
        "seconds": round(summary.seconds, 3),
    }


@shared
def describe(
    session: Session,
    target: Target,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
) -> None:
    """Print an app's topology; nothing is opened or run."""
    topology = load_app(target).describe()
    if session.json:
        session.output.line(topology.json())
    elif mermaid:
        session.output.line(topology.mermaid().rstrip("\n"))
    else:
        session.output.line(str(topology).rstrip("\n"))
