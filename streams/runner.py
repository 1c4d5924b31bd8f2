"""Runs the tasks of one app: reads, chooses which task is next, commits, stops.

1. The task with the oldest record that waits runs next, a slice at a time: event time advances evenly over partitions,
   so that few windows are open at once. What is late does not depend on it.
2. A partition counts as idle only when its task has taken everything up to the partition's end.
3. Everything runs in one thread, unless there are several lanes: then slices of these run side by side, and all else
   in one thread while none does (rounds). `stop` and `summary` may be called from any other: the slice at hand is
   finished, and committed before `run` returns.
4. An error that may pass aborts: all tasks are dropped with whatever they hold, and made anew from the last commit, as
   a restart would make them (start). So nothing that is added to a task can be forgotten by an abort. The same happens
   to a member that its group has expelled, and where the log has aborted a transaction after its time-out.
5. With a member, tasks come and go between two slices: `hand_over` is called within a poll, and leaves none of what it
   was given behind.
6. A plan that is over at a commit (PlanOverError) is followed by another: where all tasks have come together, so that
   repartitions may be in memory, and where some of them go again.

Not here: what a task does (task), what a commit does (commit), which tasks there are (plan).
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tailrace.log.client import Consumer, FetchedBatch, Log
from tailrace.log.clock import Clock
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.positions import tell_what_is_behind_transactions, warn_deleted
from tailrace.streams.chain.schedule import NONE_DUE
from tailrace.streams.chain.source import SourceInput
from tailrace.streams.commit import Committer, commit
from tailrace.streams.planning.plan import Loaded, Plan
from tailrace.streams.planning.units import Unit
from tailrace.streams.running.collector import seldom_collected
from tailrace.streams.running.member import Member, PlanOverError
from tailrace.streams.running.pace import Pace
from tailrace.streams.running.patience import PASSING, Passing, Patience
from tailrace.streams.running.rounds import Rounds, oldest
from tailrace.streams.running.summary import Summary
from tailrace.streams.running.trimming import Trimmer
from tailrace.streams.running.turns import Turns, all_read, hold_sources
from tailrace.streams.task import Task

_logger = logging.getLogger(__name__)

# Records between two looks at the other tasks: fewer where the user's functions are slow, so that a commit and a stop
# need not wait for a thousand of them.
_SLICE = 1_000
_SLICE_SECONDS = 0.02
# A commit is due at this many updates in the caches, however long the interval.
_DIRTY_MAX = 5_000
_FETCH_BYTES = 1 << 20
# How long a stop may go unseen while there is nothing to do.
_WAIT_MAX_S = 0.5
# How long the group may go unseen while there is much to do.
_POLL_S = 0.1
# How often a run to the end looks whether the other members have come to it.
_OTHERS_S = 0.02
# How often a run that has nothing to commit looks whether its topics are what they were.
_TOPICS_S = 1.0


class _Counts(NamedTuple):
    """What was done, for the summary."""

    records_in: int
    records_out: int
    dropped: Counter[str]


class Runner:
    """Runs a plan until its inputs end, or until it is stopped.

    eager: commits come soon after everything was read, and not at the interval alone (pace).
    cache_entries is for all stores together.
    again makes another plan from the last commit, given the error for which the one at hand is dropped, or None where
    it is over; without it such an error ends the run.
    rest says how long to do nothing after a slice that took so long, in seconds.
    member says which units are to be run, and add takes them into the plan; without it the plan stays as it is.
    """

    def __init__(
        self,
        plan: Plan,
        log: Log,
        clock: Clock,
        *,
        commit_interval_ms: int,
        cache_entries: int,
        eager: bool = False,
        again: Callable[[Passing | None], Plan] | None = None,
        member: Member | None = None,
        add: Callable[[Plan, Sequence[Loaded]], None] | None = None,
        rest: Callable[[float], float] | None = None,
    ) -> None:
        self._log = log
        self._rest = rest
        self._clock = clock
        self._commit_s = commit_interval_ms / 1000
        self._pace = Pace(clock, self._commit_s, eager=eager)
        self._cache_entries = cache_entries
        self._member = member
        self._add = add
        self._again = again
        self._patience = Patience(clock)
        self._trimmer = Trimmer(log, clock)
        self._stopping = threading.Event()
        self._before = self._committed = _Counts(0, 0, Counter())
        self._polled = self._looked = 0.0
        self._adopt(plan)
        self._expected: set[TopicPartition] = set()
        self._started = clock.monotonic()
        # By lane; they begin with one record: nobody knows yet how slow the user's functions are.
        self._slices = [1] * len(plan.lanes)
        self._rounds = Rounds(len(plan.lanes), clock) if len(plan.lanes) > 1 else None
        self._thread = 0
        self._asked: deque[Future[Summary]] = deque()

    def _adopt(self, plan: Plan) -> None:
        """Takes a plan up whose tasks stand at the last commit."""
        self._plan = plan
        self._tasks = plan.tasks
        self._uncommitted = False
        self._before = self._committed
        self._records_in = 0
        self._turns = (
            None
            if plan.skew_ms is None
            else Turns(self._log, self._clock, plan.group, plan.decodings, plan.skew_ms, self._commit_s)
        )
        if self._member is not None:
            self._member.hand_over = self._hand_over
        self._index()

    def _index(self) -> None:
        """Follows the tasks that the plan has now."""
        plan = self._plan
        stores = sum(len(task.stores) for task in plan.tasks) or 1
        self._committer = Committer(
            plan.group,
            self._log,
            plan.producer,
            plan.outputs,
            plan.failing,
            self._clock.now_ms,
            self._cache_entries // stores,
            plan.transactional,
            None if self._member is None else self._member.who,
        )
        self._by_partition: dict[TopicPartition, tuple[Task, SourceInput]] = {
            source.partition: (task, source) for task in plan.tasks for source in task.inputs
        }
        self._listening = [task for task in plan.tasks if task.listening is not None]

    # ------------------------------------------------------------ members

    def _hand_over(self, units: Sequence[Unit]) -> None:
        """Commits what was run, and lets go of tasks that are going to run elsewhere."""
        self._check_topics()
        if self._uncommitted:
            self.commit()
        gone = self._plan.remove(units)
        dropped = self._before.dropped.copy()
        for task in gone:
            dropped.update(task.context.dropped)
        self._before = self._before._replace(dropped=dropped)
        self._index()

    def _take_over(self, member: Member) -> None:
        """Adds the tasks that are ready to be run here."""
        loaded = member.work()
        if not loaded:
            return
        assert self._add is not None
        self._add(self._plan, loaded)
        self._index()
        for each in loaded:
            self._go_to_positions(member.consumer, each.unit.inputs)
        if self._plan.through_log:
            self.commit()

    def _go_to_positions(self, consumer: Consumer, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            consumer.seek(partition, self._by_partition[partition][1].position)

    def _look_at_group(self, consumer: Consumer, *, after_s: float = _POLL_S) -> None:
        """Polls where reading would not, so that the group knows that we are here, and we what it wants."""
        if self._clock.monotonic() - self._polled >= after_s:
            consumer.pause(consumer.assignment())
            consumer.poll_batches(0)
            self._polled = self._clock.monotonic()

    # ------------------------------------------------------------ what was done

    def stop(self) -> None:
        """Has `run` finish its slice, commit and return."""
        self._stopping.set()
        self._log.wake()

    def summary(self) -> Summary:
        """What was done so far. While the app runs its own thread answers, between two slices: the stores are its."""
        if self._thread in {0, threading.get_ident()}:
            return self._summary()
        answer = Future[Summary]()
        self._asked.append(answer)
        self._log.wake()
        if not self._thread:  # it ended meanwhile, and may have missed this one
            self._answer()
        return answer.result()

    def _summary(self) -> Summary:
        counts = self._counts()
        return Summary(
            records_in=counts.records_in,
            records_out=counts.records_out,
            dropped=dict(counts.dropped),
            open_windows=sum(task.open_windows() for task in self._tasks),
            seconds=self._clock.monotonic() - self._started,
        )

    def _counts(self) -> _Counts:
        before = self._before
        dropped = before.dropped.copy()
        for task in self._tasks:
            dropped.update(task.context.dropped)
        return _Counts(before.records_in + self._records_in, before.records_out + self._plan.sent, dropped)

    def run(self, *, until_end: bool, stop_at: Mapping[TopicPartition, int] | None = None) -> Summary:
        """Runs until `stop`, or until every input was read to where it ended at the start; commits and returns.

        stop_at: offsets at which inputs count as ended, where they end later.

        Raises:
            TaskError: a function of the user raised.
            DecodeError: a record cannot be read, and the app's policy is to fail.
            InvalidError: a topic that it reads was deleted, and perhaps made anew, or got partitions.
        """
        self._thread = threading.get_ident()
        try:
            ends = self._ends() | dict(stop_at or {}) if until_end else None
            if ends is not None:
                asked = {*(stop_at or ()), *(each for each in ends if each.topic in self._plan.inner_topics)}
                outer = {each: end for each, end in ends.items() if each not in asked}
                tell_what_is_behind_transactions(self._log, self._plan.group, outer)
            self._run(ends)
        except InvalidError:
            self._check_topics(after_error=True)
            raise
        finally:
            self._thread = 0
            self._answer()
            if self._rounds is not None:
                self._rounds.close()
        return self._summary()

    def _run(self, ends: dict[TopicPartition, int] | None) -> None:
        with seldom_collected():
            while True:
                try:
                    self._run_plan(ends)
                except PlanOverError:
                    self._begin_another()
                except PASSING as error:
                    self._abort(error)
                else:
                    return
                if ends is not None:
                    ends = self._ends() | ends

    def _run_plan(self, ends: dict[TopicPartition, int] | None) -> None:
        with self.reading() as consumer:
            pace = self._pace
            pace.begin()
            if self._plan.through_log:
                # Before its first row: who reads both it and others must not go on past it.
                self.commit()
            while not self._stopping.is_set():
                self._answer()
                if self._member is not None:
                    self._take_over(self._member)
                self._fetch(consumer, ends)  # after it: what was taken over is not at its end because nothing waits
                if ends is None:
                    self._listen()
                leaves_log = self._set_limits(ends)
                task = oldest(self._tasks)
                if task is not None:
                    handed_over = self._plan.handed_over()
                    self._run_oldest(task)
                    if self._plan.handed_over() != handed_over:
                        pace.sent_ahead()
                # At the end a schedule shorter than a commit would put that off.
                if not leaves_log and (task is not None or ends is None):
                    self._call_by_the_clock()
                if self._uncommitted and (pace.left(caught_up=task is None) <= 0 or self._dirty() >= _DIRTY_MAX):
                    self.commit()
                if task is None:
                    if leaves_log:
                        self._leave_log(consumer)
                        continue
                    if self._turns is not None and self._turns.waits(self._tasks):
                        self._wait_for_others(consumer)
                        continue
                    if ends is not None:
                        if self._uncommitted:
                            # Once more: behind a cache the readers learn from the commit that this is the end.
                            self.commit()
                        elif not self._done_elsewhere(ends):
                            self._wait_for_others(consumer)
                        elif not self._grown(ends):
                            break
                        continue
                    left = pace.left(caught_up=True) if self._uncommitted else _WAIT_MAX_S
                    self._wait(consumer, min(left, self._next_call()))
                    if not self._uncommitted:
                        pace.begin()
            if self._uncommitted:
                self.commit()
            self._trimmer.trim(self._tasks)

    def _begin_another(self) -> None:
        """Goes on with another plan, where the one at hand is over."""
        assert self._again is not None
        try:
            self._adopt(self._again(None))
        except PASSING as error:
            self._abort(error)

    def _abort(self, error: Passing) -> None:
        """Drops all that was not committed and goes on from the last commit; raises where it was tried for long."""
        while self._again is not None:
            pause = self._patience.after(error)
            _logger.warning(
                "app %s goes back to its last commit, and on from there in %.1f s: %s", self._plan.group, pause, error
            )
            if self._stopping.wait(pause):
                raise error
            try:
                self._adopt(self._again(error))
            except PASSING as another:
                error = another
            else:
                return
        raise error

    def _answer(self) -> None:
        with suppress(IndexError):  # nobody waits any more
            while True:
                answer = self._asked.popleft()
                try:
                    answer.set_result(self._summary())
                except Exception as error:  # noqa: BLE001 - it is for whoever asked
                    answer.set_exception(error)

    # ------------------------------------------------------------ by hand

    def run_waiting(self, consumer: Consumer) -> None:
        """Runs what the log has by now, then what is due by the wall clock; commits nothing. Raises as `run`.

        What is written meanwhile to topics that the app reads waits for the next call. A member looks at its group
        first: that may commit what is handed over. PlanOverError: another plan is to be made.
        """
        if self._member is not None:
            self._look_at_group(consumer, after_s=0)
            self._take_over(self._member)
        ends, leaves_log = self._ends(), False
        while True:
            self._fetch(consumer, ends)
            self._listen()
            if self._member is not None:
                leaves_log = self._set_limits(ends)
            task = oldest(self._tasks)
            if task is None:
                break
            self._run_oldest(task)
        if not leaves_log:
            self._call_by_the_clock()
        elif self._uncommitted or all_read(self._tasks, self._log):
            self._leave_log(consumer)

    def commit(self) -> None:
        """Commits what was run. Raises as `run`."""
        self._check_topics()
        began = self._clock.monotonic()
        commit(self._tasks, self._committer)
        self._pace.committed(began)
        self._uncommitted = False
        self._committed = self._counts()
        self._patience.reset()
        self._trimmer.after_commit(self._tasks)

    def _check_topics(self, *, after_error: bool = False) -> None:
        """Raises InvalidError where a topic is not the one that the app began with."""
        self._looked = self._clock.monotonic()
        if self._plan.in_use is not None:
            self._plan.in_use.check(after_error=after_error)

    def expect(self, partition: TopicPartition) -> None:
        """Says that more will come from a partition: its task is not idle, though it has read all there is."""
        self._expected.add(partition)

    def expect_nothing(self) -> None:
        """Takes back every `expect`."""
        self._expected.clear()

    # ------------------------------------------------------------ reading

    @contextmanager
    def reading(self) -> Generator[Consumer]:
        """A consumer of all inputs, at their positions."""
        if self._member is not None:
            self._go_to_positions(self._member.consumer, self._by_partition)
            yield self._member.consumer
            return
        with self._log.consumer(reset="none") as consumer:
            consumer.assign(list(self._by_partition))
            self._go_to_positions(consumer, self._by_partition)
            yield consumer

    def _ends(self) -> dict[TopicPartition, int]:
        topics = self._plan.topics_read
        return {partition: end for topic in topics for partition, end in self._log.offsets(topic).items()}

    def _done_elsewhere(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether what other members run is committed up to the ends."""
        return self._member is None or self._member.done_elsewhere(ends, set(self._by_partition))

    def _wait_for_others(self, consumer: Consumer) -> None:
        consumer.pause(consumer.assignment())
        consumer.poll_batches(_OTHERS_S)

    def _grown(self, ends: dict[TopicPartition, int]) -> bool:
        """Moves the ends of topics that the app writes itself to what is there now; returns whether any did."""
        topics = {partition.topic for partition in ends} & self._plan.inner_topics
        now = {partition: end for topic in topics for partition, end in self._log.offsets(topic).items()}
        grown = any(end > ends[partition] for partition, end in now.items())
        ends.update(now)
        return grown

    def _fetch(self, consumer: Consumer, ends: Mapping[TopicPartition, int] | None) -> None:
        """Fills the inputs that have nothing buffered, and says of each task whether it has read all there is."""
        for rows in self._plan.global_rows.values():
            rows.read_on()
        if self._member is not None:
            self._look_at_group(consumer)
        while True:
            empty = [source for _, source in self._by_partition.values() if source.head_ms is None]
            if ends is not None:
                empty = [source for source in empty if source.position < ends[source.partition]]
            wanted = {source.partition for source in empty}
            if not wanted:
                break
            consumer.pause([partition for partition in self._by_partition if partition not in wanted])
            consumer.resume(list(wanted))
            try:
                batches = consumer.poll_batches(0, _FETCH_BYTES)
            except InvalidError:
                if not self._skip_deleted(consumer, empty):
                    raise
                continue
            self._polled = self._clock.monotonic()
            for batch in batches:
                end = None if ends is None else ends[batch.partition]
                self._take(batch, end)
                if end is not None and batch.next_offset > end:
                    consumer.seek(batch.partition, end)  # of what the app writes itself, the end may yet move on
            if not batches:
                break
        self._tell_idle()

    def _take(self, batch: FetchedBatch, end: int | None) -> None:
        source = self._by_partition[batch.partition][1]
        source.add(batch, end)
        # Past markers and what was aborted: a commit moves on, too.
        self._uncommitted |= source.head_ms is None

    def _skip_deleted(self, consumer: Consumer, empty: Iterable[SourceInput]) -> bool:
        """Goes on behind what was deleted before it was read, counting it; returns whether anything was."""
        found = False
        for source in empty:
            if source.partition not in self._by_partition:  # handed over in between
                continue
            start = self._log.offsets(source.partition.topic, "earliest")[source.partition]
            if source.position < start:
                warn_deleted(source.partition, self._plan.group, source.position, start)
                task, _ = self._by_partition[source.partition]
                task.context.drop("deleted", source.skip_to(start))
                consumer.seek(source.partition, start)
                self._uncommitted = found = True
        return found

    def _tell_idle(self) -> None:
        self._plan.ends.forget()
        for task in self._tasks:
            with self._plan.failing(task):
                self._uncommitted |= task.hear_inputs(self._expected)
            idle = task.head_ms() is None and (task.clocks is None or task.clocks.all_idle) and not self._expects(task)
            if idle != task.idle:
                task.idle = idle
                with self._plan.failing(task):
                    task.tell_time(flushed=False)
                # Behind a cache idleness is told with the next commit, so there must be one.
                self._uncommitted |= bool(task.outgoing)

    def _expects(self, task: Task) -> bool:
        return bool(self._expected) and any(source.partition in self._expected for source in task.inputs)

    def _wait(self, consumer: Consumer, timeout: float) -> None:
        if self._clock.monotonic() - self._looked >= _TOPICS_S:
            self._check_topics()
        if timeout > 0 and self._member is not None:
            # What comes is taken at once: the inputs are empty. The group may want something, too.
            self._member.tell_if_idle()
            for batch in consumer.poll_batches(min(timeout, _WAIT_MAX_S), _FETCH_BYTES):
                self._take(batch, None)
        elif timeout > 0:
            positions = {partition: consumer.position(partition) for partition in self._by_partition}
            # Never without end: a `stop` between the look at `_stopping` and the beginning of the wait wakes nobody.
            self._log.wait_for_data(positions, min(timeout, _WAIT_MAX_S))

    def _set_limits(self, ends: dict[TopicPartition, int] | None) -> bool:
        """Says which sources wait for others; returns whether all do, until what is in repartitions was read."""
        if self._plan.may_change and self._member is not None and self._member.runs_all():
            hold_sources(self._tasks)
            if ends is not None:
                self._grown(ends)
            return True
        if self._turns is not None:
            self._turns.set_limits(self._tasks, ends)
        return False

    def _leave_log(self, consumer: Consumer) -> None:
        """Ends the plan when nothing is left in the topics of repartitions, so that another may have them in memory."""
        if self._uncommitted:
            self.commit()
        elif all_read(self._tasks, self._log):
            self._trimmer.trim(self._tasks)
            raise PlanOverError
        else:  # a transaction that nobody will commit
            self._wait_for_others(consumer)

    # ------------------------------------------------------------ running

    def _run_oldest(self, task: Task) -> None:
        """Runs a slice of the task with the oldest record; where there are several lanes, a round of all."""
        self._uncommitted = True
        began = self._clock.monotonic()
        if self._rounds is None:
            self._records_in += self._run_slice(task, 0)
        else:
            self._records_in += self._rounds.run(self._plan.lanes, self._run_slice)
        if self._rest is not None:
            self._stopping.wait(self._rest(self._clock.monotonic() - began))

    def _run_slice(self, task: Task, lane: int) -> int:
        began = self._clock.monotonic()
        late = began + _SLICE_SECONDS
        with self._plan.failing(task):
            before = task.records_in
            ran = task.run(self._slices[lane], lambda: self._clock.monotonic() > late)
            records = task.records_in - before
            task.tell_time(flushed=False)
        took = self._clock.monotonic() - began
        if took > _SLICE_SECONDS:
            self._slices[lane] = max(int(ran * _SLICE_SECONDS / took), 1)
        elif took < _SLICE_SECONDS / 4:
            self._slices[lane] = min(self._slices[lane] * 2, _SLICE)
        return records

    def _listen(self) -> None:
        """Lets the time of tasks go on to which nothing has come for long."""
        now_s = self._clock.monotonic() if self._listening else 0.0
        for task in self._listening:
            self._uncommitted |= task.listen(now_s)

    def _call_by_the_clock(self) -> None:
        """Calls what processors have scheduled on the wall clock and is due."""
        calls = [task for task in self._tasks if task.context.wall_calls.next_ms < NONE_DUE]
        now_ms = self._clock.now_ms() if calls else 0
        for task in calls:
            if task.context.wall_calls.next_ms <= now_ms:
                self._uncommitted = True
                with self._plan.failing(task):
                    task.context.wall_calls.run(now_ms)

    def _next_call(self) -> float:
        """In how many seconds something is due by the wall clock."""
        due_ms = min((task.context.wall_calls.next_ms for task in self._tasks), default=NONE_DUE)
        left = (due_ms - self._clock.now_ms()) / 1000
        if not self._listening:
            return left
        return min(
            left, min(task.listening.due_s for task in self._listening if task.listening) - self._clock.monotonic()
        )

    def _dirty(self) -> int:
        return sum(task.dirty() for task in self._tasks)
