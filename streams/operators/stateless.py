"""Operators that look at one record alone.

1. A function of the user sees what reaches it, nulls included.
2. Its exception is raised as a TaskError that names the node, the user's line and the record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace.streams.derived import Slot
from tailrace.streams.place import function_name
from tailrace.streams.topology import Operator


@dataclass(frozen=True, kw_only=True)
class _WithFunction(Operator):
    f: Callable[..., Any]

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"function": function_name(self.f)}


@dataclass(frozen=True, kw_only=True)
class Filter(_WithFunction):
    """Passes on the records for whose value f is true."""


@dataclass(frozen=True, kw_only=True)
class Map(_WithFunction):
    """Replaces the value by f(value)."""


@dataclass(frozen=True, kw_only=True)
class MapKv(_WithFunction):
    """Replaces key and value by f(key, value)."""

    key: Slot


@dataclass(frozen=True, kw_only=True)
class FlatMap(_WithFunction):
    """Replaces a record by one for every value that f(value) yields, with its key and time."""


@dataclass(frozen=True, kw_only=True)
class KeyBy(_WithFunction):
    """Replaces the key by f(value)."""

    key: Slot
