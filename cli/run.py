"""`tailrace describe MODULE:APP`."""

from typing import Annotated

import typer

from tailrace.cli.load import load_app
from tailrace.cli.session import Session, shared

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:APP", help="The app: `shop:app` is the object `app` in shop.py; APP is `app` unless given."
    ),
]


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
