"""Arguments of an app and of methods of streams, looked at when they are given.

Raises TypeError or ValueError, with the name of what takes them. Not here: functions (place).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import cast

from tailrace.log.errors import InvalidError
from tailrace.log.topic import check_topic_name
from tailrace.streams.values.place import check_function
from tailrace.windows.duration import format_ms, to_ms
from tailrace.windows.window import Window


def check_node_name(name: object, where: str) -> None:
    """Refuses what cannot name a node."""
    if not isinstance(name, str):
        raise TypeError(f"{where}(name={name!r}) is no name: give a str")
    try:
        check_topic_name(name)
    except InvalidError as error:
        raise ValueError(f"{where}(name={name!r}) is no name: {error}") from error


def check_branches(branches: object, default: object) -> None:
    """Refuses what `Stream.split` cannot take."""
    if not isinstance(branches, Mapping):
        raise TypeError(f"split takes a mapping of names to functions, not {branches!r}")
    for name, f in cast("Mapping[object, object]", branches).items():
        if not isinstance(name, str):
            raise TypeError(f"split: {name!r} is no name of a branch: give a str")
        check_function(f, f"split({name!r})")
    if default is not None and not isinstance(default, str):
        raise TypeError(f"split(default={default!r}) is no name of a branch: give a str")
    if default in branches:
        raise ValueError(f"split(default={default!r}) is the name of another branch")
    if not branches and default is None:
        raise ValueError("split has no branch: give at least one")


def check_partitions(where: str, partitions: int | None) -> None:
    """Refuses what is no number of partitions."""
    if isinstance(partitions, bool) or not isinstance(partitions, int | None):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
        raise TypeError(f"{where}(partitions={partitions!r}) is not a number above 0")
    if partitions is not None and partitions < 1:
        raise ValueError(f"{where}(partitions={partitions!r}) is not a number above 0")


def check_choice(name: str, value: object, allowed: tuple[str, ...], where: str = "App") -> None:
    """Refuses what is none of some words."""
    if value not in allowed:
        raise ValueError(f"{where}({name}={value!r}) is none of {', '.join(map(repr, allowed))}")


def check_window(window: object, store: str) -> None:
    """Refuses what is no window of a store."""
    if window is not None and not isinstance(window, Window):
        raise TypeError(f"app.store({store!r}, window={window!r}) is no window: give tumbling(…) or another one")


def not_negative_ms(name: str, value: timedelta) -> int:
    """A time of 0 or more, in ms."""
    milliseconds = to_ms(value, name)
    if milliseconds < 0:
        raise ValueError(f"{name} is {format_ms(milliseconds)}: a time below 0")
    return milliseconds


def positive_ms(name: str, value: timedelta, where: str = "App") -> int:
    """A time above 0, in ms."""
    milliseconds = to_ms(value, name)
    if milliseconds <= 0:
        raise ValueError(f"{where}({name}={format_ms(milliseconds)}) is not above 0")
    return milliseconds
