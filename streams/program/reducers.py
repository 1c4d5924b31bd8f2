"""Reducers: small folds that `agg` puts side by side, one for each field of its result.

1. A reducer is a value; what it does to its state for one field is made by `bind`, once, when `agg` is called.
2. Items are taken in the order of arrival: that of the offsets in the partition that the aggregate reads. Where
   sessions merge, the items of the earlier session come first, then those of the later one, then the record that joined
   them.
3. An item that is None is left out, by every reducer that asks a function for items.
4. What is kept is the state's own: an item that somebody could change in place is copied.
5. A reducer that throws items away cannot take one back: `min max first last top_k`, and `collect` with a limit.

Not here: how reducers become one aggregate, and the bytes of their states (reduced).
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Generic, TypeVar, Union, get_args

from tailrace.streams.values.codec import NATURAL_VALUE, encode_error, msgpack
from tailrace.streams.values.derived import UNKNOWN
from tailrace.streams.values.place import check_function

V = TypeVar("V")
A = TypeVar("A")

_PLAIN = frozenset((bool, int, float, str, bytes))


class Item:
    """What one field takes: makes of an item what may be kept of it."""

    def __init__(self, of: Any, what: str, advice: str) -> None:
        """`of` is its type, `UNKNOWN` for built-in ones; errors call it `what`, and end with `advice`."""
        # Bare ones do not say what is in them.
        known = of is not UNKNOWN and of not in {list, dict}
        self.of = of if known else Any
        self._codec = msgpack(of) if known else NATURAL_VALUE
        self._plain = _PLAIN.intersection(get_args(of) or (of,)) if known else _PLAIN
        self._what, self._advice = what, advice
        self.encode = self._codec.encode
        """Bytes of what was kept: equal exactly where that is."""
        self.decode = self._codec.decode

    @property
    def optional(self) -> Any:
        """The type of an item or None."""
        return Union[self.of, None]  # noqa: UP007 - the type is only known here

    @property
    def several(self) -> Any:
        """The type of a list of items."""
        return GenericAlias(list, (self.of,))

    def keep(self, item: Any) -> Any:
        """The item as the field's type, and as nobody else can change it.

        Raises:
            EncodeError: it does not fit the type; or there is none, and it is no built-in value.
        """
        cls = item.__class__
        if cls in self._plain:
            return item
        if cls is bool and int in self._plain:
            return int(item)
        if cls is int and float in self._plain:
            return float(item)
        return self.copy(item)

    def copy(self, item: Any) -> Any:
        """The item as it comes back from its bytes; raises as `keep`."""
        try:
            return self.decode(self.encode(item))
        except Exception as error:
            raised = encode_error(self._what, self._codec, item, error)
            raise type(raised)(f"{raised}{self._advice}") from error


def _nothing() -> None:
    """The state of what has seen no item."""


def _as_it_is(state: Any) -> Any:
    return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a reducer does to its state for one field. Any of them may change the state that it is given in place."""

    state: Any
    """The state's type, for msgpack."""
    zero: Callable[[], Any] = _nothing
    add: Callable[[Any, Any], Any]
    """(state, record's value) to the next state."""
    remove: Callable[[Any, Any], Any] | None = None
    """Takes back a value that was added; None where that cannot be."""
    merge: Callable[[Any, Any], Any] | None
    """(earlier session's state, later one's) to one; None where that cannot be."""
    result: Callable[[Any], Any] = _as_it_is
    """The field's value; may share what is in the state."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reducer(Generic[V]):
    """One field's part of an `agg` over values of type V; made by the functions of `tailrace.reducers`."""

    name: str
    """The function that made it."""
    bind: Callable[[Item], Steps]
    functions: tuple[Callable[..., Any], ...] = ()
    """The user's, which it calls."""
    many: bool = False
    """Whether the field has a list of items, and not one."""
    takes: Any = UNKNOWN
    """The type of its items, where that is not for the field to say."""
    sample: Any = UNKNOWN
    """Some result, to hold against the field's type; UNKNOWN where it depends on the user's functions."""
    retracts: bool = False
    """Whether a value can be taken back: needed over a grouped table."""
    merges: bool = True
    """Whether two states can become one: needed in sessions."""


def count() -> Reducer[Any]:
    """How many values there are."""

    def bind(_item: Item) -> Steps:
        return Steps(
            state=int,
            zero=int,
            add=lambda total, _value: total + 1,
            remove=lambda total, _value: total - 1,
            merge=operator.add,
        )

    return Reducer(name="count", bind=bind, sample=1, retracts=True)


