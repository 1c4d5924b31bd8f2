"""Reads for the tasks of a plan: fills their inputs from the log, and says to each whether it has read all there is.

1. An input is filled when it has nothing left, from where it stands; nothing is read for it before.
2. A partition counts as idle only when its task has taken everything up to the partition's end.
3. A member of a group is heard of in time, whatever it reads. Within a poll the group may take tasks away: they are
   handed over, and the reader follows what is left.

Not here: which input may go on (turns), which task runs next (rounds), when to commit (runner).
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from math import inf

from tailrace.log.client import Consumer, FetchedBatch, Log
from tailrace.log.clock import Clock
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.positions import Deleted
from tailrace.streams.chain.source import SourceInput
from tailrace.streams.planning.plan import Plan
from tailrace.streams.running.member import Member
from tailrace.streams.task import Task

_FETCH_BYTES = 1 << 20
# How long the group may go unseen while there is much to do.
_POLL_S = 0.1
# How often what other members do is looked at.
_OTHERS_S = 0.02


class Reader:
    """See the module's docstring. Within `reading` it reads; `ends` says up to where, None for all that comes."""

    def __init__(self, plan: Plan, log: Log, clock: Clock, member: Member | None, deleted: Deleted) -> None:
        self._plan = plan
        self._log = log
        self._clock = clock
        self._member = member
        self._deleted = deleted
        self._consumer: Consumer
        self._polled = 0.0
        self._expected: set[TopicPartition] = set()
        self.moved = False
        """Whether there is something to commit without a record that ran: a position, or what a task is to tell."""
        self.follow()

    def follow(self) -> None:
        """Reads for the tasks that the plan has now."""
        tasks = self._plan.tasks
        self._by_partition: dict[TopicPartition, tuple[Task, SourceInput]] = {
            source.partition: (task, source) for task in tasks for source in task.inputs
        }
        self._listening = [task for task in tasks if task.listening is not None]

    @contextmanager
    def reading(self) -> Generator[None]:
        """With a consumer of all inputs, at their positions."""
        if self._member is not None:
            self._consumer = self._member.consumer
            self.seek(self._by_partition)
            yield
            return
        with self._log.consumer(reset="none") as self._consumer:
            self._consumer.assign(list(self._by_partition))
            self.seek(self._by_partition)
            yield

    def seek(self, partitions: Iterable[TopicPartition]) -> None:
        """Goes to the positions of these."""
        for partition in partitions:
            self._consumer.seek(partition, self._by_partition[partition][1].position)

    @property
    def partitions(self) -> set[TopicPartition]:
        """What is read here."""
        return set(self._by_partition)

    def ends(self) -> dict[TopicPartition, int]:
        """Where all that the app reads ends now, here and elsewhere."""
        return self._ends_of(self._plan.topics_read)

    def _ends_of(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        found = {partition: end for topic in topics for partition, end in self._log.offsets(topic).items()}
        return {partition: end for partition, end in found.items() if self.knows(partition)}

    def knows(self, partition: TopicPartition) -> bool:
        """Whether a partition was there when the plan was made: no task reads those that came since."""
        return self._plan.in_use is None or self._plan.in_use.knows(partition)

    def grown(self, ends: dict[TopicPartition, int]) -> bool:
        """Moves the ends of topics that the app writes itself to what is there now; returns whether any did."""
        now = self._ends_of({partition.topic for partition in ends} & self._plan.inner_topics)
        grown = any(end > ends[partition] for partition, end in now.items())
        ends.update(now)
        return grown

    # ------------------------------------------------------------ filling inputs

    def fetch(self, ends: Mapping[TopicPartition, int] | None) -> None:
        """Fills the inputs that have nothing buffered, and says of each task whether it has read all there is."""
        for rows in self._plan.global_rows.values():
            rows.read_on()
        self.look_at_group()
        while True:
            empty = [source for _, source in self._by_partition.values() if source.head_ms is None]
            if ends is not None:
                empty = [source for source in empty if source.position < ends[source.partition]]
            wanted = {source.partition for source in empty}
            if not wanted:
                break
            self._consumer.pause([partition for partition in self._by_partition if partition not in wanted])
            self._consumer.resume(list(wanted))
            try:
                batches = self._consumer.poll_batches(0, _FETCH_BYTES)
            except InvalidError:
                if not self._skip_deleted(empty):
                    raise
                continue
            self._polled = self._clock.monotonic()
            for batch in batches:
                end = None if ends is None else ends[batch.partition]
                self._take(batch, end)
                if end is not None and batch.next_offset > end:
                    self._consumer.seek(batch.partition, end)  # of what the app writes itself, the end may yet move on
            if not batches:
                break
        self._tell_idle()

    def _take(self, batch: FetchedBatch, end: int | None) -> None:
        source = self._by_partition[batch.partition][1]
        source.add(batch, end)
        # Past markers and what was aborted: a commit moves on, too.
        self.moved |= source.head_ms is None

    def _skip_deleted(self, empty: Iterable[SourceInput]) -> bool:
        """Goes on behind what was deleted before it was read, counting it; returns whether anything was."""
        found = False
        for source in empty:
            if source.partition not in self._by_partition:  # handed over in between
                continue
            start = self._log.offsets(source.partition.topic, "earliest")[source.partition]
            if source.position < start:
                self._deleted(source.partition, self._plan.group, source.position, start)
                task, _ = self._by_partition[source.partition]
                task.context.drop("deleted", source.skip_to(start))
                self._consumer.seek(source.partition, start)
                self.moved = found = True
        return found

    # ------------------------------------------------------------ nothing to read

    def _tell_idle(self) -> None:
        self._plan.ends.forget()
        for task in self._plan.tasks:
            with self._plan.failing(task):
                self.moved |= task.hear_inputs(self._expected)
            idle = task.head_ms() is None and (task.clocks is None or task.clocks.all_idle) and not self._expects(task)
            if idle != task.idle:
                task.idle = idle
                with self._plan.failing(task):
                    task.tell_time(flushed=False)
                # Behind a cache idleness is told with the next commit, so there must be one.
                self.moved |= bool(task.outgoing)

    def _expects(self, task: Task) -> bool:
        return bool(self._expected) and any(source.partition in self._expected for source in task.inputs)

    def expect(self, partition: TopicPartition) -> None:
        """Says that more will come from a partition: its task is not idle, though it has read all there is."""
        self._expected.add(partition)

    def expect_nothing(self) -> None:
        """Takes back every `expect`."""
        self._expected.clear()

    def listen(self) -> None:
        """Lets the time of tasks go on to which nothing has come for long."""
        now_s = self._clock.monotonic() if self._listening else 0.0
        for task in self._listening:
            self.moved |= task.listen(now_s)

    def next_silence(self) -> float:
        """In how many seconds `listen` is due."""
        due_s = min((task.listening.due_s for task in self._listening if task.listening), default=inf)
        return due_s - self._clock.monotonic()

    def wait(self, timeout: float) -> None:
        """Waits for records, so many seconds at most; a member for what its group wants, too."""
        if timeout <= 0:
            return
        if self._member is not None:
            # What comes is taken at once: the inputs are empty.
            self._member.tell_if_idle()
            for batch in self._consumer.poll_batches(timeout, _FETCH_BYTES):
                self._take(batch, None)
        else:
            positions = {partition: self._consumer.position(partition) for partition in self._by_partition}
            self._log.wait_for_data(positions, timeout)

    def look_at_group(self, *, after_s: float = _POLL_S) -> None:
        """Polls where reading would not, so that the group knows that we are here, and we what it wants."""
        if self._member is not None and self._clock.monotonic() - self._polled >= after_s:
            self._consumer.pause(self._consumer.assignment())
            self._consumer.poll_batches(0)
            self._polled = self._clock.monotonic()

    def wait_for_others(self) -> None:
        """Gives other members a moment, without reading."""
        self._consumer.pause(self._consumer.assignment())
        self._consumer.poll_batches(_OTHERS_S)
