"""The fluent surface of a table: each method adds one node."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tailrace.streams.flow import Flow
from tailrace.streams.operators.table import Changes, ToStream
from tailrace.streams.place import user_place
from tailrace.streams.topic import Topic

if TYPE_CHECKING:
    from tailrace.streams.stream import Stream

K = TypeVar("K")
V = TypeVar("V")


class Table(Generic[K, V]):
    """The latest value of each key, as a sequence of changes; made by an aggregate.

    Between two commits the cache may merge changes of one key; the last one always comes through.
    """

    def __init__(self, flow: Flow, stream: "type[Stream[Any, Any]]") -> None:
        """Programs get theirs from an aggregate."""
        self._flow = flow
        self._stream = stream

    def to_stream(self) -> "Stream[K, V | None]":
        """Every change as a record; None is a delete."""
        name = self._flow.graph.name_for("to-stream")
        return self._stream(self._flow.then(ToStream(name=name, place=user_place())))

    def changes(self) -> "Stream[K, V]":
        """Every change as a record, without the deletes."""
        name = self._flow.graph.name_for("changes")
        return self._stream(self._flow.then(Changes(name=name, place=user_place())))

    def to(self, topic: Topic[K, V]) -> None:
        """Writes every change to a topic; deletes become null values."""
        self.to_stream().to(topic)