def sum(f: Callable[[V], Any]) -> Reducer[V]:  # noqa: A001 - the contract's name
    """The sum of f(value), beginning with the first one, by `+`; 0 where there is none.

    Integers in a store have 64 bits. Floats are added in order of arrival, so the last digits may depend on it.
    """
    check_function(f, "sum")

    def bind(item: Item) -> Steps:
        keep = item.keep

        def add(total: Any, value: V) -> Any:
            term = f(value)
            if term is None:
                return total
            return keep(term) if total is None else total + keep(term)

        def remove(total: Any, value: V) -> Any:
            term = f(value)
            return total if term is None or total is None else total - keep(term)

        return Steps(
            state=item.optional,
            add=add,
            remove=remove,
            merge=_of_two(operator.add),
            result=lambda total: 0 if total is None else total,
        )

    return Reducer(name="sum", bind=bind, functions=(f,), retracts=True)


def min(f: Callable[[V], Any]) -> Reducer[V]:  # noqa: A001 - the contract's name
    """The smallest f(value), of equal ones the first that came; None where there is none. Cannot take back."""
    return _best("min", f, operator.lt)


def max(f: Callable[[V], Any]) -> Reducer[V]:  # noqa: A001 - the contract's name
    """The greatest f(value), of equal ones the first that came; None where there is none. Cannot take back."""
    return _best("max", f, operator.gt)


def mean(f: Callable[[V], float]) -> Reducer[V]:
    """The mean of f(value), kept as sum and number; None where there is none."""
    check_function(f, "mean")

    def bind(item: Item) -> Steps:
        keep = item.keep

        def add(state: tuple[float, int], value: V) -> tuple[float, int]:
            term: Any = f(value)
            return state if term is None else (state[0] + keep(term), state[1] + 1)

        def remove(state: tuple[float, int], value: V) -> tuple[float, int]:
            term: Any = f(value)
            return state if term is None else (state[0] - keep(term), state[1] - 1)

        return Steps(
            state=tuple[int | float, int],
            zero=lambda: (0, 0),
            add=add,
            remove=remove,
            merge=lambda a, b: (a[0] + b[0], a[1] + b[1]),
            result=lambda state: state[0] / state[1] if state[1] else None,
        )

    return Reducer(name="mean", bind=bind, functions=(f,), takes=int | float, sample=0.5, retracts=True)


def first(f: Callable[[V], Any]) -> Reducer[V]:
    """The f(value) that came first, by order of arrival and not by time; None where there is none. Cannot take back."""
    check_function(f, "first")

    def bind(item: Item) -> Steps:
        keep = item.keep

        def add(kept: Any, value: V) -> Any:
            if kept is not None:
                return kept
            new = f(value)
            return None if new is None else keep(new)

        return Steps(state=item.optional, add=add, merge=_of_two(lambda a, _b: a))

    return Reducer(name="first", bind=bind, functions=(f,))


def last(f: Callable[[V], Any]) -> Reducer[V]:
    """The f(value) that came last, by order of arrival and not by time; None where there is none. Cannot take back."""
    check_function(f, "last")

    def bind(item: Item) -> Steps:
        keep = item.keep

        def add(kept: Any, value: V) -> Any:
            new = f(value)
            return kept if new is None else keep(new)

        return Steps(state=item.optional, add=add, merge=_of_two(lambda _a, b: b))

    return Reducer(name="last", bind=bind, functions=(f,))


def collect(f: Callable[[V], Any], *, limit: int | None = None) -> Reducer[V]:
    """Every f(value), as a list in order of arrival.

    The whole list is written at each commit that changes it, so it should stay short.

    Args:
        f: gives the items.
        limit: how many are kept, the first that came; with it nothing can be taken back. None keeps all.

    Raises:
        ValueError: `limit` is below 1.
    """
    check_function(f, "collect")
    if limit is not None:
        _check_number(limit, f"collect(limit={limit!r})")

    def bind(item: Item) -> Steps:
        keep = item.keep

        def add(items: list[Any], value: V) -> list[Any]:
            if limit is None or len(items) < limit:
                new = f(value)
                if new is not None:
                    items.append(keep(new))
            return items

        def remove(items: list[Any], value: V) -> list[Any]:
            old = f(value)
            if old is not None and (kept := keep(old)) in items:
                items.remove(kept)
            return items

        def merge(items: list[Any], later: list[Any]) -> list[Any]:
            return (items + later)[:limit]

        return Steps(state=item.several, zero=list, add=add, remove=remove if limit is None else None, merge=merge)

    return Reducer(name="collect", bind=bind, functions=(f,), many=True, sample=[], retracts=limit is None)


