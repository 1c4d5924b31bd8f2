"""The small parts that threads meet in: waiting, syncing together, calling later."""

import threading

from tailrace.log.clock import ManualClock
from tailrace.log.record import TopicPartition
from tailrace.log.syncer import Done, Syncer
from tailrace.log.timers import Timers
from tailrace.log.waiting import Waiting

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Target:
    """Something to sync, which may be held up and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.syncs = 0
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def sync(self) -> int:
        self.started.set()
        assert self.go_on.wait(timeout=30)
        self.syncs += 1
        if self.error is not None:
            raise self.error
        return self.syncs


def test_only_who_waits_for_a_partition_is_woken() -> None:
    waiting = Waiting()
    woken: list[str] = []

    def first() -> None:
        woken.append("first")

    def second() -> None:
        woken.append("second")

    waiting.add([A, B], first)
    waiting.add([B], second)
    waiting.appended(A)
    assert woken == ["first"]
    waiting.appended(B)
    assert woken == ["first", "first", "second"]
    waiting.remove(first)
    waiting.appended(A)
    waiting.wake_all()
    assert woken == ["first", "first", "second", "second"]


def test_who_waits_for_nothing_is_woken_with_all() -> None:
    waiting = Waiting()
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)

    waiting.add([], wake)
    waiting.wake_all()
    waiting.remove(wake)
    waiting.wake_all()
    assert woken == [1]


def test_many_who_ask_during_a_sync_share_the_next() -> None:
    syncer, target = Syncer(background=True), Target()
    answers: list[BaseException | None] = []
    answered = threading.Semaphore(0)

    def done(error: BaseException | None) -> None:
        answers.append(error)
        answered.release()

    target.go_on.clear()
    syncer.request(target, done)
    assert target.started.wait(timeout=30)
    for _ in range(10):
        syncer.request(target, done)
    target.go_on.set()
    for _ in range(11):
        assert answered.acquire(timeout=30)
    assert (answers, target.syncs) == ([None] * 11, 2)
    syncer.close()


def test_an_error_goes_to_those_of_its_target_alone() -> None:
    for background in (True, False):
        syncer = Syncer(background=background)
        good, bad = Target(), Target(OSError("bad sector"))
        answers: dict[str, BaseException | None] = {}
        good.go_on.clear()
        if not background:
            good.go_on.set()

        def into(name: str, answers: dict[str, BaseException | None] = answers) -> Done:
            return lambda error: answers.__setitem__(name, error)

        syncer.request(good, into("first"))
        syncer.request(good, into("good"))
        syncer.request(bad, into("bad"))
        good.go_on.set()
        syncer.close()
        assert answers == {"first": None, "good": None, "bad": bad.error}


def test_after_closing_a_sync_is_made_at_once() -> None:
    syncer, target = Syncer(background=True), Target()
    syncer.close()
    answers: list[BaseException | None] = []
    syncer.request(target, answers.append)
    assert (answers, target.syncs) == ([None], 1)


def test_timers_call_in_the_order_of_their_times() -> None:
    clock = ManualClock()
    timers = Timers(clock)
    called: list[str] = []
    last = threading.Event()
    timers.after(0.02, last.set)
    timers.after(0.01, lambda: called.append("second"))
    timers.after(0.0, lambda: called.append("first"))
    clock.advance(20)
    assert last.wait(timeout=30)
    assert called == ["first", "second"]
    timers.after(60, lambda: called.append("never"))
    timers.close()
    timers.after(0, lambda: called.append("never"))
    assert called == ["first", "second"]


def test_without_a_thread_nothing_is_called() -> None:
    timers = Timers(ManualClock(), background=False)
    called: list[int] = []
    timers.after(0, lambda: called.append(1))
    timers.close()
    assert called == []
