"""From a table to a stream of its changes."""

from dataclasses import dataclass

from tailrace.streams.topology import Operator


@dataclass(frozen=True, kw_only=True)
class ToStream(Operator):
    """Passes every change on; None is a delete."""


@dataclass(frozen=True, kw_only=True)
class Changes(Operator):
    """Passes changes on and leaves the deletes out."""
