"""A task of one stateful operator, driven by hand as the task would: clocks, closings, the chain, commits."""

from collections.abc import Callable
from typing import Any, Protocol

from tailrace.state.memory import MemoryBackend
from tailrace.state.store import Keyspace, WriteSet
from tailrace.streams.chain.context import StateNode, TaskContext
from tailrace.streams.program.topology import Forward
from tailrace.tests.support.semantics import Output
from tailrace.windows.windowed import Windowed


class Running(StateNode, Protocol):
    """An operator with the function that takes its records."""

    def process(self) -> Forward:
        """That function."""
        ...


Build = Callable[[TaskContext, Keyspace, Forward, Forward], Running]
"""Makes the operator of a context over a keyspace: what takes its results, what takes its late records."""


class OperatorDriver:
    """One operator over a memory backend. Results are collected; `take` gives those since the last call."""

    def __init__(
        self, build: Build, *, caching: bool, backend: MemoryBackend | None = None, max_entries: int = 100
    ) -> None:
        self.backend = backend or MemoryBackend()
        self.context = TaskContext(0, caching=caching)
        self.late: list[tuple[Any, Any, int]] = []
        self.changelog: list[tuple[bytes, bytes | None, int]] = []
        self._max_entries = max_entries
        self._out: list[tuple[Any, Any, int]] = []
        self.node = build(self.context, self.backend.keyspace("s"), self._collect(self._out), self._collect(self.late))
        self.context.state_nodes.append((self.node, 0))
        self._process = self.node.process()

    @staticmethod
    def _collect(into: list[tuple[Any, Any, int]]) -> Forward:
        return lambda key, value, timestamp_ms: into.append((key, value, timestamp_ms))

    def resume(self, stream_time_ms: int) -> None:
        """Starts where a run before this one had come to."""
        self.context.origin_ms = self.context.stream_time_ms = stream_time_ms
        self.node.resume(stream_time_ms)

    def pipe(self, key: Any, value: Any, timestamp_ms: int, origin_ms: int | None = None) -> None:
        """Runs a record. With `origin_ms` the task is behind a repartition: stream time stays as it is."""
        context = self.context
        if origin_ms is not None:
            context.origin_ms = max(origin_ms, context.stream_time_ms)
        elif timestamp_ms > context.origin_ms:
            self.advance(timestamp_ms)
        self._process(key, value, timestamp_ms)

    def advance(self, stream_time_ms: int) -> None:
        """Moves both clocks and closes what that closes."""
        context = self.context
        context.origin_ms = context.stream_time_ms = stream_time_ms
        if stream_time_ms >= context.next_close_ms:
            context.close_windows()

    def commit(self) -> None:
        """What the commit does with the node."""
        self.node.flush(self.context.stream_time_ms)
        writes = WriteSet()
        self.changelog += self.node.store.take_changelog()
        self.node.store.take_writes(writes)
        self.backend.write(writes)
        self.node.store.evict(self._max_entries)

    def take(self) -> list[Output]:
        """The results since the last call, windowed keys as the semantics write inclusive ones."""
        taken = [Output(text(key), None if value is None else str(value), time) for key, value, time in self._out]
        self._out.clear()
        return taken


def text(key: Windowed[Any]) -> str:
    """A key in a window whose end is inclusive."""
    return f"{key.key}@[{key.start_ms},{key.end_ms}]"


def final(results: list[Output]) -> dict[str, tuple[str | None, int]]:
    """What a table of the results shows in the end: the last per key, deletes left out."""
    last = {key: (value, timestamp_ms) for key, value, timestamp_ms in results}
    return {key: result for key, result in last.items() if result[0] is not None}
