"""Operators that look at one record alone.

1. A function of the user sees what reaches it, nulls included; what it raises passes through, and whoever runs the
   chain finds the node by the function.
2. A link costs one Python call a record, and the call of the user's function.
3. New keys that are to be partitioned or stored are checked where they are made: `1`, `True` and `1.0` are one key of a
   dict, so a wrong type would be counted as another key before any codec saw it.
4. A result of the wrong shape is refused, also where Python would make something of it: a coroutine is no truth, a text
   no sequence of values (results).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, ClassVar

from tailrace.streams.program.results import items, pair, refuse_coroutine, truth
from tailrace.streams.program.topology import Forward, Operator
from tailrace.streams.values.derived import Slot, key_check
from tailrace.streams.values.place import function_name


@dataclass(frozen=True, kw_only=True)
class _WithFunction(Operator):
    f: Callable[..., Any]

    def facts(self) -> dict[str, Any]:
        """The function's name."""
        return {"function": function_name(self.f)}


@dataclass(frozen=True, kw_only=True)
class Filter(_WithFunction):
    """Passes on the records for whose value f is true."""

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f

        def filter_link(key: Any, value: Any, timestamp_ms: int) -> None:
            kept = f(value)
            if kept is True or (kept is not False and truth(kept)):
                forward(key, value, timestamp_ms)

        return filter_link


@dataclass(frozen=True, kw_only=True)
class FilterNot(_WithFunction):
    """Passes on the records for whose value f is false."""

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f

        def filter_not_link(key: Any, value: Any, timestamp_ms: int) -> None:
            left_out = f(value)
            if left_out is False or (left_out is not True and not truth(left_out)):
                forward(key, value, timestamp_ms)

        return filter_not_link


@dataclass(frozen=True, kw_only=True)
class FilterKv(_WithFunction):
    """Passes on the records for which f(key, value) is true."""

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f

        def filter_kv_link(key: Any, value: Any, timestamp_ms: int) -> None:
            kept = f(key, value)
            if kept is True or (kept is not False and truth(kept)):
                forward(key, value, timestamp_ms)

        return filter_kv_link


@dataclass(frozen=True, kw_only=True)
class Map(_WithFunction):
    """Replaces the value by f(value)."""

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f

        def map_link(key: Any, value: Any, timestamp_ms: int) -> None:
            made = f(value)
            if made.__class__ is CoroutineType:
                refuse_coroutine(made)
            forward(key, made, timestamp_ms)

        return map_link


@dataclass(frozen=True, kw_only=True)
class MapKv(_WithFunction):
    """Replaces key and value by f(key, value)."""

    key: Slot

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f
        plain, check = key_check(self.key, self.place)
        if plain is None:

            def map_kv_link(key: Any, value: Any, timestamp_ms: int) -> None:
                made = f(key, value)
                new_key, new_value = made if made.__class__ is tuple and len(made) == 2 else pair(made)
                forward(new_key, new_value, timestamp_ms)

            return map_kv_link

        def checked_link(key: Any, value: Any, timestamp_ms: int) -> None:
            made = f(key, value)
            new_key, new_value = made if made.__class__ is tuple and len(made) == 2 else pair(made)
            forward(new_key if new_key.__class__ is plain else check(new_key), new_value, timestamp_ms)

        return checked_link


@dataclass(frozen=True, kw_only=True)
class FlatMap(_WithFunction):
    """Replaces a record by one for every value that f(value) yields, with its key and time."""

    goes_on: ClassVar[bool] = True

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f

        def flat_map_link(key: Any, value: Any, timestamp_ms: int) -> None:
            made = f(value)
            for new_value in made if made.__class__ is list else items(made):
                forward(key, new_value, timestamp_ms)

        return flat_map_link


@dataclass(frozen=True, kw_only=True)
class FlatMapKv(_WithFunction):
    """Replaces a record by one for every key and value that f(key, value) yields, with its time."""

    key: Slot

    goes_on: ClassVar[bool] = True

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f
        plain, check = key_check(self.key, self.place)
        if plain is None:

            def flat_map_kv_link(key: Any, value: Any, timestamp_ms: int) -> None:
                made = f(key, value)
                for each in made if made.__class__ is list else items(made):
                    new_key, new_value = each if each.__class__ is tuple and len(each) == 2 else pair(each, "yield")
                    forward(new_key, new_value, timestamp_ms)

            return flat_map_kv_link

        def checked_link(key: Any, value: Any, timestamp_ms: int) -> None:
            made = f(key, value)
            for each in made if made.__class__ is list else items(made):
                new_key, new_value = each if each.__class__ is tuple and len(each) == 2 else pair(each, "yield")
                forward(new_key if new_key.__class__ is plain else check(new_key), new_value, timestamp_ms)

        return checked_link


@dataclass(frozen=True, kw_only=True)
class KeyBy(_WithFunction):
    """Replaces the key by f(value)."""

    key: Slot

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f
        plain, check = key_check(self.key, self.place)
        if plain is None:

            def key_by_link(_key: Any, value: Any, timestamp_ms: int) -> None:
                key = f(value)
                if key.__class__ is CoroutineType:
                    refuse_coroutine(key)
                forward(key, value, timestamp_ms)

            return key_by_link

        def checked_link(_key: Any, value: Any, timestamp_ms: int) -> None:
            key = f(value)
            if key.__class__ is CoroutineType:
                refuse_coroutine(key)
            forward(key if key.__class__ is plain else check(key), value, timestamp_ms)

        return checked_link


@dataclass(frozen=True, kw_only=True)
class KeyByKv(_WithFunction):
    """Replaces the key by f(key, value)."""

    key: Slot

    def build(self, context: object, forward: Forward) -> Forward:
        """See the class."""
        del context
        f = self.f
        plain, check = key_check(self.key, self.place)
        if plain is None:

            def key_by_kv_link(key: Any, value: Any, timestamp_ms: int) -> None:
                new_key = f(key, value)
                if new_key.__class__ is CoroutineType:
                    refuse_coroutine(new_key)
                forward(new_key, value, timestamp_ms)

            return key_by_kv_link

        def checked_link(key: Any, value: Any, timestamp_ms: int) -> None:
            new_key = f(key, value)
            if new_key.__class__ is CoroutineType:
                refuse_coroutine(new_key)
            forward(new_key if new_key.__class__ is plain else check(new_key), value, timestamp_ms)

        return checked_link
