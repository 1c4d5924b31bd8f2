"""Joins of two streams: their data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tailrace.state.session_rows import SessionLayout
from tailrace.streams.program.kept_as import Form, KeptAs
from tailrace.streams.program.topology import KeptStore, Operator, Output
from tailrace.streams.values.codec import TypeCodec
from tailrace.streams.values.derived import Slot
from tailrace.streams.values.place import function_name
from tailrace.windows.join import JoinWindow

JoinKind = Literal["join", "left_join", "outer_join"]
"""Which records without a partner have a result of their own: none, the left ones, those of both sides."""


@dataclass(frozen=True, kw_only=True)
class StreamJoin(Operator):
    """Sends f(left, right) for every two records of one key whose times lie in the window.

    Its parents are the left stream and the right one; or one stream alone (`of_itself`), each record of which stands on
    both sides. Output "late" has the records that came after their window closed, as they came.
    """

    store_name: str
    join: JoinKind
    f: Callable[[Any, Any], Any]
    window: JoinWindow
    of_itself: bool
    key: Slot
    left: Slot
    """Of the left side's values."""
    right: Slot
    """Of the right side's."""

    goes_on: ClassVar[bool] = True

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The results, and the late records."""
        return ("main", "late")

    @property
    def left_store(self) -> str:
        """The name of the left side's store; of the only one, where a stream is joined to itself."""
        return self.store_name if self.of_itself else f"{self.store_name}-left"

    @property
    def right_store(self) -> str:
        """The name of the right side's."""
        return self.store_name if self.of_itself else f"{self.store_name}-right"

    @property
    def stores(self) -> tuple[KeptStore, ...]:
        """The records of each side, for as long as a partner may come."""
        layout = SessionLayout(0)
        if self.of_itself:
            return (KeptStore(self.left_store, layout, self.window.either_retention_ms),)
        retention_ms = self.window.retention_ms
        return (
            KeptStore(self.left_store, layout, retention_ms),
            KeptStore(self.right_store, layout, retention_ms),
        )

    @property
    def caches(self) -> bool:
        """Pairs are sent at once, and what has no partner when its window closes."""
        return False

    def kept_as(self, store: str) -> KeptAs:
        """The records of a side; marks of those that have a partner are kept only where it matters."""
        key, value = self.key.codec, self.codec_of(store)
        marked = self.left_unmatched if store == self.left_store else self.right_unmatched
        rows = "marked join" if marked and not self.of_itself else "join"
        return KeptAs(rows, Form(key.name, key.fields), Form(value.name, value.fields))

    def codec_of(self, store: str) -> TypeCodec:
        """The codec of the values in one of its stores."""
        return (self.left if store == self.left_store else self.right).codec

    @property
    def left_unmatched(self) -> bool:
        """Whether a left record without a partner has a result."""
        return self.join != "join"

    @property
    def right_unmatched(self) -> bool:
        """Whether a right one has."""
        return self.join == "outer_join"

    @property
    def grace_ms(self) -> int:
        """The window's."""
        return self.window.grace_ms

    @property
    def delay_ms(self) -> int:
        """A record without a partner is sent, with its own time, when its window has closed."""
        if self.of_itself:
            return 0
        left_ms = self.window.left_open_ms + 1 if self.left_unmatched else 0
        return max(left_ms, self.window.right_open_ms + 1 if self.right_unmatched else 0)

    def facts(self) -> dict[str, Any]:
        """The function, the types and the window."""
        return {
            "join": self.join.removesuffix("_join").replace("join", "inner"),
            "function": function_name(self.f),
            "key": self.key.codec.name,
            "left": self.left.codec.name,
            "right": self.right.codec.name,
            "window": str(self.window),
            "grace_ms": self.grace_ms,
            "delay_ms": self.delay_ms,
            "retention_ms": self.stores[0].retention_ms,
        }

    def check(self, inputs: int) -> None:
        """Keys of both sides must have one codec, and what is kept must have codecs."""
        del inputs
        _ = self.key.codec, self.left.codec, self.right.codec
