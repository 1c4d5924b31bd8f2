"""What every command shares: which log, how to print, and the three options that stand on every command.

1. `--log`, `--json` and `--debug` mean the same before and after the command's name; after it wins.
2. Results go to stdout; progress, notes and errors go to stderr, so that a pipe carries results alone.

Not here: what an error says and which code it ends with (errors.py).
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tailrace.cli.errors import NotFoundError, UsageError
from tailrace.cli.interrupts import Interrupted
from tailrace.cli.output import Output
from tailrace.log.checkpoint import META_PROPERTIES
from tailrace.log.client import Log
from tailrace.log.disk import RealDisk, join
from tailrace.log.errors import TopicNotFoundError
from tailrace.log.topic import near_names

DEFAULT_LOG = "./tailrace-data"

LogOption = Annotated[
    str | None,
    typer.Option("--log", metavar="URL", help=f"The log: a directory; else $TAILRACE_LOG, else {DEFAULT_LOG}."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
InternalOption = Annotated[
    bool, typer.Option("--internal", help="Also a topic that the log or an app keeps for itself.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


@dataclass
class Session:
    """One invocation of the command."""

    log: str | None = None
    json: bool = False
    debug: bool = False

    def take(self, log: str | None, json: bool, debug: bool) -> None:
        """Add what was given at one of the two places where the shared options may stand."""
        self.log = log or self.log
        self.json = self.json or json
        self.debug = self.debug or debug

    @property
    def url(self) -> str:
        """The log that is meant: `--log`, else `$TAILRACE_LOG`, else `./tailrace-data`."""
        return self.log or os.environ.get("TAILRACE_LOG") or DEFAULT_LOG

    @property
    def output(self) -> Output:
        """Where results, progress and notes go."""
        return Output(json=self.json)

    def open_log(self, *, read_only: bool = False, create: bool = False) -> Log:
        """Open the log; read-only, it takes no lock and stands beside a writer.

        Raises:
            NotFoundError: there is none, and not `create`.
        """
        directory = directory_of(self.url)
        if directory is not None and not create and not RealDisk().exists(join(directory, META_PROPERTIES)):
            raise NotFoundError(
                f"there is no log at {self.url}; name one with --log or $TAILRACE_LOG, or begin one with "
                "`tailrace topics create`"
            )
        return Log.open(self.url, read_only=read_only)


def directory_of(url: str) -> str | None:
    """Tell in which folder a log is, by the rules of `Log.open`; None for one that is not on this machine's disk."""
    scheme, colon, address = url.partition(":")
    if not colon or "/" in scheme or len(scheme) == 1:
        return url
    return address.removeprefix("//") if scheme == "file" else None


def require_topic(log: Log, name: str, *, internal: bool, hint: bool = True) -> None:
    """Say that a topic is there and may be written by hand; `hint`: whoever misses it might want to create it.

    Raises:
        NotFoundError: there is none of this name.
        UsageError: it is kept by the log or by an app, and not `internal`.
    """
    try:
        description = log.describe_topic(name)
    except TopicNotFoundError:
        known = log.topics(internal=internal)
        to_create = f"; to create it: tailrace topics create {name}" if hint else ""
        raise NotFoundError(f"there is no topic {name!r}{near_names(name, known)}{to_create}") from None
    if description.internal and not internal:
        raise UsageError(
            f"the topic {name!r} is internal: what is changed in it by hand, an app or a group finds wrong; "
            "--internal does it all the same"
        )


def shared(f: Callable[..., int | None]) -> Callable[..., int | None]:
    """Make a command of a function whose first argument is the session, with the three shared options added."""

    @functools.wraps(f)
    def command(ctx: typer.Context, log: str | None, json: bool, debug: bool, **arguments: Any) -> int | None:
        session: Session = ctx.find_object(Session) or Session()
        session.take(log, json, debug)
        try:
            code = f(session, **arguments)
            sys.stdout.flush()
        except Interrupted as interrupted:
            return 128 + interrupted.signal_number
        except BrokenPipeError:
            # The reader of our output has seen enough (`tail … | head`): no error. What is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return code

    # typer reads signature and annotations; it calls with keywords alone.
    own = list(inspect.signature(f, eval_str=True).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, annotation, default in (
            ("ctx", typer.Context, inspect.Parameter.empty),
            ("log", LogOption, None),
            ("json", JsonOption, False),
            ("debug", DebugOption, False),
        )
    ]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    signature = inspect.Signature([*keyword_only, *added])
    command.__signature__ = signature  # type: ignore[attr-defined]  # inspect's own protocol; functions do not declare it
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return command


def group(help_text: str) -> typer.Typer:
    """Make a command group that prints its help when it is called alone."""
    made = typer.Typer(help=help_text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    made.callback(invoke_without_command=True)(_help)
    return made


def _help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)
