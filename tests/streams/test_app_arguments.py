"""Arguments of an app that cannot be: one sentence that names them."""

from pathlib import Path
from typing import Any

import pytest

from tailrace import App, Log
from tailrace.errors import InvalidError, TailraceError

NO_INTS: list[Any] = [None, True, "2", 1.5, float("nan"), []]
NO_TIMES: list[Any] = [True, "2", 1.5, []]
OPTIONS: dict[str, list[Any]] = {
    "name": [None, 1, b"app", []],
    "log": [None, 1, Path("log"), []],
    "guarantee": [None, True, "at_most_once", []],
    "commit_interval": [None, *NO_TIMES],
    "state_dir": [1, True, b"state", Path("state"), [], ""],
    "cache_bytes": NO_INTS,
    "on_bad_record": [None, True, "stop", []],
    "on_error": [None, True, "stop", []],
    "reset": [None, True, "none", []],
    "max_future": NO_TIMES,
    "threads": NO_INTS,
    "version": [*NO_INTS, 0, -1],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_named(option: str) -> None:
    for bad in OPTIONS[option]:
        options: dict[str, Any] = {"name": "app", "log": "memory:"} | {option: bad}
        with pytest.raises((TypeError, ValueError, TailraceError)) as raised:
            App(**options)
        assert f"{option}=" in str(raised.value), bad
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("threads", "told"), [(0, "is below 1"), (-3, "is below 1"), (10**6, "is above 10000")])
def test_so_many_threads_cannot_be(threads: int, told: str) -> None:
    with pytest.raises(ValueError, match=rf"App\(threads={threads}\) {told}: give"):
        App("app", threads=threads)


@pytest.mark.parametrize("partitions", [True, "2", 1.5, 0, []])
def test_so_many_partitions_cannot_be(partitions: Any) -> None:
    app = App("app")
    with pytest.raises((TypeError, ValueError), match="partitions="):
        app.topic("t", key=str, value=str, partitions=partitions)
    stream = app.stream(app.topic("t", key=str, value=str))
    with pytest.raises((TypeError, ValueError), match=r"repartition\(partitions="):
        stream.repartition(name="r", partitions=partitions)


@pytest.mark.parametrize("config", [True, "cleanup.policy=compact", 1.5, [], 0])
def test_a_configuration_is_a_mapping(config: Any) -> None:
    with pytest.raises(TypeError, match="config is a dict"):
        App("app").topic("t", key=str, value=str, config=config)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_state_directory_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("in")
        app = App("app", log=log, state_dir=str(tmp_path / "file" / below).rstrip("/"))
        app.stream(app.topic("in", key=str, value=str)).to(app.topic("out", key=str, value=str))
        with pytest.raises(
            InvalidError, match=r"state directory .*/file.* of app 'app' cannot be used \(.*\): give another state_dir"
        ):
            app.run(until="end")
