"""Names of topics and groups as arguments, which the shell completes out of the log.

What cannot be read (no log there, a damaged one) completes to nothing: whoever presses Tab wants no error.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from tailrace.cli.session import Session
from tailrace.log.client import Log

Names = Callable[[typer.Context, str], list[str]]


def _complete(names: Callable[[Log], list[str]]) -> Names:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception), _session(ctx).open_log(read_only=True) as log:
            return [name for name in names(log) if name.startswith(incomplete)]
        return []

    return complete


def _session(ctx: Any) -> Session:  # a parent is of a class that typer keeps to itself
    """Find `--log` at either place where it may stand; when the shell asks, nobody has taken it yet."""
    session = Session()
    session.take(ctx.params.get("log"), json=False, debug=False)
    if ctx.parent is not None and session.log is None:
        return _session(ctx.parent)
    return session


complete_topics: Names = _complete(lambda log: log.topics())
complete_groups: Names = _complete(lambda log: log.groups())

TopicName = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.", autocompletion=complete_topics)]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.", autocompletion=complete_groups)]
