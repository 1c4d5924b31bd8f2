"""A global table as a program sees it: a topic that every process reads whole, to look up any row.

Not here: its rows (global_rows), joins with it (operators/global_join).
"""

from typing import Any, Generic, TypeGuard, TypeVar

from tailrace.streams.program.topic import Topic
from tailrace.streams.values.place import Place

K = TypeVar("K")
V = TypeVar("V")


class GlobalTable(Generic[K, V]):
    """The latest value of each key of a topic, all of it in every process; made by `App.global_table`.

    `name` is its store's, `topic` what is read, `place` the user's line.
    """

    def __init__(self, name: str, topic: Topic[K, V], place: Place) -> None:
        """Programs get theirs from `App.global_table`."""
        self.name = name
        self.topic = topic
        self.place = place

    def __repr__(self) -> str:
        return f"GlobalTable({self.name!r}, of {self.topic!r}, declared at {self.place})"


def is_global_table(given: object) -> TypeGuard[GlobalTable[Any, Any]]:
    """Whether something is a global table, of whatever types."""
    return isinstance(given, GlobalTable)
