"""Processors: what they see and send, how they begin and end, what is refused."""

from functools import partial
from typing import Any, TypeVar

import pytest

from tailrace import App, Context, Processor, Record, Stream, Table, milliseconds
from tailrace.errors import EncodeError, TaskError, TopologyError
from tailrace.testing import TopologyDriver
from tailrace.tests.support.processors import Calls, called, passed_on, pipe, rows, text_app

K2 = TypeVar("K2")


class Plain(Processor[str, str, str, str]):
    def process(self, record: Record[str, str]) -> None:
        del record


def test_what_a_processor_sees_and_sends() -> None:
    seen: list[Any] = []

    def process(ctx: Context[Any, Any], record: Record[Any, Any]) -> None:
        assert ctx.record is record
        seen.append(record)
        ctx.forward(record.key, "as it came")
        ctx.forward("other", "later", timestamp_ms=99)
        ctx.forward("other", "own headers", headers=[("x", None)])
        ctx.forward("other", "no headers", headers=[])
        ctx.forward(None, None)

    with TopologyDriver(called(process)) as driver:
        driver.pipe("in", "v", key="k", timestamp_ms=7, headers=[("h", b"1")])
        out = driver.read("out")
        driver.pipe("in", None, timestamp_ms=5)
    first, second = seen
    assert (first.topic, first.partition, first.offset, first.timestamp_ms) == ("in", 0, 0, 7)
    assert (first.key, first.value, list(first.headers)) == ("k", "v", [("h", b"1")])
    assert (second.key, second.value, second.offset, second.timestamp_ms) == (None, None, 1, 5)
    assert [(r.key, r.value, r.timestamp_ms, list(r.headers)) for r in out] == [
        ("k", "as it came", 7, [("h", b"1")]),
        ("other", "later", 99, [("h", b"1")]),
        ("other", "own headers", 7, [("x", None)]),
        ("other", "no headers", 7, []),
        (None, None, 7, [("h", b"1")]),
    ]


def test_results_of_a_table_come_without_a_place_and_all_of_them() -> None:
    """No cache merges ahead of a processor, also one behind a repartition."""
    seen: list[tuple[str, int, str, int]] = []

    def make(app: App, stream: Stream[str, str]) -> Stream[str, int]:
        counts: Table[str, int] = stream.group_by(lambda value: value).count(store="n")
        changes = counts.changes().key_by(lambda n: "even" if n % 2 == 0 else "odd")
        changes.group_by_key().count(store="parity")
        return counts.changes().process(lambda: Calls(lambda _ctx, r: seen.append((r.key, r.value, r.topic, r.offset))))

    with TopologyDriver(text_app(make, int), cache=True) as driver:
        pipe(driver, ("a", "x", 1), ("b", "x", 2), ("a", "x", 3))
        driver.commit()
        assert seen == [("x", 1, "", -1), ("x", 2, "", -1), ("x", 3, "", -1)]


def test_process_values_keeps_the_key_and_needs_no_repartition() -> None:
    def make(app: App, stream: Stream[str, str]) -> Stream[str, int]:
        lengths: Stream[str, int] = stream.process_values(
            lambda: Calls(lambda ctx, r: ctx.forward(r.key, len(r.value)))
        )
        return lengths.group_by_key().reduce(lambda a, b: a + b, store="sum").changes()

    app = text_app(make, int)
    assert len(app.describe().subtopologies) == 1
    with TopologyDriver(app) as driver:
        assert pipe(driver, ("a", "xx", 1), ("a", "yyy", 2)) == [("a", 2, 1), ("a", 5, 2)]


def test_process_values_refuses_another_key() -> None:
    app = text_app(
        lambda _app, stream: stream.process_values(
            lambda: Calls(lambda ctx, r: ctx.forward(r.key.upper(), "x")), name="louder"
        )
    )
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=r"ValueError in louder .*in-0@0.*'k'.*'K'"):
        pipe(driver, ("k", "v", 1))


def test_types_come_from_the_class() -> None:
    """Through bases that are generic themselves; new keys lead to a repartition."""

    class Base(Processor[str, str, K2, "str"]):
        pass

    class Sizes(Base[int]):
        def init(self, ctx: Context[int, Any]) -> None:
            self.ctx = ctx

        def process(self, record: Record[str, str]) -> None:
            self.ctx.forward(len(record.value), record.value)

    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    sizes = stream.process(Sizes).group_by_key(name="by-size").count(store="sizes")
    sizes.to(app.topic("out", key=int, value=int))
    text = str(app.describe())
    assert "app-by-size-repartition, key: int" in text
    with TopologyDriver(app) as driver:
        driver.pipe("in", "abc", key="k", timestamp_ms=1)
        assert rows(driver) == [(3, 1, 1)]


def test_a_wrong_key_is_found_where_it_is_forwarded() -> None:
    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    wrong: Stream[int, str] = stream.process(lambda: Calls(lambda ctx, _r: ctx.forward(True, "x")))
    wrong.group_by_key().count(store="n")
    with TopologyDriver(app) as driver, pytest.raises(EncodeError, match=r"process-1 at .*test_process.py.*True"):
        driver.pipe("in", "v", key="k", timestamp_ms=1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timestamp_ms": -1}, "before 1970"),
        ({"timestamp_ms": 1.5}, "no int"),
        ({"headers": [("a", "b")]}, "header"),
    ],
)
def test_what_forward_refuses(options: dict[str, Any], told: str) -> None:
    app = called(lambda ctx, record: ctx.forward("k", "v", **options))
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match=told):
        pipe(driver, ("k", "v", 1))


# ---------------------------------------------------------------- its life


