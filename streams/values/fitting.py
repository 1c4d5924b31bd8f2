"""Whether values of one declared type may be of another: for refusing what cannot be when an app is built.

1. A no is certain; a yes is not: a type that says too little, a class that may have fitting subclasses, and whatever is
   unknown here, fit. What does not fit all the same is refused by its codec, record by record.
2. None fits everything: null is no codec's business.

Not here: codecs (codec), where a type comes from (derived).
"""

import types
import typing
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

_SCALARS = (bytes, str, int, float)
_CONTAINERS = (list, dict, tuple, set, frozenset)


def fits(of: Any, wanted: Any) -> bool:
    """Whether values that are declared as `of` may be values of the type `wanted`."""
    given = _classes(of)
    takes = _classes(wanted)
    if given is None or takes is None:
        return True
    return any(_may_be(each, other) for each in given for other in takes)


def _classes(of: Any) -> list[type] | None:
    """The classes that a type's values have; None where it may be any, an empty list for None alone."""
    while get_origin(of) is Annotated or hasattr(of, "__supertype__"):
        of = get_args(of)[0] if get_origin(of) is Annotated else of.__supertype__
    if of is None or of is type(None):
        return None
    origin: Any = get_origin(of)
    if origin in {Union, types.UnionType}:
        found: list[type] = []
        for member in get_args(of):
            if member is type(None):
                continue
            classes = _classes(member)
            if classes is None:
                return None
            found += classes
        return found
    if origin is Literal:
        return [type(each) for each in get_args(of) if each is not None]
    if typing.is_typeddict(origin or of):
        return [dict]
    cls = origin or of
    if cls is Any or cls is object or isinstance(cls, TypeVar) or not isinstance(cls, type):
        return None
    return [cls]


def _may_be(given: type, wanted: type) -> bool:
    try:
        if issubclass(given, wanted) or issubclass(wanted, given):
            return True
    except TypeError:  # a Protocol that says too little
        return True
    if wanted is float:
        return issubclass(given, int)
    if wanted in _SCALARS or _has_fields(wanted):
        return False
    if wanted in _CONTAINERS:
        # One is written as another: what has fields as a dict, what has items as a list.
        return given not in _SCALARS and given is not bool
    return True


def _has_fields(cls: type) -> bool:
    return hasattr(cls, "__struct_fields__") or hasattr(cls, "__dataclass_fields__")
