"""The tasks of one running app, ready to run: what a planner makes, and a runner runs.

1. A plan begins without tasks. They are loaded unit by unit, which may take long and may be done beside a running plan,
   and added to it; they are taken out again when they are to run elsewhere.
2. Every task is in one lane. Tasks of different lanes may run at the same time, and share nothing that changes.

Not here: making one (planner).
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from tailrace.log.client import CommittedOffset, Producer
from tailrace.log.errors import EncodeError, TailraceError
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.failure import Nodes, located, task_error
from tailrace.streams.chain.global_rows import GlobalRows
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.markers import SourceEnds
from tailrace.streams.chain.on_error import Failures
from tailrace.streams.chain.outputs import Outputs
from tailrace.streams.chain.positions import ChangelogReader
from tailrace.streams.chain.source import Decoding
from tailrace.streams.planning.topics import StoreOf
from tailrace.streams.planning.topics_in_use import TopicsInUse
from tailrace.streams.planning.units import Unit
from tailrace.streams.task import Task, TaskId

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Lane:
    """Tasks that run one after the other, and where they leave what they have for the log."""

    outputs: Outputs
    failures: Failures | None = None
    """Where the app goes on after a function has raised: what is done about it."""
    tasks: list[Task] = field(default_factory=list[Task])
    log_hops: dict[int, LogHop] = field(default_factory=dict[int, LogHop])
    """The repartitions that go through the log, by node, as these tasks write to them."""


@dataclass(slots=True)
class Plan:
    """The tasks of a running app, ready to run."""

    group: str
    producer: Producer
    lanes: list[Lane]
    """What may run at the same time: the tasks of different lanes."""
    inner_topics: set[str]
    """What the app both reads and writes."""
    topics_read: set[str]
    """All that the tasks read, wherever they run."""
    transactional: bool
    """Whether the producer writes in transactions."""
    ends: SourceEnds
    """Where the topics end that writers of repartitions read."""
    through_log: bool = False
    """Whether repartitions go through the log. Then a commit must come before the first record: writers speak first."""
    in_memory: bool = False
    """Whether there are any and all of them are in memory: then the plan has all tasks, or is over."""
    may_change: bool = False
    """Whether they may be in memory once all tasks are here, and what is in the log was read."""
    skew_ms: int | None = None
    """By how much a task may be ahead of others, where they do not wait for each other anyway."""
    decodings: dict[str, Decoding] = field(default_factory=dict[str, Decoding])
    """By topic that the app reads, but for repartitions."""
    in_use: TopicsInUse | None = None
    """What the tasks read and keep their state in, as it was when the app began."""
    global_rows: dict[str, GlobalRows] = field(default_factory=dict[str, GlobalRows])
    """Of the app's global tables, by name."""
    tasks: list[Task] = field(default_factory=list[Task])
    """Writers of a repartition before its readers."""
    nodes: Nodes = field(default_factory=Nodes)
    """By the functions that they were given, and by their processors."""
    processors_made: dict[int, str] = field(default_factory=dict[int, str])
    """In which task, by their ids, while they are not closed: a factory must make a new one each time."""

    @property
    def outputs(self) -> list[Outputs]:
        """What waits to be sent, by lane."""
        return [lane.outputs for lane in self.lanes]

    @property
    def sent(self) -> int:
        """Records handed to the producer since the start."""
        return sum(lane.outputs.sent for lane in self.lanes)

    def handed_over(self) -> int:
        """The same with rows between tasks that did not wait for the commit."""
        return sum(lane.outputs.handed_over() for lane in self.lanes)

    @contextmanager
    def failing(self, task: Task, *, at_start_or_end: bool = False) -> Generator[None]:
        """Around what calls functions of the user: what they raise becomes a TaskError that tells where."""
        try:
            yield
        except EncodeError as error:
            raise located(error, task.context)  # noqa: B904 - it is the same
        except TailraceError:
            raise
        except Exception as error:
            raise task_error(error, self.nodes, task.context, at_start_or_end=at_start_or_end) from error

    def start(self, tasks: Sequence[Task]) -> None:
        """Makes the processors of tasks, and has them initialised; `stop` closes them, whether or not all were made.

        Raises:
            TopologyError: a factory made no processor, or one that it had made before.
            TaskError: the user's code raised.
        """
        for task in tasks:
            doing, task.context.doing = task.context.doing, f"the start of task {task.id}"
            for processor in task.processors:
                with self.failing(task, at_start_or_end=True):
                    processor.start(str(task.id), self.processors_made)
            task.context.doing = doing

    def remove(self, units: Sequence[Unit]) -> list[Task]:
        """Takes tasks out that are going to run elsewhere, their processors closed; returns them. Raises as `stop`."""
        ids = {task_id for unit in units for task_id in unit.tasks}
        gone = [task for task in self.tasks if task.id in ids]
        self.tasks[:] = [task for task in self.tasks if task.id not in ids]
        for lane in self.lanes:
            lane.tasks[:] = [task for task in lane.tasks if task.id not in ids]
        try:
            self._close(gone, None)
        finally:
            for processor in (each for task in gone for each in task.processors):
                self.nodes.forget(processor)
        return gone

    def let_go(self) -> None:
        """Ends the reading of global tables."""
        for rows in self.global_rows.values():
            rows.close()

    def stop(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Closes the processors, every one of them: what a `with` around the run calls, with the error that ended it.

        Raises:
            TaskError: one of them raised, and nothing had before; the others are logged.
        """
        self.let_go()
        self._close(self.tasks, error)

    def _close(self, tasks: Sequence[Task], error: BaseException | None) -> None:
        first: Exception | None = None
        for task in tasks:
            task.context.record, task.context.doing = None, f"the end of task {task.id}"
            for processor in task.processors:
                try:
                    with self.failing(task, at_start_or_end=True):
                        processor.stop(self.processors_made)
                except Exception as raised:
                    if error is not None or first is not None:
                        _logger.exception("closing a processor, the app having failed before")
                    first = first or raised
        if first is not None and error is None:
            raise first


class RestoredStore(NamedTuple):
    """A store of a task, and the changelog that it was restored from."""

    store: StoreOf
    changelog: ChangelogReader


class Loaded(NamedTuple):
    """Tasks of a unit whose stores stand at the last commit: without chains and inputs yet."""

    unit: Unit
    committed: Mapping[TopicPartition, CommittedOffset]
    tasks: Mapping[TaskId, tuple[Task, list[RestoredStore]]]
