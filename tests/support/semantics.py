"""The cases of `tests/contract/semantics.json`: what goes in, and what has to come out.

The file is the project's contract, executed on Kafka Streams; where ours differs on purpose the case says so.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

CASES = Path(__file__).parents[1] / "contract" / "semantics.json"


class Given(NamedTuple):
    """One record of input."""

    topic: str
    key: str | None
    value: str | None
    timestamp_ms: int


class Output(NamedTuple):
    """One result, the key as text: `A@[0,10)`."""

    key: str
    value: str | None
    timestamp_ms: int


class Case(NamedTuple):
    """A case by its id; `dropped` is what counts as dropped in the end."""

    id: str
    topology: str
    steps: list[tuple[Given, list[Output]]]
    dropped: int


def case(name: str) -> Case:
    """The case with that id, with our own results where they differ from Kafka Streams'."""
    found: dict[str, Any] = next(c for c in json.loads(CASES.read_text("utf-8"))["cases"] if c["id"] == name)
    steps: list[tuple[Given, list[Output]]] = []
    for step in found["steps"]:
        given, out = step["in"], step.get("ours_out", step.get("out", []))
        steps.append(
            (
                Given(given["topic"], given["key"], given["value"], given["ts"]),
                [Output(result["key"], result["value"], result["ts"]) for result in out],
            )
        )
    return Case(name, found["topology"], steps, found.get("dropped", 0))
