"""What a function of the user returned, looked at where it is not what the operator takes.

1. Nothing here is called for the usual result (True, None, a tuple, a list): a link tests for that itself, in line.
2. What is refused is refused by TypeError, in a frame of the link that has the function: whoever runs the chain names
   the node, the line and the record.
3. A coroutine that is refused is closed, so that Python does not warn of it too.

Not here: functions that can be seen to be async before they are called (place).
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any

from tailrace.streams.program.topic import Topic, is_topic
from tailrace.streams.values.wording import AWAIT


def _refuse_waiting(result: object, wanted: str) -> None:
    """Refuses what would have to be awaited or run through before it were a result."""
    given: Any = result
    if isinstance(result, Coroutine):
        given.close()
    elif isinstance(result, Generator):
        raise TypeError(f"its function returned a generator, of which nothing has run: {wanted}")
    elif not hasattr(result, "__await__") and not isinstance(result, AsyncIterator):
        return
    raise TypeError(f"its function returned {_a(given)}, and nothing awaits it here: {wanted}; {AWAIT}")


def truth(result: object) -> bool:
    """Whether a predicate's result is true: for what is not True or False itself.

    Raises:
        TypeError: a coroutine, a generator or the like, which is true whatever would come of it.
    """
    _refuse_waiting(result, "it must return True or False")
    return bool(result)


def look_at_effect(result: object) -> None:
    """Refuses what a function that is there for its effect returned, where it has had none yet: for what is not None.

    Raises:
        TypeError: a coroutine, a generator or the like.
    """
    _refuse_waiting(result, "it must do its work and return")


def refuse_coroutine(result: object, wanted: str = "it must return the value itself") -> None:
    """Refuses a coroutine that a function returned as a value, which whoever is behind would have taken for one.

    Raises:
        TypeError: always.
    """
    _refuse_waiting(result, wanted)


def items(result: object) -> Iterable[Any]:
    """What a flat_map's function returned, where it is not a list.

    Raises:
        TypeError: it yields nothing, or is one value that Python would take apart: text, bytes, a mapping.
    """
    wanted = "it must return an iterable such as a list, [] for nothing and [value] for one value"
    given: Any = result
    if isinstance(result, str | bytes | bytearray | memoryview | Mapping) or not isinstance(result, Iterable):
        _refuse_waiting(given, wanted)
        raise TypeError(f"its function returned {_shown(given)}: {wanted}")
    return given  # type: ignore[no-any-return]  # found to be one


def pair(result: object, verb: str = "return") -> tuple[Any, Any]:
    """Key and value that a function returned, or yielded, where it is not a tuple of two.

    Raises:
        TypeError: it is neither a tuple nor a list of two.
    """
    given: Any = result
    if isinstance(result, tuple | list) and len(given) == 2:
        return given[0], given[1]
    wanted = f"it must {verb} (key, value)"
    _refuse_waiting(given, wanted)
    raise TypeError(f"its function {'returned' if verb == 'return' else 'yielded'} {_shown(given)}: {wanted}")


def look_once(encode: Callable[[Any], bytes]) -> Callable[[Any], None]:
    """What looks whether values can be written, though nothing is written yet: raises for those that cannot.

    A class counts as known from its first value on: encoding each one would cost more than a hop. Not so where the
    class says nothing of what is inside, or of how large it is.
    """
    known: set[type] = {type(None)}

    def look(value: Any) -> None:
        if value.__class__ not in known:
            encode(value)
            if value.__class__ is bool or not isinstance(value, int | list | dict | tuple | set | frozenset):
                known.add(value.__class__)

    return look


def chosen_topic(result: object) -> Topic[Any, Any]:
    """The topic that a sink's function chose, where it is not a `Topic` itself.

    Raises:
        TypeError: it is no topic: a name is not enough, as it says no types.
    """
    if is_topic(result):
        return result
    wanted = "it must return a Topic, as app.topic() makes it"
    _refuse_waiting(result, wanted)
    raise TypeError(f"its function returned {_shown(result)}: {wanted}")


def _a(result: object) -> str:
    name = type(result).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _shown(result: object) -> str:
    if result is None:
        return "None"
    shown = repr(result)
    shown = shown if len(shown) <= 100 else shown[:100] + "…"
    return f"{shown} of type {type(result).__name__}"
