"""What the command `tailrace` consists of: its groups, and the one place where errors become a line and an exit code.

Each command is in a file of its own; what they share is in session.py, what errors say in errors.py.
"""

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from tailrace import starting
from tailrace.cli.demo import demo
from tailrace.cli.errors import report
from tailrace.cli.groups import groups
from tailrace.cli.logs import log as log_group
from tailrace.cli.replay import replay
from tailrace.cli.reset import reset
from tailrace.cli.run import describe, run
from tailrace.cli.send import send
from tailrace.cli.session import DebugOption, JsonOption, LogOption, Session
from tailrace.cli.tail import tail
from tailrace.cli.told import told
from tailrace.cli.topics import topics

app = typer.Typer(
    name="tailrace",
    help="Stream processing on a log of its own.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    ctx: typer.Context,
    log: LogOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    (ctx.find_object(Session) or Session()).take(log, json, debug)
    if version:
        typer.echo(f"tailrace {_version()}")
        raise typer.Exit(0)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)


def _version() -> str:
    try:
        return metadata.version("tailrace")
    except metadata.PackageNotFoundError:
        return "from a checkout that is not installed"


for _command in (demo, run, describe, replay, reset, send, tail):
    app.command(_command.__name__)(_command)
app.add_typer(topics, name="topics")
app.add_typer(groups, name="groups")
app.add_typer(log_group, name="log")


def execute(arguments: Sequence[str] | None) -> int:
    """Run a command and say its exit code; see `main`."""
    session = Session()
    try:
        starting.over()
        command = typer.main.get_command(app)
        with told():
            code = command.main(args=arguments, prog_name="tailrace", standalone_mode=False, obj=session)
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the one place where every error becomes a line and a code
        return report(error, debug=session.debug or "--debug" in (arguments or sys.argv))
    return code if isinstance(code, int) else 0
