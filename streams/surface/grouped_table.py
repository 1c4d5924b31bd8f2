"""The fluent surface of grouped tables: like that of grouped streams, with a way back for what leaves a group."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from tailrace.streams.operators.retraction import ReplacedSlot, TableAggregate
from tailrace.streams.program.reduced import Reduced, reduced
from tailrace.streams.program.reducers import Reducer
from tailrace.streams.surface.flow import Flow, checked_store, repartitioned
from tailrace.streams.values.codec import codec_of
from tailrace.streams.values.derived import Slot, zero_slot
from tailrace.streams.values.place import Place, check_function, user_place

if TYPE_CHECKING:
    from tailrace.streams.surface.table import Table

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
T = TypeVar("T")


class GroupedTable(Generic[K, V]):
    """The rows of a table by group; made by `Table.group_by`.

    An aggregate follows its rows: what comes is added, what goes or is replaced is taken back. Between two groups a row
    is for a moment in neither. A function that returns None deletes the group's value; the next row begins anew.
    """

    def __init__(
        self, flow: Flow, value: Slot, place: Place, name: str | None, made: "Callable[[Flow], Table[Any, Any]]"
    ) -> None:
        """Programs get theirs from `Table.group_by`; `made` makes a table of a flow."""
        self._flow = flow
        self._value = value
        self._place = place
        self._name = name
        self._made = made
        self._shared: Flow | None = None

    def count(self, *, store: str) -> "Table[K, int]":
        """How many rows each group has: 0 where all have left."""
        place = user_place()
        value = Slot("value", f"count(store={store!r})", place=place, of=int, codec=codec_of(int))
        return self._table("count", store, value, place)

    def reduce(
        self, add: Callable[[V, V], V | None], remove: Callable[[V, V], V | None], *, store: str
    ) -> "Table[K, V]":
        """Folds the values of a group: the first one is taken as it is.

        Args:
            add: (so far, value that comes) to the next; None deletes.
            remove: (so far, value that goes) to the next; None deletes.
            store: the store's name.

        Raises:
            TypeError: one of them is no plain function, or `store` no name.
        """
        check_function(add, f"reduce(store={store!r})")
        check_function(remove, f"reduce(store={store!r}, remove=…)")
        return self._table("reduce", store, self._value, user_place(), add=add, remove=remove)

    def aggregate(
        self,
        zero: Callable[[], A],
        add: Callable[[A, V], A | None],
        remove: Callable[[A, V], A | None],
        *,
        store: str,
        value: type[A] | None = None,
    ) -> "Table[K, A]":
        """Folds the values of a group, beginning with `zero()`.

        Args:
            zero: what a group begins with.
            add: (so far, value that comes) to the next; None deletes.
            remove: (so far, value that goes) to the next; None deletes.
            store: the store's name.
            value: the type of the result, where neither the annotation of `add` nor `zero()` tells it.

        Raises:
            TypeError: one of them is no plain function, or `store` no name.
        """
        place, where = user_place(), f"aggregate(store={store!r})"
        check_function(zero, f"aggregate(store={store!r}, zero=…)")
        check_function(add, where)
        check_function(remove, f"aggregate(store={store!r}, remove=…)")
        slot = zero_slot(where, place, zero, value, add)
        return self._table("aggregate", store, slot, place, zero=zero, add=add, remove=remove)

    def agg(self, into: type[T], *, store: str, **reducers: Reducer[V]) -> "Table[K, T]":
        """Folds the values of a group in several ways at once; see `Grouped.agg`.

        Raises:
            TypeError: as there; or a reducer cannot take back what was added: `min max first last top_k`, `collect`
                with a limit, and a `reducer` of one's own without `remove=`.
        """
        place = user_place()
        made = reduced(into, reducers, store=checked_store(store, "agg"), place=place, table=True)
        return self._table("agg", store, Slot("value", f"agg(store={store!r})", place=place, of=into), place, made)

    def _table(
        self,
        function: Literal["count", "reduce", "aggregate", "agg"],
        store: str,
        value: Slot,
        place: Place,
        reducers: Reduced | None = None,
        *,
        zero: Callable[[], Any] | None = None,
        add: Callable[[Any, Any], Any] | None = None,
        remove: Callable[[Any, Any], Any] | None = None,
    ) -> "Table[K, Any]":
        flow = self._repartitioned(checked_store(store, function))
        operator = TableAggregate(
            name=flow.graph.name_for(function),
            place=place,
            store_name=store,
            function=function,
            zero=zero,
            add=add,
            remove=remove,
            merge=None,
            window=None,
            emit="update",
            retention_ms=None,
            key=flow.key,
            value=value,
            reduced=reducers,
        )
        return self._made(flow.then(operator, value=value))

    def _repartitioned(self, store: str) -> Flow:
        """The groups' changes in the partition of their group: one repartition an aggregate, or a shared one."""
        if self._shared is not None:
            return self._shared
        flow = replace(self._flow, value=ReplacedSlot(self._value))
        after = repartitioned(flow, self._name or store, self._place)
        if self._name is not None:
            self._shared = after
        return after
