"""Arguments of methods of streams, looked at when they are given.

Raises TypeError or ValueError, with the method's name. Not here: functions (place).
"""

from collections.abc import Mapping
from typing import cast

from tailrace.log.errors import InvalidError
from tailrace.log.topic import check_topic_name
from tailrace.streams.values.place import check_function


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