def distinct(f: Callable[[V], Any]) -> Reducer[V]:
    """Every different f(value) once, as a list in the order in which they came first.

    Items are the same when their bytes are, as those of keys: 1, 1.0 and True are three, unless the field's type makes
    them one. The whole list is written at each commit that changes it, so it should stay short.
    """
    check_function(f, "distinct")

    def bind(item: Item) -> Steps:
        keep, encode, decode = item.keep, item.encode, item.decode

        def add(seen: dict[bytes, int], value: V) -> dict[bytes, int]:
            new = f(value)
            if new is not None:
                data = encode(keep(new))
                seen[data] = seen.get(data, 0) + 1
            return seen

        def remove(seen: dict[bytes, int], value: V) -> dict[bytes, int]:
            old = f(value)
            data = None if old is None else encode(keep(old))
            if data in seen:
                seen[data] -= 1
                if not seen[data]:
                    del seen[data]
            return seen

        def merge(seen: dict[bytes, int], later: dict[bytes, int]) -> dict[bytes, int]:
            for data, times in later.items():
                seen[data] = seen.get(data, 0) + times
            return seen

        return Steps(
            state=dict[bytes, int],
            zero=dict,
            add=add,
            remove=remove,
            merge=merge,
            result=lambda seen: [decode(data) for data in seen],
        )

    return Reducer(name="distinct", bind=bind, functions=(f,), many=True, sample=[], retracts=True)


def top_k(n: int, *, by: Callable[[V], Any]) -> Reducer[V]:
    """The n values with the greatest by(value), greatest first, of equal ones the first that came. Cannot take back.

    Raises:
        ValueError: `n` is below 1.
    """
    check_function(by, "top_k")
    _check_number(n, f"top_k({n!r})")

    def bind(item: Item) -> Steps:
        keep, f = item.keep, by

        def add(best: list[Any], value: V) -> list[Any]:
            rank = f(value)
            if rank is None or (len(best) == n and not f(best[-1]) < rank):
                return best
            # In ascending order from the end; behind those that are equal.
            at = len(best) - _count_below(best, rank)
            best.insert(at, keep(value))
            del best[n:]
            return best

        def _count_below(best: list[Any], rank: Any) -> int:
            below = 0
            while below < len(best) and f(best[-1 - below]) < rank:
                below += 1
            return below

        def merge(best: list[Any], later: list[Any]) -> list[Any]:
            return sorted(best + later, key=f, reverse=True)[:n]

        return Steps(state=item.several, zero=list, add=add, merge=merge)

    return Reducer(name="top_k", bind=bind, functions=(by,), many=True, sample=[])


def reducer(
    zero: Callable[[], A],
    add: Callable[[A, V], A],
    *,
    remove: Callable[[A, V], A] | None = None,
    merge: Callable[[A, A], A] | None = None,
) -> Reducer[V]:
    """A reducer of one's own, whose state is what the field shows.

    Args:
        zero: what it begins with.
        add: the state so far and a value to the next; it may change the state in place. None begins anew.
        remove: takes back a value that was added; without it the reducer is refused over a grouped table.
        merge: makes one of two states, the earlier session's first; without it the reducer is refused in sessions.
    """
    functions = (zero, add, remove, merge)
    for name, f in zip(("zero", "add", "remove", "merge"), functions, strict=True):
        if f is not None:
            check_function(f, f"reducer({name}=…)")

    def bind(item: Item) -> Steps:
        def step(f: Callable[[Any, V], Any]) -> Callable[[Any, V], Any]:
            def next_state(state: Any, value: V) -> Any:
                found = f(zero() if state is None else state, value)
                return item.keep(value) if found is value and value is not None else found

            return next_state

        return Steps(
            state=item.optional,
            zero=zero,
            add=step(add),
            remove=None if remove is None else step(remove),
            merge=None if merge is None else _of_two(merge),
        )

    given = tuple(f for f in functions if f is not None)
    return Reducer(name="reducer", bind=bind, functions=given, retracts=remove is not None, merges=merge is not None)


# ---------------------------------------------------------------- what they share


def _best(name: str, f: Callable[[V], Any], better: Callable[[Any, Any], Any]) -> Reducer[V]:
    check_function(f, name)

    def bind(item: Item) -> Steps:
        keep = item.keep

        def add(best: Any, value: V) -> Any:
            new = f(value)
            if new is None or (best is not None and not better(new, best)):
                return best
            return keep(new)

        return Steps(state=item.optional, add=add, merge=_of_two(lambda a, b: b if better(b, a) else a))

    return Reducer(name=name, bind=bind, functions=(f,))


def _of_two(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`f` for states of which either may be None: then the other one stands."""

    def merge(a: Any, b: Any) -> Any:
        return b if a is None else a if b is None else f(a, b)

    return merge


def _check_number(n: object, where: str) -> None:
    if not isinstance(n, int) or n is True:
        raise TypeError(f"{where} is no whole number")
    if n < 1:
        raise ValueError(f"{where} keeps nothing: give at least 1")
