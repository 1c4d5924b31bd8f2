"""One function at several nodes: an error names the node that failed, or all that it may have been."""

from collections.abc import Callable

import pytest

from tailrace.errors import TaskError
from tailrace.streams.app import App
from tailrace.testing import TopologyDriver


def no(word: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value == word:
            raise LookupError(word)
        return value

    return check


def told(*functions: Callable[[str], str]) -> str:
    app = App("app", log="memory:")
    source = app.topic("in", key=str, value=str)
    stream = app.stream(source)
    for f in functions:
        stream = stream.map(f)
    stream.to(app.topic("out", key=str, value=str))
    with TopologyDriver(app) as driver, pytest.raises(TaskError) as raised:
        driver.pipe(source, "bad", key="k")
    return str(raised.value)


def test_functions_of_one_code_are_told_apart() -> None:
    assert "LookupError in map-1 (" in told(no("bad"), no("worse"), no("worst"))
    assert "LookupError in map-2 (" in told(no("worse"), no("bad"), no("worst"))


def test_one_function_names_every_node_that_has_it() -> None:
    f = no("bad")
    assert "LookupError in map-1 or map-3 (" in told(f, no("worse"), f)
    assert "LookupError in map-2 (" in told(str.lower, f)
