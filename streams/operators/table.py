"""From a table to a stream of its changes."""

from dataclasses import dataclass
from typing import Any

from tailrace.streams.topology import Forward, Operator


@dataclass(frozen=True, kw_only=True)
class ToStream(Operator):
    """Passes every change on; None is a delete."""


@dataclass(frozen=True, kw_only=True)
class Changes(Operator):
    """Passes changes on and leaves the deletes out."""

    def build(self, context: object, forward: Forward) -> Forward:
        """One test a record."""
        del context

        def changes(key: Any, value: Any, timestamp_ms: int) -> None:
            if value is not None:
                forward(key, value, timestamp_ms)

        return changes