def test_one_processor_a_task_and_each_is_closed() -> None:
    life: list[str] = []

    class Living(Processor[str, str, str, str]):
        def __init__(self) -> None:
            life.append("made")

        def init(self, ctx: Context[str, str]) -> None:
            life.append("init")

        def process(self, record: Record[str, str]) -> None:
            life.append(f"process {record.partition}")

        def close(self) -> None:
            life.append("close")

    with TopologyDriver(text_app(lambda _app, stream: stream.process(Living)), partitions=2) as driver:
        assert life == ["made", "init"] * 2
        driver.pipe("in", "v", key="k", partition=1)
    assert life[4:] == ["process 1", "close", "close"]


def test_the_same_object_twice_is_refused() -> None:
    shared = Plain()
    app = text_app(lambda _app, stream: stream.process(lambda: shared, name="mine"))
    with pytest.raises(TopologyError, match=r"factory of mine at .*test_process.py.* same object twice.*0_1.*0_0"):
        TopologyDriver(app, partitions=2)


def test_a_factory_that_makes_no_processor() -> None:
    factory: Any = object
    with pytest.raises(TopologyError, match=r"subclass tailrace\.Processor"):
        TopologyDriver(text_app(lambda _app, stream: stream.process(factory)))


class Waiting(Processor[Any, Any, Any, Any]):
    async def process(self, record: Record[Any, Any]) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # what is refused
        del record


class Yielding(Processor[Any, Any, Any, Any]):
    def process(self, record: Record[Any, Any]) -> Any:
        yield record


@pytest.mark.parametrize(
    ("cls", "told"), [(Waiting, "is async, and a processor is called without await"), (Yielding, "generator")]
)
def test_methods_that_do_nothing_when_called_are_refused(cls: Any, told: str) -> None:
    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    with pytest.raises(TypeError, match=rf"process\({cls.__name__}\): process .*{told}"):
        stream.process(cls)
    stream.process(partial(cls), name="later")
    with pytest.raises(TopologyError, match=rf"later at .*test_process.py.*{told}"):
        TopologyDriver(app)


async def make_later() -> Plain:
    return Plain()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"factory": Plain()}, TypeError, "function"),
        ({"factory": make_later}, TypeError, "async"),
        ({"stores": ["seen"]}, TypeError, "app.store"),
        ({"stores": [App("other").store("s", key=str, value=str)]}, ValueError, "another app"),
        ({"name": 1}, TypeError, "name"),
        ({"name": "a b"}, ValueError, "name='a b'"),
    ],
)
def test_what_process_refuses(options: dict[str, Any], error: type[Exception], told: str) -> None:
    app = App("app")
    stream = app.stream(app.topic("in", key=str, value=str))
    arguments: dict[str, Any] = {"factory": Plain, **options}
    with pytest.raises(error, match=told):
        stream.process(**arguments)


# ---------------------------------------------------------------- errors


class Broken(Processor[str, str, str, str]):
    """Raises where it is told to."""

    where = "process"

    def __init__(self) -> None:
        self.fail("__init__")

    def fail(self, at: str) -> None:
        if self.where == at:
            raise LookupError("no such thing")

    def init(self, ctx: Context[str, str]) -> None:
        self.ctx = ctx
        self.fail("init")
        ctx.schedule(milliseconds(10), lambda now: self.fail(f"at {now}"), clock="stream")

    def process(self, record: Record[str, str]) -> None:
        self.ctx.forward(record.key, record.value)
        self.fail("process")

    def close(self) -> None:
        self.fail("close")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("__init__", "the start of task 0_0"),
        ("init", "the start of task 0_0"),
        ("process", "in-0@0"),
        ("at 12", "a call scheduled on the stream clock, at 12 ms"),
        ("close", "the end of task 0_0"),
    ],
)
def test_an_error_names_node_line_and_record(where: str, told: str) -> None:
    class Here(Broken):
        pass

    Here.where = where
    app = text_app(lambda _app, stream: stream.process(Here, name="breaks").filter(lambda v: v != ""))

    def run() -> None:
        with TopologyDriver(app) as driver:
            pipe(driver, ("k", "v", 12))

    with pytest.raises(TaskError, match=rf"LookupError in breaks \(.*test_process.py:\d+.*\) at {told}: ") as caught:
        run()
    assert isinstance(caught.value.__cause__, LookupError)


def test_what_raises_behind_a_processor_is_not_the_processor() -> None:
    app = text_app(
        lambda _app, stream: stream.process(lambda: Calls(passed_on)).process(lambda: Calls(passed_on)).map(str.upper)
    )
    with TopologyDriver(app) as driver, pytest.raises(TaskError, match="in map-3 "):
        pipe(driver, ("k", None, 1))


def test_sending_and_writing_outside_of_calls() -> None:
    caught: list[Context[Any, Any]] = []
    app = called(passed_on, caught.append, lambda app: [app.store("s", key=str, value=str)])
    with TopologyDriver(app) as driver:
        pipe(driver, ("k", "v", 1))
        with pytest.raises(RuntimeError, match="forward is for"):
            caught[0].forward("k", "v")
        with pytest.raises(RuntimeError, match="store 's' can be put"):
            caught[0].store("s").put("k", "v")
    early = called(passed_on, lambda ctx: ctx.forward("k", "v"))
    with pytest.raises(TaskError, match=r"RuntimeError in process-1 .*start of task"):
        TopologyDriver(early)


def test_an_object_is_no_class() -> None:
    with pytest.raises(TypeError, match="pass Calls without calling it"):
        text_app(lambda _app, stream: stream.process(Calls(passed_on)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is refused
