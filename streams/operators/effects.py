"""Operators that are there for what they do outside: peek, for_each, print.

1. Nothing outside the log is taken back: after a crash it is done again for the records since the last commit.
2. A program may end in any of them.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tailrace.streams.program.results import look_at_effect
from tailrace.streams.program.topology import Forward, Operator
from tailrace.streams.values.place import function_name


@dataclass(frozen=True, kw_only=True)
class Peek(Operator):
    """Calls f for each record, with its value or with key and value (`keyed`), and passes the record on."""

    f: Callable[..., object]
    keyed: bool

    effect: ClassVar[bool] = True

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"function": function_name(self.f)}

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f

        def peek_link(key: Any, value: Any, timestamp_ms: int) -> None:
            result = f(value)
            if result is not None:
                look_at_effect(result)
            forward(key, value, timestamp_ms)

        def peek_kv_link(key: Any, value: Any, timestamp_ms: int) -> None:
            result = f(key, value)
            if result is not None:
                look_at_effect(result)
            forward(key, value, timestamp_ms)

        return peek_kv_link if self.keyed else peek_link


@dataclass(frozen=True, kw_only=True)
class ForEach(Operator):
    """Calls f for each record, with its value or with key and value (`keyed`); nothing comes after it."""

    f: Callable[..., object]
    keyed: bool

    kind: ClassVar[str] = "sink"
    effect: ClassVar[bool] = True

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"function": function_name(self.f)}

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context, forward
        f = self.f

        def for_each_link(_key: Any, value: Any, _timestamp_ms: int) -> None:
            result = f(value)
            if result is not None:
                look_at_effect(result)

        def for_each_kv_link(key: Any, value: Any, _timestamp_ms: int) -> None:
            result = f(key, value)
            if result is not None:
                look_at_effect(result)

        return for_each_kv_link if self.keyed else for_each_link


@dataclass(frozen=True, kw_only=True)
class Print(Operator):
    """Writes each record to the standard output as one line, `[label]: key, value`, and passes it on."""

    label: str

    effect: ClassVar[bool] = True

    def facts(self) -> dict[str, Any]:
        """The label."""
        return {"label": self.label} if self.label else {}

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        head = f"[{self.label}]: " if self.label else ""

        def print_link(key: Any, value: Any, timestamp_ms: int) -> None:
            # A type's own repr may have several lines.
            line = head + f"{key!r}, {value!r}".replace("\n", "\\n")
            sys.stdout.write(line + "\n")
            forward(key, value, timestamp_ms)

        return print_link
