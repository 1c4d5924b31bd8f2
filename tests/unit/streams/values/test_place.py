import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tailrace.streams.values.place import Place, check_function, function_name, is_ours, user_place


def test_a_test_is_the_user() -> None:
    place = user_place()
    assert place.file == __file__
    assert str(place) == f"{__file__}:{place.line}"


def test_frames_of_the_package_are_skipped() -> None:
    def outer() -> Place:
        names: dict[str, Any] = {"__name__": "tailrace.streams.something", "user_place": user_place}
        exec("def inner():\n    return user_place()", names)  # a function of a module of ours
        return names["inner"]()  # type: ignore[no-any-return]  # made by exec

    place = outer()
    assert place.file == __file__


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        ("tailrace", True),
        ("tailrace.streams.app", True),
        ("tailrace.tests.unit.x", False),
        ("tailrace.examples.click_counts", False),
        ("tailraces", False),
        ("__main__", False),
    ],
)
def test_ours_is_judged_by_module(module: str, ours: bool) -> None:
    assert is_ours(module) is ours


async def later(_value: int) -> int:
    return 1


async def many() -> AsyncIterator[int]:
    yield 1


class CallMe:
    async def __call__(self, value: int) -> int:
        return value


@pytest.mark.parametrize("f", [later, functools.partial(later, 1), CallMe(), many])
def test_an_async_function_is_refused_with_the_place_where_it_belongs(f: Any) -> None:
    with pytest.raises(TypeError, match=r"map takes a plain function, .* is async.*map_async"):
        check_function(f, "map")


def test_a_class_is_called_to_make_an_object() -> None:
    check_function(CallMe, "map")


def test_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="filter takes a function, not 3"):
        check_function(3, "filter")


def test_names_of_functions() -> None:
    assert [function_name(f) for f in (lambda: 1, later, functools.partial(later, 1), CallMe(), len)] == [
        "lambda",
        "later",
        "later",
        "CallMe",
        "len",
    ]
