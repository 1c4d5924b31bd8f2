"""Two tables joined by key, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tailrace.log.errors import TopologyError
from tailrace.streams.operators.table import TableNode
from tailrace.streams.program.topology import OldValues
from tailrace.streams.values.codec import type_name
from tailrace.streams.values.derived import UNKNOWN, Slot
from tailrace.streams.values.fitting import fits
from tailrace.streams.values.place import function_name

JoinKind = Literal["inner", "left", "outer"]
"""Which rows there are: those that both tables have, those of the left one, or those of either."""


@dataclass(frozen=True, kw_only=True)
class TableJoin(TableNode):
    """f(left value, right value) for each key, brought about by changes of either table; None of f is no row.

    A value that is missing is None. A key that was not in the result and is not in it brings nothing about.
    """

    f: Callable[[Any, Any], Any]
    join: JoinKind
    right_key: Slot

    goes_on = True

    @property
    def newest_only(self) -> bool:
        """The rows of both."""
        return True

    @property
    def old(self) -> OldValues:
        """Whether a row was in the result shows in the values that are replaced, or in the store."""
        return "wanted" if self.store_name is None else "unused"

    def facts(self) -> dict[str, Any]:
        """Which join, the function's name, and the codecs of its store."""
        return {"join": self.join, "function": function_name(self.f)} | super().facts()

    def check(self, inputs: int) -> None:
        """Keys of two types never meet."""
        super().check(inputs)
        left, right = self.key, self.right_key
        if left.of is not UNKNOWN and right.of is not UNKNOWN and not fits(left.of, right.of):
            raise TopologyError(
                f"the tables joined at {self.place} have keys of two types: {type_name(left.of)}, from {left.where}, "
                f"and {type_name(right.of)}, from {right.where}: group one of them by the key of the other, or give "
                "on=, the function that finds it"
            )
