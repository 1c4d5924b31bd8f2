"""Tables as data: where they begin, what is made of them, and the ways back to a stream.

What flows between nodes of a table are changes: key, new value (None: deleted), time; the value that is replaced stands
in the task's context, for nodes that ask for it (`old`). What the nodes do is built beside their data (kept, build).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

from msgspec.structs import replace

from tailrace.state.keyvalue import KeyValueStore
from tailrace.streams.chain.backed import Backing, SourceLayout
from tailrace.streams.program.kept_as import KeptAs, kept_as
from tailrace.streams.program.results import refuse_coroutine, truth
from tailrace.streams.program.topology import Forward, KeptStore, OldValues, Operator
from tailrace.streams.values.derived import Slot
from tailrace.streams.values.place import function_name


@dataclass(frozen=True, kw_only=True)
class TableNode(Operator):
    """What makes a table; with a store it keeps its content."""

    store_name: str | None
    key: Slot
    value: Slot

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """Its store, if it has one."""
        return () if self.store_name is None else (KeptStore(self.store_name, KeyValueStore.layout),)

    def kept_as(self, store: str) -> KeptAs:
        """Keys and values."""
        del store
        return kept_as(self.key.codec, self.value.codec)

    def facts(self) -> dict[str, Any]:
        """The codecs of its store."""
        return {} if self.store_name is None else {"key": self.key.codec.name, "value": self.value.codec.name}

    def check(self, inputs: int) -> None:
        """What is stored must have codecs."""
        del inputs
        if self.store_name is not None:
            _ = self.key.codec, self.value.codec


@dataclass(frozen=True, kw_only=True)
class TableSource(TableNode):
    """The latest value of each key of a stream: None deletes, and a null key is dropped (reason "null_key").

    Every record is passed on as a change, also one that changes nothing, or deletes what is not there.
    """

    source: Backing | None = None
    """The topic that it is read from, where the store is restored from that."""

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """Its store, with or without a changelog of its own."""
        if self.source is None or self.store_name is None:
            return super().stores
        layout = SourceLayout(self.source, self.value.codec)
        return (KeptStore(self.store_name, layout, source=self.source.topic),)

    def kept_as(self, store: str) -> KeptAs:
        """Keys and values, and what they are restored from."""
        source = "" if self.source is None else self.source.topic.name
        return replace(super().kept_as(store), source=source)


@dataclass(frozen=True, kw_only=True)
class TableFilter(TableNode):
    """The rows of a table for which f is (or, with `negate`, is not) true.

    f sees the value, or key and value (`keyed`). A row that leaves is deleted; one that was never in brings about
    nothing.
    """

    f: Callable[..., object]
    keyed: bool
    negate: bool

    @property
    def row_by_row(self) -> bool:
        """Unless it is kept."""
        return self.store_name is None

    @property
    def newest_only(self) -> bool:
        """What is kept has no versions."""
        return self.store_name is not None

    @property
    def old(self) -> OldValues:
        """Whether a row was in shows in the value that is replaced, or in the store."""
        return "wanted" if self.store_name is None else "unused"

    def facts(self) -> dict[str, Any]:
        """The function's name, and the codecs of its store."""
        return {"function": function_name(self.f)} | super().facts()

    def rule(self) -> Callable[[Any, Any], Any]:
        """(key, value) to the value, or to None where the row is left out."""
        f, negate = self.f, self.negate

        def rule(_key: Any, value: Any) -> Any:
            kept = f(value)
            return value if (kept if kept is True or kept is False else truth(kept)) is not negate else None

        def rule_kv(key: Any, value: Any) -> Any:
            kept = f(key, value)
            return value if (kept if kept is True or kept is False else truth(kept)) is not negate else None

        return rule_kv if self.keyed else rule


@dataclass(frozen=True, kw_only=True)
class TableMap(TableNode):
    """Each value of a table replaced by f(value), or f(key, value) (`keyed`); None deletes."""

    f: Callable[..., Any]
    keyed: bool

    @property
    def row_by_row(self) -> bool:
        """Unless it is kept."""
        return self.store_name is None

    @property
    def newest_only(self) -> bool:
        """What is kept has no versions."""
        return self.store_name is not None

    @property
    def old(self) -> OldValues:
        """It maps old values where somebody behind it asks for them."""
        return "passed" if self.store_name is None else "unused"

    def facts(self) -> dict[str, Any]:
        """The function's name, and the codecs of its store."""
        return {"function": function_name(self.f)} | super().facts()

    def rule(self) -> Callable[[Any, Any], Any]:
        """(key, value) to the new value."""
        f = self.f

        def rule(_key: Any, value: Any) -> Any:
            made = f(value)
            if made.__class__ is CoroutineType:
                refuse_coroutine(made)
            return made

        def rule_kv(key: Any, value: Any) -> Any:
            made = f(key, value)
            if made.__class__ is CoroutineType:
                refuse_coroutine(made)
            return made

        return rule_kv if self.keyed else rule


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
