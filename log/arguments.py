"""Arguments of a user's call, looked at when they are given: whatever their annotations say.

Raises TypeError for a wrong type and ValueError for a value that cannot be, each in a sentence that begins with the
argument. Not here: names of topics (topic), what a record may be made of (outgoing).
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, cast

from tailrace.log.client import CommittedOffset
from tailrace.log.record import TopicPartition, as_partition

INT64_MAX: Final = (1 << 63) - 1


def check_int(name: str, value: object, least: int, most: int = INT64_MAX, *, where: str = "") -> None:
    """An int from `least` to `most`; True is none. `where` is what takes the argument, as App."""
    shown = f"{where}({name}={value!r})" if where else f"{name}={value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{shown} is not an int: give {least} or more")
    if value < least:
        raise ValueError(f"{shown} is below {least}: give {least} or more")
    if value > most:
        raise ValueError(f"{shown} is above {most}: give that or less")


def check_ms(name: str, value: object) -> None:
    """A number of milliseconds, 0 or more, that a clock can wait for."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} is not a number of milliseconds: give 0 or more")
    if not 0 <= value <= INT64_MAX:  # nor is it not a number
        raise ValueError(f"{name}={value} is not a time to wait: give 0 or more milliseconds")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """One of some words."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name}={value!r}: give one of {', '.join(map(repr, known))}")


def check_text(name: str, value: object, *, where: str = "") -> None:
    """A str."""
    if not isinstance(value, str):
        raise TypeError(f"{f'{where}({name}={value!r})' if where else f'{name}={value!r}'} is not a str")


def offsets_given(offsets: object, name: str = "offsets") -> dict[TopicPartition, CommittedOffset]:
    """Offsets by partition, as a caller gives them; what is negative is found where it is committed."""
    if not isinstance(offsets, Mapping):
        raise TypeError(f"{name}={offsets!r} is not a mapping of partitions to offsets")
    wanted: dict[TopicPartition, CommittedOffset] = {}
    for each, offset in cast("Mapping[Any, object]", offsets).items():
        partition = as_partition(each)
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise TypeError(f"the offset for {partition} is an int, not {offset!r}")
        wanted[partition] = CommittedOffset(offset)
    return wanted


def many(name: str, value: Any, of: str) -> list[Any]:
    """Several of something, as a list."""
    if not isinstance(value, str | bytes):
        with suppress(TypeError):  # not to be walked
            return list(value)
    raise TypeError(f"{name}={value!r} is not a list of {of}")
