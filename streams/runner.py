"""Runs the tasks of one app: chooses which is next, commits, begins anew from the last commit, stops.

1. The task with the oldest record that waits runs next, a slice at a time: event time advances evenly over partitions,
   so that few windows are open at once. What is late does not depend on it.
2. Everything runs in one thread, unless there are several lanes: then slices of these run side by side, and all else
   in one thread while none does (rounds). `stop` and `summary` may be called from any other: the slice at hand is
   finished, and committed before `run` returns.
3. An error that may pass aborts: all tasks are dropped with whatever they hold, and made anew from the last commit, as
   a restart would make them (start). So nothing that is added to a task can be forgotten by an abort. The same happens
   to a member that its group has expelled, and where the log has aborted a transaction after its time-out.
4. With a member, tasks come and go between two slices: `hand_over` is called within a poll, and leaves none of what it
   was given behind.
5. A plan that is over at a commit (PlanOverError) is followed by another: where all tasks have come together, so that
   repartitions may be in memory, and where some of them go again.

A run is a loop of turns, and a turn never waits: whoever drives an app by hand takes the same ones.

Not here: what is read (reader), what a task does (task), what a commit does (commit), which tasks there are (plan), how
much was done (account).
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

from tailrace.log.client import Log
from tailrace.log.clock import Clock
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.positions import Deleted, tell_what_is_behind_transactions, warn_deleted
from tailrace.streams.chain.schedule import NONE_DUE
from tailrace.streams.commit import Committer, commit
from tailrace.streams.planning.plan import Loaded, Plan
from tailrace.streams.planning.units import Unit
from tailrace.streams.running.account import Account
from tailrace.streams.running.member import Member, PlanOverError
from tailrace.streams.running.pace import Pace
from tailrace.streams.running.patience import PASSING, Passing, Patience
from tailrace.streams.running.precedence import PIECE_S, GivingWay, precedence_on
from tailrace.streams.running.reader import Reader
from tailrace.streams.running.rounds import Rounds, in_turn, oldest
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
# How long at most nothing is looked at while there is nothing to do: a `stop` between the look at `_stopping` and the
# beginning of the wait wakes nobody.
_WAIT_MAX_S = 0.5
# How often a run that has nothing to commit looks whether its topics are what they were.
_TOPICS_S = 1.0

Ends = dict[TopicPartition, int]
"""Where a run to the end ends."""

Waits = Literal["records", "others"]
"""What there is to wait for after a turn: records, all being read; or what other members do."""


class Runner:
    """Runs a plan until its inputs end, or until it is stopped.

    eager: commits come soon after everything was read, and not at the interval alone (pace).
    cache_entries is for all stores together.
    again makes another plan from the last commit, given the error for which the one at hand is dropped, or None where
    it is over; without it such an error ends the run.
    gives_way: to the apps that run on the log; without it the app is one of those that go first.
    deleted is told of input that is gone unread, before that is left out and counted; it may raise.
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
        gives_way: GivingWay | None = None,
        deleted: Deleted = warn_deleted,
    ) -> None:
        self._log = log
        self._gives_way = gives_way
        self._first = precedence_on(log) if gives_way is None else None
        self._deleted = deleted
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
        self._looked = 0.0
        self._wall_ms = 0
        """What the wall clock said when something was to be called by it."""
        self._to_end = False
        self._account = Account(log, clock)
        self._adopt(plan)
        # By lane; they begin with one record: nobody knows yet how slow the user's functions are.
        self._slices = [1] * len(plan.lanes)
        self._rounds = Rounds(len(plan.lanes), clock) if len(plan.lanes) > 1 else None

    def _adopt(self, plan: Plan) -> None:
        """Takes a plan up whose tasks stand at the last commit."""
        self._plan = plan
        self._ran = False
        self._account.begin(plan)
        self._reader = Reader(plan, self._log, self._clock, self._member, self._deleted)
        self._turns = (
            None
            if plan.skew_ms is None
            else Turns(self._log, self._clock, plan.group, plan.decodings, plan.skew_ms, self._commit_s)
        )
        if self._member is not None:
            self._member.hand_over = self._hand_over
        self._follow()
        if self._gives_way is not None:
            self._gives_way.begin()

    def _follow(self) -> None:
        """Goes on with the tasks that the plan has now."""
        plan = self._plan
        stores = sum(len(task.stores) for task in plan.tasks) or 1
        self._reader.follow()
        self._committer = Committer(
            plan.group,
            self._log,
            plan.producer,
            plan.outputs,
            plan.failing,
            self._clock.now_ms,
            self._cache_entries // stores,
            plan.transactional,
            self._pause,
            None if self._member is None else self._member.who,
        )

    def stop(self) -> None:
        """Has `run` finish its slice, commit and return."""
        self._stopping.set()
        self._log.wake()

    def summary(self) -> Summary:
        """What was done so far; any thread may ask."""
        return self._account.summary()

    # ------------------------------------------------------------ a run

    def run(self, *, until_end: bool, stop_at: Mapping[TopicPartition, int] | None = None) -> Summary:
        """Runs until `stop`, or until every input was read to where it ended at the start; commits and returns.

        stop_at: offsets at which inputs count as ended, where they end later.

        Raises:
            TaskError: a function of the user raised.
            DecodeError: a record cannot be read, and the app's policy is to fail.
            InvalidError: a topic that it reads was deleted, and perhaps made anew, or, where there is no end, got
                partitions.
        """
        self._to_end = until_end
        with self._account.running(), nullcontext() if self._first is None else self._first.run():
            try:
                self._run(self._first_ends(stop_at or {}) if until_end else None)
            except InvalidError:
                self._check_topics(after_error=True)
                raise
            finally:
                if self._rounds is not None:
                    self._rounds.close()
        return self.summary()

    def _first_ends(self, stop_at: Mapping[TopicPartition, int]) -> Ends:
        ends = self._reader.ends() | {each: end for each, end in stop_at.items() if self._reader.knows(each)}
        asked = {*stop_at, *(each for each in ends if each.topic in self._plan.inner_topics)}
        outer = {each: end for each, end in ends.items() if each not in asked}
        tell_what_is_behind_transactions(self._log, self._plan.group, outer)
        return ends

    def _run(self, ends: Ends | None) -> None:
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
                ends = self._reader.ends() | ends

    def _run_plan(self, ends: Ends | None) -> None:
        with self.reading():
            self.speak_first()
            while not self._stopping.is_set():
                self._account.answer()
                with self._first or nullcontext():
                    waits_for = self.turn(ends)
                if waits_for == "others":
                    self._reader.wait_for_others()
                elif waits_for == "records":
                    if ends is None:
                        self._wait()
                    elif self._at_end(ends):
                        break
            if self._uncommitted:
                self.commit()
            self._trimmer.trim(self._plan.tasks)

    def reading(self) -> AbstractContextManager[None]:
        """Around the turns of a plan: its inputs are read, from its positions on."""
        return self._reader.reading()

    def speak_first(self) -> None:
        """Before the first turn of a plan, a commit of where it stands: who reads its rows must not go on past them."""
        self._pace.begin()
        if self._plan.through_log:
            self.commit()

    def turn(self, ends: Ends | None) -> Waits | None:
        """Reads, runs a slice of the task with the oldest record, and commits if it is time to. Raises as `run`.

        Returns what there is to wait for, None where it is nothing. PlanOverError: another plan is to be made.
        """
        self._take_over()
        self._reader.fetch(ends)  # after it: what was taken over is not at its end because nothing waits
        if ends is None:
            self._reader.listen()
        leaves_log = self._set_limits(ends)
        task = oldest(self._plan.tasks)
        if task is not None:
            self._run_oldest(task, ends)
        # At the end a schedule shorter than a commit would put that off.
        if not leaves_log and (task is not None or ends is None):
            self._call_by_the_clock()
        if self._uncommitted and (self._pace.left(caught_up=task is None) <= 0 or self._dirty() >= _DIRTY_MAX):
            self.commit()
        if task is not None:
            return None
        if leaves_log:
            return self._leave_log()
        return "others" if self._turns is not None and self._turns.waits(self._plan.tasks) else "records"

    def run_waiting(self) -> None:
        """Runs what the log has by now, then what is due by the wall clock; commits nothing. Raises as `turn`.

        What is written meanwhile to topics that the app reads waits for the next call. A member looks at its group
        first: that may commit what is handed over.
        """
        self._reader.look_at_group(after_s=0)
        self._take_over()
        ends = self._reader.ends()
        while True:
            self._reader.fetch(ends)
            self._reader.listen()
            leaves_log = self._set_limits(ends)
            task = oldest(self._plan.tasks)
            if task is None:
                break
            self._run_oldest(task, ends)
        if leaves_log:
            self._leave_log()
        else:
            self._call_by_the_clock()

    def _at_end(self, ends: Ends) -> bool:
        """Whether all is committed up to the ends, where all was read."""
        if self._uncommitted:
            # Once more: behind a cache the readers learn from the commit that this is the end.
            self.commit()
            return False
        if self._member is not None and not self._member.done_elsewhere(ends, self._reader.partitions):
            self._reader.wait_for_others()
            return False
        return not self._reader.grown(ends)

    def _wait(self) -> None:
        """Until there may be records, or something is due."""
        if self._clock.monotonic() - self._looked >= _TOPICS_S:
            self._check_topics()
        due = min(self._next_call(), self._reader.next_silence())
        if self._uncommitted:
            due = min(due, self._pace.left(caught_up=True))
        self._reader.wait(min(due, _WAIT_MAX_S))
        if not self._uncommitted:
            self._pace.begin()

    def expect(self, partition: TopicPartition) -> None:
        """Says that more will come from a partition: its task is not idle, though it has read all there is."""
        self._reader.expect(partition)

    def expect_nothing(self) -> None:
        """Takes back every `expect`."""
        self._reader.expect_nothing()

    # ------------------------------------------------------------ a commit

    @property
    def _uncommitted(self) -> bool:
        return self._ran or self._reader.moved

    def commit(self) -> None:
        """Commits what was run. Raises as `run`."""
        self._check_topics()
        began = self._clock.monotonic()
        commit(self._plan.tasks, self._committer)
        self._pace.committed(began)
        self._ran = self._reader.moved = False
        self._account.committed()
        self._patience.reset()
        self._trimmer.after_commit(self._plan.tasks)

    def _check_topics(self, *, after_error: bool = False) -> None:
        """Raises InvalidError where a topic is not the one that the app began with."""
        self._looked = self._clock.monotonic()
        if self._plan.in_use is not None:
            self._plan.in_use.check(after_error=after_error, may_grow=self._may_grow)

    def _may_grow(self, topic: str) -> bool:
        """Whether partitions that a topic gets belong to the next run: what is read to its end ends where it did."""
        return self._to_end and topic not in self._plan.inner_topics

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

    # ------------------------------------------------------------ tasks that come and go

    def _take_over(self) -> None:
        """Adds the tasks that are ready to be run here."""
        loaded = [] if self._member is None else self._member.work()
        if not loaded:
            return
        assert self._add is not None
        self._add(self._plan, loaded)
        self._follow()
        self._reader.seek(partition for each in loaded for partition in each.unit.inputs)
        if self._plan.through_log:
            self.commit()

    def _hand_over(self, units: Sequence[Unit]) -> None:
        """Commits what was run, and lets go of tasks that are going to run elsewhere."""
        self._check_topics()
        if self._uncommitted:
            self.commit()
        self._account.removed(self._plan.remove(units))
        self._follow()

    def _set_limits(self, ends: Ends | None) -> bool:
        """Says which sources wait for others; returns whether all do, until what is in repartitions was read."""
        if self._plan.may_change and self._member is not None and self._member.runs_all():
            hold_sources(self._plan.tasks)
            if ends is not None:
                self._reader.grown(ends)
            return True
        if self._turns is not None:
            self._turns.set_limits(self._plan.tasks, ends)
        return False

    def _leave_log(self) -> Waits | None:
        """Ends the plan when nothing is left in the topics of repartitions, so that another may have them in memory."""
        if self._uncommitted:
            self.commit()
            return None
        if not all_read(self._plan.tasks, self._log):
            return "others"  # a transaction that nobody will commit
        self._trimmer.trim(self._plan.tasks)
        raise PlanOverError

    def _begin_another(self) -> None:
        """Goes on with another plan, where the one at hand is over."""
        assert self._again is not None
        try:
            self._adopt(self._again(None))
        except PASSING as error:
            self._abort(error)

    # ------------------------------------------------------------ a slice

    def _run_oldest(self, task: Task, ends: Ends | None) -> None:
        """Runs a slice of the task with the oldest record; where there are several lanes, a round of all."""
        self._ran = True
        began, handed_over = self._clock.monotonic(), self._plan.handed_over()
        if self._rounds is None:
            wait, late = None if self._turns is None else partial(self._set_limits, ends), began + self._slice_s

            def enough() -> bool:
                return self._clock.monotonic() > late or self._dirty() >= _DIRTY_MAX

            self._account.ran(in_turn(task, self._plan.tasks, self._run_slice, wait, _SLICE, enough))
        else:
            self._account.ran(self._rounds.run(self._plan.lanes, self._run_slice, self._slice_s))
        self._pause()
        if self._plan.handed_over() != handed_over:
            self._pace.sent_ahead()

    @property
    def _slice_s(self) -> float:
        """How long a slice may take."""
        return PIECE_S if self._gives_way is not None and self._gives_way.beside else _SLICE_SECONDS

    def _pause(self) -> None:
        """Between two pieces of work: whoever gives way does so."""
        if self._gives_way is not None:
            self._gives_way.pause(self._stopping.wait)

    def _run_slice(self, task: Task, lane: int) -> int:
        began, slice_s = self._clock.monotonic(), self._slice_s
        late = began + slice_s
        with self._plan.failing(task):
            before = task.records_in
            ran = task.run(self._slices[lane], lambda: self._clock.monotonic() > late)
            records = task.records_in - before
            task.tell_time(flushed=False)
        took = self._clock.monotonic() - began
        if took > slice_s:
            self._slices[lane] = max(int(ran * slice_s / took), 1)
        elif took < slice_s / 4:
            self._slices[lane] = min(self._slices[lane] * 2, _SLICE)
        return records

    def _call_by_the_clock(self) -> None:
        """Calls what processors have scheduled on the wall clock and is due."""
        calls = [task for task in self._plan.tasks if task.context.wall_calls.next_ms < NONE_DUE]
        if not calls:
            return
        before_ms, now_ms = self._wall_ms, self._clock.now_ms()
        self._wall_ms = now_ms
        for task in calls:
            if now_ms < before_ms:
                task.context.wall_calls.set_back(now_ms)
            if task.context.wall_calls.next_ms <= now_ms:
                self._ran = True
                with self._plan.failing(task):
                    task.context.wall_calls.run(now_ms)

    def _next_call(self) -> float:
        """In how many seconds something is due by the wall clock."""
        due_ms = min((task.context.wall_calls.next_ms for task in self._plan.tasks), default=NONE_DUE)
        return (due_ms - self._clock.now_ms()) / 1000

    def _dirty(self) -> int:
        return sum(task.dirty() for task in self._plan.tasks)
